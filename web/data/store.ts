/*
 * The session that the page shows, and what is known of it so far. The events are read once, from the first on, in the
 * background: a part at once, all of a long session when the user asks. A live session is read as it grows; if more
 * arrives than the page reads, it skips and says so.
 */

import { SessionFileError } from '../../src/tools/record/error.ts'
import type { CallEvent, FailureEvent, FindingEvent, SessionEvent } from '../../src/tools/record/events.ts'
import { SessionObjects } from '../../src/tools/record/objects.ts'
import { openSession, type Session, type SessionBlock } from '../../src/tools/record/reader.ts'
import { readSymbols, SessionSymbols } from '../../src/tools/record/symbols.ts'
import { LongestRequests } from '../../src/tools/record/times/longest.ts'
import { type RequestTimes, TimesOfRequests } from '../../src/tools/record/times/request-times.ts'
import { readLastWaits, SessionWaits } from '../../src/tools/record/waits.ts'
import { nextTask, TURN } from './next-task.ts'
import type { Source } from './source.ts'
import { Traffic } from './traffic.ts'

/** Bytes of a session that are read without being asked. */
const READ_AT_ONCE = 3 * 2 ** 20
/** A live session that is read so many bytes behind skips to its newest part, of at least CATCH_UP bytes. */
const MAX_BEHIND = 16 * 2 ** 20
const CATCH_UP = 4 * 2 ** 20
const MAX_CALLS = 20_000
const MAX_PROBLEMS = 5_000
const MAX_SENDS = 20_000
const MAX_LONGEST = 200
/** Milliseconds between two notices to views while events are read. */
const NOTICE_INTERVAL = 200

export type Timed<E> = E & { readonly time: number }

/** All that was learned from the events read so far. */
export interface Facts {
  /** Time 0 of all views, in microseconds: the first event when the page was opened, which may be overwritten since. */
  readonly start: number
  readonly isLive: boolean
  readonly objects: SessionObjects
  readonly traffic: Traffic
  readonly calls: Timed<CallEvent>[]
  /** Calls that were too many for `calls`. */
  omittedCalls: number
  readonly findings: Timed<FindingEvent>[]
  readonly failures: Timed<FailureEvent>[]
  omittedProblems: number
  /** Events of the recorder that were lost. */
  lost: number
  /** How many events were read. */
  events: number
  /** Events that the page could not read. */
  damaged: number
  /** Events of a live recording that the page has not read, because newer ones arrived faster. */
  skipped: number
  /** Time of the first event that was read; undefined: none was. Of a live recording that is long, not its first. */
  coveredFrom: number | undefined
  /** Microseconds of the session whose events were read: rates divide by it. */
  covered: number
  /** Whether the recording says that it has ended in order. */
  endReason: string | undefined
  /** Counters of devices: the last values. */
  readonly counters: Map<number, Record<string, number>>
  readonly waits: SessionWaits
  readonly symbols: SessionSymbols
  readonly times: TimesOfRequests
  readonly longest: LongestRequests
  /** Sends in the order of their ends: the first, or of a live session the newest. */
  readonly sends: RequestTimes[]
  /** Sends that were too many for `sends`. */
  omittedSends: number
}

/** Adds to a list of at most `max` entries; full, it loses its older half if `keepsNewest`. Returns how many are omitted. */
const keep = <T>(list: T[], entry: T, max: number, keepsNewest: boolean): number => {
  if (list.length >= max && !keepsNewest) return 1
  const dropped = list.length >= max ? list.splice(0, max / 2).length : 0
  list.push(entry)
  return dropped
}

const newFacts = (start: number, isLive: boolean): Facts => {
  const objects = new SessionObjects()
  const longest = new LongestRequests(MAX_LONGEST)
  const sends: RequestTimes[] = []
  const facts: Facts = {
    start,
    isLive,
    objects,
    times: new TimesOfRequests(send => {
      longest.add(send)
      facts.omittedSends += keep(sends, send, MAX_SENDS, isLive)
    }, objects),
    waits: new SessionWaits(),
    symbols: new SessionSymbols(),
    longest,
    sends,
    omittedSends: 0,
    traffic: new Traffic(start),
    calls: [],
    omittedCalls: 0,
    findings: [],
    failures: [],
    omittedProblems: 0,
    lost: 0,
    events: 0,
    damaged: 0,
    skipped: 0,
    coveredFrom: undefined,
    covered: 0,
    endReason: undefined,
    counters: new Map(),
  }
  return facts
}

const addTo = (facts: Facts, event: SessionEvent): void => {
  facts.traffic.add(event)
  if (event.kind !== 'object') facts.times.add(event)
  switch (event.kind) {
    case 'device':
      facts.objects.addDevice(event)
      return
    case 'object':
      facts.objects.add(event)
      facts.times.add(event)
      return
    case 'call':
      facts.omittedCalls += keep(facts.calls, event, MAX_CALLS, facts.isLive)
      return
    case 'wait':
    case 'programEnd':
      facts.waits.add(event)
      return
    case 'symbol':
      facts.symbols.add(event)
      return
    case 'finding':
      if (facts.findings.length < MAX_PROBLEMS) facts.findings.push(event)
      else facts.omittedProblems++
      return
    case 'failure': {
      // Events that are no errors.
      if (event.failure.failure.isNote) return
      if (facts.failures.length < MAX_PROBLEMS) facts.failures.push(event)
      else facts.omittedProblems++
      const qp = facts.objects.queuePairs.get(event.object)
      const { kind } = event.failure.failure
      // The device moves a queue pair to ERR without a call.
      if (qp !== undefined && (kind === 'send' || kind === 'receive') && qp.state !== 'ERR')
        facts.objects.setState(qp, 'ERR', event.time)
      return
    }
    case 'counters':
      if (event.object === 0) facts.counters.set(event.device, { ...facts.counters.get(event.device), ...event.values })
      return
    case 'lost':
      facts.lost += event.count
      return
    case 'end':
      facts.endReason = event.reason
  }
}

export type ReadState = 'reading' | 'paused' | 'done'

export class Store {
  readonly source: Source
  session: Session
  facts: Facts
  /** 'paused': the rest is read by `readAll`. */
  readState: ReadState = 'reading'
  /** Bytes of blocks that were read, and of all. */
  bytesDone = 0
  bytesTotal = 0
  /** A sentence about the recording. */
  notice: string | undefined
  /** Counts changes: views compare it. */
  version = 0
  /** Whether the connection to the server is lost. */
  isDisconnected = false
  readonly #listeners = new Set<() => void>()
  /** Number of the first event that was not read. */
  #next = 0
  /** Time of the last event that was read. */
  #lastEnd = 0
  #budget = READ_AT_ONCE
  #recording: number
  #isReading = false
  #lastNotice = 0
  /** When the browser could draw last. */
  #turn = 0

  private constructor(source: Source, session: Session) {
    this.source = source
    this.session = session
    this.#recording = source.about.state.recording
    this.notice = source.about.state.notice
    this.facts = newFacts(session.start, source.about.isLive)
  }

  /** Opens the session of a source. Throws an Error with a sentence. */
  static async open(source: Source): Promise<Store> {
    const store = new Store(source, await openSession(source.open(source.about.state)))
    void store.#read()
    if (source.about.isLive) void store.#follow()
    return store
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  readAll(): void {
    this.#budget = Number.POSITIVE_INFINITY
    void this.#read()
  }

  #changed(isUrgent = true): void {
    const now = performance.now()
    if (!isUrgent && now - this.#lastNotice < NOTICE_INTERVAL) return
    this.#lastNotice = now
    this.version++
    for (const listener of this.#listeners) listener()
  }

  /** The index of the first block of events from `from` on that was not read. */
  #nextIndex(from: number): number {
    const { blocks } = this.session
    let index = from
    for (; index < blocks.length; index++) {
      const { isCheckpoint, first, events } = blocks[index]!
      if (!isCheckpoint && first + events > this.#next) break
    }
    return index
  }

  /** The index of the block from which a page reads that is too far behind: the first of its segment. */
  #newestPart(): number {
    const { blocks } = this.session
    let index = blocks.length - 1
    for (let bytes = 0; index > 0; index--) {
      bytes += blocks[index]!.length
      if (bytes >= CATCH_UP && blocks[index - 1]!.sequence !== blocks[index]!.sequence) break
    }
    while (blocks[index]!.isCheckpoint && index < blocks.length - 1) index++
    return index
  }

  async #read(): Promise<void> {
    if (this.#isReading) return
    this.#isReading = true
    this.readState = 'reading'
    const { facts } = this
    try {
      if (facts.events === 0 && this.#next === 0) {
        await this.#readCheckpoint(facts, this.session.start)
        // Why a program hangs comes first, and is at the end of a file.
        if (!this.source.about.isLive) {
          await readLastWaits(this.session, event => this.#add(facts, event))
          await readSymbols(this.session, event => this.#add(facts, event))
        }
        this.#changed()
      }
      const { isLive } = this.source.about
      let session: Session | undefined
      let index = 0
      let behind = 0
      while (facts === this.facts) {
        // While this page reads, the session grows.
        const isNew = session !== this.session
        session = this.session
        const { blocks } = session
        index = this.#nextIndex(isNew ? 0 : index)
        if (isNew) behind = blocks.slice(index).reduce((sum, one) => sum + (one.isCheckpoint ? 0 : one.length), 0)
        this.bytesTotal = this.bytesDone + behind
        let block = blocks[index]
        if (block === undefined) break
        if (isLive && behind > MAX_BEHIND) {
          const newest = this.#newestPart()
          for (; index < newest; index++) if (!blocks[index]!.isCheckpoint) behind -= blocks[index]!.length
          block = blocks[index]!
          await this.#readCheckpoint(facts, block.end)
        }
        // Blocks before this one were overwritten or passed over; those before the page's first look are not missing.
        if (isLive && this.#next > 0) facts.skipped += block.first - this.#next
        if (!isLive && this.bytesDone + block.length > this.#budget) {
          this.readState = 'paused'
          return
        }
        await this.#readBlock(block, facts)
        behind -= block.length
        index++
        this.#changed(false)
      }
      this.readState = 'done'
      this.isDisconnected = false
    } catch {
      // The server has ended.
      this.isDisconnected = true
      this.readState = 'paused'
    } finally {
      this.#isReading = false
      this.#changed()
    }
  }

  /** The devices and objects that existed at a time, as of the newest checkpoint. */
  async #readCheckpoint(facts: Facts, time: number): Promise<void> {
    const { events } = await this.session.checkpointBefore(time)
    for (const event of events) if (event.kind !== 'checkpoint') this.#add(facts, event)
  }

  #add(facts: Facts, event: SessionEvent): void {
    try {
      addTo(facts, event)
    } catch {
      // A file that was made by others may have records of any content.
      facts.damaged++
    }
  }

  async #readBlock(block: SessionBlock, facts: Facts): Promise<void> {
    let events: readonly SessionEvent[] = []
    try {
      events = await this.session.read(block)
    } catch (error) {
      if (!(error instanceof SessionFileError)) throw error
      // The blocks of a live recording were whole when the session was opened, and are overwritten meanwhile.
      if (this.source.about.isLive) facts.skipped += block.events
      else facts.damaged += block.events
    }
    if (facts !== this.facts) return
    const isNext = block.first === this.#next && facts.coveredFrom !== undefined
    facts.coveredFrom ??= block.start
    facts.covered += block.end - (isNext ? this.#lastEnd : block.start)
    this.#lastEnd = block.end
    this.#next = block.first + block.events
    this.bytesDone += block.length
    for (const event of events) this.#add(facts, event)
    facts.events += events.length
    const now = performance.now()
    if (now - this.#turn < TURN) return
    await nextTask()
    this.#turn = performance.now()
  }

  /** Follows a live recording, and connects again after a lost connection. */
  async #follow(): Promise<void> {
    for (;;) {
      try {
        for await (const state of this.source.changes()) {
          this.isDisconnected = false
          this.notice = state.notice
          const isNew = state.recording !== this.#recording
          if (state.size > 0) {
            const { source } = this
            const session = isNew
              ? await openSession(source.open(state))
              : await this.session.continued(source.open(state))
            this.session = session
            if (isNew) {
              this.#recording = state.recording
              this.facts = newFacts(session.start, source.about.isLive)
              this.#next = 0
              this.bytesDone = 0
              this.#isReading = false
            } else if (this.facts.events === 0) this.facts = newFacts(session.start, source.about.isLive)
          }
          await this.#read()
          this.#changed()
        }
      } catch {
        // The server has ended, or the file was being written: the next state will do.
      }
      this.isDisconnected = true
      this.#changed()
      await new Promise(resolve => setTimeout(resolve, 1000))
    }
  }
}
