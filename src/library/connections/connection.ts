/*
 * One end of a connection by address and port (R17): its identifier (class `cm_id`) and its queue pair. The device's
 * connection manager (src/services/rdma-cm) resolves the address, exchanges messages with the peer and moves the queue
 * pair to RTS; this file makes the calls and waits for the events.
 */

import type { Clock } from '../../host/event-loop/clock.ts'
import { emitAddress, parseAddress } from '../../services/socket-address.ts'
import { CmId } from '../../spec/classes/connections/cm_id.ts'
import {
  CmConnectionParameters,
  PRIVATE_DATA_BYTES,
  type SocketAddress,
} from '../../spec/classes/connections/cm_parameters.ts'
import { CmEventType, CmPortSpace } from '../../spec/enums.ts'
import { Errno, errnoName } from '../../spec/errno.ts'
import { copyOfBytes } from '../../spec/memory.ts'
import { type RecordOf, zeroRecord } from '../../spec/schema/schema.ts'
import { rejReason } from '../../spec/wire/mad.ts'
import { copyRecord, type KnownOptions } from '../verbs/arguments/options.ts'
import { checkLimits, limitNames, setConnectionHints } from '../verbs/awaitable/queue-pair.ts'
import type { Device } from '../verbs/device.ts'
import {
  asProgramCall,
  checkBytes,
  checkFunction,
  checkInteger,
  deviceClosedError,
  invalidArgument,
  RdmaError,
  reasonOf,
  recognizeCopies,
  refusal,
} from '../verbs/error.ts'
import { LazyEventTarget, type Listenable } from '../verbs/event-target.ts'
import { orElse, type Shown, showAs } from '../verbs/objects/show.ts'
import type { ProtectionDomain } from '../verbs/pd.ts'
import { checkObject, type DeviceContext, destroy, type LibraryObject } from '../verbs/plan.ts'
import type { AwaitableRcOptions, AwaitableRcQueuePair, RcQueuePair } from '../verbs/qp/connected.ts'
import { ackTimeoutExponentOf, type RetryOptions, retryOptionNames } from '../verbs/qp/connection.ts'
import { markReady } from '../verbs/qp/queue-pair.ts'
import { beginStackAtProgram } from '../verbs/watch/stacks.ts'
import { type CloseReason, type ConnectionEvent, type ConnectionEvents, connectionEvents } from './events.ts'
import { type Messages, type MessagesOptions, openMessages } from './messages/messages.ts'
import { hostAndPort, type ShownAddress, shownAddress } from './url.ts'

/** The queue pair of a connection: with a `sendCq`, or with requests that return promises. */
export type ConnectedQueuePair = RcQueuePair | AwaitableRcQueuePair

/** The event 'closed' of a connection. */
export interface ClosedEvent {
  /** 'closed'. */
  readonly type: string
  /** What ended the connection. */
  readonly reason: CloseReason
}

/** One end of a connection by address and port, with its queue pair. Listeners of 'closed' get what `closed` tells. */
export interface Connection<Q extends ConnectedQueuePair = AwaitableRcQueuePair>
  extends AsyncDisposable,
    Listenable<{ closed: ClosedEvent }> {
  /** Device of the connection. */
  readonly device: Device
  /** Protection domain of the queue pair: memory for its requests must be registered here. */
  readonly pd: ProtectionDomain
  /** The queue pair, ready to send. Its requests return promises, unless the option `qp` has a `sendCq`. */
  readonly qp: Q
  /**
   * The private data of the peer's REQ or REP, padded with zeros: 56 bytes of a REQ, 196 bytes of a REP. The messages
   * do not carry the length.
   */
  readonly privateData: Uint8Array
  /**
   * Local address, as text; '' and port 0 if the addresses are first read after `close`, or after the device was closed
   * or removed.
   */
  readonly localAddress: string
  /** Local port. */
  readonly localPort: number
  /** Address of the peer, as text. */
  readonly remoteAddress: string
  /** Port of the peer. */
  readonly remotePort: number
  /** Resolves when the connection has ended, with what ended it. */
  readonly closed: Promise<CloseReason>
  /**
   * Sends and receives messages of any size; the peer must call it too. Needs a queue pair without a `sendCq`, on which
   * no receive is posted. Rejects with RdmaError: EINVAL, EBUSY; ETIMEDOUT if the peer does not call it, ERR_CLOSED if
   * the connection fails or the peer breaks the rules; then the connection is closed.
   */
  messages(options?: MessagesOptions): Promise<Messages>
  /**
   * Disconnects, tells the peer, and destroys the queue pair. Does not wait for outstanding requests; `qp.drained()`
   * does.
   */
  close(): Promise<void>
}

/** Options of both sides. */
export interface ConnectionOptions<P = AwaitableRcOptions> extends RetryOptions {
  /** Private data for the peer: at most 56 bytes with `connect`, 196 with `accept`. */
  readonly privateData?: Uint8Array | undefined
  /** The protection domain of the queue pair; default: one for all connections of the device. */
  readonly pd?: ProtectionDomain | undefined
  /** Options of the queue pair; with a `sendCq` its requests complete there and return no promises. */
  readonly qp?: P | undefined
  /**
   * Called with the queue pair, and awaited, before the connection is established: the place to post receives for the
   * peer's first messages.
   */
  readonly prepare?:
    | ((qp: P extends { readonly sendCq: unknown } ? RcQueuePair : AwaitableRcQueuePair) => void | Promise<void>)
    | undefined
  /** Maximum outstanding READs and atomics in each direction, 0–128; default 16. */
  readonly maxRdAtomic?: number | undefined
  /**
   * Aborts `connect` or `accept`, which rejects with the signal's reason and releases the connection. If the signal is
   * aborted while `prepare` runs, the call rejects afterwards.
   */
  readonly signal?: AbortSignal | undefined
  /**
   * Milliseconds, 1 to 2^31 - 1, after which `connect` or `accept` rejects with ConnectionError ETIMEDOUT, as by a
   * signal. Default: none; the connection manager gives up after its retries.
   */
  readonly timeout?: number | undefined
}

export const connectionOptionNames: KnownOptions<ConnectionOptions> = {
  privateData: true,
  pd: true,
  qp: true,
  prepare: true,
  maxRdAtomic: true,
  ...retryOptionNames,
  ...limitNames,
}

/**
 * Hints for errors of `connect`, by the reason in the REJ. `request.accept` has no hints: the reason of a REJ that
 * answers a REP does not tell its cause.
 */
const connectHints: Readonly<Record<number, string>> = {
  [rejReason.INVALID_SERVICE_ID]: 'nothing listens on this address and port: call listen() first',
  [rejReason.CONSUMER_DEFINED]:
    'usually the application there has called request.reject() or server.close(), or could not accept',
}

/**
 * The peer refused the connection, canceled its request or ended the connection too early (ECONNREFUSED), or did not
 * answer (ETIMEDOUT).
 */
export class ConnectionError extends RdmaError {
  /** 'ConnectionError'. */
  override readonly name: string = 'ConnectionError'
  /** Reason of the REJ (IBA 12.6.7.2); undefined without a REJ. */
  readonly reject: number | undefined
  /** The private data of the REJ; empty without a REJ. */
  readonly privateData: Uint8Array

  constructor(
    code: 'ECONNREFUSED' | 'ETIMEDOUT',
    call: string,
    reason: string,
    reject?: number,
    data: Uint8Array = new Uint8Array(0),
  ) {
    super(
      code,
      Errno[code],
      call,
      reason,
      call === 'connect' && reject !== undefined ? connectHints[reject] : undefined,
    )
    this.reject = reject
    this.privateData = data
  }
}
recognizeCopies(ConnectionError, 'userdma.ConnectionError')

const { ADDR_ERROR, CONNECT_ERROR, UNREACHABLE, REJECTED, ESTABLISHED, DISCONNECTED, DEVICE_REMOVAL } =
  CmEventType.values
/** Maximum of the option `maxRdAtomic` (the device's maximum may be lower), and its default. */
const MAX_RD_ATOMIC = 128
const DEFAULT_RD_ATOMIC = 16
/**
 * Default of the local ACK timeout: 2.1 s, which with all retries is 17 s. A peer whose event loop is blocked does not
 * acknowledge; it is lost only after the default of `keepalive`, 10 s. Linux's rdma_cm has this default over RoCE, too.
 */
const ACK_TIMEOUT_EXPONENT = 19
/** retry_cnt and rnr_retry; for rnr_retry 7 means unlimited. */
const RETRIES = 7

const reasons = Object.entries(rejReason)
const reasonText = (reason: number): string => reasons.find(([, value]) => value === reason)?.[0] ?? `reason ${reason}`

const noData = new Uint8Array(0)

/** The private data of an event; `connection`: its connection parameters. */
export const dataOf = ({ connection }: ConnectionEvent): Uint8Array =>
  connection?.privateData.slice(0, connection.privateDataLength) ?? noData

/**
 * Checks options that `connect` and `accept` have. `maxBytes`: of private data. Returns a copy, also of the private
 * data and of `qp`, because the program may change them before they are used. Throws RdmaError EINVAL.
 */
export const copyConnectionOptions = <O extends ConnectionOptions<never>>(
  call: string,
  options: O,
  maxBytes: number,
): O => {
  const { privateData, maxRdAtomic, prepare, qp, ackTimeoutExponent, retryCount, rnrRetryCount, minRnrTimer } = options
  ackTimeoutExponentOf(call, options)
  if (privateData !== undefined) checkPrivateData(call, privateData, maxBytes)
  if (prepare !== undefined) checkFunction(call, 'prepare', prepare)
  if (maxRdAtomic !== undefined) checkInteger(call, 'maxRdAtomic', maxRdAtomic, 0, MAX_RD_ATOMIC)
  for (const [name, value, max] of [
    ['ackTimeoutExponent', ackTimeoutExponent, 31],
    ['retryCount', retryCount, RETRIES],
    ['rnrRetryCount', rnrRetryCount, RETRIES],
    ['minRnrTimer', minRnrTimer, 31],
  ] as const)
    if (value !== undefined) checkInteger(call, name, value, 0, max)
  checkLimits(call, options)
  return {
    ...options,
    ...(privateData !== undefined && { privateData: copyOfBytes(privateData) }),
    ...(qp !== undefined && { qp: copyRecord<unknown>(qp) }),
  }
}

export const checkPrivateData = (call: string, privateData: Uint8Array, maxBytes: number): void => {
  checkBytes(call, 'privateData', privateData)
  if (privateData.length > maxBytes)
    throw invalidArgument(call, `privateData has ${privateData.length} bytes, at most ${maxBytes} are possible`)
}

/**
 * Calls `establish` with the options, whose signal also aborts after the option `timeout`, with ConnectionError
 * ETIMEDOUT.
 */
export const withTimeout = async <O extends ConnectionOptions<never>, T>(
  clock: Clock,
  call: string,
  options: O,
  establish: (options: O) => Promise<T>,
): Promise<T> => {
  const { signal, timeout } = options
  if (timeout === undefined) return establish(options)
  const controller = new AbortController()
  const reason = `the connection is not established after ${timeout} ms`
  const timer = clock.after(timeout, 'program', () => controller.abort(new ConnectionError('ETIMEDOUT', call, reason)))
  const anySignal = signal === undefined ? controller.signal : AbortSignal.any([signal, controller.signal])
  try {
    return await establish({ ...options, signal: anySignal })
  } catch (error) {
    // The timer has created the error.
    if (controller.signal.aborted && error === controller.signal.reason) beginStackAtProgram(error as Error)
    throw error
  } finally {
    clock.clear(timer)
  }
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

/** The attributes of this side's queue pair that the program chooses (`chosenQpAttributes` in spec/). */
const chosenAttributesOf = (call: string, options: ConnectionOptions<never>) => {
  const { retryCount = RETRIES, rnrRetryCount = RETRIES, minRnrTimer } = options
  return {
    timeout: ackTimeoutExponentOf(call, options, ACK_TIMEOUT_EXPONENT),
    retryCnt: retryCount,
    rnrRetry: rnrRetryCount,
    ...(minRnrTimer !== undefined && { minRnrTimer }),
  }
}

/**
 * A device and the number of its users: a server, each of its unanswered requests and each of its connections; or the
 * connection of `connect`.
 */
export class SharedDevice {
  readonly device: Device
  readonly context: DeviceContext
  /** Whether the program passed no device: the device was opened here, and is closed with its last user. */
  readonly #isOwned: boolean
  #users = 1

  constructor(device: Device, context: DeviceContext, isOwned: boolean) {
    this.device = device
    this.context = context
    this.#isOwned = isOwned
  }

  /** Adds a user: a request to a server. If the request is accepted, its connection is the user from then on. */
  share(): this {
    this.#users++
    return this
  }

  async release(): Promise<void> {
    this.#users--
    if (this.#users === 0 && this.#isOwned) await this.device.close()
  }
}

const defaultPds = new WeakMap<DeviceContext, ProtectionDomain>()

/** The protection domain of a device's connections without the option `pd`; a new one if the program has closed it. */
const defaultPd = ({ device, context }: SharedDevice): ProtectionDomain => {
  let pd = defaultPds.get(context)
  if (pd === undefined || !(pd as ProtectionDomain & LibraryObject).isOpen) {
    pd = device.pd()
    context.check?.markInternal('pd', pd.handle)
    defaultPds.set(context, pd)
  }
  return pd
}

interface Addresses {
  readonly local: ShownAddress
  readonly remote: ShownAddress
}
const noAddresses: Addresses = { local: shownAddress(undefined), remote: shownAddress(undefined) }

/** The addresses of an identifier, queried when first read; none if the device was closed or removed before. */
export class LazyAddresses {
  #queried: Addresses | undefined

  /** `id`: handle of the identifier; undefined once the caller no longer has it. */
  of({ carrier }: DeviceContext, id: number | undefined): Addresses {
    if (this.#queried !== undefined) return this.#queried
    if (id === undefined) return noAddresses
    const addresses = orElse(() => carrier.call(CmId, 'query', id, {}).out.addresses, undefined)
    if (addresses === undefined) return noAddresses
    this.#queried = {
      local: shownAddress(parseAddress(addresses.source)),
      remote: shownAddress(parseAddress(addresses.destination)),
    }
    return this.#queried
  }
}

/** One end of a connection from its first call to its close. */
export class ConnectionEnd {
  /** User handle of the identifier, and the id of this end in the waiter list. */
  readonly userHandle: number
  /** The method that the program has called, for errors. */
  readonly #call: string
  readonly #shared: SharedDevice
  readonly #events: ConnectionEvents
  /** Handle of the identifier; undefined before it is created and after `close`. */
  #id: number | undefined
  #qp: ConnectedQueuePair | undefined
  /** The private data of the peer's REQ or REP. */
  privateData: Uint8Array = noData
  readonly #addresses = new LazyAddresses()
  /** Called when the end has ended, perhaps again when it is closed. */
  onEnded: (() => void) | undefined
  #isEstablished = false
  /** Address of the peer as text, for errors. */
  #destination = ''
  /** Why the connection could not be established. */
  #failure: RdmaError | undefined
  #closeReason: CloseReason | undefined
  /** Settles when the end is closed; undefined before `close`. */
  #closing: Promise<void> | undefined

  constructor(call: string, shared: SharedDevice) {
    const { waiters } = shared.context
    this.#call = call
    this.#shared = shared
    this.#events = connectionEvents(shared.context)
    this.userHandle = waiters.add()
    this.#events.setHandler(this.userHandle, event => this.#onEvent(event))
  }

  get clock(): Clock {
    return this.#shared.context.carrier.clock
  }

  /** Creates the identifier of the active side. */
  create(): void {
    const { carrier } = this.#shared.context
    this.#id = carrier.call(CmId, 'create', 0, {
      channel: this.#events.channel,
      userHandle: BigInt(this.userHandle),
      portSpace: CmPortSpace.values.TCP,
    }).object
  }

  /** Takes over the identifier of a peer's request, with the private data of the request. */
  setIdentifier(id: number, privateData: Uint8Array): void {
    this.#id = id
    this.privateData = privateData
  }

  /** Creates the queue pair and runs `prepare`; resolves with the protection domain of the queue pair. */
  async #createQueuePair({
    pd: chosenPd,
    qp: options,
    prepare,
    signal,
  }: ConnectionOptions<never>): Promise<ProtectionDomain> {
    if (chosenPd !== undefined) checkObject(this.#shared.context, this.#call, 'pd', chosenPd)
    const pd = chosenPd ?? defaultPd(this.#shared)
    // Objects of `device.create` pass `checkObject`, but are without the methods of a ProtectionDomain.
    if (typeof pd.rcQp !== 'function') throw invalidArgument(this.#call, 'pd is not an object of device.pd()')
    const qp = asProgramCall(this.#call, () => pd.rcQp(options))
    this.#qp = qp
    setConnectionHints(qp)
    if (prepare !== undefined) {
      await (prepare as (qp: ConnectedQueuePair) => void | Promise<void>)(qp)
      signal?.throwIfAborted()
      if (!(qp as ConnectedQueuePair & LibraryObject).isOpen)
        throw invalidArgument(this.#call, 'prepare has closed the queue pair')
    }
    return pd
  }

  /** Sends the REQ and waits for the REP. */
  async connect(destination: SocketAddress, options: ConnectionOptions<never>): Promise<Connection<never>> {
    this.#destination = shownAddress(destination).address
    const pd = await this.#createQueuePair(options)
    this.#callWithQp('connect', options, { destination: emitAddress(destination) })
    return this.#waitUntilEstablished(pd, options.signal)
  }

  /** Sends the REP and waits for the RTU. */
  async accept(options: ConnectionOptions<never>): Promise<Connection<never>> {
    const pd = await this.#createQueuePair(options)
    try {
      this.#callWithQp('accept', options, { userHandle: BigInt(this.userHandle) })
    } catch (error) {
      const isCanceled = error instanceof RdmaError && reasonOf(error).code === 'connection-state'
      if (!isCanceled) throw error
      throw new ConnectionError('ECONNREFUSED', this.#call, 'the peer has canceled the request')
    }
    return this.#waitUntilEstablished(pd, options.signal)
  }

  #callWithQp(method: 'connect' | 'accept', options: ConnectionOptions<never>, args: object): void {
    const { carrier } = this.#shared.context
    const chosen = { parameters: parametersOf(options), ...chosenAttributesOf(this.#call, options) }
    const handle = this.#qp?.handle
    asProgramCall(this.#call, () => carrier.call(CmId, method, this.#id as number, { qp: handle, ...args, ...chosen }))
  }

  async #waitUntilEstablished(pd: ProtectionDomain, signal: AbortSignal | undefined): Promise<Connection<never>> {
    const { waiters } = this.#shared.context
    this.#events.beginWait()
    try {
      while (!this.#isEstablished && this.#failure === undefined && this.#closeReason === undefined && !waiters.isOver)
        await waiters.wait(this.userHandle, signal)
    } finally {
      this.#events.endWait()
    }
    if (this.#failure !== undefined) {
      // An event has created the error.
      beginStackAtProgram(this.#failure)
      throw this.#failure
    }
    // The DREQ of the active side has arrived, but not its RTU.
    if (!this.#isEstablished && this.#closeReason === 'peer')
      throw new ConnectionError('ECONNREFUSED', this.#call, 'the peer has ended the connection')
    if (!this.#isEstablished) throw deviceClosedError(this.#call, 'closed or removed')
    return new ConnectionObject(
      this,
      this.#shared.device,
      pd,
      this.#qp as ConnectedQueuePair,
    ) as Connection<ConnectedQueuePair> as Connection<never>
  }

  #onEvent(event: ConnectionEvent): void {
    const { type, status } = event
    const { carrier, waiters } = this.#shared.context
    if (type === ESTABLISHED) {
      this.#isEstablished = true
      if (this.#qp !== undefined) markReady(this.#qp)
      // On the active side the event has the private data of the REP; the passive side has that of the REQ already.
      if (event.connection !== undefined && this.privateData.length === 0) this.privateData = dataOf(event)
    } else if (type === DISCONNECTED) {
      // Sends the DREP, for which the peer waits.
      carrier.call(CmId, 'disconnect', this.#id as number, {})
      this.#setCloseReason('peer')
    } else if (type === DEVICE_REMOVAL) this.#setCloseReason('device')
    // The passive side may send a REJ as long as the RTU has not arrived.
    else if (type === REJECTED && this.#isEstablished) this.#setCloseReason('peer')
    else this.#failure ??= this.#failureOf(type, status | 0, dataOf(event))
    waiters.wake(this.userHandle)
  }

  /** The failure that an event reports; undefined if it reports none. `status`: a reason of a REJ, or -errno. */
  #failureOf(type: number, status: number, data: Uint8Array): RdmaError | undefined {
    if (type === REJECTED)
      return new ConnectionError('ECONNREFUSED', this.#call, `the peer refused: ${reasonText(status)}`, status, data)
    if (type === UNREACHABLE) return new ConnectionError('ETIMEDOUT', this.#call, 'the peer does not answer')
    if (type !== ADDR_ERROR && type !== CONNECT_ERROR) return undefined
    const reason =
      type === ADDR_ERROR ? `there is no route to ${this.#destination}` : 'the queue pair could not be connected'
    return refusal(errnoName(-status), -status, this.#call, reason)
  }

  #setCloseReason(reason: CloseReason): void {
    this.#closeReason ??= reason
    this.onEnded?.()
    this.#shared.context.waiters.wake(this.userHandle)
  }

  /** Resolves when the connection has ended. */
  async closed(): Promise<CloseReason> {
    const { waiters } = this.#shared.context
    while (this.#closeReason === undefined && !waiters.isOver) await waiters.wait(this.userHandle)
    return this.#closeReason ?? 'device'
  }

  /** Destroys the queue pair, and the identifier, which tells the peer that the connection ends. */
  close(): Promise<void> {
    this.#closing ??= this.#closeOnce()
    return this.#closing
  }

  async #closeOnce(): Promise<void> {
    const { carrier, waiters } = this.#shared.context
    const id = this.#id
    this.#id = undefined
    this.#events.removeHandler(this.userHandle)
    try {
      try {
        // The queue pair first: destroying the identifier moves it to ERR, and its requests would complete as flushed.
        this.#qp?.close()
      } finally {
        if (id !== undefined) destroy(carrier, CmId, id)
      }
    } finally {
      waiters.remove(this.userHandle)
      // If the device is closed or removed, that ended the connection, and `closed` may have resolved with 'device'.
      this.#setCloseReason(waiters.isOver ? 'device' : 'local')
      await this.#shared.release()
    }
  }

  get isClosed(): boolean {
    return this.#closing !== undefined
  }

  get addresses(): Addresses {
    return this.#addresses.of(this.#shared.context, this.#id)
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

  get closed(): Promise<CloseReason> {
    return this.#end.clock.watch('connection.closed', this.#end.closed())
  }

  readonly #target = new LazyEventTarget(
    'connection',
    () =>
      void this.closed.then(
        reason => this.#target.dispatch('closed', { reason }),
        // Nothing can end it any more, in virtual time.
        () => {},
      ),
  )

  get addEventListener(): Connection['addEventListener'] {
    return this.#target.addEventListener
  }

  get removeEventListener(): Connection['removeEventListener'] {
    return this.#target.removeEventListener
  }

  // Arrow functions, because programs may take the methods out of the object.
  readonly messages = (options: MessagesOptions = {}): Promise<Messages> => {
    const { pd, qp, close } = this
    const { clock } = this.#end
    const carrier = { clock, pd, qp, closed: this.#end.closed(), close }
    return clock.watch('connection.messages', openMessages(carrier, options))
  }

  readonly close = (): Promise<void> => this.#end.close();

  [Symbol.asyncDispose](): Promise<void> {
    return this.#end.close()
  }

  /** Whether `value` is an instance, not the prototype. */
  static is(value: object): value is ConnectionObject {
    return #end in value
  }

  /** The properties that `console.log` and JSON show. */
  static shown(self: ConnectionObject): Shown {
    const { localAddress, localPort, remoteAddress, remotePort, qp } = self
    return {
      ...(localPort !== 0 && { local: hostAndPort(localAddress, localPort) }),
      ...(remotePort !== 0 && { remote: hostAndPort(remoteAddress, remotePort) }),
      qpn: qp.qpn,
      ...(self.#end.isClosed && { closed: true }),
    }
  }
}
showAs<ConnectionObject>(ConnectionObject.prototype, 'Connection', ConnectionObject.shown, ConnectionObject.is)
