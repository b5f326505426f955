/*
 * Queue pairs of the connected services in the library: RC, which acknowledges, and UC, which does not.
 */

import { RcQp } from '../spec/classes/rc_qp.ts'
import { UcQp } from '../spec/classes/uc_qp.ts'
import type { In, ObjectClass } from '../spec/schema.ts'
import { addressText } from '../wire/address.ts'
import {
  type ConnectOptions,
  connectSteps,
  type Endpoint,
  type PeerOptions,
  type RcConnectOptions,
  reliableSteps,
} from './connection.ts'
import {
  type MessageOptions,
  type Operations,
  operations,
  type RcMessageOptions,
  type ReliableOperations,
  reliableOperations,
} from './operations.ts'
import type { Kit, Named, PathFacts, Plan } from './plan.ts'
import {
  type InitialOptions,
  type QpSelf,
  type QueuePair,
  type QueuePairOptions,
  queuePairMethods,
  queuePairPlan,
  type SendOptions,
} from './queue-pair.ts'

interface Connected<O extends ConnectOptions> {
  /** What the peer must know to connect to it. */
  readonly endpoint: Endpoint
  /** From RESET to ready to send, towards a peer. */
  connect(peer: Endpoint, options?: O): void
}

export interface UcQueuePair
  extends QueuePair<typeof UcQp>,
    Connected<ConnectOptions>,
    Operations<MessageOptions, SendOptions> {}

export interface RcQueuePair
  extends QueuePair<typeof RcQp>,
    Connected<RcConnectOptions>,
    Operations<RcMessageOptions, SendOptions>,
    ReliableOperations<SendOptions> {}

/** What a peer must know of a connected queue pair. */
export const endpointOf = ({ kit, qpn, psn }: QpSelf): Endpoint => ({ qpn, gid: addressText(kit.path.gid), psn })

export interface RcQueuePairOptions
  extends QueuePairOptions,
    InitialOptions<typeof RcQp>,
    PeerOptions<RcConnectOptions> {}
export interface UcQueuePairOptions
  extends QueuePairOptions,
    InitialOptions<typeof UcQp>,
    PeerOptions<ConnectOptions> {}

type Steps<C extends ObjectClass> = In<C['methods']['modify']>[]

const rcMethods = queuePairMethods(RcQp, {
  ...operations,
  ...reliableOperations,
  stepsTo(path: PathFacts, psn: number, peer: Endpoint, chosen?: RcConnectOptions): Steps<typeof RcQp> {
    const { init, rtr, rts } = connectSteps(path, psn, peer, chosen)
    const { answering, asking } = reliableSteps(chosen)
    return [init, { ...rtr, ...answering }, { ...rts, ...asking }]
  },
  get endpoint(): Endpoint {
    return endpointOf(this as unknown as QpSelf)
  },
  connect(this: QpSelf & RcQueuePair, peer: Endpoint, chosen?: RcConnectOptions): void {
    for (const step of rcMethods.stepsTo(this.kit.path, this.psn, peer, chosen)) this.modify(step)
  },
})

export const rcQpPlan = (kit: Kit, pd: Named, options: RcQueuePairOptions): Plan<RcQueuePair> =>
  queuePairPlan(kit, rcMethods, pd, options)

const ucMethods = queuePairMethods(UcQp, {
  ...operations,
  stepsTo(path: PathFacts, psn: number, peer: Endpoint, chosen?: ConnectOptions): Steps<typeof UcQp> {
    const { init, rtr, rts } = connectSteps(path, psn, peer, chosen)
    return [init, rtr, rts]
  },
  get endpoint(): Endpoint {
    return endpointOf(this as unknown as QpSelf)
  },
  connect(this: QpSelf & UcQueuePair, peer: Endpoint, chosen?: ConnectOptions): void {
    for (const step of ucMethods.stepsTo(this.kit.path, this.psn, peer, chosen)) this.modify(step)
  },
})

export const ucQpPlan = (kit: Kit, pd: Named, options: UcQueuePairOptions): Plan<UcQueuePair> =>
  queuePairPlan(kit, ucMethods, pd, options)
