/*
 * Completion queues: the device's side of a ring that a hostile program consumes.
 *
 * The device counts outstanding completions. The program's consumer index only lowers the count, and never below 0, so
 * a consumer that runs ahead of the producer (Debian's extended CQ calls do) causes no false overflow. A completion
 * that finds the ring full is lost, as on Linux: the CQ is dead from then on, and its program gets CQ_ERR.
 *
 * A counting queue (R11) has no elements: its producer index is the count, modulo 2^32. It never overruns.
 */
import { CqKind } from '../../../spec/enums.ts'
import { swap32, TWO_32 } from '../../../spec/memory.ts'
import { WcFlags, WcStatus } from '../../../spec/work.ts'
import { Completion } from '../../../transport/types.ts'
import {
  copyElements,
  createRing,
  elementAt,
  loadConsumer,
  type Ring,
  type RingMemory,
  storeCount,
  storeProducer,
} from './rings.ts'

export interface CqRing {
  readonly kind: number
  readonly compVector: number
  /** Its number for the engine. */
  number: number
  ring: Ring
  /** The device's own indices. */
  producer: number
  consumer: number
  outstanding: number
  /** A completion was lost. */
  overrun: boolean
  /** Completions since creation, and those that failed; exact Numbers. */
  completions: number
  errors: number
}

const { WITH_INV } = WcFlags.values
const { SUCCESS } = WcStatus.values
const { ENTRIES, EXTENDED, COUNTING } = CqKind.values

export const createCqRing = (memory: RingMemory, cqe: number, kind: number = ENTRIES, compVector = 0): CqRing => ({
  kind,
  compVector,
  number: -1,
  ring: createRing(memory, cqe, 2 ** memory.layout.wc.LOG2_ELEMENT),
  producer: 0,
  consumer: 0,
  outstanding: 0,
  overrun: false,
  completions: 0,
  errors: 0,
})

const noClock = (): number => 0

const countCompletion = (cq: CqRing, words: Uint32Array): void => {
  cq.completions++
  if (words[Completion.STATUS] !== SUCCESS) cq.errors++
}

/** Reads the program's consumer index. */
const settle = (cq: CqRing): void => {
  const { wrap } = cq.ring
  const consumer = loadConsumer(cq.ring)
  const consumed = ((consumer - cq.consumer) & wrap) >>> 0
  const left = consumed > cq.outstanding ? 0 : cq.outstanding - consumed
  // a consumer index ahead of the producer does not count the skipped completions: they must not stay outstanding for
  // ever
  cq.outstanding = Math.min(left, ((cq.producer - consumer) & wrap) >>> 0)
  cq.consumer = consumer
}

/** Completions that the program has polled since creation; of a counting queue none. */
export const polledCompletions = (cq: CqRing): number => {
  if (cq.kind === COUNTING) return 0
  settle(cq)
  return cq.completions - cq.outstanding
}

/** Writes a completion; false if it was lost because the ring is full. `now`: microseconds, for the time stamp. */
export const pushCompletion = (cq: CqRing, words: Uint32Array, now: () => number = noClock): boolean => {
  const { ring, kind } = cq
  if (kind === COUNTING) {
    countCompletion(cq, words)
    storeCount(ring, cq.completions)
    return true
  }
  // each time: an index is a position in the program's ring, and does not show how often it wrapped
  settle(cq)
  if (cq.outstanding >= ring.capacity) {
    cq.overrun = true
    return false
  }
  const { words: to } = ring.area
  const parts = ring.layout.wc
  const at = elementAt(ring, cq.producer)
  to[(at + parts.WR_ID) >> 2] = words[Completion.ID_LO]
  to[(at + parts.WR_ID + 4) >> 2] = words[Completion.ID_HI]
  to[(at + parts.STATUS) >> 2] = words[Completion.STATUS]
  to[(at + parts.OPCODE) >> 2] = words[Completion.OPCODE]
  to[(at + parts.VENDOR_ERR) >> 2] = words[Completion.VENDOR]
  to[(at + parts.BYTE_LEN) >> 2] = words[Completion.BYTES]
  const imm = words[Completion.IMM]
  to[(at + parts.IMM) >> 2] = (words[Completion.FLAGS] & WITH_INV) !== 0 ? imm : swap32(imm)
  to[(at + parts.QP_NUM) >> 2] = words[Completion.QPN]
  to[(at + parts.SRC_QP) >> 2] = words[Completion.SRC_QPN]
  to[(at + parts.FLAGS) >> 2] = words[Completion.FLAGS]
  // P_Key index and SLID, then SL, path bits and port number.
  to[(at + parts.PKEY_INDEX) >> 2] = words[Completion.PKEY_INDEX]
  to[(at + parts.SL) >> 2] = words[Completion.SL] | 0x01_0000
  if (kind === EXTENDED) {
    const nanoseconds = Math.floor(now() * 1000)
    to[(at + parts.TIMESTAMP) >> 2] = nanoseconds
    to[(at + parts.TIMESTAMP + 4) >> 2] = nanoseconds / TWO_32
  }
  countCompletion(cq, words)
  cq.producer = (cq.producer + 1) & ring.wrap
  cq.outstanding++
  storeProducer(ring, cq.producer)
  return true
}

/**
 * Moves a CQ to a ring of another size, with its unconsumed completions, in order. Undefined, and nothing changed, if
 * there are more than `cqe` (Linux: EINVAL). Throws CallError ENOMEM. The caller frees the old ring.
 */
export const resizeCqRing = (memory: RingMemory, cq: CqRing, cqe: number): Ring | undefined => {
  settle(cq)
  if (cq.outstanding > cqe) return undefined
  const next = createRing(memory, cqe, 2 ** memory.layout.wc.LOG2_ELEMENT)
  const old = cq.ring
  const pending = cq.outstanding
  copyElements(old, cq.producer - pending, pending, next)
  cq.ring = next
  cq.producer = pending
  cq.consumer = 0
  storeProducer(next, pending)
  return old
}
