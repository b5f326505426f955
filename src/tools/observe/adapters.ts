/*
 * The machine's adapters as observed programs name them, and their GIDs from sysfs, by which the ends of a connection
 * find each other.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { addressText, parseAddress } from '../../transport/wire/address.ts'
import { FileKind } from './file-layout.ts'
import type { ObservedDevice, ObservedObject } from './objects.ts'
import type { DescriptorRecord } from './records.ts'

/** The device of files that belong to none. */
export const SYSTEM = 'system'

/** The adapter of a file in /dev/infiniband, from sysfs; undefined: unknown. */
export const adapterOf = ({ fileKind, path }: Pick<DescriptorRecord, 'fileKind' | 'path'>): string | undefined => {
  if (fileKind === FileKind.CM) return SYSTEM
  const folder = fileKind === FileKind.VERBS ? 'infiniband_verbs' : 'infiniband_mad'
  try {
    return readFileSync(`/sys/class/${folder}/${basename(path)}/ibdev`, 'utf8').trim()
  } catch {
    return undefined
  }
}

/** The GIDs of an adapter, from sysfs; none if it cannot be read. */
const gidsOf = (device: string): Uint8Array[] => {
  const ports = `/sys/class/infiniband/${device}/ports`
  try {
    return readdirSync(ports).flatMap(port =>
      readdirSync(`${ports}/${port}/gids`).flatMap(index => {
        try {
          return parseAddress(readFileSync(`${ports}/${port}/gids/${index}`, 'utf8').trim()) ?? []
        } catch {
          return []
        }
      }),
    )
  } catch {
    return []
  }
}

/** The GID table of the first port, by index; empty where there is no GID. */
export const gidTableOf = (device: string): (Uint8Array | undefined)[] => {
  const folder = `/sys/class/infiniband/${device}/ports/1/gids`
  const table: (Uint8Array | undefined)[] = []
  try {
    for (const index of readdirSync(folder)) {
      try {
        const gid = parseAddress(readFileSync(`${folder}/${index}`, 'utf8').trim())
        table[Number(index)] = gid?.some(byte => byte !== 0) ? gid : undefined
      } catch {
        // Linux answers EINVAL for an empty entry.
      }
    }
  } catch {
    return []
  }
  return Array.from(table)
}

export class Adapters {
  readonly #devices: ObservedDevice[] = []
  /** By GID as text: the device's index. */
  readonly #deviceOfGid = new Map<string, number>()

  /** The device with a name, which is new the first time. */
  named(name: string): ObservedDevice {
    let device = this.#devices.find(one => one.name === name)
    if (device === undefined) {
      device = { index: this.#devices.length, name, regions: new Map(), qps: new Map(), knowsAllKeys: true }
      this.#devices.push(device)
    }
    return device
  }

  at(index: number): ObservedDevice | undefined {
    return this.#devices[index]
  }

  readGids({ name, index }: ObservedDevice): void {
    for (const gid of gidsOf(name)) if (gid.some(byte => byte !== 0)) this.#deviceOfGid.set(addressText(gid), index)
  }

  /** The index of the device with a GID. */
  withGid(gid: Uint8Array): number | undefined {
    return this.#deviceOfGid.get(addressText(gid))
  }

  /** The index of the device at the other end of a queue pair; undefined: none of this machine's. */
  ofPeer({ attributes }: ObservedObject): number | undefined {
    const { dgid } = (attributes.address ?? {}) as { readonly dgid?: Uint8Array }
    return dgid && this.withGid(dgid)
  }

  /** A queue pair has got the address of its peer: reads the GIDs again if they lack it. */
  learnPeer(qp: ObservedObject): void {
    if (this.ofPeer(qp) === undefined) for (const device of this.#devices) this.readGids(device)
  }
}
