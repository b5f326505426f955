/*
 * Compares the attributes of the two queue pairs of a connection (IBA 9.7, 10.3): which of them do not fit
 * (`mismatches`), and a table of all known ones (`attributeTable`).
 */

import type { CauseName } from '../spec/check/causes.ts'
import type { FindingId } from '../spec/check/findings.ts'
import { Mtu, QpState } from '../spec/enums.ts'
import { addressText } from '../wire/address.ts'
import { type KnownObject, stateOf, typeOf } from './objects.ts'

const { RESET, INIT, RTR, RTS, SQD, SQE, ERR } = QpState.values

/** The number of the device that has a GID; undefined if it is no device of this process. */
export type DeviceWithGid = (gid: Uint8Array) => number | undefined

const stateNumber = ({ qp }: KnownObject): number => qp.state ?? RESET
/** Whether a queue pair is in RTR or a later state other than ERR, and so has the attributes that RTR needs. */
export const hasReachedRtr = (qp: KnownObject): boolean => {
  const state = stateNumber(qp)
  return state === RTR || state === RTS || state === SQD || state === SQE
}

/** Whether dest_qp_num and dgid of `qp` are those of `peer`. */
const isConnectedTo = (qp: KnownObject, peer: KnownObject, deviceWith: DeviceWithGid): boolean => {
  const { destQpn, address } = qp.qp
  return destQpn === peer.qpn && address !== undefined && deviceWith(address.dgid) === peer.device
}

/** Whether two queue pairs are each other's peer, and both have reached RTR. */
export const areConnected = (a: KnownObject, b: KnownObject, deviceWith: DeviceWithGid): boolean =>
  hasReachedRtr(a) && hasReachedRtr(b) && isConnectedTo(a, b, deviceWith) && isConnectedTo(b, a, deviceWith)

/** Whether two attributes differ; an unknown one does not. */
const differs = (a: number | undefined, b: number | undefined): boolean => a !== undefined && b !== undefined && a !== b

/** Whether the receiver accepts the sender's PSNs. UC accepts any PSN at the beginning of a message (IBA 9.8.2). */
const psnsFit = (sender: KnownObject, receiver: KnownObject): boolean =>
  typeOf(sender) === 'UC' || !differs(sender.qp.sqPsn, receiver.qp.rqPsn)

/** Max_dest_rd_atomic is an 8-bit number: an unknown one is taken for the largest. */
const LARGEST_RD_ATOMIC = 255

/** Whether a requester can have at most as many READs and atomics outstanding as the responder accepts. */
const rdAtomicFits = (requester: KnownObject, responder: KnownObject): boolean =>
  (requester.qp.maxRdAtomic ?? 0) <= (responder.qp.maxDestRdAtomic ?? LARGEST_RD_ATOMIC)

/** Whether max_rd_atomic of each queue pair is at most max_dest_rd_atomic of the other. */
export const rdAtomicsFit = (a: KnownObject, b: KnownObject): boolean => rdAtomicFits(a, b) && rdAtomicFits(b, a)

/** Findings about states and attributes of a queue pair and its peer that do not fit; the likeliest cause first. */
export const mismatches = (qp: KnownObject, peer: KnownObject, deviceWith: DeviceWithGid): FindingId[] => {
  const found: FindingId[] = []
  const addIf = (id: FindingId, applies: boolean): void => {
    if (applies) found.push(id)
  }
  addIf('no-peer-qp', peer.destruction !== undefined)
  if (found.length > 0) return found
  addIf('service-mismatch', typeOf(qp) !== typeOf(peer))
  const peerState = stateNumber(peer)
  addIf('peer-not-ready', peerState === RESET || peerState === INIT)
  addIf('peer-in-error', peerState === ERR || peerState === SQE)
  if (!hasReachedRtr(peer)) return found
  addIf('peer-connected-elsewhere', !isConnectedTo(peer, qp, deviceWith))
  addIf('path-mtu-mismatch', differs(qp.qp.pathMtu, peer.qp.pathMtu))
  addIf('psn-mismatch', !psnsFit(qp, peer) || !psnsFit(peer, qp))
  return found
}

/** The mismatch of attributes that explains the cause of a failed request; undefined: none does. */
export const mismatchBehind = (cause: CauseName, requester: KnownObject, peer: KnownObject): FindingId | undefined => {
  // If sq_psn is below the responder's rq_psn, the responder takes the first packets of a message for duplicates.
  if (cause === 'OUT_OF_PLACE' && !psnsFit(requester, peer)) return 'psn-mismatch'
  // The responder cuts READ responses into packets of its own path MTU.
  if (cause === 'BAD_RESPONSE' && differs(requester.qp.pathMtu, peer.qp.pathMtu)) return 'path-mtu-mismatch'
  return undefined
}

const hex = (value: number | undefined): string | undefined =>
  value === undefined ? undefined : `0x${value.toString(16)}`
/** Bytes of an ibv_mtu, as text. */
const mtuBytes = (mtu: number | undefined): string | undefined =>
  Object.entries(Mtu.values)
    .find(([, value]) => value === mtu)?.[0]
    .replace(/^\D+/, '')
const decimal = (value: number | undefined): string | undefined => (value === undefined ? undefined : String(value))

/** The rows of `attributeTable`, with the names of struct ibv_qp_attr. `fits`: whether the value of one queue pair fits its peer. */
const attributeRows: readonly (readonly [
  name: string,
  textOf: (qp: KnownObject) => string | undefined,
  fits?: (qp: KnownObject, peer: KnownObject) => boolean,
])[] = [
  ['qp_type', typeOf, (one, peer) => typeOf(one) === typeOf(peer)],
  ['state', stateOf],
  ['dest_qp_num', ({ qp }) => hex(qp.destQpn), (one, peer) => !differs(one.qp.destQpn, peer.qpn)],
  ['path_mtu', ({ qp }) => mtuBytes(qp.pathMtu), (one, peer) => !differs(one.qp.pathMtu, peer.qp.pathMtu)],
  ['sq_psn', ({ qp }) => hex(qp.sqPsn), psnsFit],
  ['rq_psn', ({ qp }) => hex(qp.rqPsn), (one, peer) => psnsFit(peer, one)],
  ['max_rd_atomic', ({ qp }) => decimal(qp.maxRdAtomic), rdAtomicsFit],
  ['max_dest_rd_atomic', ({ qp }) => decimal(qp.maxDestRdAtomic)],
  ['timeout', ({ qp }) => decimal(qp.timeout)],
  ['retry_cnt', ({ qp }) => decimal(qp.retryCnt)],
  ['rnr_retry', ({ qp }) => decimal(qp.rnrRetry)],
  ['min_rnr_timer', ({ qp }) => decimal(qp.minRnrTimer)],
  ['qp_access_flags', ({ qp }) => hex(qp.accessFlags)],
  ['sgid_index', ({ qp }) => decimal(qp.address?.sgidIndex)],
  ['dgid', ({ qp }) => qp.address && addressText(qp.address.dgid)],
  ['pkey_index', ({ qp }) => decimal(qp.pkeyIndex)],
]

const UNKNOWN = '-'

/** Lines of a table of the attributes of both queue pairs; `< does not fit` ends a row whose values do not fit. */
export const attributeTable = (qp: KnownObject, peer: KnownObject): string[] => {
  const lines = [
    ['', qp.name, peer.name, ''],
    ...attributeRows
      .map(([name, textOf, fits]) => [
        name,
        textOf(qp) ?? UNKNOWN,
        textOf(peer) ?? UNKNOWN,
        fits !== undefined && (!fits(qp, peer) || !fits(peer, qp)) ? '< does not fit' : '',
      ])
      .filter(([, value, peerValue]) => value !== UNKNOWN || peerValue !== UNKNOWN),
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
