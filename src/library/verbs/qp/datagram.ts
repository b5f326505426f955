/*
 * Datagrams (IBA 9.8, 11.2.2): UD queue pairs, multicast groups, and address handles.
 */
import { Ah } from '../../../spec/classes/ah.ts'
import { Pd } from '../../../spec/classes/pd.ts'
import { UdQp } from '../../../spec/classes/qp/ud_qp.ts'
import { QpState } from '../../../spec/enums.ts'
import { Links } from '../../../spec/links.ts'
import type { In, ObjectClass, Out } from '../../../spec/schema/schema.ts'
import { WrOpcode } from '../../../spec/work.ts'
import { addressText, parseAddress } from '../../../transport/wire/address.ts'
import { GRH_BYTES, IPV4_BYTES } from '../../../transport/wire/ip.ts'
import { viewOf } from '../../../uapi/scalar.ts'
import { type Addressing, addressing, addressRecord, invalidGid, type PathOptions } from '../address.ts'
import { checkOptions, checkRecord, type KnownOptions } from '../arguments/options.ts'
import { type MessageOptions, UC_OPTIONS } from '../arguments/request-options.ts'
import {
  type AwaitableOptions,
  type AwaitableQueuePair,
  type AwaitedMessageOptions,
  awaitable,
  makeAwaitable,
} from '../awaitable/queue-pair.ts'
import type { CompletedRequest } from '../awaitable/request-promises.ts'
import {
  checkBytes,
  checkInteger,
  checkU32,
  closedError,
  formatValue,
  invalidArgument,
  RdmaError,
  withoutObject,
  wrongField,
} from '../error.ts'
import { defineVerbsClass, markClosed, SHOWN, VerbsObject } from '../objects/verbs-object.ts'
import {
  checkDevicePresent,
  checkObject,
  closeDisposed,
  type DeviceContext,
  destroyThen,
  destroyUnlessRemoved,
  isAsynchronousError,
  type ObjectReference,
  type Plan,
  plan,
} from '../plan.ts'
import type { ProgramRing } from '../ring.ts'
import { type Activatable, type ActiveOptions, activate, activeAtCreation } from './activation.ts'
import { firstPsn, TWO_24 } from './connection.ts'
import {
  beginRequest,
  DEFAULT_QKEY,
  endRequest,
  type InitialOptions,
  type ModifyArguments,
  QueuedQp,
  type QueuePair,
  type QueuePairOptions,
  queuePairOptionNames,
  queuePairPlan,
  queuePairType,
  type SendData,
} from './queue-pair.ts'
import { putDestination, putImmediate } from './requests.ts'

/** Destination of datagrams, also a multicast group, and options of the path. */
export interface Destination extends PathOptions {
  /** IPv4 or IPv6 address as text. */
  readonly gid?: string | undefined
  /** LID of the destination, on a link that has LIDs. */
  readonly lid?: number | undefined
}

/** An address handle (IBA 11.2.2). */
export interface AddressHandle extends Disposable {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Number of the address handle in work requests. */
  readonly number: number
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<typeof Ah.methods.query>
  /** Changes the destination of datagrams that are sent afterwards. */
  modify(destination: Destination): void
  /** Destroys the address handle; later calls do nothing. */
  close(): void
}

/** What senders need to reach a datagram queue pair; plain data, to be sent to the senders in any way. */
export interface DatagramEndpoint extends Destination {
  /** IPv4 or IPv6 address of the queue pair, as text. */
  readonly gid: string
  /** Number of the queue pair, 24 bits. */
  readonly qpn: number
  /** Q_Key of the queue pair, 32 bits. */
  readonly qkey: number
}

/** A receiver of datagrams: a queue pair at an address. */
export interface DatagramPeer {
  /** Address handle of the receiver. */
  readonly ah: AddressHandle
  /** Number of the queue pair; `MULTICAST_QPN` for a multicast group. */
  readonly qpn: number
  /** Q_Key of the queue pair, 32 bits. */
  readonly qkey: number
}

/** A queue pair that sends datagrams. `M`: options of `send`; `R`: its result. */
export interface DatagramSender<M extends object = MessageOptions, R = void> {
  /**
   * Sends a datagram, at most the path MTU in bytes: a longer one completes without an error, but is not sent (IBA
   * C10-93.1.1). In the receiver's buffer 40 bytes precede the payload (`senderOf`). Fails with RdmaError EINVAL,
   * ENOMEM when the send queue is full, and ERR_CLOSED if the device is closed or removed.
   */
  send(local: SendData, receiver: DatagramPeer, options?: M): R
}

/** Options of `activate` of a UD queue pair. */
export interface UdActivation {
  /** Q_Key, 32 bits: received datagrams with another Q_Key are dropped. Default 0x11111111. */
  readonly qkey?: number | undefined
  /** Index of the queue pair's partition key in the port's table, on InfiniBand. Default: 0. */
  readonly pkeyIndex?: number | undefined
}

/** A queue pair for unreliable datagrams. */
export interface UdQueuePair extends QueuePair<typeof UdQp>, DatagramSender, UdMethods {}

/** A UD queue pair whose requests return promises. `send` resolves when the datagram has been sent. */
export interface AwaitableUdQueuePair
  extends AwaitableQueuePair,
    DatagramSender<AwaitedMessageOptions, Promise<CompletedRequest>>,
    UdMethods {}

/** Members of UD queue pairs except `send` and `receive`. */
export interface UdMethods extends Activatable<UdActivation> {
  /** What senders need to reach the queue pair. In RESET, `qkey` is the default of `activate`. */
  readonly endpoint: DatagramEndpoint
  /**
   * Joins a multicast group; `gid` as text: 224.0.0.0/4 or ff00::/8. `lid`: the group's on InfiniBand, which a join at
   * the subnet's manager gives.
   */
  attach(gid: string, lid?: number): void
  /** Leaves the group. Throws RdmaError EINVAL if the queue pair is not a member. */
  detach(gid: string, lid?: number): void
}

/** The queue pair number in datagrams to a multicast group (IBA 10.5). */
export const MULTICAST_QPN = 0xffffff
const { RESET, INIT, RTR, RTS } = QpState.values
const { SEND, SEND_WITH_IMM } = WrOpcode.values

/**
 * The sender of a received datagram, from the first 40 bytes of its buffer: a GRH or IPv6 header, or 20 unused bytes
 * and an IPv4 header. Throws RdmaError EINVAL for fewer bytes.
 */
export const senderOf = (header: Uint8Array): Destination & { readonly gid: string } => {
  checkBytes('senderOf', 'the header', header)
  if (header.length < GRH_BYTES) throw invalidArgument('senderOf', `${header.length} bytes, a header has ${GRH_BYTES}`)
  const bytes = new Uint8Array(header.buffer, header.byteOffset, GRH_BYTES)
  if (bytes[0]! >> 4 === 6) {
    // The first word: 4 bits version, 8 bits traffic class, 20 bits flow label. The source address is at 8.
    const word = viewOf(bytes).getUint32(0)
    return {
      gid: addressText(bytes.subarray(8, 24)),
      trafficClass: (word >> 20) & 0xff,
      flowLabel: word & 0xfffff,
    }
  }
  // IPv4: the TOS is at 1, the source address at 12.
  const start = GRH_BYTES - IPV4_BYTES
  return { gid: bytes.subarray(start + 12, start + 16).join('.'), trafficClass: bytes[start + 1]! }
}

/** Arguments of `attachMcast` and `detachMcast`. */
const groupArguments = (call: string, gid: string, lid = 0) => {
  const bytes = typeof gid === 'string' ? parseAddress(gid) : undefined
  if (bytes === undefined) throw invalidGid(call, gid)
  checkInteger(call, 'lid', lid, 0, 0xffff)
  return { gid: bytes, mlid: lid }
}

const checkDestination = (call: string, destination: Destination): void =>
  checkRecord(call, 'the destination', destination, 'give { gid }, an IPv4 or IPv6 address as text')

/**
 * The address attributes for the device's link. The type contains `address` because `ah.create` and `ah.modify` require
 * it, but only RoCE has it.
 */
const addressAttributes = (
  call: string,
  { path }: DeviceContext,
  destination: Destination,
): Addressing & Pick<Required<Addressing>, 'address'> => {
  checkDestination(call, destination)
  return addressing(call, path, destination, destination) as ReturnType<typeof addressAttributes>
}

/** Arguments of `createAhs`: the list attribute of the device's link. */
const createAhsArguments = (
  { path }: DeviceContext,
  destinations: readonly Destination[],
): In<typeof Pd.methods.createAhs> => {
  const addresses = destinations.map(destination => {
    checkDestination('pd.createAhs', destination)
    return addressRecord('pd.createAhs', path, destination, destination)
  })
  const { addresses: name = 'addresses' } = Links[path.link ?? 'roce'].attributes
  return { [name]: addresses } as In<typeof Pd.methods.createAhs>
}

/** Why `checkAddress` refuses an address handle. */
const describeAddress = (ah: unknown): string => {
  if (ah === undefined) return 'the address handle is missing'
  return ah instanceof AhObject
    ? 'the address handle is of another device'
    : `${formatValue(ah)} is not an address handle`
}

/** Checks that the address handle is open and belongs to this device. */
const checkAddress = (context: DeviceContext, call: string, ah: AddressHandle): void => {
  if (!(ah instanceof AhObject) || ah.context !== context)
    throw invalidArgument(call, describeAddress(ah), 'use one that pd.addressHandle() of the same device has created')
  if (!ah.isOpen) throw closedError(call, 'the address handle')
}

const RECEIVER_HINT = "give { ah, qpn, qkey }: an address handle, and the receiver's endpoint"

const wrongReceiver = (field: string, value: unknown, bits: number): RdmaError =>
  wrongField('qp.send', 'the receiver', field, value, `a number of ${bits} bits`, RECEIVER_HINT)

/** Throws RdmaError EINVAL unless `receiver` is a `DatagramPeer` with an address handle of this device. */
const checkReceiver = (context: DeviceContext, receiver: DatagramPeer): void => {
  if (typeof receiver !== 'object' || receiver === null) checkRecord('qp.send', 'the receiver', receiver, RECEIVER_HINT)
  const { qpn, qkey } = receiver
  if (qpn >>> 0 !== qpn || qpn >= TWO_24) throw wrongReceiver('qpn', qpn, 24)
  if (qkey >>> 0 !== qkey) throw wrongReceiver('qkey', qkey, 32)
  checkAddress(context, 'qp.send', receiver.ah)
}

class AhObject extends VerbsObject implements AddressHandle {
  readonly number: number

  constructor(context: DeviceContext, handle: number, number: number) {
    super(context, handle)
    this.number = number
  }

  get cls(): typeof Ah {
    return Ah
  }

  query() {
    return this.context.carrier.call(Ah, 'query', this.handle, {}).out
  }

  override [SHOWN]() {
    return { handle: this.handle, number: this.number }
  }

  modify(destination: Destination): void {
    this.context.carrier.call(Ah, 'modify', this.handle, addressAttributes('ah.modify', this.context, destination))
  }
}
defineVerbsClass(AhObject, 'ah', 'AddressHandle')

/** An address handle in protection domain `pd`. */
export const addressPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  destination: Destination,
): Plan<AddressHandle> => {
  checkObject(context, 'ah.create', 'pd', pd)
  const attributes = addressAttributes('ah.create', context, destination)
  return plan(
    Ah,
    { pd: pd.handle, ...attributes, userHandle: 0n },
    // Work requests name the address handle by the driver's number, or by its handle if the driver has no numbers.
    ({ object, out }) => new AhObject(context, object, (out as { readonly number?: number }).number ?? object),
  )
}

/** Maximum address handles in one call: an encoded call has a maximum size. */
const AHS_PER_CALL = 1 << 15

/** `list` in lists of at most AHS_PER_CALL. */
const chunks = <T>(list: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(list.length / AHS_PER_CALL) }, (_, i) =>
    list.slice(i * AHS_PER_CALL, (i + 1) * AHS_PER_CALL),
  )

/** The output attributes of `createAhs`; `numbers`: for work requests, if the driver has them. */
type CreateAhsResult = Out<typeof Pd.methods.createAhs> & { readonly numbers?: readonly { readonly number: number }[] }

/** Whether a call failed because the device has no `createAhs` and `destroyAhs`, as in a daemon of an older release. */
const lacksBatches = (error: unknown): boolean =>
  error instanceof RdmaError && error.code === 'EOPNOTSUPP' && !isAsynchronousError(error)

/** Creates many address handles, all or none; up to AHS_PER_CALL with one call if the device supports it. */
export const makeAddresses = (
  context: DeviceContext,
  pd: ObjectReference,
  destinations: readonly Destination[],
): readonly AddressHandle[] => {
  const { carrier, makeAll } = context
  checkObject(context, 'pd.createAhs', 'pd', pd)
  if (!Array.isArray(destinations))
    throw invalidArgument(
      'pd.createAhs',
      `the destinations: ${formatValue(destinations)} is not a list`,
      'give [{ gid }, …]',
    )
  // The list attribute has no fields for dmac and vlan: each address handle then needs its own `create`.
  const hasDmacOrVlan = destinations.some(
    destination => destination?.dmac !== undefined || destination?.vlan !== undefined,
  )
  if (hasDmacOrVlan) return makeAll(destinations.map(destination => addressPlan(context, pd, destination)))
  const created: AddressHandle[] = []
  try {
    for (const chunk of chunks(destinations)) {
      const args = createAhsArguments(context, chunk)
      const { handles, numbers }: CreateAhsResult = carrier.call(Pd, 'createAhs', pd.handle, args).out
      for (const [i, { handle }] of handles.entries())
        created.push(new AhObject(context, handle, numbers?.[i]?.number ?? handle))
    }
    return created
  } catch (error) {
    closeAddresses(context, pd, created)
    if (!lacksBatches(error)) throw error
    return makeAll(destinations.map(destination => addressPlan(context, pd, destination)))
  }
}

/**
 * Destroys many address handles, up to AHS_PER_CALL with one call if the device supports it. Such a call destroys
 * all or none.
 */
export const closeAddresses = (
  context: DeviceContext,
  pd: ObjectReference,
  addresses: readonly AddressHandle[],
): void => {
  const { carrier } = context
  if (!Array.isArray(addresses))
    throw invalidArgument('pd.destroyAhs', `the address handles: ${formatValue(addresses)} is not a list`)
  for (const address of addresses) checkAddress(context, 'pd.destroyAhs', address)
  for (const chunk of chunks(addresses)) {
    try {
      const handles = chunk.map(({ handle }) => ({ handle }))
      destroyThen(
        () => destroyUnlessRemoved(() => carrier.call(Pd, 'destroyAhs', pd.handle, { handles })),
        () => {
          for (const address of chunk) markClosed(address as AhObject)
        },
      )
    } catch (error) {
      if (!lacksBatches(error)) throw error
      for (const address of chunk) address.close()
    }
  }
  closeDisposed(context)
}

/** A queue pair that sends datagrams. */
export abstract class DatagramQp<C extends ObjectClass = ObjectClass> extends QueuedQp<C> implements DatagramSender {
  get requestOptionBits(): number {
    return UC_OPTIONS
  }

  send(local: SendData, receiver: DatagramPeer, options?: MessageOptions): void {
    if (this?.context === undefined) throw withoutObject('qp.send')
    checkDevicePresent('qp.send', this.context)
    checkReceiver(this.context, receiver)
    const immediate = options?.immediate
    const at = beginRequest(this, 'qp.send', immediate === undefined ? SEND : SEND_WITH_IMM, local, options, UC_OPTIONS)
    const ring = this.sends as ProgramRing
    putDestination(ring, at, receiver.ah.number, receiver.qpn, receiver.qkey)
    if (immediate !== undefined) {
      checkU32('qp.send', 'immediate', immediate)
      putImmediate(ring, at, immediate)
    }
    endRequest(this)
  }
}

/** Options of `pd.udQp` with a `sendCq`. */
export interface UdQueuePairOptions
  extends QueuePairOptions,
    InitialOptions<typeof UdQp>,
    ActiveOptions<UdActivation> {}

/** Options of `pd.udQp` without a `sendCq`. */
export interface AwaitableUdOptions extends AwaitableOptions<UdQueuePairOptions> {}

const udOptionNames: KnownOptions<UdQueuePairOptions> = { ...queuePairOptionNames, initial: 'record', active: true }

const activation = {
  cls: UdQp,
  optionNames: { qkey: true, pkeyIndex: true } satisfies KnownOptions<UdActivation>,
  steps: ({ qkey = DEFAULT_QKEY, pkeyIndex = 0 }: UdActivation): In<typeof UdQp.methods.modify>[] => [
    { state: INIT, pkeyIndex, port: 1, qkey },
    { state: RTR },
    { state: RTS, sqPsn: firstPsn() },
  ],
}
class UdObject extends DatagramQp<typeof UdQp> implements UdQueuePair {
  get cls(): typeof UdQp {
    return UdQp
  }

  get endpoint(): DatagramEndpoint {
    const { context, qpn, qkey } = this
    const { gid, lid } = context.path
    const endpoint = { qpn, gid: addressText(gid), qkey }
    return lid === undefined ? endpoint : { ...endpoint, lid }
  }

  activate(options: UdActivation = {}): void {
    activate(this, activation, options)
  }

  override modify(changes: ModifyArguments<typeof UdQp>): void {
    super.modify(changes)
    const { state, qkey } = changes
    if (qkey !== undefined) this.qkey = qkey
    else if (state === RESET || state === 'RESET') this.qkey = DEFAULT_QKEY
  }

  attach(gid: string, lid?: number): void {
    this.context.carrier.call(UdQp, 'attachMcast', this.handle, groupArguments('qp.attach', gid, lid))
  }

  detach(gid: string, lid?: number): void {
    this.context.carrier.call(UdQp, 'detachMcast', this.handle, groupArguments('qp.detach', gid, lid))
  }
}
const udType = queuePairType('UdQueuePair', UdObject)
const awaitableUdType = queuePairType('UdQueuePair', awaitable<AwaitableUdQueuePair>(UdObject, { send: 2 }))

export const udQpPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  options: UdQueuePairOptions,
): Plan<UdQueuePair> => {
  checkOptions('ud_qp.create', 'options', options, udOptionNames)
  return queuePairPlan(context, udType, pd, activeAtCreation(activation, options))
}

export const awaitableUdQp = (
  context: DeviceContext,
  pd: ObjectReference,
  options?: AwaitableUdOptions,
): AwaitableUdQueuePair =>
  makeAwaitable(context, 'ud_qp', options, udOptionNames, optionsWithCq =>
    queuePairPlan(context, awaitableUdType, pd, activeAtCreation(activation, optionsWithCq)),
  )
