/*
 * The messages of one connection: joins its sending and receiving side and the watch of the peer, posts the frames that
 * belong to neither side, and ends them all. messages.ts is the programs' interface.
 */
import type { Clock } from '../../../host/event-loop/clock.ts'
import type { WaitLimits } from '../../verbs/awaitable/queue-pair.ts'
import { type RequestPromises, startLimits } from '../../verbs/awaitable/request-promises.ts'
import { RdmaError, refused } from '../../verbs/error.ts'
import { orElse } from '../../verbs/objects/show.ts'
import type { ProtectionDomain } from '../../verbs/pd.ts'
import type { QueuedQp } from '../../verbs/qp/queue-pair.ts'
import { beginStackAtProgram } from '../../verbs/watch/stacks.ts'
import type { CloseReason } from '../events.ts'
import { bufferPool } from './buffers.ts'
import { abortedEnd, type End, endedError } from './end.ts'
import { FrameType, type Hello } from './frame.ts'
import type { Whole } from './parts.ts'
import { PeerWatch } from './peer-watch.ts'
import { readFrame } from './read-frame.ts'
import { Receiving } from './receiving.ts'
import { Sending } from './sending.ts'

/** What messages need of a `Connection`, which imports messages.ts. */
export interface Carrier {
  readonly clock: Clock
  readonly pd: ProtectionDomain
  readonly qp: object
  readonly closed: Promise<CloseReason>
  close(): Promise<void>
}

const { ACK, END } = FrameType
/** Milliseconds to wait for the sends in flight, or for the disconnection by the peer. */
const CLOSE_TIMEOUT = 1000

/** An error gets the stack of the program's `await`. */
const withStack = async <T>(promise: Promise<T>): Promise<T> => {
  try {
    return await promise
  } catch (error) {
    if (error instanceof RdmaError) beginStackAtProgram(error)
    throw error
  }
}

export class Channel implements Whole {
  readonly connection: Carrier
  readonly clock: Clock
  readonly pd: ProtectionDomain
  readonly qp: QueuedQp
  readonly promises: RequestPromises
  readonly limits: Whole['limits']
  readonly peer: PeerWatch
  readonly receiving: Receiving
  readonly sending: Sending
  end: End | undefined
  isEnding = false
  #isEndPosted = false
  /** The reason for the peer; undefined unless this side aborts. */
  #abortReason: string | undefined
  #isAbortPosted = false
  #hasPeerAborted = false
  /** Whether a request has failed as a consequence. */
  #isFlushed = false
  /** What ends the messages if nothing else does before `#closing` has told the peer. */
  #ownEnd: End = { failure: undefined, text: 'the program has closed the messages' }
  #closing: Promise<void> | undefined
  /** Called after completions, and at the end. */
  #watchers: (() => void)[] = []
  /** Called when HELLO has arrived, or at the end. */
  readonly #onHello: () => void

  /** Posts receives and HELLO. Throws RdmaError if memory cannot be registered. */
  constructor(connection: Carrier, promises: RequestPromises, limits: Whole['limits'], onHello: () => void) {
    this.connection = connection
    this.clock = connection.clock
    this.pd = connection.pd
    this.qp = connection.qp as QueuedQp
    this.promises = promises
    this.limits = limits
    this.#onHello = onHello
    const pool = bufferPool(this.pd, limits.slotBytes)
    this.receiving = new Receiving(this, pool, (frame, bytes, opcode) => readFrame(this, frame, bytes, opcode))
    const buffers = this.receiving.takeFirstBuffers()
    try {
      this.sending = new Sending(this, this.receiving, pool)
    } catch (error) {
      for (const buffer of buffers) buffer.giveBack()
      throw error
    }
    this.peer = new PeerWatch(this, this.receiving, this.sending)
    promises.onSettled = () => this.#onSettled()
    for (const buffer of buffers) this.receiving.addReceive(buffer)
    try {
      this.sending.postHello()
    } catch (error) {
      this.fail(() => error, false)
    }
    void connection.closed.then(reason => this.#onClosed(reason))
  }

  opened(hello: Hello): void {
    this.receiving.hasHello = true
    this.sending.opened(hello)
    this.#onHello()
  }

  withStack<T>(call: string, wait: Promise<T>): Promise<T> {
    return withStack(this.clock.watch(call, wait))
  }

  /**
   * Posts what can be posted: waiting messages, READs, and a frame without a message if the peer needs the counters.
   */
  pump(): void {
    const { receiving, sending } = this
    if (this.end !== undefined || !receiving.hasHello) return
    try {
      if (this.#abortReason === undefined) {
        sending.postWaiting()
        receiving.postReads()
      }
      if (!sending.canPostControl || this.#isAbortPosted) return
      if (this.#abortReason !== undefined) {
        sending.postAbort(this.#abortReason)
        this.#isAbortPosted = true
      } else if (this.isEnding && !this.#isEndPosted && !sending.isWaiting) {
        sending.postControl(END)
        this.#isEndPosted = true
      } else if (receiving.owesCounters) sending.postControl(ACK)
    } catch (error) {
      this.fail(() => error, false)
    }
  }

  #onSettled(): void {
    this.pump()
    this.#wakeWatchers()
  }

  #wakeWatchers(): void {
    for (const watch of [...this.#watchers]) watch()
  }

  /** Resolves when `isOver`, or when the messages have ended. `start`: starts limits of the wait. */
  async #until(isOver: () => boolean, start: (reject: (error: unknown) => void) => () => void): Promise<void> {
    if (isOver() || this.end !== undefined) return
    await new Promise<void>((resolve, reject) => {
      const settle = (): void => {
        endLimits()
        this.#watchers = this.#watchers.filter(other => other !== watch)
      }
      const watch = (): void => {
        if (!isOver() && this.end === undefined) return
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

  // ---- the end, by this side ----

  /** Sends END after all messages. Resolves when the peer has taken them. */
  async endSending(limits: WaitLimits): Promise<void> {
    const { sending } = this
    this.isEnding = true
    this.pump()
    const isTaken = (): boolean => this.#isEndPosted && sending.inFlight === 0 && !sending.hasOffers
    const taken = this.#until(isTaken, reject =>
      startLimits(this.clock, 'messages.end', limits, 'the peer has not taken all messages', reject),
    )
    await this.clock.watch('messages.end', taken)
    // A peer that has ended and closes may take the last acknowledgement with it.
    const isCut = this.end !== undefined && (!this.#isEndPosted || sending.hasOffers)
    if (this.end !== undefined && (isCut || this.end.failure !== undefined)) throw endedError('messages.end', this.end)
  }

  abort(reason: string): Promise<void> {
    if (this.#abortReason === undefined) {
      this.#abortReason = reason
      this.#ownEnd = abortedEnd('the program', reason)
      this.pump()
    }
    return this.close()
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeOnce()
    return this.#closing
  }

  async #closeOnce(): Promise<void> {
    const { receiving, sending } = this
    if (this.end === undefined) {
      if (sending.isWaiting || sending.hasOffers) this.#abortReason ??= 'it was closed before all messages were sent'
      sending.rejectWaiting(this.#ownEnd)
      this.isEnding = true
      this.pump()
      // Without HELLO nothing was sent, and the peer may never receive.
      const isTold = (): boolean => (this.#abortReason === undefined ? this.#isEndPosted : this.#isAbortPosted)
      const isSent = (): boolean => !receiving.hasHello || (isTold() && sending.inFlight === 0)
      const timeout = { timeout: CLOSE_TIMEOUT }
      await this.#until(isSent, reject => startLimits(this.clock, 'messages.close', timeout, '', reject)).catch(
        () => {},
      )
      this.finish(this.#ownEnd)
    } else if (this.#hasPeerAborted) await this.#disconnected()
    await this.#release()
  }

  /** After an abort of the peer, or flushed requests: resolves when the connection has ended, or after a second. */
  #disconnected(): Promise<void> {
    return new Promise(resolve => {
      const timer = this.clock.after(CLOSE_TIMEOUT, 'program', resolve)
      void this.connection.closed.then(() => {
        this.clock.clear(timer)
        resolve()
      })
    })
  }

  // ---- the end, by anything ----

  abortedByPeer(end: End): void {
    this.#hasPeerAborted = true
    this.finish(end)
  }

  fail(makeError: () => unknown, isConsequence: boolean): void {
    if (this.end !== undefined || (isConsequence && this.#isFlushed)) return
    const error = makeError()
    const failure = error instanceof RdmaError ? error : refused('EIO', 'messages', String(error))
    const finish = (): void => this.finish({ failure, text: `the connection has failed: ${failure.reason}` })
    if (isConsequence) {
      this.#isFlushed = true
      // On a daemon the reason may arrive after the flushed requests.
      void this.#disconnected().then(finish)
    } else finish()
  }

  #onClosed(reason: CloseReason): void {
    if (this.end !== undefined) return
    // Frames that have arrived before the end.
    orElse(() => this.promises.settle(), undefined)
    const text = reason === 'peer' ? 'the peer has closed the connection' : 'the connection was closed'
    const isInOrder = reason === 'local' || this.receiving.hasPeerEnded
    const code = reason === 'device' ? 'EIO' : 'ECONNRESET'
    this.finish({ failure: isInOrder ? undefined : refused(code, 'messages', text, ''), text })
  }

  /** Ends everything; messages that have arrived can still be received. */
  finish(end: End): void {
    if (this.end !== undefined) return
    const { receiving, sending } = this
    const isCut = receiving.dropIncomplete() && end.failure === undefined && this.#closing === undefined
    const text = 'the connection was closed before a message was read'
    this.end = isCut ? { failure: refused('ECONNRESET', 'messages', text, ''), text } : end
    this.peer.stop()
    sending.finish(this.end)
    receiving.finish()
    this.#wakeWatchers()
    // The caller may be settling completions of the queue pair.
    queueMicrotask(() => void this.close().catch(() => {}))
    if (!receiving.hasHello) this.#onHello()
  }

  async #release(): Promise<void> {
    try {
      await this.connection.close()
    } finally {
      this.sending.closeOffers()
      this.receiving.closeReads()
    }
    // If the connection cannot be closed, the queue pair keeps its buffers.
    this.receiving.releaseBuffers()
    this.sending.releaseBuffers()
  }
}
