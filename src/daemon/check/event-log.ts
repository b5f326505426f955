/*
 * Reads the event logs for `userdma check --races`. A program logs its posts and polls in its context's memory file
 * (spec/context-logs.ts). The contents are not trusted.
 */

import { readSync, writeSync } from 'node:fs'
import type { Context } from '../../core/model.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import type { LoggedEvent, LoggedEvents } from '../../spec/check/probes.ts'
import { EventLog } from '../../spec/context-logs.ts'
import { offsetsOf } from '../../spec/message-layout.ts'
import { Messages } from '../../spec/session.ts'
import { eventTime } from '../../tools/events/stream.ts'
import type { Contexts } from '../context/contexts.ts'

/** Milliseconds between reads of the logs of programs. */
export const READ_LOGS_INTERVAL = 100
/** Microseconds after which an entry that was claimed but not written counts as lost. */
const MAX_CLAIMED = 1_000_000
/** Microseconds by which a logged time may be in the future; a later time is wrong. */
const MAX_FUTURE = 1_000_000

const { size: ENTRY_BYTES } = Messages.event
const { head: HEAD_OFFSET, tail: TAIL_OFFSET } = offsetsOf(Messages.eventLog)
const ENTRY_OFFSETS = offsetsOf(Messages.event)

interface Reader {
  /** Number of the next entry to read, from 0. */
  tail: number
  /** If the next entry is claimed but not written: when this was first seen (microseconds). */
  claimedSince: number | undefined
}

/** CLOCK_MONOTONIC, in microseconds, when `nowMicroseconds` was 0: the fastest of 100 measurements. */
export const monotonicStart = (): number => {
  let shortest = Number.POSITIVE_INFINITY
  let start = 0
  for (let i = 0; i < 100; i++) {
    const before = nowMicroseconds()
    const time = Number(process.hrtime.bigint()) / 1000
    const duration = nowMicroseconds() - before
    if (duration >= shortest) continue
    shortest = duration
    start = time - before - duration / 2
  }
  return start
}

/** `processOf` maps a pid in the namespace of the context's program to a pid in ours; −1: unknown. */
export class EventLogs {
  readonly #contexts: Contexts
  readonly #processOf: (context: Context, pid: number) => number
  readonly #readers = new WeakMap<Context, Reader>()
  // Only typed arrays are read and written: writeSync of Node 24.21 sometimes refuses a DataView.
  readonly #headBytes = new Uint8Array(Messages.eventLog.size)
  readonly #head = new DataView(this.#headBytes.buffer)
  readonly #bytes = new Uint8Array(EventLog.entries * ENTRY_BYTES)
  readonly #entries = new DataView(this.#bytes.buffer)
  readonly #tail = new BigUint64Array(1)
  readonly #start = monotonicStart()

  constructor(contexts: Contexts, processOf: (context: Context, pid: number) => number) {
    this.#contexts = contexts
    this.#processOf = processOf
  }

  /** New entries of all contexts, and the ids of the contexts with lost entries. */
  read(): LoggedEvents {
    const time = eventTime(nowMicroseconds())
    const entries: LoggedEvent[] = []
    const lost: number[] = []
    // Includes contexts that are being destroyed: their programs may have logged entries just before the end.
    for (const { context, memory } of this.#contexts.withMemory())
      if (!this.#readContext(context, memory.fd, entries)) lost.push(context.id)
    return { entries, lost, time }
  }

  /** The logged time at offset `at` of `#bytes`, on the clock of `nowMicroseconds`; `now` if it is in the future. */
  #timeAt(at: number, now: number): number {
    const time = Number(this.#entries.getBigUint64(at, true)) / 1000 - this.#start
    return eventTime(time > now + MAX_FUTURE ? now : time)
  }

  /** Reads `count` entries of the ring, from entry number `from` on, into `#bytes`. */
  #load(fd: number, from: number, count: number): void {
    const first = from % EventLog.entries
    const untilWrap = Math.min(count, EventLog.entries - first)
    const offset = EventLog.offset + EventLog.firstEntry
    readSync(fd, this.#bytes, 0, untilWrap * ENTRY_BYTES, offset + first * ENTRY_BYTES)
    if (untilWrap < count) readSync(fd, this.#bytes, untilWrap * ENTRY_BYTES, (count - untilWrap) * ENTRY_BYTES, offset)
  }

  #u32(at: number): number {
    return this.#entries.getUint32(at, true)
  }

  /** The entry at offset `at` of `#bytes`. */
  #entryAt(at: number, context: Context, now: number): LoggedEvent {
    return {
      time: this.#timeAt(at + ENTRY_OFFSETS.time, now),
      acquired: this.#timeAt(at + ENTRY_OFFSETS.acquired, now),
      wrId: this.#entries.getBigUint64(at + ENTRY_OFFSETS.wrId, true),
      process: this.#processOf(context, this.#u32(at + ENTRY_OFFSETS.pid)),
      thread: this.#u32(at + ENTRY_OFFSETS.tid),
      kind: this.#u32(at + ENTRY_OFFSETS.kind),
      context: context.id,
      number: this.#u32(at + ENTRY_OFFSETS.number),
      count: this.#u32(at + ENTRY_OFFSETS.count),
      stack: this.#u32(at + ENTRY_OFFSETS.stack),
    }
  }

  /** Adds the new entries of a context to `entries`; false if some were lost. */
  #readContext(context: Context, fd: number, entries: LoggedEvent[]): boolean {
    readSync(fd, this.#headBytes, 0, this.#headBytes.length, EventLog.offset)
    const claimed = Number(this.#head.getBigUint64(HEAD_OFFSET, true))
    let reader = this.#readers.get(context)
    if (claimed === (reader?.tail ?? 0)) return true
    if (reader === undefined) {
      reader = { tail: 0, claimedSince: undefined }
      this.#readers.set(context, reader)
    }
    const hasAll = claimed > reader.tail && claimed - reader.tail <= EventLog.entries
    if (!hasAll) {
      reader.tail = Math.max(0, claimed - EventLog.entries)
      reader.claimedSince = undefined
    }
    const now = nowMicroseconds()
    const count = claimed - reader.tail
    this.#load(fd, reader.tail, count)
    let done = 0
    let isLost = !hasAll
    for (; done < count; done++) {
      const at = done * ENTRY_BYTES
      const sequence = Number(this.#entries.getBigUint64(at + ENTRY_OFFSETS.sequence, true))
      const expectedSequence = reader.tail + done + 1
      if (sequence === expectedSequence) {
        reader.claimedSince = undefined
        entries.push(this.#entryAt(at, context, now))
        continue
      }
      // The slot still has an older entry, because the new entry is not written yet. Or it already has a newer entry.
      if (sequence < expectedSequence) {
        reader.claimedSince ??= now
        if (now - reader.claimedSince < MAX_CLAIMED) break
      }
      reader.claimedSince = undefined
      isLost = true
    }
    reader.tail += done
    this.#tail[0] = BigInt(reader.tail)
    writeSync(fd, this.#tail, 0, this.#tail.byteLength, EventLog.offset + TAIL_OFFSET)
    return !isLost
  }
}
