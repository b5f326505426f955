/*
 * RC and UC queue pairs, each in two kinds: with completion queues of the program, and with requests that return
 * promises.
 */
import { RcQp } from '../../../spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../../spec/classes/qp/uc_qp.ts'
import { checkOptions, type KnownOptions } from '../arguments/options.ts'
import {
  type MessageOptions,
  RC_OPTIONS,
  type RcMessageOptions,
  type SendOptions,
  UC_OPTIONS,
} from '../arguments/request-options.ts'
import {
  type AwaitableOptions,
  type AwaitableQueuePair,
  type AwaitedMessageOptions,
  type AwaitedOptions,
  type AwaitedRcMessageOptions,
  awaitable,
  makeAwaitable,
  promiseMethod,
} from '../awaitable/queue-pair.ts'
import type { CompletedRequest } from '../awaitable/request-promises.ts'
import type { RemoteMemory } from '../mr/remote-memory.ts'
import type { DeviceContext, ObjectReference, Plan } from '../plan.ts'
import {
  type Connectable,
  type ConnectOptions,
  connectSteps,
  type PeerOptions,
  type RcConnectOptions,
  rcConnectOptionNames,
  reliableSteps,
} from './connection.ts'
import { MessageQp, type Operations, postPing, type ReliableOperations, ReliableQp } from './operations.ts'
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

/** An unreliable connected queue pair whose requests complete in the program's completion queues. */
export interface UcQueuePair
  extends QueuePair<typeof UcQp>,
    Connectable<ConnectOptions>,
    Operations<MessageOptions, SendOptions> {}

/** A reliable connected queue pair whose requests complete in the program's completion queues. */
export interface RcQueuePair
  extends QueuePair<typeof RcQp>,
    Connectable<RcConnectOptions>,
    Operations<RcMessageOptions, SendOptions>,
    ReliableOperations<SendOptions> {}

type PromisedCompletion = Promise<CompletedRequest>

/** An RC queue pair whose requests return promises. */
export interface AwaitableRcQueuePair
  extends AwaitableQueuePair,
    Connectable<RcConnectOptions>,
    Operations<AwaitedRcMessageOptions, AwaitedOptions, PromisedCompletion, Promise<RemoteMemory>>,
    ReliableOperations<AwaitedOptions, PromisedCompletion> {
  /**
   * Checks that the peer answers, by a WRITE of zero bytes. Rejects with RequestError (status RETRY_EXC_ERR) if the
   * peer does not answer, and with the signal's reason when the signal is aborted.
   */
  ping(options?: AwaitedOptions): PromisedCompletion
}

/** A UC queue pair whose requests return promises. `send` and `write` resolve when the message has been sent. */
export interface AwaitableUcQueuePair
  extends AwaitableQueuePair,
    Connectable<ConnectOptions>,
    Operations<AwaitedMessageOptions, AwaitedOptions, PromisedCompletion, Promise<RemoteMemory>> {}

/** Options of `pd.rcQp` without a `sendCq`. */
export interface AwaitableRcOptions extends AwaitableOptions<RcQueuePairOptions> {}
/** Options of `pd.ucQp` without a `sendCq`. */
export interface AwaitableUcOptions extends AwaitableOptions<UcQueuePairOptions> {}

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

const optionNames: KnownOptions<RcQueuePairOptions> & KnownOptions<UcQueuePairOptions> = {
  ...queuePairOptionNames,
  initial: 'record',
  peer: true,
  connection: 'record',
}

const rcSteps: StepsTo = (path, psn, peer, options) => {
  const { init, rtr, rts } = connectSteps(path, psn, peer, options, rcConnectOptionNames)
  const { responder, requester } = reliableSteps(options)
  return [init, { ...rtr, ...responder }, { ...rts, ...requester }]
}

class RcObject extends ReliableQp<typeof RcQp> implements RcQueuePair {
  get cls(): typeof RcQp {
    return RcQp
  }

  get requestOptionBits(): number {
    return RC_OPTIONS
  }

  override get [STEPS](): StepsTo {
    return rcSteps
  }
}
const rcType = queuePairType('RcQueuePair', RcObject)

/** Posting methods that return no promises, also for queue pairs whose own methods do: `rcPosts.send.call(qp, …)`. */
export const rcPosts: Pick<RcObject, 'send' | 'receive' | 'read'> = RcObject.prototype

export const rcQpPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  options: RcQueuePairOptions,
): Plan<RcQueuePair> => {
  checkOptions('rc_qp.create', 'options', options, optionNames)
  return queuePairPlan(context, rcType, pd, options)
}

const ucSteps: StepsTo = (path, psn, peer, options) => {
  const { init, rtr, rts } = connectSteps(path, psn, peer, options)
  return [init, rtr, rts]
}

class UcObject extends MessageQp<typeof UcQp> implements UcQueuePair {
  get cls(): typeof UcQp {
    return UcQp
  }

  get requestOptionBits(): number {
    return UC_OPTIONS
  }

  override get [STEPS](): StepsTo {
    return ucSteps
  }
}
const ucType = queuePairType('UcQueuePair', UcObject)

export const ucQpPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  options: UcQueuePairOptions,
): Plan<UcQueuePair> => {
  checkOptions('uc_qp.create', 'options', options, optionNames)
  return queuePairPlan(context, ucType, pd, options)
}

/** By operation: the index of its options among its arguments. */
const ucRequests = { send: 1, write: 2, bind: 2, invalidate: 1 }
const rcRequests = { ...ucRequests, read: 2, compareSwap: 4, fetchAdd: 3, atomicWrite: 2, flush: 1 }
const AwaitableRc = awaitable<AwaitableRcQueuePair>(RcObject, rcRequests)
Object.defineProperty(AwaitableRc.prototype, 'ping', {
  configurable: true,
  value: promiseMethod(
    'ping',
    function (options) {
      postPing(this, options as SendOptions)
    },
    0,
  ),
})
const awaitableRcType = queuePairType('RcQueuePair', AwaitableRc)
const awaitableUcType = queuePairType('UcQueuePair', awaitable<AwaitableUcQueuePair>(UcObject, ucRequests))

export const awaitableRcQp = (
  context: DeviceContext,
  pd: ObjectReference,
  options?: AwaitableRcOptions,
): AwaitableRcQueuePair =>
  makeAwaitable(context, 'rc_qp', options, optionNames, optionsWithCq =>
    queuePairPlan(context, awaitableRcType, pd, optionsWithCq),
  )
export const awaitableUcQp = (
  context: DeviceContext,
  pd: ObjectReference,
  options?: AwaitableUcOptions,
): AwaitableUcQueuePair =>
  makeAwaitable(context, 'uc_qp', options, optionNames, optionsWithCq =>
    queuePairPlan(context, awaitableUcType, pd, optionsWithCq),
  )
