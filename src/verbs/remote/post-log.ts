/*
 * What a program on a daemon's device does, for `userdma check`: posts note the numbers of their stacks in the post log
 * of the context's file (spec/session.ts). With `--races` posts and polls are written to its event log too.
 *
 * Each turn of the event loop counts as a wait for other programs: what it was caused by is not known.
 */
import type { Mapping } from '../../host/memory/mapping.ts'
import { rxeLayout } from '../../spec/drivers/ring-layout.ts'
import { EventKind, EventLog, Messages, offsetsOf, PostLog, PostQueue, postSlot } from '../../spec/session.ts'
import { writeRequest } from '../../uapi/session-codec.ts'
import { type Checked, onPost, pollWatch } from '../check/checked.ts'
import { sharingStacks } from '../check/stack-sharing.ts'
import type { Session } from './daemon-session.ts'
import { ringPool } from './file-rings.ts'
import { areEventsWanted } from './stack-numbers.ts'

/** How often a post lets the daemon read a full log. As in the preload library. */
const YIELDS = 10_000

const { size: POST } = Messages.post
const AT = offsetsOf(Messages.post)
const { size: EVENT } = Messages.event
const EVENT_AT = offsetsOf(Messages.event)
const LOG = offsetsOf(Messages.eventLog)

/** `file`: the context's memory file; `wake` wakes the daemon, and lets it run. */
export const createPostLog = (session: Session, context: number, file: number, wake: () => void): Checked => {
  let mapping: Mapping | undefined
  let counts: BigInt64Array | undefined
  let acquired = 0n
  let isSameTurn = false

  /** The logs, mapped with the first note. */
  const logs = (): Mapping => {
    mapping ??= ringPool().map(file, EventLog.offset, EventLog.bytes)
    return mapping
  }

  const notePost = (queue: number, number: number, wrId: bigint, stack: number): void => {
    if (stack === 0) return
    const { view } = logs()
    const at = PostLog.offset - EventLog.offset + postSlot(queue, number, wrId) * POST
    view.setBigUint64(at + AT.wrId, wrId, true)
    view.setUint32(at + AT.queue, queue, true)
    view.setUint32(at + AT.number, number, true)
    view.setUint32(at + AT.pid, process.pid, true)
    view.setUint32(at + AT.stack, stack, true)
  }

  /** Claims the next entry of the event log, and waits for the daemon if it is full; answers its number. */
  const claim = (words: BigInt64Array): number => {
    const index = Number(Atomics.add(words, LOG.head / 8, 1n))
    for (let i = 0; i < YIELDS; i++) {
      if (index - Number(Atomics.load(words, LOG.tail / 8)) < EventLog.entries) break
      wake()
    }
    return index
  }

  const noteEvent = (kind: number, number: number, count: number, wrId: bigint, stack: number): void => {
    const { view, bytes } = logs()
    counts ??= new BigInt64Array(bytes.buffer, bytes.byteOffset, EventLog.bytes / 8)
    const index = claim(counts)
    const time = process.hrtime.bigint()
    if (!isSameTurn) {
      acquired = time
      isSameTurn = true
      setImmediate(() => {
        isSameTurn = false
      }).unref()
    }
    const at = EventLog.firstEntry + (index % EventLog.entries) * EVENT
    view.setBigUint64(at + EVENT_AT.time, time, true)
    view.setBigUint64(at + EVENT_AT.acquired, acquired, true)
    view.setBigUint64(at + EVENT_AT.wrId, wrId, true)
    view.setUint32(at + EVENT_AT.pid, process.pid, true)
    view.setUint32(at + EVENT_AT.tid, process.pid, true)
    view.setUint32(at + EVENT_AT.kind, kind, true)
    view.setUint32(at + EVENT_AT.number, number, true)
    view.setUint32(at + EVENT_AT.count, count, true)
    view.setUint32(at + EVENT_AT.stack, stack, true)
    Atomics.store(counts, (at + EVENT_AT.sequence) / 8, BigInt(index + 1))
  }
  const hasEvents = areEventsWanted()

  return {
    posts: {
      watch(queue, number, _place, ring) {
        const wrIdAt = ring.data + (queue === PostQueue.SEND ? rxeLayout.send.WR_ID : rxeLayout.receive.WR_ID)
        const stackOf = sharingStacks(queue, ring, session.stackNumber)
        onPost(ring, slot => {
          const wrId = ring.view.getBigUint64(wrIdAt + (slot << ring.log2), true)
          const stack = stackOf(slot)
          if (hasEvents) noteEvent(queue, number, 1, wrId, stack)
          notePost(queue, number, wrId, stack)
        })
      },
      forget() {},
      ...(hasEvents && pollWatch((cq, count, wrId) => noteEvent(EventKind.POLL, cq, count, wrId, 0))),
      refused(queue, number, wrId, error, state) {
        session.ask('check', (to, from) =>
          writeRequest(
            to,
            'REFUSED',
            { ...from, context, fd: file },
            { queue, number, wrId: BigInt(wrId), error, state },
          ),
        )
      },
    },
    findings: [],
    omissions: [],
    end() {
      if (mapping !== undefined) ringPool().release(mapping)
      mapping = undefined
      counts = undefined
    },
  }
}
