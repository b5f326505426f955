/*
 * Queue pairs whose requests return promises, each with a completion queue of its own. `awaitable` wraps the posting
 * methods of queue pairs with a `sendCq`: each request gets an id, by which the completion finds the promise.
 */
import { QpState } from '../../../spec/enums.ts'
import { Errno } from '../../../spec/errno.ts'
import { PostQueue } from '../../../spec/session.ts'
import { checkOptions, checkRecord, type KnownOptions } from '../arguments/options.ts'
import type { ImmediateOptions, InvalidateOptions, SendOptions } from '../arguments/request-options.ts'
import { type CompletionQueue, cqPlan } from '../cq/completion-queue.ts'
import { checkInteger, invalidArgument, RdmaError, withOption, withoutObject } from '../error.ts'
import { type AbortOptions, checkSignal } from '../mailbox.ts'
import type { Slice } from '../mr/region.ts'
import {
  type DeviceContext,
  destroyUnlessRemoved,
  make,
  type Plan,
  type SourceIdentity,
  sourceIdentity,
} from '../plan.ts'
import type { BareQueuePair, QueuedQp, QueuePairOptions } from '../qp/queue-pair.ts'
import { connectionRestarts, restartsOf } from './request-error.ts'
import { type CompletedRequest, RequestPromises } from './request-promises.ts'

const { RESET, RTS, ERR } = QpState.values

/** Options of requests that the library sets itself where requests return promises. */
type ReservedOption = 'id' | 'signaled'
/**
 * Limits of the wait for a request. A request whose wait has ended stays in the queue until it completes: it may still
 * read and write its memory, and counts as outstanding.
 */
export interface WaitLimits extends AbortOptions {
  /** Milliseconds, 1 to 2^31 - 1, after which the promise rejects with RdmaError ETIMEDOUT. */
  readonly timeout?: number | undefined
}
/** Options of a request that returns a promise. */
export interface AwaitedOptions extends Omit<SendOptions, ReservedOption>, WaitLimits {}
/** Options of a message. */
export interface AwaitedMessageOptions extends AwaitedOptions, ImmediateOptions {}
/** Options of a message on a reliable connection. */
export interface AwaitedRcMessageOptions extends AwaitedMessageOptions, InvalidateOptions {}

/** Options of a queue pair that the library sets itself where requests return promises. */
type ReservedQueueOption = 'sendCq' | 'recvCq' | 'srq' | 'signalAll'
/**
 * The options of a queue pair without queues of the program: without `sendCq`, `recvCq`, `srq` and `signalAll`. All
 * requests are signaled.
 */
export type AwaitableOptions<O> = Omit<O, ReservedQueueOption> & {
  /** Absent: with a `sendCq` requests return no promises. */
  readonly sendCq?: undefined
}

/**
 * Members of all queue pairs whose requests return promises. A promise rejects with `RequestError` if the request
 * completes in error, with `RdmaError` if the request was not posted, and with `RdmaError` ECANCELED if the queue pair
 * is closed or moved to RESET, or if the device is closed or removed.
 */
export interface AwaitableQueuePair extends BareQueuePair {
  /** Maximum inline data in bytes. */
  readonly maxInlineData: number
  /** Number of unsettled requests of the send queue. */
  readonly pending: number
  /**
   * Posts a receive; resolves when a message has consumed it. Rejects with RdmaError ENOMEM when the queue is full.
   * After a wait that `options` has ended, the receive stays posted and takes its message, whose bytes are then in
   * `local`.
   */
  receive(local?: Slice | readonly Slice[], options?: WaitLimits): Promise<CompletedRequest>
  /** Resolves when no request of the send queue is outstanding, after their promises have settled. */
  drained(): Promise<void>
  /**
   * Destroys the queue pair. Incomplete requests reject with RdmaError ECANCELED. Throws RdmaError EBUSY while the
   * queue pair is a member of a multicast group.
   */
  close(): void
}

type PostMethod = (this: QueuedQp, ...args: unknown[]) => unknown
type QpConstructor<T> = (new (...args: ConstructorParameters<typeof QueuedQp>) => T) & { readonly prototype: T }

const reservedOptions: readonly ReservedOption[] = ['id', 'signaled']

const rejectOnThrow = <T>(qp: WithPromises | undefined, call: string, post: () => Promise<T>): Promise<T> => {
  try {
    return post()
  } catch (error) {
    const rejected = Promise.reject(error)
    return qp?.promises === undefined ? rejected : qp.promises.refused(call, rejected)
  }
}

/**
 * Wraps a posting method: the new method returns a promise for the completion. `optionsIndex`: index of the options
 * among the arguments.
 */
export const promiseMethod = (name: string, post: PostMethod, optionsIndex: number) => {
  const call = `qp.${name}`
  return function (this: WithPromises | undefined, ...args: unknown[]): Promise<unknown> {
    return rejectOnThrow(this, call, () => {
      if (this?.context === undefined) throw withoutObject(call)
      const given = args[optionsIndex] as AwaitedOptions | undefined
      if (given !== undefined) refuseReservedOptions(call, given)
      const { signal, timeout, ...options } = given ?? {}
      const limits = { signal, timeout }
      checkLimits(call, limits)
      const postWithId = (id: number): unknown => {
        args[optionsIndex] = { ...options, id }
        return post.apply(this, args)
      }
      return this.promises.request(call, 'send', postWithId, limits)
    })
  }
}

export const limitNames: KnownOptions<WaitLimits> = { signal: true, timeout: true }
const MAX_TIMER_DELAY = 2 ** 31 - 1

/** Throws RdmaError EINVAL for invalid limits, and the reason of an aborted signal. */
export const checkLimits = (call: string, { signal, timeout }: WaitLimits): void => {
  checkSignal(call, { signal })
  if (timeout !== undefined) checkInteger(call, 'timeout', timeout, 1, MAX_TIMER_DELAY)
  signal?.throwIfAborted()
}

/** Throws RdmaError EINVAL for `id` and `signaled`, unless undefined, and for options that are not an object. */
const refuseReservedOptions = (call: string, options: unknown): void => {
  checkRecord(call, 'options', options, 'give { fence: true }, or nothing')
  const option = reservedOptions.find(name => (options as SendOptions)[name] !== undefined)
  if (option !== undefined)
    throw invalidArgument(
      call,
      `options: ${option} is for queue pairs with a sendCq`,
      'the promise reports the completion',
    )
}

/** Index of the options among the arguments, by posting method. */
type OptionsIndexes = Readonly<Record<string, number>>

interface WithPromises extends QueuedQp {
  readonly promises: RequestPromises
}

/** Sets the hints in errors of a connection's queue pair. Does nothing if its requests return no promises. */
export const setConnectionHints = (qp: object): void => {
  const promises = promisesOf(qp)
  if (promises !== undefined) promises.restarts = connectionRestarts
}

/** The promises of a queue pair; undefined if its requests return none. */
export const promisesOf = (qp: object): RequestPromises | undefined =>
  'promises' in qp ? (qp as WithPromises).promises : undefined

/** A subclass of `Plain` whose methods in `requests` return promises. `T`: interface of the subclass. */
export const awaitable = <T extends AwaitableQueuePair>(
  Plain: QpConstructor<QueuedQp>,
  requests: OptionsIndexes,
): QpConstructor<QueuedQp & T> => {
  abstract class Awaitable extends Plain implements WithPromises {
    /** Set by `makeAwaitable`. */
    readonly promises!: RequestPromises

    override get pending(): number {
      return this.promises.outstandingSends
    }

    // The base class has the id in place of the options.
    override receive(local?: Slice | readonly Slice[], options: unknown = {}): Promise<unknown> {
      return rejectOnThrow(this, 'qp.receive', () => {
        if (this?.context === undefined) throw withoutObject('qp.receive')
        const limits = options as WaitLimits
        checkOptions('qp.receive', 'options', limits, limitNames)
        checkLimits('qp.receive', limits)
        return this.promises.request('qp.receive', 'receive', id => super.receive(local, id), limits)
      })
    }

    drained(): Promise<void> {
      return this.promises.drained()
    }

    override modify(changes: Parameters<BareQueuePair['modify']>[0]): void {
      super.modify(changes)
      if (changes.state === RESET || changes.state === 'RESET') {
        // First the requests that were complete before RESET; the others get no completions.
        this.promises.settle()
        this.promises.cancel('the queue pair was moved to RESET')
      } else if (changes.state === RTS || changes.state === 'RTS') this.promises.forgetFailure()
      else if (changes.state === ERR || changes.state === 'ERR') this.promises.enterErr()
    }

    override close(): void {
      if (!this.isOpen) return
      // A removed device has no completions: the requests are canceled below.
      destroyUnlessRemoved(() => this.promises.settle())
      super.close()
      this.promises.close()
    }
  }
  const methods = Plain.prototype as object as Readonly<Record<string, PostMethod>>
  for (const [name, optionsIndex] of Object.entries(requests))
    Object.defineProperty(Awaitable.prototype, name, {
      value: promiseMethod(name, methods[name]!, optionsIndex),
      configurable: true,
    })
  return Awaitable as object as QpConstructor<QueuedQp & T>
}

const postQueues = { send: PostQueue.SEND, receive: PostQueue.RECEIVE }

/** Default of `maxSendWr` and `maxRecvWr`. */
const DEFAULT_DEPTH = 16

type AnyOptions = Readonly<Record<string, unknown>> | undefined

/** A completion queue for `send` + `receive` requests. Errors name the options of the queue pair. */
const completionQueueFor = (context: DeviceContext, call: string, send: number, receive: number): CompletionQueue => {
  // For a size that is no number DEFAULT_DEPTH serves: the creation of the queue pair refuses such a size.
  const entries = Number.isInteger(send) && Number.isInteger(receive) ? Math.max(1, send + receive) : DEFAULT_DEPTH
  try {
    return make(context, cqPlan(context, { entries }))
  } catch (error) {
    if (!(error instanceof RdmaError) || error.attribute !== 'entries') throw error
    throw invalidArgument(call, withOption(error, 'maxSendWr + maxRecvWr').reason)
  }
}

/**
 * Creates a queue pair whose requests return promises, and a completion queue with room for all its requests. `cls`:
 * the class name; `optionNames`: the names of all options, those of queue pairs with a `sendCq` too; `planWith`: plans
 * the queue pair.
 */
export const makeAwaitable = <T extends BareQueuePair, O extends QueuePairOptions>(
  context: DeviceContext,
  cls: keyof typeof restartsOf,
  options: AwaitableOptions<O> | undefined,
  optionNames: KnownOptions<O>,
  planWith: (options: Omit<O, ReservedQueueOption> & Pick<QueuePairOptions, 'sendCq'>) => Plan<T>,
): T => {
  const { sendCq: _, recvCq: __, srq: ___, signalAll: ____, ...known } = optionNames as KnownOptions<QueuePairOptions>
  const call = `${cls}.create`
  const needsSendCq = ['recvCq', 'srq', 'signalAll'].find(name => (options as AnyOptions)?.[name] !== undefined)
  if (needsSendCq !== undefined)
    throw invalidArgument(
      call,
      `options: ${needsSendCq} is for queue pairs with a sendCq`,
      'pass a sendCq too; without one the queue pair has completion and receive queues of its own',
    )
  const qpOptions = options === undefined ? ({} as AwaitableOptions<O>) : options
  checkOptions(call, 'options', qpOptions, known)
  const { maxSendWr: send = DEFAULT_DEPTH, maxRecvWr: receive = DEFAULT_DEPTH } = qpOptions as Partial<
    Omit<QueuePairOptions, 'sendCq'>
  >
  const cq = completionQueueFor(context, call, send, receive)
  context.check?.markInternal('cq', cq.handle)
  context.check?.posts.pollsForPromises?.(cq.handle)
  try {
    const qp = make(context, planWith({ ...qpOptions, sendCq: cq }))
    const explain = (id: number): string | undefined => context.carrier.explain?.(qp.qpn, id)
    const { userHandle } = sourceIdentity(context, cq) as SourceIdentity
    const endWait = (): void => context.waiters.wake(userHandle)
    const drive = (): void => void context.carrier.drive('cq.poll')
    // A program that awaits requests does not try again, as a program that polls may: its request is lost.
    const onFull = (queue: 'send' | 'receive'): void =>
      context.check?.posts.refused(postQueues[queue], qp.qpn, 0, Errno.ENOMEM, QpState.values.RTS, 'warning')
    return Object.assign(qp, {
      promises: new RequestPromises(
        context.carrier.clock,
        cq,
        { send, receive },
        restartsOf[cls],
        explain,
        endWait,
        drive,
        onFull,
      ),
    })
  } catch (error) {
    cq.close()
    throw error
  }
}
