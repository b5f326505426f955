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
 * not there, the descriptors of all processes that may have it are searched when it is needed (`prepareWithdraw`), a
 * slice in each turn of the event loop.
 */
import { fstatSync } from 'node:fs'
import { uncountEvent } from '../../core/events/events.ts'
import type { Affiliation, EventRecord, EventSink } from '../../core/model.ts'
import { EAGAIN } from '../../host/errno.ts'
import { type Watch, watch } from '../../host/event-loop/poll.ts'
import { createSlices, type Slices } from '../../host/event-loop/slices.ts'
import { type ProcessHandle, pidfdGetfd, searchFd } from '../../host/memory/process.ts'
import {
  close,
  outstandingBytes,
  recvBytes,
  sendBytes,
  setBlocking,
  setBuffers,
  shutdown,
  socketPair,
  unreadBytes,
} from '../../host/net/sockets.ts'
import { DRIVER_RECORD_BYTES } from '../../spec/session.ts'
import { type Containment, createContainment } from '../containment.ts'

export interface EventSocketParts {
  readonly containment: Containment
  readonly slices: Slices
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
 * `holders`: the processes to search for the program's end, most likely first. `onHangUp` is called when the program's
 * end was closed, or a callback of the socket has thrown.
 */
export class EventSocket implements EventSink {
  readonly #holders: () => Iterable<ProcessHandle>
  readonly #onHangUp: () => void
  readonly #slices: Slices
  readonly #ownEnd: number
  /** The program's end, until `closePeerEnd` is called. */
  readonly peerEnd: number
  readonly #dev: number
  readonly #ino: number
  /** The target of descriptors of the program's end in /proc/PID/fd: 'socket:[inode]'. */
  readonly target: string
  readonly #scratch = new Uint8Array(DRIVER_RECORD_BYTES)
  #isPeerEndOpen = true
  #isClosed = false
  /** Whether the socket was closed, here or by the program: nothing is sent or searched any more. */
  #isEnded = false
  /** Records that were sent and may be unread, oldest first. */
  #sent: EventRecord[] = []
  /** Records that were not sent yet. */
  #queue: EventRecord[] = []
  readonly #watcher: Watch
  /** Where the program's end was found, or named by a call, last: a process and its descriptor number. */
  #peerEndLocation: { readonly process: ProcessHandle; readonly number: number } | undefined

  constructor(
    holders: () => Iterable<ProcessHandle>,
    onHangUp: () => void,
    { containment = createContainment(), slices = createSlices() }: Partial<EventSocketParts> = {},
  ) {
    this.#holders = holders
    this.#onHangUp = onHangUp
    this.#slices = slices
    const [ownEnd, peerEnd] = socketPair()
    this.#ownEnd = ownEnd
    this.peerEnd = peerEnd
    // The program's end blocks, like Linux's event files; our reads from it never do (MSG_DONTWAIT).
    setBlocking(peerEnd)
    setBuffers(ownEnd, { send: BUFFER_BYTES })
    const { dev, ino } = fstatSync(peerEnd)
    this.#dev = dev
    this.#ino = ino
    this.target = `socket:[${ino}]`
    this.#watcher = watch(
      this.#ownEnd,
      { readable: true },
      containment.guard(
        'an event socket',
        (readable: boolean) => {
          if (readable && recvBytes(this.#ownEnd, this.#scratch) === 0) this.#markEnded()
          else this.#sendQueued()
        },
        () => this.#markEnded(),
      ),
    )
  }

  /** Closes the daemon's copy of the program's end, once it was passed to the program. */
  closePeerEnd(): void {
    if (this.#isPeerEndOpen) close(this.peerEnd)
    this.#isPeerEndOpen = false
  }

  post(event: EventRecord): void {
    if (this.#isEnded || (this.#queue.length >= MAX_QUEUED && !this.#mayQueueBeyondLimit(event))) return
    this.#queue.push(event)
    this.#sendQueued()
  }

  /** `process` has the program's end as its descriptor `number`: it is looked for there first. */
  setPeerEnd(process: ProcessHandle, number: number): void {
    this.#peerEndLocation = { process, number }
  }

  prepareWithdraw(): Promise<void> | undefined {
    if (this.#isEnded || this.#isAllRead() || this.#isPeerEndFound()) return undefined
    const job = this.#search()
    // Most programs have few descriptors, so the first slice suffices.
    return job.next().done ? undefined : this.#slices.run(job)
  }

  withdraw(element: Affiliation): EventRecord[] {
    const others: EventRecord[] = []
    const withdrawn: EventRecord[] = []
    for (const event of this.#takeAll()) (event.element === element ? withdrawn : others).push(event)
    this.#sendAgain(others)
    return withdrawn
  }

  unread(): number {
    if (this.#isEnded) return 0
    // FIONREAD gives the bytes of unread packets without removing any, so a concurrent reader still gets its records.
    let bytes = this.#isAllRead() ? 0 : (this.#withPeerEnd(unreadBytes) ?? 0)
    let count = 0
    for (; bytes > 0 && count < this.#sent.length; count++)
      bytes -= this.#sent[this.#sent.length - 1 - count]!.bytes.length
    return count + this.#queue.length
  }

  take(limit: number): EventRecord[] {
    if (this.#isEnded) return []
    const taken = this.#takeOldest(limit)
    taken.push(...this.#queue.splice(0, limit - taken.length))
    this.#sendQueued()
    return taken
  }

  end(): void {
    if (!this.#isClosed) shutdown(this.#ownEnd, 'write')
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#isEnded = true
    this.#watcher.stop()
    close(this.#ownEnd)
    this.closePeerEnd()
  }

  #sendQueued(): void {
    if (this.#sent.length > 0 && outstandingBytes(this.#ownEnd) === 0) this.#sent = []
    let count = 0
    let result = 1
    while (count < this.#queue.length && result > 0) {
      result = sendBytes(this.#ownEnd, this.#queue[count]!.bytes)
      if (result > 0) count++
    }
    if (count > 0) this.#sent.push(...this.#queue.splice(0, count))
    if (this.#sent.length > 2 * MAX_UNREAD) this.#sent = this.#sent.slice(-MAX_UNREAD)
    // Only after EAGAIN: once the program has shut down its end, `ownEnd` is always writable, and sends fail with other
    // errors.
    this.#watcher.update({ readable: true, writable: result === -EAGAIN })
  }

  #markEnded(): void {
    if (this.#isEnded) return
    this.#isEnded = true
    // The watcher's handle is released by `close`.
    this.#watcher.update({})
    this.#onHangUp()
  }

  /** A copy of the program's end, if it is still at `peerEndLocation`; negative otherwise. */
  #fetchPeerEnd(): number {
    const end =
      this.#peerEndLocation === undefined
        ? -1
        : pidfdGetfd(this.#peerEndLocation.process, this.#peerEndLocation.number, { dev: this.#dev, ino: this.#ino })
    if (end < 0) return -1
    const found = fstatSync(end)
    if (found.ino === this.#ino && found.dev === this.#dev) return end
    close(end)
    return -1
  }

  #isPeerEndFound(): boolean {
    if (this.#isPeerEndOpen) return true
    const end = this.#fetchPeerEnd()
    if (end >= 0) close(end)
    return end >= 0
  }

  *#search(): Generator<undefined, void> {
    for (const process of [...this.#holders()]) {
      const number = yield* searchFd(process.pid, this.target)
      if (number === undefined) continue
      this.#peerEndLocation = { process, number }
      if (this.#isPeerEndFound()) return
    }
  }

  #isAllRead(): boolean {
    return this.#sent.length === 0 || outstandingBytes(this.#ownEnd) === 0
  }

  /** Runs `body` on the program's end; undefined if it cannot be reached. */
  #withPeerEnd<T>(body: (end: number) => T): T | undefined {
    const end = this.#isPeerEndOpen ? this.peerEnd : this.#fetchPeerEnd()
    if (end < 0) return undefined
    const result = body(end)
    // `end` may have the number of `peerEnd`, which is closed.
    if (!this.#isPeerEndOpen) close(end)
    return result
  }

  /** Receives unread packets from the program's end, oldest first; undefined if the end cannot be reached. */
  #drain(limit = Number.POSITIVE_INFINITY): Uint8Array[] | undefined {
    return this.#withPeerEnd(end => {
      const packets: Uint8Array[] = []
      while (packets.length < limit) {
        const length = recvBytes(end, this.#scratch)
        if (length <= 0) break
        packets.push(this.#scratch.slice(0, length))
      }
      return packets
    })
  }

  /**
   * Whether a record is queued beyond MAX_QUEUED: only if none of its element and type is queued. Others count as never
   * posted.
   */
  #mayQueueBeyondLimit(event: EventRecord): boolean {
    const { element, type } = event
    if (!this.#queue.some(other => other.element === element && other.type === type)) return true
    uncountEvent(event)
    return false
  }

  /**
   * Receives the unread records from the socket, so that the program cannot read them any more; oldest first. Empty if
   * the program's end cannot be reached.
   */
  #takeSent(): EventRecord[] {
    if (this.#isAllRead()) return []
    const packets = this.#drain()
    if (packets === undefined) return []
    // A thread of the program may have read in between, so the packets need not be the last ones sent: each is
    // searched, newest first.
    const records: EventRecord[] = []
    let at = this.#sent.length
    for (const packet of packets.reverse()) {
      while (at > 0 && !isEqual(this.#sent[at - 1]!.bytes, packet)) at--
      if (at > 0) records.unshift(this.#sent[--at]!)
    }
    this.#sent = []
    return records
  }

  /** Receives the oldest unread records from the socket, at most `limit`. Empty if the end cannot be reached. */
  #takeOldest(limit: number): EventRecord[] {
    const packets = this.#isAllRead() ? [] : (this.#drain(limit) ?? [])
    // The program may have read in between: each packet is searched, oldest first.
    const records: EventRecord[] = []
    let at = 0
    for (const packet of packets) {
      while (at < this.#sent.length && !isEqual(this.#sent[at]!.bytes, packet)) at++
      if (at < this.#sent.length) records.push(this.#sent[at++]!)
    }
    this.#sent.splice(0, at)
    return records
  }

  /** Takes all unread records, sent and queued, oldest first: the caller has the only copy. */
  #takeAll(): EventRecord[] {
    if (this.#isEnded) return []
    const all = [...this.#takeSent(), ...this.#queue]
    this.#queue = []
    return all
  }

  #sendAgain(records: EventRecord[]): void {
    if (this.#isEnded) return
    this.#queue = records
    this.#sendQueued()
  }
}
