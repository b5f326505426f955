/*
 * What happened to the objects of one process, as numbers: the last events of the process and of each of its objects,
 * also of destroyed ones. Noting an event allocates nothing; texts are made of it for a report (lines.ts). The memory
 * is bounded for each process.
 */
import type { Program, Stack } from '../../../spec/check/finding.ts'

/** Kept events of a process, and of each object. */
const PROCESS_EVENTS = 4096
const OBJECT_EVENTS = 64
/** Maximum objects of a process, the latest, and all events that are kept for objects alone. */
const MAX_OBJECTS = 2 ** 16
const MAX_OBJECT_EVENTS = 2 ** 16
/** Kept stacks of calls, the latest. */
const MAX_STACKS = 2048
const FIRST_CAPACITY = 8

/** Positions in an event. WR_ID and PEER_WR_ID have 64 bits. */
const Field = {
  TIME: 0,
  KIND: 1,
  STACK: 2,
  INDEX: 3,
  WR_ID: 4,
  AMOUNT: 5,
  DETAIL: 6,
  PEER: 7,
  PEER_WR_ID: 8,
  ORDINAL: 9,
  /** Of how many the event stands for; with more than one, the time and wr_id of the first. */
  COUNT: 10,
  SINCE: 11,
  FIRST_WR_ID: 12,
  /** 0: unknown. */
  THREAD: 13,
} as const
const FIELDS = 14

/**
 * An event that is to be noted. What its numbers are depends on its kind (recorder.ts). A recorder has one for all, so
 * that noting allocates nothing.
 */
export class NewEvent {
  kind = 0
  time = 0
  /** Of `ProcessLog.stackNumber`. */
  stack = 0
  index = -1
  wrId = 0n
  amount = 0
  detail = 0
  peer = 0
  peerWrId = 0n

  /** Begins another one. */
  begin(kind: number, time: number): this {
    this.kind = kind
    this.time = time
    this.stack = 0
    this.index = -1
    this.wrId = 0n
    this.amount = 0
    this.detail = 0
    this.peer = 0
    this.peerWrId = 0n
    return this
  }
}

/** An event as it is read for a report. */
export interface NotedEvent {
  readonly subject: Subject
  readonly time: number
  readonly kind: number
  /** Empty: none, or forgotten. */
  readonly stack: Stack
  readonly index: number
  readonly wrId: bigint
  readonly amount: number
  readonly detail: number
  readonly peer: number
  readonly peerWrId: bigint
  /** How many it stands for, and the time and wr_id of the first. */
  readonly count: number
  readonly since: number
  readonly firstWrId: bigint
  /** 0: unknown. */
  readonly thread: number
}

/** What events are about: an object, or what has no object in a context. */
export interface Subject {
  /** `CoreObject.id`; of a context −1 minus its number. */
  readonly id: number
  readonly log: ProcessLog
  /** Events so far. */
  total: number
  /** Receives that are posted and not taken. */
  receives: number
  /** The queue pair, by `CoreObject.id`, whose message was received last; 0: none. */
  partner: number
  /** Completions that were polled so far, of a CQ. */
  polled: number
  /** Of a context: it was told that it ends. */
  hasEnded: boolean
  /** The log has forgotten it. */
  isForgotten: boolean
  /** The number in the ring of the process, and the part, of the last completion and the last poll; −1: none. */
  completion: number
  completionPart: number
  poll: number
  pollPart: number
  /** Events that only the object keeps. */
  older: EventRing | undefined
}

/** The last events that were put into it. */
class EventRing {
  readonly #most: number
  #numbers: Float64Array
  #bits: BigUint64Array
  /** For copies, which must not make numbers of the bits. */
  #words: Uint32Array
  #subjects: (Subject | undefined)[] = []
  capacity: number
  /** Events so far. */
  total = 0
  /** The place behind the last event. */
  #cursor = 0

  constructor(most: number) {
    this.#most = most
    this.capacity = FIRST_CAPACITY
    this.#numbers = new Float64Array(FIRST_CAPACITY * FIELDS)
    this.#bits = new BigUint64Array(this.#numbers.buffer)
    this.#words = new Uint32Array(this.#numbers.buffer)
  }

  /** Returns the place of the next event, which overwrites the oldest. Before `next` it may be read. */
  place(mayGrow = true): number {
    if (mayGrow && this.total === this.capacity && this.capacity < this.#most) {
      this.capacity *= 2
      const numbers = new Float64Array(this.capacity * FIELDS)
      const words = new Uint32Array(numbers.buffer)
      words.set(this.#words)
      this.#numbers = numbers
      this.#bits = new BigUint64Array(numbers.buffer)
      this.#words = words
    }
    return this.#cursor < this.capacity ? this.#cursor : 0
  }

  /** The place of the event with this number (`total` before it was put); −1: it was overwritten. */
  placeOf(number: number): number {
    return number >= 0 && this.total - number <= this.capacity ? number % this.capacity : -1
  }

  /** The subject of the event at a place; undefined: none is there yet. */
  subjectAt(place: number): Subject | undefined {
    return this.#subjects[place]
  }

  ordinalAt(place: number): number {
    return this.#numbers[place * FIELDS + Field.ORDINAL]!
  }

  put(place: number, subject: Subject, event: NewEvent): void {
    const at = place * FIELDS
    const numbers = this.#numbers
    numbers[at + Field.TIME] = event.time
    numbers[at + Field.KIND] = event.kind
    numbers[at + Field.STACK] = event.stack
    numbers[at + Field.INDEX] = event.index
    numbers[at + Field.AMOUNT] = event.amount
    numbers[at + Field.DETAIL] = event.detail
    numbers[at + Field.PEER] = event.peer
    numbers[at + Field.ORDINAL] = subject.total
    numbers[at + Field.COUNT] = 1
    numbers[at + Field.THREAD] = 0
    this.#bits[at + Field.WR_ID] = event.wrId
    // Of events without a peer nobody reads it.
    if (event.peer !== 0) this.#bits[at + Field.PEER_WR_ID] = event.peerWrId
    this.#subjects[place] = subject
    this.total++
    this.#cursor = place + 1
  }

  /** The event at a place, which is such a completion, stands for one more; false: it is another. */
  repeat(place: number, { time, index, wrId, amount, detail, peer }: NewEvent): boolean {
    const at = place * FIELDS
    const numbers = this.#numbers
    if (numbers[at + Field.DETAIL] !== detail || numbers[at + Field.AMOUNT] !== amount) return false
    if (numbers[at + Field.PEER] !== peer) return false
    const count = numbers[at + Field.COUNT]!
    numbers[at + Field.COUNT] = count + 1
    if (count === 1) {
      numbers[at + Field.SINCE] = numbers[at + Field.TIME]!
      this.#bits[at + Field.FIRST_WR_ID] = this.#bits[at + Field.WR_ID]!
    }
    numbers[at + Field.TIME] = time
    numbers[at + Field.INDEX] = index
    this.#bits[at + Field.WR_ID] = wrId
    return true
  }

  /** The event at a place stands for one more, of `amount`. */
  add(place: number, amount: number): void {
    const at = place * FIELDS
    const numbers = this.#numbers
    const count = numbers[at + Field.COUNT]!
    numbers[at + Field.COUNT] = count + 1
    if (count === 1) numbers[at + Field.SINCE] = numbers[at + Field.TIME]!
    numbers[at + Field.AMOUNT] = numbers[at + Field.AMOUNT]! + amount
  }

  setThread(place: number, thread: number): void {
    this.#numbers[place * FIELDS + Field.THREAD] = thread
  }

  setTime(place: number, time: number): void {
    this.#numbers[place * FIELDS + Field.TIME] = time
  }

  /** Puts the event at a place of another ring. */
  copy(from: EventRing, other: number, mayGrow: boolean): void {
    const place = this.place(mayGrow)
    const to = 2 * FIELDS * place
    const source = 2 * FIELDS * other
    for (let word = 0; word < 2 * FIELDS; word++) this.#words[to + word] = from.#words[source + word]!
    this.#subjects[place] = from.#subjects[other]
    this.total++
    this.#cursor = place + 1
  }

  clear(): void {
    this.total = 0
    this.#cursor = 0
  }

  /** Calls `take` with the kept events of `isWanted` subjects, oldest first. */
  read(isWanted: (subject: Subject) => boolean, take: (event: NotedEvent) => void): void {
    for (let i = Math.max(0, this.total - this.capacity); i < this.total; i++) {
      const place = i % this.capacity
      const subject = this.#subjects[place]
      if (subject === undefined || !isWanted(subject)) continue
      const at = place * FIELDS
      const numbers = this.#numbers
      const count = numbers[at + Field.COUNT]!
      take({
        subject,
        time: numbers[at + Field.TIME]!,
        kind: numbers[at + Field.KIND]!,
        stack: subject.log.stackOf(numbers[at + Field.STACK]!),
        index: numbers[at + Field.INDEX]!,
        wrId: this.#bits[at + Field.WR_ID]!,
        amount: numbers[at + Field.AMOUNT]!,
        detail: numbers[at + Field.DETAIL]!,
        peer: numbers[at + Field.PEER]!,
        peerWrId: this.#bits[at + Field.PEER_WR_ID]!,
        count,
        thread: numbers[at + Field.THREAD]!,
        since: numbers[at + (count > 1 ? Field.SINCE : Field.TIME)]!,
        firstWrId: this.#bits[at + (count > 1 ? Field.FIRST_WR_ID : Field.WR_ID)]!,
      })
    }
  }
}

const NO_STACK: Stack = []

export class ProcessLog {
  /** Undefined: the process that runs the checker. */
  readonly program: Program | undefined
  readonly #ring = new EventRing(PROCESS_EVENTS)
  readonly #subjects = new Map<number, Subject>()
  /** Subjects with rings of their own, and the one whose ring was taken last. */
  readonly #owners: Subject[] = []
  #next = -1
  #olderCapacity = 0
  /** The place of the last poll, if no event has followed: its time is that of the next. −1: none. */
  #untimed = -1
  #time = 0
  readonly #poll = new NewEvent()
  /** Grows with each event that is no repeat: then the same is told again (lines.ts). */
  #part = 0
  /** The numbers of stacks, from 1. */
  readonly #numbers = new WeakMap<Stack, number>()
  readonly #stacks: (Stack | undefined)[] = []
  #lastStack = 0

  constructor(program: Program | undefined) {
    this.program = program
  }

  subject(id: number): Subject {
    const known = this.#subjects.get(id)
    if (known !== undefined) return known
    const subject: Subject = {
      id,
      log: this,
      total: 0,
      receives: 0,
      partner: 0,
      polled: 0,
      hasEnded: false,
      isForgotten: false,
      completion: -1,
      completionPart: 0,
      poll: -1,
      pollPart: 0,
      older: undefined,
    }
    this.#subjects.set(id, subject)
    if (this.#subjects.size > MAX_OBJECTS) this.#forgetHalf()
    return subject
  }

  /** The older half at once: looking for the oldest takes long in a map that has lost its first entries. */
  #forgetHalf(): void {
    let left = MAX_OBJECTS / 2
    for (const subject of this.#subjects.values()) {
      subject.isForgotten = true
      this.#subjects.delete(subject.id)
      if (--left === 0) break
    }
  }

  /** The number of a stack, for `note`; 0: none. */
  stackNumber(stack: Stack): number {
    if (stack.length === 0) return 0
    let number = this.#numbers.get(stack) ?? 0
    if (number > this.#lastStack - MAX_STACKS && number > 0) return number
    number = ++this.#lastStack
    this.#numbers.set(stack, number)
    this.#stacks[number % MAX_STACKS] = stack
    return number
  }

  stackOf(number: number): Stack {
    return number > 0 && number > this.#lastStack - MAX_STACKS
      ? (this.#stacks[number % MAX_STACKS] ?? NO_STACK)
      : NO_STACK
  }

  /** An event of a subject of this process. */
  note(subject: Subject, event: NewEvent): void {
    const ring = this.#ring
    this.#passes(event.time)
    const place = ring.place()
    const oldest = ring.subjectAt(place)
    // Before it is overwritten, its object takes it, if it is one of the last of the object.
    if (oldest !== undefined && oldest.total - ring.ordinalAt(place) < OBJECT_EVENTS) this.#keep(oldest, place)
    subject.total++
    ring.put(place, subject, event)
  }

  /** The last event was what this thread has done. */
  byThread(thread: number): void {
    this.#ring.setThread(this.#ring.placeOf(this.#ring.total - 1), thread)
  }

  #passes(time: number): void {
    if (this.#untimed >= 0) this.#ring.setTime(this.#untimed, time)
    this.#untimed = -1
    this.#time = time
  }

  /** What happened that is no repeat: a call, for example. */
  beginPart(): void {
    this.#part++
  }

  /** As `note`, of a completion: one with the same numbers, but for `index` and `wrId`, stands for several. */
  complete(subject: Subject, event: NewEvent): void {
    if (subject.completionPart === this.#part) {
      const place = this.#ring.placeOf(subject.completion)
      if (place >= 0 && this.#ring.repeat(place, event)) {
        this.#passes(event.time)
        return
      }
    }
    subject.completion = this.#ring.total
    subject.completionPart = this.#part
    this.note(subject, event)
  }

  /** As `note`, of a poll, at the time of the next event: the polls of a part are one event. */
  poll(subject: Subject, kind: number, amount: number): void {
    const ring = this.#ring
    let place = subject.pollPart === this.#part ? ring.placeOf(subject.poll) : -1
    if (place >= 0) {
      ring.add(place, amount)
      if (place !== this.#untimed) this.#passes(this.#time)
    } else {
      subject.poll = ring.total
      subject.pollPart = this.#part
      const event = this.#poll.begin(kind, this.#time)
      event.amount = amount
      this.note(subject, event)
      place = ring.placeOf(subject.poll)
    }
    this.#untimed = place
  }

  #keep(subject: Subject, place: number): void {
    if (subject.isForgotten) return
    const older = subject.older ?? this.#ringFor(subject)
    const before = older.capacity
    older.copy(this.#ring, place, 2 * before <= MAX_OBJECT_EVENTS - this.#olderCapacity)
    this.#olderCapacity += older.capacity - before
  }

  /** A new ring, or if there are enough that of another object, in turns. */
  #ringFor(subject: Subject): EventRing {
    const owners = this.#owners
    if (this.#olderCapacity + FIRST_CAPACITY <= MAX_OBJECT_EVENTS) {
      subject.older = new EventRing(OBJECT_EVENTS)
      this.#olderCapacity += FIRST_CAPACITY
      owners.push(subject)
      return subject.older
    }
    this.#next = (this.#next + 1) % owners.length
    const before = owners[this.#next]!
    const ring = before.older!
    before.older = undefined
    owners[this.#next] = subject
    subject.older = ring
    ring.clear()
    return ring
  }

  /**
   * The kept events of some subjects, oldest first; of all without `ids`. `now`: the time of the last ones, if it is
   * not known. `overwritten`: how many others there were.
   */
  eventsOf(now: number, ids?: ReadonlySet<number>): { readonly events: NotedEvent[]; readonly overwritten: number } {
    this.#passes(now)
    const events: NotedEvent[] = []
    const isWanted = ({ id }: Subject): boolean => ids === undefined || ids.has(id)
    let total = 0
    for (const subject of ids === undefined ? this.#subjects.values() : [...ids].map(id => this.#subjects.get(id))) {
      total += subject?.total ?? 0
      subject?.older?.read(isWanted, event => events.push(event))
    }
    this.#ring.read(isWanted, event => events.push(event))
    // An event that stands for several has the place of the first.
    events.sort((a, b) => a.time - b.time)
    return { events, overwritten: total - events.length }
  }
}
