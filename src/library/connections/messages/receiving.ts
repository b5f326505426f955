/*
 * The receiver's side of messages: posted receives, the messages that have arrived or are read from the peer's memory,
 * and the program's calls that wait for them. read-frame.ts says what a frame does.
 */

import { checkOptions } from '../../verbs/arguments/options.ts'
import { checkLimits, limitNames, type WaitLimits } from '../../verbs/awaitable/queue-pair.ts'
import { type CompletedRequest, type Outstanding, startLimits } from '../../verbs/awaitable/request-promises.ts'
import type { RdmaError } from '../../verbs/error.ts'
import type { MemoryRegion } from '../../verbs/mr/region.ts'
import type { RemoteMemory } from '../../verbs/mr/remote-memory.ts'
import { rcPosts } from '../../verbs/qp/connected.ts'
import type { BufferPool, FrameBuffer } from './buffers.ts'
import { brokenRule, endedError } from './end.ts'
import { HEADER_BYTES } from './frame.ts'
import type { Whole } from './parts.ts'
import { IDLE_WINDOW, ReceiveWindow } from './receive-window.ts'

/** Receive buffers for frames without a credit: HELLO, ACK, END. More of them wait in the peer (RNR). */
const CONTROL_RECEIVES = 2
/** Bytes of one READ, and READs in flight. */
const READ_BYTES = 2 ** 20
export const READS = 2

const NO_CREDIT = 'a message without a credit'

/** A posted receive, or a SEND of the peer in its buffer. A class, so that a frame costs one small object. */
export class ReceivedFrame implements Outstanding {
  readonly queue = 'receive'
  readonly buffer: FrameBuffer
  readonly #owner: Receiving

  constructor(owner: Receiving, buffer: FrameBuffer) {
    this.#owner = owner
    this.buffer = buffer
  }

  get call(): string {
    return 'messages.receive'
  }

  resolve({ bytes, opcode }: CompletedRequest): void {
    this.#owner.frameReceived(this, bytes, opcode)
  }

  reject(error: () => RdmaError, isConsequence: boolean): void {
    this.#owner.frameFailed(this.buffer, error, isConsequence)
  }
}

/** Executes a frame: `bytes` and `opcode` of its completion. Returns what is wrong with it. */
type ExecuteFrame = (frame: ReceivedFrame, bytes: number, opcode: string) => string | undefined

/** A message that has arrived, or was offered. */
interface Incoming {
  readonly length: number
  /** The receive whose buffer has the message; undefined for an offered message, and after the end. */
  frame: ReceivedFrame | undefined
  /** The message, unless a frame has it. */
  bytes: Uint8Array | undefined
  /** Offered: the peer's memory. */
  readonly remote: RemoteMemory | undefined
  /** Offered: where the message is read to. */
  region: MemoryRegion | undefined
  /** Offered: bytes for which READs were posted, and bytes read. */
  posted: number
  read: number
}

interface Taker {
  resolve(message: Uint8Array | undefined): void
  reject(error: unknown): void
}

const isComplete = ({ frame, read, length }: Incoming): boolean => frame !== undefined || read === length

const copyOfMessage = ({ bytes, at }: FrameBuffer, length: number): Uint8Array =>
  bytes.slice(at + HEADER_BYTES, at + HEADER_BYTES + length)

export class Receiving {
  readsInFlight = 0
  /** Offered messages that were read; a counter modulo 2^32 for the header of a frame. */
  done = 0
  #doneAnnounced = 0
  /** Whether the peer's first frame has arrived, and its END. */
  hasHello = false
  hasPeerEnded = false
  readonly #whole: Whole
  readonly #execute: ExecuteFrame
  readonly #buffers: BufferPool
  readonly #window: ReceiveWindow
  /** Receives that are posted or have a message: for each frame of the window, and CONTROL_RECEIVES. */
  #receives = 0
  /** Buffers of receives that have failed: the queue pair may use them until it is closed. */
  readonly #failedBuffers: FrameBuffer[] = []
  readonly #incoming: Incoming[] = []
  readonly #takers: Taker[] = []
  /** The offered messages of `#incoming` for which not all READs are posted. */
  readonly #unread: Incoming[] = []
  /** Bytes of buffers for offered messages that the program has not taken. */
  #offeredBytes = 0
  /** Offered messages that were not read before the end. */
  #lost: readonly Incoming[] = []

  constructor(whole: Whole, buffers: BufferPool, execute: ExecuteFrame) {
    this.#whole = whole
    this.#execute = execute
    this.#buffers = buffers
    this.#window = new ReceiveWindow(whole.qp.maxRecvWr - CONTROL_RECEIVES)
  }

  /** Buffers for the first receives. Throws RdmaError if memory cannot be registered. */
  takeFirstBuffers(): FrameBuffer[] {
    return this.#buffers.takeMany(IDLE_WINDOW + CONTROL_RECEIVES)
  }

  /** Posts one more receive. */
  addReceive(buffer: FrameBuffer): void {
    this.#receives++
    this.#postReceive(new ReceivedFrame(this, buffer))
  }

  /** The grants for the header of a frame; after the frame was posted, call `announced`. */
  get granted(): number {
    return this.#window.granted
  }

  announced(): void {
    this.#window.announced()
    this.#doneAnnounced = this.done
  }

  /** Whether the peer should be told of counters, by a frame without a message if there is no other. */
  get owesCounters(): boolean {
    return this.done !== this.#doneAnnounced || this.#window.owesCredits
  }

  #postReceive(frame: ReceivedFrame): void {
    const { buffer } = frame
    const { limits, promises, qp } = this.#whole
    try {
      const slice = buffer.slice(limits.slotBytes)
      promises.post(frame, id => rcPosts.receive.call(qp, slice, id))
    } catch (error) {
      this.frameFailed(buffer, () => error, false)
    }
  }

  /** Posts the receive of a frame again, or gives its buffer back if there are more than the window needs. */
  reuse(frame: ReceivedFrame): void {
    if (this.#receives <= this.#window.open + CONTROL_RECEIVES) this.#postReceive(frame)
    else {
      this.#receives--
      frame.buffer.giveBack()
    }
  }

  /** Adds the receive for one more grant, unless there is one. Throws if there is no memory for it. */
  #addReceiveForGrant(): void {
    if (this.#receives <= this.#window.open + CONTROL_RECEIVES) this.addReceive(this.#buffers.take())
  }

  /** Called from time to time: buffers that a burst has needed are given back. */
  shrink(): void {
    this.#window.shrink()
  }

  /** The next message; undefined after the end in order. Rejects with RdmaError. */
  next(call: string, limits: WaitLimits): Promise<Uint8Array | undefined> {
    try {
      checkOptions(call, 'options', limits, limitNames)
      checkLimits(call, limits)
    } catch (error) {
      return Promise.reject(error)
    }
    return new Promise((resolve, reject) => {
      if (limits.signal === undefined && limits.timeout === undefined) this.#takers.push({ resolve, reject })
      else {
        const endLimits = startLimits(this.#whole.clock, call, limits, '', error => {
          const at = this.#takers.indexOf(taker)
          if (at >= 0) this.#takers.splice(at, 1)
          reject(error)
        })
        const taker: Taker = {
          resolve(message) {
            endLimits()
            resolve(message)
          },
          reject(error) {
            endLimits()
            reject(error)
          },
        }
        this.#takers.push(taker)
      }
      this.#deliver()
    })
  }

  /** Gives messages to `receive`, in order. */
  #deliver(): void {
    while (this.#takers.length > 0 && this.#incoming.length > 0 && isComplete(this.#incoming[0]!)) {
      const message = this.#take(this.#incoming.shift()!)
      this.#takers.shift()!.resolve(message)
    }
    if (this.#incoming.length > 0) return
    const { end } = this.#whole
    if (end !== undefined) {
      for (const taker of this.#takers.splice(0))
        if (end.failure === undefined) taker.resolve(undefined)
        else taker.reject(endedError('messages.receive', end))
    } else if (this.hasPeerEnded) for (const taker of this.#takers.splice(0)) taker.resolve(undefined)
  }

  /** The bytes of a complete message. Gives its buffer and its credit back. */
  #take(incoming: Incoming): Uint8Array {
    const { frame, length, region } = incoming
    if (region !== undefined) this.#offeredBytes -= length
    const message = incoming.bytes ?? copyOfMessage(frame!.buffer, length)
    if (this.#whole.end !== undefined) {
      frame?.buffer.giveBack()
      return message
    }
    this.#window.renew()
    if (frame !== undefined) this.reuse(frame)
    if (region !== undefined || this.#window.owesCredits) this.#whole.pump()
    return message
  }

  /** A receive is complete. Runs while completions are settled, so it must not throw. */
  frameReceived(frame: ReceivedFrame, bytes: number, opcode: string): void {
    const whole = this.#whole
    whole.peer.addSign()
    if (whole.end === undefined) {
      const problem = this.#execute(frame, bytes, opcode)
      if (problem === undefined) return
      whole.finish(brokenRule(problem))
    }
    frame.buffer.giveBack()
  }

  frameFailed(buffer: FrameBuffer, error: () => unknown, isConsequence: boolean): void {
    this.#failedBuffers.push(buffer)
    this.#whole.fail(error, isConsequence)
  }

  /** A message in a frame. Returns what is wrong. */
  addMessage(frame: ReceivedFrame, length: number): string | undefined {
    return this.#arrive({ length, frame, bytes: undefined, remote: undefined, region: undefined, posted: 0, read: 0 })
  }

  /** A message in the peer's memory. Returns what is wrong. */
  addOffer(remote: RemoteMemory, length: number): string | undefined {
    const incoming: Incoming = {
      length,
      frame: undefined,
      bytes: undefined,
      remote,
      region: undefined,
      posted: 0,
      read: 0,
    }
    const problem = this.#arrive(incoming)
    if (problem === undefined) this.#unread.push(incoming)
    return problem
  }

  /** The peer sends no more messages. */
  endOfPeer(): void {
    this.hasPeerEnded = true
    this.#deliver()
  }

  /** The peer does not need a grant. Returns what is wrong. */
  giveUpGrant(): string | undefined {
    if (!this.#window.use()) return NO_CREDIT
    this.#window.giveUp()
    return undefined
  }

  /** Queues a message. The program may be faster than the end of this function. */
  #arrive(incoming: Incoming): string | undefined {
    if (!this.#window.use()) return NO_CREDIT
    if (this.hasPeerEnded) return 'a message after END'
    if (this.#window.isUsedUp) this.#window.grow(() => this.#addReceiveForGrant())
    this.#incoming.push(incoming)
    this.#deliver()
    return undefined
  }

  /** Posts READs of offered messages, as long as there is room for the messages. */
  postReads(): void {
    const { limits, pd, peer, promises, qp } = this.#whole
    while (this.#unread.length > 0 && this.readsInFlight < READS && promises.sendRoom > 0) {
      const incoming = this.#unread[0]!
      const { length, posted } = incoming
      if (incoming.region === undefined) {
        if (this.#offeredBytes > 0 && this.#offeredBytes + length > limits.maxMessageBytes) return
        incoming.bytes = new Uint8Array(length)
        incoming.region = pd.register(incoming.bytes)
        this.#offeredBytes += length
      }
      const bytes = Math.min(READ_BYTES, length - posted)
      const request: Outstanding = {
        call: 'messages.receive',
        queue: 'send',
        resolve: () => this.#onRead(incoming, bytes),
        reject: (error, isConsequence) => this.#whole.fail(error, isConsequence),
      }
      const local = incoming.region.slice(posted, bytes)
      const remote = incoming.remote!.slice(posted, bytes)
      promises.post(request, id => rcPosts.read.call(qp, local, remote, { id }))
      incoming.posted += bytes
      this.readsInFlight++
      peer.watchForLoss()
      if (incoming.posted === length) this.#unread.shift()
    }
  }

  #onRead(incoming: Incoming, bytes: number): void {
    this.#whole.peer.addSign()
    this.readsInFlight--
    incoming.read += bytes
    if (!isComplete(incoming) || this.#whole.end !== undefined) return
    incoming.region?.close()
    this.done = (this.done + 1) >>> 0
    this.#deliver()
  }

  /** Before the end: drops the messages from the first on that is not complete. Returns whether there is one. */
  dropIncomplete(): boolean {
    const first = this.#incoming.findIndex(incoming => !isComplete(incoming))
    if (first < 0) return false
    this.#lost = this.#incoming.splice(first)
    return true
  }

  /** The messages have ended; those that have arrived can still be received. */
  finish(): void {
    this.#deliver()
  }

  closeReads(): void {
    for (const { region } of this.#lost) region?.close()
  }

  /** The queue pair is closed: messages that wait for the program get their own memory. */
  releaseBuffers(): void {
    for (const buffer of this.#failedBuffers.splice(0)) buffer.giveBack()
    for (const { frame } of this.#lost) frame?.buffer.giveBack()
    for (const incoming of this.#incoming) {
      const { frame, length } = incoming
      if (frame === undefined) continue
      incoming.bytes = copyOfMessage(frame.buffer, length)
      incoming.frame = undefined
      incoming.read = length
      frame.buffer.giveBack()
    }
  }
}
