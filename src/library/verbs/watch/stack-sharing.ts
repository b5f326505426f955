/*
 * Posts share stacks, because the capture of a stack takes longer than the rest of a post. The first UNSHARED_POSTS
 * requests of a work queue have stacks of their own. Later requests are equal if they have the same opcode, flags, and
 * region of the first scatter/gather element. POSTS_PER_STACK equal requests share a stack.
 */
import { PostQueue } from '../../../spec/session.ts'
import { SendFlags } from '../../../spec/work.ts'
import type { ProgramRing } from '../ring.ts'

const UNSHARED_POSTS = 256
/** A prime: in a loop with several equal posts, captures then fall on different posts of the loop. */
const POSTS_PER_STACK = 251
/** Maximum shared stacks of a queue, one per kind of request. At this number the next capture forgets them all. */
const MAX_KINDS = 64

const { INLINE } = SendFlags.values

interface SharedStack<S> {
  readonly stack: S
  /** Number of further requests that may share the stack. */
  remaining: number
}

/** Returns a function for the stack of the post in a slot, captured by `capture` or shared. `queue`: PostQueue. */
export const sharingStacks = <S>(queue: number, ring: ProgramRing, capture: () => S): ((slot: number) => S) => {
  const { layout, view, elementsAt, log2Element } = ring
  const isSend = queue === PostQueue.SEND
  const { DMA_NUM_SGE, SGE } = isSend ? layout.send : layout.receive
  const { OPCODE, FLAGS } = layout.send
  const sharedStacks = new Map<number, SharedStack<S>>()
  let posts = 0

  /** Equal for equal requests: lkey, flags and opcode as one number. */
  const kindOf = (slot: number): number => {
    const at = elementsAt + (slot << log2Element)
    const flags = isSend ? view.getUint32(at + FLAGS, true) & 0xff : 0
    const opcode = isSend ? view.getUint32(at + OPCODE, true) & 0xff : 0
    const hasElement = (flags & INLINE) === 0 && view.getUint32(at + DMA_NUM_SGE, true) > 0
    // struct ibv_sge: address, length, lkey
    const lkey = hasElement ? view.getUint32(at + SGE + 12, true) : 0
    return lkey * 0x10000 + flags * 0x100 + opcode
  }

  return slot => {
    if (posts < UNSHARED_POSTS) {
      posts++
      return capture()
    }
    const kind = kindOf(slot)
    const shared = sharedStacks.get(kind)
    if (shared !== undefined && shared.remaining-- > 0) return shared.stack
    if (sharedStacks.size === MAX_KINDS) sharedStacks.clear()
    const stack = capture()
    sharedStacks.set(kind, { stack, remaining: POSTS_PER_STACK - 1 })
    return stack
  }
}
