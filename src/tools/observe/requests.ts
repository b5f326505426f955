/*
 * The requests of observed programs: posts become requests, and completions end them. The order is the program's view:
 * a request is outstanding from its post until a poll returns its completion, or that of a later send of its queue.
 */
import type { Stack } from '../../spec/check/finding.ts'
import type { RequestWatcher, WorkRequest } from '../../spec/check/requests.ts'
import { PostQueue } from '../../spec/session.ts'
import { ATOMIC_BYTES, isAtomic, isRemote, SendFlags, WcStatus } from '../../spec/work.ts'
import type { ObservedCompletion, ObservedPost } from './records.ts'

const { SIGNALED, INLINE } = SendFlags.values

/** Stacks of posts that are kept for each queue, the latest. */
const MAX_STACKS = 4096

/** Sets the value of a key that is now the latest, and forgets the oldest key beyond MAX_STACKS. */
const keep = <K, V>(map: Map<K, V>, key: K, value: V): void => {
  map.delete(key)
  map.set(key, value)
  const [oldest] = map.keys()
  if (map.size > MAX_STACKS && oldest !== undefined) map.delete(oldest)
}

export interface RequestQueue {
  /** The id of the queue pair or SRQ. */
  readonly owner: number
  /** PostQueue: SEND, RECEIVE or SHARED. */
  readonly queue: number
  readonly number: number
  readonly signalsAll: boolean
  /** Oldest first. */
  readonly outstanding: WorkRequest[]
  /** Of posts, by `WorkRequest.postIndex`; and of the latest post with a wr_id. */
  readonly stacks: Map<number, Stack>
  readonly stacksById: Map<bigint, Stack>
  posted: number
  /** The receive that failed last. */
  failed: WorkRequest | undefined
}

/** Counts polled completions of CQs by their ids. */
export class ObservedRequests {
  readonly #watcher: RequestWatcher
  readonly #polled = new Map<number, number>()
  #ids = 0

  constructor(watcher: RequestWatcher) {
    this.#watcher = watcher
  }

  post(queue: RequestQueue, posts: readonly ObservedPost[], time: number, stack: Stack): void {
    for (const post of posts) {
      const { wrId, opcode, flags, elements, destQpn } = post
      const length = isAtomic(opcode) ? ATOMIC_BYTES : elements.reduce((sum, element) => sum + element.length, 0)
      const request: WorkRequest = {
        id: ++this.#ids,
        time,
        owner: queue.owner,
        queue: queue.queue,
        number: queue.number,
        index: queue.posted,
        postIndex: queue.posted,
        wrId,
        opcode,
        flags,
        isSignaled: opcode < 0 || queue.signalsAll || (flags & SIGNALED) !== 0,
        length,
        elements: (flags & INLINE) !== 0 ? [] : elements,
        remote: isRemote(opcode) ? { address: Number(post.remoteAddress), length, rkey: post.rkey } : undefined,
        destQpn: destQpn === 0 ? undefined : destQpn,
        destination: undefined,
      }
      queue.outstanding.push(request)
      keep(queue.stacks, queue.posted++, stack)
      keep(queue.stacksById, wrId, stack)
      this.#watcher.posted(request)
    }
  }

  /** The last `count` posts were refused. */
  refuse(queue: RequestQueue, count: number): void {
    for (const request of queue.outstanding.splice(Math.max(0, queue.outstanding.length - count))) {
      queue.posted--
      if (request.queue === PostQueue.SEND) this.#watcher.ended(request)
      else this.#watcher.receiveLost(request)
    }
  }

  /** A poll has returned a completion of this queue. Returns its request; undefined: its post was not seen. */
  complete(
    queue: RequestQueue,
    { wrId, status, opcode, bytes }: ObservedCompletion,
    cq: number,
    qp: number,
  ): WorkRequest | undefined {
    const index = queue.outstanding.findIndex(request => request.wrId === wrId)
    if (index < 0) return undefined
    const isSend = queue.queue === PostQueue.SEND
    // Sends end in order: earlier ones have ended without a completion.
    const ended = isSend ? queue.outstanding.splice(0, index + 1) : queue.outstanding.splice(index, 1)
    const request = ended.at(-1)!
    if (isSend) for (const one of ended) this.#watcher.ended(one)
    else if (status !== WcStatus.values.SUCCESS && status !== WcStatus.values.WR_FLUSH_ERR) queue.failed = request
    const cqPosition = (this.#polled.get(cq) ?? 0) + 1
    this.#polled.set(cq, cqPosition)
    this.#watcher.completed(request, {
      status,
      opcode,
      bytes,
      cq,
      cqPosition,
      solicited: false,
      qp,
      message: undefined,
    })
    return request
  }

  /** The completions of a poll are complete. */
  polled(cq: number): void {
    this.#watcher.polled(cq, this.#polled.get(cq) ?? 0)
  }

  /** The queue pair or SRQ of these queues was reset or destroyed. */
  reset(owner: number, queues: readonly RequestQueue[]): void {
    for (const queue of queues) {
      queue.outstanding.length = 0
      queue.posted = 0
      queue.failed = undefined
    }
    this.#watcher.queueReset(owner)
  }
}
