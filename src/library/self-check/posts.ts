/*
 * The stacks of posts on a checked device of this process: each work queue keeps the stack of the last post to each
 * slot of its ring.
 */

import type { Stack } from '../../spec/check/finding.ts'
import { loadIndex } from '../../spec/drivers/ring-layout.ts'
import { PostQueue } from '../../spec/session.ts'
import type { MmapInfo } from '../verbs/carrier.ts'
import type { ProgramRing } from '../verbs/ring.ts'
import { sharingStacks } from '../verbs/watch/stack-sharing.ts'
import { captureStack, type LazyStack } from '../verbs/watch/stacks.ts'
import type { PostWatch } from '../verbs/watch/watch.ts'

/** A work queue. `queue`, `number`: see `PostWatch`. */
interface WatchedQueue {
  readonly queue: number
  readonly number: number
  readonly ring: ProgramRing
  readonly stacksBySlot: readonly (LazyStack | undefined)[]
}

const NO_STACK: Stack = []

/** Values of `CheckOptions.stacks`. */
export const stackSharings = ['shared', 'all'] as const
export type StackSharing = (typeof stackSharings)[number]

const wrIdOffset = (queue: number, { layout }: ProgramRing): number =>
  queue === PostQueue.SEND ? layout.send.WR_ID : layout.receive.WR_ID

/**
 * The stack of the failed request with this wr_id. Of several sends with the wr_id, the oldest outstanding one has
 * failed. Of receives, or if no such send is outstanding, the one that the device has taken last.
 */
const stackOfRequest = ({ queue, ring, stacksBySlot }: WatchedQueue, wrId: bigint): LazyStack | undefined => {
  const { layout, view, words, elementsAt, mask, log2Element, index, wrap, consumer } = ring
  const isSend = queue === PostQueue.SEND
  const wrIdAt = elementsAt + wrIdOffset(queue, ring)
  /** The stack of the post with this ring index, if its request has the wr_id. */
  const stackAt = (postIndex: number): LazyStack | undefined => {
    const slot = postIndex & mask
    return view.getBigUint64(wrIdAt + (slot << log2Element), true) === wrId ? stacksBySlot[slot] : undefined
  }
  const outstanding = (index - loadIndex(layout, words, consumer)) & wrap
  const oldest = index - outstanding
  if (isSend)
    for (let i = 0; i < outstanding; i++) {
      const stack = stackAt(oldest + i)
      if (stack !== undefined) return stack
    }
  for (let i = 1; i <= stacksBySlot.length; i++) {
    const stack = stackAt(oldest - i)
    if (stack !== undefined) return stack
  }
  return undefined
}

export interface PostStacks extends Pick<PostWatch, 'watch' | 'forget'> {
  /** The stack of the post of a failed request, see `HostSources.postStack`; empty if it is not known. */
  stackOf(queue: number, number: number, wrId: bigint): Stack
}

/** `sharing`: `CheckOptions.stacks`. `log`: called with each post; undefined without a search for races. */
export const createPostStacks = (
  sharing: StackSharing,
  log: ((queue: number, number: number, wrId: bigint, stack: LazyStack) => void) | undefined,
): PostStacks => {
  const queuesByOffset = new Map<bigint, WatchedQueue>()
  return {
    watch(queue, number, { offset }, ring) {
      const stacksBySlot: LazyStack[] = []
      const stackOfSlot = sharing === 'all' ? captureStack : sharingStacks(queue, ring, captureStack)
      const { view, elementsAt, log2Element } = ring
      const wrIdAt = elementsAt + wrIdOffset(queue, ring)
      ring.onPost = slot => {
        const stack = stackOfSlot(slot)
        stacksBySlot[slot] = stack
        log?.(queue, number, view.getBigUint64(wrIdAt + (slot << log2Element), true), stack)
      }
      queuesByOffset.set(offset, { queue, number, ring, stacksBySlot })
    },
    forget: ({ offset }: MmapInfo) => void queuesByOffset.delete(offset),
    stackOf(queue, number, wrId) {
      for (const watched of queuesByOffset.values()) {
        if (watched.queue !== queue || watched.number !== number) continue
        return stackOfRequest(watched, wrId)?.() ?? NO_STACK
      }
      return NO_STACK
    },
  }
}
