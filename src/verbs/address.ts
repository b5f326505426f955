/*
 * Destinations as options (R10): on RoCE an IP address, optionally with the next hop's MAC address and a VLAN; on
 * InfiniBand and Omni-Path a LID, and with `global` a GID; on iWARP nothing, because the connection has the addresses.
 * They become the address attribute of the device's link (spec/links.ts).
 */
import type { Ah } from '../spec/classes/ah.ts'
import { type LinkName, Links } from '../spec/links.ts'
import type { In } from '../spec/schema/schema.ts'
import { parseAddress } from '../wire/address.ts'
import type { KnownOptions } from './checks/options.ts'
import { formatValue, invalidArgument, type RdmaError } from './error.ts'
import type { PathFacts } from './plan.ts'

/** Options of a path beyond the destination. */
export interface PathOptions {
  /** IPv4 TOS or IPv6 traffic class; default 0. */
  readonly trafficClass?: number
  /** 20 bits; default 0. */
  readonly flowLabel?: number
  /** Service level; default 0. */
  readonly sl?: number
  /** RoCE: MAC address of the next hop, as text ("02:00:00:00:00:01"). Default: the device resolves it. */
  readonly dmac?: string
  /** RoCE: the VLAN, 0–4094. Default: that of the GID's interface. */
  readonly vlan?: number
  /** InfiniBand, Omni-Path: packets have a global route, to the peer's GID. Default: the LID only. */
  readonly global?: boolean
  /** InfiniBand, Omni-Path: offset of the source LID within the port's LIDs; default 0. */
  readonly srcPathBits?: number
}

export const pathOptionNames: KnownOptions<PathOptions> = {
  trafficClass: true,
  flowLabel: true,
  sl: true,
  dmac: true,
  vlan: true,
  global: true,
  srcPathBits: true,
}

/** A destination: a GID as text (an IPv4 or IPv6 address), and a LID on links that have them. */
export interface PeerAddress {
  readonly gid?: string | undefined
  readonly lid?: number | undefined
}

/** The address attributes of the device's link. */
export type Addressing = Partial<
  Pick<In<typeof Ah.methods.modify>, 'address' | 'ibAddress' | 'opaAddress' | 'dmac' | 'vlan'>
>

const HOP_LIMIT = 64

export const noAddress = (call: string, gid: unknown): RdmaError =>
  invalidArgument(call, `gid ${formatValue(gid)} is not an address`, 'give text: "192.0.2.7", "2001:db8::1"')

/** Cache of the last parsed address: consecutive calls often name the same one. */
let latest: { readonly text: string; readonly gid: Uint8Array } | undefined

/** The GID of an address as text. The array is shared between calls: callers copy the bytes that they keep. */
const gidOf = (call: string, text: string | undefined): Uint8Array => {
  if (latest === undefined || latest.text !== text) {
    const gid = typeof text === 'string' ? parseAddress(text) : undefined
    if (text === undefined || gid === undefined) throw noAddress(call, text)
    latest = { text, gid }
  }
  return latest.gid
}

/** Throws EINVAL if an option of another link is set. */
const refuseOption = (call: string, name: string, value: unknown, link: LinkName): void => {
  if (value !== undefined)
    throw invalidArgument(
      call,
      `${name} ${formatValue(value)}: the device's link is ${Links[link].title}; ${Links[link].because}`,
    )
}

const macOf = (call: string, text: string): Uint8Array => {
  const parts = typeof text === 'string' && /^[\da-f]{2}(:[\da-f]{2}){5}$/i.test(text) ? text.split(':') : undefined
  if (parts === undefined)
    throw invalidArgument(call, `dmac ${formatValue(text)} is not a MAC address`, 'give text: "02:00:00:00:00:01"')
  return Uint8Array.from(parts, part => Number.parseInt(part, 16))
}

/** Fields of the addresses of all links. */
const routeTo = ({ gidIndex }: PathFacts, dgid: Uint8Array, isGlobal: 0 | 1, options: PathOptions) => ({
  dgid,
  sgidIndex: gidIndex,
  port: 1,
  isGlobal,
  flowLabel: options.flowLabel ?? 0,
  hopLimit: HOP_LIMIT,
  trafficClass: options.trafficClass ?? 0,
  sl: options.sl ?? 0,
  staticRate: 0,
})

const noGid = new Uint8Array(16)

/** The address record of a link with LIDs. */
const lidAddress = (call: string, path: PathFacts, to: PeerAddress, options: PathOptions, link: LinkName) => {
  refuseOption(call, 'dmac', options.dmac, link)
  refuseOption(call, 'vlan', options.vlan, link)
  const { global = false, srcPathBits = 0 } = options
  if (to.lid === undefined)
    throw invalidArgument(
      call,
      `lid is missing: the device's link is ${Links[link].title}`,
      "give the peer's `endpoint`, or { lid }",
    )
  const route = routeTo(path, global ? gidOf(call, to.gid) : noGid, global ? 1 : 0, options)
  return { ...route, srcPathBits, dlid: to.lid }
}

/** The address record of RoCE. */
const gidAddress = (call: string, path: PathFacts, to: PeerAddress, options: PathOptions) => {
  const gid = gidOf(call, to.gid)
  refuseOption(call, 'lid', to.lid, 'roce')
  refuseOption(call, 'srcPathBits', options.srcPathBits, 'roce')
  if (options.global === false) refuseOption(call, 'global', false, 'roce')
  return routeTo(path, gid, 1, options)
}

/** A record of the address attributes, for lists of addresses; RoCE's if the device does not name its link. */
export const addressRecord = (call: string, path: PathFacts, to: PeerAddress, options: PathOptions) =>
  path.link === 'ib' || path.link === 'opa'
    ? lidAddress(call, path, to, options, path.link)
    : gidAddress(call, path, to, options)

/** The address attributes of the device's link for this destination. Throws RdmaError for options of another link. */
export const addressing = (call: string, path: PathFacts, to: PeerAddress, options: PathOptions = {}): Addressing => {
  const { link } = path
  if (link === 'iwarp') return {}
  if (link === 'ib') return { ibAddress: lidAddress(call, path, to, options, link) }
  if (link === 'opa') return { opaAddress: lidAddress(call, path, to, options, link) }
  const { dmac, vlan } = options
  const address = gidAddress(call, path, to, options)
  if (dmac === undefined && vlan === undefined) return { address }
  return { address, ...(dmac !== undefined && { dmac: macOf(call, dmac) }), ...(vlan !== undefined && { vlan }) }
}
