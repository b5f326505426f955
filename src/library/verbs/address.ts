/*
 * Converts the address of a peer (R10) to the address attributes of the device's link (spec/links.ts): a GID on RoCE,
 * a LID on InfiniBand and Omni-Path, none on iWARP, where the TCP connection has the addresses.
 */
import type { Ah } from '../../spec/classes/ah.ts'
import { type LinkName, Links } from '../../spec/links.ts'
import type { In } from '../../spec/schema/schema.ts'
import { parseAddress } from '../../transport/wire/address.ts'
import type { KnownOptions } from './arguments/options.ts'
import { checkInteger, formatValue, invalidArgument, type RdmaError } from './error.ts'
import type { LocalPath } from './plan.ts'

/** Options of a path besides the destination. */
export interface PathOptions {
  /** IPv4 TOS or IPv6 traffic class; default 0. */
  readonly trafficClass?: number | undefined
  /** 20 bits; default 0. */
  readonly flowLabel?: number | undefined
  /** Service level, 4 bits; default 0. */
  readonly sl?: number | undefined
  /** RoCE: MAC address of the next hop, as text ("02:00:00:00:00:01"). Default: the device resolves it. */
  readonly dmac?: string | undefined
  /** RoCE: the VLAN, 0–4094. Default: the VLAN of the GID's interface. */
  readonly vlan?: number | undefined
  /** InfiniBand, Omni-Path: packets have a GRH with the peer's GID. Default: no GRH, only the peer's LID. */
  readonly isGlobal?: boolean | undefined
  /** InfiniBand, Omni-Path: offset of the source LID within the port's LIDs; default 0. */
  readonly srcPathBits?: number | undefined
}

export const pathOptionNames: KnownOptions<PathOptions> = {
  trafficClass: true,
  flowLabel: true,
  sl: true,
  dmac: true,
  vlan: true,
  isGlobal: 'flag',
  srcPathBits: true,
}

/** The address of a peer: its GID as text (an IPv4 or IPv6 address), and its LID on InfiniBand and Omni-Path. */
interface PeerAddress {
  readonly gid?: string | undefined
  readonly lid?: number | undefined
}

/** The address attributes of the device's link. */
export type Addressing = Partial<
  Pick<In<typeof Ah.methods.modify>, 'address' | 'ibAddress' | 'opaAddress' | 'dmac' | 'vlan'>
>

/** The hop limit of the GRH; on RoCE the TTL or hop limit of the IP header. */
const HOP_LIMIT = 64

export const invalidGid = (call: string, gid: unknown): RdmaError =>
  invalidArgument(call, `gid ${formatValue(gid)} is not an address`, 'give text: "192.0.2.7", "2001:db8::1"')

/** The last parsed address: consecutive calls often have the same address. */
let lastParsed: { readonly text: string; readonly gid: Uint8Array } | undefined

/** The GID of an address as text. The result is shared: do not change it. Throws RdmaError EINVAL. */
const gidOf = (call: string, text: string | undefined): Uint8Array => {
  if (lastParsed === undefined || lastParsed.text !== text) {
    const gid = typeof text === 'string' ? parseAddress(text) : undefined
    if (text === undefined || gid === undefined) throw invalidGid(call, text)
    lastParsed = { text, gid }
  }
  return lastParsed.gid
}

/** Throws RdmaError EINVAL if an option of another link is set. */
const refuseOption = (call: string, name: string, value: unknown, link: LinkName): void => {
  if (value !== undefined)
    throw invalidArgument(
      call,
      `${name} ${formatValue(value)}: the device's link is ${Links[link].title}; ${Links[link].addressing}`,
    )
}

/** The 6 bytes of a MAC address as text. Throws RdmaError EINVAL. */
const macOf = (call: string, text: string): Uint8Array => {
  const parts = typeof text === 'string' && /^[\da-f]{2}(:[\da-f]{2}){5}$/i.test(text) ? text.split(':') : undefined
  if (parts === undefined)
    throw invalidArgument(call, `dmac ${formatValue(text)} is not a MAC address`, 'give text: "02:00:00:00:00:01"')
  return Uint8Array.from(parts, part => Number.parseInt(part, 16))
}

/** An option from 0 to `max`; default 0. Throws RdmaError EINVAL. */
const numberOf = (call: string, name: string, value: number | undefined, max: number): number => {
  if (value === undefined) return 0
  checkInteger(call, name, value, 0, max)
  return value
}

const commonFields = (
  call: string,
  { gidIndex }: LocalPath,
  dgid: Uint8Array,
  isGlobal: 0 | 1,
  options: PathOptions,
) => ({
  dgid,
  sgidIndex: gidIndex,
  port: 1,
  isGlobal,
  flowLabel: numberOf(call, 'flowLabel', options.flowLabel, 0xfffff),
  hopLimit: HOP_LIMIT,
  trafficClass: numberOf(call, 'trafficClass', options.trafficClass, 0xff),
  sl: numberOf(call, 'sl', options.sl, 15),
  /** IBV_RATE_MAX. */
  staticRate: 0,
})

const noGid = new Uint8Array(16)

const lidAddress = (call: string, path: LocalPath, peer: PeerAddress, options: PathOptions, link: LinkName) => {
  refuseOption(call, 'dmac', options.dmac, link)
  refuseOption(call, 'vlan', options.vlan, link)
  const { isGlobal = false, srcPathBits = 0 } = options
  if (peer.lid === undefined)
    throw invalidArgument(
      call,
      `lid is missing: the device's link is ${Links[link].title}`,
      "give the peer's `endpoint`, or { lid }",
    )
  const fields = commonFields(call, path, isGlobal ? gidOf(call, peer.gid) : noGid, isGlobal ? 1 : 0, options)
  return { ...fields, srcPathBits, dlid: peer.lid }
}

const gidAddress = (call: string, path: LocalPath, peer: PeerAddress, options: PathOptions) => {
  const gid = gidOf(call, peer.gid)
  refuseOption(call, 'lid', peer.lid, 'roce')
  refuseOption(call, 'srcPathBits', options.srcPathBits, 'roce')
  if (options.isGlobal === false) refuseOption(call, 'isGlobal', false, 'roce')
  return commonFields(call, path, gid, 1, options)
}

/**
 * The address record of the device's link, for the lists of `pd.createAhs`. Throws RdmaError EINVAL for options of
 * another link.
 */
export const addressRecord = (call: string, path: LocalPath, peer: PeerAddress, options: PathOptions) =>
  path.link === 'ib' || path.link === 'opa'
    ? lidAddress(call, path, peer, options, path.link)
    : gidAddress(call, path, peer, options)

/**
 * The address attributes of `ah.create` and of `modify` to RTR. If `path` has no link, the attributes of RoCE. Throws
 * RdmaError EINVAL for options of another link.
 */
export const addressing = (call: string, path: LocalPath, peer: PeerAddress, options: PathOptions = {}): Addressing => {
  const { link } = path
  if (link === 'iwarp') return {}
  if (link === 'ib') return { ibAddress: lidAddress(call, path, peer, options, link) }
  if (link === 'opa') return { opaAddress: lidAddress(call, path, peer, options, link) }
  const { dmac, vlan } = options
  const address = gidAddress(call, path, peer, options)
  if (dmac === undefined && vlan === undefined) return { address }
  return { address, ...(dmac !== undefined && { dmac: macOf(call, dmac) }), ...(vlan !== undefined && { vlan }) }
}
