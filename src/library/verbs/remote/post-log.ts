/*
 * Logs for `userdma check` of a program on a daemon's device, in the context's file (spec/session.ts). Each post writes
 * its stack number to the post log. With `--races`, posts and polls also go to the event log.
 *
 * `acquired` of an event is the time of the first event in the same turn of the event loop: each turn counts as a wait
 * for other programs.
 */
import type { Mapping } from '../../../host/memory/mapping.ts'
import { EventLog, PostLog, postSlot } from '../../../spec/context-logs.ts'
import { mappedLayout } from '../../../spec/drivers/ring-layout.ts'
import { offsetsOf } from '../../../spec/message-layout.ts'
import { EventKind, Messages, PostQueue } from '../../../spec/session.ts'
import { writeRequest } from '../../../uapi/session-codec.ts'
import { sharingStacks } from '../watch/stack-sharing.ts'
import { type DeviceCheck, pollWatch } from '../watch/watch.ts'
import type { Session } from './daemon-session.ts'
import { ringPool } from './file-rings.ts'
import { isEventLogWanted } from './stack-numbers.ts'

/**
 * Maximum yields to the daemon while the event log is full; afterwards an entry is overwritten. As in the preload
 * library.
 */
const MAX_YIELDS = 10_000

// Sizes and field offsets in bytes.
const { size: POST_BYTES } = Messages.post
const POST_FIELDS = offsetsOf(Messages.post)
const { size: EVENT_BYTES } = Messages.event
const EVENT_FIELDS = offsetsOf(Messages.event)
const LOG_FIELDS = offsetsOf(Messages.eventLog)

/** `context`: its number in the session. `file`: its memory file. `wake`: wakes the daemon, and lets it run. */
export const createPostLog = (session: Session, context: number, file: number, wake: () => void): DeviceCheck => {
  let mapping: Mapping | undefined
  /** The event log as words of 64 bits, for atomic access. */
  let eventWords: BigInt64Array | undefined
  let isEnded = false
  let acquired = 0n
  let isSameTurn = false

  /** Both logs, which `EventLog.bytes` includes, mapped at the first record. */
  const logs = (): Mapping => {
    mapping ??= ringPool().map(file, EventLog.offset, EventLog.bytes)
    return mapping
  }

  /** Writes an entry of the post log. `queue`, `number`: see `Messages.post`. */
  const notePost = (queue: number, number: number, wrId: bigint, stack: number): void => {
    if (stack === 0) return
    const { view } = logs()
    const at = PostLog.offset - EventLog.offset + postSlot(queue, number, wrId) * POST_BYTES
    view.setBigUint64(at + POST_FIELDS.wrId, wrId, true)
    view.setUint32(at + POST_FIELDS.queue, queue, true)
    view.setUint32(at + POST_FIELDS.number, number, true)
    view.setUint32(at + POST_FIELDS.pid, process.pid, true)
    view.setUint32(at + POST_FIELDS.stack, stack, true)
  }

  /** Claims the next entry of the event log and returns its number; waits for the daemon if the log is full. */
  const claimEntry = (words: BigInt64Array): number => {
    const index = Number(Atomics.add(words, LOG_FIELDS.head / 8, 1n))
    for (let i = 0; i < MAX_YIELDS; i++) {
      if (index - Number(Atomics.load(words, LOG_FIELDS.tail / 8)) < EventLog.entries) break
      wake()
    }
    return index
  }

  /** Writes an entry of the event log. `kind`, `number`, `count`: see `Messages.event`. */
  const noteEvent = (kind: number, number: number, count: number, wrId: bigint, stack: number): void => {
    // A poll may be recorded in a microtask, which may run after `end`.
    if (isEnded) return
    const { view, bytes } = logs()
    eventWords ??= new BigInt64Array(bytes.buffer, bytes.byteOffset, EventLog.bytes / 8)
    const index = claimEntry(eventWords)
    const time = process.hrtime.bigint()
    if (!isSameTurn) {
      acquired = time
      isSameTurn = true
      setImmediate(() => {
        isSameTurn = false
      }).unref()
    }
    const at = EventLog.firstEntry + (index % EventLog.entries) * EVENT_BYTES
    view.setBigUint64(at + EVENT_FIELDS.time, time, true)
    view.setBigUint64(at + EVENT_FIELDS.acquired, acquired, true)
    view.setBigUint64(at + EVENT_FIELDS.wrId, wrId, true)
    view.setUint32(at + EVENT_FIELDS.pid, process.pid, true)
    // Workers count as the main thread, whose tid is the pid: races between them are not found.
    view.setUint32(at + EVENT_FIELDS.tid, process.pid, true)
    view.setUint32(at + EVENT_FIELDS.kind, kind, true)
    view.setUint32(at + EVENT_FIELDS.number, number, true)
    view.setUint32(at + EVENT_FIELDS.count, count, true)
    view.setUint32(at + EVENT_FIELDS.stack, stack, true)
    // Written last: the entry is complete.
    Atomics.store(eventWords, (at + EVENT_FIELDS.sequence) / 8, BigInt(index + 1))
  }
  const hasEventLog = isEventLogWanted()

  return {
    posts: {
      watch(queue, number, _mmapInfo, ring) {
        const wrIdAt =
          ring.elementsAt + (queue === PostQueue.SEND ? mappedLayout.send.WR_ID : mappedLayout.receive.WR_ID)
        const stackOf = sharingStacks(queue, ring, session.stackNumber)
        ring.onPost = slot => {
          const wrId = ring.view.getBigUint64(wrIdAt + (slot << ring.log2Element), true)
          const stack = stackOf(slot)
          // EventKind: the kind of a post's event is the PostQueue.
          if (hasEventLog) noteEvent(queue, number, 1, wrId, stack)
          notePost(queue, number, wrId, stack)
        }
      },
      forget() {},
      ...(hasEventLog && pollWatch((cq, count, wrId) => noteEvent(EventKind.POLL, cq, count, wrId, 0))),
      refused(queue, number, wrId, error, state) {
        session.ask('check', (buffer, header) =>
          writeRequest(
            buffer,
            'refusedPost',
            { ...header, context, fd: file },
            { queue, number, wrId: BigInt(wrId), error, state },
          ),
        )
      },
    },
    findings: [],
    omissions: [],
    // A daemon does not know which objects the library has created for itself.
    markInternal() {},
    // `userdma check` looks itself.
    waits() {},
    markMessages() {},
    end() {
      isEnded = true
      if (mapping !== undefined) ringPool().release(mapping)
      mapping = undefined
      eventWords = undefined
    },
  }
}
