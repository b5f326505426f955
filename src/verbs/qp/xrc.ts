/*
 * XRC in the library (IBA annex A14): domains, initiators, whose requests name the receiver's SRQ, and targets, which
 * have no queues and may be shared by processes.
 */
import { XrcIniQp, XrcTgtQp } from '../../spec/classes/qp/xrc_qp.ts'
import { Xrcd } from '../../spec/classes/xrcd.ts'
import { XrcdFlags } from '../../spec/enums.ts'
import type { Out } from '../../spec/schema/schema.ts'
import { checkOptions, type KnownOptions } from '../checks/options.ts'
import { type RcMessageOptions, type SendOptions, XRC_WORDS, type XrcOptions } from '../checks/request-options.ts'
import { defineVerbsClass, VerbsObject } from '../objects/verbs-object.ts'
import { checkOwn, type DeviceContext, eventSource, type Kind, make, type Named, type Plan, plan } from '../plan.ts'
import {
  type Connected,
  connectBy,
  connectSteps,
  type Endpoint,
  endpointOf,
  firstPsn,
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
  type SendingQueuePair,
  type SendQueueOptions,
  STEPS,
  type StepsTo,
  sendQueueOptionNames,
} from './queue-pair.ts'

/** The same operations with mandatory options. */
type Addressed<T> = {
  [K in keyof T]: T[K] extends (...args: infer A) => infer R ? (...args: Required<A>) => R : never
}
type Messages = Pick<Operations<RcMessageOptions & XrcOptions, XrcOptions>, 'send' | 'write'>

/** The sending end of an XRC connection. */
export interface XrcInitiator
  extends SendingQueuePair<typeof XrcIniQp>,
    Addressed<Messages>,
    Addressed<ReliableOperations<XrcOptions>>,
    Pick<Operations<RcMessageOptions, SendOptions>, 'bind' | 'invalidate'>,
    Connected<RcConnectOptions> {}

/** The receiving end of an XRC connection; it has no queues. */
export interface XrcTarget extends BareQueuePair<typeof XrcTgtQp>, Connected<RcConnectOptions> {}

/** Options of `xrcd.target`. */
export interface XrcTargetOptions extends InitialOptions<typeof XrcTgtQp>, PeerOptions<RcConnectOptions> {
  /** Opens the existing target with this number. */
  readonly qpn?: number
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
  /** Creates a target of the domain; with `qpn` (or a plain number) opens an existing one. */
  target(options?: number | XrcTargetOptions): XrcTarget
  /** Whether it has a file, how often it is open in all processes, and its users in this opening. */
  query(): Out<typeof Xrcd.methods.query>
  /** Closes it. Throws RdmaError EBUSY while an SRQ or queue pair belongs to it. */
  close(): void
}

/** Options of `device.xrcd`. */
export interface XrcDomainOptions {
  /** A file descriptor: processes that open the domain of the same file share it. Without one it is private. */
  readonly file?: number
  /** Fail with EINVAL if the file has a domain already. */
  readonly exclusive?: boolean
}

const targetOptionNames: KnownOptions<XrcTargetOptions> = { qpn: true, initial: true, peer: true, connection: true }
const initiatorOptionNames: KnownOptions<XrcInitiatorOptions> = {
  ...sendQueueOptionNames,
  initial: true,
  peer: true,
  connection: true,
}
const domainOptionNames: KnownOptions<XrcDomainOptions> = { file: true, exclusive: true }

const { CREAT, EXCL } = XrcdFlags.values

const targetSteps: StepsTo = (path, psn, peer, chosen) => {
  const { init, rtr, rts } = connectSteps(path, psn, peer, chosen, rcConnectOptionNames)
  const { responder: answering, timeout } = reliableSteps(chosen)
  return [init, { ...rtr, ...answering }, { ...rts, ...timeout }]
}

class TargetObject extends BareQp<typeof XrcTgtQp> implements XrcTarget {
  get cls(): typeof XrcTgtQp {
    return XrcTgtQp
  }

  get endpoint(): Endpoint {
    return endpointOf(this.kit.path, this)
  }

  connect(peer: Endpoint, chosen?: RcConnectOptions): void {
    connectBy(this, targetSteps(this.kit.path, this.psn, peer, chosen))
  }
}
defineVerbsClass(TargetObject, 'qp', 'XrcTarget')

const targetPlan = (kit: DeviceContext, xrcd: Named, options: XrcTargetOptions): Plan<XrcTarget> => {
  checkOwn(kit, 'xrc_tgt_qp.create', 'xrcd', xrcd)
  checkOptions('xrc_tgt_qp.create', 'options', options, targetOptionNames)
  const { qpn } = options
  const psn = firstPsn()
  const first = initialAttributesOf(targetSteps, kit, psn, options)
  const source = eventSource(kit, XrcTgtQp)
  const { number } = source
  return plan(
    XrcTgtQp,
    {
      xrcd: xrcd.handle,
      userHandle: BigInt(number),
      ...(qpn !== undefined && { qpNum: qpn }),
      ...first,
    },
    ({ object, out }) => source.is(new TargetObject(kit, object, number, out.qpNum, psn)),
    source.forget,
  )
}

class Domain extends VerbsObject implements XrcDomain {
  get cls(): typeof Xrcd {
    return Xrcd
  }

  target(options: number | XrcTargetOptions = {}): XrcTarget {
    return make(this.kit, targetPlan(this.kit, this, typeof options === 'number' ? { qpn: options } : options))
  }

  query() {
    return this.kit.carrier.call(Xrcd, 'query', this.handle, {}).out
  }
}
defineVerbsClass(Domain, 'xrcd', 'XrcDomain')

export const xrcdPlan = (kit: DeviceContext, options: XrcDomainOptions = {}): Plan<XrcDomain> => {
  checkOptions('xrcd.create', 'options', options, domainOptionNames)
  const { file, exclusive = false } = options
  const args = { ...(file !== undefined && { file }), flags: CREAT | (exclusive ? EXCL : 0) }
  return plan(Xrcd, args, ({ object: handle }) => new Domain(kit, handle))
}

const initiatorSteps: StepsTo = (path, psn, peer, chosen) => {
  const { init, rtr, rts } = connectSteps(path, psn, peer, chosen, rcConnectOptionNames)
  return [init, rtr, { ...rts, ...reliableSteps(chosen).requester }]
}

class InitiatorObject extends ReliableQp<typeof XrcIniQp> implements XrcInitiator {
  get cls(): typeof XrcIniQp {
    return XrcIniQp
  }

  get requestOptionBits(): number {
    return XRC_WORDS
  }

  override get [STEPS](): StepsTo {
    return initiatorSteps
  }
}
const initiatorType = queuePairType('XrcInitiator', InitiatorObject)

export const xrcInitiatorPlan = (kit: DeviceContext, pd: Named, options: XrcInitiatorOptions): Plan<XrcInitiator> => {
  checkOptions('xrc_ini_qp.create', 'options', options, initiatorOptionNames)
  return queuePairPlan(kit, initiatorType, pd, options)
}
