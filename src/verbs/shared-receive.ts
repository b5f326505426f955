/*
 * Shared receive queues in the library (IBA 10.2.9; annex A14 for those of XRC): requests that many queue pairs take
 * from, whichever gets a message first.
 */
import { Srq, XrcSrq } from '../spec/classes/srq.ts'
import type { AnyValues, ObjectClass, Out } from '../spec/schema.ts'
import type { Answered, RingPlace } from './carrier.ts'
import { invalid } from './error.ts'
import type { Slice } from './memory.ts'
import { checkOptions, type Words } from './options.ts'
import { checkOwn, closer, type EventSource, eventSource, type Kit, type Named, type Plan } from './plan.ts'
import { checkThere, full, tooMany } from './queue-pair.ts'
import { checkRequest } from './request-checks.ts'
import { putReceive } from './requests.ts'
import { nextSlot, noProgramRing, outstanding, produce, programRing } from './ring.ts'

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

const madeSrq = (
  kit: Kit,
  cls: ObjectClass,
  source: EventSource,
  { object: handle, out }: Answered<AnyValues>,
): SharedReceiveQueue => {
  const { carrier } = kit
  const common = cls as typeof Srq
  const answer = out as unknown as Out<typeof Srq.methods.create> & { readonly queue: RingPlace }
  let place = answer.queue
  let ring = programRing(carrier, place)
  const close = closer(carrier, cls, handle, () => {
    source.forget()
    carrier.release(place)
    // Its memory may be another queue's by now.
    ring = noProgramRing(carrier.layout)
  })
  return {
    handle,
    get maxReceives() {
      return ring.capacity
    },
    get pending() {
      return outstanding(ring)
    },
    receive(local, id = 0) {
      checkThere('srq.receive', kit)
      const at = nextSlot(ring)
      if (ring.capacity === 0) throw invalid('srq.receive', 'the queue is closed')
      if (at < 0) throw full('srq.receive', 'receive', ring.capacity)
      if (Array.isArray(local) && local.length > answer.maxSge)
        throw tooMany('srq.receive', local.length, answer.maxSge)
      checkRequest('srq.receive', local, id)
      putReceive(ring, at, id, local)
      produce(ring)
    },
    setLimit(limit) {
      carrier.call(common, 'modify', handle, { limit })
    },
    resize(maxReceives) {
      const waiting = outstanding(ring)
      const changed = carrier.call(common, 'modify', handle, { maxWr: maxReceives }).out as { queue?: RingPlace }
      if (changed.queue === undefined) return
      carrier.release(place)
      place = changed.queue
      // The device has moved what waits to the new ring's beginning.
      ring = programRing(carrier, place, waiting)
    },
    query: () => carrier.call(common, 'query', handle, {}).out,
    close,
    [Symbol.dispose]: close,
  }
}

/** A shared receive queue in protection domain `pd`. */
export const srqPlan = (kit: Kit, pd: Named, options: SrqOptions = {}): Plan<SharedReceiveQueue> => {
  checkOwn(kit, 'srq.create', 'pd', pd)
  checkOptions('srq.create', 'options', options, srqWords)
  const source = eventSource(kit, Srq)
  return {
    class: Srq,
    args: wanted(pd, source, options),
    made: answered => source.is(madeSrq(kit, Srq, source, answered)),
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
      return source.is(Object.assign(madeSrq(kit, XrcSrq, source, answered), { srqNumber: srqNum }))
    },
    failed: source.forget,
  }
}
