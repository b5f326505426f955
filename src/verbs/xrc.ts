/*
 * XRC in the library (IBA annex A14): domains, initiators, which name the receiver's shared queue in each request, and
 * targets, which have no queues and may be shared by processes.
 */
import { XrcIniQp, XrcTgtQp } from '../spec/classes/xrc_qp.ts'
import { Xrcd } from '../spec/classes/xrcd.ts'
import { XrcdFlags } from '../spec/enums.ts'
import type { In } from '../spec/schema.ts'
import { endpointOf } from './connected.ts'
import { connectSteps, type Endpoint, type RcConnectOptions, reliableSteps } from './connection.ts'
import {
  type Operations,
  operations,
  type RcMessageOptions,
  type ReliableOperations,
  reliableOperations,
} from './operations.ts'
import { closer, eventSource, type Kit, make, type Named, type Plan, plan } from './plan.ts'
import {
  type BareQueuePair,
  bareQueuePair,
  queuePairPlan,
  type SendingQueuePair,
  type SendOptions,
  type SendQueueOptions,
} from './queue-pair.ts'

/** Requests name the shared queue that takes the message: its `srqNumber`. */
export interface XrcOptions extends SendOptions {
  readonly srqNumber: number
}

/** The same operations, whose options must be given. */
type Addressed<T> = {
  [K in keyof T]: T[K] extends (...args: infer A) => infer R ? (...args: Required<A>) => R : never
}
type Messages = Pick<Operations<RcMessageOptions & XrcOptions, XrcOptions>, 'send' | 'write'>

export interface XrcInitiator
  extends SendingQueuePair<typeof XrcIniQp>,
    Addressed<Messages>,
    Addressed<ReliableOperations<XrcOptions>>,
    Pick<Operations<RcMessageOptions, SendOptions>, 'bind' | 'invalidate'> {
  readonly endpoint: Endpoint
  connect(peer: Endpoint, options?: RcConnectOptions): void
}

export interface XrcTarget extends BareQueuePair<typeof XrcTgtQp> {
  readonly endpoint: Endpoint
  connect(peer: Endpoint, options?: RcConnectOptions): void
}

export interface XrcDomain extends Disposable {
  readonly handle: number
  /** A new target of the domain; with `qpn` one that exists. */
  target(qpn?: number): XrcTarget
  /** Throws RdmaError EBUSY while a queue or a queue pair belongs to it. */
  close(): void
}

export interface XrcDomainOptions {
  /** A descriptor of a file: processes that open the domain of the same file share it. Without one it is private. */
  readonly file?: number
  /** Fail with EINVAL if the file has a domain already. */
  readonly exclusive?: boolean
}

const { CREAT, EXCL } = XrcdFlags.values

const targetPlan = (kit: Kit, xrcd: Named, qpNum: number | undefined): Plan<XrcTarget> => {
  const source = eventSource(kit)
  return plan(
    XrcTgtQp,
    { xrcd: xrcd.handle, userHandle: BigInt(source.number), ...(qpNum !== undefined && { qpNum }) },
    ({ object: handle, out }) => {
      const bare = bareQueuePair(kit, XrcTgtQp, handle, out.qpNum, source.forget, () => {})
      const endpoint = endpointOf(kit, bare.qpn)
      const own = {
        endpoint,
        connect(peer: Endpoint, chosen: RcConnectOptions = {}): void {
          const { init, rtr, rts } = connectSteps(kit.path, endpoint.psn, peer, chosen)
          const { answering, timeout } = reliableSteps(chosen)
          const modify = (args: In<typeof XrcTgtQp.methods.modify>): void => bare.modify(args)
          modify(init)
          modify({ ...rtr, ...answering })
          modify({ ...rts, ...timeout })
        },
      }
      return source.is(Object.assign(bare, own))
    },
    source.forget,
  )
}

export const xrcdPlan = (kit: Kit, { file, exclusive = false }: XrcDomainOptions = {}): Plan<XrcDomain> =>
  plan(Xrcd, { ...(file !== undefined && { file }), flags: CREAT | (exclusive ? EXCL : 0) }, ({ object: handle }) => {
    const close = closer(kit.carrier, Xrcd, handle)
    return {
      handle,
      target: qpn => make(kit, targetPlan(kit, { handle }, qpn)),
      close,
      [Symbol.dispose]: close,
    }
  })

export const xrcInitiatorPlan = (kit: Kit, pd: Named, options: SendQueueOptions): Plan<XrcInitiator> =>
  queuePairPlan(kit, XrcIniQp, pd, options, (qp, poster) => {
    const endpoint = endpointOf(kit, qp.qpn)
    const own = {
      endpoint,
      connect(peer: Endpoint, chosen: RcConnectOptions = {}): void {
        const { init, rtr, rts } = connectSteps(kit.path, endpoint.psn, peer, chosen)
        const modify = (args: In<typeof XrcIniQp.methods.modify>): void => qp.modify(args)
        modify(init)
        modify(rtr)
        modify({ ...rts, ...reliableSteps(chosen).asking })
      },
      ...operations(poster),
      ...reliableOperations(poster),
    }
    return Object.assign(qp, own) as XrcInitiator
  })
