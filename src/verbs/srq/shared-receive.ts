/*
 * Shared receive queues in the library (IBA 10.2.9; annex A14 for XRC): receives for many queue pairs, consumed in the
 * order of arriving messages.
 */
import { Srq, XrcSrq } from '../../spec/classes/srq.ts'
import type { AnyValues, ObjectClass, Out } from '../../spec/schema/schema.ts'
import { checkOptions, type KnownOptions } from '../checks/options.ts'
import { defineVerbsClass, SHOWN } from '../objects/verbs-object.ts'
import {
  checkOwn,
  type DeviceContext,
  type EventSource,
  eventSource,
  type Kind,
  type Named,
  type Plan,
  type Reference,
} from '../plan.ts'
import { type ReceiveQueue, type ReceiveQueueMade, ReceiveRing } from './receive-queue.ts'

/** Options of `pd.srq`. */
export interface SrqOptions {
  /** Queue size in requests; default 256. */
  readonly maxWr?: number
  /** Maximum scatter/gather elements of a receive; default 1. */
  readonly maxSge?: number
}

/** A shared receive queue (IBA 10.2.9). */
export interface SharedReceiveQueue extends ReceiveQueue, Disposable, Kind<'srq'> {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Raises one event SRQ_LIMIT_REACHED when fewer than `limit` receives are left; 0: none. */
  setLimit(limit: number): void
  /** Resizes the queue to at least `maxWr` requests; posted receives stay. */
  resize(maxWr: number): void
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<typeof Srq.methods.query>
  /** Destroys it. Throws RdmaError EBUSY while a queue pair uses it. */
  close(): void
}

/** A shared receive queue that XRC senders name by its number. */
export interface XrcSharedReceiveQueue extends SharedReceiveQueue {
  /** Its SRQ number, 24 bits. */
  readonly srqNumber: number
}

/** Results of creations, with the driver's own attributes. */
type SrqMade = AnyValues & ReceiveQueueMade
type XrcSrqMade = SrqMade & { readonly srqNum: number }

const RECEIVES = 256
const srqOptionNames: KnownOptions<SrqOptions> = { maxWr: true, maxSge: true }

/** Arguments of creations of all kinds. */
const srqArguments = (pd: Named, source: EventSource, { maxWr = RECEIVES, maxSge = 1 }: SrqOptions) => ({
  pd: pd.handle,
  maxWr,
  maxSge,
  limit: 0,
  userHandle: BigInt(source.number),
})

class SrqObject extends ReceiveRing implements SharedReceiveQueue {
  get cls(): typeof Srq {
    return Srq
  }

  setLimit(limit: number): void {
    this.kit.carrier.call(this.cls, 'modify', this.handle, { limit })
  }

  query() {
    return this.kit.carrier.call(this.cls, 'query', this.handle, {}).out
  }
}

class XrcSrqObject extends SrqObject implements XrcSharedReceiveQueue {
  readonly srqNumber: number

  constructor(kit: DeviceContext, number: number, handle: number, made: XrcSrqMade) {
    super(kit, number, handle, made)
    this.srqNumber = made.srqNum
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
export const srqPlan = (kit: DeviceContext, pd: Named, options: SrqOptions = {}): Plan<SharedReceiveQueue> => {
  checkOwn(kit, 'srq.create', 'pd', pd)
  checkOptions('srq.create', 'options', options, srqOptionNames)
  const source = eventSource(kit, Srq)
  return {
    class: Srq,
    args: srqArguments(pd, source, options),
    made: ({ object, out }) => source.is(new SrqObject(kit, source.number, object, out as SrqMade)),
    options: {},
    failed: source.forget,
  }
}

/** Options of `pd.xrcSrq`. */
export interface XrcSrqOptions extends SrqOptions {
  /** The XRC domain that it belongs to. */
  readonly xrcd: Reference<'xrcd'>
  /** The completion queue of messages to this SRQ. */
  readonly cq: Reference<'cq'>
}

const xrcSrqOptionNames: KnownOptions<XrcSrqOptions> = { ...srqOptionNames, xrcd: true, cq: true }

export const xrcSrqPlan = (kit: DeviceContext, pd: Named, options: XrcSrqOptions): Plan<XrcSharedReceiveQueue> => {
  checkOptions('xrc_srq.create', 'options', options, xrcSrqOptionNames)
  checkOwn(kit, 'xrc_srq.create', 'pd', pd)
  checkOwn(kit, 'xrc_srq.create', 'xrcd', options.xrcd)
  checkOwn(kit, 'xrc_srq.create', 'cq', options.cq)
  const source = eventSource(kit, XrcSrq)
  return {
    class: XrcSrq,
    args: { ...srqArguments(pd, source, options), xrcd: options.xrcd.handle, cq: options.cq.handle },
    made: ({ object, out }) => source.is(new XrcSrqObject(kit, source.number, object, out as XrcSrqMade)),
    options: {},
    failed: source.forget,
  }
}
