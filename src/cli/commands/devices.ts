/*
 * `userdma devices`: lists the devices of a daemon, as its system-wide device describes them (R13).
 */

import { type DeviceEntry, openSystem } from '../../library/open/system.ts'
import { classes } from '../../spec/classes.ts'
import { jsonText } from '../../spec/printable.ts'
import type { PciFunction } from '../../uapi/tool.ts'
import { printFromDaemon, type QueryOptions } from './stat.ts'

/** A device with its configuration. */
interface ConfiguredDevice extends DeviceEntry {
  /** The network address; undefined for a device without a network. */
  readonly address: string | undefined
  readonly pci: PciFunction | undefined
}

const HEADS = ['device', 'node', 'type', 'driver', 'ports', 'node GUID', 'address']

const pciText = ({ address, node, model }: PciFunction): string =>
  `${address} (${model}${node < 0 ? '' : `, NUMA node ${node}`})`

/** The output of `userdma devices`: a table. */
const devicesText = (devices: readonly ConfiguredDevice[]): string => {
  const hasPci = devices.some(({ pci }) => pci !== undefined)
  const heads = [...HEADS, ...(hasPci ? ['PCI function'] : [])]
  const rows = devices.map(({ name, index, nodeType, driver, ports, nodeGuid, address, pci }) => [
    name,
    `uverbs${index}`,
    nodeType ?? '?',
    driver,
    String(ports),
    nodeGuid,
    address ?? '-',
    ...(hasPci ? [pci === undefined ? '-' : pciText(pci)] : []),
  ])
  const widths = heads.map((head, i) => Math.max(head.length, ...rows.map(row => row[i]!.length)))
  const lines = [heads, ...rows].map(row => row.map((cell, i) => cell.padEnd(widths[i]!)).join('  '))
  return lines.map(line => `${line.trimEnd()}\n`).join('')
}

/** The name of a class; its id in hexadecimal if it is a driver's own. */
const classNameOf = (id: number): string => classes.find(cls => cls.id === id)?.name ?? `0x${id.toString(16)}`

/** The command. */
export const devices = (options: QueryOptions): Promise<void> =>
  printFromDaemon(options, async client => {
    const { devices: configured } = await client.config()
    const configOf = (device: string) => {
      const { address, pci } = configured.find(({ name }) => name === device) ?? {}
      // The configuration has '' for a device without a network.
      return { address: address || undefined, pci }
    }
    const system = openSystem({ socket: client.socket })
    try {
      const found = system.devices().map(entry => ({ ...entry, ...configOf(entry.name) }))
      if (!options.json) return devicesText(found)
      return `${jsonText(
        found.map(({ classes: ids, ...device }) => ({ ...device, classes: ids.map(classNameOf) })),
        2,
      )}\n`
    } finally {
      system.close()
    }
  })
