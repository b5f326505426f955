/*
 * The engine that finds races between requests. Two accesses to overlapping bytes race if at least one is a write or
 * atomic, and nothing orders them. Posts, requests and polls go in, races come out. The engine does no I/O, and times
 * are arguments. It does not see loads and stores of programs.
 *
 * Accesses are ordered by
 * - the order of requests within a queue (order.ts);
 * - a completion that the poster of the second request has polled;
 * - a message that the poster of the second request has received. If the sender is unknown, only the time is known;
 * - WRITEs, READs and atomics of one word, which programs use as a flag or lock;
 * - waits of a thread without RDMA, such as for a pipe or mutex. Only the time of such a wait is known (`acquired`).
 *
 * A race is proven if one thread posted both requests without a wait between, and no thread had polled the completion
 * of the first when the second was posted. In other races the poster may have known the end of the first request by
 * means that are not seen. When the device executes the requests does not count: it differs from run to run. Races with
 * an atomic access or a receive, or of two words (`isWord`), are never proven.
 *
 * Two atomics on a word are no race. But if each is behind a WRITE of its queue, and nothing orders the two, the word
 * does not say which WRITE has landed: `counter-shared`, told only if it is proven.
 *
 * Memory is bounded by MAX_INTERVALS (shadow.ts), MAX_SLOTS (clock.ts), MAX_CLOCKS, MAX_IN_FLIGHT and MAX_FENCED.
 */
import type { NoteOmission } from '../../../spec/check/omissions.ts'
import { Clock, MAX_SLOTS } from './clock.ts'
import { isFetching, isOrderedInQueue, type Queued, type RequestKind } from './order.ts'
import { type Access, AccessKind, type Interval, isWord, isWrite, MAX_INTERVALS, type Range, Shadow } from './shadow.ts'

/**
 * Maximum requests with the clock of their post. A further request gets a clock with all that any thread knew when it
 * was posted.
 */
export const MAX_CLOCKS = 16384
/** Maximum unpolled requests of a queue. Older ones count as done. */
export const MAX_IN_FLIGHT = 16384
/** Maximum remembered fenced requests of a queue. */
export const MAX_FENCED = 256

/** The thread and time of a post, and the thread's clock at that time. */
export interface PostStamp {
  readonly thread: number
  /** Microseconds. */
  readonly time: number
  readonly clock: Clock
}

/** The send queue of a queue pair, or the messages that a queue pair receives. */
interface Queue<Info> {
  /** The slot in clocks (clock.ts); −1: none. */
  readonly slot: number
  /** Whether a completion means that the peer has the message (RC and XRC). */
  readonly isReliable: boolean
  /** Requests that no thread knows to be done, oldest first. */
  inFlight: Request<Info>[]
  /** Number of requests at the front of `inFlight` that a thread knows to be placed. */
  placedCount: number
  /** The number of the next request of the slot. */
  nextEpoch: number
  /** Number of fenced requests so far. */
  fences: number
  /** The latest fenced requests. The first has number `forgottenFences`, counted from 0. */
  fenced: Request<Info>[]
  forgottenFences: number
  isClosed: boolean
}

export class Request<Info> implements Queued {
  readonly queue: Queue<Info>
  /** The number of the request within the slot. */
  readonly epoch: number
  readonly kind: RequestKind
  readonly fencesSoFar: number
  readonly thread: number
  readonly postTime: number
  readonly info: Info
  /** The request that sent a received message. */
  readonly sender: Request<Info> | undefined
  /** The clock of the post. For a received message, joined with the sender's. Undefined: no longer needed. */
  clock: Clock | undefined
  /** When a thread first knew that the request was done, and that it was placed (clock.ts); infinite: none knows. */
  doneKnownTime = Number.POSITIVE_INFINITY
  placedKnownTime = Number.POSITIVE_INFINITY
  /** `Interval.syncClock` of the words that the request has read, or changed by an atomic. */
  syncClocks: readonly Clock[] = NONE

  constructor(
    queue: Queue<Info>,
    kind: RequestKind,
    info: Info,
    stamp: PostStamp,
    clock: Clock,
    sender?: Request<Info>,
  ) {
    this.queue = queue
    this.epoch = queue.nextEpoch++
    this.kind = kind
    this.fencesSoFar = queue.fences
    this.thread = stamp.thread
    this.postTime = stamp.time
    this.clock = clock
    this.info = info
    this.sender = sender
  }
}

/** The findings about races (spec/check/findings.ts). */
export const raceIds = [
  'race',
  'read-then-write-unfenced',
  'atomic-mixed-with-write',
  'buffer-reused',
  'counter-shared',
] as const
export type RaceId = (typeof raceIds)[number]

export interface Race<Info> {
  readonly id: RaceId
  readonly isProven: boolean
  readonly first: Access<Request<Info>>
  readonly second: Access<Request<Info>>
  /** Addresses of the bytes that both access. */
  readonly start: number
  readonly end: number
}

interface Thread {
  clock: Clock
}

interface Cq {
  firstPoller: number
  /** The clock of all pollers; undefined while there is only one. */
  clock: Clock | undefined
}

export interface NewRequest {
  readonly kind: RequestKind
  readonly isFenced: boolean
  readonly ranges: readonly Range[]
}

const NONE: readonly never[] = []

const isLocal = ({ kind }: Range): boolean => kind === AccessKind.SOURCE || kind === AccessKind.RESULT

/** Whether two overlapping, unordered accesses are a race. */
const doConflict = (one: Range, other: Range): boolean => {
  if (!isWrite(one) && !isWrite(other)) return false
  const { ATOMIC, READ } = AccessKind
  if (one.kind !== ATOMIC && other.kind !== ATOMIC) return true
  if (one.kind === other.kind) return false
  // Programs wait for a lock by READs of a word that atomics change.
  return !(one.kind === READ && isWord(one)) && !(other.kind === READ && isWord(other))
}

export class Races<Info> {
  readonly #shadow: Shadow<Request<Info>>
  readonly #report: (race: Race<Info>) => void
  readonly #omit: NoteOmission
  readonly #threads = new Map<number, Thread>()
  readonly #queues = new Map<number, Queue<Info>>()
  readonly #cqs = new Map<number, Cq>()
  /** Slots of closed queues, each with its next epoch: epochs of a slot never repeat. */
  readonly #freeSlots: { readonly slot: number; readonly nextEpoch: number }[] = []
  /** Number of slots so far. */
  #slots = 0
  /** Number of requests that have a clock. */
  #clocks = 0
  /** Earlier requests whose race with the current request was reported. */
  #reported: Request<Info>[] = []

  /** `intervals`: maximum intervals of the shadow memory. */
  constructor(report: (race: Race<Info>) => void, omit: NoteOmission, intervals = MAX_INTERVALS) {
    this.#report = report
    this.#omit = omit
    this.#shadow = new Shadow(omit, intervals)
  }

  /** Adds a queue: the send queue of a queue pair, or the messages that a queue pair receives. */
  open(id: number, isReliable: boolean): void {
    const { slot, nextEpoch } = this.#freeSlots.pop() ?? { slot: this.#newSlot(), nextEpoch: 0 }
    if (slot < 0) this.#omit('race-queues', 1)
    const empty = { inFlight: [], placedCount: 0, fences: 0, forgottenFences: 0, fenced: [], isClosed: false }
    this.#queues.set(id, { slot, isReliable, nextEpoch, ...empty })
  }

  /** −1: there are MAX_SLOTS. */
  #newSlot(): number {
    return this.#slots < MAX_SLOTS ? this.#slots++ : -1
  }

  /** A queue was reset or destroyed: its requests have ended. */
  close(id: number): void {
    const queue = this.#queues.get(id)
    if (queue === undefined) return
    queue.isClosed = true
    for (const request of queue.inFlight) this.#releaseClock(request)
    queue.inFlight = []
    if (queue.slot >= 0) this.#freeSlots.push({ slot: queue.slot, nextEpoch: queue.nextEpoch })
    this.#queues.delete(id)
  }

  closeCq(id: number): void {
    this.#cqs.delete(id)
  }

  endThread(id: number): void {
    this.#threads.delete(id)
  }

  /**
   * A thread posts a request. `acquired`: when the thread last waited, without RDMA, for other threads or programs; if
   * never, when it began. Times are microseconds of one clock.
   */
  post(threadId: number, time: number, acquired: number): PostStamp {
    const thread = this.#thread(threadId)
    if (acquired > thread.clock.acquired) {
      thread.clock = thread.clock.unshared()
      thread.clock.acquired = acquired
    }
    thread.clock.isShared = true
    return { thread: threadId, time, clock: thread.clock }
  }

  /** The device fetches a request that was posted. */
  fetch(
    queueId: number,
    stamp: PostStamp,
    { kind, isFenced, ranges }: NewRequest,
    info: Info,
  ): Request<Info> | undefined {
    const queue = this.#queues.get(queueId)
    if (queue === undefined) return undefined
    if (isFenced) queue.fences++
    const request = new Request(queue, kind, info, stamp, this.#clockOf(stamp.clock, stamp.time))
    if (isFenced) queue.fenced.push(request)
    if (queue.fenced.length > MAX_FENCED) {
      const forgotten = queue.fenced.shift()!
      queue.forgottenFences++
      // If a thread knows the forgotten request to be done, the requests before it are done too: no omission.
      if (forgotten.doneKnownTime === Number.POSITIVE_INFINITY) this.#omit('race-fences', 1)
    }
    this.#enqueue(queue, request)
    this.#access(request, stamp.clock, ranges)
    return request
  }

  /** A message has filled a receive. `sender`: the request that sent the message; undefined: unknown. */
  receive(
    queueId: number,
    stamp: PostStamp,
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
      else clock.acquired = Math.max(clock.acquired, sender.postTime)
      if (sender.queue.slot >= 0) clock.raisePlaced(sender.queue.slot, sender.epoch + 1)
    } else clock.acquired = Math.max(clock.acquired, time) // the sender may be any thread
    const request = new Request(queue, 'RECEIVE', info, stamp, this.#clockOf(clock, stamp.time), sender)
    this.#enqueue(queue, request)
    // If the sender is unknown, no race is reported.
    this.#access(request, sender === undefined ? undefined : clock, ranges)
    return request
  }

  /** A thread has polled the completions of requests, in this order. `undefined`: an unknown request. */
  poll(
    threadId: number,
    time: number,
    acquired: number,
    cqId: number,
    requests: readonly (Request<Info> | undefined)[],
  ): void {
    const thread = this.#thread(threadId)
    thread.clock = thread.clock.unshared()
    if (acquired > thread.clock.acquired) thread.clock.acquired = acquired
    let cq = this.#cqs.get(cqId)
    if (cq === undefined) {
      cq = { firstPoller: threadId, clock: undefined }
      this.#cqs.set(cqId, cq)
    }
    // Polls of one CQ exclude each other, so each poller knows what earlier pollers knew.
    if (cq.firstPoller !== threadId && cq.clock === undefined) {
      cq.clock = new Clock(0)
      const firstPoller = this.#threads.get(cq.firstPoller)
      if (firstPoller !== undefined) cq.clock.join(firstPoller.clock)
    }
    if (cq.clock !== undefined) thread.clock.join(cq.clock)
    for (const request of requests) if (request !== undefined) this.#addPolled(thread.clock, request, time)
    cq.clock?.join(thread.clock)
  }

  /** Adds a polled completion to a clock: the request and all before it in its queue are done. */
  #addPolled(clock: Clock, request: Request<Info>, time: number): void {
    const { queue, epoch, sender } = request
    for (const syncClock of request.syncClocks) clock.join(syncClock)
    if (request.clock !== undefined) clock.join(request.clock)
    if (sender !== undefined) this.#addPlaced(clock, sender, time)
    if (queue.isClosed) return
    if (queue.slot >= 0) {
      clock.raiseDone(queue.slot, epoch + 1)
      if (queue.isReliable) clock.raisePlaced(queue.slot, epoch + 1)
    }
    let count = 0
    for (; count < queue.inFlight.length && queue.inFlight[count]!.epoch <= epoch; count++) {
      const done = queue.inFlight[count]!
      done.doneKnownTime = time
      if (queue.isReliable && done.placedKnownTime > time) done.placedKnownTime = time
      if (done.clock !== undefined && done.clock !== request.clock) clock.join(done.clock)
      this.#releaseClock(done)
    }
    if (count === 1) queue.inFlight.shift()
    else queue.inFlight.splice(0, count)
    queue.placedCount = Math.max(0, queue.placedCount - count)
  }

  /** Adds a received message to a clock: its request and all before that in the queue are placed. */
  #addPlaced(clock: Clock, { queue, epoch }: Request<Info>, time: number): void {
    if (queue.isClosed) return
    if (queue.slot >= 0) clock.raisePlaced(queue.slot, epoch + 1)
    for (; queue.placedCount < queue.inFlight.length; queue.placedCount++) {
      const request = queue.inFlight[queue.placedCount]!
      if (request.epoch > epoch) break
      if (request.placedKnownTime > time) request.placedKnownTime = time
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

  /** The clock of a post. If there are MAX_CLOCKS, a new clock with all that any thread knew at that time. */
  #clockOf(clock: Clock, time: number): Clock {
    if (this.#clocks++ < MAX_CLOCKS) return clock
    this.#omit('race-clocks', 1)
    return new Clock(time)
  }

  #releaseClock(request: Request<Info>): void {
    if (request.clock !== undefined) this.#clocks--
    request.clock = undefined
  }

  #enqueue(queue: Queue<Info>, request: Request<Info>): void {
    queue.inFlight.push(request)
    if (queue.inFlight.length <= MAX_IN_FLIGHT) return
    const oldest = queue.inFlight.splice(0, MAX_IN_FLIGHT / 2)
    this.#omit('race-in-flight', oldest.length)
    // Done since time 0: no race with them is reported.
    for (const forgotten of oldest) {
      forgotten.doneKnownTime = forgotten.placedKnownTime = 0
      this.#releaseClock(forgotten)
    }
    queue.placedCount = Math.max(0, queue.placedCount - oldest.length)
  }

  /** Reports races of a request with earlier accesses, and stores its accesses. Without `clock`, only stores them. */
  #access(request: Request<Info>, clock: Clock | undefined, ranges: readonly Range[]): void {
    if (this.#reported.length > 0) this.#reported = []
    for (const range of ranges) {
      const access = { range, request }
      const interval = this.#shadow.access(access, clock, this.#compare)
      if (clock !== undefined && interval !== undefined && isWord(range) && !isLocal(range))
        this.#orderByWord(access, clock, interval)
    }
  }

  /** Reports two accesses to the same bytes if they race. A property, so no closure is created per request. */
  readonly #compare = (
    earlier: Access<Request<Info>>,
    later: Access<Request<Info>>,
    clock: Clock | undefined,
  ): void => {
    if (clock === undefined || earlier.request === later.request) return
    if (!doConflict(earlier.range, later.range) && !doCount(earlier, later)) return
    if (this.#reported.includes(earlier.request) || this.#isOrdered(earlier, later, clock)) return
    const race = raceOf(earlier, later)
    if (race.id === 'counter-shared' && !race.isProven) return
    this.#reported.push(earlier.request)
    this.#report(race)
  }

  /** A word orders the requests that access it as a whole: the poller of a read knows what earlier writers knew. */
  #orderByWord({ request, range }: Access<Request<Info>>, clock: Clock, interval: Interval<Request<Info>>): void {
    interval.syncClock ??= new Clock(0)
    if (isWrite(range)) {
      interval.syncClock.join(clock)
      // At the peer the earlier requests of the queue have ended, and this request has not: no `+ 1`.
      if (request.queue.slot >= 0) interval.syncClock.raisePlaced(request.queue.slot, request.epoch)
    }
    if (range.kind !== AccessKind.WRITE) request.syncClocks = [...request.syncClocks, interval.syncClock]
  }

  /** Whether an access has ended before a later access begins. `clock`: of the later poster. */
  #isOrdered(earlier: Access<Request<Info>>, later: Access<Request<Info>>, clock: Clock): boolean {
    const { request } = earlier
    if (earlier.range.region.isDeregistered || request.queue.isClosed) return true
    // Two receives with one buffer: finding `receive-overlap`.
    if (request.kind === 'RECEIVE' && later.request.kind === 'RECEIVE') return true
    if (isKnownDone(request, clock, isLocal(earlier.range)) || isKnownPlaced(request, clock)) return true
    const { sender } = request
    if (
      sender !== undefined &&
      (sender.queue.isClosed || isKnownDone(sender, clock, false) || isKnownPlaced(sender, clock))
    )
      return true
    const earlierSend = sender ?? request
    const laterSend = later.request.sender ?? later.request
    return earlierSend.queue === laterSend.queue && isOrderedInQueue(earlierSend, earlier.range, laterSend, later.range)
  }
}

/**
 * Whether a poster with this clock knows from a polled completion that an access of the request has ended.
 * `isLocalAccess`: to memory of the request's own poster. A completion of an unreliable queue proves nothing about the
 * peer's memory.
 */
const isKnownDone = <Info>(
  { queue, epoch, doneKnownTime, kind }: Request<Info>,
  clock: Clock,
  isLocalAccess: boolean,
): boolean => {
  if (!queue.isReliable && !isLocalAccess && kind !== 'RECEIVE') return false
  if (doneKnownTime <= clock.acquired) return true
  return queue.slot < 0 ? doneKnownTime < Number.POSITIVE_INFINITY : clock.done(queue.slot) > epoch
}

/**
 * Whether a poster with this clock knows from a later message that the request has ended. The end of a READ or atomic
 * is known only from a message of the first fenced request after the READ or atomic, or of a later request.
 */
const isKnownPlaced = <Info>(request: Request<Info>, clock: Clock): boolean => {
  const { queue, kind, fencesSoFar } = request
  if (isFetching(kind) && fencesSoFar < queue.forgottenFences) return true
  const ending = isFetching(kind) ? queue.fenced[fencesSoFar - queue.forgottenFences] : request
  if (ending === undefined) return false
  const { epoch, placedKnownTime } = ending
  if (placedKnownTime <= clock.acquired) return true
  return queue.slot < 0 ? placedKnownTime < Number.POSITIVE_INFINITY : clock.placed(queue.slot) > epoch
}

/** Whether the poster of the second cannot have known that the first had ended. */
const isUnknown = <Info>({ request }: Access<Request<Info>>, second: Access<Request<Info>>): boolean => {
  const { postTime, thread, clock } = second.request
  const isKnownByOther = request.doneKnownTime <= postTime
  return thread === request.thread && !isKnownByOther && (clock?.acquired ?? postTime) <= request.postTime
}

const isProven = <Info>(first: Access<Request<Info>>, second: Access<Request<Info>>): boolean => {
  if (first.request.kind === 'RECEIVE' || second.request.kind === 'RECEIVE') return false
  return !(isWord(first.range) && isWord(second.range)) && isUnknown(first, second)
}

/** Whether the request before this one in its queue is a WRITE that no thread knows to be done. */
const isBehindWrite = <Info>({ queue: { inFlight }, epoch }: Request<Info>): boolean =>
  inFlight[epoch - 1 - (inFlight[0]?.epoch ?? epoch)]?.kind === 'WRITE'

/** Whether two atomics of different queues on one word each follow a WRITE. */
const doCount = <Info>(first: Access<Request<Info>>, second: Access<Request<Info>>): boolean =>
  first.range.kind === AccessKind.ATOMIC &&
  second.range.kind === AccessKind.ATOMIC &&
  first.request.queue !== second.request.queue &&
  isBehindWrite(first.request) &&
  isBehindWrite(second.request)

const raceIdOf = <Info>(first: Access<Request<Info>>, second: Access<Request<Info>>): RaceId => {
  const { ATOMIC, READ } = AccessKind
  if (isLocal(first.range) && isLocal(second.range)) return 'buffer-reused'
  if (first.range.kind === ATOMIC && second.range.kind === ATOMIC) return 'counter-shared'
  if (first.range.kind === ATOMIC || second.range.kind === ATOMIC) return 'atomic-mixed-with-write'
  const isReadOfQueue = first.range.kind === READ && first.request.queue === second.request.queue
  return isReadOfQueue ? 'read-then-write-unfenced' : 'race'
}

const raceOf = <Info>(first: Access<Request<Info>>, second: Access<Request<Info>>): Race<Info> => {
  const id = raceIdOf(first, second)
  return {
    id,
    isProven:
      id === 'counter-shared' ? isUnknown(first, second) : id !== 'atomic-mixed-with-write' && isProven(first, second),
    first,
    second,
    start: Math.max(first.range.start, second.range.start),
    end: Math.min(first.range.end, second.range.end),
  }
}
