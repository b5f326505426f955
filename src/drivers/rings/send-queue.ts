/*
 * Send WQEs in a ring of either layout that a program, which may be hostile, fills: they become the engine's words
 * (`Send`).
 *
 * The engine completes an invalid WQE with the status in `Send.REFUSED`. Debian's provider writes a wrong total length
 * into requests of the ibv_wr_* calls, so the lengths of the elements are summed. It also posts inline data without the
 * inline flag. An ATOMIC WRITE always has its 8 bytes inline.
 */

import {
  clearRing,
  createRing,
  elementAt,
  loadProducer,
  type Ring,
  type RingMemory,
  storeConsumer,
} from '../../core/memory/rings.ts'
import { AddressVector } from '../../spec/drivers/mapped-rings.ts'
import { joinWords, swap32 } from '../../spec/memory.ts'
import {
  ATOMIC_BYTES,
  isAtomic,
  MAX_MESSAGE_BYTES,
  SendFlags,
  sendOperations,
  WcStatus,
  WrOpcode,
} from '../../spec/work.ts'
import { BindMw, Flush, Send } from '../../transport/engine/types.ts'
import type { Arena } from '../../transport/wire/arena.ts'
import type { Destinations } from '../soft/address/destinations.ts'
import { type ExactQueue, LOOK_AHEAD, NO_MARK, refusal, type SendGlance, type SendQueue } from '../soft/queues.ts'
import { copySges } from './elements.ts'
import { exactRing, releaseSlots } from './exact-rings.ts'

const { SEND_WITH_INV, LOCAL_INV, BIND_MW, DRIVER1, MEMCPY, FLUSH, ATOMIC_WRITE } = WrOpcode.values
const { INLINE, SIGNALED } = SendFlags.values
const { LOC_LEN_ERR, LOC_QP_OP_ERR } = WcStatus.values
const BAD_OPCODE = refusal(LOC_QP_OP_ERR, 'BAD_OPCODE')
const TOO_MANY_SGE = refusal(LOC_QP_OP_ERR, 'TOO_MANY_SGE')
const NO_ADDRESS_HANDLE = refusal(LOC_QP_OP_ERR, 'NO_ADDRESS_HANDLE')
const INLINE_TOO_LONG = refusal(LOC_LEN_ERR, 'INLINE_TOO_LONG')
const MESSAGE_TOO_LONG = refusal(LOC_LEN_ERR, 'MESSAGE_TOO_LONG')
/** Opcodes of all services together, one bit each. A driver's own opcodes are none of rxe's. */
const KNOWN_OPCODES =
  Object.keys(sendOperations).reduce((bits, opcode) => bits | (1 << Number(opcode)), 0) &
  ~((1 << DRIVER1) | (1 << MEMCPY))

/** Opcodes whose WQE has neither elements nor inline data, one bit each. */
const DATALESS = (1 << LOCAL_INV) | (1 << BIND_MW) | (1 << FLUSH)

/** Copies the posted WQE number `index`, as `WorkSource.loadSend`. */
const loadSend = (
  { ring, maxSge, maxInline }: RingSends,
  index: number,
  into: Uint32Array,
  at: number,
  destinations: Destinations | undefined,
): void => {
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
  if (opcode > 31 || ((KNOWN_OPCODES >>> opcode) & 1) === 0) refused = BAD_OPCODE
  else if (isInline) {
    length = opcode === ATOMIC_WRITE ? ATOMIC_BYTES : statedLength
    if (statedLength > maxInline && opcode !== ATOMIC_WRITE) refused = INLINE_TOO_LONG
  } else if (!isDataless && sges > maxSge) refused = TOO_MANY_SGE
  else if (!isDataless) {
    count = sges
    length = copySges(ring, wqe + send.SGE, count, into, at + Send.SGE)
    // the port's max_msg_sz is smaller; like rxe, the device does not enforce it
    if (length > MAX_MESSAGE_BYTES) refused = MESSAGE_TOO_LONG
  }
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
  if (destinations === undefined) loadOperands(ring, wqe, opcode, into, at)
  else loadDestination(destinations, ring, wqe, into, at)
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

/** The flow for rxe's address vector at byte `at` of the ring. */
const vectorFlow = (destinations: Destinations, { area: { bytes, words } }: Ring, at: number): number =>
  destinations.byVector(
    bytes[at + AddressVector.PORT],
    bytes[at + AddressVector.SGID_INDEX],
    bytes[at + AddressVector.TRAFFIC_CLASS],
    words[(at + AddressVector.FLOW_LABEL) >> 2] >>> 0,
    bytes,
    at + AddressVector.DGID,
  )

const loadDestination = (destinations: Destinations, ring: Ring, wqe: number, into: Uint32Array, at: number): void => {
  const { words } = ring.area
  const { send } = ring.layout
  const number = words[(wqe + send.UD_AH) >> 2] >>> 0
  let flow = -1
  if (number !== 0) flow = destinations.byHandle(number)
  // offset 0: WQEs of this layout have no address vector
  else if (send.UD_VECTOR !== 0) flow = vectorFlow(destinations, ring, wqe + send.UD_VECTOR)
  into[at + Send.DEST_QPN] = words[(wqe + send.UD_QPN) >> 2]
  into[at + Send.QKEY] = words[(wqe + send.UD_QKEY) >> 2]
  into[at + Send.FLOW] = flow
  destinations.hold(flow)
  if (flow < 0 && into[at + Send.REFUSED] === 0) into[at + Send.REFUSED] = NO_ADDRESS_HANDLE
}

export class RingSends implements SendQueue, ExactQueue {
  ring: Ring
  maxSge: number
  maxInline: number
  /** Index of the oldest WQE that is not retired. */
  retiredIndex = 0
  seen = NO_MARK
  isExact = false
  readonly #mayBeExact: boolean

  /** `mayBeExact`: `RingMemory.mayHideSlots`. */
  constructor(ring: Ring, maxSge: number, maxInline: number, mayBeExact: boolean) {
    this.ring = ring
    this.#mayBeExact = mayBeExact
    this.maxSge = maxSge
    this.maxInline = maxInline
  }

  get capacity(): number {
    return this.ring.capacity
  }

  get exact(): ExactQueue | undefined {
    return this.#mayBeExact ? this : undefined
  }

  mark(): number {
    return loadProducer(this.ring)
  }

  pending(): number {
    return (loadProducer(this.ring) - this.retiredIndex) & this.ring.wrap
  }

  isEmpty(): boolean {
    return loadProducer(this.ring) === this.retiredIndex
  }

  reset(): void {
    clearRing(this.ring)
    this.retiredIndex = 0
    if (this.isExact) this.release(0)
  }

  load(index: number, into: Uint32Array, at: number, destinations: Destinations | undefined): boolean {
    if (!this.#isPosted(index)) {
      this.seen = index & this.ring.wrap
      return false
    }
    loadSend(this, index, into, at, destinations)
    return true
  }

  retire(count: number): void {
    this.retiredIndex = (this.retiredIndex + count) & this.ring.wrap
    // an exact queue releases slots with completions
    if (!this.isExact) storeConsumer(this.ring, this.retiredIndex)
  }

  copyInline(
    inlineAt: number,
    from: number,
    to: Arena,
    at: number,
    chunk: number,
    stride: number,
    total: number,
  ): void {
    const { bytes } = this.ring.area
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

  isWindowOperationPosted(seen: number): boolean {
    const { ring } = this
    const { words } = ring.area
    // After `recheck` the index of the last scan is unknown: then all requests that are not retired are looked at.
    const first = seen === NO_MARK ? this.retiredIndex : seen
    for (let i = first; i < first + LOOK_AHEAD && this.#isPosted(i); i++) {
      const opcode = words[(elementAt(ring, i) + ring.layout.send.OPCODE) >> 2]
      if (opcode === BIND_MW || opcode === LOCAL_INV) return true
    }
    return false
  }

  retired(): number {
    // older requests are in the slots behind index 0, but so are those before a RESET
    return Math.min(this.retiredIndex, this.ring.capacity)
  }

  glance(from: number): SendGlance {
    const { ring } = this
    const { words } = ring.area
    const { send } = ring.layout
    const wqe = elementAt(ring, this.retiredIndex + from)
    return {
      opcode: words[(wqe + send.OPCODE) >> 2] >>> 0,
      isSignaled: (words[(wqe + send.FLAGS) >> 2] & SIGNALED) !== 0,
      wrId: joinWords(words[(wqe + send.WR_ID + 4) >> 2], words[(wqe + send.WR_ID) >> 2]),
    }
  }

  limitTo(capacity: number, maxSge = this.maxSge, maxInline = this.maxInline): void {
    this.ring = exactRing(this.ring, capacity)
    this.maxSge = maxSge
    this.maxInline = maxInline
    this.isExact = true
  }

  slot(): number {
    return this.retiredIndex
  }

  release(slot: number): void {
    releaseSlots(this.ring, slot)
  }

  #isPosted(index: number): boolean {
    return ((loadProducer(this.ring) - index) & this.ring.wrap) !== 0
  }
}

/**
 * A queue for at least `requests` requests. Inline data and elements share `maxInline` bytes of each request, so
 * `maxInline` must be at least the bytes of `maxSge` elements. Throws CallError ENOMEM.
 */
export const createSendQueue = (memory: RingMemory, requests: number, maxSge: number, maxInline: number): RingSends =>
  new RingSends(
    createRing(memory, requests, memory.layout.send.SGE + maxInline),
    maxSge,
    maxInline,
    memory.mayHideSlots === true,
  )
