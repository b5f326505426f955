/*
 * Joins the requests that devices see with the posts and polls that programs log (the event log, spec/session.ts), and
 * passes them to the race engine in one order: the k-th request of a queue is the k-th post, and the k-th completion of
 * a CQ the k-th that was polled.
 *
 * Both come in batches. The posts of all requests that devices have seen so far are in the logs that are read
 * afterwards, since programs log a post before the device can see it, and a poll before anything that it makes
 * possible.
 *
 * Requests of programs without the event log are left out, and so is each queue of which a post was lost.
 */
import type { NoteOmission } from '../../spec/check/omissions.ts'
import type { WorkRequest } from '../../spec/check/requests.ts'
import { EventKind, PostQueue } from '../../spec/session.ts'
import type { RequestKind } from './order.ts'
import type { Races, Request, Stamp } from './races.ts'
import type { Range } from './shadow.ts'

/** An entry of an event log; times in microseconds of one clock. */
export interface LoggedEvent {
  readonly time: number
  readonly acquired: number
  readonly wrId: bigint
  /** The process, and its thread. */
  readonly process: number
  readonly thread: number
  /** PostQueue, or EventKind. */
  readonly kind: number
  readonly context: number
  /** Of the queue pair, or the handle of the SRQ or CQ. */
  readonly number: number
  /** Of requests or completions; 0: unknown. */
  readonly count: number
  readonly stack: number
}

/** A request, with the process and stack of its post. */
export interface Posted {
  readonly request: WorkRequest
  readonly process: number
  readonly stack: number
}

/** A request as a device sees it; times in microseconds of the clock of the logs. */
export interface SeenRequest {
  readonly what: 'send' | 'receive'
  readonly request: WorkRequest
  readonly context: number
  readonly time: number
  readonly kind: RequestKind
  readonly isFenced: boolean
  readonly ranges: readonly Range[]
  /** Of a send: a completion means that the peer has it. */
  readonly isReliable: boolean
}

/** The device has finished a send. */
export interface SeenEnd {
  readonly what: 'end'
  readonly request: WorkRequest
  readonly time: number
}

export interface SeenCompletion {
  readonly what: 'completion'
  readonly request: WorkRequest
  readonly time: number
  readonly cq: number
  /**
   * Of a receive that a message has filled: the queue pair, the sender's request if it is known, and the filled memory.
   */
  readonly filled?:
    | { readonly qp: number; readonly message: WorkRequest | undefined; readonly ranges: readonly Range[] }
    | undefined
}

type Seen = SeenRequest | SeenEnd | SeenCompletion

/** Posts of one call that the device has not seen. */
interface Posts {
  readonly stamp: Stamp
  readonly process: number
  readonly stack: number
  /** Of a single request. */
  readonly wrId: bigint | undefined
  left: number
}

interface PostedQueue {
  posts: Posts[]
  isLost: boolean
}

interface Completed {
  readonly request: Request<Posted> | undefined
  readonly wrId: bigint
}

/** Microseconds by which the times of devices and programs may differ. */
const SLACK = 20
/** Maximum distance of a post's positions in the log and in the queue, if several threads post. */
const MAX_REORDERED = 64
/** Maximum completions of a CQ without a poll in the log. */
const MAX_UNPOLLED = 65536
/** Maximum requests, and maximum receives, that are not complete. */
const MAX_REQUESTS = 65_536
/** Maximum posts that no device has seen, and maximum queues of a context; a queue with more posts is left out. */
const MAX_UNSEEN = 2 ** 19
/** Maximum threads; those without an entry for the longest time are forgotten. */
const MAX_THREADS = 4096

const sendsOf = (owner: number): number => owner * 2
const messagesOf = (qp: number): number => qp * 2 + 1
const queueKey = (queue: number, number: number): number => number * 4 + queue

export class RaceFeed {
  /** Numbers of requests that were joined with their posts, and of those left out because their posts are unknown. */
  joined = 0
  unlogged = 0
  /** Posts that no device has seen. */
  unseen = 0
  readonly #races: Races<Posted>
  #seen: Seen[] = []
  /** Entries of logs that are too young. */
  #later: LoggedEvent[] = []
  /** By context, then queue. */
  readonly #posted = new Map<number, Map<number, PostedQueue>>()
  /** By WorkRequest.id, until the completion; of unreliable queues until they are the oldest of MAX_REQUESTS. */
  readonly #requests = new Map<number, Request<Posted>>()
  /** The requests to drop after the join. */
  #completed: number[] = []
  /** Posts of receives that no message has filled. */
  readonly #receives = new Map<number, Posts>()
  readonly #open = new Set<number>()
  readonly #cqs = new Map<number, Completed[]>()
  readonly #threads = new Map<string, number>()
  #threadNumbers = 0
  /** The thread of the last entry. */
  #last = { process: -1, thread: -1, number: 0 }
  readonly #cqOf: (context: number, handle: number) => number | undefined
  readonly #omit: NoteOmission

  /** `cqOf`: the CQ with a handle, as completions name it. */
  constructor(races: Races<Posted>, cqOf: (context: number, handle: number) => number | undefined, omit: NoteOmission) {
    this.#races = races
    this.#cqOf = cqOf
    this.#omit = omit
  }

  /** Number of requests and completions that are not joined yet. */
  get pending(): number {
    return this.#seen.length
  }

  /** A device has seen a request, or finished or completed one. */
  add(seen: Seen): void {
    this.#seen.push(seen)
  }

  /**
   * Joins all that devices have seen with `entries`, which were read from the logs afterwards, from time `begun` on.
   * Later entries wait for the next call, since another log may lack earlier ones.
   */
  join(entries: readonly LoggedEvent[], begun: number): void {
    const all = [...this.#later, ...entries].sort((a, b) => a.time - b.time)
    const seen = this.#seen
    this.#seen = []
    let at = 0
    const seeNext = (): boolean => {
      const next = seen[at]
      if (next === undefined) return false
      at++
      this.#see(next)
      return true
    }
    let done = 0
    for (; done < all.length && all[done]!.time <= begun; done++) {
      const entry = all[done]!
      while (at < seen.length && seen[at]!.time < entry.time - SLACK) seeNext()
      if ((entry.kind & EventKind.REFUSED) !== 0) this.#refused(entry)
      else if (entry.kind === EventKind.POLL) this.#polled(entry, seeNext)
      else this.#noted(entry)
    }
    this.#later = all.slice(done)
    while (seeNext());
    // At once: a map that gets empty each time allocates a table each time.
    for (const id of this.#completed) this.#requests.delete(id)
    this.#completed = []
  }

  /**
   * A queue pair or shared queue was reset or destroyed; all before was joined. `kind`: numbers of queue pairs and
   * handles of shared queues may be equal.
   */
  forget(owner: number, context: number, kind: 'qp' | 'srq', number: number): void {
    for (const id of [sendsOf(owner), messagesOf(owner)]) if (this.#open.delete(id)) this.#races.close(id)
    const queues = this.#posted.get(context)
    for (const queue of kind === 'qp' ? [PostQueue.SEND, PostQueue.RECEIVE] : [PostQueue.SHARED]) {
      const key = queueKey(queue, number)
      this.unseen -= queues?.get(key)?.posts.length ?? 0
      queues?.delete(key)
    }
    if (queues?.size === 0) this.#posted.delete(context)
  }

  forgetCq(id: number): void {
    this.#cqs.delete(id)
    this.#races.closeCq(id)
  }

  /** Entries of a context's log were overwritten. */
  lost(context: number): void {
    this.#omit('race-log', 1)
    for (const queue of this.#posted.get(context)?.values() ?? []) queue.isLost = true
  }

  // ---- entries of logs ----

  #threadOf({ process, thread }: LoggedEvent): number {
    const last = this.#last
    if (last.process === process && last.thread === thread) return last.number
    const number = this.#findThread(process, thread)
    this.#last = { process, thread, number }
    return number
  }

  #findThread(process: number, thread: number): number {
    const key = `${process} ${thread}`
    let number = this.#threads.get(key)
    if (number === undefined) {
      number = ++this.#threadNumbers
      for (const [oldest, gone] of this.#threads) {
        if (this.#threads.size < MAX_THREADS) break
        this.#threads.delete(oldest)
        this.#omit('race-threads', 1)
        this.#races.endThread(gone)
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
      // A program may also log posts to queues that it does not have.
      if (queues.size >= MAX_UNSEEN) {
        for (const { posts } of queues.values()) {
          this.unseen -= posts.length
          this.#omit('race-posts', posts.length)
        }
        queues.clear()
      }
      posted = { posts: [], isLost: false }
      queues.set(key, posted)
    }
    return posted
  }

  #noted(entry: LoggedEvent): void {
    const { context, kind, number, count, time, acquired, process, stack, wrId } = entry
    const queue = this.#queueOf(context, kind, number)
    if (count === 0 || this.unseen >= MAX_UNSEEN) queue.isLost = true
    if (queue.isLost) {
      if (this.unseen >= MAX_UNSEEN) this.#omit('race-posts', queue.posts.length + 1)
      this.unseen -= queue.posts.length
      queue.posts = []
      return
    }
    this.unseen++
    const stamp = this.#races.post(this.#threadOf(entry), time, acquired)
    queue.posts.push({ stamp, process, stack, wrId: count === 1 ? wrId : undefined, left: count })
  }

  /** The last posts of this thread were refused. */
  #refused(entry: LoggedEvent): void {
    const { posts } = this.#queueOf(entry.context, entry.kind & ~EventKind.REFUSED, entry.number)
    const thread = this.#threadOf(entry)
    let { count } = entry
    for (let i = posts.length - 1; i >= 0 && count > 0; i--) {
      const one = posts[i]!
      if (one.stamp.thread !== thread) continue
      const refused = Math.min(count, one.left)
      one.left -= refused
      count -= refused
      if (one.left > 0) continue
      posts.splice(i, 1)
      this.unseen--
    }
  }

  #polled(entry: LoggedEvent, seeNext: () => boolean): void {
    const id = this.#cqOf(entry.context, entry.number)
    if (id === undefined) return
    const { count } = entry
    let all = this.#cqs.get(id)
    // The device reports a completion just after the program can see it.
    while ((all === undefined || all.length < count) && seeNext()) all ??= this.#cqs.get(id)
    if (all === undefined) return
    let until = Math.min(count, all.length)
    // Another thread's poll, which came first, is behind this one in the log.
    if (all[until - 1]?.wrId !== entry.wrId) {
      const limit = Math.min(all.length, until + MAX_REORDERED)
      for (let i = until; i < limit; i++) if (all[i]!.wrId === entry.wrId) until = i + 1
    }
    const polled = new Array<Request<Posted> | undefined>(until)
    for (let i = 0; i < until; i++) polled[i] = all[i]!.request
    if (count === 1) all.shift()
    else all.splice(0, count)
    this.#races.poll(this.#threadOf(entry), entry.time, entry.acquired, id, polled)
  }

  // ---- requests of devices ----

  #see(seen: Seen): void {
    if (seen.what === 'send') this.#send(seen)
    else if (seen.what === 'receive') this.#receive(seen)
    else if (seen.what === 'completion') this.#complete(seen)
    else {
      const request = this.#requests.get(seen.request.id)
      if (request !== undefined) this.#races.end(request, seen.time)
    }
  }

  /** The post of the next request of a queue. */
  #take({ context, request: { queue, number, wrId } }: SeenRequest): Posts | undefined {
    const posted = this.#queueOf(context, queue, number)
    const { posts } = posted
    if (posts.length === 0) posted.isLost = true
    if (posted.isLost) {
      this.unlogged++
      this.#omit('race-unlogged', 1)
      return undefined
    }
    this.joined++
    const isOther = (one: Posts): boolean => one.wrId !== undefined && one.wrId !== wrId
    const own = isOther(posts[0]!) ? posts.slice(0, MAX_REORDERED).findIndex(one => !isOther(one)) : 0
    const at = Math.max(own, 0)
    const post = posts[at]!
    post.left--
    if (post.left === 0) {
      if (at === 0) posts.shift()
      else posts.splice(at, 1)
      this.unseen--
    }
    return post
  }

  #ensure(id: number, isReliable: boolean): void {
    if (this.#open.has(id)) return
    this.#open.add(id)
    this.#races.open(id, isReliable)
  }

  #send(of: SeenRequest): void {
    const post = this.#take(of)
    if (post === undefined) return
    const { request, time, isReliable } = of
    const id = sendsOf(request.owner)
    this.#ensure(id, isReliable)
    const { process, stack } = post
    const made = this.#races.fetch(id, post.stamp, of, { request, process, stack }, time)
    if (made === undefined) return
    this.#requests.set(request.id, made)
    this.#dropOldest(this.#requests)
  }

  #receive(of: SeenRequest): void {
    const post = this.#take(of)
    if (post === undefined) return
    this.#receives.set(of.request.id, post)
    this.#dropOldest(this.#receives)
  }

  #dropOldest(all: Map<number, unknown>): void {
    if (all.size <= MAX_REQUESTS) return
    const [oldest] = all.keys()
    if (oldest !== undefined) all.delete(oldest)
    this.#omit('race-requests', 1)
  }

  #complete({ request, cq, filled, time }: SeenCompletion): void {
    let made = this.#requests.get(request.id)
    const post = this.#receives.get(request.id)
    this.#receives.delete(request.id)
    if (made !== undefined) this.#races.end(made, time)
    // A message of an unreliable queue is received after its completion.
    if (made?.queue.isReliable) this.#completed.push(request.id)
    if (filled !== undefined && post !== undefined) {
      const { qp, message, ranges } = filled
      const { process, stack } = post
      this.#ensure(messagesOf(qp), true)
      const sender = message && this.#requests.get(message.id)
      made = this.#races.receive(messagesOf(qp), post.stamp, sender, ranges, { request, process, stack }, time)
    }
    let all = this.#cqs.get(cq)
    if (all === undefined) {
      all = []
      this.#cqs.set(cq, all)
    }
    if (all.length === MAX_UNPOLLED) {
      all.splice(0, MAX_UNPOLLED / 2)
      this.#omit('race-completions', MAX_UNPOLLED / 2)
    }
    all.push({ request: made, wrId: request.wrId })
  }
}
