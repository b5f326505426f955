/*
 * The end of sends: their completions, and the lists of requests that do not end at once. While somebody watches
 * requests, sends end in order.
 */
import type { InjectedCompletion } from '../../core/driver-contract.ts'
import { causeOfRule } from '../../spec/check/causes.ts'
import { CompletionEntry, CompletionFlag, EfaOperation, EfaStatus } from '../../spec/drivers/efa-queues.ts'
import { beginEntry, efaStatusOf, endEntry, isSilent, WC_SEND, WC_WRITE, wcStatusOf } from './completions.ts'
import { clearDeadline, setDeadline } from './deadlines.ts'
import type { EfaState } from './device-state.ts'
import { ENDLESS, NOT_READY_DELAY, WAIT } from './engine-common.ts'
import { reportSend } from './failures.ts'
import { closePeer } from './peers.ts'
import { copyRequest, idOf } from './requests.ts'
import { endPacketsOf } from './srd/pairs.ts'
import { type CqObject, pairKey, type QueuePair, type Request } from './state.ts'

const { RDMA_READ, RDMA_WRITE } = EfaOperation
const { OK, FLUSHED } = EfaStatus

/** A copy that lives until the request ends. */
export const keep = (request: Request): Request => {
  const { qp, order } = request
  if (qp.active.get(order) === request) return request
  const copy = copyRequest(request)
  // the program may destroy the address handle meanwhile
  copy.peer!.uses++
  qp.active.set(order, copy)
  return copy
}

/** The rest of a long READ or WRITE is executed by later polls. Returns WAIT. */
export const continueLater = (efa: EfaState, request: Request): number => {
  const kept = keep(request)
  if (!efa.transfers.includes(kept)) efa.transfers.push(kept)
  return WAIT
}

export const endTransfer = ({ transfers }: EfaState, request: Request): void => {
  const at = transfers.indexOf(request)
  if (at >= 0) transfers.splice(at, 1)
}

/** Microseconds after which a request without receive is tried again. */
export const notReadyDelay = ({ torment }: EfaState, request: Request): number =>
  torment?.notReadyDelay(request) ?? NOT_READY_DELAY

/** The send found no receive at `destination`. Returns WAIT, or the status with which it fails. */
export const waitForReceive = (efa: EfaState, request: Request, destination: QueuePair): number => {
  const kept = keep(request)
  const { qp } = kept
  destination.object.context?.device.taps.requests?.notReady(destination.object)
  if (kept.rnrTries++ >= qp.rnrRetry && qp.rnrRetry < ENDLESS) return EfaStatus.NOT_READY
  endTransfer(efa, kept)
  kept.isWaiting = true
  setDeadline(efa, kept, efa.now + notReadyDelay(efa, kept))
  kept.destination?.waiters.delete(kept)
  kept.destination = destination
  destination.waiters.add(kept)
  return WAIT
}

/** The request does not wait any more. */
export const endWait = (efa: EfaState, request: Request): void => {
  request.isWaiting = false
  clearDeadline(efa, request)
}

/** Removes a request from all lists but `active`. */
export const forgetRequest = (efa: EfaState, request: Request): void => {
  endWait(efa, request)
  request.destination?.waiters.delete(request)
  endTransfer(efa, request)
  request.qp.reads.delete(request.message)
  if (request.peer === undefined) return
  const pair = request.qp.pairs.get(pairKey(request.peer, request.destQpn))
  if (pair !== undefined) endPacketsOf(efa, pair, request)
}

/** Ends a send with this status. */
export const endSend = (efa: EfaState, request: Request, status: number): void => {
  const { qp, order } = request
  const kept = qp.active.size === 0 ? undefined : qp.active.get(order)
  if (kept !== undefined) {
    forgetRequest(efa, kept)
    qp.active.delete(order)
    closePeer(efa, kept.peer!)
  }
  const { ended } = qp
  const isWatched = efa.device().taps.requests !== undefined
  if (!isWatched && ended.size === 0) {
    complete(efa, request, status)
    return
  }
  ended.set(order, { request: request === efa.request ? copyRequest(request) : request, status })
  // requests are kept in their order. A program that posts beyond its queue does not get that order
  const isFull = ended.size > qp.send!.depth
  const oldest = !isWatched || isFull ? qp.loaded : (qp.active.keys().next().value ?? qp.loaded)
  const before = [...ended].filter(([order]) => order < oldest).sort(([a], [b]) => a - b)
  for (const [order, one] of before) {
    ended.delete(order)
    complete(efa, one.request, one.status)
  }
}

const count = ({ counts }: EfaState, { operation, length }: Request, status: number): void => {
  if (operation === RDMA_READ) {
    counts.rdma_read_wrs++
    if (status === OK) counts.rdma_read_bytes += length
    else counts.rdma_read_wr_err++
  } else if (operation === RDMA_WRITE) {
    counts.rdma_write_wrs++
    if (status === OK) counts.rdma_write_bytes += length
    else counts.rdma_write_wr_err++
  } else {
    counts.send_wrs++
    if (status === OK) counts.send_bytes += length
  }
}

const complete = (efa: EfaState, request: Request, executed: number): void => {
  const { mtu, torment } = efa
  const device = efa.device()
  const { qp, operation } = request
  const { decideCompletion, requests } = device.taps
  const opcode = operation === RDMA_WRITE ? WC_WRITE : WC_SEND
  let fault: InjectedCompletion | undefined
  if (executed === OK && decideCompletion !== undefined) fault = decideCompletion(qp.object, opcode, idOf(request))
  const status = fault === undefined ? executed : efaStatusOf(fault.status)
  count(efa, request, status)
  if (status !== OK && status !== FLUSHED) reportSend(device, request, status, fault && causeOfRule(fault), mtu)
  requests?.retired(qp.object, 1, status === FLUSHED)
  if (torment === undefined) writeSend(efa, request, status, opcode)
  else {
    const copy = request === efa.request ? copyRequest(request) : request
    torment.retired(qp.qpn)
    torment.pushSend(qp.sendCq, qp.qpn, copy.destQpn, () => writeSend(efa, copy, status, opcode))
  }
}

const writeSend = (efa: EfaState, request: Request, status: number, opcode: number): void => {
  const { qp, operation, length, id } = request
  if (isSilent(efa, qp)) return
  const cq = qp.sendCq
  const fields = status === OK ? undefined : efa.torment?.undefinedFields(qp.qpn, false)
  const at = beginEntry(cq)
  if (at >= 0) {
    const { view } = cq.state.ring
    view.setUint16(at + CompletionEntry.QPN, qp.qpn, true)
    if (qp.send!.hasLongIds) {
      view.setUint16(at + CompletionEntry.REQUEST_ID_EXTENDED, request.id1, true)
      view.setUint16(at + CompletionEntry.REQUEST_ID_EXTENDED + 2, request.id2, true)
      view.setUint16(at + CompletionEntry.REQUEST_ID_EXTENDED + 4, request.id3, true)
    }
    const { OPERATION_SHIFT, SEND_QUEUE } = CompletionFlag
    endEntry(cq, at, id, status, SEND_QUEUE | (((fields?.operation ?? operation) & 7) << OPERATION_SHIFT))
  }
  tapCompletion(efa, qp, cq, at, status, opcode, length, 0)
}

/** Tells watchers of a completion that was written at `at` of its ring; -1: it is lost. */
export const tapCompletion = (
  efa: EfaState,
  qp: QueuePair,
  cq: CqObject,
  at: number,
  status: number,
  opcode: number,
  bytes: number,
  sourceQpn: number,
): void => {
  const { requests } = efa.device().taps
  if (requests === undefined) return
  const position = at < 0 ? 0 : cq.state.produced
  const written = { status: wcStatusOf(status), opcode, bytes, sourceQpn, solicited: false, position }
  requests.completed(qp.object, cq, written)
}
