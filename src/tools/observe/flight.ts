/*
 * The flight recorder of observed programs (`run --host --flight-recorder`). Posts and polls stay in the programs'
 * files, which overwrite their oldest records, and nobody reads them; calls are read as always, so that the objects
 * that exist are known, and the last calls. When something fails, a session file is written: the objects, the last
 * calls, and what the files have of posts and polls.
 */
import type { RequestWatcher } from '../../spec/check/requests.ts'
import { AsyncEventType } from '../../spec/enums.ts'
import { changeOf } from '../record/program/objects.ts'
import type { SessionWriter } from '../record/writer.ts'
import type { Flight, FlightFiles } from './flight-files.ts'
import type { CallOnObject, ObservedEvents, ObserverOutput } from './observation.ts'
import type { Observer } from './observer.ts'
import { observedRecorder } from './recording.ts'
import type { ObservedRecord } from './records.ts'

/** Calls and changes of objects that are remembered. */
const MAX_RECENT = 20_000

/** Events of a device that are dumped: those after which something does not work. */
const { CQ_ERR, QP_FATAL, QP_REQ_ERR, QP_ACCESS_ERR, PATH_MIG_ERR, DEVICE_FATAL, PORT_ERR, SRQ_ERR, WQ_FATAL } =
  AsyncEventType.values
const BAD_EVENTS: ReadonlySet<number> = new Set([
  CQ_ERR,
  QP_FATAL,
  QP_REQ_ERR,
  QP_ACCESS_ERR,
  PATH_MIG_ERR,
  DEVICE_FATAL,
  PORT_ERR,
  SRQ_ERR,
  WQ_FATAL,
])

interface Existing {
  readonly since: number
  /** The call that created it, with the values of later changes. */
  call: CallOnObject
}

interface Recent {
  readonly time: number
  write(events: ObservedEvents): void
}

interface Asked {
  readonly pid: number
  readonly why: string
}

interface FlightSettings {
  readonly files: FlightFiles
  /** Opens a session file. `why`: a sentence. Undefined: there are enough. */
  open(pid: number, why: string): Dump | undefined
  addressText(gid: Uint8Array): string
  /** Of the observer, for what is not recorded. */
  readonly output: ObserverOutput
}

export interface Dump {
  readonly writer: SessionWriter
  /** All was written. */
  end(): void
}

export class FlightRecorder {
  readonly #settings: FlightSettings
  readonly #existing = new Map<number, Existing>()
  #recent: Recent[] = []
  #collected: Recent[] = []
  #isReplaying = false
  /** Microseconds of the last dump: older failures were told. */
  #told = 0
  #now = 0
  #observer: Observer | undefined
  #asked: Asked[] = []

  constructor(settings: FlightSettings) {
    this.#settings = settings
  }

  /** For the observer. */
  get output(): ObserverOutput {
    const { output } = this.#settings
    return {
      ...output,
      failure: record => {
        if (!this.#isReplaying || this.#now > this.#told) output.failure?.(record)
      },
      recording: this.#events,
      asyncEvent: (pid, type) => {
        if (BAD_EVENTS.has(type)) this.#asked.push({ pid, why: 'the program has read an asynchronous event' })
      },
      gone: (pid, hasEnded) => this.#gone(pid, hasEnded),
    }
  }

  set observer(observer: Observer) {
    this.#observer = observer
  }

  /** A call, or a change of an object. */
  #keep(write: (events: ObservedEvents) => void): void {
    this.#recent.push({ time: this.#now, write })
    if (this.#recent.length > 2 * MAX_RECENT) this.#recent = this.#recent.slice(-MAX_RECENT)
  }

  /** A post or poll of a program's file. */
  #collect(write: (events: ObservedEvents) => void): void {
    if (this.#isReplaying) this.#collected.push({ time: this.#now, write })
  }

  readonly #requests: RequestWatcher = {
    posted: request => this.#collect(events => events.requests.posted(request)),
    ended: request => this.#collect(events => events.requests.ended(request)),
    completed: (request, completion) => this.#collect(events => events.requests.completed(request, completion)),
    receiveLost: request => this.#collect(events => events.requests.receiveLost(request)),
    receiverNotReady: qp => this.#collect(events => events.requests.receiverNotReady(qp)),
    polled: (cq, count) => this.#collect(events => events.requests.polled(cq, count)),
    queueReset: owner => this.#collect(events => events.requests.queueReset(owner)),
  }

  readonly #events: ObservedEvents = {
    requests: this.#requests,
    at: time => {
      this.#now = time
    },
    posting: stack => this.#collect(events => events.posting(stack)),
    call: (record, object, stack) => this.#keep(events => events.call(record, object, stack)),
    event: event => {
      if (event.event === 'failed') this.#collect(events => events.event(event))
      if (event.event !== 'called') return
      const { object, args, out } = event
      const change = changeOf(event)
      if (object === undefined || change === undefined) return
      const known = this.#existing.get(object.id)
      if (change === 'destroyed') this.#existing.delete(object.id)
      else if (known === undefined) this.#existing.set(object.id, { since: this.#now, call: { ...event, object } })
      else known.call = { ...known.call, args: { ...known.call.args, ...args }, out: { ...known.call.out, ...out } }
      this.#keep(events => events.event(event))
    },
    exists: () => {},
    lost: count => this.#keep(events => events.lost(count)),
  }

  #flightOf(pid: number): Flight | undefined {
    // After exec a process has two: the newer one is written.
    return this.#settings.files.flights.findLast(flight => flight.pid === pid)
  }

  /** The process's files are not needed any more. A process that a signal ended has not told of its end. */
  #gone(pid: number, hasEnded: boolean): void {
    const { files } = this.#settings
    files.scan()
    const isKnown = this.#flightOf(pid) !== undefined
    this.#look()
    const asked = this.#asked.find(one => one.pid === pid)
    this.#asked = this.#asked.filter(one => one.pid !== pid)
    const why = asked?.why ?? (hasEnded ? undefined : 'a signal has ended the program')
    if (isKnown && why !== undefined) this.dump(pid, why)
    for (const flight of files.flights) if (flight.pid === pid) files.remove(flight)
  }

  /** Takes the records that the observer gets: those of calls. */
  take(records: readonly ObservedRecord[]): void {
    // A program that ends at once has its file for a moment only.
    this.#settings.files.scan()
    this.#look()
    // A program that has failed soon destroys its objects: its posts are read before that.
    const failed = this.#asked.shift()
    const isTaken = failed !== undefined && this.#dumpAndThaw(failed, records)
    if (!isTaken) this.#observer?.take(records)
    for (let asked = this.#asked.shift(); asked !== undefined; asked = this.#asked.shift()) this.#dumpAndThaw(asked, [])
  }

  #dumpAndThaw({ pid, why }: Asked, records: readonly ObservedRecord[]): boolean {
    const isDumped = this.dump(pid, why, records)
    this.#thaw(pid)
    return isDumped
  }

  /** Its rings were copied: the process may record again. */
  #thaw(pid: number): void {
    const { files } = this.#settings
    for (const flight of files.flights) if (flight.pid === pid) files.thaw(flight)
  }

  /** Looks for completions in error. */
  #look(): void {
    for (const { pid } of this.#settings.files.triggered()) this.#asked.push({ pid, why: 'a request has failed' })
  }

  /**
   * Writes a session file for a process, and gives the observer `newer` records of calls beside those of the files.
   * False: it has no flight recorder, or there are enough files; then nothing was taken.
   */
  dump(pid: number, why: string, newer: readonly ObservedRecord[] = []): boolean {
    const { files, open, addressText } = this.#settings
    const observer = this.#observer
    files.scan()
    if (observer === undefined || this.#isReplaying || this.#flightOf(pid) === undefined) return false
    const dump = open(pid, why)
    if (dump === undefined) return false
    const { writer } = dump
    // Of all processes: a request and what its peer did may be of two.
    const records = [...files.flights.flatMap(flight => files.read(flight)), ...newer]
    const lost = files.flights.reduce((sum, flight) => sum + files.lostOf(flight), 0)
    this.#thaw(pid)
    records.sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0))
    const before = this.#now
    this.#collected = []
    this.#isReplaying = true
    try {
      observer.replay(records)
    } finally {
      this.#isReplaying = false
      // The next reading of the files has other posts, and those of this one again.
      observer.forgetRequests()
    }
    const collected = this.#collected
    this.#collected = []
    const all = [...this.#recent, ...collected].sort((a, b) => a.time - b.time)
    const first = all[0]?.time ?? before
    const target = observedRecorder(writer, addressText)
    target.at(first)
    if (lost > 0) target.lost(lost)
    // Objects that the remembered calls do not create. Their changes that are remembered are told again.
    for (const { since, call } of this.#existing.values()) if (since < first) target.exists(call)
    for (const { time, write } of all) {
      target.at(time)
      write(target)
    }
    const end = Math.max(before, all.at(-1)?.time ?? before)
    this.#now = end
    this.#told = end
    void target.end(end, why)
    dump.end()
    return true
  }
}
