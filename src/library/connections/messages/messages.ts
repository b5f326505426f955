/*
 * `connection.messages()`: messages of any size over a reliable connection. A short message is a SEND into a receive
 * buffer of the peer, for which the sender needs a credit. The peer reads a long message from the sender's memory by
 * RDMA READ. docs/reference/messages.md has the frames and the rules. A peer that breaks a rule is disconnected; what
 * it sends changes only the receive buffers and buffers for announced messages.
 *
 * This file is what programs see. sending.ts and receiving.ts are the two directions, peer-watch.ts notices a peer that
 * is gone, channel.ts joins and ends them.
 */
import { nextTurnOf } from '../../../host/event-loop/clock.ts'
import { checkOptions, type KnownOptions } from '../../verbs/arguments/options.ts'
import { checkLimits, limitNames, promisesOf, type WaitLimits } from '../../verbs/awaitable/queue-pair.ts'
import { startLimits } from '../../verbs/awaitable/request-promises.ts'
import { checkBytes, checkInteger, invalidArgument, refused } from '../../verbs/error.ts'
import { showAs } from '../../verbs/objects/show.ts'
import type { QueuedQp } from '../../verbs/qp/queue-pair.ts'
import type { CloseReason } from '../events.ts'
import { type Carrier, Channel } from './channel.ts'
import { endedError, reasonText } from './end.ts'

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
   * default 10,000. It is noticed up to a third later. The transport may notice earlier: with the default of
   * `ackTimeout` after 17 seconds.
   */
  readonly keepalive?: number | undefined
  /** Milliseconds to wait until the peer has called `messages()` too; default 10,000. */
  readonly timeout?: number | undefined
}

/**
 * Messages over a connection: each `send` of one side is one `receive` of the other, in order. `for await` yields the
 * messages until this side or the peer closes, and rejects with RdmaError ERR_CLOSED if the connection has failed.
 * `await using` closes in order if `end` or `close` was called, and aborts otherwise, because a block that is left by
 * an error must not look finished.
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
   * Closes the connection, and tells the peer that messages are missing: there `receive`, `send`, `end` and loops
   * reject with RdmaError ERR_CLOSED after the messages that have arrived. The `cause` of the errors at both ends has
   * the code ECONNABORTED and this reason: a text, or the `message` of an error. The peer gets as much of it as fits a
   * receive buffer. Waits a second at most. Does nothing after the end.
   */
  abort(reason?: unknown): Promise<void>
}

export const messagesOptionNames: KnownOptions<MessagesOptions> = {
  slotBytes: true,
  maxMessageBytes: true,
  keepalive: true,
  ...limitNames,
}

const DEFAULT_SLOT_BYTES = 4096
const DEFAULT_MAX_MESSAGE_BYTES = 2 ** 26
const DEFAULT_KEEPALIVE = 10_000
const DEFAULT_TIMEOUT = 10_000
const MAX_TIMER_DELAY = 2 ** 31 - 1
const MIN_QUEUE = 8

class MessagesObject implements Messages {
  readonly #channel: Channel

  constructor(channel: Channel) {
    this.#channel = channel
  }

  get maxMessageBytes(): number {
    return this.#channel.sending.maxMessageBytes
  }

  get closed(): Promise<CloseReason> {
    const { clock, connection } = this.#channel
    return clock.watch('messages.closed', connection.closed)
  }

  send(message: Uint8Array, options?: WaitLimits): Promise<void> {
    try {
      checkBytes('messages.send', 'message', message)
      if (options !== undefined) {
        checkOptions('messages.send', 'options', options, limitNames)
        checkLimits('messages.send', options)
      }
      const { end, sending } = this.#channel
      if (end !== undefined) throw endedError('messages.send', end)
      return sending.send(message, options)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  receive(options: WaitLimits = {}): Promise<Uint8Array> {
    const channel = this.#channel
    return channel.withStack(
      'messages.receive',
      channel.receiving.next('messages.receive', options).then(message => {
        if (message !== undefined) return message
        throw endedError('messages.receive', channel.end ?? { failure: undefined, text: 'the peer has ended' })
      }),
    )
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    const channel = this.#channel
    return {
      next: () =>
        channel.withStack(
          'messages.next',
          channel.receiving.next('messages.next', {}).then(async value => {
            if (value !== undefined) return { value, done: false as const }
            await channel.clock.inVain?.()
            return { value, done: true as const }
          }),
        ),
    }
  }

  async end(options: WaitLimits = {}): Promise<void> {
    checkOptions('messages.end', 'options', options, limitNames)
    checkLimits('messages.end', options)
    await this.#channel.endSending(options)
  }

  close(): Promise<void> {
    return this.#channel.close()
  }

  abort(reason?: unknown): Promise<void> {
    return this.#channel.abort(reasonText(reason))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#channel.isEnding ? this.close() : this.abort('the block was left without end() or close()')
  }

  static shown(messages: MessagesObject) {
    const { maxMessageBytes } = messages
    return { maxMessageBytes, ...(messages.#channel.end !== undefined && { closed: true }) }
  }

  static is(value: object): value is MessagesObject {
    return #channel in value
  }
}
showAs<MessagesObject>(MessagesObject.prototype, 'Messages', MessagesObject.shown, MessagesObject.is)

/** The values of options, whose names are known, with the defaults. Throws RdmaError EINVAL. */
export const messagesValues = (call: string, options: MessagesOptions) => {
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
  return { slotBytes, maxMessageBytes, keepalive, timeout, signal }
}

/** Starts messages on a connection: `connection.messages()`. */
export const openMessages = async (connection: Carrier, options: MessagesOptions): Promise<Messages> => {
  const call = 'connection.messages'
  checkOptions(call, 'options', options, messagesOptionNames)
  const { slotBytes, maxMessageBytes, keepalive, timeout, signal } = messagesValues(call, options)
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
  const channel = new Channel(connection, promises, { slotBytes, maxMessageBytes }, onHello)
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
    if (channel.end !== undefined) throw endedError(call, channel.end)
  } catch (error) {
    await channel.close()
    throw error
  } finally {
    endLimits()
  }
  channel.peer.start(keepalive)
  return new MessagesObject(channel)
}
