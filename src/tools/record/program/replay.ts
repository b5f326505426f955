/*
 * A session file as a producer of program events: what was recorded with `--record-depth check` goes to the consumers
 * of its stream as it went to those of the daemon. Of other files, and of what was there before a recording began, the
 * events are made of objects, calls and failures (plain.ts).
 */
import {
  type LoggedEvent,
  type LoggedEvents,
  type ProbeName,
  type ProgramProbes,
  probes,
} from '../../../spec/check/probes.ts'
import type { ObjectName, ProgramConsumer, ProgramEvent } from '../../../spec/check/program-events.ts'
import type { RequestWatcher, WorkRequest } from '../../../spec/check/requests.ts'
import type { ProgramPart, SessionEvent, SessionHeader } from '../../../spec/session-events.ts'
import { requestKinds } from '../../../spec/session-file.ts'
import { parseAddress } from '../../../transport/wire/address.ts'
import { ConsumerRank, ProgramStream } from '../../events/stream.ts'
import { ofToday } from './old-events.ts'
import { PlainEvents } from './plain.ts'
import { RecordedPosts } from './posts.ts'
import { RecordedRegions } from './regions.ts'
import { probeKey, richValue } from './values.ts'

/** Requests that are kept after their end: messages refer to them. */
const MAX_ENDED = 2 ** 16
/** Answers that are kept. */
const MAX_ANSWERS = 2 ** 18

/** Requests by id, as long as events may refer to them. */
class Requests {
  readonly #open = new Map<number, WorkRequest>()
  readonly #ended = new Map<number, WorkRequest>()

  add(request: WorkRequest): void {
    this.#open.set(request.id, request)
  }

  find(id: number): WorkRequest | undefined {
    return this.#open.get(id) ?? this.#ended.get(id)
  }

  end(id: number): void {
    const request = this.#open.get(id)
    if (request === undefined) return
    this.#open.delete(id)
    this.#ended.set(id, request)
    if (this.#ended.size <= MAX_ENDED) return
    const [oldest] = this.#ended.keys()
    this.#ended.delete(oldest!)
  }

  endAllOf(owner: number): void {
    for (const request of this.#open.values()) if (request.owner === owner) this.end(request.id)
  }
}

export class SessionReplay {
  /** Events that the recorder has lost. */
  lost = 0
  /** Parts of events that could not be put together. */
  damaged = 0
  readonly #stream: ProgramStream
  readonly #requests: RequestWatcher
  readonly #known = new Requests()
  readonly #posts = new RecordedPosts()
  readonly #regions = new RecordedRegions()
  readonly #names = new Map<number, ObjectName>()
  readonly #plain: PlainEvents
  readonly #isForCheck: boolean
  /** Answers about the event that is held, and the last answers, by probe and key. */
  #answers = new Map<string, unknown>()
  readonly #lasting = new Map<string, unknown>()
  #log: LoggedEvent[] = []
  #lostLogs: number[] = []
  #logTime = 0
  /** The event that waits for its answers. */
  #held: SessionEvent | undefined
  #heldEvent: ProgramEvent | undefined
  #text = ''
  #time = 0

  /** `createConsumer` makes the consumer with what it may ask. */
  constructor(
    { check }: Pick<SessionHeader, 'check'>,
    createConsumer: (
      probes: ProgramProbes & { now(): number },
    ) => ProgramConsumer & { readonly requests: RequestWatcher },
  ) {
    this.#isForCheck = check !== undefined
    this.#plain = new PlainEvents(this.#isForCheck)
    this.#stream = new ProgramStream(() => this.#time)
    const consumer = createConsumer({ now: () => this.#stream.time, ...this.#probesOf(check?.probes) })
    this.#stream.add(ConsumerRank.CHECK, consumer)
    this.#requests = consumer.requests
  }

  /** Takes the next event of the file. */
  take(event: SessionEvent): void {
    if (!USED.has(event.kind)) return
    if (this.#isForCheck && (event.kind === 'call' || event.kind === 'failure')) return
    if (this.#isForCheck && event.kind === 'object' && event.change !== 'exists') {
      // Its call is an event of the stream. It must not come between an event and the answers about it.
      this.#plain.object(event)
      return
    }
    if (event.kind === 'answer') {
      this.#part(event, text => this.#guarded(() => this.#answer(text)))
      return
    }
    if (event.kind === 'program' && (event.hasMore || this.#text !== '')) {
      // The rest of an event: its time is that of its last part.
      this.#part(event, text => this.#hold(event, text))
      return
    }
    this.#hold(event, event.kind === 'program' ? event.text : undefined)
  }

  /** The last event was taken. */
  finish(): void {
    this.#release()
  }

  #part({ hasMore, text }: ProgramPart, use: (text: string) => void): void {
    this.#text += text
    if (hasMore) return
    const whole = this.#text
    this.#text = ''
    use(whole)
  }

  #answer(text: string): void {
    const record = this.#value(text) as { probe: ProbeName; key: string; answer: unknown } | undefined
    if (record === undefined || !Object.hasOwn(probes, record.probe)) return
    const { probe, key, answer } = record
    if (probe === 'readLog') {
      const { entries = [], lost = [], time = 0 } = answer as Partial<LoggedEvents>
      for (const entry of entries) this.#log.push(entry)
      this.#lostLogs.push(...lost)
      this.#logTime = time
      return
    }
    const name = `${probe} ${key}`
    this.#answers.set(name, answer ?? undefined)
    if (!probes[probe].lasts) return
    this.#lasting.set(name, answer ?? undefined)
    if (this.#lasting.size <= MAX_ANSWERS) return
    const [oldest] = this.#lasting.keys()
    this.#lasting.delete(oldest!)
  }

  readonly #named = (id: number, handle: number, name: string): ObjectName => {
    let known = this.#names.get(id)
    if (known === undefined) {
      known = { id, handle, class: { name } }
      this.#names.set(id, known)
    }
    return known
  }

  /** A file that was made by others may have records of any content. */
  #guarded(use: () => void): void {
    try {
      use()
    } catch {
      this.damaged++
    }
  }

  /** The object that a text has; undefined: it is damaged. */
  #value(text: string): object | undefined {
    try {
      const value = richValue(JSON.parse(text), this.#named)
      if (typeof value === 'object' && value !== null) return value
    } catch {
      // As below.
    }
    this.damaged++
    return undefined
  }

  #hold(event: SessionEvent, program: string | undefined): void {
    this.#release()
    this.#held = event
    if (program === undefined) return
    const value = this.#value(program)
    this.#guarded(() => {
      this.#heldEvent = value && ofToday(value)
    })
  }

  #release(): void {
    const [held, program] = [this.#held, this.#heldEvent]
    this.#held = undefined
    this.#heldEvent = undefined
    if (held === undefined) return
    this.#time = held.time
    this.#guarded(() => {
      if (program !== undefined) this.#give(program)
      else this.#take(held)
    })
    this.#answers = new Map()
  }

  #give(event: ProgramEvent): void {
    if (event.event === 'called') {
      this.#regions.called(event)
      if (event.method === 'destroy' && event.object !== undefined) this.#names.delete(event.object.id)
    } else if (event.event === 'gids') this.#gids.set(event.device, event.gids)
    this.#stream.event(event)
  }

  #take(event: SessionEvent): void {
    const request =
      'request' in event && typeof event.request === 'number' ? this.#known.find(event.request) : undefined
    const stream = this.#stream
    stream.begin()
    switch (event.kind) {
      case 'device':
        this.#device(event)
        return
      case 'object':
        this.#plainEvent(this.#plain.object(event))
        return
      case 'call':
        this.#plainEvent(this.#plain.call(event))
        return
      case 'failure':
        this.#plainEvent(this.#plain.failure(event, address => this.#deviceWith(address)))
        return
      case 'lost':
        this.lost += event.count
        return
      case 'posted':
        this.#known.add(event.request)
        this.#posts.add(this.#plain.contextOf(event.request.owner), event.request, event.stack)
        stream.at(event.time)
        this.#requests.posted(event.request)
        return
      case 'ended':
        if (request === undefined) return
        this.#requests.ended(request)
        if (!request.isSignaled) this.#known.end(request.id)
        return
      case 'completed': {
        if (request === undefined) return
        const { message, ...completion } = event
        this.#requests.completed(request, { ...completion, message: this.#known.find(message) })
        this.#known.end(request.id)
        return
      }
      case 'receiveLost':
        if (request === undefined) return
        this.#requests.receiveLost(request)
        this.#known.end(request.id)
        return
      case 'receiverNotReady':
        this.#requests.receiverNotReady(event.qp)
        return
      case 'polled':
        this.#requests.polled(event.cq, event.count)
        return
      case 'queueReset':
        this.#requests.queueReset(event.owner)
        this.#known.endAllOf(event.owner)
        return
      case 'accessed':
        stream.accessed(event.device, event.rkey, event.high, event.low, event.length, event.access, event.qpn)
        return
      default:
    }
  }

  #plainEvent(event: ProgramEvent | undefined): void {
    if (event === undefined) return
    if (event.event === 'called' && event.why === 'call' && event.method !== 'create' && event.object !== undefined) {
      const { object, class: name, method, program, args, stack } = event
      this.#stream.event({ event: 'calling', object: object.id, class: name, method, program, args, stack })
    }
    this.#give(event)
  }

  readonly #addresses = new Map<number, Uint8Array>()
  readonly #gids = new Map<number, readonly (Uint8Array | undefined)[]>()

  #device({ device, name, address, change }: Extract<SessionEvent, { kind: 'device' }>): void {
    this.#plain.device(device, name)
    if (change === 'removed') {
      this.#addresses.delete(device)
      this.#gids.delete(device)
      return
    }
    const gid = parseAddress(address)
    if (gid !== undefined) this.#addresses.set(device, gid)
  }

  #deviceWithGid(gid: Uint8Array): number | undefined {
    const isSame = (other: Uint8Array | undefined): boolean => other?.every((byte, i) => byte === gid[i]) === true
    for (const [device, gids] of this.#gids) if (gids.some(isSame)) return device
    for (const [device, address] of this.#addresses) if (isSame(address)) return device
    return undefined
  }

  #deviceWith(address: string): number | undefined {
    const gid = parseAddress(address)
    return gid && this.#deviceWithGid(gid)
  }

  /** The answer about the current event, else the last one with this key; `fallback`: none was recorded. */
  #recorded<T>(probe: ProbeName, args: readonly unknown[], fallback: () => T): T {
    const name = `${probe} ${probeKey(args)}`
    if (this.#answers.has(name)) return this.#answers.get(name) as T
    return this.#lasting.has(name) ? (this.#lasting.get(name) as T) : fallback()
  }

  #probesOf(recorded: readonly ProbeName[] = []): ProgramProbes {
    const none = (): undefined => undefined
    const all: Required<ProgramProbes> = {
      deviceName: device => this.#recorded('deviceName', [device], () => this.#plain.deviceName(device)),
      driverName: device => this.#recorded('driverName', [device], none),
      deviceWithGid: gid => this.#recorded('deviceWithGid', [gid], () => this.#deviceWithGid(gid)),
      postStack: (context, queue, number, wrId, index) =>
        this.#recorded('postStack', [context, queue, number, wrId, index], () =>
          this.#posts.stackOf(context, queue, number, wrId, index),
        ),
      digest: (device, request, isWhole) => this.#recorded('digest', [device, request, isWhole], none),
      rangeHash: (...range) => this.#recorded('rangeHash', range, none),
      postHash: (context, request) => this.#recorded('postHash', [context, request], none),
      unmapStack: (program, start, end) => this.#recorded('unmapStack', [program, start, end], none),
      isCopiedByFork: (program, address) => this.#recorded('isCopiedByFork', [program, address], none),
      privateFile: (program, address) => this.#recorded('privateFile', [program, address], none),
      hasMember: group => this.#recorded('hasMember', [group], none),
      whyLost: (...asked) => this.#recorded('whyLost', asked, none),
      routerHazard: (...asked) => this.#recorded('routerHazard', asked, none),
      hasUnchecked: device => this.#recorded('hasUnchecked', [device], () => !this.#isForCheck),
      lossTo: (qpns, time) => this.#recorded('lossTo', [qpns, time], none),
      unreadEvents: (context, channel) => this.#recorded('unreadEvents', [context, channel], none),
      lockLimit: program => this.#recorded('lockLimit', [program], () => Number.POSITIVE_INFINITY),
      memoryOf: (device, key) => this.#recorded('memoryOf', [device, key], () => this.#regions.memoryOf(device, key)),
      logStack: (process, stack) => this.#recorded('logStack', [process, stack], () => []),
      readLog: () => {
        const log = { entries: this.#log, lost: this.#lostLogs, time: this.#logTime }
        this.#log = []
        this.#lostLogs = []
        return log
      },
    }
    const has = (name: ProbeName): boolean => recorded.includes(name) || ALWAYS.has(name)
    return Object.fromEntries(
      Object.entries(all).filter(([name]) => has(name as ProbeName)),
    ) as unknown as ProgramProbes
  }
}

/** The kinds of events that say something about programs. */
const USED: ReadonlySet<SessionEvent['kind']> = new Set([
  'device',
  'object',
  'call',
  'failure',
  'lost',
  ...requestKinds,
  'program',
  'answer',
  'accessed',
])

/** Probes that every file answers. */
const ALWAYS: ReadonlySet<ProbeName> = new Set(['deviceName', 'deviceWithGid', 'postStack', 'hasUnchecked'])
