/*
 * `connect` and `listen`: connections by address and port (R17), on devices in this process or in a daemon.
 */

import { type Clock, nextTurnOf, realClock } from '../../host/event-loop/clock.ts'
import { emitAddress, parseAddress } from '../../services/socket-address.ts'
import { CmId } from '../../spec/classes/connections/cm_id.ts'
import { CmEventType, CmPortSpace } from '../../spec/enums.ts'
import { Errno } from '../../spec/errno.ts'
import { privateDataBytes, rdmaCmHeader, rejReason } from '../../spec/wire/mad.ts'
import { open } from '../open/open.ts'
import { checkOptions, type KnownOptions } from '../verbs/arguments/options.ts'
import { contextOf, type Device } from '../verbs/device.ts'
import { checkInteger, formatValue, invalidArgument, RdmaError, reasonOf, refused } from '../verbs/error.ts'
import { type AbortOptions, type Arrivals, checkAbortOptions, createMailbox, type Mailbox } from '../verbs/mailbox.ts'
import { showAs } from '../verbs/objects/show.ts'
import { destroy } from '../verbs/plan.ts'
import type { AwaitableRcOptions, RcQueuePair, RcQueuePairOptions } from '../verbs/qp/connected.ts'
import {
  type ConnectedQueuePair,
  type Connection,
  ConnectionEnd,
  type ConnectionOptions,
  checkPrivateData,
  connectionOptionNames,
  copyConnectionOptions,
  dataOf,
  LazyAddresses,
  SharedDevice,
  withTimeout,
} from './connection.ts'
import { type ConnectionEvent, connectionEvents } from './events.ts'
import { hostAndPort, type ListenerAddress, resolveUrl, shownAddress, urlText } from './url.ts'

/** Maximum bytes of a program's private data. A REQ also contains rdma_cm's header. */
const MAX_REQ_DATA = privateDataBytes.REQ - rdmaCmHeader.bytes
export const MAX_REP_DATA = privateDataBytes.REP
const MAX_REJ_DATA = privateDataBytes.REJ
/** The attribute `reason` of `cm_id.reject` has 8 bits. */
const HIGHEST_REASON = 255
/** The connection manager's maximum; the attribute `backlog` of `cm_id.listen` has 32 bits, the option any number. */
const MAX_BACKLOG = 1024

/** The device of a connection or server. */
export interface DeviceChoice {
  /** Default: the daemon's first device with a network, see `socket: true` in `OpenOptions`. */
  readonly device?: Device | undefined
}

/** Options of `connect`. */
export interface ConnectToOptions<P = AwaitableRcOptions> extends ConnectionOptions<P>, DeviceChoice {}

/** Options of `listen`. */
export interface ListenOptions extends DeviceChoice {
  /**
   * Maximum requests that the connection manager keeps until the library reads them. Further requests are dropped, and
   * their senders retry. Does not limit the requests that wait for the program's answer. Default and maximum 1024; a
   * larger number means 1024.
   */
  readonly backlog?: number | undefined
}

/** Options of `request.reject`. */
export interface RejectOptions {
  /** Private data for the peer, at most 148 bytes. */
  readonly privateData?: Uint8Array | undefined
  /** Reason of the REJ, 1 to 255 (IBA 12.6.7.2); default 28, consumer reject. */
  readonly reason?: number | undefined
}

/** A peer's request to connect. */
export interface ConnectionRequest {
  /** The private data of the request. */
  readonly privateData: Uint8Array
  /**
   * Address of the peer, as text; '' and port 0 if first read after `accept` or `reject`, or after the device was
   * closed or removed.
   */
  readonly remoteAddress: string
  /** Port of the peer. */
  readonly remotePort: number
  /**
   * Accepts the request; resolves when the connection is established. Rejects with ConnectionError: ECONNREFUSED if the
   * peer cancels the request, rejects the REP or ends the connection before its RTU has arrived, ETIMEDOUT if the peer
   * does not answer.
   */
  accept(options?: ConnectionOptions): Promise<Connection>
  accept(options: ConnectionOptions<RcQueuePairOptions>): Promise<Connection<RcQueuePair>>
  /**
   * Refuses the connection. Throws RdmaError: EINVAL, also if the request was answered already or the peer has canceled
   * it, ERR_CLOSED if the device is closed, EIO if it was removed.
   */
  reject(options?: RejectOptions): void
}

/**
 * A listener: `for await (const request of server)` yields requests. If the loop ends with a request that it has not
 * answered, the request is rejected, unless the program answers it in the same turn of the event loop.
 */
export interface Server extends Arrivals<ConnectionRequest>, AsyncDisposable, AsyncIterable<ConnectionRequest> {
  /** Device of the listener. */
  readonly device: Device
  /** Address of the listener, as text. */
  readonly address: string
  /** The port; if the URL has port 0, the free port that was chosen. */
  readonly port: number
  /**
   * Stops listening, and rejects the requests that were not yielded; the others can still be answered. Resolves when
   * the accepted connections have ended, or the device is closed or removed. If the signal is aborted, now or later,
   * the unanswered requests are rejected and these connections closed. May be called again, with a signal too.
   */
  close(options?: AbortOptions): Promise<void>
  /** What `await using` calls: `close` without the wait, as with an aborted signal. */
  [Symbol.asyncDispose](): Promise<void>
}

export const connectOptionNames: KnownOptions<ConnectToOptions> = { ...connectionOptionNames, device: true }
const listenOptionNames: KnownOptions<ListenOptions> = { device: true, backlog: true }
const rejectOptionNames: KnownOptions<RejectOptions> = { privateData: true, reason: true }

/** The chosen device, or the default of `DeviceChoice`. */
const sharedDevice = async (call: string, chosen: Device | undefined): Promise<SharedDevice> => {
  const device = chosen === undefined ? await open({ socket: true }) : chosen
  return new SharedDevice(device, contextOf(call, device), chosen === undefined)
}

/**
 * Connects to the listener at an address, `rdma://HOST:PORT` for example. Rejects with RdmaError: EINVAL for a URL of
 * another form or an invalid option, EHOSTUNREACH for an unknown name or, over memory, an address of no device,
 * ENETUNREACH if the device has no address of that family; with ConnectionError if the peer refuses or does not answer.
 */
export function connect(address: ListenerAddress, options?: ConnectToOptions): Promise<Connection>
export function connect(
  address: ListenerAddress,
  options: ConnectToOptions<RcQueuePairOptions>,
): Promise<Connection<RcQueuePair>>
export async function connect(address: ListenerAddress, options: object = {}): Promise<Connection<ConnectedQueuePair>> {
  checkOptions('connect', 'options', options, connectOptionNames)
  const checked = copyConnectionOptions('connect', options as ConnectToOptions<never>, MAX_REQ_DATA)
  const { device } = checked
  const clock = device === undefined ? realClock : contextOf('connect', device).carrier.clock
  const connection = withTimeout(clock, 'connect', checked, limited => connectTo(urlText('connect', address), limited))
  return clock.watch('connect', connection)
}

/** Settles as `promise`, or rejects with the signal's reason. */
const unlessAborted = <T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> =>
  new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal?.removeEventListener('abort', onAbort))
  })

const connectTo = async (url: string, checked: ConnectToOptions<never>): Promise<Connection<never>> => {
  const destination = await unlessAborted(resolveUrl('connect', url), checked.signal)
  if (destination.port === 0)
    throw invalidArgument(
      'connect',
      `url "${url}": port 0 is no listener's port`,
      'give the port of the listener: server.port',
    )
  const shared = await sharedDevice('connect', checked.device)
  let end: ConnectionEnd | undefined
  try {
    end = new ConnectionEnd('connect', shared)
    checked.signal?.throwIfAborted()
    end.create()
    return await end.connect(destination, checked)
  } catch (error) {
    await (end === undefined ? shared.release() : end.close())
    throw error
  }
}

/** The unanswered requests and the open connections of a server. */
class OpenEnds {
  // How to end each of them. A request that its peer has canceled stays: nothing tells of the cancellation.
  readonly #requests = new Set<() => unknown>()
  readonly #connections = new Set<() => unknown>()
  /** Called when a connection has ended. */
  readonly #onRemoved: () => void

  constructor(onRemoved: () => void) {
    this.#onRemoved = onRemoved
  }

  get hasConnections(): boolean {
    return this.#connections.size > 0
  }

  /** Returns the function that removes the request. */
  addRequest(end: () => unknown): () => void {
    this.#requests.add(end)
    return () => void this.#requests.delete(end)
  }

  /** Returns the function that removes the connection. */
  addConnection(end: () => unknown): () => void {
    this.#connections.add(end)
    return () => {
      this.#connections.delete(end)
      this.#onRemoved()
    }
  }

  /** Rejects the requests and closes the connections. */
  async endAll(): Promise<void> {
    await Promise.allSettled([...this.#requests, ...this.#connections].map(async end => end()))
  }
}

class RequestObject implements ConnectionRequest {
  readonly privateData: Uint8Array
  readonly #shared: SharedDevice
  /** Handle of the request's identifier; undefined once the request is accepted or refused. */
  #id: number | undefined
  readonly #addresses = new LazyAddresses()
  readonly #open: OpenEnds
  readonly #remove: () => void

  constructor(shared: SharedDevice, event: ConnectionEvent, open: OpenEnds) {
    this.privateData = dataOf(event)
    // A request can be answered after its server is closed.
    this.#shared = shared.share()
    this.#id = event.object
    this.#open = open
    this.#remove = open.addRequest(() => rejectUnlessEnded(this))
  }

  get remoteAddress(): string {
    return this.#addresses.of(this.#shared.context, this.#id).remote.address
  }

  get remotePort(): number {
    return this.#addresses.of(this.#shared.context, this.#id).remote.port
  }

  // Arrow functions, because programs may take the methods out of the object.
  readonly accept = async (options: object = {}): Promise<Connection<never>> => {
    checkOptions('request.accept', 'options', options, connectionOptionNames)
    const checked = copyConnectionOptions('request.accept', options as ConnectionOptions<never>, MAX_REP_DATA)
    const id = this.#takeIdentifier('request.accept')
    const end = new ConnectionEnd('request.accept', this.#shared)
    end.setIdentifier(id, this.privateData)
    end.onEnded = this.#open.addConnection(() => end.close())
    this.#remove()
    try {
      const accepted = withTimeout(end.clock, 'request.accept', checked, limited => end.accept(limited))
      return await end.clock.watch('request.accept', accepted)
    } catch (error) {
      await end.close()
      throw error
    }
  }

  readonly reject = (options: RejectOptions = {}): void => {
    checkOptions('request.reject', 'options', options, rejectOptionNames)
    const { privateData = new Uint8Array(0), reason = rejReason.CONSUMER_DEFINED } = options
    checkPrivateData('request.reject', privateData, MAX_REJ_DATA)
    checkInteger('request.reject', 'reason', reason, 1, HIGHEST_REASON)
    const id = this.#takeIdentifier('request.reject')
    const { carrier } = this.#shared.context
    try {
      carrier.call(CmId, 'reject', id, { privateData, reason })
    } catch (error) {
      // EINVAL: the connection manager has no such request any more, because the options are valid.
      const isCanceled = error instanceof RdmaError && error.code === 'EINVAL'
      throw isCanceled ? invalidArgument('request.reject', 'the peer has canceled the request') : error
    } finally {
      destroy(carrier, CmId, id)
      this.#remove()
      void this.#shared.release()
    }
  }

  /** Returns the identifier. The caller owns it and the share of the device. A second call throws RdmaError EINVAL. */
  #takeIdentifier(call: string): number {
    const id = this.#id
    if (id === undefined) throw refused('EINVAL', call, 'the request was answered already')
    this.#id = undefined
    return id
  }
}

/** Rejects a request. Ignores EIO (the device is closed or removed) and EINVAL (the peer has canceled the request). */
const rejectUnlessEnded = ({ reject }: ConnectionRequest): void => {
  try {
    reject()
  } catch (error) {
    if (!(error instanceof RdmaError) || (error.errno !== Errno.EIO && error.errno !== Errno.EINVAL)) throw error
  }
}

/**
 * Yields requests. If the loop ends with an unanswered request, by an exception for example, the request is rejected in
 * the next turn of the event loop: without an answer its peer would wait for minutes.
 */
async function* requestsOf(
  clock: Clock,
  requests: AsyncIterable<ConnectionRequest>,
): AsyncGenerator<ConnectionRequest> {
  let yielded: ConnectionRequest | undefined
  try {
    for await (const request of requests) {
      yielded = request
      yield request
      yielded = undefined
    }
  } finally {
    if (yielded !== undefined) rejectLater(clock, yielded)
  }
}

const rejectLater = (clock: Clock, request: ConnectionRequest): void =>
  void nextTurnOf(clock).then(() => rejectUnlessEnded(request))

showAs<RequestObject>(
  RequestObject.prototype,
  'ConnectionRequest',
  ({ remoteAddress, remotePort, privateData }) => ({
    ...(remotePort !== 0 && { remote: hostAndPort(remoteAddress, remotePort) }),
    privateBytes: privateData.length,
  }),
  // false for the prototype
  self => Object.hasOwn(self, 'accept'),
)

/**
 * Converts a refusal of `cm_id.bind` or `cm_id.listen` to a refusal of `listen`. As in Linux, the connection manager
 * may also answer EADDRNOTAVAIL for a port in use.
 */
const bindError = (url: string, port: number, error: unknown): unknown => {
  if (!(error instanceof RdmaError)) return error
  if (reasonOf(error).code === 'port-in-use')
    return refused('EADDRINUSE', 'listen', `url "${url}": port ${port} is in use`)
  return error.code === 'EADDRNOTAVAIL' ? refused(error.code, 'listen', `url "${url}": ${error.reason}`) : error
}

/**
 * Listens at an address, `rdma://HOST:PORT` for example, on one device; 0.0.0.0 and [::] are all its addresses, port 0
 * any free port. Rejects with RdmaError: EADDRINUSE if the port is in use, EADDRNOTAVAIL if the device does not have
 * the address, EINVAL.
 */
export const listen = async (listenAt: ListenerAddress, options: ListenOptions = {}): Promise<Server> => {
  checkOptions('listen', 'options', options, listenOptionNames)
  // 0 means the maximum.
  const { backlog = 0, device: chosenDevice } = options
  if (!Number.isInteger(backlog) || backlog < 0)
    throw invalidArgument('listen', `backlog ${formatValue(backlog)} is not a number of requests`)
  const url = urlText('listen', listenAt)
  const address = await resolveUrl('listen', url)
  const shared = await sharedDevice('listen', chosenDevice)
  const { device, context } = shared
  const { carrier, waiters } = context
  const requests: Mailbox<ConnectionRequest> = createMailbox(context, 'server')
  const userHandle = waiters.add()
  const openEnds = new OpenEnds(() => waiters.wake(userHandle))
  let id: number | undefined
  /** Settles when the server is closed and drained; undefined while it is open. */
  let closed: Promise<void> | undefined
  const closeOnce = async (): Promise<void> => {
    try {
      connectionEvents(context).removeHandler(userHandle)
      for (let request = requests.poll(); request !== undefined; request = requests.poll()) rejectUnlessEnded(request)
      if (id !== undefined) destroy(carrier, CmId, id)
      requests.end()
      while (openEnds.hasConnections && !waiters.isOver) await waiters.wait(userHandle)
    } finally {
      requests.end()
      waiters.remove(userHandle)
      await shared.release()
    }
  }
  const close = async (options: AbortOptions = {}): Promise<void> => {
    checkAbortOptions('server.close', options)
    closed ??= closeOnce()
    const { signal } = options
    const endAll = (): void => void openEnds.endAll()
    if (signal?.aborted) endAll()
    signal?.addEventListener('abort', endAll, { once: true })
    try {
      await carrier.clock.watch('server.close', closed)
    } finally {
      signal?.removeEventListener('abort', endAll)
    }
  }
  try {
    const events = connectionEvents(context)
    events.setHandler(userHandle, event => {
      if (event.type === CmEventType.values.CONNECT_REQUEST) requests.put(new RequestObject(shared, event, openEnds))
    })
    const args = { channel: events.channel, userHandle: BigInt(userHandle), portSpace: CmPortSpace.values.TCP }
    id = carrier.call(CmId, 'create', 0, args).object
    try {
      carrier.call(CmId, 'bind', id, { address: emitAddress(address) })
      carrier.call(CmId, 'listen', id, { backlog: Math.min(backlog, MAX_BACKLOG) })
    } catch (error) {
      throw bindError(url, address.port, error)
    }
    const bound = shownAddress(parseAddress(carrier.call(CmId, 'query', id, {}).out.addresses.source))
    const { poll, wait } = requests
    const arrivals: Server['arrivals'] = options => requestsOf(carrier.clock, requests.arrivals(options))
    const server: Server = {
      device,
      ...bound,
      poll,
      wait,
      arrivals,
      [Symbol.asyncIterator]: () => arrivals(),
      close,
      [Symbol.asyncDispose]: () => close({ signal: AbortSignal.abort() }),
    }
    showAs(server, 'Server', () => ({
      device: device.name,
      address: bound.address,
      port: bound.port,
      ...(closed !== undefined && { closed: true }),
    }))
    return server
  } catch (error) {
    await close()
    throw error
  }
}
