/*
 * `userdma devices`: lists the devices of a daemon, as its system-wide device describes them (R13).
 */
import { classes } from '../../spec/classes.ts'
import { type DeviceEntry, openSystem } from '../../verbs/system.ts'
import { printFromDaemon, type QueryOptions } from './stat.ts'

/** A device, and its network address if it has one. */
interface AddressedDevice extends DeviceEntry {
  readonly address: string | undefined
}

const HEADS = ['device', 'node', 'type', 'driver', 'ports', 'node GUID', 'address']

/** The output of `userdma devices`: a table. */
const devicesText = (devices: readonly AddressedDevice[]): string => {
  const rows = devices.map(({ name, index, nodeType, driver, ports, nodeGuid, address }) => [
    name,
    `uverbs${index}`,
    nodeType ?? '?',
    driver,
    String(ports),
    nodeGuid,
    address ?? '-',
  ])
  const widths = HEADS.map((head, i) => Math.max(head.length, ...rows.map(row => row[i]!.length)))
  const lines = [HEADS, ...rows].map(row => row.map((cell, i) => cell.padEnd(widths[i]!)).join('  '))
  return lines.map(line => `${line.trimEnd()}\n`).join('')
}

/** The name of a class; its id in hexadecimal if it is a driver's own. */
const classNameOf = (id: number): string => classes.find(cls => cls.id === id)?.name ?? `0x${id.toString(16)}`

/** The command. */
export const devices = (options: QueryOptions): Promise<void> =>
  printFromDaemon(options, async client => {
    const { devices: configured } = await client.config()
    // The configuration has '' for a device without a network.
    const addressOf = (device: string) => configured.find(({ name }) => name === device)?.address || undefined
    const system = openSystem({ socket: client.socket })
    try {
      const found = system.devices().map(entry => ({ ...entry, address: addressOf(entry.name) }))
      if (!options.json) return devicesText(found)
      return `${JSON.stringify(
        found.map(({ classes: ids, ...device }) => ({ ...device, classes: ids.map(classNameOf) })),
        null,
        2,
      )}\n`
    } finally {
      system.close()
    }
  })
