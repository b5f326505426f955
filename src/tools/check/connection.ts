/*
 * Compares the attributes of a queue pair and its peer (IBA 9.7, 10.3).
 */

import type { CauseName } from '../../spec/check/causes.ts'
import type { Moment } from '../../spec/check/finding.ts'
import type { FindingId } from '../../spec/check/findings.ts'
import { QpState } from '../../spec/enums.ts'
import { mtuBytes } from '../../spec/mtu.ts'
import { addressText, lidOf } from '../../transport/wire/address.ts'
import { nearly } from './nearly.ts'
import { type KnownObject, stateOf, typeOf } from './objects.ts'

const { RESET, INIT, RTR, RTS, SQD, SQE, ERR } = QpState.values

/** The number of the device with a GID; undefined: no known device has it. */
export type DeviceWithGid = (gid: Uint8Array) => number | undefined

const stateNumber = ({ attributes }: KnownObject): number => attributes.state ?? RESET

/** Whether a queue pair is in RTR, RTS, SQD or SQE, and so has the attributes that RTR needs. */
export const hasReachedRtr = (qp: KnownObject): boolean => {
  const state = stateNumber(qp)
  return state === RTR || state === RTS || state === SQD || state === SQE
}

/** Whether dest_qp_num and dgid of `qp` are those of `peer`. */
export const isConnectedTo = (qp: KnownObject, peer: KnownObject, deviceWithGid: DeviceWithGid): boolean => {
  const { destQpn, address } = qp.attributes
  return destQpn === peer.qpn && address !== undefined && deviceWithGid(address.dgid) === peer.device
}

/** Whether two queue pairs are each other's peer, and both have reached RTR. */
export const areConnected = (a: KnownObject, b: KnownObject, deviceWithGid: DeviceWithGid): boolean =>
  hasReachedRtr(a) && hasReachedRtr(b) && isConnectedTo(a, b, deviceWithGid) && isConnectedTo(b, a, deviceWithGid)

/** Whether two known attributes differ. */
const differs = (a: number | undefined, b: number | undefined): boolean => a !== undefined && b !== undefined && a !== b

/** The last move to a state. */
const latest = ({ changes }: KnownObject, to: number): Moment | undefined =>
  changes.findLast(({ state }) => state === to)

/** When the sender was reset, if the receiver was connected before and was not: it goes on from where it was. */
export const resetAlone = (sender: KnownObject, receiver: KnownObject): Moment | undefined => {
  const [reset, connected] = [latest(sender, RESET), latest(receiver, RTR)]
  return reset !== undefined && connected !== undefined && reset.time > connected.time ? reset : undefined
}

/** The first PSN that a receiver expects of a sender; undefined: unknown. */
const expectedPsn = (sender: KnownObject, receiver: KnownObject): number | undefined => {
  const { rqPsn, expectedPsn } = receiver.attributes
  return expectedPsn ?? (resetAlone(sender, receiver) === undefined ? rqPsn : undefined)
}

/** Whether the receiver accepts the sender's PSNs. UC accepts any PSN at the beginning of a message (IBA 9.8.2). */
const psnsFit = (sender: KnownObject, receiver: KnownObject): boolean =>
  typeOf(sender) === 'UC' || !differs(sender.attributes.sqPsn, expectedPsn(sender, receiver))

/** The largest max_dest_rd_atomic, which has 8 bits: assumed if the attribute is unknown. */
const LARGEST_RD_ATOMIC = 255
const maxDestRdAtomic = ({ attributes }: KnownObject): number => attributes.maxDestRdAtomic ?? LARGEST_RD_ATOMIC

/** Whether the responder accepts as many outstanding READs and atomics as the requester may have. */
const rdAtomicFits = (requester: KnownObject, responder: KnownObject): boolean =>
  (requester.attributes.maxRdAtomic ?? 0) <= maxDestRdAtomic(responder)

/** Whether one queue pair may have had more READs and atomics outstanding than max_dest_rd_atomic of the other. */
export const rdAtomicExceeds = (a: KnownObject, b: KnownObject): boolean =>
  exceedsRdAtomic(a, b) || exceedsRdAtomic(b, a)

const exceedsRdAtomic = (requester: KnownObject, responder: KnownObject): boolean =>
  !rdAtomicFits(requester, responder) && requester.mostReads > maxDestRdAtomic(responder)

/** States and attributes of a queue pair and its peer that do not fit, likeliest cause first. */
export const mismatches = (qp: KnownObject, peer: KnownObject, deviceWithGid: DeviceWithGid): FindingId[] => {
  if (peer.destruction !== undefined) return ['no-peer-qp']
  const found: FindingId[] = []
  const addIf = (id: FindingId, applies: boolean): void => {
    if (applies) found.push(id)
  }
  addIf('service-mismatch', typeOf(qp) !== typeOf(peer))
  const peerState = stateNumber(peer)
  addIf('peer-not-ready', peerState === RESET || peerState === INIT)
  addIf('peer-in-error', peerState === ERR)
  if (!hasReachedRtr(peer)) return found
  // The LID of this end has changed since the peer was connected, or was wrong from the beginning.
  const { destQpn, address } = peer.attributes
  const isByLid = destQpn === qp.qpn && address !== undefined && lidOf(address.dgid) >= 0
  addIf(isByLid ? 'wrong-lid' : 'peer-connected-elsewhere', !isConnectedTo(peer, qp, deviceWithGid))
  addIf('path-mtu-mismatch', differs(qp.attributes.pathMtu, peer.attributes.pathMtu))
  addIf('psn-mismatch', !psnsFit(qp, peer) || !psnsFit(peer, qp))
  return found
}

/** The mismatch of attributes that explains why a request failed. */
export const mismatchBehind = (cause: CauseName, requester: KnownObject, peer: KnownObject): FindingId | undefined => {
  // The responder cuts READ responses into packets of its own path MTU.
  if (cause === 'BAD_RESPONSE' && differs(requester.attributes.pathMtu, peer.attributes.pathMtu))
    return 'path-mtu-mismatch'
  // The responder is of another daemon, whose recording is read too: its NAK does not say why.
  if (cause !== 'NAK_INVALID_REQUEST') return undefined
  if (differs(requester.attributes.pathMtu, peer.attributes.pathMtu)) return 'path-mtu-mismatch'
  return rdAtomicExceeds(requester, peer) ? 'rd-atomic-exceeds' : undefined
}

/** The class of the packets of a queue pair: on RoCE the DSCP, by LID the SL; undefined: its path is not known. */
export const classOf = ({ attributes: { address } }: KnownObject): number | undefined => {
  if (address === undefined) return undefined
  if (lidOf(address.dgid) >= 0) return address.sl
  return address.trafficClass === undefined ? undefined : address.trafficClass >> 2
}

export const classText = ({ attributes: { address } }: KnownObject): string => {
  const { sl, trafficClass = 0 } = address ?? {}
  return address !== undefined && lidOf(address.dgid) >= 0
    ? `service level ${sl}`
    : `traffic class ${trafficClass} (DSCP ${trafficClass >> 2})`
}

/** A line if the packets of two ends are of different classes. */
export const classLines = (qp: KnownObject, peer: KnownObject): string[] =>
  differs(classOf(qp), classOf(peer))
    ? [
        `${qp.name} sends in ${classText(qp)}, ${peer.name} in ${classText(peer)}: a class may lose packets that the other does not`,
      ]
    : []

const hex = (value: number | undefined): string | undefined =>
  value === undefined ? undefined : `0x${value.toString(16)}`
const decimal = (value: number | undefined): string | undefined => (value === undefined ? undefined : String(value))

/** Rows with the names of struct ibv_qp_attr. `fits`: whether the value of `qp` fits its peer. */
const attributeRows: readonly (readonly [
  name: string,
  textOf: (qp: KnownObject) => string | undefined,
  fits?: (qp: KnownObject, peer: KnownObject) => boolean,
])[] = [
  ['qp_type', typeOf, (qp, peer) => typeOf(qp) === typeOf(peer)],
  ['state', stateOf],
  ['dest_qp_num', ({ attributes }) => hex(attributes.destQpn), (qp, peer) => !differs(qp.attributes.destQpn, peer.qpn)],
  [
    'path_mtu',
    ({ attributes: { pathMtu } }) => (pathMtu ? String(mtuBytes(pathMtu)) : undefined),
    (qp, peer) => !differs(qp.attributes.pathMtu, peer.attributes.pathMtu),
  ],
  ['sq_psn', ({ attributes }) => hex(attributes.sqPsn), psnsFit],
  ['rq_psn', ({ attributes }) => hex(attributes.expectedPsn ?? attributes.rqPsn), (qp, peer) => psnsFit(peer, qp)],
  ['max_rd_atomic', ({ attributes }) => decimal(attributes.maxRdAtomic), rdAtomicFits],
  ['max_dest_rd_atomic', ({ attributes }) => decimal(attributes.maxDestRdAtomic)],
  ['timeout', ({ attributes }) => decimal(attributes.timeout)],
  ['retry_cnt', ({ attributes }) => decimal(attributes.retryCnt)],
  ['rnr_retry', ({ attributes }) => decimal(attributes.rnrRetry)],
  ['min_rnr_timer', ({ attributes }) => decimal(attributes.minRnrTimer)],
  ['qp_access_flags', ({ attributes }) => hex(attributes.accessFlags)],
  ['sgid_index', ({ attributes }) => decimal(attributes.address?.sgidIndex)],
  ['dgid', ({ attributes }) => attributes.address && addressText(attributes.address.dgid)],
  ['pkey_index', ({ attributes }) => decimal(attributes.pkeyIndex)],
]

/** A line for each rq_psn that comes from the peer's sq_psn, or if one end has exchanged its two PSNs. */
export const psnLines = (qp: KnownObject, peer: KnownObject): string[] => {
  const [{ rqPsn, sqPsn }, theirs] = [qp.attributes, peer.attributes]
  if (rqPsn !== undefined && rqPsn !== sqPsn && rqPsn === theirs.rqPsn && sqPsn === theirs.sqPsn)
    return ['both ends have the same two numbers in the same order: one of them has exchanged rq_psn and sq_psn']
  return [
    [qp, peer],
    [peer, qp],
  ].flatMap(([receiver, sender]) => {
    const psn = receiver!.attributes.rqPsn
    const sent = sender!.attributes.sqPsn
    if (psn === undefined || sent === undefined || psn === sent) return []
    const near = nearly(BigInt(psn), 24, [{ value: BigInt(sent), what: `sq_psn of ${sender!.name}` }])
    return near === undefined ? [] : [`rq_psn of ${receiver!.name}: ${near.line}`]
  })
}

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
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd(),
  )
}
