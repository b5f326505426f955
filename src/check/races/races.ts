/*
 * Races of requests: two accesses to overlapping bytes, one of them a write or atomic, and nothing that orders them.
 * What orders them: the order within a queue (order.ts), completions polled, messages received, atomics on one word, and
 * what programs do beside RDMA, of which only the time is known (`acquired`). Posts, requests and polls come in, races go
 * out; there is no I/O and no clock. Local loads and stores of programs are not seen.
 *
 * A race is proven if the second request was posted before the first was over, and its poster can have learnt nothing of
 * the first one meanwhile. Otherwise the poster may know in a way that is not seen that the first one is over: it polls
 * memory, for example.
 *
 * Memory is bounded: by the shadow (shadow.ts), by MAX_CLOCKS clocks of requests, and by MAX_IN_FLIGHT requests a queue.
 */
import { Clock, MAX_SLOTS } from './clock.ts'
import { isFetching, isOrderedInQueue, type Queued, type RequestKind } from './order.ts'
import { type Access, AccessKind, type Interval, isWord, isWrite, MAX_INTERVALS, type Range, Shadow } from './shadow.ts'

/** Requests that keep the clock of their post; further ones know all that anybody knew then. */
export const MAX_CLOCKS = 16384
/** Requests of a queue whose end nobody has polled. */
export const MAX_IN_FLIGHT = 16384
/** Fenced requests of a queue that are known. */
const MAX_FENCED = 256

/** A post, with what its thread knew. */
export interface Stamp {
  readonly thread: number
  /** Microseconds. */
  readonly time: number
  readonly clock: Clock
}

interface Queue<Info> {
  /** In clocks; -1: none. */
  readonly slot: number
  /** A completion means that the peer has the message (RC and XRC). */
  readonly isReliable: boolean
  /** The requests whose end nobody has polled, oldest first. */
  inFlight: Request<Info>[]
  /** Of `inFlight`: those before it are placed, and known to be. */
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
  /** Undefined when nobody needs it any more. */
  clock: Clock | undefined
  /** When the device saw it first, and when it was over. */
  readonly fetched: number
  ended = Number.POSITIVE_INFINITY
  /** When the first thread knew. */
  doneKnown = Number.POSITIVE_INFINITY
  placedKnown = Number.POSITIVE_INFINITY
  /** Words that order their users. */
  syncs: Clock[] = []

  constructor(
    queue: Queue<Info>,
    { kind, info }: { readonly kind: RequestKind; readonly info: Info },
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

export type RaceId = 'race' | 'read-then-write-unfenced' | 'atomic-mixed-with-write' | 'buffer-reused'

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
  /** What its pollers have learnt, once there are two. */
  clock: Clock | undefined
}

export interface NewRequest<Info> {
  readonly kind: RequestKind
  readonly isFenced: boolean
  readonly ranges: readonly Range[]
  readonly info: Info
}

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
  readonly #threads = new Map<number, Thread>()
  readonly #queues = new Map<number, Queue<Info>>()
  readonly #cqs = new Map<number, Cq>()
  /** Counts of slots that are free: epochs of a slot never repeat. */
  readonly #freeSlots: { readonly slot: number; readonly next: number }[] = []
  #slots = 0
  #clocks = 0

  constructor(report: (race: Race<Info>) => void, intervals = MAX_INTERVALS) {
    this.#report = report
    this.#shadow = new Shadow(intervals)
  }

  /** Intervals of memory that were forgotten, so that races on them can have been missed. */
  get dropped(): number {
    return this.#shadow.dropped
  }

  /** A queue whose requests follow: the send queue of a queue pair, or the messages that it receives. */
  open(id: number, isReliable: boolean): void {
    const free = this.#freeSlots.pop()
    const slot = free?.slot ?? (this.#slots < MAX_SLOTS ? this.#slots++ : -1)
    const none = { inFlight: [], placed: 0, fences: 0, forgottenFences: 0, fenced: [], isGone: false }
    this.#queues.set(id, { slot, isReliable, next: free?.next ?? 0, ...none })
  }

  /** The queue was reset or destroyed: its requests are over. */
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
  fetch(queueId: number, stamp: Stamp, what: NewRequest<Info>, time: number): Request<Info> | undefined {
    const queue = this.#queues.get(queueId)
    if (queue === undefined) return undefined
    if (what.isFenced) queue.fences++
    const request = new Request(queue, what, stamp, this.#keep(stamp), time)
    if (what.isFenced) queue.fenced.push(request)
    if (queue.fenced.length > MAX_FENCED) {
      queue.forgottenFences++
      queue.fenced.shift()
    }
    this.#enqueue(queue, request)
    this.#access(request, stamp.clock, what.ranges)
    return request
  }

  /** A send is over, for the device. */
  end(request: Request<Info>, time: number): void {
    request.ended = time
  }

  /** A message has filled a receive that was posted. */
  receive(
    queueId: number,
    stamp: Stamp,
    sender: Request<Info> | undefined,
    what: NewRequest<Info>,
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
    const request = new Request(queue, what, stamp, this.#keep({ ...stamp, clock }), time, sender)
    request.ended = time
    this.#enqueue(queue, request)
    // A sender that is not here may know anything.
    this.#access(request, sender === undefined ? undefined : clock, what.ranges)
    return request
  }

  /** A thread has polled the completions of requests, in this order. */
  poll(thread: number, time: number, acquired: number, cqId: number, requests: readonly Request<Info>[]): void {
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
    for (const request of requests) this.#learn(own.clock, request, time)
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
    queue.inFlight.splice(0, count)
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

  /** The clock of a post, or one that knows more. */
  #keep({ clock, time }: Stamp): Clock {
    if (this.#clocks++ < MAX_CLOCKS) return clock
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
    for (const one of oldest) {
      one.doneKnown = one.placedKnown = 0
      this.#release(one)
    }
    queue.placed = Math.max(0, queue.placed - oldest.length)
  }

  /** Checks the ranges of a request against earlier accesses, and notes them. */
  #access(request: Request<Info>, clock: Clock | undefined, ranges: readonly Range[]): void {
    const told: Request<Info>[] = []
    for (const { space, start, end, kind, region } of ranges) {
      // All accesses have one shape; a spread would be slower.
      const access: Access<Request<Info>> = { space, start, end, kind, region, request }
      const check = (earlier: Access<Request<Info>> | undefined): void => {
        if (earlier === undefined || clock === undefined || told.includes(earlier.request)) return
        if (earlier.request === request || !conflict(earlier, access)) return
        if (this.#isOrdered(earlier, access, clock)) return
        told.push(earlier.request)
        this.#report(raceOf(earlier, access))
      }
      const intervals = this.#shadow.access(access, ({ write, reads, atomics }) => {
        check(write)
        reads.forEach(check)
        atomics.forEach(check)
      })
      if (clock !== undefined && isWord(access) && !isLocal(access)) this.#order(access, clock, intervals)
    }
  }

  /** Words that are written or atomic order those who use them, if they are read whole. */
  #order(access: Access<Request<Info>>, clock: Clock, [interval, ...more]: readonly Interval<Request<Info>>[]): void {
    if (interval === undefined || more.length > 0) return
    const { request, kind } = access
    interval.sync ??= new Clock(0)
    if (isWrite(access)) {
      interval.sync.join(clock)
      // The requests before it are over at the peer, and it is not.
      if (request.queue.slot >= 0) interval.sync.raisePlaced(request.queue.slot, request.epoch)
    }
    if (kind !== AccessKind.WRITE) request.syncs.push(interval.sync)
  }

  /** Whether an access is over before a later one begins, whose poster knew as much as `clock`. */
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

/** `isLocal`: the access is to memory of the poster. Elsewhere a completion says nothing if the queue is unreliable. */
const isKnownDone = <Info>(
  { queue, epoch, doneKnown, kind }: Request<Info>,
  clock: Clock,
  isLocal: boolean,
): boolean => {
  if (!queue.isReliable && !isLocal && kind !== 'RECEIVE') return false
  if (doneKnown <= clock.acquired) return true
  return queue.slot < 0 ? doneKnown < Number.POSITIVE_INFINITY : clock.done(queue.slot) > epoch
}

/** A message behind it has arrived. Requests that return data are then over only if one between them was fenced. */
const isKnownPlaced = <Info>(request: Request<Info>, clock: Clock): boolean => {
  const { queue, kind, fencesBefore } = request
  if (isFetching(kind) && fencesBefore < queue.forgottenFences) return true
  const last = isFetching(kind) ? queue.fenced[fencesBefore - queue.forgottenFences] : request
  if (last === undefined) return false
  const { epoch, placedKnown } = last
  if (placedKnown <= clock.acquired) return true
  return queue.slot < 0 ? placedKnown < Number.POSITIVE_INFINITY : clock.placed(queue.slot) > epoch
}

/** The poster of the later one cannot have known that the earlier one was over. */
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
