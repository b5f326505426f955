/*
 * The memory of programs of which messages may tell their receivers: regions that peers may access, and windows of
 * regions to which any may be bound.
 */
import type { MemoryTable } from '../../../core/memory/region-table.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import { AccessFlags, MrKind, REMOTE_RIGHTS } from '../../../spec/enums.ts'
import { TWO_32 } from '../../../spec/memory.ts'
import { AdvertisedKeys, type AdvertisedRegion } from '../../check/lends/messages.ts'

/** A region, or the part of one to which a window is bound. */
export interface Region extends AdvertisedRegion {
  readonly pid: number | undefined
  /** Of its first byte in the process. */
  readonly start: number
  readonly isReadable: boolean
}

export class AdvertisedRegions {
  /** By pid. */
  readonly #keys = new Map<number | undefined, AdvertisedKeys<Region>>()
  /** By `CoreObject.id` of regions; windows by device and row. */
  readonly #regions = new Map<number | string, Region>()
  /** Processes of the regions to which windows may be bound, by device and lkey, and those keys by `CoreObject.id`. */
  readonly #bindable = new Map<string, number | undefined>()
  readonly #bindableKeys = new Map<number, string>()

  /** Whether there is any, or a window may be bound. */
  get areAny(): boolean {
    return this.#regions.size + this.#bindable.size > 0
  }

  /** The keys of a process; undefined: it has none. */
  keysOf(pid: number | undefined): AdvertisedKeys<Region> | undefined {
    return this.#keys.get(pid)
  }

  #add(id: number | string, region: Region): void {
    let ofProgram = this.#keys.get(region.pid)
    if (ofProgram === undefined) {
      ofProgram = new AdvertisedKeys()
      this.#keys.set(region.pid, ofProgram)
    }
    this.#regions.set(id, region)
    ofProgram.add(region)
  }

  #forget(id: number | string): void {
    const region = this.#regions.get(id)
    if (region === undefined) return
    this.#regions.delete(id)
    const ofProgram = this.#keys.get(region.pid)
    ofProgram?.delete(region.device, region.rkey)
    if (ofProgram?.size === 0) this.#keys.delete(region.pid)
  }

  #forgetBindable(id: number): void {
    const key = this.#bindableKeys.get(id)
    if (key === undefined) return
    this.#bindableKeys.delete(id)
    this.#bindable.delete(key)
  }

  /** A call on a region has ended. */
  called({ method, object, refused, args, out, program, deviceNumber }: ProgramEvent<'called'>): void {
    if (object === undefined || refused !== undefined) return
    if (method === 'destroy' || method === 'modify') {
      this.#forget(object.id)
      this.#forgetBindable(object.id)
    }
    const { start, length, iova, access, kind = MrKind.values.MEMORY } = args
    if (method !== 'create' || typeof access !== 'number' || kind !== MrKind.values.MEMORY) return
    if ((access & AccessFlags.values.MW_BIND) !== 0 && typeof out.lkey === 'number') {
      const key = `${deviceNumber} ${out.lkey}`
      this.#bindable.set(key, program?.pid)
      this.#bindableKeys.set(object.id, key)
    }
    if ((access & REMOTE_RIGHTS) === 0 || typeof out.rkey !== 'number' || out.rkey === 0) return
    this.#add(object.id, {
      device: deviceNumber,
      pid: program?.pid,
      rkey: out.rkey,
      start: Number(start),
      iova: (access & AccessFlags.values.ZERO_BASED) === 0 ? Number(iova) : 0,
      length: Number(length),
      isReadable: (access & AccessFlags.values.REMOTE_READ) !== 0,
    })
  }

  /** The window of a row of a device's table was bound or unbound. */
  windowChanged(device: number, table: MemoryTable, row: number): void {
    const id = `${device} ${row}`
    this.#forget(id)
    const region = table.windowRegion[row]!
    const key = region < 0 ? '' : `${device} ${table.key[region]!}`
    if (!this.#bindable.has(key)) return
    this.#add(id, {
      device,
      pid: this.#bindable.get(key),
      rkey: table.key[row]!,
      start: table.startHi[row]! * TWO_32 + table.startLo[row]!,
      iova: table.iovaHi[row]! * TWO_32 + table.iovaLo[row]!,
      length: table.length[row]!,
      isReadable: (table.access[row]! & AccessFlags.values.REMOTE_READ) !== 0,
    })
  }
}
