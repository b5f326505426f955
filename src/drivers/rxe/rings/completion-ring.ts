/*
 * Completion queues: the device writes completions into a ring, and the program, which may be hostile, advances the
 * consumer index.
 *
 * The device counts the completions that are not consumed. The program's consumer index only lowers the count, and
 * never below 0. So a consumer index ahead of the producer index is no overrun; Debian's extended CQ calls cause such
 * indices. If the ring is full, a completion is lost and the CQ is in error, as on Linux,
 * unless it ignores overruns.
 *
 * A counting CQ (R11) has no elements: its producer index is the number of completions, modulo 2^32. It never overruns.
 */

import {
  copyElements,
  createRing,
  elementAt,
  loadConsumer,
  type Ring,
  type RingMemory,
  storeCount,
  storeProducer,
} from '../../../core/memory/rings.ts'
import { CqKind } from '../../../spec/enums.ts'
import { swap32, TWO_32 } from '../../../spec/memory.ts'
import { WcFlags, WcStatus } from '../../../spec/work.ts'
import { Completion } from '../../../transport/engine/types.ts'

/**
 * Writes the completion `words` (`Completion`) as the next element of the CQ, which has room. `now`: microseconds, for
 * the time stamp of an extended CQ.
 */
export type WriteCompletion = (cq: CqRing, words: Uint32Array, now: () => number) => void

/** State of a CQ object. */
export interface CqRing {
  readonly write: WriteCompletion
  /** `CqKind`. */
  readonly kind: number
  readonly compVector: number
  /** The CQ's number in the engine; -1 until it has one. */
  number: number
  ring: Ring
  producer: number
  /** The program's consumer index when it was read last. */
  consumer: number
  /** Number of completions that are not consumed. */
  outstanding: number
  hasOverrun: boolean
  /** Completions beyond the capacity are lost without an error (CqFlags.IGNORE_OVERRUN). */
  readonly ignoresOverrun: boolean
  /** Number of completions since creation, and of those with an error status. */
  completions: number
  errors: number
}

const { WITH_INV } = WcFlags.values
const { SUCCESS } = WcStatus.values
const { ENTRIES, EXTENDED, COUNTING } = CqKind.values

export const createCqRing = (
  memory: RingMemory,
  cqe: number,
  kind: number = ENTRIES,
  compVector = 0,
  ignoresOverrun = false,
): CqRing => ({
  write: writeElement,
  kind,
  compVector,
  number: -1,
  ring: createRing(memory, cqe, 2 ** memory.layout.wc.ELEMENT_SHIFT),
  producer: 0,
  consumer: 0,
  outstanding: 0,
  hasOverrun: false,
  ignoresOverrun,
  completions: 0,
  errors: 0,
})

/** Port number 1 in the word that begins with the SL: its third byte. */
const PORT_NUM_1 = 1 << 16

const noClock = (): number => 0

const countCompletion = (cq: CqRing, words: Uint32Array): void => {
  cq.completions++
  if (words[Completion.STATUS] !== SUCCESS) cq.errors++
}

/** Reads the program's consumer index, and lowers `outstanding` by the number of newly consumed completions. */
export const readConsumer = (cq: CqRing): void => {
  const { wrap } = cq.ring
  const consumer = loadConsumer(cq.ring)
  const consumed = ((consumer - cq.consumer) & wrap) >>> 0
  const unconsumed = consumed > cq.outstanding ? 0 : cq.outstanding - consumed
  // A program whose consumer index was ahead never consumes the completions up to that index. The distance of the
  // indices bounds the count, so that these completions do not stay outstanding.
  cq.outstanding = Math.min(unconsumed, ((cq.producer - consumer) & wrap) >>> 0)
  cq.consumer = consumer
}

/** Number of completions that the program has polled since creation; of a counting CQ: all. */
export const polledCompletions = (cq: CqRing): number => {
  if (cq.kind === COUNTING) return cq.completions
  readConsumer(cq)
  return cq.completions - cq.outstanding
}

const writeElement: WriteCompletion = ({ ring, kind, producer }, words, now) => {
  const { words: target } = ring.area
  const { wc } = ring.layout
  const at = elementAt(ring, producer)
  target[(at + wc.WR_ID) >> 2] = words[Completion.ID_LO]
  target[(at + wc.WR_ID + 4) >> 2] = words[Completion.ID_HI]
  target[(at + wc.STATUS) >> 2] = words[Completion.STATUS]
  target[(at + wc.OPCODE) >> 2] = words[Completion.OPCODE]
  target[(at + wc.VENDOR_ERR) >> 2] = words[Completion.VENDOR]
  target[(at + wc.BYTE_LEN) >> 2] = words[Completion.BYTES]
  const imm = words[Completion.IMM]
  target[(at + wc.IMM) >> 2] = (words[Completion.FLAGS] & WITH_INV) !== 0 ? imm : swap32(imm)
  target[(at + wc.QP_NUM) >> 2] = words[Completion.QPN]
  target[(at + wc.SRC_QP) >> 2] = words[Completion.SRC_QPN]
  target[(at + wc.FLAGS) >> 2] = words[Completion.FLAGS]
  // one word: P_Key index and SLID (u16 each); the next one: SL, path bits and port number (u8 each)
  target[(at + wc.PKEY_INDEX) >> 2] = words[Completion.PKEY_INDEX]
  target[(at + wc.SL) >> 2] = words[Completion.SL] | PORT_NUM_1
  if (kind === EXTENDED) {
    const nanoseconds = Math.floor(now() * 1000)
    target[(at + wc.TIMESTAMP) >> 2] = nanoseconds
    target[(at + wc.TIMESTAMP + 4) >> 2] = nanoseconds / TWO_32
  }
}

/** Writes the completion `words` (`Completion`); false if the ring is full. `now`: as of `WriteCompletion`. */
export const pushCompletion = (cq: CqRing, words: Uint32Array, now: () => number = noClock): boolean => {
  const { ring, kind } = cq
  if (kind === COUNTING) {
    countCompletion(cq, words)
    storeCount(ring, cq.completions)
    return true
  }
  // at every completion: the index is stored masked, so a later read would not show how often it has wrapped
  readConsumer(cq)
  if (cq.outstanding >= ring.capacity) {
    cq.hasOverrun = !cq.ignoresOverrun
    return false
  }
  cq.write(cq, words, now)
  countCompletion(cq, words)
  cq.producer = (cq.producer + 1) & ring.wrap
  cq.outstanding++
  storeProducer(ring, cq.producer)
  return true
}

/**
 * Moves a CQ and its unconsumed completions to a ring of another size. Returns the old ring, which the caller frees. If
 * there are more than `cqe` completions, returns undefined and changes nothing. Throws CallError ENOMEM.
 */
export const resizeCqRing = (memory: RingMemory, cq: CqRing, cqe: number): Ring | undefined => {
  readConsumer(cq)
  if (cq.outstanding > cqe) return undefined
  const next = createRing(memory, cqe, 2 ** memory.layout.wc.ELEMENT_SHIFT)
  const old = cq.ring
  const pending = cq.outstanding
  copyElements(old, cq.producer - pending, pending, next)
  cq.ring = next
  cq.producer = pending
  cq.consumer = 0
  storeProducer(next, pending)
  return old
}
