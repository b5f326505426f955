/*
 * Failures of one soft device: the engine's causes (transport/engine/types.ts, Causes) become records for logs and
 * tools. If the peer is a queue pair of the same core, `causeAtPeer` finds why the peer has sent a NAK.
 */

import type { GidTableEntry } from '../../core/devices/gids.ts'
import { forgetFailure, hasFailureHandlers, lastFailure, reportFailure } from '../../core/failures.ts'
import type { Context, Device } from '../../core/model.ts'
import { type Cause, type CauseName, causeOfCode, createCause } from '../../spec/check/causes.ts'
import type { Failure } from '../../spec/check/failures.ts'
import { QpState } from '../../spec/enums.ts'
import { joinWords } from '../../spec/memory.ts'
import { WcStatus } from '../../spec/work.ts'
import { Send } from '../../transport/engine/types.ts'
import { addressText } from '../../transport/wire/address.ts'
import { psnDifference } from '../../transport/wire/bth.ts'
import { causeByLid } from './lid-causes.ts'
import { causeByRouter } from './router-causes.ts'
import { type ConnectedPeer, type Failures, noPsns, type QpObject, type QueuePair, type SoftState } from './state.ts'

const { WR_FLUSH_ERR, REM_INV_REQ_ERR, REM_ACCESS_ERR, REM_OP_ERR, REM_INV_RD_REQ_ERR } = WcStatus.values
const { ERR } = QpState.values
const REMOTE_ERRORS: ReadonlySet<number> = new Set([REM_INV_REQ_ERR, REM_ACCESS_ERR, REM_OP_ERR, REM_INV_RD_REQ_ERR])
const NAKS: ReadonlySet<CauseName> = new Set<CauseName>([
  'NAK_INVALID_REQUEST',
  'NAK_REMOTE_ACCESS',
  'NAK_REMOTE_OPERATION',
  'NAK_INVALID_RD',
])
/**
 * Maximum number of kept NAKs. Those of destroyed queue pairs are kept too: failures of peers need their causes. With
 * one more, the oldest of the user who has the most is forgotten.
 */
const MAX_NAKS = 64

/** A NAK that queue pair `qpn` has sent to queue pair `peer` for `psn`. */
interface Nak {
  readonly qpn: number
  /** The peer at that time: a queue pair has one peer, but may be connected again. */
  readonly peer: number
  readonly psn: number
  readonly cause: Cause
  /** `Account.payer` of the queue pair. */
  readonly user: number | undefined
}

/** Position of the oldest NAK of the user who has the most. */
const oldestOfMost = (naks: readonly Nak[]): number => {
  const counts = new Map<number | undefined, number>()
  for (const { user } of naks) counts.set(user, (counts.get(user) ?? 0) + 1)
  const most = Math.max(...counts.values())
  return naks.findIndex(({ user }) => counts.get(user) === most)
}

/** The same for the two types of queue pair that can be connected to each other: `rc`, `uc`, `xrc`. */
const familyOf = (qp: QpObject): string => qp.class.name.split('_', 1)[0]!

/** Why the responder executes nothing of what the requester sends first; undefined: it does, or that is unknown. */
const psnCause = ({ firstPsns: { sq } }: QueuePair, { firstPsns: { rq } }: QueuePair): Cause | undefined =>
  sq === undefined || rq === undefined || sq === rq ? undefined : createCause('PSN_DIFFERS', { sent: sq, expected: rq })

/** The request in the words of a send. */
const requestIn = (words: Uint32Array, at: number): Pick<Failure, 'opcode' | 'wrId'> => ({
  opcode: words[at + Send.OPCODE]!,
  wrId: joinWords(words[at + Send.ID_HI]!, words[at + Send.ID_LO]!),
})

const vlanText = ({ vlan }: GidTableEntry): string => (vlan === undefined ? 'no VLAN' : `VLAN ${vlan.id}`)

/** `state`, `deviceOf`: functions, because state and device are created later. */
export const createFailures = (state: () => SoftState, deviceOf: () => Device): Failures => {
  const naks: Nak[] = []
  /** By row of the engine: the number of drops of each cause. */
  const drops = new Map<number, Map<CauseName, number>>()

  /** Rows of which a send is reported that the peer does not execute. */
  const isToldUnexecuted = new Set<number>()

  const objectOf = (row: number): QpObject | undefined => state().qps[row]
  const lastOf = (row: number): Failure | undefined => {
    const object = objectOf(row)
    return object && lastFailure(deviceOf(), object.state.qpn)
  }

  /** Undefined for a queue pair without a path. */
  const peerOf = (row: number): ConnectedPeer | undefined => {
    const { address: own, targetQpn } = state().queues[row] ?? {}
    if (own === undefined) return undefined
    const { paths } = state()
    const qpn = state().engine().query(row).destQpn
    const address = addressText(paths.peerAddress(own))
    for (const device of deviceOf().core.devices.values()) {
      if (device.driver !== deviceOf().driver || !paths.leadsTo(own, device.ports[0]!)) continue
      const peerState = device.state as SoftState
      const peerRow = peerState.qpns.rowOf(qpn)
      return {
        peer: { qpn: targetQpn ?? qpn, address, state: peerRow < 0 ? 'none' : peerState.engine().stateOf(peerRow) },
        qpn,
        state: peerState,
        device: device.index,
      }
    }
    return { peer: { qpn: targetQpn ?? qpn, address }, qpn, state: undefined }
  }

  const report = (failure: Omit<Failure, 'device'>, context: Context | undefined): void => {
    const device = deviceOf()
    reportFailure({ ...failure, device: device.name }, device, context)
  }

  const reportQp = (row: number, failure: Omit<Failure, 'device' | 'qpn'>): void => {
    const object = objectOf(row)
    if (object === undefined) return
    report({ ...failure, qpn: object.state.qpn }, object.context)
  }

  /** The queue pair that a row is connected to, and that is connected to it, if it belongs to this core. */
  const connectedTo = (row: number) => {
    const own = objectOf(row)
    const { qpn = -1, state: device } = peerOf(row) ?? {}
    const peerRow = device?.qpns.rowOf(qpn) ?? -1
    const peer = device?.qps[peerRow]
    if (own === undefined || device === undefined || peer === undefined) return undefined
    const { address } = peer.state
    const isConnected =
      familyOf(own) === familyOf(peer) &&
      device.engine().query(peerRow).destQpn === own.state.qpn &&
      address !== undefined &&
      state().paths.leadsTo(address, deviceOf().ports[0]!)
    return isConnected
      ? { device, row: peerRow, end: peer.state, gids: peer.context?.device.ports[0]?.gids }
      : undefined
  }

  /** Both ends have addresses of RoCE, of different versions or VLANs. */
  const causeByVersion = (row: number): Cause | undefined => {
    const own = objectOf(row)?.state.address
    const peer = connectedTo(row)
    const other = peer?.end.address
    if (own === undefined || peer === undefined || other === undefined) return undefined
    const [index, peerIndex] = [own.sgidIndex, other.sgidIndex]
    const [entry, peerEntry] = [deviceOf().ports[0]!.gids.entries[index], peer.gids?.entries[peerIndex]]
    if (entry === undefined || peerEntry === undefined) return undefined
    if (entry.type !== peerEntry.type) return createCause('ROCE_VERSION', { index, version: entry.type, peerIndex })
    if (entry.vlan?.id === peerEntry.vlan?.id) return undefined
    return createCause('VLAN_DIFFERS', { index, vlan: vlanText(entry), peerIndex, peerVlan: vlanText(peerEntry) })
  }

  return {
    send(row, words, at, status, given) {
      const { peer } = peerOf(row) ?? {}
      const known =
        given.id === 'NO_ANSWER'
          ? (causeByLid(deviceOf(), state(), row) ??
            causeByVersion(row) ??
            causeByRouter(state(), deviceOf().ports[0]!.gids, row))
          : undefined
      const cause = known ?? given
      reportQp(row, {
        kind: 'send',
        ...requestIn(words, at),
        status,
        cause,
        ...(peer !== undefined && { peer, isCauseAtPeer: REMOTE_ERRORS.has(status) && !NAKS.has(cause.id) }),
      })
    },
    receive: (row, idHi, idLo, status, cause) =>
      reportQp(row, { kind: 'receive', wrId: joinWords(idHi, idLo), status, cause }),
    flushed(row, isSend, count, code) {
      if (!hasFailureHandlers(deviceOf().core)) return
      const id = causeOfCode(code)
      const last = lastOf(row)
      const root = id === 'FLUSHED' ? last : undefined
      const cause = flushCause(id, state().engine().stateOf(row), last)
      const queue = isSend ? 'send' : 'receive'
      reportQp(row, { kind: 'flush', status: WR_FLUSH_ERR, count, queue, cause, ...(root && { root }) })
    },
    nak(row, psn, cause) {
      const own = state().queues[row]
      if (own === undefined) return
      if (naks.length === MAX_NAKS) naks.splice(oldestOfMost(naks), 1)
      const user = objectOf(row)?.context?.account?.payer
      naks.push({ qpn: own.qpn, peer: state().engine().query(row).destQpn, psn, cause, user })
    },
    dropped(row, cause, wrId, sourceQpn) {
      const qp = objectOf(row)
      if (qp !== undefined) deviceOf().taps.requests?.dropped(qp, cause, sourceQpn)
      const counts = drops.get(row) ?? new Map<CauseName, number>()
      const count = (counts.get(cause.id) ?? 0) + 1
      drops.set(row, counts.set(cause.id, count))
      // only drops 1, 2, 4, 8 … are reported
      if ((count & (count - 1)) !== 0) return
      const { peer } = peerOf(row) ?? {}
      reportQp(row, { kind: 'drop', cause, count, ...(wrId !== undefined && { wrId }), ...(peer && { peer }) })
    },
    causeAtPeer(row, psn) {
      const connected = peerOf(row)
      const qpn = objectOf(row)?.state.qpn ?? -1
      return connected?.state?.failures.nakOf(connected.qpn, qpn, psn)
    },
    psnsDiffer(row, isRequester) {
      const own = objectOf(row)
      const peer = connectedTo(row)
      if (own === undefined || peer === undefined) return undefined
      if (peer.device.engine().stateOf(peer.row) === ERR) return undefined
      return isRequester ? psnCause(own.state, peer.end) : psnCause(peer.end, own.state)
    },
    connected(row) {
      const peer = connectedTo(row)
      const { sq } = peer?.end.firstPsns ?? noPsns
      if (peer?.end.firstPsns.rq === undefined) return
      peer.end.firstPsns = { sq, rq: peer.device.engine().query(peer.row).rqPsn }
    },
    duplicate(row, psn) {
      const own = state().queues[row]
      const { rq } = own?.firstPsns ?? noPsns
      // What this life of the connection has executed is from here on.
      if (own === undefined || rq === undefined || psnDifference(psn, rq) >= 0) return
      const peer = connectedTo(row)
      const cause = peer && psnCause(peer.end, own)
      if (cause !== undefined) peer?.device.failures.unexecuted(peer.row, psn, cause)
    },
    unexecuted(row, psn, cause) {
      const send = isToldUnexecuted.has(row) ? undefined : state().engine().sendWith(row, psn)
      if (send === undefined) return
      isToldUnexecuted.add(row)
      const { peer } = peerOf(row) ?? {}
      reportQp(row, { kind: 'unexecuted', ...requestIn(send.words, send.at), cause, ...(peer && { peer }) })
    },
    event: (row, type, cause) => reportQp(row, { kind: 'event', event: type, cause }),
    report,
    peerOf,
    last: lastOf,
    forget(row) {
      const object = objectOf(row)
      if (object !== undefined) forgetFailure(deviceOf(), object.state.qpn)
      drops.delete(row)
      isToldUnexecuted.delete(row)
    },
    nakOf: (qpn, peer, psn) => naks.findLast(nak => nak.qpn === qpn && nak.peer === peer && nak.psn === psn)?.cause,
  }
}

/** `last`: the last failure of the queue pair. */
const flushCause = (id: CauseName | undefined, state: number, last: Failure | undefined): Cause => {
  switch (id) {
    case 'MODIFIED':
      return createCause('MODIFIED', {})
    case 'DEVICE_REMOVED':
      return createCause('DEVICE_REMOVED', {})
    case 'COMPLETION_LOST':
      return last?.cause.id === 'COMPLETION_LOST'
        ? last.cause
        : createCause('COMPLETION_LOST', { cq: '?', entries: '?' })
    default:
      return createCause('FLUSHED', { state })
  }
}
