/*
 * Queue pairs of the connected services in the library: RC, which acknowledges, and UC, which does not.
 */

import { RcQp } from '../../spec/classes/rc_qp.ts'
import { UcQp } from '../../spec/classes/uc_qp.ts'
import { QpState } from '../../spec/enums.ts'
import type { In, ObjectClass } from '../../spec/schema/schema.ts'
import { addressText } from '../../wire/address.ts'
import {
  type AwaitableQueuePair,
  type AwaitedMessageOptions,
  type AwaitedOptions,
  type AwaitedRcMessageOptions,
  awaitable,
  makeAwaitable,
  type WithoutQueues,
} from '../awaitable/queue-pair.ts'
import type { CompletedRequest } from '../awaitable/request-promises.ts'
import { checkOptions, type Words } from '../checks/options.ts'
import {
  type MessageOptions,
  RC_WORDS,
  type RcMessageOptions,
  type SendOptions,
  UC_WORDS,
} from '../checks/request-options.ts'
import { withOptionWords } from '../error.ts'
import type { RemoteMemory } from '../mr/remote-memory.ts'
import type { DeviceContext, Named, PathFacts, Plan } from '../plan.ts'
import { mergeTables } from '../shared-methods.ts'
import {
  type ConnectOptions,
  connectSteps,
  type Endpoint,
  type PeerOptions,
  qpOptions,
  type RcConnectOptions,
  rcConnectWords,
  reliableSteps,
} from './connection.ts'
import { type Operations, operations, type ReliableOperations, reliableOperations } from './operations.ts'
import {
  type InitialOptions,
  type QpSelf,
  type QueuePair,
  type QueuePairOptions,
  queuePairPlan,
  queuePairType,
  queuePairWords,
} from './queue-pair.ts'

export interface Connected<O extends ConnectOptions> {
  /** What the peer must know to connect to it. */
  readonly endpoint: Endpoint
  /** From RESET to ready to send, towards a peer. Throws RdmaError EINVAL, and stays in RESET then. */
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

type Completed = Promise<CompletedRequest>

/** An RC queue pair whose requests answer promises. */
export interface AwaitableRcQueuePair
  extends AwaitableQueuePair,
    Connected<RcConnectOptions>,
    Operations<AwaitedRcMessageOptions, AwaitedOptions, Completed, Promise<RemoteMemory>>,
    ReliableOperations<AwaitedOptions, Completed> {
  /**
   * Asks the peer for an acknowledgement, with a WRITE of no bytes. Rejects with RETRY_EXC_ERR once the peer is gone,
   * after all retries.
   */
  ping(): Completed
}

/** A UC queue pair whose requests answer promises: they resolve when the message was sent. */
export interface AwaitableUcQueuePair
  extends AwaitableQueuePair,
    Connected<ConnectOptions>,
    Operations<AwaitedMessageOptions, AwaitedOptions, Completed, Promise<RemoteMemory>> {}

export interface AwaitableRcOptions extends WithoutQueues<RcQueuePairOptions> {}
export interface AwaitableUcOptions extends WithoutQueues<UcQueuePairOptions> {}

export interface RcQueuePairOptions
  extends QueuePairOptions,
    InitialOptions<typeof RcQp>,
    PeerOptions<RcConnectOptions> {}
export interface UcQueuePairOptions
  extends QueuePairOptions,
    InitialOptions<typeof UcQp>,
    PeerOptions<ConnectOptions> {}

/** Of RC and of UC: what differs is in the words of `connection`. */
const words: Words<RcQueuePairOptions> & Words<UcQueuePairOptions> = {
  ...queuePairWords,
  initial: true,
  peer: true,
  connection: true,
}

const { RESET } = QpState.values
type Steps<C extends ObjectClass> = readonly In<C['methods']['modify']>[]

/** What every type has that is connected, from the steps to ready-to-send that its own `modify` takes. */
export const connected = <C extends ObjectClass, O extends ConnectOptions>(
  stepsTo: (path: PathFacts, psn: number, peer: Endpoint, chosen?: O) => Steps<C>,
): Connected<O> & { stepsTo: typeof stepsTo } & ThisType<QpSelf & { modify(step: object): void }> => ({
  stepsTo,
  get endpoint() {
    const { kit, qpn, psn } = this as unknown as QpSelf
    const { gid, lid } = kit.path
    return { qpn, gid: addressText(gid), psn, ...(lid !== undefined && { lid }) }
  },
  connect(peer, chosen) {
    const steps = stepsTo(this.kit.path, this.psn, peer, chosen)
    withOptionWords(qpOptions, () => {
      let done = 0
      try {
        for (const step of steps) {
          this.modify(step)
          done++
        }
      } catch (error) {
        if (done > 0) this.modify({ state: RESET })
        throw error
      }
    })
  },
})

const rcConnected = mergeTables(
  connected<typeof RcQp, RcConnectOptions>((path, psn, peer, chosen) => {
    const { init, rtr, rts } = connectSteps(path, psn, peer, chosen, rcConnectWords)
    const { answering, asking } = reliableSteps(chosen)
    return [init, { ...rtr, ...answering }, { ...rts, ...asking }]
  }),
  { words: RC_WORDS },
)
const rcOperations = { ...operations, ...reliableOperations }
const rcType = queuePairType<RcQueuePair>(RcQp, mergeTables(rcConnected, rcOperations))

export const rcQpPlan = (kit: DeviceContext, pd: Named, options: RcQueuePairOptions): Plan<RcQueuePair> => {
  checkOptions('rc_qp.create', 'options', options, words)
  return queuePairPlan(kit, rcType, pd, options)
}

const ucConnected = mergeTables(
  connected<typeof UcQp, ConnectOptions>((path, psn, peer, chosen) => {
    const { init, rtr, rts } = connectSteps(path, psn, peer, chosen)
    return [init, rtr, rts]
  }),
  { words: UC_WORDS },
)
const ucType = queuePairType<UcQueuePair>(UcQp, mergeTables(ucConnected, operations))

const POSITIONS = { send: 1, write: 2, bind: 2, invalidate: 1 }
const RC_POSITIONS = { ...POSITIONS, read: 2, compareSwap: 4, fetchAdd: 3, atomicWrite: 2, flush: 1 }
const awaitableRcType = queuePairType<AwaitableRcQueuePair>(
  RcQp,
  mergeTables(mergeTables(rcConnected, awaitable(rcOperations, RC_POSITIONS)), {
    // A message without bytes: neither address nor key are looked at (IBA 9.7.5).
    ping(this: AwaitableRcQueuePair): Completed {
      return this.write(new Uint8Array(0), { address: 0n, rkey: 0, length: 0 })
    },
  }),
)
const awaitableUcType = queuePairType<AwaitableUcQueuePair>(
  UcQp,
  mergeTables(ucConnected, awaitable(operations, POSITIONS)),
)

/** Makes one that owns its completion queue. */
export const awaitableRcQp = (kit: DeviceContext, pd: Named, options?: AwaitableRcOptions): AwaitableRcQueuePair =>
  makeAwaitable(kit, 'rc_qp.create', options, words, all => queuePairPlan(kit, awaitableRcType, pd, all))
export const awaitableUcQp = (kit: DeviceContext, pd: Named, options?: AwaitableUcOptions): AwaitableUcQueuePair =>
  makeAwaitable(kit, 'uc_qp.create', options, words, all => queuePairPlan(kit, awaitableUcType, pd, all))

export const ucQpPlan = (kit: DeviceContext, pd: Named, options: UcQueuePairOptions): Plan<UcQueuePair> => {
  checkOptions('uc_qp.create', 'options', options, words)
  return queuePairPlan(kit, ucType, pd, options)
}
