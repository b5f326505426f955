/*
 * The program's send and receive queues in rings as a WorkSource of the engine (transport/engine/types.ts).
 *
 * A WQE of either ring layout is converted into the engine's words (`Send`). The engine completes an invalid WQE with
 * the status in `Send.REFUSED`. Debian's provider writes a wrong total length into requests of the ibv_wr_* calls, so
 * the lengths of the elements are summed. It also posts inline data without the inline flag. An ATOMIC WRITE always has
 * its 8 bytes inline.
 */

import {
  clearRing,
  createRing,
  elementAt,
  emptyRing,
  loadProducer,
  NO_INDEX,
  type Ring,
  type RingMemory,
  storeConsumer,
} from '../../../core/memory/rings.ts'
import { type CauseName, vendorErrorOf } from '../../../spec/check/causes.ts'
import { swap32 } from '../../../spec/memory.ts'
import { ATOMIC_BYTES, MAX_MESSAGE_BYTES, SendFlags, sendOperations, WcStatus, WrOpcode } from '../../../spec/work.ts'
import { BindMw, Flush, Send, type WorkSource } from '../../../transport/engine/types.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import type { Destinations } from '../address/destinations.ts'
import { copySges } from './elements.ts'
import { clearReceives, type ReceiveQueue, takeReceive } from './receive-queue.ts'

const { ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, SEND_WITH_INV, LOCAL_INV, BIND_MW, DRIVER1, FLUSH, ATOMIC_WRITE } =
  WrOpcode.values
const { INLINE } = SendFlags.values
const { LOC_LEN_ERR, LOC_QP_OP_ERR } = WcStatus.values
/** Values of `Send.REFUSED`: the status of the completion in bits 0 to 7, the number of the cause in those above. */
export const refusal = (status: number, id: CauseName): number => status | (vendorErrorOf(id) << 8)
const BAD_OPCODE = refusal(LOC_QP_OP_ERR, 'BAD_OPCODE')
const TOO_MANY_SGE = refusal(LOC_QP_OP_ERR, 'TOO_MANY_SGE')
const NO_ADDRESS_HANDLE = refusal(LOC_QP_OP_ERR, 'NO_ADDRESS_HANDLE')
const INLINE_TOO_LONG = refusal(LOC_LEN_ERR, 'INLINE_TOO_LONG')
const MESSAGE_TOO_LONG = refusal(LOC_LEN_ERR, 'MESSAGE_TOO_LONG')
/** Opcodes of all services together, one bit each. */
const KNOWN_OPCODES = Object.keys(sendOperations).reduce((bits, opcode) => bits | (1 << Number(opcode)), 0)

/** Opcodes whose WQE has neither elements nor inline data, one bit each. */
const DATALESS = (1 << LOCAL_INV) | (1 << BIND_MW) | (1 << DRIVER1) | (1 << FLUSH)

export interface SendQueue {
  readonly ring: Ring
  readonly maxSge: number
  readonly maxInline: number
  /** Index of the oldest WQE that is not retired. */
  retiredIndex: number
  /** If not 0: `Send.REFUSED` of each request that is loaded. */
  refusal?: number
  /** The producer index that a scan (posts.ts) or the engine (at the end of the queue) has read last; or NO_INDEX. */
  seenProducer: number
}

/** The context of a queue pair, for the order of memory window operations (posts.ts). */
export interface QueueOwner {
  /** Number of memory windows. */
  readonly windowCount: number
}

export interface QpRings {
  /** Absent for an XRC target, which belongs to no single context. */
  readonly owner?: QueueOwner
  readonly send: SendQueue
  /** The queue pair's own queue, or its SRQ; for an XRC target the SRQ of the last message. */
  receive: ReceiveQueue
  /** Only for queue pairs that send datagrams. */
  readonly destinations?: Destinations | undefined
}

/**
 * A queue for at least `requests` requests. Inline data and elements share `maxInline` bytes of each request, so
 * `maxInline` must be at least the bytes of `maxSge` elements. Throws CallError ENOMEM.
 */
export const createSendQueue = (
  memory: RingMemory,
  requests: number,
  maxSge: number,
  maxInline: number,
): SendQueue => ({
  ring: createRing(memory, requests, memory.layout.send.SGE + maxInline),
  maxSge,
  maxInline,
  retiredIndex: 0,
  seenProducer: NO_INDEX,
})

/** The send queue of a queue pair without one: nothing is ever posted to it. */
export const emptySendQueue: SendQueue = {
  ring: emptyRing,
  maxSge: 0,
  maxInline: 0,
  retiredIndex: 0,
  seenProducer: NO_INDEX,
}

/** Whether the program has posted send WQE number `index`. */
const isSendPosted = ({ ring }: SendQueue, index: number): boolean => ((loadProducer(ring) - index) & ring.wrap) !== 0

/** Number of WQEs that are posted and not retired. */
export const pendingSends = ({ ring, retiredIndex }: SendQueue): number =>
  (loadProducer(ring) - retiredIndex) & ring.wrap

/** Maximum number of requests that `isWindowOperationPosted` checks. */
const LOOK_AHEAD = 64

/** Whether BIND_MW or LOCAL_INV is among the first LOOK_AHEAD posted requests from index `index` on. */
export const isWindowOperationPosted = (queue: SendQueue, index: number): boolean => {
  const { ring } = queue
  const { words } = ring.area
  for (let i = index; i < index + LOOK_AHEAD && isSendPosted(queue, i); i++) {
    const opcode = words[(elementAt(ring, i) + ring.layout.send.OPCODE) >> 2]
    if (opcode === BIND_MW || opcode === LOCAL_INV) return true
  }
  return false
}

const isAtomic = (opcode: number): boolean => opcode === ATOMIC_CMP_AND_SWP || opcode === ATOMIC_FETCH_AND_ADD

/** `WorkSource.loadSend` for the queues `rings`. */
const loadSend = (rings: QpRings, index: number, into: Uint32Array, at: number): boolean => {
  const queue = rings.send
  const { ring } = queue
  if (!isSendPosted(queue, index)) {
    queue.seenProducer = index & ring.wrap
    return false
  }
  const { words } = ring.area
  const { send } = ring.layout
  const wqe = elementAt(ring, index)
  const opcode = words[(wqe + send.OPCODE) >> 2] >>> 0
  const flags = words[(wqe + send.FLAGS) >> 2]
  const sges = words[(wqe + send.DMA_NUM_SGE) >> 2] >>> 0
  // in the WQE of an atomic, operands may occupy the word
  const statedLength = isAtomic(opcode) ? 0 : words[(wqe + send.DMA_LENGTH) >> 2] >>> 0
  const isDataless = opcode < 32 && ((DATALESS >>> opcode) & 1) !== 0
  const isInlineWithoutFlag = sges === 0 && statedLength > 0
  const isInline = !isDataless && ((flags & INLINE) !== 0 || opcode === ATOMIC_WRITE || isInlineWithoutFlag)
  let refused = 0
  let length = 0
  let count = 0
  const isPrograms = opcode === DRIVER1 && ring.refresh === undefined
  if (opcode > 31 || ((KNOWN_OPCODES >>> opcode) & 1) === 0 || isPrograms) refused = BAD_OPCODE
  else if (isInline) {
    length = opcode === ATOMIC_WRITE ? ATOMIC_BYTES : statedLength
    if (statedLength > queue.maxInline && opcode !== ATOMIC_WRITE) refused = INLINE_TOO_LONG
  } else if (!isDataless && sges > queue.maxSge) refused = TOO_MANY_SGE
  else if (!isDataless) {
    count = sges
    length = copySges(ring, wqe + send.SGE, count, into, at + Send.SGE)
    // the port's max_msg_sz is smaller; like rxe, the device does not enforce it
    if (length > MAX_MESSAGE_BYTES) refused = MESSAGE_TOO_LONG
  }
  if (queue.refusal) refused = queue.refusal
  into[at + Send.OPCODE] = opcode
  into[at + Send.FLAGS] = isInline ? flags | INLINE : flags & ~INLINE
  into[at + Send.ID_LO] = words[(wqe + send.WR_ID) >> 2]
  into[at + Send.ID_HI] = words[(wqe + send.WR_ID + 4) >> 2]
  into[at + Send.SGES] = refused === 0 ? count : 0
  into[at + Send.LENGTH] = refused === 0 ? length : 0
  const imm = words[(wqe + send.IMM) >> 2]
  into[at + Send.IMM] = opcode === SEND_WITH_INV || opcode === LOCAL_INV ? imm : swap32(imm)
  into[at + Send.REMOTE_LO] = words[(wqe + send.REMOTE) >> 2]
  into[at + Send.REMOTE_HI] = words[(wqe + send.REMOTE + 4) >> 2]
  into[at + Send.INLINE_AT] = wqe + send.SGE
  into[at + Send.REFUSED] = refused
  if (rings.destinations === undefined) loadOperands(ring, wqe, opcode, into, at)
  else loadDestination(rings.destinations, ring, wqe, into, at)
  return true
}

const loadOperands = (ring: Ring, wqe: number, opcode: number, into: Uint32Array, at: number): void => {
  const { words } = ring.area
  const { send } = ring.layout
  if (opcode === BIND_MW) {
    into[at + BindMw.WINDOW] = words[(wqe + send.MW_KEY) >> 2]
    into[at + BindMw.KEY] = words[(wqe + send.MW_NEW_KEY) >> 2]
    into[at + BindMw.LENGTH_LO] = words[(wqe + send.MW_LENGTH) >> 2]
    into[at + BindMw.LENGTH_HI] = words[(wqe + send.MW_LENGTH + 4) >> 2]
    into[at + BindMw.LKEY] = words[(wqe + send.MW_LKEY) >> 2]
    into[at + BindMw.ACCESS] = words[(wqe + send.MW_ACCESS) >> 2]
  } else if (opcode === FLUSH) {
    into[at + Send.RKEY] = words[(wqe + send.FLUSH_RKEY) >> 2]
    into[at + Flush.LENGTH] = words[(wqe + send.DMA_LENGTH) >> 2]
    into[at + Flush.PLACEMENT] = ring.area.bytes[wqe + send.FLUSH_PLACEMENT]
    into[at + Flush.SELECTIVITY] = ring.area.bytes[wqe + send.FLUSH_SELECTIVITY]
  } else {
    into[at + Send.RKEY] = words[(wqe + (isAtomic(opcode) ? send.ATOMIC_RKEY : send.RKEY)) >> 2]
    into[at + Send.COMPARE_LO] = words[(wqe + send.ATOMIC_COMPARE_ADD) >> 2]
    into[at + Send.COMPARE_HI] = words[(wqe + send.ATOMIC_COMPARE_ADD + 4) >> 2]
    into[at + Send.SWAP_LO] = words[(wqe + send.ATOMIC_SWAP) >> 2]
    into[at + Send.SWAP_HI] = words[(wqe + send.ATOMIC_SWAP + 4) >> 2]
  }
}

const loadDestination = (destinations: Destinations, ring: Ring, wqe: number, into: Uint32Array, at: number): void => {
  const { words, bytes } = ring.area
  const { send } = ring.layout
  const number = words[(wqe + send.UD_AH) >> 2] >>> 0
  let flow = -1
  if (number !== 0) flow = destinations.byHandle(number)
  // offset 0: WQEs of this layout have no address vector
  else if (send.UD_VECTOR !== 0) flow = destinations.byVector(bytes, wqe + send.UD_VECTOR)
  into[at + Send.DEST_QPN] = words[(wqe + send.UD_QPN) >> 2]
  into[at + Send.QKEY] = words[(wqe + send.UD_QKEY) >> 2]
  into[at + Send.FLOW] = flow
  destinations.hold(flow)
  if (flow < 0 && into[at + Send.REFUSED] === 0) into[at + Send.REFUSED] = NO_ADDRESS_HANDLE
}

const copyInline = (
  rings: QpRings,
  inlineAt: number,
  from: number,
  to: Arena,
  at: number,
  chunk: number,
  stride: number,
  total: number,
): void => {
  const bytes = rings.send.ring.area.bytes
  let source = inlineAt + from
  for (let target = at, remaining = total; remaining > 0; target += stride) {
    const size = remaining < chunk ? remaining : chunk
    // creating a view would cost more
    if (size <= 128) for (let i = 0; i < size; i++) to.bytes[target + i] = bytes[source + i]
    else to.bytes.set(bytes.subarray(source, source + size), target)
    source += size
    remaining -= size
  }
}

/** For RESET: empties the queues, except an SRQ. */
export const resetRings = (rings: QpRings): void => {
  clearRing(rings.send.ring)
  rings.send.retiredIndex = 0
  if (!rings.receive.isShared) clearReceives(rings.receive)
}

/** The SRQ with number `srqn`; undefined if the XRC target in this row must not use it. */
export type FindSrq = (
  row: number,
  srqn: number,
) => { readonly queue: ReceiveQueue; readonly pd: number; readonly cq: number } | undefined

/** The work source of an engine whose rows have these rings. */
export const ringWork = (
  rings: readonly (QpRings | undefined)[],
  findShared: FindSrq = () => undefined,
): WorkSource => {
  const ringsOf = rings as readonly QpRings[] // the engine names rows that exist
  return {
    loadSend: (row, index, into, at) => loadSend(ringsOf[row], index, into, at),
    retireSend: (row, count) => {
      const { send } = ringsOf[row]
      send.retiredIndex = (send.retiredIndex + count) & send.ring.wrap
      storeConsumer(send.ring, send.retiredIndex)
    },
    copyInline: (row, inlineAt, from, to, at, chunk, stride, total) =>
      copyInline(ringsOf[row], inlineAt, from, to, at, chunk, stride, total),
    takeReceive: (row, into, at) => takeReceive(ringsOf[row].receive, into, at),
    selectShared: (row, srqn, into) => {
      const found = findShared(row, srqn)
      if (found === undefined) return false
      ringsOf[row].receive = found.queue
      into[0] = found.pd
      into[1] = found.cq
      return true
    },
  }
}
