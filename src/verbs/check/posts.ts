/*
 * Stacks of posts: a watched work queue keeps the stack of each post, by its slot in the ring.
 */

import type { Stack } from '../../spec/check/findings.ts'
import { loadIndex } from '../../spec/drivers/ring-layout.ts'
import { PostQueue } from '../../spec/session.ts'
import type { RingPlace } from '../carrier.ts'
import type { ProgramRing } from '../ring.ts'
import { onPost, type PostWatch } from './checked.ts'
import { sharingStacks } from './stack-sharing.ts'
import { captureStack, type LazyStack } from './stacks.ts'

interface Watched {
  readonly queue: number
  readonly number: number
  readonly ring: ProgramRing
  /** By slot. */
  readonly stacks: readonly (LazyStack | undefined)[]
}

const NONE: Stack = []

/** Whether equal requests of a queue share stacks (stack-sharing.ts). */
export const stackSharings = ['shared', 'all'] as const
export type StackSharing = (typeof stackSharings)[number]

const wrIdOf = (queue: number, { layout }: ProgramRing): number =>
  queue === PostQueue.SEND ? layout.send.WR_ID : layout.receive.WR_ID

/**
 * The stack of the request that failed: of sends the oldest one that is outstanding, of receives the last one that was
 * taken, as far as `wr_id`s tell.
 */
const stackOf = ({ queue, ring, stacks }: Watched, wrId: bigint): LazyStack | undefined => {
  const { layout, view, words, data, mask, log2, index, wrap, consumer } = ring
  const isSend = queue === PostQueue.SEND
  const wrIdAt = wrIdOf(queue, ring)
  const at = (place: number): LazyStack | undefined => {
    const slot = place & mask
    return view.getBigUint64(data + (slot << log2) + wrIdAt, true) === wrId ? stacks[slot] : undefined
  }
  const outstanding = (index - loadIndex(layout, words, consumer)) & wrap
  const oldest = index - outstanding
  let found: LazyStack | undefined
  for (let i = 0; isSend && i < outstanding && found === undefined; i++) found = at(oldest + i)
  for (let i = 1; i <= stacks.length && found === undefined; i++) found = at(oldest - i)
  return found
}

export interface Posts extends Pick<PostWatch, 'watch' | 'forget'> {
  /** The stack of the post of a failed request: see `CheckSources.postStack`. */
  stackOf(queue: number, number: number, wrId: bigint): Stack
}

/**
 * `stacks`: whether each post has a stack of its own, or equal ones share them. `log`: called with each post; undefined
 * without a search for races.
 */
export const watchPosts = (
  stacks: StackSharing,
  log: ((queue: number, number: number, wrId: bigint, stack: LazyStack) => void) | undefined,
): Posts => {
  const byPlace = new Map<bigint, Watched>()
  return {
    watch(queue, number, { offset }, ring) {
      const bySlot: LazyStack[] = []
      const stackOf = stacks === 'all' ? captureStack : sharingStacks(queue, ring, captureStack)
      const { view, data, log2 } = ring
      const wrIdAt = data + wrIdOf(queue, ring)
      onPost(ring, slot => {
        const stack = stackOf(slot)
        bySlot[slot] = stack
        log?.(queue, number, view.getBigUint64(wrIdAt + (slot << log2), true), stack)
      })
      byPlace.set(offset, { queue, number, ring, stacks: bySlot })
    },
    forget: ({ offset }: RingPlace) => void byPlace.delete(offset),
    stackOf(queue, number, wrId) {
      for (const watched of byPlace.values()) {
        if (watched.queue !== queue || watched.number !== number) continue
        return stackOf(watched, wrId)?.() ?? NONE
      }
      return NONE
    },
  }
}
