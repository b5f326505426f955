/*
 * The messages of a session for a tool, in order: replies, and records of subscriptions. The daemon never waits for a
 * slow tool. Records beyond a bound are dropped, and at their place a record tells their number: what is sent and what
 * is told as lost add up. A state is not queued: its record is made when the socket has space for it (`Source`).
 */
import type { Account } from '../../core/model.ts'
import { addMemory, mayChargeMemory, releaseMemory } from '../../core/objects/limits.ts'
import type { Job } from '../../host/event-loop/slices.ts'
import { type MessageBuffer, writeTrace } from '../../uapi/session-codec.ts'
import { type ToolRecord, traceTexts } from '../../uapi/tool.ts'
import { Fifo } from './fifo.ts'

/** The session's socket, and its user's time. */
export interface Outlet {
  readonly buffer: MessageBuffer
  /** Sends the first `length` bytes of the buffer; false if the socket is full or broken. */
  send(length: number): boolean
  wantWritable(wanted: boolean): void
  /** Pays for queued records. */
  readonly account: Account
  /** Sends in steps. A failure ends the session. */
  run(job: Job<void>): void
}

/** Maximum messages with records, and maximum bytes of their texts. The longest record fits (`traceTexts`). */
const MAX_MESSAGES = 10_000
const MAX_BYTES = 8 * 2 ** 20

/** An estimate of the memory of a text. A character takes one byte or two. */
const bytesOf = (text: string): number => 2 * text.length

interface Entry {
  /** Makes what `write` sends, in steps. */
  prepare?(): Generator<void>
  /** Writes a message into the buffer, and returns its length; 0: there is nothing to send. */
  write(): number
  /** The message is sent. True if the entry has no further one. */
  onSent(): boolean
}

/** A subscription to records that are dropped when the tool is slow. */
export interface Feed {
  readonly id: number
  /** Number of dropped records. */
  lost: number
}

/** A subscription to a state or a list, of which nothing is lost. */
export interface Source {
  /** Makes the texts of the next record in steps; undefined: none until the next `ToolQueue.wake`. */
  next(): Generator<void, readonly string[] | undefined>
}

/** The place of dropped records in the queue. */
interface Gap {
  count: number
}

export class ToolQueue {
  readonly #outlet: Outlet
  readonly #entries = new Fifo<Entry>()
  /** The gap at the end of each feed's queued records. */
  readonly #gaps = new Map<Feed, Gap>()
  readonly #awake = new Set<Source>()
  #messages = 0
  #bytes = 0
  /** Whether a job sends. */
  #isSending = false
  /** Whether messages wait for space in the socket. */
  #isBlocked = false
  #isClosed = false

  constructor(outlet: Outlet) {
    this.#outlet = outlet
  }

  /** Call when the socket has space again. */
  onWritable(): void {
    if (!this.#isBlocked) return
    this.#isBlocked = false
    this.#outlet.wantWritable(false)
    this.#sendLater()
  }

  /** Drops all messages, now and later. */
  close(): void {
    this.#isClosed = true
    while (this.#entries.length > 0) this.#entries.shift()
    releaseMemory(this.#outlet.account, this.#bytes)
    this.#bytes = 0
    this.#messages = 0
    this.#gaps.clear()
    this.#awake.clear()
  }

  /** Queues a reply, without a bound. */
  reply(write: () => number, onSent: () => void): void {
    this.#push([
      {
        write,
        onSent: () => {
          onSent()
          return true
        },
      },
    ])
  }

  /** Queues a record of the feed, or drops it. */
  post(feed: Feed, record: ToolRecord): void {
    const texts = this.#hasSpace(1, 0) ? traceTexts(record) : []
    if (texts.length === 0 || !this.#charge(texts)) {
      this.#drop(feed)
      return
    }
    this.#gaps.delete(feed)
    this.#push(
      texts.map(text => ({ write: () => writeTrace(this.#outlet.buffer, text), onSent: () => this.#onSent(text) })),
    )
  }

  /** The source has a next record. */
  wake(source: Source): void {
    if (this.#awake.has(source) || this.#isClosed) return
    this.#awake.add(source)
    let texts: readonly string[] = []
    let sent = 0
    this.#entries.push({
      prepare: function* (this: ToolQueue): Generator<void> {
        if (sent < texts.length) return
        const next = this.#awake.has(source) ? yield* source.next() : undefined
        if (this.#isClosed) return
        if (next === undefined) this.#awake.delete(source)
        texts = next ?? []
        sent = 0
        for (const text of texts) this.#count(bytesOf(text), 1)
        addMemory(
          this.#outlet.account,
          texts.reduce((sum, text) => sum + bytesOf(text), 0),
        )
      }.bind(this),
      write: () => (sent < texts.length ? writeTrace(this.#outlet.buffer, texts[sent]!) : 0),
      onSent: () => {
        this.#onSent(texts[sent++]!)
        return false
      },
    })
    this.#sendLater()
  }

  /** The source has no further records. A record that is sent in part is completed. */
  end(source: Source): void {
    this.#awake.delete(source)
  }

  #drop(feed: Feed): void {
    feed.lost++
    const open = this.#gaps.get(feed)
    if (open !== undefined) {
      open.count++
      return
    }
    const gap: Gap = { count: 1 }
    this.#gaps.set(feed, gap)
    this.#push([
      {
        write: () =>
          writeTrace(this.#outlet.buffer, JSON.stringify({ id: feed.id, lost: gap.count } satisfies ToolRecord)),
        onSent: () => {
          if (this.#gaps.get(feed) === gap) this.#gaps.delete(feed)
          return true
        },
      },
    ])
  }

  /** What is not a state is sent at once, unless other messages wait. */
  #push(entries: readonly Entry[]): void {
    const wasEmpty = this.#entries.length === 0
    for (const entry of entries) this.#entries.push(entry)
    while (wasEmpty && this.#sendFirst());
  }

  /** Sends the first message; false if no other one can follow. */
  #sendFirst(): boolean {
    const entry = this.#entries.first
    if (entry === undefined || this.#isBlocked) return false
    const length = entry.write()
    this.#isBlocked = length > 0 && !this.#outlet.send(length)
    if (this.#isBlocked) this.#outlet.wantWritable(true)
    else if (length === 0 || entry.onSent()) this.#entries.shift()
    return !this.#isBlocked
  }

  #sendLater(): void {
    if (this.#isSending || this.#isBlocked) return
    this.#isSending = true
    this.#outlet.run(this.#sending())
  }

  *#sending(): Generator<void> {
    do {
      yield
      yield* this.#entries.first?.prepare?.() ?? []
    } while (this.#sendFirst())
    this.#isSending = false
  }

  #hasSpace(messages: number, bytes: number): boolean {
    return this.#messages + messages <= MAX_MESSAGES && this.#bytes + bytes <= MAX_BYTES
  }

  /** Charges a record to the tool; false if the queue or the tool's share of memory has no space for it. */
  #charge(texts: readonly string[]): boolean {
    const bytes = texts.reduce((sum, text) => sum + bytesOf(text), 0)
    if (!this.#hasSpace(texts.length, bytes) || !mayChargeMemory(this.#outlet.account, bytes)) return false
    this.#count(bytes, texts.length)
    return true
  }

  #count(bytes: number, messages: number): void {
    this.#bytes += bytes
    this.#messages += messages
  }

  #onSent(text: string): true {
    this.#count(-bytesOf(text), -1)
    releaseMemory(this.#outlet.account, bytesOf(text))
    return true
  }
}
