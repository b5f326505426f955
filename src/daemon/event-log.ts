/*
 * Reads the posts and polls that programs log (the event log in each context's memory file, spec/session.ts). A program
 * can write anything there, so an entry is evidence about the program itself only.
 */
import { readSync, writeSync } from 'node:fs'
import type { LoggedEvent } from '../check/races/feed.ts'
import type { Context } from '../core/model.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { EventLog, Messages, offsetsOf } from '../spec/session.ts'
import type { Contexts } from './context/contexts.ts'

/** Microseconds that a claimed entry may remain unwritten; after that its program has ended. */
const MAX_CLAIMED = 1_000_000

const { size: ENTRY } = Messages.event
const { head: HEAD, tail: TAIL } = offsetsOf(Messages.eventLog)
const AT = offsetsOf(Messages.event)

interface Reader {
  /** Entries that were read. */
  tail: number
  /** Time at which the next entry was found claimed but not written; undefined if it was not. */
  claimed: number | undefined
}

export interface EventLogs {
  /** New entries of all contexts, and the contexts that have overwritten some. */
  read(): { readonly entries: LoggedEvent[]; readonly lost: readonly number[] }
}

/** CLOCK_MONOTONIC when our clock was 0, in microseconds: the fastest of 100 measurements. */
const clockStart = (): number => {
  let shortest = Number.POSITIVE_INFINITY
  let start = 0
  for (let i = 0; i < 100; i++) {
    const before = nowMicroseconds()
    const time = Number(process.hrtime.bigint()) / 1000
    const took = nowMicroseconds() - before
    if (took >= shortest) continue
    shortest = took
    start = time - before - took / 2
  }
  return start
}

/** `processOf`: the process that calls itself `pid` and uses a context. */
export const createEventLogs = (
  contexts: Contexts,
  processOf: (context: Context, pid: number) => number,
): EventLogs => {
  const readers = new WeakMap<Context, Reader>()
  const head = new DataView(new ArrayBuffer(Messages.eventLog.size))
  const bytes = new DataView(new ArrayBuffer(EventLog.entries * ENTRY))
  const tail = new DataView(new ArrayBuffer(8))
  const start = clockStart()
  const timeAt = (at: number, now: number): number => {
    const time = Number(bytes.getBigUint64(at, true)) / 1000 - start
    return time > now + MAX_CLAIMED ? now : time
  }

  /** Reads `count` entries from number `from` into `bytes`, in their order. */
  const load = (fd: number, from: number, count: number): void => {
    const first = from % EventLog.entries
    const straight = Math.min(count, EventLog.entries - first)
    const offset = EventLog.offset + EventLog.firstEntry
    readSync(fd, bytes, 0, straight * ENTRY, offset + first * ENTRY)
    if (straight < count) readSync(fd, bytes, straight * ENTRY, (count - straight) * ENTRY, offset)
  }

  const readContext = (context: Context, fd: number, entries: LoggedEvent[]): boolean => {
    readSync(fd, head, 0, head.byteLength, EventLog.offset)
    const written = Number(head.getBigUint64(HEAD, true))
    let reader = readers.get(context)
    if (written === (reader?.tail ?? 0)) return true
    if (reader === undefined) {
      reader = { tail: 0, claimed: undefined }
      readers.set(context, reader)
    }
    const isWhole = written > reader.tail && written - reader.tail <= EventLog.entries
    if (!isWhole) reader.tail = Math.max(0, written - EventLog.entries)
    const now = nowMicroseconds()
    const count = written - reader.tail
    load(fd, reader.tail, count)
    let done = 0
    let isLost = !isWhole
    for (; done < count; done++) {
      const at = done * ENTRY
      const sequence = Number(bytes.getBigUint64(at + AT.sequence, true))
      if (sequence === reader.tail + done + 1) {
        reader.claimed = undefined
        const pid = bytes.getUint32(at + AT.pid, true)
        entries.push({
          time: timeAt(at + AT.time, now),
          acquired: timeAt(at + AT.acquired, now),
          wrId: bytes.getBigUint64(at + AT.wrId, true),
          process: processOf(context, pid),
          thread: bytes.getUint32(at + AT.tid, true),
          kind: bytes.getUint32(at + AT.kind, true),
          context: context.id,
          number: bytes.getUint32(at + AT.number, true),
          count: bytes.getUint32(at + AT.count, true),
          stack: bytes.getUint32(at + AT.stack, true),
        })
        continue
      }
      if (sequence < reader.tail + done + 1) {
        reader.claimed ??= now
        if (now - reader.claimed < MAX_CLAIMED) break
        reader.claimed = undefined
      }
      isLost = true
    }
    reader.tail += done
    tail.setBigUint64(0, BigInt(reader.tail), true)
    writeSync(fd, tail, 0, tail.byteLength, EventLog.offset + TAIL)
    return !isLost
  }

  return {
    read() {
      const entries: LoggedEvent[] = []
      const lost: number[] = []
      // A program that ends without destroying its objects leaves entries that nobody has read.
      for (const { context, memory } of contexts.withMemory)
        if (!readContext(context, memory.fd, entries)) lost.push(context.id)
      return { entries, lost }
    },
  }
}
