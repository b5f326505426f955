/*
 * Races of requests: two accesses to overlapping bytes, one of them a write or atomic, and nothing that orders them.
 * Accesses are ordered by the order within a queue (order.ts), polled completions, received messages, atomics on one
 * word, and waits of programs by other means than RDMA, of which only the time is known (`acquired`). Posts, requests
 * and polls come in, races go out; there is no I/O and no clock. Local loads and stores of programs are not seen.
 *
 * A race is proven if the second request was posted before the first one had ended, and its poster cannot have learnt
 * of that end. Otherwise the poster may have learnt of it in a way that is not seen: it polls memory, for example.
 *
 * Limits of memory: those of the shadow (shadow.ts), MAX_CLOCKS clocks of requests, MAX_IN_FLIGHT requests of each
 * queue.
 */
import type { NoteOmission } from '../../spec/check/omissions.ts'
import { Clock, MAX_SLOTS } from './clock.ts'
import { isFetching, isOrderedInQueue, type Queued, type RequestKind } from './order.ts'
import { type Access, AccessKind, type Interval, isWord, isWrite, MAX_INTERVALS, type Range, Shadow } from './shadow.ts'

/** Maximum requests that keep the clock of their post; further ones get one with all that any thread knew then. */
export const MAX_CLOCKS = 16384
/** Maximum requests of a queue whose completions no thread has polled. */
export const MAX_IN_FLIGHT = 16384
/** Maximum fenced requests of a queue that are remembered. */
const MAX_FENCED = 256

/** A post, with the clock of its thread. */
export interface Stamp {
  readonly thread: number
  /** Microseconds. */
  readonly time: number
  readonly clock: Clock
}

interface Queue<Info> {
  /** Its slot in clocks; -1: none. */
  readonly slot: number
  /** A completion means that the peer has the message (RC and XRC). */
  readonly isReliable: boolean
  /** The requests whose completions no thread has polled, oldest first. */
  inFlight: Request<Info>[]
  /** Index in `inFlight`: the requests before it are placed, and a thread knows that. */
  placed: number
  next: number
  /** Fenced requests; of the latest ones, `fenced`, the first is number `forgottenFences`. */
  fences: number
  forgottenFences: number
  fenced: Request<Info>[]
  isGone: boolean
}

export class Request<Info> implements Queued {
  readonly queue: Queue<Info>
  /** Counts the requests of its slot. */
  readonly epoch: number
  readonly kind: RequestKind
  readonly fencesBefore: number
  readonly thread: number
  readonly posted: number
  readonly info: Info
  /** Of a received message: the request that sent it. */
  readonly sender: Request<Info> | undefined
  /** Undefined when it is no longer needed. */
  clock: Clock | undefined
  /** When the device saw it first, and when it ended. */
  readonly fetched: number
  ended = Number.POSITIVE_INFINITY
  /** When the first thread knew that the request was done, and that it was placed. */
  doneKnown = Number.POSITIVE_INFINITY
  placedKnown = Number.POSITIVE_INFINITY
  /** Words that order their users. */
  syncs: readonly Clock[] = NONE

  constructor(
    queue: Queue<Info>,
    kind: RequestKind,
    info: Info,
    stamp: Stamp,
    clock: Clock,
    fetched: number,
    sender?: Request<Info>,
  ) {
    this.queue = queue
    this.epoch = queue.next++
    this.kind = kind
    this.fencesBefore = queue.fences
    this.thread = stamp.thread
    this.posted = stamp.time
    this.clock = clock
    this.info = info
    this.fetched = fetched
    this.sender = sender
  }
}

/** Findings of the search for races. */
export const raceIds = ['race', 'read-then-write-unfenced', 'atomic-mixed-with-write', 'buffer-reused'] as const
export type RaceId = (typeof raceIds)[number]

export interface Race<Info> {
  readonly id: RaceId
  readonly isProven: boolean
  readonly first: Access<Request<Info>>
  readonly second: Access<Request<Info>>
  /** The bytes that both access. */
  readonly start: number
  readonly end: number
}

interface Thread {
  clock: Clock
}

interface Cq {
  /** The only thread so far that has polled it. */
  thread: number
  /** The clock of its pollers, once there are two. */
  clock: Clock | undefined
}

export interface NewRequest {
  readonly kind: RequestKind
  readonly isFenced: boolean
  readonly ranges: readonly Range[]
}

const NONE: readonly never[] = []

const isLocal = ({ kind }: Range): boolean => kind === AccessKind.SOURCE || kind === AccessKind.RESULT

/** Whether two accesses may not overlap without order. */
const conflict = (one: Range, other: Range): boolean => {
  if (!isWrite(one) && !isWrite(other)) return false
  const { ATOMIC, READ } = AccessKind
  if (one.kind !== ATOMIC && other.kind !== ATOMIC) return true
  if (one.kind === other.kind) return false
  // Programs READ the words of atomics, to wait for a lock; devices read them as one.
  return !(one.kind === READ && isWord(one)) && !(other.kind === READ && isWord(other))
}

export class Races<Info> {
  readonly #shadow: Shadow<Request<Info>>
  readonly #report: (race: Race<Info>) => void
  readonly #omit: NoteOmission
  readonly #threads = new Map<number, Thread>()
  readonly #queues = new Map<number, Queue<Info>>()
  readonly #cqs = new Map<number, Cq>()
  /** Counts of slots that are free: epochs of a slot never repeat. */
  readonly #freeSlots: { readonly slot: number; readonly next: number }[] = []
  #slots = 0
  #clocks = 0

  constructor(report: (race: Race<Info>) => void, omit: NoteOmission, intervals = MAX_INTERVALS) {
    this.#report = report
    this.#omit = omit
    this.#shadow = new Shadow(omit, intervals)
  }

  /** A queue whose requests follow: the send queue of a queue pair, or the messages that it receives. */
  open(id: number, isReliable: boolean): void {
    const free = this.#freeSlots.pop()
    const slot = free?.slot ?? (this.#slots < MAX_SLOTS ? this.#slots++ : -1)
    if (slot < 0) this.#omit('race-queues', 1)
    const none = { inFlight: [], placed: 0, fences: 0, forgottenFences: 0, fenced: [], isGone: false }
    this.#queues.set(id, { slot, isReliable, next: free?.next ?? 0, ...none })
  }

  /** The queue was reset or destroyed: its requests have ended. */
  close(id: number): void {
    const queue = this.#queues.get(id)
    if (queue === undefined) return
    queue.isGone = true
    for (const request of queue.inFlight) this.#release(request)
    queue.inFlight = []
    if (queue.slot >= 0) this.#freeSlots.push({ slot: queue.slot, next: queue.next })
    this.#queues.delete(id)
  }

  closeCq(id: number): void {
    this.#cqs.delete(id)
  }

  endThread(id: number): void {
    this.#threads.delete(id)
  }

  /**
   * A thread posts a request. `acquired`: when it began, or last waited for other threads or programs by other means
   * than RDMA. Microseconds of one clock.
   */
  post(thread: number, time: number, acquired: number): Stamp {
    const own = this.#thread(thread)
    if (acquired > own.clock.acquired) {
      own.clock = own.clock.own
      own.clock.acquired = acquired
    }
    own.clock.isShared = true
    return { thread, time, clock: own.clock }
  }

  /** The device fetches a request that was posted. */
  fetch(
    queueId: number,
    stamp: Stamp,
    { kind, isFenced, ranges }: NewRequest,
    info: Info,
    time: number,
  ): Request<Info> | undefined {
    const queue = this.#queues.get(queueId)
    if (queue === undefined) return undefined
    if (isFenced) queue.fences++
    const request = new Request(queue, kind, info, stamp, this.#keep(stamp.clock, stamp.time), time)
    if (isFenced) queue.fenced.push(request)
    if (queue.fenced.length > MAX_FENCED) {
      this.#omit('race-fences', 1)
      queue.forgottenFences++
      queue.fenced.shift()
    }
    this.#enqueue(queue, request)
    this.#access(request, stamp.clock, ranges)
    return request
  }

  /** The device has finished a send, at this time or before. */
  end(request: Request<Info>, time: number): void {
    if (time < request.ended) request.ended = time
  }

  /** A message has filled a receive that was posted. */
  receive(
    queueId: number,
    stamp: Stamp,
    sender: Request<Info> | undefined,
    ranges: readonly Range[],
    info: Info,
    time: number,
  ): Request<Info> | undefined {
    const queue = this.#queues.get(queueId)
    if (queue === undefined) return undefined
    const clock = new Clock(0)
    clock.join(stamp.clock)
    if (sender !== undefined) {
      if (sender.clock !== undefined) clock.join(sender.clock)
      else clock.acquired = Math.max(clock.acquired, sender.posted)
      if (sender.queue.slot >= 0) clock.raisePlaced(sender.queue.slot, sender.epoch + 1)
    }
    const request = new Request(queue, 'RECEIVE', info, stamp, this.#keep(clock, stamp.time), time, sender)
    request.ended = time
    this.#enqueue(queue, request)
    // The clock of a sender that is not here is unknown: nothing is reported.
    this.#access(request, sender === undefined ? undefined : clock, ranges)
    return request
  }

  /** A thread has polled the completions of requests, in this order; undefined: of requests that are left out. */
  poll(
    thread: number,
    time: number,
    acquired: number,
    cqId: number,
    requests: readonly (Request<Info> | undefined)[],
  ): void {
    const own = this.#thread(thread)
    own.clock = own.clock.own
    if (acquired > own.clock.acquired) own.clock.acquired = acquired
    let cq = this.#cqs.get(cqId)
    if (cq === undefined) {
      cq = { thread, clock: undefined }
      this.#cqs.set(cqId, cq)
    }
    // Pollers of one queue take turns.
    if (cq.thread !== thread && cq.clock === undefined) {
      cq.clock = new Clock(0)
      const other = this.#threads.get(cq.thread)
      if (other !== undefined) cq.clock.join(other.clock)
    }
    if (cq.clock !== undefined) own.clock.join(cq.clock)
    for (const request of requests) if (request !== undefined) this.#learn(own.clock, request, time)
    cq.clock?.join(own.clock)
  }

  #learn(clock: Clock, request: Request<Info>, time: number): void {
    const { queue, epoch, sender } = request
    for (const sync of request.syncs) clock.join(sync)
    if (request.clock !== undefined) clock.join(request.clock)
    if (sender !== undefined) this.#arrived(clock, sender, time)
    if (queue.isGone) return
    if (queue.slot >= 0) {
      clock.raiseDone(queue.slot, epoch + 1)
      if (queue.isReliable) clock.raisePlaced(queue.slot, epoch + 1)
    }
    let count = 0
    for (; count < queue.inFlight.length && queue.inFlight[count]!.epoch <= epoch; count++) {
      const over = queue.inFlight[count]!
      over.doneKnown = time
      if (queue.isReliable && over.placedKnown > time) over.placedKnown = time
      if (over.clock !== undefined && over !== request && over.clock !== request.clock) clock.join(over.clock)
      this.#release(over)
    }
    if (count === 1) queue.inFlight.shift()
    else queue.inFlight.splice(0, count)
    queue.placed = Math.max(0, queue.placed - count)
  }

  /** A message was received: it, and those before it, are placed. */
  #arrived(clock: Clock, { queue, epoch }: Request<Info>, time: number): void {
    if (queue.isGone) return
    if (queue.slot >= 0) clock.raisePlaced(queue.slot, epoch + 1)
    for (; queue.placed < queue.inFlight.length; queue.placed++) {
      const one = queue.inFlight[queue.placed]!
      if (one.epoch > epoch) break
      if (one.placedKnown > time) one.placedKnown = time
    }
  }

  #thread(id: number): Thread {
    let thread = this.#threads.get(id)
    if (thread === undefined) {
      thread = { clock: new Clock(0) }
      this.#threads.set(id, thread)
    }
    return thread
  }

  /** The clock of a post, or one that contains more. */
  #keep(clock: Clock, time: number): Clock {
    if (this.#clocks++ < MAX_CLOCKS) return clock
    this.#omit('race-clocks', 1)
    return new Clock(time)
  }

  #release(request: Request<Info>): void {
    if (request.clock !== undefined) this.#clocks--
    request.clock = undefined
  }

  #enqueue(queue: Queue<Info>, request: Request<Info>): void {
    queue.inFlight.push(request)
    if (queue.inFlight.length <= MAX_IN_FLIGHT) return
    const oldest = queue.inFlight.splice(0, MAX_IN_FLIGHT / 2)
    this.#omit('race-in-flight', oldest.length)
    for (const one of oldest) {
      one.doneKnown = one.placedKnown = 0
      this.#release(one)
    }
    queue.placed = Math.max(0, queue.placed - oldest.length)
  }

  /** Checks the ranges of a request against earlier accesses, and notes them. */
  #access(request: Request<Info>, clock: Clock | undefined, ranges: readonly Range[]): void {
    const told: Request<Info>[] = []
    const compare = (earlier: Access<Request<Info>>, later: Access<Request<Info>>): void => {
      if (clock === undefined || earlier.request === request || !conflict(earlier, later)) return
      if (told.includes(earlier.request) || this.#isOrdered(earlier, later, clock)) return
      told.push(earlier.request)
      this.#report(raceOf(earlier, later))
    }
    for (const { space, start, end, kind, region } of ranges) {
      // All accesses have one shape; a spread would be slower.
      const access: Access<Request<Info>> = { space, start, end, kind, region, request }
      const intervals = this.#shadow.access(access, compare)
      if (clock !== undefined && isWord(access) && !isLocal(access)) this.#order(access, clock, intervals)
    }
  }

  /** A word that is written, or used by atomics, orders the requests that access it as a whole. */
  #order(access: Access<Request<Info>>, clock: Clock, [interval, ...more]: readonly Interval<Request<Info>>[]): void {
    if (interval === undefined || more.length > 0) return
    const { request, kind } = access
    interval.sync ??= new Clock(0)
    if (isWrite(access)) {
      interval.sync.join(clock)
      // The requests before it have ended at the peer, and it has not.
      if (request.queue.slot >= 0) interval.sync.raisePlaced(request.queue.slot, request.epoch)
    }
    if (kind !== AccessKind.WRITE) request.syncs = [...request.syncs, interval.sync]
  }

  /** Whether an access has ended before a later one begins. `clock`: that of the poster of the later one. */
  #isOrdered(earlier: Access<Request<Info>>, later: Access<Request<Info>>, clock: Clock): boolean {
    const { request } = earlier
    if (earlier.region.isGone || request.queue.isGone) return true
    // Two receives with one buffer are another finding.
    if (request.kind === 'RECEIVE' && later.request.kind === 'RECEIVE') return true
    if (isKnownDone(request, clock, isLocal(earlier)) || isKnownPlaced(request, clock)) return true
    const [first, second] = [request.sender ?? request, later.request.sender ?? later.request]
    if (request.sender !== undefined && (first.queue.isGone || isKnownDone(first, clock, false))) return true
    if (request.sender !== undefined && isKnownPlaced(first, clock)) return true
    return first.queue === second.queue && isOrderedInQueue(first, earlier, second, later)
  }
}

/**
 * `isLocal`: the access is to memory of the poster. For the peer's, a completion of an unreliable queue proves nothing.
 */
const isKnownDone = <Info>(
  { queue, epoch, doneKnown, kind }: Request<Info>,
  clock: Clock,
  isLocal: boolean,
): boolean => {
  if (!queue.isReliable && !isLocal && kind !== 'RECEIVE') return false
  if (doneKnown <= clock.acquired) return true
  return queue.slot < 0 ? doneKnown < Number.POSITIVE_INFINITY : clock.done(queue.slot) > epoch
}

/** Whether a later message has arrived. A request that returns data has then ended only if one between was fenced. */
const isKnownPlaced = <Info>(request: Request<Info>, clock: Clock): boolean => {
  const { queue, kind, fencesBefore } = request
  if (isFetching(kind) && fencesBefore < queue.forgottenFences) return true
  const last = isFetching(kind) ? queue.fenced[fencesBefore - queue.forgottenFences] : request
  if (last === undefined) return false
  const { epoch, placedKnown } = last
  if (placedKnown <= clock.acquired) return true
  return queue.slot < 0 ? placedKnown < Number.POSITIVE_INFINITY : clock.placed(queue.slot) > epoch
}

/** Whether the poster of the later access cannot have known that the earlier one had ended. */
const isProven = <Info>(first: Access<Request<Info>>, second: Access<Request<Info>>): boolean => {
  const { request } = first
  const { posted, thread, kind, clock } = second.request
  if (request.kind === 'RECEIVE' || kind === 'RECEIVE') return false
  if (isWord(first) && isWord(second)) return false
  if (posted < request.fetched) return true
  return posted < request.ended && thread === request.thread && (clock?.acquired ?? posted) <= request.posted
}

const raceOf = <Info>(first: Access<Request<Info>>, second: Access<Request<Info>>): Race<Info> => {
  const isAtomic = first.kind === AccessKind.ATOMIC || second.kind === AccessKind.ATOMIC
  const id =
    isLocal(first) && isLocal(second)
      ? 'buffer-reused'
      : isAtomic
        ? 'atomic-mixed-with-write'
        : first.request.queue === second.request.queue
          ? 'read-then-write-unfenced'
          : 'race'
  return {
    id,
    isProven: id !== 'atomic-mixed-with-write' && isProven(first, second),
    first,
    second,
    start: Math.max(first.start, second.start),
    end: Math.min(first.end, second.end),
  }
}
