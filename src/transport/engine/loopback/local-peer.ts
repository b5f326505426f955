/*
 * Local peers are queue pairs with an engine in this process. Messages to them need no packets (slices.ts,
 * fast-path.ts). This file finds the local peer of a queue pair, and counts the packets that would have been sent. Both
 * ends must match as they would for packets: flows, peers, QPNs, services, path MTUs, P_Keys, states.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { QpState } from '../../../spec/enums.ts'
import { ICRC_BYTES } from '../../../spec/wire/headers.ts'
import { opcodeHeaderBytes, operationCode } from '../../../spec/wire/opcodes.ts'
import { reliableService, Service, serviceBits } from '../../../spec/wire/services.ts'
import { KindFlags, SendKind } from '../../../spec/work.ts'
import { doPkeysMatch } from '../../wire/bth.ts'
import { QP, RespFlag, WQE } from '../fields.ts'
import { basicHeaderBytes, firstOf, lastOf, onlyOf, operationOf } from '../operations.ts'
import { type EngineState, PollCounts, pkeyOf } from '../state.ts'
import { type LocalPeerDevice, Send } from '../types.ts'

const { RTR, ERR } = QpState.values
const { NONE, LOCAL, READ } = SendKind
const { RESPONSE } = KindFlags
const { RC, UD, XRC_INI, XRC_TGT, DCI, RAW } = Service
const HEADER_BYTES = opcodeHeaderBytes
export const BTH_BYTES = HEADER_BYTES[operationCode.READ_RESP_MIDDLE]
const RETH_BYTES = HEADER_BYTES[operationCode.READ_REQUEST] - BTH_BYTES
/** Bytes of an ACK packet, from BTH to ICRC. */
export const ACK_BYTES = HEADER_BYTES[operationCode.ACKNOWLEDGE] + ICRC_BYTES
export const AETH_BYTES = HEADER_BYTES[operationCode.READ_RESP_ONLY] - BTH_BYTES
const { SENT, SENT_BYTES, RECEIVED, RECEIVED_BYTES } = PollCounts

const peerServiceOf = (service: number): number => {
  if (service === XRC_INI) return XRC_TGT
  return service === DCI ? RC : service
}

/**
 * Finds the local peer of `row`, and sets `s.peerDevice`, `s.peerState` and `s.peerRow`. If there is none, returns
 * false, and `s.peerDevice` is undefined.
 */
export const findLocalPeer = (s: EngineState, row: number): boolean => {
  s.peerDevice = undefined
  const ownDevice = s.env.localDevice
  if (ownDevice === undefined) return false
  const w = s.rows
  const base = row * QP.WORDS
  const service = w[base + QP.SERVICE]
  if (service === UD || service === XRC_TGT || service === RAW) return false
  const peerDevice = ownDevice.receiverOf(w[base + QP.FLOW])
  if (peerDevice?.state === undefined) return false
  const peerRow = peerDevice.rowOf(w[base + QP.DEST_QPN])
  if (peerRow < 0) return false
  const peer = peerDevice.state as EngineState
  const peerRows = peer.rows
  const peerBase = peerRow * QP.WORDS
  const isPeer =
    peerRows[peerBase + QP.ALIVE] !== 0 &&
    peerRows[peerBase + QP.SERVICE] === peerServiceOf(service) &&
    peerRows[peerBase + QP.MTU] === w[base + QP.MTU] &&
    peerRows[peerBase + QP.PEER] >= 0 &&
    peerRows[peerBase + QP.PEER] === ownDevice.peerAt(w[base + QP.FLOW]) &&
    (peer !== s || peerRow !== row) &&
    // a packet tells the peer's device of the violation
    doPkeysMatch(pkeyOf(s, base), pkeyOf(peer, peerBase))
  if (!isPeer) return false
  // The peer's ACKs must reach this port.
  if (reliableService[service] !== 0) {
    const peerFlow = peerRows[peerBase + QP.FLOW]
    if (
      peerRows[peerBase + QP.DEST_QPN] !== w[base + QP.QPN] ||
      peerDevice.receiverOf(peerFlow) !== ownDevice ||
      peerDevice.peerAt(peerFlow) !== w[base + QP.PEER]
    )
      return false
  }
  s.peerDevice = peerDevice
  s.peerState = peer
  s.peerRow = peerRow
  return true
}

/** Whether `request` may be sent, or continued, without packets. The caller has found the row's local peer. */
export const isLoopback = (s: EngineState, row: number, request: number): boolean => {
  const w = s.rows
  const base = row * QP.WORDS
  const kind = s.pool[request + WQE.KIND]
  const psn = w[base + QP.REQ_PSN]
  if (
    kind === LOCAL ||
    w[base + QP.REQ_HEAD] !== request ||
    w[base + QP.COMP_PSN] !== psn ||
    w[base + QP.REQ_MAX_PSN] !== psn
  )
    return false
  const peerDevice = s.peerDevice as LocalPeerDevice
  const peerRows = (s.peerState as EngineState).rows
  const peerBase = s.peerRow * QP.WORDS
  const state = peerRows[peerBase + QP.STATE]
  if (state < RTR || state === ERR) return false
  // UC: packets that were sent before must arrive before this message.
  if (reliableService[w[base + QP.SERVICE]] === 0) return s.runCount === 0 && peerDevice.isIdle()
  if (
    (peerRows[peerBase + QP.RESP_FLAGS] & (RespFlag.ACK_DUE | RespFlag.NAK_DUE)) !== 0 ||
    peerRows[peerBase + QP.RESP_PENDING] !== 0
  )
    return false
  if (peerRows[peerBase + QP.RESP_EPSN] !== psn) return false
  // The requester may have more READs outstanding than the responder accepts. Packets let the responder refuse them.
  if ((kind & RESPONSE) !== 0 && w[base + QP.MAX_RD_ATOMIC] > peerRows[peerBase + QP.RESP_RESOURCE_COUNT]) return false
  // While a responder answers a READ, it has no message in progress.
  const isInProgress = kind !== READ && psn !== s.pool[request + WQE.FIRST_PSN]
  return peerRows[peerBase + QP.RESP_MESSAGE] === (isInProgress ? kind : NONE)
}

// ---- counters ----

/** Counts a slice of a SEND or WRITE: `packets` packets with `bytes` bytes of data. */
export const countMessage = (
  s: EngineState,
  row: number,
  request: number,
  starts: boolean,
  ends: boolean,
  packets: number,
  bytes: number,
): void => {
  const service = s.rows[row * QP.WORDS + QP.SERVICE]
  const operation = operationOf(service, s.pool[request + WQE.WR + Send.OPCODE])
  const bits = serviceBits[service]
  const basicBytes = basicHeaderBytes[service]
  let size = packets * (basicBytes + ICRC_BYTES) + bytes + (-bytes & 3)
  if (starts && ends) size += HEADER_BYTES[bits | onlyOf[operation]] - basicBytes
  else {
    if (starts) size += HEADER_BYTES[bits | firstOf[operation]] - basicBytes
    if (ends) size += HEADER_BYTES[bits | lastOf[operation]] - basicBytes
  }
  countOutbound(s, packets, size)
}

/** Counts an RC SEND or WRITE of `bytes` bytes in `packets` packets, and its ACK. */
export const countFastMessage = (s: EngineState, packets: number, bytes: number, isWrite: boolean): void => {
  const rethBytes = isWrite ? RETH_BYTES : 0
  countOutbound(s, packets, packets * (BTH_BYTES + ICRC_BYTES) + rethBytes + bytes + (-bytes & 3))
  countInbound(s, 1, ACK_BYTES)
}

/**
 * Counts a READ of `bytes` bytes in `packets` responses, requested in parts of `partPackets` packets. Returns the
 * number of parts.
 */
export const countRead = (s: EngineState, row: number, packets: number, partPackets: number, bytes: number): number => {
  const parts = Math.ceil(packets / partPackets)
  const lastPartPackets = packets - (parts - 1) * partPackets
  // The first and the last response of a part have an AETH.
  const aeths = (parts - 1) * (partPackets > 1 ? 2 : 1) + (lastPartPackets > 1 ? 2 : 1)
  const requestBytes =
    HEADER_BYTES[serviceBits[s.rows[row * QP.WORDS + QP.SERVICE]] | operationCode.READ_REQUEST] + ICRC_BYTES
  countOutbound(s, parts, parts * requestBytes)
  countInbound(s, packets, packets * (BTH_BYTES + ICRC_BYTES) + aeths * AETH_BYTES + bytes + (-bytes & 3))
  return parts
}

export const countOutbound = (s: EngineState, packets: number, bytes: number): void => {
  s.pollCounts[SENT] += packets
  s.pollCounts[SENT_BYTES] += bytes
}

export const countInbound = (s: EngineState, packets: number, bytes: number): void => {
  s.pollCounts[RECEIVED] += packets
  s.pollCounts[RECEIVED_BYTES] += bytes
}

/** At the end of a poll: adds the poll's counts to the counters of both engines and both ports. */
export const addPollCounts = (s: EngineState): void => {
  const { pollCounts } = s
  // A poll that continues a READ may count responses only.
  if (pollCounts[SENT] === 0 && pollCounts[RECEIVED] === 0) return
  const ownDevice = s.env.localDevice as LocalPeerDevice
  const peerDevice = s.peerDevice as LocalPeerDevice
  const peer = s.peerState as EngineState
  addCounts(ownDevice, s, peerDevice, peer, pollCounts[SENT], pollCounts[SENT_BYTES])
  addCounts(peerDevice, peer, ownDevice, s, pollCounts[RECEIVED], pollCounts[RECEIVED_BYTES])
  pollCounts[SENT] = 0
  pollCounts[SENT_BYTES] = 0
  pollCounts[RECEIVED] = 0
  pollCounts[RECEIVED_BYTES] = 0
}

const addCounts = (
  sendingDevice: LocalPeerDevice,
  sender: EngineState,
  receivingDevice: LocalPeerDevice,
  receiver: EngineState,
  packets: number,
  bytes: number,
): void => {
  sender.counters.sentPackets += packets
  sendingDevice.counters.sentPackets += packets
  sendingDevice.counters.sentBytes += bytes
  receiver.counters.receivedPackets += packets
  receivingDevice.counters.receivedPackets += packets
  receivingDevice.counters.receivedBytes += bytes
}
