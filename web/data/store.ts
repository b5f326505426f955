/*
 * The session that the page shows, and what is known of it so far. The events are read once, from the first on, in the
 * background: as many as fit into the page's memory (memory.ts), the rest when the user asks; then the sums are of all,
 * and the lists say how many of their entries did not fit. A live session is read as it grows; if more arrives than the
 * page reads, it skips and says so.
 */

import { isQueuePairClass } from '../../src/spec/classes/ids.ts'
import type {
  CallEvent,
  FailureEvent,
  FindingEvent,
  LinkEvent,
  ObjectEvent,
  SessionEvent,
} from '../../src/spec/session-events.ts'
import type { SymbolState } from '../../src/tools/inspect/protocol.ts'
import { SessionFileError } from '../../src/tools/record/error.ts'
import { isOfLends, SessionLends } from '../../src/tools/record/lends.ts'
import { SessionObjects } from '../../src/tools/record/objects.ts'
import { openSession, type Session, type SessionBlock } from '../../src/tools/record/reader.ts'
import { readSymbols, SessionSymbols } from '../../src/tools/record/symbols.ts'
import { LongestRequests } from '../../src/tools/record/times/longest.ts'
import { type RequestTimes, TimesOfRequests } from '../../src/tools/record/times/request-times.ts'
import { readLastWaits, SessionWaits } from '../../src/tools/record/waits.ts'
import { isFailed } from '../../src/tools/trace/failed.ts'
import { bytesOf, type Kept, type Memory } from './memory.ts'
import { nextTask, TURN } from './next-task.ts'
import type { Source } from './source.ts'
import { Traffic } from './traffic.ts'

/** A live session that is read so many bytes behind skips to its newest part, of at least CATCH_UP bytes. */
const MAX_BEHIND = 16 * 2 ** 20
const CATCH_UP = 4 * 2 ** 20
const MAX_LONGEST = 200
/** Bytes of what the sums of a queue pair take: durations and recent packets. */
const QUEUE_BYTES = 4096
/** Bytes of a lend or an access, about. */
const BYTES_OF_LENDS = 256
/** Milliseconds between two notices to views while events are read. */
const NOTICE_INTERVAL = 200

export type Timed<E> = E & { readonly time: number }

interface Caller {
  readonly command: string
  calls: number
  failed: number
}

/** All that was learned from the events read so far. */
export interface Facts {
  /** Time 0 of all views, in microseconds: the first event when the page was opened, which may be overwritten since. */
  readonly start: number
  readonly isLive: boolean
  readonly objects: SessionObjects
  readonly traffic: Traffic
  readonly calls: Kept<Timed<CallEvent>>
  /** By pid: how many calls a program has made, and of these failed, also those that are not in `calls`. */
  readonly callers: Map<number, Caller>
  readonly findings: Kept<Timed<FindingEvent>>
  readonly failures: Kept<Timed<FailureEvent>>
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
  /** Directions of links of a virtual network, by number: the last values. */
  readonly links: Map<number, LinkEvent>
  readonly waits: SessionWaits
  readonly lends: SessionLends
  readonly symbols: SessionSymbols
  readonly times: TimesOfRequests
  readonly longest: LongestRequests
  /** Sends in the order of their ends: the first, or of a live session the newest. */
  readonly sends: Kept<RequestTimes>
  readonly memory: Memory
}

/** Bytes of a send, about, without its queue pair. */
const bytesOfSend = ({ request, stack, spans }: RequestTimes): number =>
  bytesOf(request) + bytesOf(stack) + bytesOf(spans) + 128

const newFacts = (start: number, isLive: boolean, memory: Memory): Facts => {
  memory.clear()
  const objects = new SessionObjects()
  const longest = new LongestRequests(MAX_LONGEST)
  const sends = memory.list<RequestTimes>(isLive)
  return {
    start,
    isLive,
    memory,
    objects,
    times: new TimesOfRequests(send => {
      longest.add(send)
      sends.add(send, bytesOfSend(send))
    }, objects),
    waits: new SessionWaits(),
    lends: new SessionLends(),
    symbols: new SessionSymbols(),
    longest,
    sends,
    traffic: new Traffic(start),
    calls: memory.list(isLive),
    callers: new Map(),
    findings: memory.list(isLive, true),
    failures: memory.list(isLive, true),
    lost: 0,
    events: 0,
    damaged: 0,
    skipped: 0,
    coveredFrom: undefined,
    covered: 0,
    endReason: undefined,
    counters: new Map(),
    links: new Map(),
  }
}

const addObject = ({ objects, memory }: Facts, event: Timed<ObjectEvent>): void => {
  const moments = (): number => objects.objects.get(event.object)?.history.length ?? 0
  const before = moments()
  objects.add(event)
  if (moments() === before) return
  memory.records += bytesOf(event)
  if (before === 0 && isQueuePairClass(event.class)) memory.records += QUEUE_BYTES
}

const addCall = ({ calls, callers, memory, objects }: Facts, event: Timed<CallEvent>): void => {
  const { call } = event
  const fd = call.descriptors?.find(({ attribute }) => attribute === 'object')?.fd
  if (event.object !== 0 && fd !== undefined) objects.setDescriptor(event.object, fd)
  calls.add(event, bytesOf(event))
  const caller = callers.get(call.pid) ?? { command: call.command, calls: 0, failed: 0 }
  if (caller.calls === 0) {
    callers.set(call.pid, caller)
    memory.records += bytesOf(caller)
  }
  caller.calls++
  if (isFailed(call)) caller.failed++
}

const addTo = (facts: Facts, event: SessionEvent): void => {
  facts.traffic.add(event)
  if (event.kind !== 'object') facts.times.add(event)
  switch (event.kind) {
    case 'device':
      facts.objects.addDevice(event)
      return
    case 'program':
    case 'accessed':
      if (isOfLends(event)) {
        facts.lends.add(event)
        facts.memory.records += BYTES_OF_LENDS
      }
      return
    case 'object':
      facts.lends.add(event)
      addObject(facts, event)
      facts.times.add(event)
      return
    case 'call':
      addCall(facts, event)
      return
    case 'wait':
    case 'programEnd':
      facts.waits.add(event)
      return
    case 'symbol':
      facts.symbols.add(event)
      return
    case 'finding':
      facts.findings.add(event, bytesOf(event))
      return
    case 'failure': {
      // Events that are no errors.
      if (event.failure.failure.isNote) return
      facts.failures.add(event, bytesOf(event))
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
    case 'link':
      if (!facts.links.has(event.link)) facts.memory.records += bytesOf(event)
      facts.links.set(event.link, event)
      return
    case 'lost':
      facts.lost += event.count
      return
    case 'end':
      facts.endReason = event.reason
  }
}

type ReadState = 'reading' | 'paused' | 'done'

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
  /** Of a live recording: symbols from the server, how many it has sent, and the facts that have them. */
  readonly #known = new Map<string, SymbolState>()
  #symbols = 0
  #symbolsOf: Facts | undefined
  readonly #listeners = new Set<() => void>()
  /** Number of the first event that was not read. */
  #next = 0
  /** Time of the last event that was read. */
  #lastEnd = 0
  /** Whether the user has asked for what does not fit into the memory. */
  #readsAll = false
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
    this.facts = newFacts(session.start, source.about.isLive, source.memory)
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
    this.#readsAll = true
    void this.#read()
  }

  #changed(isUrgent = true): void {
    const now = performance.now()
    if (!isUrgent && now - this.#lastNotice < NOTICE_INTERVAL) return
    this.#lastNotice = now
    this.version++
    for (const listener of this.#listeners) listener()
  }

  /** Whether the page has the memory for a block, with the blocks before it and what was made of them. */
  #fits({ length }: SessionBlock): boolean {
    const { total, records } = this.source.memory
    return this.bytesDone + length + records <= total
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
        if (!isLive && !this.#readsAll && !this.#fits(block)) {
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

  /** The devices and objects that existed at a time, by the newest checkpoint. */
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

  /** What the server has found out about frames since the last look. */
  async #readSymbols(): Promise<void> {
    const { facts } = this
    const symbols = await this.source.symbols(this.#symbols)
    this.#symbols += symbols.length
    for (const symbol of symbols) this.#known.set(symbol.frame, symbol)
    // Another recording has facts of its own.
    const added = facts === this.#symbolsOf ? symbols : this.#known.values()
    this.#symbolsOf = facts
    for (const { frame, frames } of added) facts.symbols.add({ kind: 'symbol', time: facts.start, frame, frames })
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
              this.facts = newFacts(session.start, source.about.isLive, source.memory)
              this.#next = 0
              this.bytesDone = 0
              this.#isReading = false
            } else if (this.facts.events === 0) this.facts = newFacts(session.start, source.about.isLive, source.memory)
          }
          await this.#read()
          await this.#readSymbols()
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
