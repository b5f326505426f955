/*
 * Which queue pair of this process takes the messages of another one without packets (direct.ts), and the counting of
 * the packets that they would have been. Both ends look at each other as their packets would: flows, numbers of peers
 * and of queue pairs, services, path MTUs, states.
 */
import { QpState } from '../spec/enums.ts'
import { ICRC_BYTES } from '../spec/headers.ts'
import { opcodeHeaderBytes } from '../spec/opcodes.ts'
import { reliableService, Service, serviceBits } from '../spec/services.ts'
import { SendKind } from '../spec/work.ts'
import { firstOf, lastOf, onlyOf, operationOf, plainBytes } from './operations.ts'
import { type EngineState, R, Request, Row } from './state.ts'
import { type Neighbour, Send } from './types.ts'

const { WORDS, ALIVE, SERVICE, STATE, QPN, MTU, DEST_QPN, FLOW, PEER, MAX_RD } = Row
const { HEAD, UNACKED, SEND_PSN, MAX_PSN, RESPONDER, EXPECTED, MESSAGE, PENDING, RESOURCE_COUNT } = Row
const { FIRST_PSN, KIND, WR } = Request
const { OPCODE } = Send
const { RTR, ERR } = QpState.values
const { NONE, LOCAL, READ } = SendKind
const { UD, XRC_INI, XRC_TGT } = Service
const { ACK_DUE, NAK_DUE } = R
const HEADER_BYTES = opcodeHeaderBytes

/** The service that the other end must have. */
const partnerOf = (service: number): number => (service === XRC_INI ? XRC_TGT : service)

/**
 * Looks for the queue pair at the other end, for a turn of `row`: in `s.partner…`. False if the two
 * must talk in packets.
 */
export const findPartner = (s: EngineState, row: number): boolean => {
  s.partner = undefined
  const own = s.env.neighbour
  if (own === undefined) return false
  const w = s.rows
  const base = row * WORDS
  const service = w[base + SERVICE]
  if (service === UD || service === XRC_TGT) return false
  const theirs = own.at(w[base + FLOW])
  if (theirs?.state === undefined) return false
  const other = theirs.rowOf(w[base + DEST_QPN])
  if (other < 0) return false
  const t = theirs.state as EngineState
  const v = t.rows
  const there = other * WORDS
  const isRight =
    v[there + ALIVE] !== 0 &&
    v[there + SERVICE] === partnerOf(service) &&
    v[there + MTU] === w[base + MTU] &&
    v[there + PEER] >= 0 &&
    v[there + PEER] === own.peerAt(w[base + FLOW]) &&
    (t !== s || other !== row)
  if (!isRight) return false
  // acknowledgements find their way back
  if (reliableService[service] !== 0) {
    const back = v[there + FLOW]
    if (v[there + DEST_QPN] !== w[base + QPN] || theirs.at(back) !== own || theirs.peerAt(back) !== w[base + PEER])
      return false
  }
  s.partner = theirs
  s.partnerState = t
  s.partnerRow = other
  return true
}

/** Whether `request` may go this way now, or go on; the queue pair has a partner. */
export const isDirect = (s: EngineState, row: number, request: number): boolean => {
  const w = s.rows
  const base = row * WORDS
  const kind = s.pool[request + KIND]
  const psn = w[base + SEND_PSN]
  if (kind === LOCAL || w[base + HEAD] !== request || w[base + UNACKED] !== psn || w[base + MAX_PSN] !== psn)
    return false
  const theirs = s.partner as Neighbour
  const v = (s.partnerState as EngineState).rows
  const there = s.partnerRow * WORDS
  const state = v[there + STATE]
  if (state < RTR || state === ERR) return false
  if (reliableService[w[base + SERVICE]] === 0) return s.runCount === 0 && theirs.isIdle()
  if ((v[there + RESPONDER] & (ACK_DUE | NAK_DUE)) !== 0 || v[there + PENDING] !== 0) return false
  if (v[there + EXPECTED] !== psn) return false
  // more READs at once than the other end serves: it is to see and refuse them
  if (kind >= READ && w[base + MAX_RD] > v[there + RESOURCE_COUNT]) return false
  const message = psn === s.pool[request + FIRST_PSN] || kind === READ ? NONE : kind
  return v[there + MESSAGE] === message
}

// ---- counters ----

/** A slice of `packets` of a message, `bytes` of data, went to the other end. */
export const countMessage = (
  s: EngineState,
  row: number,
  request: number,
  starts: boolean,
  ends: boolean,
  packets: number,
  bytes: number,
): void => {
  const service = s.rows[row * WORDS + SERVICE]
  const operation = operationOf(service, s.pool[request + WR + OPCODE])
  const bits = serviceBits[service]
  const plain = plainBytes[service]
  let size = packets * (plain + ICRC_BYTES) + bytes + (-bytes & 3)
  if (starts && ends) size += HEADER_BYTES[bits | onlyOf[operation]] - plain
  else {
    if (starts) size += HEADER_BYTES[bits | firstOf[operation]] - plain
    if (ends) size += HEADER_BYTES[bits | lastOf[operation]] - plain
  }
  countThere(s, packets, size)
}

/** Packets of so many bytes went to the other end. */
export const countThere = (s: EngineState, packets: number, bytes: number): void => {
  const own = s.env.neighbour as Neighbour
  const theirs = s.partner as Neighbour
  count(own, s, theirs, s.partnerState as EngineState, packets, bytes)
}

/** And back from it. */
export const countBack = (s: EngineState, packets: number, bytes: number): void => {
  const own = s.env.neighbour as Neighbour
  const theirs = s.partner as Neighbour
  count(theirs, s.partnerState as EngineState, own, s, packets, bytes)
}

const count = (
  from: Neighbour,
  sender: EngineState,
  to: Neighbour,
  receiver: EngineState,
  packets: number,
  bytes: number,
): void => {
  sender.counters.sentPackets += packets
  from.counters.sentPackets += packets
  from.counters.sentBytes += bytes
  receiver.counters.receivedPackets += packets
  to.counters.receivedPackets += packets
  to.counters.receivedBytes += bytes
}
