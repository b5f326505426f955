/*
 * Fast path: SENDs, WRITEs and READs of 1 to MAX_BYTES bytes, without immediate or invalidation, between idle RC queue
 * pairs whose engines run in this process. Each WQE must have one SGE, and JavaScript must be able to access the memory
 * of both sides. These WQEs are not added to the list of fetched WQEs.
 *
 * Only success is handled here: each WQE is checked before it is executed. A WQE that fails a check takes the slow path
 * (transport/engine/requester/requester.ts, slices.ts), which reports errors.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { QpState } from '../../../spec/enums.ts'
import { Service } from '../../../spec/wire/services.ts'
import { SendFlags, SendKind, WcOpcode, WcStatus, WrOpcode } from '../../../spec/work.ts'
import { type Arena, plainArena } from '../../wire/arena.ts'
import { completeReceive, completeSend } from '../completer/completion.ts'
import { QP, ReqFlag, RespFlag, WQE } from '../fields.ts'
import { PSN_MASK } from '../psn.ts'
import { recvBlockLog2, sendBlockLog2 } from '../qp-layout.ts'
import { takeReceive } from '../responder/receive-request.ts'
import {
  type EngineState,
  type FastBatch,
  giveBlock,
  PACKET_WEIGHT,
  readPartPackets,
  takeBlock,
  tapsOf,
} from '../state.ts'
import { Access, Receive, Send, Sge } from '../types.ts'
import { addPollCounts, countFastMessage, countRead, findLocalPeer } from './local-peer.ts'

const { RTS } = QpState.values
const { RDMA_WRITE, RDMA_READ, SEND } = WrOpcode.values
const { SOLICITED, INLINE } = SendFlags.values
const { RECV } = WcOpcode.values
const { SUCCESS } = WcStatus.values
const { LOCAL_READ, LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE } = Access
const { NONE } = SendKind

const MAX_BYTES = 0x10_0000

/** A poll of a queue pair with a local peer ends after so many window bytes (payload plus PACKET_WEIGHT per packet). */
export const FAST_QUANTUM = 0x10_0000

/** Maximum number of WQEs in a batch. */
const BATCH = 16

const noArena = plainArena(0)
const createBatch = (): FastBatch => ({
  requests: new Int32Array(BATCH),
  receives: new Int32Array(BATCH),
  source: new Array<Arena>(BATCH).fill(noArena),
  sourceAt: new Float64Array(BATCH),
  target: new Array<Arena>(BATCH).fill(noArena),
  targetAt: new Float64Array(BATCH),
})

/** Whether the row has nothing in flight, and WQEs may have been posted. */
const isIdle = (s: EngineState, base: number): boolean => {
  const w = s.rows
  const psn = w[base + QP.REQ_PSN]
  return (
    (w[base + QP.SERVICE] === Service.RC || w[base + QP.SERVICE] === Service.DCI) &&
    w[base + QP.STATE] === RTS &&
    w[base + QP.REQ_HEAD] === 0 &&
    w[base + QP.COMP_PSN] === psn &&
    w[base + QP.REQ_MAX_PSN] === psn &&
    (w[base + QP.REQ_FLAGS] & (ReqFlag.MORE | ReqFlag.RNR_WAIT)) === ReqFlag.MORE
  )
}

/** Whether the local peer's responder has nothing in progress and expects `psn`. */
const isPeerIdle = (s: EngineState, psn: number): boolean => {
  const peer = s.peerState as EngineState
  const peerRows = peer.rows
  const peerBase = s.peerRow * QP.WORDS
  return (
    peerRows[peerBase + QP.STATE] === RTS &&
    peerRows[peerBase + QP.RESP_EPSN] === psn &&
    peerRows[peerBase + QP.RESP_MESSAGE] === NONE &&
    peerRows[peerBase + QP.RESP_PENDING] === 0 &&
    (peerRows[peerBase + QP.RESP_FLAGS] & (RespFlag.ACK_DUE | RespFlag.NAK_DUE | RespFlag.NAK_SENT)) === 0 &&
    peer.dmaArena === undefined
  )
}

/**
 * At a doorbell: executes the posted WQEs of a row that is not scheduled, if row and peer are idle. True if nothing is
 * left to send.
 */
export const sendIdleFastPath = (s: EngineState, row: number): boolean => {
  const base = row * QP.WORDS
  if (!isIdle(s, base) || !findLocalPeer(s, row)) return false
  sendAllFast(s, row)
  addPollCounts(s)
  return (s.rows[base + QP.REQ_FLAGS] & ReqFlag.MORE) === 0
}

/** Executes posted WQEs, up to FAST_QUANTUM, if the row is idle. The caller has found the row's local peer. */
export const sendFastPath = (s: EngineState, row: number): void => {
  if (isIdle(s, row * QP.WORDS)) sendAllFast(s, row)
}

/** Whether JavaScript can access memory of both sides. If not, WQEs would be loaded here in vain. */
const canLocate = (s: EngineState): boolean =>
  s.env.memory.canLocate?.() === true && (s.peerState as EngineState).env.memory.canLocate?.() === true

/** Executes posted WQEs of an idle row, up to FAST_QUANTUM, if the peer is idle too. */
const sendAllFast = (s: EngineState, row: number): void => {
  const base = row * QP.WORDS
  if (!canLocate(s) || !isPeerIdle(s, s.rows[base + QP.REQ_PSN])) return
  const sentBefore = s.rows[base + QP.REQ_SENT_BYTES]
  while (sendBatch(s, row, sentBefore)) {
    // More WQEs may be posted than one batch contains.
  }
}

/**
 * Executes a batch of WQEs: checks all, then copies all, then completes all. Long copies evict the engine's code and
 * data from the L1 cache, so one loop per step is cheaper. True if the batch is full. `sentBefore`: REQ_SENT_BYTES when
 * the row was polled.
 */
const sendBatch = (s: EngineState, row: number, sentBefore: number): boolean => {
  s.fastBatch ??= createBatch()
  const { requests, receives, source, sourceAt, target, targetAt } = s.fastBatch
  const base = row * QP.WORDS
  const w = s.rows
  const start = w[base + QP.REQ_SENT_BYTES]
  const log2 = sendBlockLog2(w, base)
  let count = 0
  let request = 0
  while (count < BATCH && ((w[base + QP.REQ_SENT_BYTES] - sentBefore) | 0) < FAST_QUANTUM) {
    request = takeBlock(s, log2)
    const isPosted = s.env.work.loadSend(row, w[base + QP.REQ_WQE_INDEX] >>> 0, s.pool, request + WQE.WR)
    if (!isPosted) w[base + QP.REQ_FLAGS] &= ~ReqFlag.MORE
    if (!isPosted || !prepareFast(s, row, request + WQE.WR, s.fastBatch, count)) break
    w[base + QP.REQ_WQE_INDEX]++
    tapsOf(s)?.loaded(row, s.pool, request + WQE.WR)
    requests[count++] = request
    request = 0
  }
  if (request !== 0) giveBlock(s, log2, request)
  if (count === 0) return false
  w[base + QP.COMP_PSN] = w[base + QP.REQ_PSN]
  w[base + QP.REQ_MAX_PSN] = w[base + QP.REQ_PSN]
  w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
  w[base + QP.REQ_BYTES_SINCE_ACKREQ] = 0
  s.localBytes += (w[base + QP.REQ_SENT_BYTES] - start) | 0
  const { copyLocated } = s.env.memory
  for (let i = 0; i < count; i++)
    copyLocated?.(source[i], sourceAt[i], target[i], targetAt[i], s.pool[requests[i] + WQE.WR + Send.LENGTH])
  s.env.work.retireSend(row, count)
  tapsOf(s)?.retired(row, count, false)
  for (let i = 0; i < count; i++) {
    if (receives[i] !== 0) completeReceived(s, receives[i], requests[i] + WQE.WR)
    completeSend(s, row, requests[i], SUCCESS)
    giveBlock(s, log2, requests[i])
    // The batch must not keep memory alive that is deregistered later.
    source[i] = noArena
    target[i] = noArena
  }
  return count === BATCH
}

const completeReceived = (s: EngineState, receive: number, wr: number): void => {
  const peer = s.peerState as EngineState
  const peerRow = s.peerRow
  const isSolicited = (s.pool[wr + Send.FLAGS] & SOLICITED) !== 0
  completeReceive(peer, peerRow, receive, RECV, s.pool[wr + Send.LENGTH], 0, 0, isSolicited)
  giveBlock(peer, recvBlockLog2(peer.rows, peerRow * QP.WORDS), receive)
}

/**
 * Prepares the WQE at `wr` as entry `i` of the batch, and advances the PSNs. If the WQE is not eligible, returns false
 * and changes nothing, except that `findReceive` may have taken a receive WQE.
 */
const prepareFast = (s: EngineState, row: number, wr: number, batch: FastBatch, i: number): boolean => {
  const p = s.pool
  const w = s.rows
  const base = row * QP.WORDS
  const opcode = p[wr + Send.OPCODE]
  const length = p[wr + Send.LENGTH]
  const isRead = opcode === RDMA_READ
  if (!isRead && opcode !== RDMA_WRITE && opcode !== SEND) return false
  if (p[wr + Send.SGES] !== 1 || length === 0 || length > MAX_BYTES || (p[wr + Send.FLAGS] & INLINE) !== 0) return false
  if (p[wr + Send.REFUSED] !== 0) return false
  const sge = wr + Send.SGE
  const access = isRead ? LOCAL_WRITE : LOCAL_READ
  const local = s.env.memory.resolveAndLocate?.(
    w[base + QP.PD],
    p[sge + Sge.LKEY],
    p[sge + Sge.HI],
    p[sge + Sge.LO],
    length,
    access,
    s.result.offset,
  )
  if (local === undefined) return false
  const localAt = s.result.offset[0]
  const remote = opcode === SEND ? findReceive(s, length) : findRemote(s, base, wr, length, isRead)
  if (remote === undefined) return false
  const { source, sourceAt, target, targetAt, receives } = batch
  source[i] = isRead ? remote : local
  sourceAt[i] = isRead ? s.result.offset[0] : localAt
  target[i] = isRead ? local : remote
  targetAt[i] = isRead ? localAt : s.result.offset[0]
  const peerRows = (s.peerState as EngineState).rows
  const peerBase = s.peerRow * QP.WORDS
  receives[i] = opcode === SEND ? peerRows[peerBase + QP.RESP_RECEIVE] : 0
  if (opcode === SEND) peerRows[peerBase + QP.RESP_RECEIVE] = 0
  const mtu = w[base + QP.MTU]
  const packets = Math.ceil(length / mtu)
  // The MSN counts each part of a READ.
  const messages = isRead ? countRead(s, row, packets, readPartPackets(s, mtu), length) : 1
  if (!isRead) countFastMessage(s, packets, length, opcode === RDMA_WRITE)
  const psn = (w[base + QP.REQ_PSN] + packets) & PSN_MASK
  peerRows[peerBase + QP.RESP_EPSN] = psn
  peerRows[peerBase + QP.RESP_MSN] = (peerRows[peerBase + QP.RESP_MSN] + messages) & PSN_MASK
  w[base + QP.REQ_PSN] = psn
  w[base + QP.REQ_SENT_BYTES] += length + packets * PACKET_WEIGHT
  return true
}

/** The peer's memory for a WRITE or READ; `s.result.offset` gets its offset. Undefined: use the slow path. */
const findRemote = (s: EngineState, base: number, wr: number, length: number, isRead: boolean): Arena | undefined => {
  const p = s.pool
  const { rows: peerRows, env } = s.peerState as EngineState
  const peerBase = s.peerRow * QP.WORDS
  const right = isRead ? REMOTE_READ : REMOTE_WRITE
  if ((peerRows[peerBase + QP.ACCESS] & right) === 0) return undefined
  // If the requester may have more READs outstanding than the responder accepts, the slow path refuses them.
  const maxRdAtomic = s.rows[base + QP.MAX_RD_ATOMIC]
  if (isRead && (maxRdAtomic === 0 || maxRdAtomic > peerRows[peerBase + QP.RESP_RESOURCE_COUNT])) return undefined
  return env.memory.resolveAndLocate?.(
    peerRows[peerBase + QP.PD],
    p[wr + Send.RKEY],
    p[wr + Send.REMOTE_HI],
    p[wr + Send.REMOTE_LO],
    length,
    right,
    s.result.offset,
  )
}

/** As `findRemote`, for a SEND: takes a receive WQE. If the WQE is not usable here, the slow path uses it. */
const findReceive = (s: EngineState, length: number): Arena | undefined => {
  const peer = s.peerState as EngineState
  if (!takeReceive(peer, s.peerRow)) return undefined
  const peerBase = s.peerRow * QP.WORDS
  const receive = peer.rows[peerBase + QP.RESP_RECEIVE]
  const p = peer.pool
  if (p[receive + Receive.SGES] !== 1 || p[receive + Receive.LENGTH] < length) return undefined
  const sge = receive + Receive.SGE
  const pd = peer.rows[peerBase + QP.RECV_PD]
  return peer.env.memory.resolveAndLocate?.(
    pd,
    p[sge + Sge.LKEY],
    p[sge + Sge.HI],
    p[sge + Sge.LO],
    length,
    LOCAL_WRITE,
    s.result.offset,
  )
}
