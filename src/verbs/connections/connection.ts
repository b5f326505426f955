/*
 * One end of a connection by address and port (R17): its identifier and its queue pair. Core resolves the address,
 * exchanges messages with the peer and moves the queue pair; this file waits for the outcome.
 */
import { emitAddress, parseAddress, type SocketAddress } from '../../clients/rdma-cm/socket-address.ts'
import { CmId } from '../../spec/classes/connections/cm_id.ts'
import { CmConnectionParameters, PRIVATE_DATA_BYTES } from '../../spec/classes/connections/cm_parameters.ts'
import { CmEventType, CmPortSpace } from '../../spec/enums.ts'
import { Errno, errnoName } from '../../spec/errno.ts'
import { type RecordOf, zeroRecord } from '../../spec/schema/schema.ts'
import { rejReason } from '../../spec/wire/mad.ts'
import type { KnownOptions } from '../checks/options.ts'
import type { Device } from '../device.ts'
import { checkBytes, checkFunction, formatValue, invalidArgument, RdmaError, refusal, refused } from '../error.ts'
import { checkSignal } from '../mailbox.ts'
import type { ProtectionDomain } from '../pd.ts'
import { checkOwn, type DeviceContext, destroy, type HeldObject } from '../plan.ts'
import type { AwaitableRcOptions, AwaitableRcQueuePair, RcQueuePair } from '../qp/connected.ts'
import { markReady } from '../qp/queue-pair.ts'
import { type ConnectionEvent, type ConnectionEvents, connectionEvents } from './events.ts'
import { type ShownAddress, shownAddress } from './url.ts'

/** Who ended a connection: this side, the peer, or the removal of the device. */
export type Ending = 'closed' | 'peer' | 'device'

/** A queue pair of either kind. */
export type ConnectedQueuePair = RcQueuePair | AwaitableRcQueuePair

/** One end of a connection by address and port, with its queue pair. */
export interface Connection<Q extends ConnectedQueuePair = AwaitableRcQueuePair> extends AsyncDisposable {
  /** Its device. */
  readonly device: Device
  /** The protection domain in which memory for its requests is registered. */
  readonly pd: ProtectionDomain
  /** The queue pair, ready to send. Its requests return promises, unless the option `qp` says otherwise. */
  readonly qp: Q
  /**
   * The private data of the peer's request or reply. InfiniBand's messages do not carry its length: it is padded with
   * zeros to 56 or 196 bytes.
   */
  readonly privateData: Uint8Array
  /** Local address, as text. If first read after the end, it is '' and the ports are 0, as in `net.Socket`. */
  readonly localAddress: string
  /** Local port. */
  readonly localPort: number
  /** Address of the peer, as text. */
  readonly remoteAddress: string
  /** Port of the peer. */
  readonly remotePort: number
  /** Resolves when the connection has ended, with who ended it. */
  readonly closed: Promise<Ending>
  /**
   * Disconnects, tells the peer, and destroys the queue pair without waiting for its requests (`await qp.drained()`
   * waits for them).
   */
  close(): Promise<void>
}

/** Options of both sides. */
export interface ConnectionOptions<P = AwaitableRcOptions> {
  /** Private data for the peer: at most 56 bytes with a request, 196 with a reply. */
  readonly privateData?: Uint8Array
  /** The protection domain of the queue pair; default: one for all connections of the device. */
  readonly pd?: ProtectionDomain
  /** Options of the queue pair; with a `sendCq` it completes there, and its requests return no promises. */
  readonly qp?: P
  /**
   * Called and awaited with the queue pair before the connection is established: receives that are posted here miss no
   * message.
   */
  readonly prepare?: (
    qp: P extends { readonly sendCq: unknown } ? RcQueuePair : AwaitableRcQueuePair,
  ) => void | Promise<void>
  /** Maximum outstanding READs and atomics in each direction, 0–128; default 16. */
  readonly maxRdAtomic?: number
  /** Aborts the attempt: it rejects with the signal's reason, and the connection is released. */
  readonly signal?: AbortSignal
}

export const connectionOptionNames: KnownOptions<ConnectionOptions> = {
  privateData: true,
  pd: true,
  qp: true,
  prepare: true,
  maxRdAtomic: true,
  signal: true,
}

/** The peer or the network refused the connection: the reason, and the peer's private data. */
export class ConnectionError extends RdmaError {
  /** Reason of the REJ (IBA 12.6.7.2); undefined without a REJ. */
  readonly reject: number | undefined
  /** The private data of the refusal. */
  readonly privateData: Uint8Array

  constructor(
    code: 'ECONNREFUSED' | 'ETIMEDOUT',
    call: string,
    reason: string,
    reject?: number,
    data: Uint8Array = new Uint8Array(0),
  ) {
    super(code, Errno[code], call, reason)
    this.reject = reject
    this.privateData = data
  }
}

const { ADDR_ERROR, CONNECT_ERROR, UNREACHABLE, REJECTED, ESTABLISHED, DISCONNECTED, DEVICE_REMOVAL } =
  CmEventType.values
const MAX_RD_ATOMIC = 128
const DEFAULT_RD_ATOMIC = 16
/** retry_cnt and rnr_retry: 7 retries; of RNR retries 7 means unlimited. */
const RETRIES = 7

const reasons = Object.entries(rejReason)
const reasonText = (reason: number): string => reasons.find(([, value]) => value === reason)?.[0] ?? `reason ${reason}`

const noData = new Uint8Array(0)

/** The private data of an event. */
export const dataOf = ({ connection }: ConnectionEvent): Uint8Array =>
  connection?.privateData.slice(0, connection.privateDataLength) ?? noData

/** Checks the options of both sides. Throws RdmaError EINVAL. `maxBytes`: maximum bytes of private data. */
export const checkConnection = (call: string, options: ConnectionOptions<never>, maxBytes: number): void => {
  const { privateData, maxRdAtomic, prepare } = options
  if (privateData !== undefined) checkPrivateData(call, privateData, maxBytes)
  if (prepare !== undefined) checkFunction(call, 'prepare', prepare)
  if (maxRdAtomic !== undefined && !(Number.isInteger(maxRdAtomic) && maxRdAtomic >= 0 && maxRdAtomic <= MAX_RD_ATOMIC))
    throw invalidArgument(call, `maxRdAtomic ${formatValue(maxRdAtomic)}: it is 0 to ${MAX_RD_ATOMIC}`)
  checkSignal(call, options)
}

export const checkPrivateData = (call: string, privateData: Uint8Array, maxBytes: number): void => {
  checkBytes(call, 'privateData', privateData)
  if (privateData.length > maxBytes)
    throw invalidArgument(call, `privateData: it has ${privateData.length} bytes, at most ${maxBytes} are sent`)
}

const noParameters = zeroRecord(CmConnectionParameters)

const parametersOf = ({
  privateData = noData,
  maxRdAtomic = DEFAULT_RD_ATOMIC,
}: ConnectionOptions<never>): RecordOf<typeof CmConnectionParameters> => {
  const padded = privateData.length === 0 ? noParameters.privateData : new Uint8Array(PRIVATE_DATA_BYTES)
  if (privateData.length > 0) padded.set(privateData)
  return {
    ...noParameters,
    privateData: padded,
    privateDataLength: privateData.length,
    responderResources: maxRdAtomic,
    initiatorDepth: maxRdAtomic,
    flowControl: 1,
    retryCount: RETRIES,
    rnrRetryCount: RETRIES,
    valid: 1,
  }
}

/** A device that several connections use, and its open state, which they share. */
export class SharedDevice {
  readonly device: Device
  readonly kit: DeviceContext
  /** The device was opened for its connections and is closed with the last of them. */
  readonly #isOwn: boolean
  #users = 1

  constructor(device: Device, kit: DeviceContext, isOwn: boolean) {
    this.device = device
    this.kit = kit
    this.#isOwn = isOwn
  }

  /** Adds a user of the device. */
  share(): this {
    this.#users++
    return this
  }

  async release(): Promise<void> {
    this.#users--
    if (this.#users === 0 && this.#isOwn) await this.device.close()
  }
}

const domains = new WeakMap<DeviceContext, ProtectionDomain>()

/** The default protection domain of a device's connections. */
const domainOf = ({ device, kit }: SharedDevice): ProtectionDomain => {
  let known = domains.get(kit)
  if (known === undefined || !(known as ProtectionDomain & HeldObject).isOpen) {
    known = device.pd()
    domains.set(kit, known)
  }
  return known
}

/** Addresses of both ends. */
interface Addresses {
  readonly local: ShownAddress
  readonly remote: ShownAddress
}
const none: Addresses = { local: shownAddress(undefined), remote: shownAddress(undefined) }

/** Addresses of an identifier, queried when first read; '' and 0 after its end. */
export class LazyAddresses {
  #known: Addresses | undefined

  of({ carrier }: DeviceContext, id: number | undefined): Addresses {
    if (this.#known !== undefined || id === undefined) return this.#known ?? none
    const { addresses } = carrier.call(CmId, 'query', id, {}).out
    this.#known = {
      local: shownAddress(parseAddress(addresses.source)),
      remote: shownAddress(parseAddress(addresses.destination)),
    }
    return this.#known
  }
}

/** One end of a connection while it is being established. */
export class ConnectionEnd {
  readonly number: number
  readonly #call: string
  readonly #shared: SharedDevice
  readonly #events: ConnectionEvents
  #id: number | undefined
  #qp: ConnectedQueuePair | undefined
  privateData: Uint8Array = noData
  readonly #addresses = new LazyAddresses()
  #isEstablished = false
  #failure: RdmaError | undefined
  #end: Ending | undefined
  #isClosed = false

  constructor(call: string, shared: SharedDevice) {
    const { waiters } = shared.kit
    this.#call = call
    this.#shared = shared
    this.#events = connectionEvents(shared.kit)
    this.number = waiters.add()
    this.#events.on(this.number, event => this.#onEvent(event))
  }

  /** Creates the identifier of the active side. */
  create(): void {
    const { carrier } = this.#shared.kit
    this.#id = carrier.call(CmId, 'create', 0, {
      channel: this.#events.channel,
      userHandle: BigInt(this.number),
      portSpace: CmPortSpace.values.TCP,
    }).object
  }

  /** Uses the identifier of an incoming request from now on. */
  take(id: number, privateData: Uint8Array): void {
    this.#id = id
    this.privateData = privateData
  }

  async #makeQueuePair({ pd, qp: options, prepare, signal }: ConnectionOptions<never>): Promise<ProtectionDomain> {
    if (pd !== undefined) checkOwn(this.#shared.kit, this.#call, 'pd', pd)
    const domain = pd ?? domainOf(this.#shared)
    const qp = domain.rcQp(options)
    this.#qp = qp
    if (prepare !== undefined) {
      await (prepare as (qp: ConnectedQueuePair) => void | Promise<void>)(qp)
      signal?.throwIfAborted()
      if (!(qp as ConnectedQueuePair & HeldObject).isOpen)
        throw invalidArgument(this.#call, 'prepare has closed the queue pair')
    }
    return domain
  }

  /** Sends the request and waits for the reply. */
  async connect(destination: SocketAddress, options: ConnectionOptions<never>): Promise<Connection<never>> {
    const pd = await this.#makeQueuePair(options)
    this.#request('connect', { parameters: parametersOf(options), destination: emitAddress(destination) })
    return this.#established(pd, options.signal)
  }

  /** Sends the reply and waits until the peer is ready. */
  async accept(options: ConnectionOptions<never>): Promise<Connection<never>> {
    const pd = await this.#makeQueuePair(options)
    try {
      this.#request('accept', { parameters: parametersOf(options), userHandle: BigInt(this.number) })
    } catch (error) {
      if (!(error instanceof RdmaError && error.code === 'EINVAL')) throw error
      throw new ConnectionError('ECONNREFUSED', this.#call, 'the peer has canceled the request')
    }
    return this.#established(pd, options.signal)
  }

  #request(method: 'connect' | 'accept', args: object): void {
    const { carrier } = this.#shared.kit
    carrier.call(CmId, method, this.#id as number, { ...args, qp: this.#qp?.handle })
  }

  async #established(pd: ProtectionDomain, signal: AbortSignal | undefined): Promise<Connection<never>> {
    const { waiters } = this.#shared.kit
    this.#events.hold()
    try {
      while (!this.#isEstablished && this.#failure === undefined && !waiters.over)
        await waiters.wait(this.number, signal)
    } finally {
      this.#events.release()
    }
    if (this.#failure !== undefined) throw this.#failure
    if (!this.#isEstablished) throw refused('EIO', this.#call, 'the device was removed')
    return new ConnectionObject(
      this,
      this.#shared.device,
      pd,
      this.#qp as ConnectedQueuePair,
    ) as Connection<ConnectedQueuePair> as Connection<never>
  }

  #onEvent(event: ConnectionEvent): void {
    const { type, status } = event
    const { carrier, waiters } = this.#shared.kit
    if (type === ESTABLISHED) {
      this.#isEstablished = true
      if (this.#qp !== undefined) markReady(this.#qp)
      // A REP brings private data; that of a REQ was read when the REQ arrived.
      if (event.connection !== undefined && this.privateData.length === 0) this.privateData = dataOf(event)
    } else if (type === DISCONNECTED) {
      // Answers the DREQ: the peer waits for the DREP.
      carrier.call(CmId, 'disconnect', this.#id as number, {})
      this.#over('peer')
    } else if (type === DEVICE_REMOVAL) this.#over('device')
    else if (type === REJECTED && this.#isEstablished) this.#over('peer')
    else this.#failure ??= this.#refusal(type, status | 0, dataOf(event))
    waiters.wake(this.number)
  }

  #refusal(type: number, status: number, data: Uint8Array): RdmaError | undefined {
    if (type === REJECTED)
      return new ConnectionError('ECONNREFUSED', this.#call, `the peer refused: ${reasonText(status)}`, status, data)
    if (type === UNREACHABLE) return new ConnectionError('ETIMEDOUT', this.#call, 'the peer does not answer')
    if (type !== ADDR_ERROR && type !== CONNECT_ERROR) return undefined
    const what = type === ADDR_ERROR ? 'there is no route to the address' : 'the queue pair could not be connected'
    return refusal(errnoName(-status), -status, this.#call, what)
  }

  #over(why: Ending): void {
    this.#end ??= why
    this.#shared.kit.waiters.wake(this.number)
  }

  /** Waits for the disconnect. */
  async closed(): Promise<Ending> {
    const { waiters } = this.#shared.kit
    while (this.#end === undefined && !waiters.over) await waiters.wait(this.number)
    return this.#end ?? 'device'
  }

  /** Releases everything and tells the peer. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    const { kit } = this.#shared
    const id = this.#id
    this.#id = undefined
    this.#events.off(this.number)
    try {
      if (id !== undefined) destroy(kit.carrier, CmId, id)
      this.#qp?.close()
    } finally {
      kit.waiters.remove(this.number)
      this.#over('closed')
      await this.#shared.release()
    }
  }

  get addresses(): Addresses {
    return this.#addresses.of(this.#shared.kit, this.#id)
  }
}

/** The program's view of a connected end. */
class ConnectionObject implements Connection<ConnectedQueuePair> {
  readonly device: Device
  readonly pd: ProtectionDomain
  readonly qp: ConnectedQueuePair
  readonly privateData: Uint8Array
  readonly #end: ConnectionEnd

  constructor(end: ConnectionEnd, device: Device, pd: ProtectionDomain, qp: ConnectedQueuePair) {
    this.device = device
    this.pd = pd
    this.qp = qp
    this.privateData = end.privateData
    this.#end = end
  }

  get localAddress(): string {
    return this.#end.addresses.local.address
  }

  get localPort(): number {
    return this.#end.addresses.local.port
  }

  get remoteAddress(): string {
    return this.#end.addresses.remote.address
  }

  get remotePort(): number {
    return this.#end.addresses.remote.port
  }

  get closed(): Promise<Ending> {
    return this.#end.closed()
  }

  // An arrow function, because programs may take the method out of the object.
  readonly close = (): Promise<void> => this.#end.close();

  [Symbol.asyncDispose](): Promise<void> {
    return this.#end.close()
  }
}
