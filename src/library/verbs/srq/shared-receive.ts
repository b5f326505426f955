/*
 * Shared receive queues (IBA 10.2.9; annex A14 for XRC).
 */
import { Srq, XrcSrq } from '../../../spec/classes/srq.ts'
import type { AnyValues, ObjectClass, Out } from '../../../spec/schema/schema.ts'
import { checkOptions, type KnownOptions } from '../arguments/options.ts'
import { checkU32, withOptionNames } from '../error.ts'
import { defineVerbsClass, SHOWN } from '../objects/verbs-object.ts'
import {
  checkObject,
  type DeviceContext,
  type EventSource,
  eventSource,
  type Kind,
  type ObjectReference,
  type Plan,
  type Reference,
} from '../plan.ts'
import { type ReceiveQueue, type ReceiveQueueCreateResult, ReceiveRing } from './receive-queue.ts'

/** Options of `pd.srq`. */
export interface SrqOptions {
  /** Queue size in requests; default 256. */
  readonly maxWr?: number | undefined
  /** Maximum scatter/gather elements of a receive; default 1. */
  readonly maxSge?: number | undefined
}

/** A shared receive queue (IBA 10.2.9). */
export interface SharedReceiveQueue extends ReceiveQueue, Disposable, Kind<'srq'> {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Raises one event SRQ_LIMIT_REACHED when fewer than `limit` receives are posted; 0: no event. Throws RdmaError. */
  setLimit(limit: number): void
  /** Resizes the queue to at least `maxWr` requests; posted receives stay. Throws RdmaError. */
  resize(maxWr: number): void
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<typeof Srq.methods.query>
  /** Destroys the queue. Throws RdmaError EBUSY while a queue pair uses it. */
  close(): void
}

/** A shared receive queue that XRC senders name by its number. */
export interface XrcSharedReceiveQueue extends SharedReceiveQueue {
  /** SRQ number, 24 bits. */
  readonly srqNumber: number
}

/** Results of `create`, with the driver's own attributes. */
type SrqCreateResult = AnyValues & ReceiveQueueCreateResult
type XrcSrqCreateResult = SrqCreateResult & { readonly srqNum: number }

const DEFAULT_MAX_WR = 256
const srqOptionNames: KnownOptions<SrqOptions> = { maxWr: true, maxSge: true }

/** The arguments of `create` of both classes. */
const srqArguments = (
  pd: ObjectReference,
  source: EventSource,
  { maxWr = DEFAULT_MAX_WR, maxSge = 1 }: SrqOptions,
) => ({
  pd: pd.handle,
  maxWr,
  maxSge,
  limit: 0,
  userHandle: BigInt(source.userHandle),
})

class SrqObject extends ReceiveRing implements SharedReceiveQueue {
  get cls(): typeof Srq {
    return Srq
  }

  setLimit(limit: number): void {
    checkU32('srq.setLimit', 'limit', limit)
    withOptionNames({}, () => this.context.carrier.call(this.cls, 'modify', this.handle, { limit }))
  }

  query() {
    return this.context.carrier.call(this.cls, 'query', this.handle, {}).out
  }
}

class XrcSrqObject extends SrqObject implements XrcSharedReceiveQueue {
  readonly srqNumber: number

  constructor(context: DeviceContext, userHandle: number, handle: number, result: XrcSrqCreateResult) {
    super(context, userHandle, handle, result)
    this.srqNumber = result.srqNum
  }

  override [SHOWN]() {
    return { ...super[SHOWN](), srqNumber: this.srqNumber }
  }

  override get cls(): typeof Srq {
    return XrcSrq as ObjectClass as typeof Srq
  }
}
defineVerbsClass(XrcSrqObject, 'srq', 'XrcSharedReceiveQueue')
defineVerbsClass(SrqObject, 'srq', 'SharedReceiveQueue')

/** A shared receive queue in protection domain `pd`. */
export const srqPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  options: SrqOptions = {},
): Plan<SharedReceiveQueue> => {
  checkObject(context, 'srq.create', 'pd', pd)
  checkOptions('srq.create', 'options', options, srqOptionNames)
  const source = eventSource(context, Srq)
  return {
    class: Srq,
    args: srqArguments(pd, source, options),
    onSuccess: ({ object, out }) =>
      source.assign(new SrqObject(context, source.userHandle, object, out as SrqCreateResult)),
    // The options have the names of their attributes.
    optionsByAttribute: {},
    onFailure: source.release,
  }
}

/** Options of `pd.xrcSrq`. */
export interface XrcSrqOptions extends SrqOptions {
  /** The XRC domain of the queue. */
  readonly xrcd: Reference<'xrcd'>
  /** The completion queue of the receives. */
  readonly cq: Reference<'cq'>
}

const xrcSrqOptionNames: KnownOptions<XrcSrqOptions> = { ...srqOptionNames, xrcd: true, cq: true }

/** An XRC shared receive queue in protection domain `pd`. */
export const xrcSrqPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  options: XrcSrqOptions,
): Plan<XrcSharedReceiveQueue> => {
  checkOptions('xrc_srq.create', 'options', options, xrcSrqOptionNames)
  checkObject(context, 'xrc_srq.create', 'pd', pd)
  checkObject(context, 'xrc_srq.create', 'xrcd', options.xrcd)
  checkObject(context, 'xrc_srq.create', 'cq', options.cq)
  const source = eventSource(context, XrcSrq)
  return {
    class: XrcSrq,
    args: { ...srqArguments(pd, source, options), xrcd: options.xrcd.handle, cq: options.cq.handle },
    onSuccess: ({ object, out }) =>
      source.assign(new XrcSrqObject(context, source.userHandle, object, out as XrcSrqCreateResult)),
    // The options have the names of their attributes.
    optionsByAttribute: {},
    onFailure: source.release,
  }
}
