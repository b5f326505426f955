/*
 * Shared receive queues in the library (IBA 10.2.9; annex A14 for those of XRC): requests that many queue pairs take
 * from, whichever gets a message first.
 */
import { Srq, XrcSrq } from '../../spec/classes/srq.ts'
import type { AnyValues, ObjectClass, Out } from '../../spec/schema/schema.ts'
import type { Answered, RingPlace } from '../carrier.ts'
import { checkOptions, type Words } from '../checks/options.ts'
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
import { outstandingRequests } from '../ring.ts'
import { closeMethods, guarded, mergeTables, shownAs, withMethods } from '../shared-methods.ts'
import {
  endRequests,
  moveRequests,
  type ReceiveFields,
  type ReceiveQueue,
  type ReceiveQueueMade,
  receiveFields,
  receiving,
} from './receive-queue.ts'

export interface SrqOptions {
  /** Requests that can be posted at once; default 256. */
  readonly maxWr?: number
  /** Pieces of one request; default 1. */
  readonly maxSge?: number
}

export interface SharedReceiveQueue extends ReceiveQueue, Disposable, Kind<'srq'> {
  readonly handle: number
  /** One event SRQ_LIMIT_REACHED when fewer than `limit` requests are left; 0: none. */
  setLimit(limit: number): void
  /** At least so many requests from now on; what is posted stays. */
  resize(maxWr: number): void
  query(): Out<typeof Srq.methods.query>
  /** Throws RdmaError EBUSY while a queue pair uses it. */
  close(): void
}

/** One that XRC senders name by its number. */
export interface XrcSharedReceiveQueue extends SharedReceiveQueue {
  /** 24 bits. */
  readonly srqNumber: number
}

const RECEIVES = 256
const srqWords: Words<SrqOptions> = { maxWr: true, maxSge: true }

/** What creations of all kinds take. */
const srqArguments = (pd: Named, source: EventSource, { maxWr = RECEIVES, maxSge = 1 }: SrqOptions) => ({
  pd: pd.handle,
  maxWr,
  maxSge,
  limit: 0,
  userHandle: BigInt(source.number),
})

type SrqSelf = ReceiveFields & { readonly cls: ObjectClass }

const srqMethods: Pick<SharedReceiveQueue, 'setLimit' | 'resize' | 'query'> & ThisType<SrqSelf & SharedReceiveQueue> = {
  setLimit(limit) {
    this.kit.carrier.call(this.cls as typeof Srq, 'modify', this.handle, { limit })
  },
  resize(maxWr) {
    const { carrier } = this.kit
    const { out } = carrier.call(this.cls as typeof Srq, 'modify', this.handle, { maxWr })
    const { queue } = out as { queue?: RingPlace }
    if (queue !== undefined) moveRequests(this, queue)
  },
  query() {
    return this.kit.carrier.call(this.cls as typeof Srq, 'query', this.handle, {}).out
  },
}

/** The table of one class of them. */
const srqTable = (cls: ObjectClass, name: string): object => {
  const own = { cls, ...srqMethods, ...closeMethods<ReceiveFields>(cls, endRequests) }
  const methods = guarded('srq', mergeTables(receiving, own))
  shownAs<ReceiveFields & Partial<Pick<XrcSharedReceiveQueue, 'srqNumber'>>>(methods, name, self => {
    const { handle, ring, maxSge, srqNumber } = self
    const sizes = { maxWr: ring.capacity, maxSge, pending: outstandingRequests(ring) }
    return { handle, ...sizes, ...(srqNumber !== undefined && { srqNumber }) }
  })
  return methods
}
const srq = srqTable(Srq, 'SharedReceiveQueue')
const xrcSrq = srqTable(XrcSrq, 'XrcSharedReceiveQueue')

/** The fields of one that was made. */
const srqFields = (kit: DeviceContext, { number }: EventSource, { object, out }: Answered<AnyValues>): ReceiveFields =>
  receiveFields(kit, number, object, out as unknown as ReceiveQueueMade)

/** A shared receive queue in protection domain `pd`. */
export const srqPlan = (kit: DeviceContext, pd: Named, options: SrqOptions = {}): Plan<SharedReceiveQueue> => {
  checkOwn(kit, 'srq.create', 'pd', pd)
  checkOptions('srq.create', 'options', options, srqWords)
  const source = eventSource(kit, Srq)
  return {
    class: Srq,
    args: srqArguments(pd, source, options),
    options: {},
    made: answered => source.is(withMethods<SharedReceiveQueue>(srq, srqFields(kit, source, answered))),
    failed: source.forget,
  }
}

export interface XrcSrqOptions extends SrqOptions {
  readonly xrcd: Reference<'xrcd'>
  /** Messages to this queue complete there. */
  readonly cq: Reference<'cq'>
}

const xrcSrqWords: Words<XrcSrqOptions> = { ...srqWords, xrcd: true, cq: true }

export const xrcSrqPlan = (kit: DeviceContext, pd: Named, options: XrcSrqOptions): Plan<XrcSharedReceiveQueue> => {
  checkOptions('xrc_srq.create', 'options', options, xrcSrqWords)
  checkOwn(kit, 'xrc_srq.create', 'pd', pd)
  checkOwn(kit, 'xrc_srq.create', 'xrcd', options.xrcd)
  checkOwn(kit, 'xrc_srq.create', 'cq', options.cq)
  const source = eventSource(kit, XrcSrq)
  return {
    class: XrcSrq,
    args: { ...srqArguments(pd, source, options), xrcd: options.xrcd.handle, cq: options.cq.handle },
    options: {},
    made(answered) {
      const { srqNum } = answered.out as unknown as Out<typeof XrcSrq.methods.create>
      const fields = Object.assign(srqFields(kit, source, answered), { srqNumber: srqNum })
      return source.is(withMethods<XrcSharedReceiveQueue>(xrcSrq, fields))
    },
    failed: source.forget,
  }
}
