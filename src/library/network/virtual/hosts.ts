/*
 * The hosts of a network with links: each has one soft device.
 */

import { didYouMean } from '../../../base/suggest.ts'
import { type LinkTopology, namesOf } from '../../../transport/phy/links/graph.ts'
import { formatValue, invalidArgument, refused } from '../../verbs/error.ts'

interface Hosts {
  /**
   * The number of a host without a device: the first one, or the one with the name `wanted`; undefined without links.
   * Throws RdmaError.
   */
  find(wanted: string | undefined): number | undefined
  /** `device`: its name; undefined: it was removed. */
  set(host: number | undefined, device: string | undefined): void
  /** The name of a device's host; undefined without links. */
  nameOf(device: string): string | undefined
}

/** Names that an error lists. */
const MAX_NAMED = 8

/** `topology`: undefined without links. */
export const createHosts = (topology: LinkTopology | undefined): Hosts => {
  const names = topology === undefined ? [] : namesOf(topology).slice(0, topology.hosts)
  /** By host. */
  const devices: (string | undefined)[] = names.map(() => undefined)
  return {
    find(wanted) {
      if (topology === undefined) {
        if (wanted === undefined) return undefined
        const reason = `host ${formatValue(wanted)}: the network has no links`
        throw invalidArgument('open', reason, 'pass links to createNetwork')
      }
      if (wanted === undefined) {
        const free = devices.indexOf(undefined)
        if (free >= 0) return free
        throw refused('ENOSPC', 'open', `each of the ${names.length} hosts has a device`, 'give links more hosts')
      }
      const host = names.indexOf(wanted)
      if (host < 0) {
        const reason = `there is no host ${formatValue(wanted)}${didYouMean(wanted, names)}`
        const more = names.length > MAX_NAMED ? ' …' : ''
        throw invalidArgument('open', reason, `the hosts are ${names.slice(0, MAX_NAMED).join(', ')}${more}`)
      }
      if (devices[host] === undefined) return host
      const reason = `host ${formatValue(wanted)} has the device ${devices[host]}`
      throw refused('EADDRINUSE', 'open', reason, 'a host has one device')
    },
    set(host, device) {
      if (host !== undefined) devices[host] = device
    },
    nameOf: device => names[devices.indexOf(device)],
  }
}
