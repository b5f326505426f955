/*
 * SENDs, WRITEs and READs between queue pairs of one process about which nothing is odd, each done at one go: one
 * piece of memory at each end that JavaScript reaches, nothing beside the data, not too long, nothing else under way.
 * They are not put on the list of requests, where nobody would look for them. Here is only what goes right: whatever
 * is missing or forbidden is seen before anything is done, and the longer way (transport/requester/requester.ts,
 * slices.ts) finds it again and says what comes of it. What is counted is what packets would have been.
 */
import { QpState } from '../../spec/enums.ts'
import { Service } from '../../spec/wire/services.ts'
import { SendFlags, SendKind, WcOpcode, WcStatus, WrOpcode } from '../../spec/work.ts'
import { type Arena, plainArena } from '../../wire/arena.ts'
import { completeReceive, completeSend } from '../completer/completion.ts'
import { PSN_MASK } from '../psn.ts'
import { recvBlock, sendBlock } from '../qp-layout.ts'
import { takeReceive } from '../responder/receive-request.ts'
import {
  type EngineState,
  type FastBatch,
  giveBlock,
  PACKET_WEIGHT,
  Q,
  R,
  Request,
  Row,
  readPart,
  takeBlock,
} from '../state.ts'
import { Access, Receive, Send, Sge } from '../types.ts'
import { countFastMessage, countRead, findLocalPeer, settleCounts } from './local-peer.ts'

const { WORDS, SERVICE, STATE, PD, MTU, ACCESS, MAX_RD, REQUESTER, NEXT_INDEX } = Row
const { HEAD, UNACKED, SEND_PSN, MAX_PSN, SENT, ACKED, SINCE, RETRIES, RETRY_CNT, RNR_LEFT, RNR_RETRY } = Row
const { RESPONDER, EXPECTED, MSN, MESSAGE, RECEIVE, PENDING, RESOURCE_COUNT } = Row
const { WR } = Request
const { OPCODE, FLAGS, SGES, SGE, LENGTH, RKEY, REMOTE_LO, REMOTE_HI, REFUSED } = Send
const { LO, HI, LKEY } = Sge
const { RTS } = QpState.values
const { RDMA_WRITE, RDMA_READ, SEND } = WrOpcode.values
const { SOLICITED, INLINE } = SendFlags.values
const { RECV } = WcOpcode.values
const { SUCCESS } = WcStatus.values
const { LOCAL_READ, LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE } = Access
const { NONE } = SendKind
const { ACK_DUE, NAK_DUE, NAK_SENT } = R

/** Longest message that is done at one go, bytes: all others wait for it. */
const WHOLE_BYTES = 0x10_0000

/** Bytes (payload and weight of packets) that a queue pair hands over before it is another one's turn. */
export const FAST_QUANTUM = 0x10_0000

/** Requests that are done together. */
const TOGETHER = 16

const nothing = plainArena(0)
const createTogether = (): FastBatch => ({
  requests: new Int32Array(TOGETHER),
  receives: new Int32Array(TOGETHER),
  from: new Array<Arena>(TOGETHER).fill(nothing),
  fromAt: new Float64Array(TOGETHER),
  to: new Array<Arena>(TOGETHER).fill(nothing),
  toAt: new Float64Array(TOGETHER),
})

/** Whether the row has nothing under way, and something posted. */
const isIdle = (s: EngineState, base: number): boolean => {
  const w = s.rows
  const psn = w[base + SEND_PSN]
  return (
    w[base + SERVICE] === Service.RC &&
    w[base + STATE] === RTS &&
    w[base + HEAD] === 0 &&
    w[base + UNACKED] === psn &&
    w[base + MAX_PSN] === psn &&
    (w[base + REQUESTER] & (Q.MORE | Q.RNR_WAIT)) === Q.MORE
  )
}

/** Whether its partner has nothing under way either. */
const isPeerIdle = (s: EngineState, psn: number): boolean => {
  const t = s.partnerState as EngineState
  const v = t.rows
  const there = s.partnerRow * WORDS
  return (
    v[there + STATE] === RTS &&
    v[there + EXPECTED] === psn &&
    v[there + MESSAGE] === NONE &&
    v[there + PENDING] === 0 &&
    (v[there + RESPONDER] & (ACK_DUE | NAK_DUE | NAK_SENT)) === 0 &&
    t.moveArena === undefined
  )
}

/**
 * Does what was posted, as far as it is of this kind, before the row gets a turn: true if nothing is left for one.
 */
export const sendIdleFastPath = (s: EngineState, row: number): boolean => {
  const base = row * WORDS
  if (!isIdle(s, base) || !findLocalPeer(s, row)) return false
  sendAllFast(s, row)
  settleCounts(s)
  return (s.rows[base + REQUESTER] & Q.MORE) === 0
}

/** Does what was posted, as far as it is of this kind, and not more than one turn allows; the row has a partner. */
export const sendFastPath = (s: EngineState, row: number): void => {
  if (isIdle(s, row * WORDS)) sendAllFast(s, row)
}

/** The same for a row that is at rest. */
const sendAllFast = (s: EngineState, row: number): void => {
  const base = row * WORDS
  if (!isPeerIdle(s, s.rows[base + SEND_PSN])) return
  const before = s.rows[base + SENT]
  while (sendBatch(s, row, before)) {
    // more was posted than is done together
  }
}

/**
 * Does up to TOGETHER requests: what is said of them is looked through first, then their bytes are moved, then they are
 * completed. Long copies leave nothing of the engine in the nearest cache, so that each stretch costs less by itself
 * than taking turns. True if more may be done, `before` being what the row had sent when its turn began.
 */
const sendBatch = (s: EngineState, row: number, before: number): boolean => {
  s.together ??= createTogether()
  const { requests, receives, from, fromAt, to, toAt } = s.together
  const base = row * WORDS
  const w = s.rows
  const start = w[base + SENT]
  const size = sendBlock(w, base)
  let count = 0
  let request = 0
  while (count < TOGETHER && ((w[base + SENT] - before) | 0) < FAST_QUANTUM) {
    request = takeBlock(s, size)
    const isThere = s.env.work.loadSend(row, w[base + NEXT_INDEX] >>> 0, s.pool, request + WR)
    if (!isThere) w[base + REQUESTER] &= ~Q.MORE
    if (!isThere || !prepareFast(s, row, request + WR, s.together, count)) break
    w[base + NEXT_INDEX]++
    requests[count++] = request
    request = 0
  }
  if (request !== 0) giveBlock(s, size, request)
  if (count === 0) return false
  w[base + UNACKED] = w[base + SEND_PSN]
  w[base + MAX_PSN] = w[base + SEND_PSN]
  w[base + ACKED] = w[base + SENT]
  w[base + SINCE] = 0
  w[base + REQUESTER] &= ~(Q.RESENT | Q.LATE)
  w[base + RETRIES] = w[base + RETRY_CNT]
  w[base + RNR_LEFT] = w[base + RNR_RETRY]
  s.handed += (w[base + SENT] - start) | 0
  const { move } = s.env.memory
  for (let i = 0; i < count; i++) move?.(from[i], fromAt[i], to[i], toAt[i], s.pool[requests[i] + WR + LENGTH])
  s.env.work.retireSend(row, count)
  for (let i = 0; i < count; i++) {
    if (receives[i] !== 0) completeReceived(s, receives[i], requests[i] + WR)
    completeSend(s, row, requests[i], SUCCESS)
    giveBlock(s, size, requests[i])
  }
  return request === 0 && count === TOGETHER
}

/** Completes a receive request of the partner with the SEND at `wr`. */
const completeReceived = (s: EngineState, receive: number, wr: number): void => {
  const t = s.partnerState as EngineState
  const other = s.partnerRow
  const solicited = (s.pool[wr + FLAGS] & SOLICITED) !== 0
  completeReceive(t, other, receive, SUCCESS, RECV, s.pool[wr + LENGTH], 0, 0, solicited)
  giveBlock(t, recvBlock(t.rows, other * WORDS), receive)
}

/**
 * Takes the request at `wr` as number `i` of those that are done together, as if its packets had passed; false if it is
 * another kind or something forbids it, and then nothing has happened.
 */
const prepareFast = (s: EngineState, row: number, wr: number, together: FastBatch, i: number): boolean => {
  const p = s.pool
  const w = s.rows
  const base = row * WORDS
  const opcode = p[wr + OPCODE]
  const length = p[wr + LENGTH]
  const isRead = opcode === RDMA_READ
  if (!isRead && opcode !== RDMA_WRITE && opcode !== SEND) return false
  if (p[wr + SGES] !== 1 || length === 0 || length > WHOLE_BYTES || (p[wr + FLAGS] & INLINE) !== 0) return false
  if (p[wr + REFUSED] !== 0) return false
  const sge = wr + SGE
  const access = isRead ? LOCAL_WRITE : LOCAL_READ
  const here = s.env.memory.find?.(w[base + PD], p[sge + LKEY], p[sge + HI], p[sge + LO], length, access, s.place)
  if (here === undefined) return false
  const hereAt = s.place[0]
  const beyond = opcode === SEND ? findReceive(s, length) : findRemote(s, base, wr, length, isRead)
  if (beyond === undefined) return false
  const { from, fromAt, to, toAt, receives } = together
  from[i] = isRead ? beyond : here
  fromAt[i] = isRead ? s.place[0] : hereAt
  to[i] = isRead ? here : beyond
  toAt[i] = isRead ? hereAt : s.place[0]
  const v = (s.partnerState as EngineState).rows
  const there = s.partnerRow * WORDS
  receives[i] = opcode === SEND ? v[there + RECEIVE] : 0
  if (opcode === SEND) v[there + RECEIVE] = 0
  const mtu = w[base + MTU]
  const packets = Math.ceil(length / mtu)
  const messages = isRead ? countRead(s, row, packets, readPart(s, mtu), length) : 1
  if (!isRead) countFastMessage(s, packets, length, opcode === RDMA_WRITE)
  const psn = (w[base + SEND_PSN] + packets) & PSN_MASK
  v[there + EXPECTED] = psn
  v[there + MSN] = (v[there + MSN] + messages) & PSN_MASK
  w[base + SEND_PSN] = psn
  w[base + SENT] += length + packets * PACKET_WEIGHT
  return true
}

/** The peer's memory for a WRITE or READ, and in `s.place` where it begins. */
const findRemote = (s: EngineState, base: number, wr: number, length: number, isRead: boolean): Arena | undefined => {
  const p = s.pool
  const { rows: v, env } = s.partnerState as EngineState
  const there = s.partnerRow * WORDS
  const right = isRead ? REMOTE_READ : REMOTE_WRITE
  if ((v[there + ACCESS] & right) === 0) return undefined
  // more READs at once than the other end serves: it is to see and refuse them
  const most = s.rows[base + MAX_RD]
  if (isRead && (most === 0 || most > v[there + RESOURCE_COUNT])) return undefined
  return env.memory.find?.(v[there + PD], p[wr + RKEY], p[wr + REMOTE_HI], p[wr + REMOTE_LO], length, right, s.place)
}

/** The same for a SEND, of a receive request that is taken: what does not fit it finds it taken the longer way too. */
const findReceive = (s: EngineState, length: number): Arena | undefined => {
  const t = s.partnerState as EngineState
  if (!takeReceive(t, s.partnerRow)) return undefined
  const there = s.partnerRow * WORDS
  const receive = t.rows[there + RECEIVE]
  const p = t.pool
  if (p[receive + Receive.SGES] !== 1 || p[receive + Receive.LENGTH] < length) return undefined
  const sge = receive + Receive.SGE
  const pd = t.rows[there + Row.RECV_PD]
  return t.env.memory.find?.(pd, p[sge + LKEY], p[sge + HI], p[sge + LO], length, LOCAL_WRITE, s.place)
}
