/*
 * Queue pairs whose requests return promises: they are created without completion queues, because each owns one. Their
 * methods are those of the type's table; each posts the request with an id of its own.
 */
import { checkOptions, type KnownOptions } from '../checks/options.ts'
import type { ImmediateOptions, InvalidateOptions, SendOptions } from '../checks/request-options.ts'
import { cqPlan } from '../cq/completion-queue.ts'
import { detached, invalidArgument } from '../error.ts'
import type { Slice } from '../mr/region.ts'
import { type DeviceContext, make, type Plan } from '../plan.ts'
import type { BareQueuePair, QueuedQp, QueuePairOptions } from '../qp/queue-pair.ts'
import { type CompletedRequest, RequestPromises } from './request-promises.ts'

/** Options that make no sense for a request with a promise. */
type PlainOnly = 'id' | 'signaled'
/** Options of a request with a promise. */
export interface AwaitedOptions extends Omit<SendOptions, PlainOnly> {}
/** Options of a message. */
export interface AwaitedMessageOptions extends AwaitedOptions, ImmediateOptions {}
/** Options of a message on a reliable connection. */
export interface AwaitedRcMessageOptions extends AwaitedMessageOptions, InvalidateOptions {}

/** Options without those that name queues of the program. */
export type WithoutQueues<O> = Omit<O, 'sendCq' | 'recvCq' | 'srq' | 'signalAll'>

/**
 * Members of all queue pairs whose requests return promises. A promise rejects with `RequestError`, or with `RdmaError`
 * if nothing was posted or the queue pair is closed.
 */
export interface AwaitableQueuePair extends BareQueuePair {
  /** The largest inline payload, bytes. */
  readonly maxInlineData: number
  /** Number of incomplete sends. */
  readonly pending: number
  /** Posts a receive; resolves when a message has arrived in it. Rejects with ENOMEM when the queue is full. */
  receive(local?: Slice | readonly Slice[]): Promise<CompletedRequest>
  /** Resolves when no send is outstanding. */
  drained(): Promise<void>
  /** Destroys it; outstanding requests reject with ECANCELED. */
  close(): void
}

type Post = (this: QueuedQp, ...args: unknown[]) => unknown
type QpConstructor<T> = (new (...args: ConstructorParameters<typeof QueuedQp>) => T) & { readonly prototype: T }

const plainOnly: readonly PlainOnly[] = ['id', 'signaled']

/** Calls `make` and turns its exceptions into rejections. */
const promising = <T>(make: () => Promise<T>): Promise<T> => {
  try {
    return make()
  } catch (error) {
    return Promise.reject(error)
  }
}

/** Wraps a posting method: it returns a promise for the completion. `at`: index of the options among its arguments. */
const promised = (name: string, post: Post, at: number) => {
  const call = `qp.${name}`
  return function (this: WithPromises | undefined, ...args: unknown[]): Promise<unknown> {
    return promising(() => {
      if (this?.kit === undefined) throw detached(call)
      if (args[at] !== undefined) checkAwaited(call, args[at])
      return this.promises.request(call, 'send', id => {
        args[at] = { ...(args[at] as object | undefined), id }
        return post.apply(this, args)
      })
    })
  }
}

const checkAwaited = (call: string, options: unknown): void => {
  if (typeof options !== 'object' || options === null) checkOptions(call, 'options', options as object, {})
  const option = plainOnly.find(name => Object.hasOwn(options as object, name))
  if (option !== undefined)
    throw invalidArgument(
      call,
      `options: ${option} is for queue pairs with a sendCq`,
      'the promise reports the completion',
    )
}

/** The posting methods of a queue pair type by name, with the index of their options among the arguments. */
export type PromisedRequests = Readonly<Record<string, number>>

interface WithPromises extends QueuedQp {
  readonly promises: RequestPromises
}

/** The class of a type whose requests return promises; `T`: its interface. */
export const awaitable = <T extends AwaitableQueuePair>(
  Plain: QpConstructor<QueuedQp>,
  requests: PromisedRequests,
): QpConstructor<QueuedQp & T> => {
  abstract class Awaitable extends Plain implements WithPromises {
    /** Set by `makeAwaitable`. */
    readonly promises!: RequestPromises

    override get pending(): number {
      return this.promises.sends
    }

    override receive(local?: Slice | readonly Slice[]): Promise<unknown> {
      return promising(() => {
        if (this?.kit === undefined) throw detached('qp.receive')
        return this.promises.request('qp.receive', 'receive', id => super.receive(local, id))
      })
    }

    drained(): Promise<void> {
      return this.promises.drained()
    }

    override modify(changes: Parameters<BareQueuePair['modify']>[0]): void {
      super.modify(changes)
      if (changes.state === 0 || changes.state === 'RESET') this.promises.cancel('the queue pair was moved to RESET')
    }

    override close(): void {
      if (!this.isOpen) return
      this.promises.settle()
      super.close()
      this.promises.close()
    }
  }
  const plain = Plain.prototype as object as Readonly<Record<string, Post>>
  for (const [name, at] of Object.entries(requests))
    Object.defineProperty(Awaitable.prototype, name, { value: promised(name, plain[name]!, at), configurable: true })
  return Awaitable as object as QpConstructor<QueuedQp & T>
}

const DEPTH = 16

/**
 * Creates a queue pair, with a completion queue that has room for all its requests. `optionNames`: the options of the
 * type with a `sendCq`.
 */
export const makeAwaitable = <T extends BareQueuePair, O extends QueuePairOptions>(
  kit: DeviceContext,
  call: string,
  options: WithoutQueues<O> | undefined,
  optionNames: KnownOptions<O>,
  planWith: (options: WithoutQueues<O> & Pick<QueuePairOptions, 'sendCq'>) => Plan<T>,
): T => {
  const { sendCq: _, recvCq: __, srq: ___, signalAll: ____, ...own } = optionNames as KnownOptions<QueuePairOptions>
  const given = options ?? ({} as WithoutQueues<O>)
  checkOptions(call, 'options', given, own)
  const { maxSendWr: send = DEPTH, maxRecvWr: receive = DEPTH } = given as Partial<QueuePairOptions>
  const cq = make(kit, cqPlan(kit, { entries: Math.max(1, Number(send) + Number(receive)) }))
  kit.checked?.posts.pollsForPromises?.(cq.handle)
  try {
    const qp = make(kit, planWith({ ...given, sendCq: cq }))
    const explain = (id: number): string | undefined => kit.carrier.explain?.(qp.qpn, id)
    return Object.assign(qp, { promises: new RequestPromises(cq, { send, receive }, explain) })
  } catch (error) {
    cq.close()
    throw error
  }
}
