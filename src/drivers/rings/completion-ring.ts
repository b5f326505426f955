/*
 * Completion queues in rings, in either layout (drivers/soft/completion-queue.ts).
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
} from '../../core/memory/rings.ts'
import type { CoreObject } from '../../core/model.ts'
import { CqKind } from '../../spec/enums.ts'
import { swap32, TWO_32 } from '../../spec/memory.ts'
import { WcFlags, WcOpcode, WcStatus } from '../../spec/work.ts'
import { Completion } from '../../transport/engine/types.ts'
import { CompletionQueue, type CqOptions, readConsumer } from '../soft/completion-queue.ts'

const { WITH_INV } = WcFlags.values
const { ENTRIES, EXTENDED, COUNTING } = CqKind.values
const { SUCCESS } = WcStatus.values
/** The bit that the opcodes of all receives have. */
const { RECV } = WcOpcode.values

/** Port number 1 in the word that begins with the SL: its third byte. */
const PORT_NUM_1 = 1 << 16
/** Of `Completion.SL`: the sender's LID. */
const SLID_MASK = 0xffff_0000

export class CqRing extends CompletionQueue {
  readonly showsAllFields = true
  ring: Ring

  constructor(ring: Ring, options: CqOptions) {
    super(options)
    this.ring = ring
  }

  get capacity(): number {
    return this.ring.capacity
  }

  get wrap(): number {
    return this.ring.wrap
  }

  loadConsumer(): number {
    return loadConsumer(this.ring)
  }

  publish(): void {
    if (this.kind === COUNTING) storeCount(this.ring, this.completions)
    else storeProducer(this.ring, this.producer)
  }

  write(words: Uint32Array, now: () => number): void {
    const { ring } = this
    const { words: target } = ring.area
    const { wc } = ring.layout
    const at = elementAt(ring, this.producer)
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
    target[(at + wc.PKEY_INDEX) >> 2] = words[Completion.PKEY_INDEX] | (words[Completion.SL] & SLID_MASK)
    target[(at + wc.SL) >> 2] = (words[Completion.SL] & ~SLID_MASK) | PORT_NUM_1
    if (this.kind === EXTENDED) {
      const nanoseconds = Math.floor(now() * 1000)
      target[(at + wc.TIMESTAMP) >> 2] = nanoseconds
      target[(at + wc.TIMESTAMP + 4) >> 2] = nanoseconds / TWO_32
    }
  }

  lastReceiver(max: number): number | undefined {
    const { ring, producer, kind } = this
    if (kind === COUNTING) return undefined
    const { words } = ring.area
    const { wc } = ring.layout
    for (let i = 1; i <= Math.min(max, ring.capacity); i++) {
      const at = elementAt(ring, producer - i)
      if ((words[(at + wc.OPCODE) >> 2] & RECV) !== 0 && words[(at + wc.STATUS) >> 2] === SUCCESS)
        return words[(at + wc.QP_NUM) >> 2] >>> 0
    }
    return undefined
  }
}

export type RingCqObject = CoreObject<CqRing>

/** Throws CallError ENOMEM. */
export const createCqRing = (
  memory: RingMemory,
  cqe: number,
  kind: number = ENTRIES,
  compVector = 0,
  ignoresOverrun = false,
): CqRing =>
  new CqRing(createRing(memory, cqe, 2 ** memory.layout.wc.ELEMENT_SHIFT), { kind, compVector, ignoresOverrun })

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
