/*
 * Joins the requests that devices see with the posts and polls that programs log (the event log, spec/session.ts), and
 * passes them to the race engine in one order. The k-th request of a queue belongs to the k-th post to the queue. The
 * k-th completion of a CQ is the k-th polled one.
 *
 * Requests and log entries are joined in batches. A program logs a post before the device can see the request. So if
 * the log is read after the device has seen a request, the log contains the post.
 *
 * Requests of programs without an event log, and queues with lost entries, are left out.
 */

import type { NoteOmission } from '../../../spec/check/omissions.ts'
import type { LoggedEvent } from '../../../spec/check/probes.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { EventKind, PostQueue } from '../../../spec/session.ts'
import type { RequestKind } from './order.ts'
import type { PostStamp, Races, Request } from './races.ts'
import type { Range } from './shadow.ts'

/** A request, with the process and the stack number of its post. */
export interface Posted {
  readonly request: WorkRequest
  readonly process: number
  readonly stack: number
}

/** A device has fetched a send, or has found a receive in its queue. */
interface SeenRequest {
  readonly event: 'send' | 'receive'
  readonly request: WorkRequest
  readonly context: number
  /** Microseconds of the clock of the logs. */
  readonly time: number
  readonly kind: RequestKind
  readonly isFenced: boolean
  readonly ranges: readonly Range[]
  /** Whether a completion means that the peer has the message. True for receives. */
  readonly isReliable: boolean
}

/** The device has finished an unsignaled send. */
interface SeenEnd {
  readonly event: 'end'
  readonly request: WorkRequest
  /** As in `SeenRequest`. */
  readonly time: number
}

/** The device has written a completion. `cq`, `filled.qp`: `CoreObject.id`. */
interface SeenCompletion {
  readonly event: 'completion'
  readonly request: WorkRequest
  /** As in `SeenRequest`. */
  readonly time: number
  readonly cq: number
  /** A message has filled the receive. `message`: the sender's request; undefined: unknown. */
  readonly filled?:
    | { readonly qp: number; readonly message: WorkRequest | undefined; readonly ranges: readonly Range[] }
    | undefined
}

type DeviceEvent = SeenRequest | SeenEnd | SeenCompletion

/** A call that has posted requests. */
interface PostCall {
  readonly stamp: PostStamp
  readonly process: number
  readonly stack: number
  /** Undefined if the call posted several requests. */
  readonly wrId: bigint | undefined
  /** Number of requests of the call that the device has not seen. */
  unseenRequests: number
}

interface PostedQueue {
  calls: PostCall[]
  /** Whether an entry of the log is missing. Requests of the queue cannot be joined until RESET. */
  isLost: boolean
}

/** A completion that no thread has polled. `request` undefined: unknown, or an unfilled receive. */
interface UnpolledCompletion {
  readonly request: Request<Posted> | undefined
  readonly wrId: bigint
}

/** The CQ with a handle. `id`: as in `SeenCompletion.cq`. `isCounting`: polls of the CQ have no wr_id. */
type FindCq = (context: number, handle: number) => { readonly id: number; readonly isCounting: boolean } | undefined

/** Microseconds by which the times of devices and programs may differ. */
const CLOCK_SLACK = 20
/** Maximum distance between the positions of a post or poll in log and queue, if several threads use the queue. */
const MAX_REORDERED = 64
/** Maximum unpolled completions of a CQ. */
const MAX_UNPOLLED = 65_536
/** Maximum requests in `#sends`, and the same in `#receives`. */
const MAX_REQUESTS = 65_536
/** Maximum entries of `#ended`. */
const MAX_ENDED = 16_384
/** Maximum unseen post calls of all contexts. Also the maximum of queues of one context. */
const MAX_UNSEEN = 2 ** 19
/** Maximum threads. Threads without an entry for the longest time are forgotten. */
const MAX_THREADS = 4096

/** Queues of the race engine: sends, and received messages, of a queue pair. `qp`: `CoreObject.id`. */
const sendQueueId = (qp: number): number => qp * 2
const messageQueueId = (qp: number): number => qp * 2 + 1
/** Key of a queue in a context. `queue`: PostQueue. */
const queueKey = (queue: number, number: number): number => number * 4 + queue

/** Sorts entries by time if necessary. */
const inOrder = (entries: readonly LoggedEvent[]): readonly LoggedEvent[] => {
  for (let i = 1; i < entries.length; i++)
    if (entries[i]!.time < entries[i - 1]!.time) return [...entries].sort((a, b) => a.time - b.time)
  return entries
}

/** A value for each outstanding request. */
class Outstanding<V> {
  #size = 0
  /** By `WorkRequest.owner`, then `WorkRequest.id`. */
  readonly #owners = new Map<number, Map<number, V>>()
  readonly #omit: NoteOmission

  constructor(omit: NoteOmission) {
    this.#omit = omit
  }

  get({ owner, id }: WorkRequest): V | undefined {
    return this.#owners.get(owner)?.get(id)
  }

  /** Adds a request. If there are too many, forgets the oldest of a queue. */
  add({ owner, id }: WorkRequest, value: V): void {
    let requests = this.#owners.get(owner)
    if (requests === undefined) {
      requests = new Map()
      this.#owners.set(owner, requests)
    }
    requests.set(id, value)
    this.#size++
    if (this.#size > MAX_REQUESTS) this.#forgetOldest()
  }

  delete({ owner, id }: WorkRequest): void {
    if (this.#owners.get(owner)?.delete(id)) this.#size--
  }

  /** Removes the requests of a queue. */
  deleteQueue(owner: number): void {
    this.#size -= this.#owners.get(owner)?.size ?? 0
    this.#owners.delete(owner)
  }

  #forgetOldest(): void {
    for (const requests of this.#owners.values())
      for (const id of requests.keys()) {
        requests.delete(id)
        this.#size--
        this.#omit('race-requests', 1)
        return
      }
  }
}

const mayHavePosted = (call: PostCall, wrId: bigint): boolean => call.wrId === undefined || call.wrId === wrId

/** The index of the first call that may have posted this wr_id; 0 if there is none. */
const indexOfPost = (calls: readonly PostCall[], wrId: bigint): number =>
  Math.max(
    calls.slice(0, MAX_REORDERED).findIndex(call => mayHavePosted(call, wrId)),
    0,
  )

export class RaceFeed {
  /** Number of requests that were joined with their posts. */
  joinedRequests = 0
  /** Number of requests that were left out because a post to the queue is unknown. */
  requestsWithoutPost = 0
  /** Number of unseen post calls. */
  unseenPosts = 0
  readonly #races: Races<Posted>
  /** Events of devices that were not joined yet. */
  #events: DeviceEvent[] = []
  /** Entries of logs that wait for the next `join`. */
  #laterEntries: LoggedEvent[] = []
  /** Unseen posts by context, then `queueKey`. */
  readonly #posted = new Map<number, Map<number, PostedQueue>>()
  /** Sends until completion (signaled) or end (unsignaled). */
  readonly #sends: Outstanding<Request<Posted>>
  /** Sends to delete from `#sends` at the end of a join. */
  #sendsToDelete: WorkRequest[] = []
  /**
   * The latest ended sends that a later event may need: an unreliable send completes before its message is received,
   * and an unsignaled send that failed has a completion. By WorkRequest.id.
   */
  readonly #ended = new Map<number, Request<Posted>>()
  /** Posts of unfilled receives. */
  readonly #receives: Outstanding<PostCall>
  /** `sendQueueId` and `messageQueueId` of open queues. */
  readonly #openQueues = new Set<number>()
  /** CQs with lost polls, until they are destroyed. */
  readonly #lostCqs = new Set<number>()
  /** By CQ. */
  readonly #cqs = new Map<number, UnpolledCompletion[]>()
  /** Numbers of threads by process and thread. The thread with the latest entry is last. */
  readonly #threads = new Map<string, number>()
  #lastThreadNumber = 0
  /** The thread of the previous entry, cached. */
  #recentThread = { process: -1, thread: -1, number: 0 }
  readonly #cqOf: FindCq
  readonly #omit: NoteOmission

  constructor(races: Races<Posted>, cqOf: FindCq, omit: NoteOmission) {
    this.#races = races
    this.#cqOf = cqOf
    this.#omit = omit
    this.#sends = new Outstanding(omit)
    this.#receives = new Outstanding(omit)
  }

  /** Number of events of devices since the last join. */
  get unjoinedEvents(): number {
    return this.#events.length
  }

  /** Adds an event of a device. */
  add(event: DeviceEvent): void {
    this.#events.push(event)
  }

  /**
   * Joins all events of devices with `entries`, which were read from the logs afterwards. `readStart`: when the reading
   * began. Later entries wait for the next call: a log that was read first may lack earlier entries.
   */
  join(entries: readonly LoggedEvent[], readStart: number): void {
    const sorted = inOrder(this.#laterEntries.length === 0 ? entries : [...this.#laterEntries, ...entries])
    const events = this.#events
    this.#events = []
    let next = 0
    /** False: there is no next event. */
    const handleNext = (): boolean => {
      const event = events[next]
      if (event === undefined) return false
      next++
      this.#handle(event)
      return true
    }
    /** Handles the events up to the last completion of a CQ that was written until `time`. */
    const handleCompletions = (cq: number, time: number): void => {
      let end = next
      for (let i = next; i < events.length && events[i]!.time <= time; i++) {
        const event = events[i]!
        if (event.event === 'completion' && event.cq === cq) end = i + 1
      }
      while (next < end) handleNext()
    }
    let joined = 0
    for (; joined < sorted.length && sorted[joined]!.time <= readStart; joined++) {
      const entry = sorted[joined]!
      while (next < events.length && events[next]!.time < entry.time - CLOCK_SLACK) handleNext()
      if ((entry.kind & EventKind.REFUSED) !== 0) this.#refused(entry)
      else if (entry.kind === EventKind.POLL) this.#polled(entry, handleNext, handleCompletions)
      else this.#addPost(entry)
    }
    this.#laterEntries = joined === sorted.length ? [] : sorted.slice(joined)
    while (handleNext());
    // Deleted together: a map that often becomes empty would often allocate a new table.
    for (const request of this.#sendsToDelete) this.#sends.delete(request)
    this.#sendsToDelete = []
  }

  /**
   * A queue pair or SRQ was reset or destroyed, after all its events were joined. `owner`: `CoreObject.id`. `number`:
   * the number of the queue pair, or the handle of the SRQ.
   */
  forget(owner: number, context: number, kind: 'qp' | 'srq', number: number): void {
    for (const id of [sendQueueId(owner), messageQueueId(owner)]) if (this.#openQueues.delete(id)) this.#races.close(id)
    this.#sends.deleteQueue(owner)
    this.#receives.deleteQueue(owner)
    const queues = this.#posted.get(context)
    for (const queue of kind === 'qp' ? [PostQueue.SEND, PostQueue.RECEIVE] : [PostQueue.SHARED]) {
      const key = queueKey(queue, number)
      this.unseenPosts -= queues?.get(key)?.calls.length ?? 0
      queues?.delete(key)
    }
    if (queues?.size === 0) this.#posted.delete(context)
  }

  /** A CQ was destroyed. */
  forgetCq(id: number): void {
    this.#cqs.delete(id)
    this.#lostCqs.delete(id)
    this.#races.closeCq(id)
  }

  /**
   * Entries of a context's log were lost, perhaps of any of its queues and CQs. `queues`: PostQueue and number. `cqs`:
   * `CoreObject.id`.
   */
  markLogLost(
    context: number,
    queues: Iterable<readonly [queue: number, number: number]>,
    cqs: Iterable<number>,
  ): void {
    this.#omit('race-log', 1)
    // Also queues without posts yet: `#queueOf` creates them.
    for (const [queue, number] of queues) this.#queueOf(context, queue, number)
    for (const queue of this.#posted.get(context)?.values() ?? []) queue.isLost = true
    for (const cq of cqs) this.#lostCqs.add(cq)
  }

  // ---- entries of logs ----

  #threadOf({ process, thread }: LoggedEvent): number {
    const recent = this.#recentThread
    if (recent.process === process && recent.thread === thread) return recent.number
    const number = this.#findThread(process, thread)
    this.#recentThread = { process, thread, number }
    return number
  }

  /** The number of a thread, or a new number. Moves the thread to the end of `#threads`. */
  #findThread(process: number, thread: number): number {
    const key = `${process} ${thread}`
    let number = this.#threads.get(key)
    if (number === undefined) {
      number = ++this.#lastThreadNumber
      for (const [oldest, oldestNumber] of this.#threads) {
        if (this.#threads.size < MAX_THREADS) break
        this.#threads.delete(oldest)
        this.#omit('race-threads', 1)
        this.#races.endThread(oldestNumber)
      }
    } else this.#threads.delete(key)
    this.#threads.set(key, number)
    return number
  }

  #queueOf(context: number, queue: number, number: number): PostedQueue {
    let queues = this.#posted.get(context)
    if (queues === undefined) {
      queues = new Map()
      this.#posted.set(context, queues)
    }
    const key = queueKey(queue, number)
    let posted = queues.get(key)
    if (posted === undefined) {
      // A hostile program may log posts to queues that do not exist.
      if (queues.size >= MAX_UNSEEN) {
        for (const { calls } of queues.values()) {
          this.unseenPosts -= calls.length
          this.#omit('race-posts', calls.length)
        }
        queues.clear()
      }
      posted = { calls: [], isLost: false }
      queues.set(key, posted)
    }
    return posted
  }

  /** A thread has posted requests. */
  #addPost(entry: LoggedEvent): void {
    const { context, kind, number, count, time, acquired, process, stack, wrId } = entry
    const queue = this.#queueOf(context, kind, number)
    const isFull = this.unseenPosts >= MAX_UNSEEN
    if (count === 0 || isFull) queue.isLost = true
    if (queue.isLost) {
      if (isFull) this.#omit('race-posts', queue.calls.length + 1)
      this.unseenPosts -= queue.calls.length
      queue.calls = []
      return
    }
    this.unseenPosts++
    const stamp = this.#races.post(this.#threadOf(entry), time, acquired)
    queue.calls.push({ stamp, process, stack, wrId: count === 1 ? wrId : undefined, unseenRequests: count })
  }

  /** The library has refused the last `count` requests of this thread to a queue. */
  #refused(entry: LoggedEvent): void {
    const { calls } = this.#queueOf(entry.context, entry.kind & ~EventKind.REFUSED, entry.number)
    const thread = this.#threadOf(entry)
    let { count } = entry
    for (let i = calls.length - 1; i >= 0 && count > 0; i--) {
      const call = calls[i]!
      if (call.stamp.thread !== thread) continue
      const refused = Math.min(count, call.unseenRequests)
      call.unseenRequests -= refused
      count -= refused
      if (call.unseenRequests > 0) continue
      calls.splice(i, 1)
      this.unseenPosts--
    }
  }

  /** A thread has polled `count` completions of a CQ. */
  #polled(entry: LoggedEvent, handleNext: () => boolean, handleCompletions: (cq: number, time: number) => void): void {
    const cq = this.#cqOf(entry.context, entry.number)
    if (cq === undefined) return
    const { id, isCounting } = cq
    if (this.#lostCqs.has(id)) {
      handleCompletions(id, entry.time + CLOCK_SLACK)
      this.#polledAll(entry, id)
      return
    }
    const { count } = entry
    let unpolled = this.#cqs.get(id)
    // The event of a completion may follow the poll: the program sees the CQE before the driver reports it.
    while ((unpolled === undefined || unpolled.length < count) && handleNext()) unpolled ??= this.#cqs.get(id)
    if (unpolled === undefined) return
    let end = Math.min(count, unpolled.length)
    // Another wr_id: an earlier poll by another thread is logged after this poll. wr_ids may repeat; the last match
    // counts, so that the thread rather knows of too many completions than causes a false warning.
    if (!isCounting && unpolled[end - 1]?.wrId !== entry.wrId) {
      const limit = Math.min(unpolled.length, end + MAX_REORDERED)
      for (let i = end; i < limit; i++) if (unpolled[i]!.wrId === entry.wrId) end = i + 1
    }
    const polled = new Array<Request<Posted> | undefined>(end)
    for (let i = 0; i < end; i++) polled[i] = unpolled[i]!.request
    if (count === 1) unpolled.shift()
    else unpolled.splice(0, count)
    this.#races.poll(this.#threadOf(entry), entry.time, entry.acquired, id, polled)
  }

  /** A thread has polled a CQ with lost polls: the thread, or earlier pollers, may know any completion so far. */
  #polledAll(entry: LoggedEvent, cq: number): void {
    const polled = this.#cqs.get(cq)?.splice(0) ?? []
    const requests = polled.map(({ request }) => request)
    this.#races.poll(this.#threadOf(entry), entry.time, entry.acquired, cq, requests)
  }

  // ---- events of devices ----

  #handle(seen: DeviceEvent): void {
    if (seen.event === 'send') this.#sendFetched(seen)
    else if (seen.event === 'receive') this.#receiveSeen(seen)
    else if (seen.event === 'completion') this.#completed(seen)
    else {
      const request = this.#sends.get(seen.request)
      if (request === undefined) return
      this.#keepEnded(request)
    }
  }

  #keepEnded(request: Request<Posted>): void {
    const send = request.info.request
    this.#sendsToDelete.push(send)
    this.#ended.set(send.id, request)
    if (this.#ended.size <= MAX_ENDED) return
    const [oldest] = this.#ended.keys()
    if (oldest !== undefined) this.#ended.delete(oldest)
  }

  /** Undefined: the send was left out or forgotten. */
  #sendOf(request: WorkRequest): Request<Posted> | undefined {
    return this.#sends.get(request) ?? this.#ended.get(request.id)
  }

  /** Assigns a request to the call that posted it; undefined: unknown. */
  #takePost({ context, request: { queue, number, wrId } }: SeenRequest): PostCall | undefined {
    const posted = this.#queueOf(context, queue, number)
    const { calls } = posted
    if (calls.length === 0) posted.isLost = true
    if (posted.isLost) {
      this.requestsWithoutPost++
      this.#omit('race-unlogged', 1)
      return undefined
    }
    this.joinedRequests++
    const index = mayHavePosted(calls[0]!, wrId) ? 0 : indexOfPost(calls, wrId)
    const call = calls[index]!
    call.unseenRequests--
    if (call.unseenRequests === 0) {
      if (index === 0) calls.shift()
      else calls.splice(index, 1)
      this.unseenPosts--
    }
    return call
  }

  #openQueue(id: number, isReliable: boolean): void {
    if (this.#openQueues.has(id)) return
    this.#openQueues.add(id)
    this.#races.open(id, isReliable)
  }

  #sendFetched(seen: SeenRequest): void {
    const post = this.#takePost(seen)
    if (post === undefined) return
    const { request, isReliable } = seen
    const id = sendQueueId(request.owner)
    this.#openQueue(id, isReliable)
    const { process, stack } = post
    const fetched = this.#races.fetch(id, post.stamp, seen, { request, process, stack })
    if (fetched !== undefined) this.#sends.add(request, fetched)
  }

  #receiveSeen(seen: SeenRequest): void {
    const post = this.#takePost(seen)
    if (post !== undefined) this.#receives.add(seen.request, post)
  }

  #completed({ request, cq, filled, time }: SeenCompletion): void {
    let completed = this.#sendOf(request)
    const post = this.#receives.get(request)
    this.#receives.delete(request)
    if (completed?.queue.isReliable) this.#sendsToDelete.push(request)
    else if (completed !== undefined) this.#keepEnded(completed)
    if (filled !== undefined && post !== undefined) {
      const { qp, message, ranges } = filled
      const { process, stack } = post
      this.#openQueue(messageQueueId(qp), true)
      const sender = message && this.#sendOf(message)
      const info = { request, process, stack }
      completed = this.#races.receive(messageQueueId(qp), post.stamp, sender, ranges, info, time)
    }
    let unpolled = this.#cqs.get(cq)
    if (unpolled === undefined) {
      unpolled = []
      this.#cqs.set(cq, unpolled)
    }
    if (unpolled.length === MAX_UNPOLLED) {
      unpolled.splice(0, MAX_UNPOLLED / 2)
      this.#omit('race-completions', MAX_UNPOLLED / 2)
    }
    unpolled.push({ request: completed, wrId: request.wrId })
  }
}
