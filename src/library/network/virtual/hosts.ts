/*
 * The hosts of a network with links: each has one soft device.
 */

import { didYouMean } from '../../../base/suggest.ts'
import { type LinkTopology, namesOf, subnetsOf } from '../../../transport/phy/links/graph.ts'
import { addressText, isMappedIpv4 } from '../../../transport/wire/address.ts'
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
  /** The address in its subnet of the host that `find` would find; undefined without routers. */
  addressOf(wanted: string | undefined): string | undefined
  /** Throws RdmaError EINVAL if an address, 16 bytes, is one of another subnet than that of its host. */
  checkAddress(host: number, address: Uint8Array): void
}

/** Names that an error lists. */
const MAX_NAMED = 8

/** A subnet has so many bits of addresses, or more. From this address on: 10.77.0.0, as in nets. */
const SUBNET_BITS = 8
const FIRST_ADDRESS = (10 * 256 + 77) * 2 ** 16

const ipv4Text = (address: number): string => [24, 16, 8, 0].map(shift => (address >>> shift) & 0xff).join('.')

/** Of the subnets of a topology with routers: the first address, how many there are, and by host its address. */
const createSubnets = (topology: LinkTopology) => {
  const subnetOf = subnetsOf(topology)
  const sizes: number[] = []
  const places = [...subnetOf].map(subnet => {
    sizes[subnet] = (sizes[subnet] ?? 0) + 1
    return sizes[subnet]
  })
  let next = FIRST_ADDRESS
  const ranges = sizes.map(hosts => {
    const count = 2 ** Math.max(SUBNET_BITS, Math.ceil(Math.log2(hosts + 2)))
    const first = Math.ceil(next / count) * count
    next = first + count
    return { first, count }
  })
  return {
    subnetOf,
    addressOf: (host: number): string => ipv4Text(ranges[subnetOf[host]!]!.first + places[host]!),
    /** The number of the subnet with an address; -1: none. */
    subnetAt(address: Uint8Array): number {
      if (!isMappedIpv4(address)) return -1
      const number = address.subarray(12).reduce((value, byte) => value * 256 + byte, 0)
      return ranges.findIndex(({ first, count }) => number >= first && number < first + count)
    },
  }
}

/** `topology`: undefined without links. */
export const createHosts = (topology: LinkTopology | undefined): Hosts => {
  const names = topology === undefined ? [] : namesOf(topology).slice(0, topology.hosts)
  const subnets = (topology?.routers ?? 0) > 0 ? createSubnets(topology!) : undefined
  /** By host. */
  const devices: (string | undefined)[] = names.map(() => undefined)
  const hosts: Hosts = {
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
    addressOf: wanted => subnets?.addressOf(hosts.find(wanted)!),
    checkAddress(host, address) {
      const subnet = subnets?.subnetAt(address) ?? -1
      if (subnets === undefined || subnet < 0 || subnet === subnets.subnetOf[host]) return
      const other = names[subnets.subnetOf.indexOf(subnet)]
      throw invalidArgument(
        'open',
        `address "${addressText(address)}" is in the subnet of host ${other}, and the device is at ${names[host]}`,
        `leave it out (${subnets.addressOf(host)}), or give one that is in no other subnet`,
      )
    },
  }
  return hosts
}
