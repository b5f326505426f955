/*
 * The sender's side of messages: the frames that this side posts, as far as the peer has granted them, the calls of
 * `send` that wait, and the long messages that the peer may read.
 */
import { Errno } from '../../../spec/errno.ts'
import type { WaitLimits } from '../../verbs/awaitable/queue-pair.ts'
import { type Outstanding, startLimits } from '../../verbs/awaitable/request-promises.ts'
import { invalidArgument, RdmaError, refused } from '../../verbs/error.ts'
import type { MemoryRegion } from '../../verbs/mr/region.ts'
import { rcPosts } from '../../verbs/qp/connected.ts'
import { type BufferPool, bufferPool, type FrameBuffer } from './buffers.ts'
import { type End, endedError } from './end.ts'
import {
  FrameType,
  HEADER_BYTES,
  HELLO_BYTES,
  type Hello,
  OFFER_BYTES,
  putHeader,
  putHello,
  putOffer,
  VERSION,
} from './frame.ts'
import type { Whole } from './parts.ts'
import { IDLE_WINDOW } from './receive-window.ts'
import { READS, type Receiving } from './receiving.ts'

const { HELLO, DATA, OFFER, UNUSED, ABORT } = FrameType
/** Sends that are not for DATA and OFFER: ACK or END, the ping, READs. */
const OTHER_SENDS = 2 + READS
/** Maximum calls of `send` that wait. */
const MAX_WAITING = 4096

const SENT = Promise.resolve()

/** A SEND and its buffer. A class, so that a frame costs one small object. */
class SentFrame implements Outstanding {
  readonly queue = 'send'
  readonly #buffer: FrameBuffer
  readonly #owner: Sending

  constructor(owner: Sending, buffer: FrameBuffer) {
    this.#owner = owner
    this.#buffer = buffer
  }

  get call(): string {
    return 'messages.send'
  }

  resolve(): void {
    this.#owner.frameSent(this.#buffer)
  }

  reject(error: () => RdmaError, isConsequence: boolean): void {
    this.#owner.frameFailed(this.#buffer, error, isConsequence)
  }
}

interface WaitingSend {
  readonly message: Uint8Array
  /** Bytes of the message when `send` was called. */
  readonly length: number
  isSettled: boolean
  settle(error?: unknown): void
}

/** A long message that the peer may read. */
interface OfferedMessage {
  readonly region: MemoryRegion
  settle(error?: unknown): void
}

/** Counters are modulo 2^32. */
export class Sending {
  /** SENDs without a completion. */
  inFlight = 0
  /** Longest message that the peer takes, and the longest in DATA, in bytes. */
  maxMessageBytes = 0
  #maxDataBytes = 0
  readonly #whole: Whole
  readonly #receiving: Receiving
  readonly #buffers: BufferPool
  /** For HELLO, ACK, END and UNUSED. */
  readonly #controlBuffers: BufferPool
  /** For HELLO, ACK and END, one at a time. */
  readonly #controlBuffer: FrameBuffer
  #isControlInFlight = false
  /** Buffers that may be in flight beside it, and those that are. */
  readonly #maxSends: number
  #buffersInFlight = 0
  /** Buffers of SENDs that have failed: the queue pair may use them until it is closed. */
  readonly #failedBuffers: FrameBuffer[] = []
  readonly #waiting: WaitingSend[] = []
  readonly #offered: OfferedMessage[] = []
  /** Frames DATA and OFFER that the peer has granted. */
  #limit = 0
  #sentFrames = 0
  /** `#sentFrames` at the last check of the peer. */
  #checkedFrames = 0
  /** Offered messages that the peer has read. */
  #offersDone = 0

  /** Throws RdmaError if memory cannot be registered. */
  constructor(whole: Whole, receiving: Receiving, buffers: BufferPool) {
    this.#whole = whole
    this.#receiving = receiving
    this.#buffers = buffers
    this.#controlBuffers = bufferPool(whole.pd, HELLO_BYTES)
    this.#controlBuffer = this.#controlBuffers.take()
    this.#maxSends = whole.qp.maxSendWr - OTHER_SENDS
  }

  /** Whether the peer has granted frames. */
  get hasGrants(): boolean {
    return this.#limit > 0
  }

  get isWaiting(): boolean {
    return this.#waiting.length > 0
  }

  /** Whether there are messages that the peer has not read. */
  get hasOffers(): boolean {
    return this.#offered.length > 0
  }

  /** Whether a frame without a message can be posted. */
  get canPostControl(): boolean {
    return !this.#isControlInFlight && this.#whole.promises.sendRoom > 0
  }

  #canSend(): boolean {
    return (
      this.#limit !== this.#sentFrames && this.#buffersInFlight < this.#maxSends && this.#whole.promises.sendRoom > 0
    )
  }

  /** Sends a message of valid length, now if possible. Throws RdmaError. */
  send(message: Uint8Array, limits: WaitLimits | undefined): Promise<void> {
    const { isEnding } = this.#whole
    if (isEnding) throw new RdmaError('ERR_CLOSED', Errno.EINVAL, 'messages.send', 'this side has ended')
    if (message.length > this.maxMessageBytes)
      throw refused(
        'EMSGSIZE',
        'messages.send',
        `the message has ${message.length} bytes, the peer takes ${this.maxMessageBytes}`,
        'send parts, or set maxMessageBytes at the peer',
      )
    if (message.length <= this.#maxDataBytes && this.#waiting.length === 0 && this.#canSend()) {
      this.#postData(message)
      return SENT
    }
    if (this.#waiting.length >= MAX_WAITING)
      throw refused('ENOMEM', 'messages.send', `${MAX_WAITING} sends wait for the peer`, 'await earlier ones first')
    return this.#sendLater(message, limits)
  }

  #sendLater(message: Uint8Array, limits: WaitLimits = {}): Promise<void> {
    const whole = this.#whole
    return whole.withStack(
      'messages.send',
      new Promise((resolve, reject) => {
        const waiting: WaitingSend = {
          message,
          length: message.length,
          isSettled: false,
          settle(error) {
            this.isSettled = true
            endLimits()
            if (error === undefined) resolve()
            else reject(error)
          },
        }
        const endLimits = startLimits(whole.clock, 'messages.send', limits, 'the peer takes no messages', error => {
          const at = this.#waiting.indexOf(waiting)
          if (at >= 0) this.#waiting.splice(at, 1)
          waiting.settle(error)
        })
        this.#waiting.push(waiting)
        whole.pump()
      }),
    )
  }

  /** The peer's HELLO has arrived. */
  opened({ slotBytes, maxMessageBytes }: Hello): void {
    this.maxMessageBytes = maxMessageBytes
    this.#maxDataBytes = Math.min(slotBytes, this.#whole.limits.slotBytes) - HEADER_BYTES
  }

  /** Takes over the counters of a frame of the peer. Returns what is wrong with them. */
  readCounters(granted: number, done: number): string | undefined {
    if (((granted - this.#limit) | 0) < 0) return `${granted} frames granted, after ${this.#limit}`
    this.#limit = granted
    const finished = (done - this.#offersDone) >>> 0
    if (finished > this.#offered.length)
      return `${finished} messages read, although ${this.#offered.length} were offered`
    this.#offersDone = done
    for (const { region, settle } of this.#offered.splice(0, finished)) {
      region.close()
      settle()
    }
    return undefined
  }

  /** Posts the frame whose bytes after the header are in `buffer`. If that throws, nothing has changed. */
  #postFrame(buffer: FrameBuffer, type: number, bytes: number, length: number): void {
    const whole = this.#whole
    const receiving = this.#receiving
    putHeader(buffer.view, buffer.at, type, receiving.granted, receiving.done, length)
    const slice = buffer.slice(bytes)
    whole.promises.post(new SentFrame(this, buffer), id => rcPosts.send.call(whole.qp, slice, { id }))
    receiving.announced()
    this.inFlight++
    whole.peer.watchForLoss()
  }

  /** Posts ACK or END. */
  postControl(type: number, bytes = HEADER_BYTES): void {
    this.#postFrame(this.#controlBuffer, type, bytes, 0)
    this.#isControlInFlight = true
  }

  postHello(): void {
    const { view, at } = this.#controlBuffer
    putHello(view, at, { version: VERSION, ...this.#whole.limits })
    this.postControl(HELLO, HELLO_BYTES)
  }

  /** As `#postFrame`, in a buffer that is given back when the frame was sent or cannot be posted. */
  #postOwned(buffer: FrameBuffer, type: number, bytes: number, length: number): void {
    try {
      this.#postFrame(buffer, type, bytes, length)
    } catch (error) {
      buffer.giveBack()
      throw error
    }
    this.#buffersInFlight++
  }

  /** As `#postOwned`, for frames that use a grant of the peer. */
  #postGranted(buffer: FrameBuffer, type: number, bytes: number, length: number): void {
    this.#postOwned(buffer, type, bytes, length)
    this.#sentFrames = (this.#sentFrames + 1) >>> 0
  }

  /** Tells the peer as much of the reason as fits its receive buffer. */
  postAbort(reason: string): void {
    const buffer = this.#buffers.take()
    const start = buffer.at + HEADER_BYTES
    const room = buffer.bytes.subarray(start, start + this.#maxDataBytes)
    const { written } = new TextEncoder().encodeInto(reason, room)
    this.#postOwned(buffer, ABORT, HEADER_BYTES + written, written)
  }

  #postData(message: Uint8Array): void {
    const buffer = this.#buffers.take()
    buffer.bytes.set(message, buffer.at + HEADER_BYTES)
    this.#postGranted(buffer, DATA, HEADER_BYTES + message.length, message.length)
  }

  /** Registers a long message, and tells the peer its address. */
  #postOffer(waiting: WaitingSend): void {
    const { message } = waiting
    const region = this.#whole.pd.register(message, { localWrite: false, remoteRead: true })
    try {
      const buffer = this.#controlBuffers.take()
      putOffer(buffer.view, buffer.at, region)
      this.#postGranted(buffer, OFFER, OFFER_BYTES, message.length)
    } catch (error) {
      region.close()
      throw error
    }
    this.#offered.push({
      region,
      settle: error => {
        if (!waiting.isSettled) waiting.settle(error)
      },
    })
  }

  /**
   * Called from time to time: if nothing was sent since, tells the peer that its grants above IDLE_WINDOW are not used.
   */
  returnUnusedGrants(): void {
    const isIdle = this.#sentFrames === this.#checkedFrames && !this.#whole.isEnding
    if (isIdle)
      try {
        while ((this.#limit - this.#sentFrames) >>> 0 > IDLE_WINDOW && this.#canSend())
          this.#postGranted(this.#controlBuffers.take(), UNUSED, HEADER_BYTES, 0)
      } catch (error) {
        this.#whole.fail(() => error, false)
      }
    this.#checkedFrames = this.#sentFrames
  }

  /** Posts waiting messages, as far as the peer has granted frames. */
  postWaiting(): void {
    while (this.#waiting.length > 0 && this.#canSend()) this.#postOne(this.#waiting.shift()!)
  }

  #postOne(waiting: WaitingSend): void {
    const { message, length } = waiting
    try {
      if (message.length !== length) {
        const reason = `the message had ${length} bytes and has ${message.length}: its buffer was transferred or resized`
        throw invalidArgument('messages.send', reason, 'change nothing before send resolves')
      }
      if (length > this.#maxDataBytes) this.#postOffer(waiting)
      else {
        this.#postData(message)
        waiting.settle()
      }
    } catch (error) {
      waiting.settle(error)
    }
  }

  /** A SEND is complete. */
  frameSent(buffer: FrameBuffer): void {
    this.#whole.peer.addSign()
    this.inFlight--
    if (buffer === this.#controlBuffer) this.#isControlInFlight = false
    else {
      this.#buffersInFlight--
      buffer.giveBack()
    }
  }

  frameFailed(buffer: FrameBuffer, error: () => unknown, isConsequence: boolean): void {
    if (buffer !== this.#controlBuffer) this.#failedBuffers.push(buffer)
    this.#whole.fail(error, isConsequence)
  }

  rejectWaiting(end: End): void {
    for (const waiting of this.#waiting.splice(0)) waiting.settle(endedError('messages.send', end))
  }

  /** The messages have ended. The peer may read offered messages until `closeOffers`. */
  finish(end: End): void {
    this.rejectWaiting(end)
    for (const { settle } of this.#offered) settle(endedError('messages.send', end))
  }

  closeOffers(): void {
    for (const { region } of this.#offered.splice(0)) region.close()
  }

  /** The queue pair is closed. */
  releaseBuffers(): void {
    for (const buffer of this.#failedBuffers.splice(0)) buffer.giveBack()
    this.#controlBuffer.giveBack()
  }
}
