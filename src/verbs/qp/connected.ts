/*
 * Queue pairs of the connected services in the library: RC, with acknowledgements, and UC, without.
 */

import { RcQp } from '../../spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../spec/classes/qp/uc_qp.ts'
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
import { checkOptions, type KnownOptions } from '../checks/options.ts'
import {
  type MessageOptions,
  RC_WORDS,
  type RcMessageOptions,
  type SendOptions,
  UC_WORDS,
} from '../checks/request-options.ts'
import type { RemoteMemory } from '../mr/remote-memory.ts'
import type { DeviceContext, Named, Plan } from '../plan.ts'
import {
  type Connected,
  type ConnectOptions,
  connectSteps,
  type PeerOptions,
  type RcConnectOptions,
  rcConnectOptionNames,
  reliableSteps,
} from './connection.ts'
import { MessageQp, type Operations, type ReliableOperations, ReliableQp } from './operations.ts'
import {
  type InitialOptions,
  type QueuePair,
  type QueuePairOptions,
  queuePairOptionNames,
  queuePairPlan,
  queuePairType,
  STEPS,
  type StepsTo,
} from './queue-pair.ts'

/** An unreliable connected queue pair. */
export interface UcQueuePair
  extends QueuePair<typeof UcQp>,
    Connected<ConnectOptions>,
    Operations<MessageOptions, SendOptions> {}

/** A reliable connected queue pair that completes in the program's completion queues. */
export interface RcQueuePair
  extends QueuePair<typeof RcQp>,
    Connected<RcConnectOptions>,
    Operations<RcMessageOptions, SendOptions>,
    ReliableOperations<SendOptions> {}

type Completed = Promise<CompletedRequest>

/** An RC queue pair whose requests return promises. */
export interface AwaitableRcQueuePair
  extends AwaitableQueuePair,
    Connected<RcConnectOptions>,
    Operations<AwaitedRcMessageOptions, AwaitedOptions, Completed, Promise<RemoteMemory>>,
    ReliableOperations<AwaitedOptions, Completed> {
  /**
   * Checks that the peer is alive, by a WRITE of zero bytes. Rejects with RETRY_EXC_ERR after all retries if it does
   * not answer.
   */
  ping(): Completed
}

/** A UC queue pair whose requests return promises, which resolve when the message has been sent. */
export interface AwaitableUcQueuePair
  extends AwaitableQueuePair,
    Connected<ConnectOptions>,
    Operations<AwaitedMessageOptions, AwaitedOptions, Completed, Promise<RemoteMemory>> {}

/** Options of `pd.rcQp` without a `sendCq`. */
export interface AwaitableRcOptions extends WithoutQueues<RcQueuePairOptions> {}
/** Options of `pd.ucQp` without a `sendCq`. */
export interface AwaitableUcOptions extends WithoutQueues<UcQueuePairOptions> {}

/** Options of `pd.rcQp` with a `sendCq`. */
export interface RcQueuePairOptions
  extends QueuePairOptions,
    InitialOptions<typeof RcQp>,
    PeerOptions<RcConnectOptions> {}
/** Options of `pd.ucQp` with a `sendCq`. */
export interface UcQueuePairOptions
  extends QueuePairOptions,
    InitialOptions<typeof UcQp>,
    PeerOptions<ConnectOptions> {}

/** Options of RC and UC queue pairs; `connection` has the options that differ. */
const optionNames: KnownOptions<RcQueuePairOptions> & KnownOptions<UcQueuePairOptions> = {
  ...queuePairOptionNames,
  initial: true,
  peer: true,
  connection: true,
}

const rcSteps: StepsTo = (path, psn, peer, chosen) => {
  const { init, rtr, rts } = connectSteps(path, psn, peer, chosen, rcConnectOptionNames)
  const { responder, requester } = reliableSteps(chosen)
  return [init, { ...rtr, ...responder }, { ...rts, ...requester }]
}

class RcObject extends ReliableQp<typeof RcQp> implements RcQueuePair {
  get cls(): typeof RcQp {
    return RcQp
  }

  get requestOptionBits(): number {
    return RC_WORDS
  }

  override get [STEPS](): StepsTo {
    return rcSteps
  }
}
const rcType = queuePairType('RcQueuePair', RcObject)

export const rcQpPlan = (kit: DeviceContext, pd: Named, options: RcQueuePairOptions): Plan<RcQueuePair> => {
  checkOptions('rc_qp.create', 'options', options, optionNames)
  return queuePairPlan(kit, rcType, pd, options)
}

const ucSteps: StepsTo = (path, psn, peer, chosen) => {
  const { init, rtr, rts } = connectSteps(path, psn, peer, chosen)
  return [init, rtr, rts]
}

class UcObject extends MessageQp<typeof UcQp> implements UcQueuePair {
  get cls(): typeof UcQp {
    return UcQp
  }

  get requestOptionBits(): number {
    return UC_WORDS
  }

  override get [STEPS](): StepsTo {
    return ucSteps
  }
}
const ucType = queuePairType('UcQueuePair', UcObject)

/** Operations that return promises, and the index of their options. */
const POSITIONS = { send: 1, write: 2, bind: 2, invalidate: 1 }
const RC_POSITIONS = { ...POSITIONS, read: 2, compareSwap: 4, fetchAdd: 3, atomicWrite: 2, flush: 1 }
const AwaitableRc = awaitable<AwaitableRcQueuePair>(RcObject, RC_POSITIONS)
Object.defineProperty(AwaitableRc.prototype, 'ping', {
  configurable: true,
  // A zero-length WRITE: neither address nor rkey is checked (IBA 9.7.5).
  value(this: AwaitableRcQueuePair): Completed {
    return this.write(new Uint8Array(0), { address: 0n, rkey: 0, length: 0 })
  },
})
const awaitableRcType = queuePairType('RcQueuePair', AwaitableRc)
const awaitableUcType = queuePairType('UcQueuePair', awaitable<AwaitableUcQueuePair>(UcObject, POSITIONS))

/** Creates a queue pair that owns its completion queue. */
export const awaitableRcQp = (kit: DeviceContext, pd: Named, options?: AwaitableRcOptions): AwaitableRcQueuePair =>
  makeAwaitable(kit, 'rc_qp.create', options, optionNames, all => queuePairPlan(kit, awaitableRcType, pd, all))
export const awaitableUcQp = (kit: DeviceContext, pd: Named, options?: AwaitableUcOptions): AwaitableUcQueuePair =>
  makeAwaitable(kit, 'uc_qp.create', options, optionNames, all => queuePairPlan(kit, awaitableUcType, pd, all))

export const ucQpPlan = (kit: DeviceContext, pd: Named, options: UcQueuePairOptions): Plan<UcQueuePair> => {
  checkOptions('uc_qp.create', 'options', options, optionNames)
  return queuePairPlan(kit, ucType, pd, options)
}
