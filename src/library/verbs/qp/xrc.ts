/*
 * XRC (IBA annex A14): domains, initiators and targets. Requests of initiators name an SRQ of the peer. Targets have no
 * queues. The SRQs are in library/verbs/srq/shared-receive.ts.
 */
import { XrcIniQp, XrcTgtQp } from '../../../spec/classes/qp/xrc_qp.ts'
import { Xrcd } from '../../../spec/classes/xrcd.ts'
import { XrcdFlags } from '../../../spec/enums.ts'
import type { Out } from '../../../spec/schema/schema.ts'
import { checkOptions, type KnownOptions } from '../arguments/options.ts'
import {
  type FlushOptions,
  type MessageOptions,
  type RcMessageOptions,
  type SendOptions,
  XRC_OPTIONS,
  type XrcOptions,
} from '../arguments/request-options.ts'
import type { Slice } from '../mr/region.ts'
import type { RemoteMemoryData } from '../mr/remote-memory.ts'
import { defineVerbsClass, VerbsObject } from '../objects/verbs-object.ts'
import {
  checkObject,
  type DeviceContext,
  eventSource,
  type Kind,
  make,
  type ObjectReference,
  type Plan,
  plan,
} from '../plan.ts'
import {
  type Connectable,
  connectSteps,
  type Endpoint,
  endpointOf,
  firstPsn,
  modifyInSteps,
  optionsByQpAttribute,
  type PeerOptions,
  type RcConnectOptions,
  rcConnectOptionNames,
  reliableSteps,
} from './connection.ts'
import { type Operations, type ReliableOperations, ReliableQp } from './operations.ts'
import {
  BareQp,
  type BareQueuePair,
  type InitialOptions,
  initialAttributesOf,
  queuePairPlan,
  queuePairType,
  type SendData,
  type SendingQueuePair,
  type SendQueueOptions,
  STEPS,
  type StepsTo,
  sendQueueOptionNames,
} from './queue-pair.ts'

/** The operations of `T` with required options, because the options name the SRQ. */
type WithRequiredOptions<T> = {
  [K in keyof T]: T[K] extends (...args: infer A) => infer R ? (...args: Required<A>) => R : never
}
type MessageOperations = Pick<Operations<RcMessageOptions & XrcOptions, XrcOptions>, 'send' | 'write'>

/** The sending end of an XRC connection. */
export interface XrcInitiator
  extends SendingQueuePair<typeof XrcIniQp>,
    WithRequiredOptions<MessageOperations>,
    WithRequiredOptions<ReliableOperations<XrcOptions>>,
    Pick<Operations<RcMessageOptions, SendOptions>, 'bind' | 'invalidate'>,
    Connectable<RcConnectOptions> {}

/**
 * The receiving end of an XRC connection, without queues. If the target was opened more than once, `close` ends only
 * this opening.
 */
export interface XrcTarget extends BareQueuePair<typeof XrcTgtQp>, Connectable<RcConnectOptions> {}

/** Options of `xrcd.target`. */
export interface XrcTargetOptions extends InitialOptions<typeof XrcTgtQp>, PeerOptions<RcConnectOptions> {
  /** Opens the existing target with this queue pair number. */
  readonly qpn?: number | undefined
}

/** Options of `pd.xrcInitiator`. */
export interface XrcInitiatorOptions
  extends SendQueueOptions,
    InitialOptions<typeof XrcIniQp>,
    PeerOptions<RcConnectOptions> {}

/** An XRC domain (IBA annex A14). */
export interface XrcDomain extends Disposable, Kind<'xrcd'> {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Creates a target in the domain. With a queue pair number (or the option `qpn`), opens the existing target. */
  target(options?: number | XrcTargetOptions): XrcTarget
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<typeof Xrcd.methods.query>
  /** Closes the domain. Throws RdmaError EBUSY while the domain has an SRQ or queue pair. */
  close(): void
}

/** Options of `device.xrcd`. */
export interface XrcDomainOptions {
  /** A file descriptor: XRC domains with the same file are one domain. Default: a private domain. */
  readonly file?: number | undefined
  /** Fails with EINVAL if the file has a domain already; default false. */
  readonly exclusive?: boolean | undefined
}

const targetOptionNames: KnownOptions<XrcTargetOptions> = {
  qpn: true,
  initial: 'record',
  peer: true,
  connection: 'record',
}
const initiatorOptionNames: KnownOptions<XrcInitiatorOptions> = {
  ...sendQueueOptionNames,
  initial: 'record',
  peer: true,
  connection: 'record',
}
const domainOptionNames: KnownOptions<XrcDomainOptions> = { file: true, exclusive: 'flag' }

const { CREAT, EXCL } = XrcdFlags.values

const targetSteps: StepsTo = (path, psn, peer, options) => {
  const { init, rtr, rts } = connectSteps(path, psn, peer, options, rcConnectOptionNames)
  const { responder, timeout } = reliableSteps(options)
  return [init, { ...rtr, ...responder }, { ...rts, ...timeout }]
}

class TargetObject extends BareQp<typeof XrcTgtQp> implements XrcTarget {
  get cls(): typeof XrcTgtQp {
    return XrcTgtQp
  }

  get endpoint(): Endpoint {
    return endpointOf(this.context.path, this)
  }

  connect(peer: Endpoint, options?: RcConnectOptions): void {
    modifyInSteps('qp.connect', this, targetSteps(this.context.path, this.psn, peer, options))
  }
}
defineVerbsClass(TargetObject, 'qp', 'XrcTarget')

const targetPlan = (context: DeviceContext, xrcd: ObjectReference, options: XrcTargetOptions): Plan<XrcTarget> => {
  checkObject(context, 'xrc_tgt_qp.create', 'xrcd', xrcd)
  checkOptions('xrc_tgt_qp.create', 'options', options, targetOptionNames)
  const { qpn } = options
  const psn = firstPsn()
  const initial = initialAttributesOf('xrc_tgt_qp.create', targetSteps, context, psn, options)
  const source = eventSource(context, XrcTgtQp)
  const { userHandle } = source
  return plan(
    XrcTgtQp,
    {
      xrcd: xrcd.handle,
      userHandle: BigInt(userHandle),
      ...(qpn !== undefined && { qpNum: qpn }),
      ...initial,
    },
    ({ object, out }) => source.assign(new TargetObject(context, object, userHandle, out.qpNum, psn)),
    source.release,
    { ...optionsByQpAttribute, qpNum: 'qpn' },
  )
}

class XrcdObject extends VerbsObject implements XrcDomain {
  get cls(): typeof Xrcd {
    return Xrcd
  }

  target(options: number | XrcTargetOptions = {}): XrcTarget {
    return make(this.context, targetPlan(this.context, this, typeof options === 'number' ? { qpn: options } : options))
  }

  query() {
    return this.context.carrier.call(Xrcd, 'query', this.handle, {}).out
  }
}
defineVerbsClass(XrcdObject, 'xrcd', 'XrcDomain')

export const xrcdPlan = (context: DeviceContext, options: XrcDomainOptions = {}): Plan<XrcDomain> => {
  checkOptions('xrcd.create', 'options', options, domainOptionNames)
  const { file, exclusive = false } = options
  const args = { ...(file !== undefined && { file }), flags: CREAT | (exclusive ? EXCL : 0) }
  return plan(Xrcd, args, ({ object: handle }) => new XrcdObject(context, handle))
}

const initiatorSteps: StepsTo = (path, psn, peer, options) => {
  const { init, rtr, rts } = connectSteps(path, psn, peer, options, rcConnectOptionNames)
  return [init, rtr, { ...rts, ...reliableSteps(options).requester }]
}

const noOptions = {}

class InitiatorObject extends ReliableQp<typeof XrcIniQp> implements XrcInitiator {
  get cls(): typeof XrcIniQp {
    return XrcIniQp
  }

  get requestOptionBits(): number {
    return XRC_OPTIONS
  }

  override get [STEPS](): StepsTo {
    return initiatorSteps
  }

  // Requests without options are refused like requests whose options have no `srqNumber`.

  override send(local: SendData, options: RcMessageOptions = noOptions): void {
    super.send(local, options)
  }

  override write(local: SendData, remote: RemoteMemoryData, options: MessageOptions = noOptions): void {
    super.write(local, remote, options)
  }

  override read(local: Slice | readonly Slice[], remote: RemoteMemoryData, options: SendOptions = noOptions): void {
    super.read(local, remote, options)
  }

  override compareSwap(
    local: Slice,
    remote: RemoteMemoryData,
    compare: bigint,
    swap: bigint,
    options: SendOptions = noOptions,
  ): void {
    super.compareSwap(local, remote, compare, swap, options)
  }

  override fetchAdd(local: Slice, remote: RemoteMemoryData, add: bigint, options: SendOptions = noOptions): void {
    super.fetchAdd(local, remote, add, options)
  }

  override atomicWrite(remote: RemoteMemoryData, word: bigint, options: SendOptions = noOptions): void {
    super.atomicWrite(remote, word, options)
  }

  override flush(remote: RemoteMemoryData, options: FlushOptions = noOptions): void {
    super.flush(remote, options)
  }
}
const initiatorType = queuePairType('XrcInitiator', InitiatorObject)

export const xrcInitiatorPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  options: XrcInitiatorOptions,
): Plan<XrcInitiator> => {
  checkOptions('xrc_ini_qp.create', 'options', options, initiatorOptionNames)
  return queuePairPlan(context, initiatorType, pd, options)
}
