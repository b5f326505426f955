/*
 * `connection.messages()`: messages of any size over a reliable connection. A short message is a SEND into a receive
 * buffer of the peer, for which the sender needs a credit. The peer reads a long message from the sender's memory by
 * RDMA READ. docs/reference/messages.md has the frames and the rules. A peer that breaks a rule is disconnected; what
 * it sends changes only the receive buffers and buffers for announced messages.
 */
import { type Clock, nextTurnOf, type Timer } from '../../../host/event-loop/clock.ts'
import { Errno } from '../../../spec/errno.ts'
import { checkOptions, type KnownOptions } from '../../verbs/arguments/options.ts'
import { checkLimits, limitNames, promisesOf, type WaitLimits } from '../../verbs/awaitable/queue-pair.ts'
import {
  type CompletedRequest,
  type Outstanding,
  type RequestPromises,
  startLimits,
} from '../../verbs/awaitable/request-promises.ts'
import {
  checkBytes,
  checkInteger,
  formatValue,
  hideFields,
  invalidArgument,
  RdmaError,
  refused,
} from '../../verbs/error.ts'
import type { MemoryRegion } from '../../verbs/mr/region.ts'
import { type RemoteMemory, remoteMemory } from '../../verbs/mr/remote-memory.ts'
import { orElse, showAs } from '../../verbs/objects/show.ts'
import type { ProtectionDomain } from '../../verbs/pd.ts'
import { rcPosts } from '../../verbs/qp/connected.ts'
import { postPing } from '../../verbs/qp/operations.ts'
import type { QueuedQp } from '../../verbs/qp/queue-pair.ts'
import { beginStackAtProgram } from '../../verbs/watch/stacks.ts'
import type { CloseReason } from '../events.ts'
import { type BufferPool, bufferPool, type FrameBuffer } from './buffers.ts'
import {
  doneAt,
  FrameType,
  grantedAt,
  HEADER_BYTES,
  HELLO_BYTES,
  type Hello,
  helloAt,
  lengthAt,
  OFFER_BYTES,
  offerAt,
  putHeader,
  putHello,
  putOffer,
  typeAt,
  VERSION,
} from './frame.ts'
import { IDLE_WINDOW, ReceiveWindow } from './receive-window.ts'

/** Options of `connection.messages()`. */
export interface MessagesOptions extends WaitLimits {
  /**
   * Bytes of a receive buffer, 64 to 2^20; default 4096. Messages of up to this many bytes, less 16, and of the peer's
   * value, travel as one SEND; the peer reads longer ones by RDMA READ. A connection has 4 of these buffers, up to
   * `maxRecvWr` while messages arrive, and one for each message in flight, fewer than `maxSendWr` (option `qp` of
   * `connect` and `accept`).
   */
  readonly slotBytes?: number | undefined
  /**
   * Longest message that this side takes, in bytes, 1 to 2^32 - 1; default 2^26. Also bounds the bytes of long messages
   * that were read before the program takes them.
   */
  readonly maxMessageBytes?: number | undefined
  /**
   * Milliseconds, 30 to 2^31 - 1, after which a peer that does not answer counts as dead, also on an idle connection;
   * default 10,000. It is noticed up to a third later. The transport may notice earlier: with the default of `ackTimeout`
   * after 17 seconds.
   */
  readonly keepalive?: number | undefined
  /** Milliseconds to wait until the peer has called `messages()` too; default 10,000. */
  readonly timeout?: number | undefined
}

/**
 * Messages over a connection: each `send` of one side is one `receive` of the other, in order. `for await` yields the
 * messages until this side or the peer closes, and rejects with RdmaError ERR_CLOSED if the connection has failed.
 * `await using` closes in order if `end` or `close` was called, and aborts otherwise, because a block that is left by an
 * error must not look finished.
 */
export interface Messages extends AsyncIterable<Uint8Array>, AsyncDisposable {
  /** Longest message that the peer takes, in bytes. */
  readonly maxMessageBytes: number
  /**
   * Sends a message. Resolves when its bytes may be changed: a short message is then posted, a long one was read by the
   * peer. Waits while the peer has no room for it. Rejects with RdmaError: ERR_CLOSED if the connection is closed or
   * has failed, EMSGSIZE if the message is too long for the peer, ENOMEM if 4,096 sends wait already. If `options` end
   * the wait, the message is not sent, unless it is long and the peer has its offer already.
   */
  send(message: Uint8Array, options?: WaitLimits): Promise<void>
  /**
   * The next message, a copy. Rejects with RdmaError ERR_CLOSED when no more follows: its `cause` is the failure, if
   * there was one.
   */
  receive(options?: WaitLimits): Promise<Uint8Array>
  /**
   * Ends this direction: resolves when the peer has received or read all messages, and its loop ends. This side still
   * receives. Rejects with RdmaError ERR_CLOSED.
   */
  end(options?: WaitLimits): Promise<void>
  /** Resolves when the connection has ended, with what ended it. */
  readonly closed: Promise<CloseReason>
  /**
   * Closes the connection when the peer has received the short messages whose `send` has resolved; waits a second at
   * most. Other sends, and receives, reject with RdmaError ERR_CLOSED; if there are such sends, the peer is told as by
   * `abort`.
   */
  close(): Promise<void>
  /**
   * Closes the connection, and tells the peer that messages are missing: there `receive`, `send`, `end` and loops reject
   * with RdmaError ERR_CLOSED after the messages that have arrived. The `cause` of the errors at both ends has the code
   * ECONNABORTED and this reason: a text, or the `message` of an error. The peer gets as much of it as fits a receive
   * buffer. Waits a second at most. Does nothing after the end.
   */
  abort(reason?: unknown): Promise<void>
}

/** What messages need of a `Connection`, which imports this file. */
interface Carrier {
  readonly clock: Clock
  readonly pd: ProtectionDomain
  readonly qp: object
  readonly closed: Promise<CloseReason>
  close(): Promise<void>
}

const messagesOptionNames: KnownOptions<MessagesOptions> = {
  slotBytes: true,
  maxMessageBytes: true,
  keepalive: true,
  ...limitNames,
}

const { HELLO, DATA, OFFER, ACK, END, ABORT, UNUSED } = FrameType
const DEFAULT_SLOT_BYTES = 4096
const DEFAULT_MAX_MESSAGE_BYTES = 2 ** 26
const DEFAULT_KEEPALIVE = 10_000
const DEFAULT_TIMEOUT = 10_000
const MAX_TIMER_DELAY = 2 ** 31 - 1
/** Milliseconds to wait for the sends in flight, or for the disconnection by the peer. */
const CLOSE_TIMEOUT = 1000
/** Receive buffers for frames without a credit: HELLO, ACK, END. More of them wait in the peer (RNR). */
const CONTROL_RECEIVES = 2
/** Bytes of one READ, and READs in flight. */
const READ_BYTES = 2 ** 20
const READS = 2
/** Sends that are not for DATA and OFFER: ACK or END, the ping, READs. */
const OTHER_SENDS = 2 + READS
const MIN_QUEUE = 8
/** Maximum calls of `send` that wait. */
const MAX_WAITING = 4096
/** A dead peer is noticed after three whole parts without a sign of life, the fourth part at most. */
const KEEPALIVE_PARTS = 3
/** Milliseconds without a completion, the first time, after which requests in flight are followed by a ping. */
const PROBE_DELAY = 67

const SENT = Promise.resolve()
const NO_CREDIT = 'a message without a credit'

/** A posted receive, or a SEND, and its buffer. A class, so that a frame costs one small object. */
class FrameRequest implements Outstanding {
  readonly queue: Outstanding['queue']
  readonly buffer: FrameBuffer
  readonly #owner: MessagesObject

  constructor(owner: MessagesObject, queue: Outstanding['queue'], buffer: FrameBuffer) {
    this.#owner = owner
    this.queue = queue
    this.buffer = buffer
  }

  get call(): string {
    return this.queue === 'receive' ? 'messages.receive' : 'messages.send'
  }

  resolve({ bytes, opcode }: CompletedRequest): void {
    if (this.queue === 'receive') this.#owner.frameReceived(this, bytes, opcode)
    else this.#owner.frameSent(this.buffer)
  }

  reject(error: () => RdmaError, isConsequence: boolean): void {
    this.#owner.frameFailed(this.buffer, error, isConsequence)
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

/** A message that has arrived, or was offered. */
interface Incoming {
  readonly length: number
  /** The receive whose buffer has the message; undefined for an offered message, and after the end. */
  frame: FrameRequest | undefined
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

/** Why there are no more messages. */
interface End {
  /** Undefined: the program or the peer has closed in order. */
  readonly failure: RdmaError | undefined
  readonly text: string
}

/** ERR_CLOSED for a method of ended messages; `cause` is the failure. */
const endedError = (call: string, { failure, text }: End): RdmaError => {
  const error = new RdmaError('ERR_CLOSED', Errno.EINVAL, call, text)
  if (failure !== undefined) {
    Object.assign(error, { cause: failure })
    hideFields(error, 'cause')
  }
  return error
}

const isComplete = ({ frame, read, length }: Incoming): boolean => frame !== undefined || read === length

const copyOfMessage = ({ bytes, at }: FrameBuffer, length: number): Uint8Array =>
  bytes.slice(at + HEADER_BYTES, at + HEADER_BYTES + length)

/** The end by `abort`, of this side or the peer. */
const abortedEnd = (who: string, reason: string): End => ({
  failure: refused('ECONNABORTED', 'messages.abort', reason, ''),
  text: reason === '' ? `${who} has aborted` : `${who} has aborted: ${reason}`,
})

class MessagesObject implements Messages {
  maxMessageBytes = 0
  readonly #connection: Carrier
  readonly #clock: Clock
  readonly #qp: QueuedQp
  readonly #promises: RequestPromises
  readonly #limits: Pick<Hello, 'slotBytes' | 'maxMessageBytes'>
  readonly #buffers: BufferPool
  /** For HELLO, ACK, END and UNUSED. */
  readonly #controlBuffers: BufferPool
  /** Buffers of requests that have failed: the queue pair may use them until it is closed. */
  readonly #failedBuffers: FrameBuffer[] = []

  // Receiving.
  readonly #window: ReceiveWindow
  /** Receives that are posted or have a message: for each frame of the window, and CONTROL_RECEIVES. */
  #receives = 0
  readonly #incoming: Incoming[] = []
  readonly #takers: Taker[] = []
  /** The offered messages of `#incoming` for which not all READs are posted. */
  readonly #unread: Incoming[] = []
  #readsInFlight = 0
  /** Bytes of buffers for offered messages that the program has not taken. */
  #offeredBytes = 0
  #done = 0
  #doneAnnounced = 0
  #hasPeerEnded = false
  /** Offered messages that were not read before the end. */
  #lost: readonly Incoming[] = []

  // Sending. Counters are modulo 2^32.
  /** For HELLO, ACK and END, one at a time. */
  readonly #controlBuffer: FrameBuffer
  #isControlInFlight = false
  /** Buffers that may be in flight beside it, and those that are. */
  readonly #maxSends: number
  #buffersInFlight = 0
  #sendsInFlight = 0
  readonly #waiting: WaitingSend[] = []
  readonly #offered: OfferedMessage[] = []
  /** Longest message in DATA. */
  #maxDataBytes = 0
  /** Frames DATA and OFFER that the peer has granted. */
  #limit = 0
  #sentFrames = 0
  /** `#sentFrames` at the last check of the peer. */
  #checkedFrames = 0
  #offersDone = 0
  #isEnding = false
  #isEndPosted = false
  /** The reason for the peer; undefined unless this side aborts. */
  #abortReason: string | undefined
  #isAbortPosted = false
  /** Called after completions, and at the end. */
  #watchers: (() => void)[] = []

  #end: End | undefined
  /** Whether a request has failed as a consequence. */
  #isFlushed = false
  #hasPeerAborted = false
  /** What ends the messages if nothing else does before `#closing` has told the peer. */
  #ownEnd: End = { failure: undefined, text: 'the program has closed the messages' }
  #closing: Promise<void> | undefined
  #onHello: (() => void) | undefined
  /** Completions: signs that the peer lives. */
  #signs = 0
  /** `#signs` at the last check of the peer. */
  #checkedSigns = 0
  #silentParts = 0
  #timer: Timer | undefined
  #probeTimer: Timer | undefined
  #probeDelay = PROBE_DELAY

  constructor(
    connection: Carrier,
    promises: RequestPromises,
    slotBytes: number,
    maxMessageBytes: number,
    onHello: () => void,
  ) {
    const { pd } = connection
    this.#connection = connection
    this.#clock = connection.clock
    this.#qp = connection.qp as QueuedQp
    this.#promises = promises
    this.#limits = { slotBytes, maxMessageBytes }
    this.#onHello = onHello
    this.#buffers = bufferPool(pd, slotBytes)
    this.#controlBuffers = bufferPool(pd, HELLO_BYTES)
    this.#window = new ReceiveWindow(this.#qp.maxRecvWr - CONTROL_RECEIVES)
    this.#maxSends = this.#qp.maxSendWr - OTHER_SENDS
    const buffers = this.#buffers.takeMany(IDLE_WINDOW + CONTROL_RECEIVES)
    try {
      this.#controlBuffer = this.#controlBuffers.take()
    } catch (error) {
      for (const buffer of buffers) buffer.giveBack()
      throw error
    }
    promises.onSettled = () => this.#onSettled()
    for (const buffer of buffers) this.#addReceive(buffer)
    putHello(this.#controlBuffer.view, this.#controlBuffer.at, { version: VERSION, slotBytes, maxMessageBytes })
    try {
      this.#postControl(HELLO, HELLO_BYTES)
    } catch (error) {
      this.#onFailure(() => error, false)
    }
    void connection.closed.then(reason => this.#onClosed(reason))
  }

  /** Starts to check that the peer lives. */
  startKeepalive(milliseconds: number): void {
    const part = Math.floor(milliseconds / KEEPALIVE_PARTS)
    // Waits of the program keep the process alive, as far as an event can follow.
    this.#timer = this.#clock.every(part, 'background', () => void this.#checkPeer(milliseconds))
  }

  get closed(): Promise<CloseReason> {
    return this.#clock.watch('messages.closed', this.#connection.closed)
  }

  send(message: Uint8Array, options?: WaitLimits): Promise<void> {
    try {
      checkBytes('messages.send', 'message', message)
      if (options !== undefined) {
        checkOptions('messages.send', 'options', options, limitNames)
        checkLimits('messages.send', options)
      }
      if (this.#end !== undefined) throw endedError('messages.send', this.#end)
      if (this.#isEnding) throw new RdmaError('ERR_CLOSED', Errno.EINVAL, 'messages.send', 'this side has ended')
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
    } catch (error) {
      return Promise.reject(error)
    }
    return this.#sendLater(message, options)
  }

  #sendLater(message: Uint8Array, limits: WaitLimits = {}): Promise<void> {
    return this.#withStack(
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
        const endLimits = startLimits(this.#clock, 'messages.send', limits, 'the peer takes no messages', error => {
          const at = this.#waiting.indexOf(waiting)
          if (at >= 0) this.#waiting.splice(at, 1)
          waiting.settle(error)
        })
        this.#waiting.push(waiting)
        this.#pump()
      }),
    )
  }

  receive(options: WaitLimits = {}): Promise<Uint8Array> {
    return this.#withStack(
      'messages.receive',
      this.#next('messages.receive', options).then(message => {
        if (message !== undefined) return message
        throw endedError('messages.receive', this.#end ?? { failure: undefined, text: 'the peer has ended' })
      }),
    )
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return {
      next: () =>
        this.#withStack(
          'messages.next',
          this.#next('messages.next', {}).then(async value => {
            if (value !== undefined) return { value, done: false as const }
            await this.#clock.inVain?.()
            return { value, done: true as const }
          }),
        ),
    }
  }

  async end(options: WaitLimits = {}): Promise<void> {
    checkOptions('messages.end', 'options', options, limitNames)
    checkLimits('messages.end', options)
    this.#isEnding = true
    this.#pump()
    const isTaken = (): boolean => this.#isEndPosted && this.#sendsInFlight === 0 && this.#offered.length === 0
    const taken = this.#until(isTaken, limits =>
      startLimits(this.#clock, 'messages.end', options, 'the peer has not taken all messages', limits),
    )
    await this.#clock.watch('messages.end', taken)
    // A peer that has ended and closes may take the last acknowledgement with it.
    const isCut = this.#end !== undefined && (!this.#isEndPosted || this.#offered.length > 0)
    if (this.#end !== undefined && (isCut || this.#end.failure !== undefined))
      throw endedError('messages.end', this.#end)
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeOnce()
    return this.#closing
  }

  abort(reason?: unknown): Promise<void> {
    if (this.#abortReason === undefined) {
      this.#abortReason = reasonText(reason)
      this.#ownEnd = abortedEnd('the program', this.#abortReason)
      this.#pump()
    }
    return this.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#isEnding ? this.close() : this.abort('the block was left without end() or close()')
  }

  async #closeOnce(): Promise<void> {
    if (this.#end === undefined) {
      if (this.#waiting.length > 0 || this.#offered.length > 0)
        this.#abortReason ??= 'it was closed before all messages were sent'
      for (const waiting of this.#waiting.splice(0)) waiting.settle(endedError('messages.send', this.#ownEnd))
      this.#isEnding = true
      this.#pump()
      // Without HELLO nothing was sent, and the peer may never receive.
      const isTold = (): boolean => (this.#abortReason === undefined ? this.#isEndPosted : this.#isAbortPosted)
      const isSent = (): boolean => this.#onHello !== undefined || (isTold() && this.#sendsInFlight === 0)
      const timeout = { timeout: CLOSE_TIMEOUT }
      await this.#until(isSent, reject => startLimits(this.#clock, 'messages.close', timeout, '', reject)).catch(
        () => {},
      )
      this.#finish(this.#ownEnd)
    } else if (this.#hasPeerAborted) await this.#disconnected()
    await this.#release()
  }

  /** After an abort of the peer, or flushed requests: resolves when the connection has ended, or after a second. */
  #disconnected(): Promise<void> {
    return new Promise(resolve => {
      const timer = this.#clock.after(CLOSE_TIMEOUT, 'program', resolve)
      void this.#connection.closed.then(() => {
        this.#clock.clear(timer)
        resolve()
      })
    })
  }

  /** Resolves when `isOver`, or when the messages have ended. `start`: starts limits of the wait. */
  async #until(isOver: () => boolean, start: (reject: (error: unknown) => void) => () => void): Promise<void> {
    if (isOver() || this.#end !== undefined) return
    await new Promise<void>((resolve, reject) => {
      const settle = (): void => {
        endLimits()
        this.#watchers = this.#watchers.filter(other => other !== watch)
      }
      const watch = (): void => {
        if (!isOver() && this.#end === undefined) return
        settle()
        resolve()
      }
      const endLimits = start(error => {
        settle()
        reject(error)
      })
      this.#watchers.push(watch)
    })
  }

  /** As `withStack`, of a wait of the program. */
  #withStack<T>(call: string, wait: Promise<T>): Promise<T> {
    return withStack(this.#clock.watch(call, wait))
  }

  // Receiving

  #postReceive(frame: FrameRequest): void {
    const { buffer } = frame
    try {
      const slice = buffer.slice(this.#limits.slotBytes)
      this.#promises.post(frame, id => rcPosts.receive.call(this.#qp, slice, id))
    } catch (error) {
      this.frameFailed(buffer, () => error, false)
    }
  }

  /** Posts one more receive. */
  #addReceive(buffer: FrameBuffer): void {
    this.#receives++
    this.#postReceive(new FrameRequest(this, 'receive', buffer))
  }

  /** Posts the receive of a frame again, or gives its buffer back if there are more than the window needs. */
  #reuse(frame: FrameRequest): void {
    if (this.#receives <= this.#window.open + CONTROL_RECEIVES) this.#postReceive(frame)
    else {
      this.#receives--
      frame.buffer.giveBack()
    }
  }

  /** Adds the receive for one more grant, unless there is one. Throws if there is no memory for it. */
  #addReceiveForGrant(): void {
    if (this.#receives <= this.#window.open + CONTROL_RECEIVES) this.#addReceive(this.#buffers.take())
  }

  /** Called from time to time: buffers that a burst has needed are given back, at both ends. */
  #shrink(): void {
    this.#window.shrink()
    if (this.#sentFrames === this.#checkedFrames && !this.#isEnding) this.#returnGrants()
    this.#checkedFrames = this.#sentFrames
  }

  #next(call: string, limits: WaitLimits): Promise<Uint8Array | undefined> {
    try {
      checkOptions(call, 'options', limits, limitNames)
      checkLimits(call, limits)
    } catch (error) {
      return Promise.reject(error)
    }
    return new Promise((resolve, reject) => {
      if (limits.signal === undefined && limits.timeout === undefined) this.#takers.push({ resolve, reject })
      else {
        const endLimits = startLimits(this.#clock, call, limits, '', error => {
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
    if (this.#end !== undefined) {
      const { failure } = this.#end
      for (const taker of this.#takers.splice(0))
        if (failure === undefined) taker.resolve(undefined)
        else taker.reject(endedError('messages.receive', this.#end))
    } else if (this.#hasPeerEnded) for (const taker of this.#takers.splice(0)) taker.resolve(undefined)
  }

  /** The bytes of a complete message. Gives its buffer and its credit back. */
  #take(incoming: Incoming): Uint8Array {
    const { frame, length, region } = incoming
    if (region !== undefined) this.#offeredBytes -= length
    const message = incoming.bytes ?? copyOfMessage(frame!.buffer, length)
    if (this.#end !== undefined) {
      frame?.buffer.giveBack()
      return message
    }
    this.#window.renew()
    if (frame !== undefined) this.#reuse(frame)
    if (region !== undefined || this.#window.owesCredits) this.#pump()
    return message
  }

  /** A receive is complete. Runs while completions are settled, so it must not throw. */
  frameReceived(frame: FrameRequest, bytes: number, opcode: string): void {
    this.#signs++
    if (this.#end === undefined) {
      const problem = this.#readFrame(frame, bytes, opcode)
      if (problem === undefined) return
      this.#finish(brokenRule(problem))
    }
    frame.buffer.giveBack()
  }

  /** Executes a frame. Returns what is wrong with it. */
  #readFrame(frame: FrameRequest, bytes: number, opcode: string): string | undefined {
    if (opcode !== 'RECV') return `${opcode} instead of a SEND`
    if (bytes < HEADER_BYTES) return `a frame of ${bytes} bytes is shorter than a header`
    const { view, at } = frame.buffer
    const type = typeAt(view, at)
    const length = lengthAt(view, at)
    const isHello = type === HELLO
    if (isHello !== (this.#onHello !== undefined))
      return isHello ? 'a second HELLO' : 'the first frame is not HELLO: does the peer call connection.messages()?'
    const problem = this.#readCounters(grantedAt(view, at), doneAt(view, at))
    if (problem !== undefined) return problem
    if (type === DATA) {
      if (bytes !== HEADER_BYTES + length) return `DATA of ${length} bytes in a frame of ${bytes}`
      if (length > this.#limits.maxMessageBytes) return this.#tooLong(length)
      return this.#arrive({ length, frame, bytes: undefined, remote: undefined, region: undefined, posted: 0, read: 0 })
    }
    if (type === OFFER) {
      if (bytes !== OFFER_BYTES) return `OFFER in a frame of ${bytes} bytes`
      if (length > this.#limits.maxMessageBytes) return this.#tooLong(length)
      if (length === 0) return 'OFFER of 0 bytes'
      const offer = offerAt(view, at)
      if (offer.address + BigInt(length) > 2n ** 64n) return 'OFFER beyond the address space'
      const remote = remoteMemory({ ...offer, length })
      const incoming: Incoming = {
        length,
        frame: undefined,
        bytes: undefined,
        remote,
        region: undefined,
        posted: 0,
        read: 0,
      }
      const tooMany = this.#arrive(incoming)
      if (tooMany !== undefined) return tooMany
      this.#unread.push(incoming)
    } else if (type === HELLO) {
      if (bytes !== HELLO_BYTES || length !== 0) return `HELLO in a frame of ${bytes} bytes`
      const wrong = this.#readHello(helloAt(view, at))
      if (wrong !== undefined) return wrong
    } else if (type === ACK || type === END || type === UNUSED) {
      if (bytes !== HEADER_BYTES || length !== 0) return `a frame without a message has ${bytes} bytes`
      if (type === END) {
        this.#hasPeerEnded = true
        this.#deliver()
      } else if (type === UNUSED) {
        if (!this.#window.use()) return NO_CREDIT
        this.#window.giveUp()
      }
    } else if (type === ABORT) {
      if (bytes !== HEADER_BYTES + length) return `ABORT of ${length} bytes in a frame of ${bytes}`
      this.#hasPeerAborted = true
      this.#finish(abortedEnd('the peer', textOf(frame.buffer.bytes.subarray(at + HEADER_BYTES, at + bytes))))
      frame.buffer.giveBack()
      return undefined
    } else return type === undefined ? 'reserved bytes are not 0' : `unknown frame type ${type}`
    this.#reuse(frame)
    return undefined
  }

  #tooLong(length: number): string {
    return `a message of ${length} bytes, although ${this.#limits.maxMessageBytes} were agreed`
  }

  #readHello(hello: Hello | undefined): string | undefined {
    if (hello === undefined) return 'HELLO without the magic bytes'
    const { version, slotBytes, maxMessageBytes } = hello
    if (version !== VERSION) return `it speaks version ${version} of messages, and this library version ${VERSION}`
    if (slotBytes < HELLO_BYTES || this.#limit === 0) return 'HELLO without room for messages'
    this.maxMessageBytes = maxMessageBytes
    this.#maxDataBytes = Math.min(slotBytes, this.#limits.slotBytes) - HEADER_BYTES
    this.#onHello?.()
    this.#onHello = undefined
    return undefined
  }

  /** Takes over the counters of a header. */
  #readCounters(granted: number, done: number): string | undefined {
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

  /** Queues a message. The program may be faster than the end of this function. */
  #arrive(incoming: Incoming): string | undefined {
    if (!this.#window.use()) return NO_CREDIT
    if (this.#hasPeerEnded) return 'a message after END'
    if (this.#window.isUsedUp) this.#window.grow(() => this.#addReceiveForGrant())
    this.#incoming.push(incoming)
    this.#deliver()
    return undefined
  }

  /** Posts READs of offered messages, as long as there is room for the messages. */
  #postReads(): void {
    while (this.#unread.length > 0 && this.#readsInFlight < READS && this.#promises.sendRoom > 0) {
      const incoming = this.#unread[0]!
      const { length, posted } = incoming
      if (incoming.region === undefined) {
        if (this.#offeredBytes > 0 && this.#offeredBytes + length > this.#limits.maxMessageBytes) return
        incoming.bytes = new Uint8Array(length)
        incoming.region = this.#connection.pd.register(incoming.bytes)
        this.#offeredBytes += length
      }
      const bytes = Math.min(READ_BYTES, length - posted)
      const request: Outstanding = {
        call: 'messages.receive',
        queue: 'send',
        resolve: () => this.#onRead(incoming, bytes),
        reject: (error, isConsequence) => this.#onFailure(error, isConsequence),
      }
      const local = incoming.region.slice(posted, bytes)
      const remote = incoming.remote!.slice(posted, bytes)
      this.#promises.post(request, id => rcPosts.read.call(this.#qp, local, remote, { id }))
      incoming.posted += bytes
      this.#readsInFlight++
      this.#watchForLoss()
      if (incoming.posted === length) this.#unread.shift()
    }
  }

  #onRead(incoming: Incoming, bytes: number): void {
    this.#signs++
    this.#readsInFlight--
    incoming.read += bytes
    if (!isComplete(incoming) || this.#end !== undefined) return
    incoming.region?.close()
    this.#done = (this.#done + 1) >>> 0
    this.#deliver()
  }

  // Sending

  #canSend(): boolean {
    return this.#limit !== this.#sentFrames && this.#buffersInFlight < this.#maxSends && this.#promises.sendRoom > 0
  }

  /** Posts the frame whose bytes after the header are in `buffer`. If that throws, nothing has changed. */
  #postFrame(buffer: FrameBuffer, type: number, bytes: number, length: number): void {
    putHeader(buffer.view, buffer.at, type, this.#window.granted, this.#done, length)
    const slice = buffer.slice(bytes)
    this.#promises.post(new FrameRequest(this, 'send', buffer), id => rcPosts.send.call(this.#qp, slice, { id }))
    this.#window.announced()
    this.#doneAnnounced = this.#done
    this.#sendsInFlight++
    this.#watchForLoss()
  }

  #postControl(type: number, bytes = HEADER_BYTES): void {
    this.#postFrame(this.#controlBuffer, type, bytes, 0)
    this.#isControlInFlight = true
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
  #postAbort(reason: string): void {
    const buffer = this.#buffers.take()
    const start = buffer.at + HEADER_BYTES
    const room = buffer.bytes.subarray(start, start + this.#maxDataBytes)
    const { written } = new TextEncoder().encodeInto(reason, room)
    this.#postOwned(buffer, ABORT, HEADER_BYTES + written, written)
    this.#isAbortPosted = true
  }

  #postData(message: Uint8Array): void {
    const buffer = this.#buffers.take()
    buffer.bytes.set(message, buffer.at + HEADER_BYTES)
    this.#postGranted(buffer, DATA, HEADER_BYTES + message.length, message.length)
  }

  /** Registers a long message, and tells the peer its address. */
  #postOffer(waiting: WaitingSend): void {
    const { message } = waiting
    const region = this.#connection.pd.register(message, { localWrite: false, remoteRead: true })
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

  /** Tells the peer that its grants above IDLE_WINDOW are not used. */
  #returnGrants(): void {
    try {
      while ((this.#limit - this.#sentFrames) >>> 0 > IDLE_WINDOW && this.#canSend())
        this.#postGranted(this.#controlBuffers.take(), UNUSED, HEADER_BYTES, 0)
    } catch (error) {
      this.#onFailure(() => error, false)
    }
  }

  /** A SEND is complete. */
  frameSent(buffer: FrameBuffer): void {
    this.#signs++
    this.#sendsInFlight--
    if (buffer === this.#controlBuffer) this.#isControlInFlight = false
    else {
      this.#buffersInFlight--
      buffer.giveBack()
    }
  }

  frameFailed(buffer: FrameBuffer, error: () => unknown, isConsequence: boolean): void {
    if (buffer !== this.#controlBuffer) this.#failedBuffers.push(buffer)
    this.#onFailure(error, isConsequence)
  }

  /** Posts what can be posted: waiting messages, READs, and a frame without a message if the peer needs the counters. */
  #pump(): void {
    if (this.#end !== undefined || this.#onHello !== undefined) return
    try {
      if (this.#abortReason === undefined) {
        while (this.#waiting.length > 0 && this.#canSend()) this.#postWaiting(this.#waiting.shift()!)
        this.#postReads()
      }
      if (this.#isControlInFlight || this.#promises.sendRoom === 0 || this.#isAbortPosted) return
      if (this.#abortReason !== undefined) this.#postAbort(this.#abortReason)
      else if (this.#isEnding && !this.#isEndPosted && this.#waiting.length === 0) {
        this.#postControl(END)
        this.#isEndPosted = true
      } else if (this.#done !== this.#doneAnnounced || this.#window.owesCredits) this.#postControl(ACK)
    } catch (error) {
      this.#onFailure(() => error, false)
    }
  }

  #postWaiting(waiting: WaitingSend): void {
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

  // The peer's life, and the end

  #onSettled(): void {
    this.#pump()
    for (const watch of [...this.#watchers]) watch()
  }

  /** Called three times in the time of `keepalive`. */
  async #checkPeer(milliseconds: number): Promise<void> {
    this.#shrink()
    this.#silentParts = this.#signs === this.#checkedSigns ? this.#silentParts + 1 : 0
    this.#checkedSigns = this.#signs
    if (this.#silentParts === 1 && this.#sendsInFlight === 0 && this.#promises.sendRoom > 0) this.#ping()
    if (this.#silentParts < KEEPALIVE_PARTS) return
    // The event loop may have been blocked: packets that wait in a socket are read first.
    await nextTurnOf(this.#clock)
    if (this.#signs !== this.#checkedSigns || this.#end !== undefined) return
    const text = `the peer has not answered for ${milliseconds} ms`
    this.#finish({ failure: refused('ETIMEDOUT', 'messages.keepalive', text), text })
  }

  /**
   * Follows requests in flight with pings, at intervals that double. If the last packets before were lost, the peer
   * notices the gap and reports it; the ACK timeout, which tolerates a busy peer, would take seconds.
   */
  #watchForLoss(): void {
    if (this.#probeTimer !== undefined) return
    const signs = this.#signs
    this.#probeTimer = this.#clock.after(this.#probeDelay, 'background', () => {
      this.#probeTimer = undefined
      const isSilent = this.#signs === signs
      this.#probeDelay = isSilent ? 2 * this.#probeDelay : PROBE_DELAY
      if (this.#end !== undefined || this.#sendsInFlight + this.#readsInFlight === 0) return
      if (isSilent && this.#promises.sendRoom > 0) this.#ping()
      this.#watchForLoss()
    })
  }

  #ping(): void {
    const request: Outstanding = {
      call: 'messages.keepalive',
      queue: 'send',
      resolve: () => this.#signs++,
      reject: (error, isConsequence) => this.#onFailure(error, isConsequence),
    }
    try {
      this.#promises.post(request, id => postPing(this.#qp, { id }))
    } catch (error) {
      this.#onFailure(() => error, false)
    }
  }

  /** A request has failed. `isConsequence`: the reason is another failure, or the end of the connection. */
  #onFailure(makeError: () => unknown, isConsequence: boolean): void {
    if (this.#end !== undefined || (isConsequence && this.#isFlushed)) return
    const error = makeError()
    const failure = error instanceof RdmaError ? error : refused('EIO', 'messages', String(error))
    const finish = (): void => this.#finish({ failure, text: `the connection has failed: ${failure.reason}` })
    if (isConsequence) {
      this.#isFlushed = true
      // On a daemon the reason may arrive after the flushed requests.
      void this.#disconnected().then(finish)
    } else finish()
  }

  #onClosed(reason: CloseReason): void {
    if (this.#end !== undefined) return
    // Frames that have arrived before the end.
    orElse(() => this.#promises.settle(), undefined)
    const text = reason === 'peer' ? 'the peer has closed the connection' : 'the connection was closed'
    const isInOrder = reason === 'local' || this.#hasPeerEnded
    const code = reason === 'device' ? 'EIO' : 'ECONNRESET'
    this.#finish({ failure: isInOrder ? undefined : refused(code, 'messages', text, ''), text })
  }

  /** Ends everything; messages that have arrived can still be received. */
  #finish(end: End): void {
    if (this.#end !== undefined) return
    const firstIncomplete = this.#incoming.findIndex(incoming => !isComplete(incoming))
    const lost = firstIncomplete < 0 ? [] : this.#incoming.splice(firstIncomplete)
    const text = 'the connection was closed before a message was read'
    this.#end =
      lost.length > 0 && end.failure === undefined && this.#closing === undefined
        ? { failure: refused('ECONNRESET', 'messages', text, ''), text }
        : end
    this.#clock.clear(this.#timer)
    this.#clock.clear(this.#probeTimer)
    for (const waiting of this.#waiting.splice(0)) waiting.settle(endedError('messages.send', this.#end))
    for (const { settle } of this.#offered) settle(endedError('messages.send', this.#end))
    this.#deliver()
    for (const watch of [...this.#watchers]) watch()
    // The caller may be settling completions of the queue pair.
    queueMicrotask(() => void this.close().catch(() => {}))
    this.#lost = lost
    this.#onHello?.()
  }

  async #release(): Promise<void> {
    try {
      await this.#connection.close()
    } finally {
      for (const { region } of [...this.#offered.splice(0), ...this.#lost]) region?.close()
    }
    // If the connection cannot be closed, the queue pair keeps its buffers.
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
    this.#controlBuffer.giveBack()
  }

  /** Why the messages have ended, for `openMessages`. */
  get ending(): RdmaError | undefined {
    return this.#end && endedError('connection.messages', this.#end)
  }

  static shown({ maxMessageBytes, ending }: MessagesObject) {
    return { maxMessageBytes, ...(ending !== undefined && { closed: true }) }
  }

  static is(value: object): value is MessagesObject {
    return #end in value
  }
}
showAs<MessagesObject>(MessagesObject.prototype, 'Messages', MessagesObject.shown, MessagesObject.is)

/** The text of a reason as programs give it. */
const reasonText = (reason: unknown): string => {
  if (reason === undefined || typeof reason === 'string') return reason ?? ''
  const message = (reason as { readonly message?: unknown } | null)?.message
  return typeof message === 'string' ? message : formatValue(reason)
}

/** A text of the peer, without control characters: it is part of error messages. */
const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes).replace(/\p{Cc}/gu, ' ')

/** An error gets the stack of the program's `await`. */
const withStack = async <T>(promise: Promise<T>): Promise<T> => {
  try {
    return await promise
  } catch (error) {
    if (error instanceof RdmaError) beginStackAtProgram(error)
    throw error
  }
}

const brokenRule = (problem: string): End => {
  const text = `the peer has broken the rules of messages: ${problem}`
  return { failure: refused('EPROTO', 'messages', text), text }
}

/** Starts messages on a connection: `connection.messages()`. */
export const openMessages = async (connection: Carrier, options: MessagesOptions): Promise<Messages> => {
  const call = 'connection.messages'
  checkOptions(call, 'options', options, messagesOptionNames)
  const {
    slotBytes = DEFAULT_SLOT_BYTES,
    maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES,
    keepalive = DEFAULT_KEEPALIVE,
    timeout = DEFAULT_TIMEOUT,
    signal,
  } = options
  checkInteger(call, 'slotBytes', slotBytes, 64, 2 ** 20)
  checkInteger(call, 'maxMessageBytes', maxMessageBytes, 1, 2 ** 32 - 1)
  checkInteger(call, 'keepalive', keepalive, 30, MAX_TIMER_DELAY)
  checkLimits(call, { signal, timeout })
  const qp = connection.qp as QueuedQp
  const promises = promisesOf(qp)
  if (promises === undefined) throw invalidArgument(call, 'the queue pair has a sendCq', 'connect or accept without it')
  if (promises.onSettled !== undefined) throw refused('EBUSY', call, 'the connection has messages already', '')
  if (promises.outstandingReceives > 0)
    throw refused('EBUSY', call, 'receives are posted, which would take frames', 'post none before messages()')
  for (const name of ['maxSendWr', 'maxRecvWr'] as const)
    if (qp[name] < MIN_QUEUE)
      throw invalidArgument(call, `${name} ${qp[name]} is too small`, `connect or accept with qp: { ${name}: 16 }`)
  let onHello = (): void => {}
  const hello = new Promise<void>(resolve => {
    onHello = resolve
  })
  qp.context.check?.markMessages(qp.handle)
  const messages = new MessagesObject(connection, promises, slotBytes, maxMessageBytes, onHello)
  const hint = 'the peer has to call connection.messages() too'
  let endLimits = (): void => {}
  const limit = new Promise<never>((_, reject) => {
    // The event loop may have been blocked, by many new connections for example: HELLO may have arrived.
    endLimits = startLimits(
      connection.clock,
      call,
      { signal, timeout },
      hint,
      error => void nextTurnOf(connection.clock).then(() => reject(error)),
    )
  })
  try {
    await Promise.race([hello, limit])
    if (messages.ending !== undefined) throw messages.ending
  } catch (error) {
    await messages.close()
    throw error
  } finally {
    endLimits()
  }
  messages.startKeepalive(keepalive)
  return messages
}
