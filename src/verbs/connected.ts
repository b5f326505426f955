/*
 * Queue pairs of the connected services in the library: RC, which acknowledges, and UC, which does not.
 */

import { RcQp } from '../spec/classes/rc_qp.ts'
import { UcQp } from '../spec/classes/uc_qp.ts'
import { addressText } from '../wire/address.ts'
import { type ConnectOptions, connectSteps, type Endpoint, type RcConnectOptions, reliableSteps } from './connection.ts'
import {
  type MessageOptions,
  type Operations,
  operations,
  type RcMessageOptions,
  type ReliableOperations,
  reliableOperations,
} from './operations.ts'
import type { Kit, Named, Plan } from './plan.ts'
import {
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

const rcMethods = queuePairMethods(RcQp, {
  ...operations,
  ...reliableOperations,
  get endpoint(): Endpoint {
    return endpointOf(this as unknown as QpSelf)
  },
  connect(this: QpSelf & RcQueuePair, peer: Endpoint, chosen: RcConnectOptions = {}): void {
    const { init, rtr, rts } = connectSteps(this.kit.path, this.psn, peer, chosen)
    const { answering, asking } = reliableSteps(chosen)
    this.modify(init)
    this.modify({ ...rtr, ...answering })
    this.modify({ ...rts, ...asking })
  },
})

export const rcQpPlan = (kit: Kit, pd: Named, options: QueuePairOptions): Plan<RcQueuePair> =>
  queuePairPlan(kit, rcMethods, pd, options)

const ucMethods = queuePairMethods(UcQp, {
  ...operations,
  get endpoint(): Endpoint {
    return endpointOf(this as unknown as QpSelf)
  },
  connect(this: QpSelf & UcQueuePair, peer: Endpoint, chosen: ConnectOptions = {}): void {
    const { init, rtr, rts } = connectSteps(this.kit.path, this.psn, peer, chosen)
    this.modify(init)
    this.modify(rtr)
    this.modify(rts)
  },
})

export const ucQpPlan = (kit: Kit, pd: Named, options: QueuePairOptions): Plan<UcQueuePair> =>
  queuePairPlan(kit, ucMethods, pd, options)
