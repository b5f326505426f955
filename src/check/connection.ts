/*
 * Compares the attributes of both ends of a connection: those that do not fit, and all of them side by side (IBA 9.7,
 * 10.3).
 */

import type { CauseName } from '../spec/check/causes.ts'
import type { FindingId } from '../spec/check/findings.ts'
import { Mtu, QpState } from '../spec/enums.ts'
import { addressText } from '../wire/address.ts'
import { type KnownObject, stateOf, typeOf } from './objects.ts'

const { RESET, INIT, RTR, RTS, SQE, ERR } = QpState.values

/** The number of the device that has a GID, if it is here. */
export type DeviceWithGid = (gid: Uint8Array) => number | undefined

const state = ({ qp }: KnownObject): number => qp.state ?? RESET
/** Past RTR, with the attributes of RTR. */
export const isPastRtr = (qp: KnownObject): boolean => [RTR, RTS, SQE].includes(state(qp) as 2)

/** Whether `from` names `to` as its peer. */
const names = (from: KnownObject, to: KnownObject, deviceWith: DeviceWithGid): boolean => {
  const { destQpn, address } = from.qp
  return destQpn === to.qpn && address !== undefined && deviceWith(address.dgid) === to.device
}

/** Whether each is the other's peer, and both are past RTR. */
export const areConnected = (one: KnownObject, other: KnownObject, deviceWith: DeviceWithGid): boolean =>
  isPastRtr(one) && isPastRtr(other) && names(one, other, deviceWith) && names(other, one, deviceWith)

const differs = (one: number | undefined, other: number | undefined): boolean =>
  one !== undefined && other !== undefined && one !== other

/** Whether the receiver accepts the sender's PSNs. UC accepts any PSN at the beginning of a message (IBA 9.8.2). */
const psnsFit = (from: KnownObject, to: KnownObject): boolean =>
  typeOf(from) === 'UC' || !differs(from.qp.sqPsn, to.qp.rqPsn)

/** Whether neither end may have more READs and atomics outstanding than the other accepts. */
export const readsFit = (one: KnownObject, other: KnownObject): boolean =>
  [
    [one, other],
    [other, one],
  ].every(([from, to]) => (from!.qp.maxRdAtomic ?? 0) <= (to!.qp.maxDestRdAtomic ?? 255))

/** Findings about attributes of a sender and its peer that do not fit; the likeliest cause of a failure first. */
export const misfits = (own: KnownObject, peer: KnownObject, deviceWith: DeviceWithGid): FindingId[] => {
  const found: FindingId[] = []
  const add = (id: FindingId, applies: boolean): void => {
    if (applies) found.push(id)
  }
  add('no-peer-qp', peer.gone !== undefined)
  if (found.length > 0) return found
  add('service-mismatch', typeOf(own) !== typeOf(peer))
  add('peer-not-ready', state(peer) === RESET || state(peer) === INIT)
  add('peer-in-error', state(peer) === ERR || state(peer) === SQE)
  if (!isPastRtr(peer)) return found
  add('peer-connected-elsewhere', !names(peer, own, deviceWith))
  add('path-mtu-mismatch', differs(own.qp.pathMtu, peer.qp.pathMtu))
  add('psn-mismatch', !psnsFit(own, peer) || !psnsFit(peer, own))
  return found
}

/** What does not fit between a sender and its peer, if a cause follows from that. */
export const misfitOf = (cause: CauseName, own: KnownObject, peer: KnownObject): FindingId | undefined => {
  // With too low a PSN, the first packets of a message are taken for duplicates.
  if (cause === 'OUT_OF_PLACE' && !psnsFit(own, peer)) return 'psn-mismatch'
  // Responses are cut into packets of the peer's path MTU.
  if (cause === 'BAD_RESPONSE' && differs(own.qp.pathMtu, peer.qp.pathMtu)) return 'path-mtu-mismatch'
  return undefined
}

const hex = (value: number | undefined): string | undefined =>
  value === undefined ? undefined : `0x${value.toString(16)}`
const mtuBytes = (mtu: number | undefined): string | undefined =>
  Object.entries(Mtu.values)
    .find(([, value]) => value === mtu)?.[0]
    .replace(/^\D+/, '')
const text = (value: number | undefined): string | undefined => (value === undefined ? undefined : String(value))

/** Attributes in pairs: a row is marked if the sender's value does not fit the one that the peer expects. */
const rows: readonly (readonly [
  name: string,
  of: (qp: KnownObject) => string | undefined,
  fits?: (own: KnownObject, peer: KnownObject) => boolean,
])[] = [
  ['qp_type', typeOf, (own, peer) => typeOf(own) === typeOf(peer)],
  ['state', stateOf],
  ['dest_qp_num', ({ qp }) => hex(qp.destQpn), (own, peer) => !differs(own.qp.destQpn, peer.qpn)],
  ['path_mtu', ({ qp }) => mtuBytes(qp.pathMtu), (own, peer) => !differs(own.qp.pathMtu, peer.qp.pathMtu)],
  ['sq_psn', ({ qp }) => hex(qp.sqPsn), psnsFit],
  ['rq_psn', ({ qp }) => hex(qp.rqPsn), (own, peer) => psnsFit(peer, own)],
  ['max_rd_atomic', ({ qp }) => text(qp.maxRdAtomic), readsFit],
  ['max_dest_rd_atomic', ({ qp }) => text(qp.maxDestRdAtomic)],
  ['timeout', ({ qp }) => text(qp.timeout)],
  ['retry_cnt', ({ qp }) => text(qp.retryCnt)],
  ['rnr_retry', ({ qp }) => text(qp.rnrRetry)],
  ['min_rnr_timer', ({ qp }) => text(qp.minRnrTimer)],
  ['qp_access_flags', ({ qp }) => hex(qp.accessFlags)],
  ['sgid_index', ({ qp }) => text(qp.address?.sgidIndex)],
  ['dgid', ({ qp }) => qp.address && addressText(qp.address.dgid)],
  ['pkey_index', ({ qp }) => text(qp.pkeyIndex)],
]

const UNKNOWN = '-'

/** The attributes of both ends as lines of a table; `<` marks those that do not fit. */
export const sideBySide = (own: KnownObject, peer: KnownObject): string[] => {
  const lines = [
    ['', own.name, peer.name, ''],
    ...rows
      .map(([name, of, fits]) => [
        name,
        of(own) ?? UNKNOWN,
        of(peer) ?? UNKNOWN,
        fits !== undefined && (!fits(own, peer) || !fits(peer, own)) ? '< does not fit' : '',
      ])
      .filter(([, left, right]) => left !== UNKNOWN || right !== UNKNOWN),
  ]
  const width = (column: number): number => Math.max(...lines.map(line => line[column]!.length))
  const widths = [width(0), width(1), width(2)]
  return lines.map(line =>
    line
      .map((cell, i) => (i < 3 ? cell.padEnd(widths[i]!) : cell))
      .join('  ')
      .trimEnd(),
  )
}
