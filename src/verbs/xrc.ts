/*
 * XRC in the library (IBA annex A14): domains, initiators, which name the receiver's shared queue in each request, and
 * targets, which have no queues and may be shared by processes.
 */
import { XrcIniQp, XrcTgtQp } from '../spec/classes/xrc_qp.ts'
import { Xrcd } from '../spec/classes/xrcd.ts'
import { XrcdFlags } from '../spec/enums.ts'
import { endpointOf } from './connected.ts'
import { connectSteps, type Endpoint, firstPsn, type RcConnectOptions, reliableSteps } from './connection.ts'
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
  bareMethods,
  joined,
  type QpSelf,
  queuePairMethods,
  queuePairPlan,
  type SendingQueuePair,
  type SendOptions,
  type SendQueueOptions,
  withMethods,
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

const targetMethods = joined(joined({ cls: XrcTgtQp }, bareMethods), {
  get endpoint(): Endpoint {
    return endpointOf(this as unknown as QpSelf)
  },
  connect(this: QpSelf & XrcTarget, peer: Endpoint, chosen: RcConnectOptions = {}): void {
    const { init, rtr, rts } = connectSteps(this.kit.path, this.psn, peer, chosen)
    const { answering, timeout } = reliableSteps(chosen)
    this.modify(init)
    this.modify({ ...rtr, ...answering })
    this.modify({ ...rts, ...timeout })
  },
})

const targetPlan = (kit: Kit, xrcd: Named, qpNum: number | undefined): Plan<XrcTarget> => {
  const source = eventSource(kit)
  const { number } = source
  return plan(
    XrcTgtQp,
    { xrcd: xrcd.handle, userHandle: BigInt(number), ...(qpNum !== undefined && { qpNum }) },
    ({ object: handle, out }) => {
      const fields = { kit, handle, qpn: out.qpNum, number, isOpen: true, sends: undefined, receives: undefined }
      return source.is(withMethods<XrcTarget>(targetMethods, { ...fields, psn: firstPsn() }))
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

const initiatorMethods = queuePairMethods(XrcIniQp, {
  ...operations,
  ...reliableOperations,
  get endpoint(): Endpoint {
    return endpointOf(this as unknown as QpSelf)
  },
  connect(this: QpSelf & XrcInitiator, peer: Endpoint, chosen: RcConnectOptions = {}): void {
    const { init, rtr, rts } = connectSteps(this.kit.path, this.psn, peer, chosen)
    this.modify(init)
    this.modify(rtr)
    this.modify({ ...rts, ...reliableSteps(chosen).asking })
  },
})

export const xrcInitiatorPlan = (kit: Kit, pd: Named, options: SendQueueOptions): Plan<XrcInitiator> =>
  queuePairPlan(kit, initiatorMethods, pd, options)
