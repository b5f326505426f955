/*
 * Joins a port of the memory link with a socket to another process (messages.ts): what arrives at the port goes out,
 * and what comes in is sent by the port. A process that does not read keeps the buffers of those who send to it, for
 * LIFETIME; then packets for it are lost, as at a switch whose output port has no credits (IBA 18.2.5.4).
 */
import { EAGAIN, ENOBUFS } from '../../host/errno.ts'
import { type Watch, watch } from '../../host/event-loop/poll.ts'
import { close, recvBytes, sendBytes, setBuffers } from '../../host/net/sockets.ts'
import { emptyRun, type Port } from '../../transport/phy/port.ts'
import {
  flowKey,
  HEADER_BYTES,
  MAX_FABRIC_MESSAGE,
  MessageKind,
  packetsPerMessage,
  putHeader,
  readFlow,
  readSizes,
} from './messages.ts'

interface TrunkOwner {
  /** False: it is no message. The bytes are valid during the call. */
  onControl(bytes: Uint8Array): boolean
  /** The other end has closed the socket, or has sent what is no message. The trunk is closed. */
  onEnd(reason: string): void
  /** There is something to poll. */
  kick(): void
  /** Contains exceptions of `body`. */
  guard(name: string, body: () => void): () => void
}

/** Messages that are read in one go. */
const BURST = 16
/** Polls without a message after which only the event loop looks for the next one. */
const MAX_IDLE_POLLS = 64
/** Microseconds for which packets wait for a process that does not read. */
const LIFETIME = 500_000
/** Control messages that wait for it; then datagrams are lost. */
const MAX_WAITING = 1024
/** Of the socket; the kernel allows less. */
const BUFFER_BYTES = 1 << 20
/** Flows that are open for packets from the other end. */
const MAX_FLOWS = 1024

/** A message while it is sent: all trunks of the process have one. */
const outgoing = new Uint8Array(MAX_FABRIC_MESSAGE)
const outgoingView = new DataView(outgoing.buffer)

export class Trunk {
  readonly #fd: number
  readonly #owner: TrunkOwner
  readonly #watch: Watch
  /** Set with `open`. */
  #port: Port | undefined
  readonly #flows = new Map<string, number>()
  readonly #staging = new Uint8Array(MAX_FABRIC_MESSAGE)
  readonly #view = new DataView(this.#staging.buffer)
  /** Length of the message in `#staging` whose packets wait for room in the port; 0: none. */
  #staged = 0
  /** Of that message. */
  #sizes: readonly [packetBytes: number, count: number, lastBytes: number] = [0, 0, 0]
  #stagedFlow = -1
  readonly #run = emptyRun()
  /** Packets of `#run` that are sent; -1: it has none. */
  #sent = -1
  readonly #waiting: Uint8Array[] = []
  /** Since when the socket takes no message, µs; NaN: since the next poll; Infinity: it takes them. */
  #blockedAt = Number.POSITIVE_INFINITY
  #idlePolls = MAX_IDLE_POLLS
  #isClosed = false

  /** `fd` is closed with the trunk. */
  constructor(fd: number, owner: TrunkOwner) {
    this.#fd = fd
    this.#owner = owner
    setBuffers(fd, { send: BUFFER_BYTES })
    const onReady = owner.guard('the socket of an InfiniBand port', () => {
      if (this.#isBlocked) this.#blockedAt = Number.POSITIVE_INFINITY
      this.#read()
      this.#update()
      owner.kick()
    })
    this.#watch = watch(fd, { readable: true }, onReady)
  }

  /** From now on packets pass. The trunk closes the port. */
  open(port: Port): void {
    this.#port = port
  }

  get #isBlocked(): boolean {
    return this.#blockedAt !== Number.POSITIVE_INFINITY
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#watch.stop()
    close(this.#fd)
    this.#port?.close()
  }

  #end(reason: string): void {
    if (this.#isClosed) return
    this.close()
    this.#owner.onEnd(reason)
  }

  #update(): void {
    if (!this.#isClosed) this.#watch.update({ readable: this.#staged === 0, writable: this.#isBlocked })
  }

  // ---- to the other process ----

  /** `mayLose`: a datagram, which is lost if too much waits. */
  sendControl(message: Uint8Array, mayLose = false): void {
    if (this.#isClosed || (mayLose && this.#waiting.length >= MAX_WAITING)) return
    this.#waiting.push(message)
    this.#sendWaiting()
    this.#update()
  }

  #sendWaiting(): void {
    while (this.#waiting.length > 0 && !this.#isBlocked && this.#send(this.#waiting[0]!)) this.#waiting.shift()
  }

  /** False: the message must wait. */
  #send(message: Uint8Array): boolean {
    const sent = sendBytes(this.#fd, message)
    // Without memory a message is lost, as a packet may be.
    if (sent >= 0 || sent === -ENOBUFS) return true
    if (sent === -EAGAIN) this.#blockedAt = Number.NaN
    // The next read finds the end.
    return sent !== -EAGAIN
  }

  /** Sends what has arrived at the port. */
  #forward(port: Port): boolean {
    let hadWork = false
    while (!this.#isBlocked) {
      if (this.#sent < 0) {
        if (!port.receive(this.#run)) break
        this.#sent = 0
      }
      hadWork = true
      if (!this.#sendPackets(port)) break
      if (this.#sent < this.#run.count) continue
      this.#sent = -1
      port.release()
    }
    return hadWork
  }

  #sendPackets({ arena }: Port): boolean {
    const { offset, packetBytes, count, lastBytes, flowAddress } = this.#run
    const packets = Math.min(count - this.#sent, packetsPerMessage(packetBytes))
    const last = this.#sent + packets === count ? lastBytes : packetBytes
    const at = offset + this.#sent * packetBytes
    const length = (packets - 1) * packetBytes + last
    if (putHeader(outgoingView, flowAddress, packetBytes, packets, last)) {
      outgoing.set(arena.bytes.subarray(at, at + length), HEADER_BYTES)
      if (!this.#send(outgoing.subarray(0, HEADER_BYTES + length))) return false
    }
    this.#sent += packets
    return true
  }

  /** Loses what waits for a process that has not read for LIFETIME. */
  #discard(port: Port): void {
    if (this.#sent >= 0) {
      port.counters.dropped += this.#run.count - this.#sent
      port.release()
      this.#sent = -1
    }
    while (port.receive(this.#run)) {
      port.counters.dropped += this.#run.count
      port.release()
    }
  }

  // ---- from the other process ----

  /** Returns whether there were messages. */
  #read(): boolean {
    let hadWork = this.#staged > 0 && this.#commit()
    for (let messages = 0; messages < BURST && this.#staged === 0 && !this.#isClosed; messages++) {
      const length = recvBytes(this.#fd, this.#staging)
      if (length === -EAGAIN) break
      hadWork = true
      if (length <= 0) this.#end('it has ended')
      else if (this.#staging[0] === MessageKind.CONTROL) {
        if (!this.#owner.onControl(this.#staging.subarray(0, length))) this.#end('it has sent no message of a port')
      } else if (this.#staging[0] !== MessageKind.DATA || this.#port === undefined || !this.#isRun(length))
        this.#end('it has sent no message of a port')
      else {
        this.#staged = length
        this.#commit()
      }
    }
    if (!this.#isClosed) this.#port?.flush()
    return hadWork
  }

  /** Whether the staged message has packets; then their sizes and flow are known. */
  #isRun(length: number): boolean {
    const sizes = readSizes(this.#view, length)
    if (sizes === undefined) return false
    this.#sizes = sizes
    this.#stagedFlow = this.#flow()
    return this.#stagedFlow >= 0
  }

  /** The flow of the staged message; -1: none can have it. */
  #flow(): number {
    const key = flowKey(this.#view)
    const known = this.#flows.get(key)
    if (known !== undefined) return known
    const flow = readFlow(this.#staging, this.#view)
    if (flow === undefined) return -1
    if (this.#flows.size >= MAX_FLOWS) {
      for (const number of this.#flows.values()) this.#port!.closeFlow(number)
      this.#flows.clear()
    }
    const opened = this.#port!.openFlow(flow)
    this.#flows.set(key, opened)
    return opened
  }

  /** Sends the staged packets by the port; false: it has no room. */
  #commit(): boolean {
    const port = this.#port!
    const bytes = this.#staged - HEADER_BYTES
    const at = port.reserve(bytes)
    if (at < 0) return false
    const [packetBytes, count, lastBytes] = this.#sizes
    port.arena.bytes.set(this.#staging.subarray(HEADER_BYTES, this.#staged), at)
    port.commit(at, packetBytes, count, lastBytes, this.#stagedFlow)
    this.#staged = 0
    return true
  }

  // ---- turns ----

  /** Returns whether there was anything to do. */
  poll(now: number): boolean {
    if (this.#isClosed) return false
    let hadWork = false
    if (this.#staged > 0 || this.#idlePolls < MAX_IDLE_POLLS) {
      const hadMessages = this.#read()
      this.#idlePolls = hadMessages ? 0 : this.#idlePolls + 1
      hadWork = hadMessages
    } else if (this.#port?.isWaiting?.() === true) this.#idlePolls = 0
    const port = this.#port
    if (port === undefined || this.#isClosed) return hadWork
    if (!this.#isBlocked) {
      this.#sendWaiting()
      hadWork = this.#forward(port) || hadWork
    }
    if (Number.isNaN(this.#blockedAt)) this.#blockedAt = now
    if (now - this.#blockedAt >= LIFETIME) this.#discard(port)
    this.#update()
    return hadWork
  }

  /** When `poll` must be called next, µs; Infinity: never. */
  nextTimeout(): number {
    if (this.#isClosed || !this.#isBlocked) return Number.POSITIVE_INFINITY
    if (Number.isNaN(this.#blockedAt)) return Number.NEGATIVE_INFINITY
    const hasPackets = this.#sent >= 0 || this.#port?.isWaiting?.() === true
    return hasPackets ? this.#blockedAt + LIFETIME : Number.POSITIVE_INFINITY
  }
}
