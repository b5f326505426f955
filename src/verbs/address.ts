/*
 * Where packets go to, as a program says it (R10): on RoCE an IP address, with the MAC address of the next hop and a
 * VLAN if it wants to say them; on InfiniBand and Omni-Path a LID, and with `global` a GID besides; on iWARP nothing,
 * the connection has it. What becomes of it is the attribute of the device's link (spec/links.ts). No queue pair and no
 * address handle is known here.
 */
import type { Ah } from '../spec/classes/ah.ts'
import { type LinkName, Links } from '../spec/links.ts'
import type { In } from '../spec/schema/schema.ts'
import { parseAddress } from '../wire/address.ts'
import type { Words } from './checks/options.ts'
import { formatValue, invalidArgument, type RdmaError } from './error.ts'
import type { PathFacts } from './plan.ts'

/** How packets are marked and which way they take, beyond the address itself. */
export interface PathOptions {
  /** IPv4 TOS or IPv6 traffic class; default 0. */
  readonly trafficClass?: number
  /** 20 bits; default 0. */
  readonly flowLabel?: number
  /** Service level; default 0. */
  readonly sl?: number
  /** RoCE: MAC address of the next hop, as text ("02:00:00:00:00:01"). Without it the device finds it. */
  readonly dmac?: string
  /** RoCE: the VLAN, 0–4094. Without it that of the GID's interface. */
  readonly vlan?: number
  /** InfiniBand, Omni-Path: packets have a global route, to the peer's GID. Default: its LID alone. */
  readonly global?: boolean
  /** InfiniBand, Omni-Path: which of the port's LIDs they come from; default 0. */
  readonly srcPathBits?: number
}

export const pathWords: Words<PathOptions> = {
  trafficClass: true,
  flowLabel: true,
  sl: true,
  dmac: true,
  vlan: true,
  global: true,
  srcPathBits: true,
}

/** Who is meant: a GID as text (an IPv4 or IPv6 address), and on a link that has them a LID. */
export interface PeerAddress {
  readonly gid?: string | undefined
  readonly lid?: number | undefined
}

/** Attributes that say where to: those of the device's link. */
export type Addressing = Partial<
  Pick<In<typeof Ah.methods.modify>, 'address' | 'ibAddress' | 'opaAddress' | 'dmac' | 'vlan'>
>

const HOP_LIMIT = 64

export const noAddress = (call: string, gid: unknown): RdmaError =>
  invalidArgument(call, `gid ${formatValue(gid)} is no address`, 'it is text: "192.0.2.7", "2001:db8::1"')

/** The address that was read last: many paths in a row often have one end. */
let latest: { readonly text: string; readonly gid: Uint8Array } | undefined

/** What is called with it copies what it keeps. */
const gidOf = (call: string, text: string | undefined): Uint8Array => {
  if (latest === undefined || latest.text !== text) {
    const gid = typeof text === 'string' ? parseAddress(text) : undefined
    if (text === undefined || gid === undefined) throw noAddress(call, text)
    latest = { text, gid }
  }
  return latest.gid
}

/** Refuses what only other links have. */
const requireLink = (call: string, name: string, value: unknown, link: LinkName): void => {
  if (value !== undefined)
    throw invalidArgument(
      call,
      `${name} ${formatValue(value)}: the device's link is ${Links[link].title}; ${Links[link].because}`,
    )
}

const macOf = (call: string, text: string): Uint8Array => {
  const parts = typeof text === 'string' && /^[\da-f]{2}(:[\da-f]{2}){5}$/i.test(text) ? text.split(':') : undefined
  if (parts === undefined)
    throw invalidArgument(call, `dmac ${formatValue(text)} is no MAC address`, 'it is text: "02:00:00:00:00:01"')
  return Uint8Array.from(parts, part => Number.parseInt(part, 16))
}

/** What the addresses of all links have. */
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

/** The record of an address of a link with LIDs. */
const lidAddress = (call: string, path: PathFacts, to: PeerAddress, options: PathOptions, link: LinkName) => {
  requireLink(call, 'dmac', options.dmac, link)
  requireLink(call, 'vlan', options.vlan, link)
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

/** The record of an address of RoCE. */
const gidAddress = (call: string, path: PathFacts, to: PeerAddress, options: PathOptions) => {
  const gid = gidOf(call, to.gid)
  requireLink(call, 'lid', to.lid, 'roce')
  requireLink(call, 'srcPathBits', options.srcPathBits, 'roce')
  if (options.global === false) requireLink(call, 'global', false, 'roce')
  return routeTo(path, gid, 1, options)
}

/** The record itself, for the list of many; of a device that says no link RoCE's. */
export const addressRecord = (call: string, path: PathFacts, to: PeerAddress, options: PathOptions) =>
  path.link === 'ib' || path.link === 'opa'
    ? lidAddress(call, path, to, options, path.link)
    : gidAddress(call, path, to, options)

/** The attributes of the device's link for a path to there. Throws RdmaError for what another link has. */
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
