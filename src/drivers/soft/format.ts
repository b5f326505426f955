/*
 * What a driver's queue format provides to the classes of the soft device: where the queues of a queue pair or shared
 * receive queue lie, and what calls say about that. The queues themselves are those of queues.ts.
 */
import type { MethodAdditions } from '../../core/driver-contract.ts'
import type { CallContext, Context, CoreObject } from '../../core/model.ts'
import type { Srq } from '../../spec/classes/srq.ts'
import type { In, Out } from '../../spec/schema/schema.ts'
import type { Destinations } from './address/destinations.ts'
import type { Address } from './address/path.ts'
import type { ReceiveQueue, SendQueue } from './queues.ts'
import type { AnyQp, QpCap } from './state.ts'

/** Arguments and results of `create`, of a queue pair of any type. A format may add some of its own. */
export type QpCreate = In<AnyQp['methods']['create'], CoreObject>
export type QpCreated = Out<AnyQp['methods']['create']>

interface OpenedQueues {
  readonly send: SendQueue
  /** That of the SRQ, if there is one. */
  readonly receive: ReceiveQueue
}

/** What queues are opened for. */
interface OpenRequest {
  /** Name of the class, for messages, and because requests of some types have parts of their own. */
  readonly className: string
  /** `sizesOf`, within the device's limits. */
  readonly sizes: QpCap
  /** The queue of the SRQ. */
  readonly shared: ReceiveQueue | undefined
  readonly destinations: Destinations | undefined
}

export interface QueueFormat {
  /** Attributes of the format in calls of queue pairs. */
  readonly additions: MethodAdditions
  /** The user library tells of posts by calls of `postSend`. */
  readonly hasPostCall: boolean
  /** Whether the context's caller is in this process. */
  isInProcess(context: Context): boolean
  /** The sizes of the queues, to be checked against the device's limits. Throws CallError. */
  sizesOf(method: string, args: QpCreate): QpCap
  /**
   * The most bytes of inline data that a call may ask for on a device whose requests have at most `limit`. Absent:
   * `limit`; a library may round up what its program has asked for.
   */
  inlineLimit?(limit: number, sizes: QpCap): number
  /** Opens the queues of a new queue pair. Throws CallError ENOMEM, or those of the format; nothing is open then. */
  open(call: CallContext, args: QpCreate, request: OpenRequest): OpenedQueues
  /** The queue pair of `opened` has this number. */
  opened?(call: CallContext, args: QpCreate, qpn: number, opened: OpenedQueues): void
  answer(args: QpCreate, qpn: number, send: SendQueue, receive: ReceiveQueue): QpCreated
  /** Checks the path of a queue pair beyond what every device does. Throws CallError. */
  checkPath?(method: string, address: Address): void
  /** The queue pair is destroyed. */
  close(
    call: CallContext,
    qpn: number,
    queues: OpenedQueues & { readonly destinations?: Destinations | undefined },
  ): void
}

/** Arguments of `create` of a shared receive queue. */
export type SrqCreate = In<typeof Srq.methods.create, CoreObject>

/** What `create` of a shared receive queue returns beside its number. */
interface SrqSizes {
  readonly maxWr: number
  readonly maxSge: number
}

/** `Q`: the format's queues. */
export interface SharedFormat<Q extends ReceiveQueue> {
  readonly additions: { readonly srq: MethodAdditions; readonly xrc_srq: MethodAdditions }
  /** Checks the format's own arguments, before the device's limits. Throws CallError. */
  check?(className: string, args: SrqCreate): void
  /** Fewest requests of a queue; default 1. */
  readonly minWr?: number
  /** `sges`: maximum number of elements. Throws CallError; nothing is open then. */
  open(call: CallContext, className: string, args: SrqCreate, sges: number, onLimitReached: (limit: number) => void): Q
  answer(args: SrqCreate, queue: Q): SrqSizes
  /** Moves the queue to one of another size: false if too many requests wait. Absent: it cannot be resized. */
  resize?(call: CallContext, queue: Q, maxWr: number): boolean
  /** What `modify` returns after `resize`. */
  resized?(queue: Q): Record<string, unknown>
  close(call: CallContext, queue: Q): void
}
