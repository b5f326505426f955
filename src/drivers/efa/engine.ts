/*
 * The engine of an EFA device: takes sends from rings, executes them, and completes them (docs/decisions/efa.md,
 * docs/decisions/srd.md). Queue pairs of the same process get messages directly, from memory to memory; others by
 * packets of SRD, which need no order, or of UD. Does no I/O of its own; times are microseconds.
 *
 * Its state is a record (device-state.ts); its parts are functions that get it: peers.ts, deadlines.ts, ending.ts for
 * the end of sends, delivery.ts for what arrives, srd/ for packets, and this file for the polls. No two import each
 * other.
 */
import { ScanScope } from '../../core/driver-contract.ts'
import type { Device } from '../../core/model.ts'
import { EfaOperation, EfaStatus } from '../../spec/drivers/efa-queues.ts'
import { AccessFlags, QpState } from '../../spec/enums.ts'
import { ICRC_BYTES } from '../../spec/wire/headers.ts'
import { nextDeadline } from '../../transport/engine/timers.ts'
import { bthOpcode, bthPadCount } from '../../transport/wire/bth.ts'
import { checkPacket } from '../../transport/wire/packet.ts'
import type { Torment } from '../soft/torment/torment.ts'
import { Limits } from './attributes.ts'
import { polledOf, raiseEvent } from './completions.ts'
import { clearDeadline, setDeadline, takeDue } from './deadlines.ts'
import { completeReceive, deliver, onDatagram, sendDatagram, setArrival } from './delivery.ts'
import { type EfaState, isEfaState } from './device-state.ts'
import { loadDoorbell } from './doorbells.ts'
import { endSend, endTransfer, endWait, forgetRequest, keep } from './ending.ts'
import { UD_SEND, UD_SEND_IMM, WAIT } from './engine-common.ts'
import { forgetQueuePair, reportFlush } from './failures.ts'
import { elementsGranted, memoryOf } from './memory.ts'
import { closePeer, forgetStrangers, noteSender } from './peers.ts'
import {
  NO_INLINE,
  pendingReceives,
  pendingSends,
  postedReceive,
  postedSend,
  readSend,
  sendRecord,
  takeReceive,
} from './requests.ts'
import { Opcode, payloadAt } from './srd/packets.ts'
import { isIdle } from './srd/pairs.ts'
import { acknowledge, closeSource, endResponses, onMessage } from './srd/receiving.ts'
import { onAck, onReadTimeout, onRefusal, resend, sendPackets, transmitReady } from './srd/sending.ts'
import type { Pair, QueuePair, Request } from './state.ts'
import { EfaTorment } from './torment.ts'

const { SEND, RDMA_READ, RDMA_WRITE } = EfaOperation
const { LOCAL_WRITE } = AccessFlags.values
const { RTS, ERR } = QpState.values
const { OK, FLUSHED } = EfaStatus

/** Sends of one queue pair that one poll executes. */
const MAX_SENDS = 256
/** Microseconds after which an idle pair is forgotten: no packet is in flight so long. */
const IDLE_TIME = 60_000_000

/** After the device is registered, before its first poll. `now`: the clock of `poll`. */
export const attachTorment = (efa: EfaState, torment: Torment, now: () => number): void => {
  efa.torment = new EfaTorment(torment, efa.device() as Device, memoryOf(efa), now, {
    ...{ port: efa.port, cqs: efa.cqs, qps: efa.qps },
    polledOf,
    raise: raiseEvent,
    startSends: qpn => startSends(efa, qpn),
    pendingSends(qpn) {
      const { send, active, ended } = efa.qps.get(qpn)!.state
      return send === undefined ? 0 : pendingSends(send) + active.size + ended.size
    },
    acknowledge() {
      acknowledge(efa)
      efa.port.flush()
    },
  })
  efa.memory = efa.torment.memory
}

// ---- changes of a queue pair's state ----

/** RESET: forgets everything, without completions. */
export const resetQueuePair = (efa: EfaState, qp: QueuePair): void => {
  const { object, active, sources, send, receive } = qp
  endAll(efa, qp)
  // they find out that the queue pair receives nothing
  for (const request of qp.waiters) {
    const waiting = stateOfRequest(request)
    if (waiting !== undefined) setDeadline(waiting, request, waiting.now)
  }
  qp.waiters.clear()
  for (const source of sources.values()) closeSource(efa, source)
  sources.clear()
  for (const request of active.values()) closePeer(efa, request.peer!)
  active.clear()
  qp.ended.clear()
  qp.loaded = 0
  if (send !== undefined) send.taken = 0
  if (receive !== undefined) {
    receive.taken = 0
    receive.seenDoorbell = 0
  }
  efa.device().taps.requests?.reset(object)
  forgetQueuePair(efa.device(), qp)
}

/** ERR: all requests complete as flushed. */
export const failQueuePair = (efa: EfaState, qp: QueuePair): void => {
  const active = [...qp.active.values()].sort((a, b) => a.order - b.order)
  endAll(efa, qp)
  for (const request of active) endSend(efa, request, FLUSHED)
  flush(efa, qp, active.length)
}

/** Completes everything that is in the rings as flushed. `active`: number of sends that were flushed before. */
const flush = (efa: EfaState, qp: QueuePair, active: number): void => {
  const device = efa.device()
  const sends = qp.send === undefined ? 0 : pendingSends(qp.send)
  for (let left = sends; left > 0; left--) endSend(efa, load(efa, qp), FLUSHED)
  reportFlush(device, qp, 'send', active + sends)
  if (qp.receive === undefined) return
  let receives = 0
  // no more than there are now: the program may ring without end meanwhile
  for (let left = pendingReceives(qp); left > 0 && takeReceive(device.memory, qp.receive, efa.receive); left--) {
    device.taps.requests?.taken(qp.object, qp.object, postedReceive(efa.receive))
    setArrival(efa, SEND, 0, false, 0, 0, undefined)
    completeReceive(efa, qp, FLUSHED)
    receives++
  }
  reportFlush(device, qp, 'receive', receives)
}

/** Nothing is executed any more. */
const endAll = (efa: EfaState, qp: QueuePair): void => {
  for (const request of qp.active.values()) forgetRequest(efa, request)
  for (const pair of qp.pairs.values()) endPair(efa, pair)
  qp.pairs.clear()
  qp.reads.clear()
}

const endPair = (efa: EfaState, pair: Pair): void => {
  efa.ready.delete(pair)
  clearDeadline(efa, pair)
  endResponses(efa, pair, pair.responses)
  closePeer(efa, pair.peer)
}

// ---- the poll ----

/** A fault rule has silenced the whole device: it does nothing any more. */
const isDead = ({ device }: EfaState): boolean => device().taps.silenced?.isHalf === false

export const poll = (efa: EfaState, now: number, scope: ScanScope = ScanScope.ALL): boolean => {
  const { port, transfers } = efa
  if (isDead(efa)) return false
  efa.now = now
  efa.turns.beginPoll()
  // before new sends, which would take the turn each time
  let hasWorked = transfers.length > 0 && continueTransfers(efa)
  if (efa.scan.scan(scope)) hasWorked = true
  if (efa.torment?.poll(now)) hasWorked = true
  if (now >= port.nextTimeout()) port.onTimeout(now)
  if (receivePackets(efa)) hasWorked = true
  if (onTimeout(efa)) hasWorked = true
  if (efa.ready.size > 0 && transmitReady(efa)) hasWorked = true
  if (efa.toAcknowledge.length > 0) acknowledge(efa)
  port.flush()
  if (now >= efa.forgetAt) forgetIdle(efa)
  return hasWorked
}

const continueTransfers = (efa: EfaState): boolean => {
  const { transfers, turns } = efa
  for (const request of [...transfers]) {
    const { owner } = request.qp
    if (turns.isOver(owner)) continue
    const since = turns.now()
    retry(efa, request)
    turns.spend(owner, since)
  }
  return true
}

export const nextTimeout = (efa: EfaState): number => {
  const { port, torment, timers } = efa
  if (isDead(efa)) return Number.POSITIVE_INFINITY
  return Math.min(port.nextTimeout(), nextDeadline(timers), torment?.nextTimeout() ?? Number.POSITIVE_INFINITY)
}

const onTimeout = (efa: EfaState): boolean => {
  let hasWorked = false
  for (let due = takeDue(efa); due !== undefined; due = takeDue(efa)) {
    hasWorked = true
    if ('queue' in due) resend(efa, due)
    else if (due.isWaiting) retry(efa, due)
    else onReadTimeout(efa, due)
  }
  return hasWorked
}

/** Forgets destinations and sources that were idle for long: a program may talk to many queue pairs, each once. */
const forgetIdle = (efa: EfaState): void => {
  const time = efa.now - IDLE_TIME
  efa.forgetAt = efa.now + IDLE_TIME / 4
  forgetStrangers(efa, time)
  for (const { state: qp } of efa.qps.values()) {
    for (const [key, pair] of qp.pairs)
      if (isIdle(pair) && pair.usedAt <= time) {
        qp.pairs.delete(key)
        endPair(efa, pair)
      }
    for (const [key, source] of qp.sources)
      if (source.usedAt <= time) {
        qp.sources.delete(key)
        closeSource(efa, source)
      }
  }
}

// ---- sends ----

/** The doorbells of a queue pair have changed, or may have; true if there was anything to do. */
export const readDoorbells = (efa: EfaState, qp: QueuePair): boolean => {
  const { send, receive } = qp
  const hasSent = send !== undefined && pendingSends(send) > 0 && takeSends(efa, qp)
  if (receive === undefined) return hasSent
  const posted = loadDoorbell(receive.doorbell)
  if (posted === receive.seenDoorbell) return hasSent
  receive.seenDoorbell = posted
  efa.device().taps.requests?.receivesPosted(qp.object, qp.object)
  if (qp.state === ERR) flush(efa, qp, 0)
  // a request that finds no receive any more waits again
  if (qp.waiters.size > 0) for (const request of [...qp.waiters]) if (pendingReceives(qp) > 0) wake(qp, request)
  return true
}

const stateOfRequest = ({ qp }: Request): EfaState | undefined =>
  qp.object.context?.device.state as EfaState | undefined

/**
 * A receive was posted to `qp`, for which a request of any device of the process waits. It is tried without counting.
 */
const wake = (qp: QueuePair, request: Request): void => {
  qp.waiters.delete(request)
  const efa = stateOfRequest(request)
  if (efa !== undefined && request.isWaiting) retry(efa, request)
}

const load = (efa: EfaState, qp: QueuePair): Request => {
  efa.request ??= sendRecord(qp)
  const { request } = efa
  const { memory, taps } = efa.device()
  readSend(memory, qp, qp.send!, request)
  taps.requests?.loaded(qp.object, postedSend(request, efa.ahs.get(request.ah)?.peer.address))
  return request
}

/** For torment: a poll takes what is left then. */
const startSends = (efa: EfaState, qpn: number): void => {
  const object = efa.qps.get(qpn)
  if (object?.state.send !== undefined && takeSends(efa, object.state) && pendingSends(object.state.send) > 0)
    efa.scan.recheck(object)
}

/** True if any was taken. */
const takeSends = (efa: EfaState, qp: QueuePair): boolean => {
  if (qp.state === ERR) {
    flush(efa, qp, 0)
    return true
  }
  if (qp.state !== RTS) return false
  const { turns } = efa
  const count = Math.min(pendingSends(qp.send!), MAX_SENDS)
  const before = qp.loaded
  for (let i = 0; i < count && qp.state === RTS && !turns.isOver(qp.owner); i++) {
    if (efa.torment?.holdsPost(qp.qpn, qp.loaded)) break
    const since = turns.now()
    begin(efa, load(efa, qp))
    turns.spend(qp.owner, since)
  }
  // the scan visits the queue pair at the next poll too
  return qp.loaded !== before || turns.isOver(qp.owner)
}

const begin = (efa: EfaState, loaded: Request): void => {
  const status = check(efa, loaded)
  if (status !== OK) {
    endSend(efa, loaded, status)
    return
  }
  const { qp } = loaded
  loaded.message = qp.nextMessage++ >>> 0
  const target = localTarget(efa, loaded)
  if (!qp.isReliable) endSend(efa, loaded, sendDatagram(efa, loaded, target))
  else if (target === undefined) sendPackets(efa, keep(loaded))
  else {
    const result = deliver(target, efa, loaded)
    if (result !== WAIT) endSend(efa, loaded, result)
  }
}

/** What is wrong with a send itself. */
const check = (efa: EfaState, request: Request): EfaStatus => {
  const { qp, operation, ah, length, inlineLength, remoteLength } = request
  const handle = efa.ahs.get(ah)
  if (handle === undefined || handle.pd !== qp.pd) return EfaStatus.INVALID_AH
  request.peer = handle.peer
  if (operation !== SEND && (operation > RDMA_WRITE || !qp.isReliable)) return EfaStatus.UNSUPPORTED_OPERATION
  if (inlineLength !== NO_INLINE && inlineLength < length) return EfaStatus.LOCAL_LENGTH
  if (operation === SEND && length > efa.mtu) return EfaStatus.LOCAL_LENGTH
  if (operation !== SEND && (length > Limits.maxRdmaBytes || length !== remoteLength)) return EfaStatus.LOCAL_LENGTH
  const access = operation === RDMA_READ ? LOCAL_WRITE : 0
  return elementsGranted(memoryOf(efa), qp, request, access) ? OK : EfaStatus.INVALID_LKEY
}

/** The device of this process that receives what is sent to a peer; undefined: packets are needed. */
const localTarget = ({ port }: EfaState, { peer }: Request): EfaState | undefined => {
  const receiver = port.receiverOf?.(peer!.flow)
  return isEfaState(receiver) ? receiver : undefined
}

/** Tries a request again that has waited, or the next part of a transfer. */
const retry = (efa: EfaState, request: Request): void => {
  endWait(efa, request)
  const target = localTarget(efa, request)
  if (target === undefined) {
    endTransfer(efa, request)
    request.sent = 0
    request.done = 0
    sendPackets(efa, request)
    return
  }
  const result = deliver(target, efa, request)
  if (result !== WAIT) endSend(efa, request, result)
}

// ---- packets ----

const receivePackets = (efa: EfaState): boolean => {
  const { port, run } = efa
  if (!port.receive(run)) return false
  efa.opened = 0
  do {
    noteSender(efa)
    for (let i = 0; i < run.count; i++)
      onPacket(efa, run.offset + i * run.packetBytes, i === run.count - 1 ? run.lastBytes : run.packetBytes)
  } while (port.receive(run))
  port.release()
  return true
}

/** A packet of `efa.sender`. */
const onPacket = (efa: EfaState, at: number, length: number): void => {
  const { counts, sender } = efa
  const { view } = efa.port.arena
  if (checkPacket(view, at, length) !== 0) {
    counts.rx_drops++
    return
  }
  counts.rx_pkts++
  counts.rx_bytes += length
  const opcode = bthOpcode(view, at)
  const payload = length - payloadAt(opcode) - ICRC_BYTES - bthPadCount(view, at)
  if (opcode === UD_SEND || opcode === UD_SEND_IMM) onDatagram(efa, at, opcode, payload)
  else if (opcode >= Opcode.SEND && opcode <= Opcode.READ_DATA) onMessage(efa, at, opcode, payload)
  else if (sender.peer !== undefined && opcode === Opcode.ACK) onAck(efa, sender.peer, at)
  else if (sender.peer !== undefined && opcode === Opcode.REFUSE) onRefusal(efa, sender.peer, at)
  else counts.rx_drops++
}
