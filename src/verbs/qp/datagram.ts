/*
 * Datagrams in the library (IBA 9.8, 11.2.2): UD queue pairs, address handles, multicast groups, and the sender of a
 * received datagram.
 */
import { Ah } from '../../spec/classes/ah.ts'
import { Pd } from '../../spec/classes/pd.ts'
import { UdQp } from '../../spec/classes/qp/ud_qp.ts'
import { QpState } from '../../spec/enums.ts'
import { Links } from '../../spec/links.ts'
import type { In, ObjectClass, Out } from '../../spec/schema/schema.ts'
import { WrOpcode } from '../../spec/work.ts'
import { addressText, parseAddress } from '../../wire/address.ts'
import { IPV4_BYTES, IPV6_BYTES } from '../../wire/ip.ts'
import { type Addressing, addressing, addressRecord, noAddress, type PathOptions } from '../address.ts'
import {
  type AwaitableQueuePair,
  type AwaitedMessageOptions,
  awaitable,
  makeAwaitable,
  type WithoutQueues,
} from '../awaitable/queue-pair.ts'
import type { CompletedRequest } from '../awaitable/request-promises.ts'
import { checkOptions, checkRecord, type KnownOptions } from '../checks/options.ts'
import { type MessageOptions, UC_WORDS } from '../checks/request-options.ts'
import { checkBytes, checkU32, detached, invalidArgument, RdmaError } from '../error.ts'
import { defineVerbsClass, markClosed, SHOWN, VerbsObject } from '../objects/verbs-object.ts'
import { checkOwn, type DeviceContext, destroyUnlessRemoved, type Named, type Plan, plan } from '../plan.ts'
import type { ProgramRing } from '../ring.ts'
import { type Activatable, type ActiveOptions, activate, atCreation } from './activation.ts'
import { firstPsn } from './connection.ts'
import {
  beginRequest,
  checkDevicePresent,
  DEFAULT_QKEY,
  endRequest,
  type InitialOptions,
  type Local,
  type Modification,
  QueuedQp,
  type QueuePair,
  type QueuePairOptions,
  queuePairOptionNames,
  queuePairPlan,
  queuePairType,
} from './queue-pair.ts'
import { putDestination, putImmediate } from './requests.ts'

/**
 * Destination of datagrams: an IPv4 or IPv6 address as text, which may be a group, or a LID, and options of the path.
 */
export interface Destination extends PathOptions {
  /** IPv4 or IPv6 address as text. */
  readonly gid?: string
  /** LID of the destination, on a link that has LIDs. */
  readonly lid?: number
}

/** An address handle (IBA 11.2.2). */
export interface AddressHandle extends Disposable {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Its number in work requests. */
  readonly number: number
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<typeof Ah.methods.query>
  /** Changes the destination of datagrams that are sent afterwards. */
  modify(to: Destination): void
  /** Destroys it; later calls do nothing. Throws RdmaError EBUSY while it is in use. */
  close(): void
}

/** The data with which senders reach a datagram queue pair; plain data. */
export interface DatagramEndpoint extends Destination {
  /** Its address, as text. */
  readonly gid: string
  /** The queue pair's number, 24 bits. */
  readonly qpn: number
  /** Its Q_Key, 32 bits. */
  readonly qkey: number
}

/** One receiver: a queue pair at an address. Create it once and send to it any number of times. */
export interface DatagramPeer {
  /** Its address handle. */
  readonly ah: AddressHandle
  /** Its queue pair number; `MULTICAST_QPN` for a group. */
  readonly qpn: number
  /** Its Q_Key, 32 bits. */
  readonly qkey: number
}

/** `M`: options; `R`: the result of posting. */
export interface DatagramSender<M extends object = MessageOptions, R = void> {
  /** Sends a datagram, at most one packet. The receiver's buffer needs 40 bytes more (`completion.hasGrh`). */
  send(local: Local, to: DatagramPeer, options?: M): R
}

/** Options of a datagram queue pair's state. */
export interface UdActivation {
  /** Datagrams with another Q_Key are dropped; default 0x11111111. */
  readonly qkey?: number
}

/** A queue pair for unreliable datagrams. */
export interface UdQueuePair extends QueuePair<typeof UdQp>, DatagramSender, UdMethods {}

/** A UD queue pair whose requests return promises, which resolve when the datagram has been sent. */
export interface AwaitableUdQueuePair
  extends AwaitableQueuePair,
    DatagramSender<AwaitedMessageOptions, Promise<CompletedRequest>>,
    UdMethods {}

/** Members of datagram queue pairs beside sending and receiving. */
export interface UdMethods extends Activatable<UdActivation> {
  /** The data with which senders reach the queue pair. Its Q_Key is the one set last; before, the default of `activate`. */
  readonly endpoint: DatagramEndpoint
  /** Joins a multicast group; `gid` as text: 224.0.0.0/4 or ff00::/8. */
  attach(gid: string): void
  /** Leaves the group. Throws RdmaError EINVAL if it is not a member. */
  detach(gid: string): void
}

/** The queue pair number of all members of a group. */
export const MULTICAST_QPN = 0xffffff
const { INIT, RTR, RTS } = QpState.values
const { SEND, SEND_WITH_IMM } = WrOpcode.values

/** Bytes before the payload in the buffer of a received datagram. */
export const GRH_BYTES = IPV6_BYTES

/** The sender of a received datagram, from the first 40 bytes of its buffer. */
export const senderOf = (header: Uint8Array): Destination & { readonly gid: string } => {
  checkBytes('senderOf', 'the header', header)
  if (header.length < GRH_BYTES) throw invalidArgument('senderOf', `${header.length} bytes, a header has ${GRH_BYTES}`)
  const view = new DataView(header.buffer, header.byteOffset, GRH_BYTES)
  if (view.getUint8(0) >> 4 === 6) {
    const word = view.getUint32(0)
    return {
      gid: addressText(header.subarray(8, 24)),
      trafficClass: (word >> 20) & 0xff,
      flowLabel: word & 0xfffff,
    }
  }
  const ip = GRH_BYTES - IPV4_BYTES
  return { gid: header.subarray(ip + 12, ip + 16).join('.'), trafficClass: view.getUint8(ip + 1) }
}

const groupOf = (call: string, gid: string) => {
  const bytes = typeof gid === 'string' ? parseAddress(gid) : undefined
  if (bytes === undefined) throw noAddress(call, gid)
  return { gid: bytes, mlid: 0 }
}

const checkDestination = (call: string, to: Destination): void =>
  checkRecord(call, 'the destination', to, 'give { gid }, an IPv4 or IPv6 address as text')

/** The address attributes of the device's link, which the static types of calls do not have. */
const addressAttributes = (
  call: string,
  { path }: DeviceContext,
  to: Destination,
): Addressing & Pick<Required<Addressing>, 'address'> => {
  checkDestination(call, to)
  return addressing(call, path, to, to) as ReturnType<typeof addressAttributes>
}

/** The list attribute of the device's link. */
const listOf = ({ path }: DeviceContext, to: readonly Destination[]): In<typeof Pd.methods.createAhs> => {
  const addresses = to.map(one => {
    checkDestination('pd.createAhs', one)
    return addressRecord('pd.createAhs', path, one, one)
  })
  const { addresses: name = 'addresses' } = Links[path.link ?? 'roce'].attributes
  return { [name]: addresses } as In<typeof Pd.methods.createAhs>
}

/** Checks that the address handle is open and belongs to this device. */
const checkAddress = (kit: DeviceContext, call: string, ah: AddressHandle): void => {
  if (!(ah instanceof Address) || ah.kit !== kit || !ah.isOpen)
    throw invalidArgument(
      call,
      `the address handle is ${ah === undefined ? 'missing' : 'closed or of another device'}`,
      'use one that pd.addressHandle() of the same device made',
    )
}

const checkPeer = (kit: DeviceContext, to: DatagramPeer): void => {
  if (typeof to !== 'object' || to === null || typeof to.qpn !== 'number' || typeof to.qkey !== 'number')
    throw invalidArgument(
      'qp.send',
      to === undefined ? 'the receiver is missing' : 'the receiver lacks qpn or qkey',
      'give { ah, qpn, qkey }: where it is, and its endpoint',
    )
  checkAddress(kit, 'qp.send', to.ah)
}

class Address extends VerbsObject implements AddressHandle {
  readonly number: number

  constructor(kit: DeviceContext, handle: number, number: number) {
    super(kit, handle)
    this.number = number
  }

  get cls(): typeof Ah {
    return Ah
  }

  query() {
    return this.kit.carrier.call(Ah, 'query', this.handle, {}).out
  }

  override [SHOWN]() {
    return { handle: this.handle, number: this.number }
  }

  modify(other: Destination): void {
    this.kit.carrier.call(Ah, 'modify', this.handle, addressAttributes('ah.modify', this.kit, other))
  }
}
defineVerbsClass(Address, 'ah', 'AddressHandle')

/** An address handle in protection domain `pd`. */
export const addressPlan = (kit: DeviceContext, pd: Named, to: Destination): Plan<AddressHandle> => {
  checkOwn(kit, 'ah.create', 'pd', pd)
  const where = addressAttributes('ah.create', kit, to)
  return plan(
    Ah,
    { pd: pd.handle, ...where, userHandle: 0n },
    // The driver's number of the address handle; the handle if the driver has no such numbers.
    ({ object, out }) => new Address(kit, object, (out as { readonly number?: number }).number ?? object),
  )
}

/** Maximum address handles in one call: an encoded call has a maximum size. */
const AHS_AT_ONCE = 1 << 15

const pieces = <T>(all: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(all.length / AHS_AT_ONCE) }, (_, i) =>
    all.slice(i * AHS_AT_ONCE, (i + 1) * AHS_AT_ONCE),
  )

/** Results of a device that creates many address handles with one call; some drivers add numbers. */
type ManyMade = Out<typeof Pd.methods.createAhs> & { readonly numbers?: readonly { readonly number: number }[] }

/** Creates many address handles, with one call if the device supports it (R25). All or none. */
export const makeAddresses = (kit: DeviceContext, pd: Named, to: readonly Destination[]): readonly AddressHandle[] => {
  const { carrier, makeAll } = kit
  checkOwn(kit, 'pd.createAhs', 'pd', pd)
  if (!Array.isArray(to)) throw invalidArgument('pd.createAhs', 'the destinations are not a list', 'give [{ gid }, …]')
  // A list attribute has addresses only, so other options need one call for each.
  const isMarked = to.some(one => one?.dmac !== undefined || one?.vlan !== undefined)
  if (isMarked) return makeAll(to.map(one => addressPlan(kit, pd, one)))
  const made: AddressHandle[] = []
  try {
    for (const some of pieces(to)) {
      const { handles, numbers }: ManyMade = carrier.call(Pd, 'createAhs', pd.handle, listOf(kit, some)).out
      for (const [i, { handle }] of handles.entries())
        made.push(new Address(kit, handle, numbers?.[i]?.number ?? handle))
    }
    return made
  } catch (error) {
    closeAddresses(kit, pd, made)
    if (!(error instanceof RdmaError) || error.code !== 'EOPNOTSUPP') throw error
    // A device of an older release has no such method.
    return makeAll(to.map(one => addressPlan(kit, pd, one)))
  }
}

/** Destroys many address handles with one call, all or none. */
export const closeAddresses = (kit: DeviceContext, pd: Named, all: readonly AddressHandle[]): void => {
  const { carrier } = kit
  if (!Array.isArray(all)) throw invalidArgument('pd.destroyAhs', 'the address handles are not a list')
  for (const one of all) checkAddress(kit, 'pd.destroyAhs', one)
  for (const some of pieces(all)) {
    destroyUnlessRemoved(() =>
      carrier.call(Pd, 'destroyAhs', pd.handle, { handles: some.map(({ handle }) => ({ handle })) }),
    )
    for (const one of some) markClosed(one as Address)
  }
}

/** A queue pair that sends datagrams. */
export abstract class DatagramQp<C extends ObjectClass = ObjectClass> extends QueuedQp<C> implements DatagramSender {
  get requestOptionBits(): number {
    return UC_WORDS
  }

  send(local: Local, to: DatagramPeer, options?: MessageOptions): void {
    if (this?.kit === undefined) throw detached('qp.send')
    checkDevicePresent('qp.send', this.kit)
    checkPeer(this.kit, to)
    const immediate = options?.immediate
    const at = beginRequest(this, 'qp.send', immediate === undefined ? SEND : SEND_WITH_IMM, local, options, UC_WORDS)
    const ring = this.sends as ProgramRing
    putDestination(ring, at, to.ah.number, to.qpn, to.qkey)
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
export interface AwaitableUdOptions extends WithoutQueues<UdQueuePairOptions> {}

const udOptionNames: KnownOptions<UdQueuePairOptions> = { ...queuePairOptionNames, initial: true, active: true }

const activation = {
  cls: UdQp,
  optionNames: { qkey: true } satisfies KnownOptions<UdActivation>,
  steps: ({ qkey = DEFAULT_QKEY }: UdActivation): In<typeof UdQp.methods.modify>[] => [
    { state: INIT, pkeyIndex: 0, port: 1, qkey },
    { state: RTR },
    { state: RTS, sqPsn: firstPsn() },
  ],
}
class UdObject extends DatagramQp<typeof UdQp> implements UdQueuePair {
  get cls(): typeof UdQp {
    return UdQp
  }

  get endpoint(): DatagramEndpoint {
    const { kit, qpn, qkey } = this
    const { gid, lid } = kit.path
    const own = { qpn, gid: addressText(gid), qkey }
    return lid === undefined ? own : { ...own, lid }
  }

  activate(options: UdActivation = {}): void {
    activate(this, activation, options)
  }

  override modify(changes: Modification<typeof UdQp>): void {
    super.modify(changes)
    if (changes.qkey !== undefined) this.qkey = changes.qkey
  }

  attach(gid: string): void {
    this.kit.carrier.call(UdQp, 'attachMcast', this.handle, groupOf('qp.attach', gid))
  }

  detach(gid: string): void {
    this.kit.carrier.call(UdQp, 'detachMcast', this.handle, groupOf('qp.detach', gid))
  }
}
const udType = queuePairType('UdQueuePair', UdObject)
const awaitableUdType = queuePairType('UdQueuePair', awaitable<AwaitableUdQueuePair>(UdObject, { send: 2 }))

export const udQpPlan = (kit: DeviceContext, pd: Named, options: UdQueuePairOptions): Plan<UdQueuePair> => {
  checkOptions('ud_qp.create', 'options', options, udOptionNames)
  return queuePairPlan(kit, udType, pd, atCreation(activation, options))
}

/** Creates a queue pair that owns its completion queue. */
export const awaitableUdQp = (kit: DeviceContext, pd: Named, options?: AwaitableUdOptions): AwaitableUdQueuePair =>
  makeAwaitable(kit, 'ud_qp.create', options, udOptionNames, all =>
    queuePairPlan(kit, awaitableUdType, pd, atCreation(activation, all)),
  )
