/*
 * Delivers the events of one fd object to a program through a socket pair; the program reads the other end
 * (docs/decisions/sessions.md).
 *
 * One record is one packet. Records that do not fit in the socket are queued here. When an object is destroyed,
 * libibverbs waits until the program has acknowledged as many events as it has read, so `withdraw` must report exactly
 * how many are unread: it fetches a copy of the program's own end (pidfd_getfd), empties it, and sends the records of
 * other objects again in the same order.
 *
 * A call that names the program's descriptor tells which process has it, and its number there (`setPeerEnd`). If it is
 * not there, the descriptors of the processes are searched when the end is needed (`prepareWithdraw`), a slice in each
 * turn of the event loop.
 */
import { fstatSync } from 'node:fs'
import { RECORD_BYTES, uncountEvent } from '../../core/events/events.ts'
import type { Affiliation, EventRecord, EventSink } from '../../core/model.ts'
import { EAGAIN } from '../../host/errno.ts'
import { watch } from '../../host/event-loop/poll.ts'
import { createSlices, type Slices } from '../../host/event-loop/slices.ts'
import { type ProcessHandle, pidfdGetfd, searchFd } from '../../host/memory/process.ts'
import {
  close,
  outstandingBytes,
  recvSmall,
  sendSmall,
  setBlocking,
  setBuffers,
  shutdown,
  socketPair,
  unreadBytes,
} from '../../host/net/sockets.ts'
import { type Containment, createContainment } from '../containment.ts'

export interface EventSocketParts {
  readonly containment: Containment
  readonly slices: Slices
}

export interface EventSocket extends EventSink {
  /** The program's end, until `closePeerEnd` is called. */
  readonly peerEnd: number
  /** The target of descriptors of the program's end in /proc/PID/fd: 'socket:[inode]'. */
  readonly target: string
  /** Closes the daemon's copy of the program's end, once it was passed to the program. */
  closePeerEnd(): void
  /** `process` has the program's end as its descriptor `number`: it is looked for there first, then everywhere. */
  setPeerEnd(process: ProcessHandle, number: number): void
  close(): void
}

/** SO_SNDBUF: space for more than a hundred records, each of which the kernel charges with almost a KiB. */
const BUFFER_BYTES = 64 * 1024
/**
 * More records than fit in the socket's buffer: the program has read those that were sent before the last MAX_UNREAD.
 */
const MAX_UNREAD = 1024
/**
 * Maximum number of queued records for a program that does not read. Beyond it one per element and type is kept, which
 * still wakes the program.
 */
const MAX_QUEUED = 65536

const isEqual = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, i) => byte === b[i])

/**
 * `holders`: the processes to search for the program's end, most likely first. `onHangUp` is called when
 * the program has closed its last copy.
 */
export const createEventSocket = (
  holders: () => Iterable<ProcessHandle>,
  onHangUp: () => void,
  { containment = createContainment(), slices = createSlices() }: Partial<EventSocketParts> = {},
): EventSocket => {
  const [ownEnd, peerEnd] = socketPair()
  // The program's end blocks, like Linux's event files; our reads from it never do (MSG_DONTWAIT).
  setBlocking(peerEnd)
  setBuffers(ownEnd, { send: BUFFER_BYTES })
  const { dev, ino } = fstatSync(peerEnd)
  const target = `socket:[${ino}]`
  const scratch = new Uint8Array(RECORD_BYTES)
  let isPeerEndOpen = true
  let isClosed = false
  /** Whether the socket was closed, here or by the program: nothing is sent or searched any more. */
  let isEnded = false
  /** Records that were sent and may be unread, oldest first. */
  let sent: EventRecord[] = []
  /** Records that were not sent yet. */
  let queue: EventRecord[] = []

  const sendQueued = (): void => {
    if (sent.length > 0 && outstandingBytes(ownEnd) === 0) sent = []
    let count = 0
    let result = 1
    while (count < queue.length && result > 0) {
      result = sendSmall(ownEnd, queue[count]!.bytes)
      if (result > 0) count++
    }
    if (count > 0) sent.push(...queue.splice(0, count))
    if (sent.length > 2 * MAX_UNREAD) sent = sent.slice(-MAX_UNREAD)
    // Only after EAGAIN: once the program has shut down its end, `ownEnd` is always writable, and sends fail with other
    // errors.
    watcher.update({ readable: true, writable: result === -EAGAIN })
  }

  const watcher = watch(
    ownEnd,
    { readable: true },
    containment.guard(
      'an event socket',
      (readable: boolean) => {
        if (readable && recvSmall(ownEnd, scratch) === 0) markEnded()
        else sendQueued()
      },
      () => markEnded(),
    ),
  )
  const markEnded = (): void => {
    if (isEnded) return
    isEnded = true
    // The watcher's handle is released by `close`.
    watcher.update({})
    onHangUp()
  }

  /** Where the program's end was found, or named by a call, last: a process and its descriptor number. */
  let peerEndLocation: { readonly process: ProcessHandle; readonly number: number } | undefined

  /** A copy of the program's end, if it is still at `peerEndLocation`; negative otherwise. */
  const fetchPeerEnd = (): number => {
    const end =
      peerEndLocation === undefined ? -1 : pidfdGetfd(peerEndLocation.process, peerEndLocation.number, { dev, ino })
    if (end < 0) return -1
    const found = fstatSync(end)
    if (found.ino === ino && found.dev === dev) return end
    close(end)
    return -1
  }
  const isPeerEndFound = (): boolean => {
    if (isPeerEndOpen) return true
    const end = fetchPeerEnd()
    if (end >= 0) close(end)
    return end >= 0
  }

  const search = function* (): Generator<undefined, void> {
    for (const process of [...holders()]) {
      const number = yield* searchFd(process.pid, target)
      if (number === undefined) continue
      peerEndLocation = { process, number }
      if (isPeerEndFound()) return
    }
  }

  const isAllRead = (): boolean => sent.length === 0 || outstandingBytes(ownEnd) === 0

  /** Runs `body` on the program's end; undefined if it cannot be reached. */
  const withPeerEnd = <T>(body: (end: number) => T): T | undefined => {
    const end = isPeerEndOpen ? peerEnd : fetchPeerEnd()
    if (end < 0) return undefined
    const result = body(end)
    // `end` may have the number of `peerEnd`, which is closed.
    if (!isPeerEndOpen) close(end)
    return result
  }

  /** Receives unread packets from the program's end, oldest first; undefined if the end cannot be reached. */
  const drain = (limit = Number.POSITIVE_INFINITY): Uint8Array[] | undefined =>
    withPeerEnd(end => {
      const packets: Uint8Array[] = []
      while (packets.length < limit) {
        const length = recvSmall(end, scratch)
        if (length <= 0) break
        packets.push(scratch.slice(0, length))
      }
      return packets
    })

  /**
   * Whether a record is queued beyond MAX_QUEUED: only if none of its element and type is queued. Others count as never
   * posted.
   */
  const mayQueueBeyondLimit = (event: EventRecord): boolean => {
    const { element, type } = event
    if (!queue.some(other => other.element === element && other.type === type)) return true
    uncountEvent(event)
    return false
  }

  /**
   * Receives the unread records from the socket, so that the program cannot read them any more; oldest first. Empty if
   * the program's end cannot be reached.
   */
  const takeSent = (): EventRecord[] => {
    if (isAllRead()) return []
    const packets = drain()
    if (packets === undefined) return []
    // A thread of the program may have read in between, so the packets need not be the last ones sent: each is
    // searched, newest first.
    const records: EventRecord[] = []
    let at = sent.length
    for (const packet of packets.reverse()) {
      while (at > 0 && !isEqual(sent[at - 1]!.bytes, packet)) at--
      if (at > 0) records.unshift(sent[--at]!)
    }
    sent = []
    return records
  }

  /** Receives the oldest unread records from the socket, at most `limit`. Empty if the end cannot be reached. */
  const takeOldest = (limit: number): EventRecord[] => {
    const packets = isAllRead() ? [] : (drain(limit) ?? [])
    // The program may have read in between: each packet is searched, oldest first.
    const records: EventRecord[] = []
    let at = 0
    for (const packet of packets) {
      while (at < sent.length && !isEqual(sent[at]!.bytes, packet)) at++
      if (at < sent.length) records.push(sent[at++]!)
    }
    sent.splice(0, at)
    return records
  }

  /** Takes all unread records, sent and queued, oldest first: the caller has the only copy. */
  const takeAll = (): EventRecord[] => {
    if (isEnded) return []
    const all = [...takeSent(), ...queue]
    queue = []
    return all
  }
  const sendAgain = (records: EventRecord[]): void => {
    if (isEnded) return
    queue = records
    sendQueued()
  }

  return {
    peerEnd,
    target,
    closePeerEnd() {
      if (isPeerEndOpen) close(peerEnd)
      isPeerEndOpen = false
    },
    post(event) {
      if (isEnded || (queue.length >= MAX_QUEUED && !mayQueueBeyondLimit(event))) return
      queue.push(event)
      sendQueued()
    },
    setPeerEnd(process, number) {
      peerEndLocation = { process, number }
    },
    prepareWithdraw() {
      if (isEnded || isAllRead() || isPeerEndFound()) return undefined
      const job = search()
      // Most programs have few descriptors, so the first slice suffices.
      return job.next().done ? undefined : slices.run(job)
    },
    withdraw(element: Affiliation) {
      const others: EventRecord[] = []
      const withdrawn: EventRecord[] = []
      for (const event of takeAll()) (event.element === element ? withdrawn : others).push(event)
      sendAgain(others)
      return withdrawn
    },
    unread() {
      if (isEnded) return 0
      // FIONREAD gives the bytes of unread packets without removing any, so a concurrent reader still gets its records.
      let bytes = isAllRead() ? 0 : (withPeerEnd(unreadBytes) ?? 0)
      let count = 0
      for (; bytes > 0 && count < sent.length; count++) bytes -= sent[sent.length - 1 - count]!.bytes.length
      return count + queue.length
    },
    take(limit) {
      if (isEnded) return []
      const taken = takeOldest(limit)
      taken.push(...queue.splice(0, limit - taken.length))
      sendQueued()
      return taken
    },
    end() {
      if (!isClosed) shutdown(ownEnd, 'write')
    },
    close() {
      if (isClosed) return
      isClosed = true
      isEnded = true
      watcher.stop()
      close(ownEnd)
      this.closePeerEnd()
    },
  }
}
