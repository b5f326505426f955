/*
 * Queue pairs of the connected services in the library: RC, which acknowledges, and UC, which does not.
 */

import { RcQp } from '../spec/classes/rc_qp.ts'
import { UcQp } from '../spec/classes/uc_qp.ts'
import type { In } from '../spec/schema.ts'
import { addressText } from '../wire/address.ts'
import {
  type ConnectOptions,
  connectSteps,
  type Endpoint,
  firstPsn,
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
import type { Kit, Named, Plan } from './plan.ts'
import { type QueuePair, type QueuePairOptions, queuePairPlan, type SendOptions } from './queue-pair.ts'

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

export const endpointOf = ({ path }: Kit, qpn: number): Endpoint => ({
  qpn,
  gid: addressText(path.gid),
  psn: firstPsn(),
})

export const rcQpPlan = (kit: Kit, pd: Named, options: QueuePairOptions): Plan<RcQueuePair> =>
  queuePairPlan(kit, RcQp, pd, options, (qp, poster) => {
    const endpoint = endpointOf(kit, qp.qpn)
    const own = {
      endpoint,
      connect(peer: Endpoint, chosen: RcConnectOptions = {}): void {
        const { init, rtr, rts } = connectSteps(kit.path, endpoint.psn, peer, chosen)
        const { answering, asking } = reliableSteps(chosen)
        const modify = (args: In<typeof RcQp.methods.modify>): void => qp.modify(args)
        modify(init)
        modify({ ...rtr, ...answering })
        modify({ ...rts, ...asking })
      },
      ...operations(poster),
      ...reliableOperations(poster),
    }
    return Object.assign(qp, own)
  })

export const ucQpPlan = (kit: Kit, pd: Named, options: QueuePairOptions): Plan<UcQueuePair> =>
  queuePairPlan(kit, UcQp, pd, options, (qp, poster) => {
    const endpoint = endpointOf(kit, qp.qpn)
    const own = {
      endpoint,
      connect(peer: Endpoint, chosen: ConnectOptions = {}): void {
        const { init, rtr, rts } = connectSteps(kit.path, endpoint.psn, peer, chosen)
        const modify = (args: In<typeof UcQp.methods.modify>): void => qp.modify(args)
        modify(init)
        modify(rtr)
        modify(rts)
      },
      ...operations(poster),
    }
    return Object.assign(qp, own)
  })
