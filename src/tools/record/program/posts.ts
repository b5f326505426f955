/*
 * The stacks of recorded posts, for `ProgramProbes.postStack`: by the place of the post in its queue, and by its wr_id.
 */
import type { Stack } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'

/** Posts whose stacks are kept: the newest. */
const MAX_POSTS = 2 ** 18
const NO_STACK: Stack = []

export class RecordedPosts {
  readonly #stacks = new Map<string, Stack>()

  #put(key: string, stack: Stack): void {
    this.#stacks.delete(key)
    this.#stacks.set(key, stack)
    if (this.#stacks.size <= MAX_POSTS) return
    const [oldest] = this.#stacks.keys()
    this.#stacks.delete(oldest!)
  }

  add(context: number, { queue, number, wrId, index, postIndex = index }: WorkRequest, stack: Stack): void {
    if (stack.length === 0) return
    this.#put(`${context} ${queue} ${number} at ${postIndex}`, stack)
    this.#put(`${context} ${queue} ${number} ${wrId}`, stack)
  }

  /** Arguments: see `postStack`. */
  stackOf(context: number, queue: number, number: number, wrId: bigint, index: number | undefined): Stack {
    const at = index === undefined ? undefined : this.#stacks.get(`${context} ${queue} ${number} at ${index}`)
    return at ?? this.#stacks.get(`${context} ${queue} ${number} ${wrId}`) ?? NO_STACK
  }
}
