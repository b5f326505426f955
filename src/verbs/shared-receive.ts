/*
 * Shared receive queues in the library (IBA 10.2.9; annex A14 for those of XRC): requests that many queue pairs take
 * from, whichever gets a message first.
 */
import { Srq, XrcSrq } from '../spec/classes/srq.ts'
import type { AnyValues, ObjectClass, Out } from '../spec/schema.ts'
import type { Answered, RingPlace } from './carrier.ts'
import { invalid } from './error.ts'
import { endings, joined, withMethods } from './held.ts'
import type { Slice } from './memory.ts'
import { checkOptions, type Words } from './options.ts'
import { checkOwn, type EventSource, eventSource, type Held, type Kit, type Named, type Plan } from './plan.ts'
import { checkThere, full, tooMany } from './queue-pair.ts'
import { checkRequest } from './request-checks.ts'
import { putReceive } from './requests.ts'
import { nextSlot, noProgramRing, outstanding, type ProgramRing, produce, programRing } from './ring.ts'

export interface SrqOptions {
  /** Requests that can be posted at once; default 256. */
  readonly maxReceives?: number
  /** Pieces of one request; default 1. */
  readonly maxPieces?: number
}

export interface SharedReceiveQueue extends Disposable {
  readonly handle: number
  /** Requests that it holds. */
  readonly maxReceives: number
  /** Requests that no message has taken yet. */
  readonly pending: number
  /** Offers a buffer for the next message. Throws RdmaError ENOMEM when the queue is full. */
  receive(local?: Slice | readonly Slice[], id?: number): void
  /** One event SRQ_LIMIT_REACHED when fewer than `limit` requests are left; 0: none. */
  setLimit(limit: number): void
  /** At least so many requests from now on; what is posted stays. */
  resize(maxReceives: number): void
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
const srqWords: Words<SrqOptions> = { maxReceives: true, maxPieces: true }

const wanted = (pd: Named, source: EventSource, { maxReceives = RECEIVES, maxPieces = 1 }: SrqOptions) => ({
  pd: pd.handle,
  maxWr: maxReceives,
  maxSge: maxPieces,
  limit: 0,
  userHandle: BigInt(source.number),
})

interface SrqFields extends Held {
  /** Its number among what has events, and its class. */
  readonly number: number
  readonly cls: ObjectClass
  readonly maxPieces: number
  place: RingPlace
  ring: ProgramRing
}

const srqMethods: Omit<SharedReceiveQueue, 'handle' | 'close' | typeof Symbol.dispose> & ThisType<SrqFields> = {
  get maxReceives() {
    return (this as unknown as SrqFields).ring.capacity
  },
  get pending() {
    return outstanding((this as unknown as SrqFields).ring)
  },
  receive(local, id = 0) {
    checkThere('srq.receive', this.kit)
    if (!this.isOpen) throw invalid('srq.receive', 'the queue is closed')
    const { ring } = this
    const at = nextSlot(ring)
    if (at < 0) throw full('srq.receive', 'receive', ring.capacity)
    if (Array.isArray(local) && local.length > this.maxPieces)
      throw tooMany('srq.receive', local.length, this.maxPieces)
    checkRequest('srq.receive', local, id)
    putReceive(ring, at, id, local)
    produce(ring)
  },
  setLimit(limit) {
    this.kit.carrier.call(this.cls as typeof Srq, 'modify', this.handle, { limit })
  },
  resize(maxReceives) {
    const { carrier } = this.kit
    const waiting = outstanding(this.ring)
    const { out } = carrier.call(this.cls as typeof Srq, 'modify', this.handle, { maxWr: maxReceives })
    const { queue } = out as { queue?: RingPlace }
    if (queue === undefined) return
    carrier.release(this.place)
    this.place = queue
    // The device has moved what waits to the new ring's beginning.
    this.ring = programRing(carrier, queue, waiting)
  },
  query() {
    return this.kit.carrier.call(this.cls as typeof Srq, 'query', this.handle, {}).out
  },
}

/** The table of one class of them. */
const methodsOf = (cls: ObjectClass) =>
  joined(
    joined({ cls }, srqMethods),
    endings<SrqFields>(cls, self => {
      const { carrier, waiters } = self.kit
      waiters.remove(self.number)
      carrier.release(self.place)
      // Its memory may be another queue's by now.
      self.ring = noProgramRing(carrier.layout)
    }),
  )
const srq = methodsOf(Srq)
const xrcSrq = methodsOf(XrcSrq)

const fieldsOf = (kit: Kit, number: number, { object: handle, out }: Answered<AnyValues>): Omit<SrqFields, 'cls'> => {
  const { maxSge, queue } = out as unknown as Out<typeof Srq.methods.create> & { readonly queue: RingPlace }
  const ring = programRing(kit.carrier, queue)
  return { kit, handle, isOpen: true, number, maxPieces: maxSge, place: queue, ring }
}
/** A shared receive queue in protection domain `pd`. */
export const srqPlan = (kit: Kit, pd: Named, options: SrqOptions = {}): Plan<SharedReceiveQueue> => {
  checkOwn(kit, 'srq.create', 'pd', pd)
  checkOptions('srq.create', 'options', options, srqWords)
  const source = eventSource(kit, Srq)
  return {
    class: Srq,
    args: wanted(pd, source, options),
    made: answered => source.is(withMethods<SharedReceiveQueue>(srq, fieldsOf(kit, source.number, answered))),
    failed: source.forget,
  }
}

export interface XrcSrqOptions extends SrqOptions {
  readonly xrcd: Named
  /** Messages to this queue complete there. */
  readonly cq: Named
}

const xrcSrqWords: Words<XrcSrqOptions> = { ...srqWords, xrcd: true, cq: true }

export const xrcSrqPlan = (kit: Kit, pd: Named, options: XrcSrqOptions): Plan<XrcSharedReceiveQueue> => {
  checkOptions('xrc_srq.create', 'options', options, xrcSrqWords)
  checkOwn(kit, 'xrc_srq.create', 'pd', pd)
  checkOwn(kit, 'xrc_srq.create', 'xrcd', options.xrcd)
  checkOwn(kit, 'xrc_srq.create', 'cq', options.cq)
  const source = eventSource(kit, XrcSrq)
  return {
    class: XrcSrq,
    args: { ...wanted(pd, source, options), xrcd: options.xrcd.handle, cq: options.cq.handle },
    made(answered) {
      const { srqNum } = answered.out as unknown as Out<typeof XrcSrq.methods.create>
      const fields = Object.assign(fieldsOf(kit, source.number, answered), { srqNumber: srqNum })
      return source.is(withMethods<XrcSharedReceiveQueue>(xrcSrq, fields))
    },
    failed: source.forget,
  }
}
