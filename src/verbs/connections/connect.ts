/*
 * `connect` and `listen`: connections by address and port, on devices in this process or in a daemon.
 */
import { emitAddress, parseAddress } from '../../clients/rdma-cm/socket-address.ts'
import { CmId } from '../../spec/classes/connections/cm_id.ts'
import { CmEventType, CmPortSpace } from '../../spec/enums.ts'
import { privateDataBytes, rdmaCmHeader, rejReason } from '../../spec/wire/mad.ts'
import { checkOptions, type KnownOptions } from '../checks/options.ts'
import { contextOf, type Device } from '../device.ts'
import { formatValue, invalidArgument, refused } from '../error.ts'
import { createMailbox, type Mailbox } from '../mailbox.ts'
import { open } from '../open.ts'
import { destroy, destroyUnlessRemoved } from '../plan.ts'
import type { AwaitableRcOptions, RcQueuePair, RcQueuePairOptions } from '../qp/connected.ts'
import {
  type ConnectedQueuePair,
  type Connection,
  ConnectionEnd,
  type ConnectionOptions,
  checkConnection,
  checkPrivateData,
  connectionOptionNames,
  dataOf,
  LazyAddresses,
  SharedDevice,
} from './connection.ts'
import { type ConnectionEvent, connectionEvents } from './events.ts'
import { resolveUrl, shownAddress } from './url.ts'

/** Bytes of private data; a request also carries rdma_cm's header. */
const MAX_WITH_REQUEST = privateDataBytes.REQ - rdmaCmHeader.bytes
const MAX_WITH_ANSWER = privateDataBytes.REP
const MAX_WITH_REFUSAL = privateDataBytes.REJ
const HIGHEST_REASON = 255

/** The device to use. */
export interface DeviceChoice {
  /** Default: the first device of the daemon under which the program runs, or of the user's own daemon. */
  readonly device?: Device
}

/** Options of `connect`. */
export interface ConnectToOptions<P = AwaitableRcOptions> extends ConnectionOptions<P>, DeviceChoice {}

/** Options of `listen`. */
export interface ListenOptions extends DeviceChoice {
  /** Backlog: requests that wait for `accept`; further ones are dropped, and their senders retry. Default 1024. */
  readonly backlog?: number
}

/** Options of `request.reject`. */
export interface RejectOptions {
  /** Private data for the peer, at most 148 bytes. */
  readonly privateData?: Uint8Array
  /** Reason of the REJ; default 28, rejected by the consumer. */
  readonly reason?: number
}

/** A peer's request to connect. */
export interface ConnectionRequest {
  /** The private data of the request. */
  readonly privateData: Uint8Array
  /** Address of the peer, as text. */
  readonly remoteAddress: string
  /** Port of the peer. */
  readonly remotePort: number
  /**
   * Accepts it; resolves when the peer is ready. Rejects with ConnectionError ETIMEDOUT or ECONNREFUSED if the peer has
   * given up.
   */
  accept(options?: ConnectionOptions): Promise<Connection>
  accept(options: ConnectionOptions<RcQueuePairOptions>): Promise<Connection<RcQueuePair>>
  /** Refuses the connection. Throws RdmaError. */
  reject(options?: RejectOptions): void
}

/** Yields requests as they arrive: `for await (const request of server)`. */
export interface Server extends AsyncDisposable, AsyncIterable<ConnectionRequest> {
  /** The device that it listens on. */
  readonly device: Device
  /** Its address, as text. */
  readonly address: string
  /** The port; the chosen one if 0 was requested. */
  readonly port: number
  /** Stops listening; accepted connections stay open. */
  close(): Promise<void>
}

const connectOptionNames: KnownOptions<ConnectToOptions> = { ...connectionOptionNames, device: true }
const listenOptionNames: KnownOptions<ListenOptions> = { device: true, backlog: true }
const rejectOptionNames: KnownOptions<RejectOptions> = { privateData: true, reason: true }

const sharedDevice = async (call: string, device: Device | undefined): Promise<SharedDevice> => {
  const chosen = device ?? (await open({ socket: true }))
  return new SharedDevice(chosen, contextOf(call, chosen), device === undefined)
}

/** Connects to the listener at `rdma://HOST:PORT`. */
export function connect(url: string, options?: ConnectToOptions): Promise<Connection>
export function connect(url: string, options: ConnectToOptions<RcQueuePairOptions>): Promise<Connection<RcQueuePair>>
export async function connect(url: string, options: object = {}): Promise<Connection<ConnectedQueuePair>> {
  checkOptions('connect', 'options', options, connectOptionNames)
  const given = options as ConnectToOptions<never>
  checkConnection('connect', given, MAX_WITH_REQUEST)
  given.signal?.throwIfAborted()
  const destination = await resolveUrl('connect', url)
  const shared = await sharedDevice('connect', given.device)
  const end = new ConnectionEnd('connect', shared)
  try {
    given.signal?.throwIfAborted()
    end.create()
    return await end.connect(destination, given)
  } catch (error) {
    await end.close()
    throw error
  }
}

class RequestObject implements ConnectionRequest {
  readonly privateData: Uint8Array
  readonly #shared: SharedDevice
  /** Undefined once the request is accepted or refused. */
  #id: number | undefined
  readonly #addresses = new LazyAddresses()

  constructor(shared: SharedDevice, event: ConnectionEvent) {
    this.privateData = dataOf(event)
    this.#shared = shared
    this.#id = event.object
  }

  get remoteAddress(): string {
    return this.#addresses.of(this.#shared.kit, this.#id).remote.address
  }

  get remotePort(): number {
    return this.#addresses.of(this.#shared.kit, this.#id).remote.port
  }

  // Arrow functions, because programs may take the methods out of the object.
  readonly accept = async (options: object = {}): Promise<Connection<never>> => {
    checkOptions('request.accept', 'options', options, connectionOptionNames)
    const given = options as ConnectionOptions<never>
    checkConnection('request.accept', given, MAX_WITH_ANSWER)
    given.signal?.throwIfAborted()
    const id = this.#take('request.accept')
    const end = new ConnectionEnd('request.accept', this.#shared.share())
    end.take(id, this.privateData)
    try {
      return await end.accept(given)
    } catch (error) {
      await end.close()
      throw error
    }
  }

  readonly reject = (options: RejectOptions = {}): void => {
    checkOptions('request.reject', 'options', options, rejectOptionNames)
    const { privateData = new Uint8Array(0), reason = rejReason.CONSUMER_DEFINED } = options
    checkPrivateData('request.reject', privateData, MAX_WITH_REFUSAL)
    if (!Number.isInteger(reason) || reason < 1 || reason > HIGHEST_REASON)
      throw invalidArgument('request.reject', `reason ${formatValue(reason)}: it is 1 to ${HIGHEST_REASON}`)
    const id = this.#take('request.reject')
    const { carrier } = this.#shared.kit
    try {
      carrier.call(CmId, 'reject', id, { privateData, reason })
    } finally {
      destroy(carrier, CmId, id)
    }
  }

  /** Takes the identifier: `accept` or `reject` owns it from now on. */
  #take(call: string): number {
    const id = this.#id
    if (id === undefined) throw refused('EINVAL', call, 'the request was answered already')
    this.#id = undefined
    return id
  }
}

/** Listens at `rdma://HOST:PORT` of one device; 0.0.0.0 and [::] mean all its addresses, port 0 any free port. */
export const listen = async (url: string, options: ListenOptions = {}): Promise<Server> => {
  checkOptions('listen', 'options', options, listenOptionNames)
  const { backlog = 0 } = options
  if (!Number.isInteger(backlog) || backlog < 0)
    throw invalidArgument('listen', `backlog ${formatValue(backlog)} is not a number of requests`)
  const address = await resolveUrl('listen', url)
  const shared = await sharedDevice('listen', options.device)
  const { device, kit } = shared
  const { carrier, waiters } = kit
  const requests: Mailbox<ConnectionRequest> = createMailbox(kit, 'server')
  const number = waiters.add()
  let id: number | undefined
  let isOpen = true
  const close = async (): Promise<void> => {
    if (!isOpen) return
    isOpen = false
    try {
      connectionEvents(kit).off(number)
      destroyUnlessRemoved(() => {
        for (let request = requests.poll(); request !== undefined; request = requests.poll()) request.reject()
      })
      if (id !== undefined) destroy(carrier, CmId, id)
    } finally {
      requests.end()
      waiters.remove(number)
      await shared.release()
    }
  }
  try {
    const events = connectionEvents(kit)
    events.on(number, event => {
      if (event.type === CmEventType.values.CONNECT_REQUEST) requests.put(new RequestObject(shared, event))
    })
    const named = { channel: events.channel, userHandle: BigInt(number), portSpace: CmPortSpace.values.TCP }
    id = carrier.call(CmId, 'create', 0, named).object
    carrier.call(CmId, 'bind', id, { address: emitAddress(address) })
    carrier.call(CmId, 'listen', id, { backlog })
    const bound = shownAddress(parseAddress(carrier.call(CmId, 'query', id, {}).out.addresses.source))
    return {
      device,
      ...bound,
      [Symbol.asyncIterator]: () => requests.arrivals(),
      close,
      [Symbol.asyncDispose]: close,
    }
  } catch (error) {
    await close()
    throw error
  }
}
