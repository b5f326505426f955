/*
 * `serve`: a server of messages in one call. Each client's messages are passed to one function, whose result is the
 * answer. Built of `listen`, `accept` and `connection.messages()`; it knows neither frames nor queue pairs.
 */
import { checkOptions, type KnownOptions } from '../verbs/arguments/options.ts'
import type { WaitLimits } from '../verbs/awaitable/queue-pair.ts'
import { contextOf, type Device } from '../verbs/device.ts'
import { checkBytes, checkFunction, formatValue, invalidArgument, RdmaError, warn } from '../verbs/error.ts'
import { type AbortOptions, checkAbortOptions } from '../verbs/mailbox.ts'
import { showAs } from '../verbs/objects/show.ts'
import { type ConnectionRequest, type ListenOptions, listen, MAX_REP_DATA } from './connect.ts'
import { type Connection, type ConnectionOptions, connectionOptionNames, copyConnectionOptions } from './connection.ts'
import { type Messages, type MessagesOptions, messagesOptionNames, messagesValues } from './messages/messages.ts'
import { hostAndPort, type ListenerAddress } from './url.ts'

/** A client of a server of messages. */
export interface MessageClient extends Pick<Messages, 'send' | 'close' | 'abort' | 'closed' | 'maxMessageBytes'> {
  /** Its connection, with the address and the private data of the client. */
  readonly connection: Connection
}

/** The result of a function that returns nothing. */
type Nothing = ReturnType<() => void>

/**
 * Called with each message of a client, a copy, in order: the next one of this client only after the result has
 * settled and the answer was sent. Meanwhile the client has to wait, and others do not. The result, if there is one,
 * is the answer; `client.send` sends more. An exception aborts the client's connection, see `ServeOptions.onError`.
 */
export type MessageHandler = (
  message: Uint8Array,
  client: MessageClient,
) => Uint8Array | undefined | Nothing | Promise<Uint8Array | undefined | Nothing>

/** Options of `serve`. */
export interface ServeOptions extends ListenOptions {
  /** Where to listen, as for `listen`: `rdma://0.0.0.0:7471`, a URL, or `{ host, port }`; port 0 is any free port. */
  readonly address: ListenerAddress
  /** Options of each `request.accept`. */
  readonly accept?: Omit<ConnectionOptions, 'signal'> | undefined
  /** Options of each `connection.messages()`. */
  readonly messages?: Omit<MessagesOptions, 'signal'> | undefined
  /** Called with each client before its first message, and awaited. An exception aborts the client's connection. */
  readonly onClient?: ((client: MessageClient) => void | Promise<void>) | undefined
  /**
   * Called with an exception of `onMessage` or `onClient`, or of sending the answer, after which the client's
   * connection is aborted with its message as the reason; other clients go on. Without `client`: a client could not be
   * served, because of a lack of memory for example. Not called for connections that fail or end. Default: a warning of
   * the process. An exception of this function is uncaught.
   */
  readonly onError?: ((error: unknown, client: MessageClient | undefined) => void) | undefined
}

/** A server of messages. */
export interface MessageServer extends AsyncDisposable {
  /** Device of the listener. */
  readonly device: Device
  /** Address of the listener, as text. */
  readonly address: string
  /** The port, also if a free one was chosen. */
  readonly port: number
  /** The clients that are served now. */
  readonly clients: ReadonlySet<MessageClient>
  /**
   * Stops listening, and takes no further messages. A client whose message is being handled gets its answer first; each
   * client's loop ends in order. Resolves when all connections have ended. If the signal is aborted, now or later, the
   * connections that are left are aborted. May be called again, with a signal too. A function of `serve` must not await
   * it: it would wait for itself.
   */
  close(options?: AbortOptions): Promise<void>
  /** What `await using` calls: `close` with an aborted signal. */
  [Symbol.asyncDispose](): Promise<void>
}

const serveOptionNames: KnownOptions<ServeOptions> = {
  address: true,
  device: true,
  backlog: true,
  accept: true,
  messages: true,
  onClient: true,
  onError: true,
}

const CLOSED = 'the server was closed'

/** Failures of a connection that is being established: its client has left, or does not answer. */
const LEFT = ['ECONNREFUSED', 'ECONNRESET', 'ETIMEDOUT', 'ERR_CLOSED']

const isEnd = (error: unknown): boolean => error instanceof RdmaError && error.code === 'ERR_CLOSED'

const clientText = ({ connection: { remoteAddress, remotePort } }: MessageClient): string =>
  remotePort === 0 ? 'a client' : `client ${hostAndPort(remoteAddress, remotePort)}`

const warnOf: NonNullable<ServeOptions['onError']> = (error, client) => {
  const what =
    client === undefined ? 'serve: a client could not be served' : `serve: ${clientText(client)} was disconnected`
  warn(`${what}: ${String(error)}`, error instanceof Error ? error.stack : undefined)
}

class Client implements MessageClient {
  readonly connection: Connection
  readonly #messages: Messages
  /** Aborted when the server takes no further message of the client. */
  readonly #stopping: AbortSignal

  constructor(connection: Connection, messages: Messages, stopping: AbortSignal) {
    this.connection = connection
    this.#messages = messages
    this.#stopping = stopping
  }

  get maxMessageBytes(): number {
    return this.#messages.maxMessageBytes
  }

  get closed(): Messages['closed'] {
    return this.#messages.closed
  }

  // Arrow functions, because programs may take the methods out of the object.
  readonly send = (message: Uint8Array, options?: WaitLimits): Promise<void> => this.#messages.send(message, options)

  readonly close = (): Promise<void> => this.#messages.close()

  readonly abort = (reason?: unknown): Promise<void> => this.#messages.abort(reason)

  /** The next message; undefined: none follows, or the server takes none. */
  async #next(): Promise<Uint8Array | undefined> {
    if (this.#stopping.aborted) return undefined
    try {
      return await this.#messages.receive({ signal: this.#stopping })
    } catch (error) {
      if (this.#stopping.aborted || isEnd(error)) return undefined
      throw error
    }
  }

  /**
   * Passes each message to `onMessage`, and sends its answers. Rejects with what fails, except for the client's end.
   */
  async serve(onMessage: MessageHandler): Promise<void> {
    for (let message = await this.#next(); message !== undefined; message = await this.#next()) {
      const answer = await onMessage(message, this)
      if (answer === undefined) continue
      checkBytes('serve', 'the result of onMessage', answer)
      try {
        await this.#messages.send(answer)
      } catch (error) {
        // The client has left without it.
        if (!isEnd(error)) throw error
      }
    }
  }

  /** Tells the client that no messages follow, and closes the connection when it has all. */
  async end(): Promise<void> {
    await this.#messages.end().catch(() => {})
    await this.#messages.close()
  }

  static is(value: object): value is Client {
    return #messages in value
  }
}
showAs<Client>(
  Client.prototype,
  'MessageClient',
  ({ connection: { remoteAddress, remotePort } }) => ({ remote: hostAndPort(remoteAddress, remotePort) }),
  Client.is,
)

const { signal: _, ...acceptOptionNames } = connectionOptionNames
const { signal: __, ...ownMessagesOptionNames } = messagesOptionNames

/** Throws RdmaError EINVAL. */
const checkServeOptions = (options: ServeOptions): void => {
  if (typeof options !== 'object' || options === null)
    throw invalidArgument('serve', `options ${formatValue(options)} is not an object`, "give { address: 'rdma://…' }")
  checkOptions('serve', 'options', options, serveOptionNames)
  const { onClient, onError, accept, messages } = options
  if (accept !== undefined) {
    checkOptions('serve', 'accept', accept, acceptOptionNames)
    copyConnectionOptions('serve', accept as ConnectionOptions<never>, MAX_REP_DATA)
  }
  if (messages !== undefined) {
    checkOptions('serve', 'messages', messages, ownMessagesOptionNames)
    messagesValues('serve', messages)
  }
  if (onClient !== undefined) checkFunction('serve', 'onClient', onClient)
  if (onError !== undefined) checkFunction('serve', 'onError', onError)
}

/**
 * Listens at `options.address`, and passes each message of each client to `onMessage`, whose result is the answer.
 * Clients `connect` and call `connection.messages()`. Resolves when it listens. Rejects as `listen`.
 */
export const serve = async (options: ServeOptions, onMessage: MessageHandler): Promise<MessageServer> => {
  checkServeOptions(options)
  checkFunction('serve', 'onMessage', onMessage)
  const { address, accept, messages: messagesOptions, onClient, onError = warnOf, ...listenOptions } = options
  const listener = await listen(address, listenOptions)
  const { clock } = contextOf('serve', listener.device).carrier
  const clients = new Set<Client>()
  /** By connection, also one that is being established: ends the wait for its next message. */
  const stops = new Set<AbortController>()
  let closed: Promise<void> | undefined

  /** An exception of `onError` is the program's own: it must not end the server. */
  const report = (error: unknown, client?: Client): void => {
    try {
      onError(error, client)
    } catch (thrown) {
      queueMicrotask(() => {
        throw thrown
      })
    }
  }
  const open = async (request: ConnectionRequest, signal: AbortSignal): Promise<Client | undefined> => {
    try {
      const connection = await request.accept({ ...accept, signal })
      return new Client(connection, await connection.messages({ ...messagesOptions, signal }), signal)
    } catch (error) {
      const hasLeft = signal.aborted || (error instanceof RdmaError && LEFT.includes(error.code))
      if (!hasLeft) report(error)
      return undefined
    }
  }
  const serveClient = async (request: ConnectionRequest): Promise<void> => {
    const stop = new AbortController()
    stops.add(stop)
    if (closed !== undefined) stop.abort(CLOSED)
    try {
      const client = await open(request, stop.signal)
      if (client === undefined) return
      clients.add(client)
      try {
        await onClient?.(client)
        await client.serve(onMessage)
        await client.end()
      } catch (error) {
        report(error, client)
        await client.abort(error)
      } finally {
        clients.delete(client)
      }
    } finally {
      stops.delete(stop)
    }
  }
  const acceptAll = async (): Promise<void> => {
    try {
      for await (const request of listener) {
        void serveClient(request).catch(report)
      }
    } catch (error) {
      report(error)
    }
  }
  const accepting = acceptAll()
  const closeOnce = async (): Promise<void> => {
    const isClosed = listener.close()
    for (const stop of stops) stop.abort(CLOSED)
    await accepting
    // A function of the program that does not return keeps its connection, which a signal ends.
    await isClosed
  }
  const close = async (closeOptions: AbortOptions = {}): Promise<void> => {
    checkAbortOptions('server.close', closeOptions)
    closed ??= closeOnce()
    const { signal } = closeOptions
    const abortAll = (): void => {
      for (const client of clients) void client.abort(CLOSED)
      void listener.close({ signal: AbortSignal.abort() }).catch(report)
    }
    if (signal?.aborted) abortAll()
    signal?.addEventListener('abort', abortAll, { once: true })
    try {
      await clock.watch('server.close', closed)
    } finally {
      signal?.removeEventListener('abort', abortAll)
    }
  }
  const server: MessageServer = {
    device: listener.device,
    address: listener.address,
    port: listener.port,
    clients,
    close,
    [Symbol.asyncDispose]: () => close({ signal: AbortSignal.abort() }),
  }
  showAs(server, 'MessageServer', () => ({
    device: listener.device.name,
    address: listener.address,
    port: listener.port,
    clients: clients.size,
    ...(closed !== undefined && { closed: true }),
  }))
  return server
}
