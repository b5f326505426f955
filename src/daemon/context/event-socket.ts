/*
 * Delivers the events of an fd object, such as a completion channel, to a program through a socket pair
 * (docs/decisions/sessions.md). The program reads the peer end. One event record is one packet. Records that do not fit
 * in the socket are queued here.
 *
 * When an object is destroyed, libibverbs waits until the program has acknowledged as many events as it has read. So
 * `withdraw` must know exactly which records are unread. `withdraw` fetches a copy of the peer end (pidfd_getfd),
 * receives all packets, and sends the records of other objects again in the same order. If the program has closed its
 * last copy of the peer end, the kernel only tells whether records were unread (ECONNRESET), so only the newest record
 * is known to be unread. In a program that reads each event before it requests the next one, there are no others.
 *
 * To fetch the peer end, the daemon needs a process and a descriptor number. Calls with the descriptor as argument tell
 * both (`setPeerEnd`). Otherwise `prepareWithdraw` searches the descriptors of processes, in slices.
 */
import { fstatSync } from 'node:fs'
import { BoundedQueue } from '../../core/events/bounded-queue.ts'
import { uncountEvent } from '../../core/events/events.ts'
import type { Affiliation, EventRecord, EventSink } from '../../core/model.ts'
import { EAGAIN, ECONNRESET } from '../../host/errno.ts'
import { type Watch, watch } from '../../host/event-loop/poll.ts'
import { createSlices, type Slices } from '../../host/event-loop/slices.ts'
import { closeElsewhere } from '../../host/memory/mover.ts'
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
import { LARGEST_RECORD_BYTES } from '../../spec/session.ts'
import { type Containment, createContainment } from '../containment.ts'

export interface EventSocketParts {
  readonly containment: Containment
  readonly slices: Slices
}

/** SO_SNDBUF. The kernel charges almost a KiB for a record. */
const BUFFER_BYTES = 64 * 1024
/** From this many sent records on, each post asks whether the program has read them. */
const MAX_UNASKED = 64
/** The socket's buffer never holds more records, so the program has read all but the last MAX_UNREAD that were sent. */
const MAX_UNREAD = 1024

/** The record that is being received, of whatever socket. */
const scratch = new Uint8Array(LARGEST_RECORD_BYTES)

const isEqual = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, i) => byte === b[i])

/**
 * `holders`: the processes to search for the peer end, most likely first. `onHangUp` is called when the peer end was
 * closed, or a callback of the socket has thrown.
 */
export class EventSocket implements EventSink {
  readonly #holders: () => Iterable<ProcessHandle>
  readonly #onHangUp: () => void
  readonly #slices: Slices
  readonly #ownEnd: number
  /** The daemon's copy of the peer end, until `closePeerEnd` is called. */
  readonly peerEnd: number
  readonly #dev: number
  readonly #ino: number
  /** The target of the peer end's links in /proc/PID/fd: 'socket:[inode]'. */
  readonly target: string
  #isPeerEndOpen = true
  #isClosed = false
  /** Whether the daemon (`close`) or the program has closed its end. */
  #isDisconnected = false
  /** Whether `end` was called: no record follows those in the socket and the queue. */
  #isComplete = false
  /** Whether the program has closed its end while records were unread. */
  #isReset = false
  /** Records that were sent and may be unread, oldest first. */
  #sent: EventRecord[] = []
  /** Records that were not sent yet. */
  readonly #queue = new BoundedQueue()
  readonly #watcher: Watch
  /** Where the peer end was last. */
  #peerEndLocation: { readonly process: ProcessHandle; readonly number: number } | undefined
  /**
   * A copy of the peer end that `prepareWithdraw` has fetched, for the `withdraw` or `take` that follows; or negative.
   */
  #foundEnd = -1

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
    // The peer end blocks, like Linux's event files. The daemon's reads from it use MSG_DONTWAIT.
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
          if (readable && this.#hasHungUp()) this.#markDisconnected()
          else this.#sendQueued()
        },
        () => this.#markDisconnected(),
      ),
    )
  }

  /** Call after the peer end was passed to the program. */
  closePeerEnd(): void {
    if (this.#isPeerEndOpen) close(this.peerEnd)
    this.#isPeerEndOpen = false
  }

  post(event: EventRecord): void {
    if (!this.#isDisconnected && this.#queue.add(event)) this.#sendQueued()
    else uncountEvent(event)
  }

  /** `process` has the peer end as its descriptor `number`. */
  setPeerEnd(process: ProcessHandle, number: number): void {
    this.#peerEndLocation = { process, number }
    this.#closeFoundEnd()
  }

  prepareWithdraw(): Promise<void> | undefined {
    if (this.#isDisconnected || this.#isAllRead() || this.#isPeerEndFound()) return undefined
    const job = this.#search()
    // Most programs have few descriptors, so the first slice suffices.
    return job.next().done ? undefined : this.#slices.run(job)
  }

  withdraw(element: Affiliation): EventRecord[] {
    if (this.#isClosed) return []
    const others: EventRecord[] = []
    const withdrawn: EventRecord[] = []
    for (const event of this.#takeSent()) (event.element === element ? withdrawn : others).push(event)
    for (const event of this.#queue.withdraw(element)) withdrawn.push(event)
    this.#queue.prepend(others)
    this.#sendQueued()
    return withdrawn
  }

  prepareSkip(): Promise<void> | undefined {
    return this.#isDisconnected || this.#isPeerEndFound() ? undefined : this.#slices.run(this.#search())
  }

  /**
   * The kernel gives packets to threads that read in the order in which they wait, and a thread that finds none waits
   * behind the others.
   */
  skipTurn(event: EventRecord): boolean {
    if (this.#isDisconnected || this.#queue.records.length > 0 || !this.#isAllRead()) return false
    const isRead = this.#withPeerEnd(end => sendBytes(this.#ownEnd, event.bytes) > 0 && recvBytes(end, scratch) <= 0)
    if (isRead) this.#sent.push(event)
    return isRead ?? false
  }

  unread(): number {
    if (this.#isDisconnected) return 0
    // FIONREAD counts the bytes of unread packets, and leaves the packets to the program.
    let bytes = this.#isAllRead() ? 0 : (this.#withPeerEnd(unreadBytes) ?? 0)
    let count = 0
    for (; bytes > 0 && count < this.#sent.length; count++)
      bytes -= this.#sent[this.#sent.length - 1 - count]!.bytes.length
    return count + this.#queue.records.length
  }

  take(limit: number): EventRecord[] {
    if (this.#isClosed) return []
    const sent = this.#takeOldest(limit)
    const queued = this.#queue.take(limit - sent.length)
    this.#sendQueued()
    return [...sent, ...queued]
  }

  end(): void {
    this.#isComplete = true
    this.#sendQueued()
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#isDisconnected = true
    this.#watcher.stop()
    close(this.#ownEnd)
    this.closePeerEnd()
    this.#closeFoundEnd()
  }

  /** Whether the program has closed its end. Discards a packet that the program has sent. */
  #hasHungUp(): boolean {
    const length = recvBytes(this.#ownEnd, scratch)
    if (length === -ECONNRESET) this.#isReset = true
    return length === 0 || this.#isReset
  }

  #sendQueued(): void {
    if (this.#isDisconnected || this.#isReset) return
    const before = this.#sent
    if (before.length >= MAX_UNASKED && outstandingBytes(this.#ownEnd) === 0) this.#sent = []
    let count = 0
    let result = 1
    const { records } = this.#queue
    while (count < records.length && result > 0) {
      result = sendBytes(this.#ownEnd, records[count]!.bytes)
      if (result > 0) count++
    }
    if (result === -ECONNRESET) {
      this.#isReset = true
      this.#sent = before
    }
    if (count > 0) this.#sent.push(...this.#queue.take(count))
    if (this.#sent.length > 2 * MAX_UNREAD) this.#sent = this.#sent.slice(-MAX_UNREAD)
    if (this.#isComplete && records.length === 0) shutdown(this.#ownEnd, 'write')
    // Only after EAGAIN: once the program has shut down the peer end, `ownEnd` is always writable, and sends fail.
    this.#watcher.update({ readable: true, writable: result === -EAGAIN })
  }

  #markDisconnected(): void {
    if (this.#isDisconnected) return
    this.#isDisconnected = true
    this.#watcher.update({})
    this.#onHangUp()
  }

  /** A copy of the peer end, if it is still at `peerEndLocation`; otherwise negative. */
  #fetchPeerEnd(): number {
    const end =
      this.#peerEndLocation === undefined
        ? -1
        : pidfdGetfd(this.#peerEndLocation.process, this.#peerEndLocation.number, { dev: this.#dev, ino: this.#ino })
    if (end < 0) return -1
    // `pidfdGetfd` compares device and inode only for processes of other users.
    const found = fstatSync(end)
    if (found.ino === this.#ino && found.dev === this.#dev) return end
    closeElsewhere(end, this.#peerEndLocation?.process.guest?.user)
    return -1
  }

  #isPeerEndFound(): boolean {
    if (this.#isPeerEndOpen || this.#foundEnd >= 0) return true
    this.#foundEnd = this.#fetchPeerEnd()
    // The program's own copies decide when the socket hangs up.
    if (this.#foundEnd >= 0) queueMicrotask(() => this.#closeFoundEnd())
    return this.#foundEnd >= 0
  }

  #closeFoundEnd(): void {
    if (this.#foundEnd >= 0) close(this.#foundEnd)
    this.#foundEnd = -1
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

  /** Runs `body` on the peer end; undefined if the daemon cannot get the peer end. */
  #withPeerEnd<T>(body: (end: number) => T): T | undefined {
    if (this.#isPeerEndOpen) return body(this.peerEnd)
    if (this.#foundEnd < 0) this.#foundEnd = this.#fetchPeerEnd()
    if (this.#foundEnd < 0) return undefined
    const result = body(this.#foundEnd)
    this.#closeFoundEnd()
    return result
  }

  /** Receives unread packets from the peer end, oldest first; undefined if the daemon cannot get the peer end. */
  #drain(limit = Number.POSITIVE_INFINITY): Uint8Array[] | undefined {
    return this.#withPeerEnd(end => {
      const packets: Uint8Array[] = []
      while (packets.length < limit) {
        const length = recvBytes(end, scratch)
        if (length <= 0) break
        packets.push(scratch.slice(0, length))
      }
      return packets
    })
  }

  /**
   * The unread records of a socket whose buffer is empty: only the newest sent record, if the program closed its end
   * while records were unread (see top); otherwise none.
   */
  #takeLost(): EventRecord[] {
    if (this.#sent.length > 0 && !this.#isReset) this.#hasHungUp()
    return this.#isReset ? this.#sent.splice(0).slice(-1) : []
  }

  /** Receives all unread records from the socket, oldest first. Empty if the daemon cannot get the peer end. */
  #takeSent(): EventRecord[] {
    if (this.#isAllRead()) return this.#takeLost()
    const packets = this.#drain()
    if (packets === undefined) return []
    // A thread of the program may have read packets during the drain. So each packet is searched, newest first.
    const records: EventRecord[] = []
    let at = this.#sent.length
    for (const packet of packets.reverse()) {
      while (at > 0 && !isEqual(this.#sent[at - 1]!.bytes, packet)) at--
      if (at > 0) records.unshift(this.#sent[--at]!)
    }
    this.#sent = []
    return records
  }

  /** As `#takeSent`, but takes at most `limit` records. */
  #takeOldest(limit: number): EventRecord[] {
    if (this.#isAllRead()) return this.#takeLost()
    const packets = this.#drain(limit) ?? []
    // As in `#takeSent`, but oldest first.
    const records: EventRecord[] = []
    let at = 0
    for (const packet of packets) {
      while (at < this.#sent.length && !isEqual(this.#sent[at]!.bytes, packet)) at++
      if (at < this.#sent.length) records.push(this.#sent[at++]!)
    }
    this.#sent.splice(0, at)
    return records
  }
}
