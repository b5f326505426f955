/*
 * Shares stacks between posts, because a stack takes longer than the rest of a post. The first requests of a work queue
 * have stacks of their own; later, equal ones (the same opcode, flags, and region of the first element) share the stack
 * of one of them.
 */
import { PostQueue } from '../../spec/session.ts'
import { SendFlags } from '../../spec/work.ts'
import type { ProgramRing } from '../ring.ts'

/** Number of first requests of a queue that have stacks of their own. */
const FIRST = 256
/**
 * Number of later, equal requests that share a stack; a prime, so that each post of a loop is captured now and then.
 */
const EVERY = 251
/** Maximum kinds of requests of a queue that are remembered. */
const MAX_KINDS = 64

const { INLINE } = SendFlags.values

interface Shared<S> {
  readonly stack: S
  left: number
}

/** Returns a function for the stack of the post in a slot: captured by `capture`, or shared. `queue`: PostQueue. */
export const sharingStacks = <S>(queue: number, ring: ProgramRing, capture: () => S): ((slot: number) => S) => {
  const { layout, view, data, log2 } = ring
  const isSend = queue === PostQueue.SEND
  const { DMA_NUM_SGE, SGE } = isSend ? layout.send : layout.receive
  const { OPCODE, FLAGS } = layout.send
  const kinds = new Map<number, Shared<S>>()
  let posts = 0

  const kindOf = (slot: number): number => {
    const at = data + (slot << log2)
    const flags = isSend ? view.getUint32(at + FLAGS, true) & 0xff : 0
    const opcode = isSend ? view.getUint32(at + OPCODE, true) & 0xff : 0
    const hasElement = (flags & INLINE) === 0 && view.getUint32(at + DMA_NUM_SGE, true) > 0
    // struct ibv_sge: address, length, lkey
    const lkey = hasElement ? view.getUint32(at + SGE + 12, true) : 0
    return lkey * 0x10000 + flags * 0x100 + opcode
  }

  return slot => {
    if (posts < FIRST) {
      posts++
      return capture()
    }
    const kind = kindOf(slot)
    const known = kinds.get(kind)
    if (known !== undefined && known.left-- > 0) return known.stack
    if (kinds.size === MAX_KINDS) kinds.clear()
    const stack = capture()
    kinds.set(kind, { stack, left: EVERY - 1 })
    return stack
  }
}
