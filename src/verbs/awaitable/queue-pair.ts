/*
 * Queue pairs whose requests answer promises: made without completion queues, since they own one. Their methods are
 * those of the type's table, each posting as the plain one does, under an id of its own.
 */
import { checkOptions, type Words } from '../checks/options.ts'
import type { ImmediateOptions, InvalidateOptions, SendOptions } from '../checks/request-options.ts'
import { cqPlan } from '../cq/completion-queue.ts'
import { detached, invalidArgument } from '../error.ts'
import type { Slice } from '../mr/region.ts'
import { type DeviceContext, make, type Plan } from '../plan.ts'
import type { BareQueuePair, QueuedQp, QueuePairOptions } from '../qp/queue-pair.ts'
import { type CompletedRequest, RequestPromises } from './request-promises.ts'

/** What is not said of a request whose promise tells of its completion. */
type PlainOnly = 'id' | 'signaled'
/** What requests say whose promise tells of their completion. */
export interface AwaitedOptions extends Omit<SendOptions, PlainOnly> {}
/** The same of messages. */
export interface AwaitedMessageOptions extends AwaitedOptions, ImmediateOptions {}
/** The same of messages on a reliable connection. */
export interface AwaitedRcMessageOptions extends AwaitedMessageOptions, InvalidateOptions {}

/** What a queue pair without completion queues of the program has in place of them. */
export type WithoutQueues<O> = Omit<O, 'sendCq' | 'recvCq' | 'srq' | 'signalAll'>

/** What all of them have. A promise rejects with `RequestError`, or `RdmaError` if nothing was posted or it is closed. */
export interface AwaitableQueuePair extends BareQueuePair {
  /** The largest inline payload, bytes. */
  readonly maxInlineData: number
  /** Sends that are not complete. */
  readonly pending: number
  /** Offers a buffer for the next message; resolves when one has come. Rejects with ENOMEM when the queue is full. */
  receive(local?: Slice | readonly Slice[]): Promise<CompletedRequest>
  /** Resolves when no send is outstanding. */
  drained(): Promise<void>
  /** Requests that are outstanding reject with ECANCELED. */
  close(): void
}

type Post = (this: QueuedQp, ...args: unknown[]) => unknown
type QpConstructor<T> = (new (...args: ConstructorParameters<typeof QueuedQp>) => T) & { readonly prototype: T }

const plainOnly: readonly PlainOnly[] = ['id', 'signaled']

/** What `make` promises; what it throws rejects. */
const promising = <T>(make: () => Promise<T>): Promise<T> => {
  try {
    return make()
  } catch (error) {
    return Promise.reject(error)
  }
}

/** The same request, whose promise tells of its completion; `at`: which argument its options are. */
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
  const word = plainOnly.find(one => Object.hasOwn(options as object, one))
  if (word !== undefined)
    throw invalidArgument(call, `options: ${word} is for queue pairs with a sendCq`, 'the promise tells of the request')
}

/** Requests of a type's table by name, and which of their arguments their options are. */
export type PromisedRequests = Readonly<Record<string, number>>

interface WithPromises extends QueuedQp {
  readonly promises: RequestPromises
}

/** The class of a type whose requests are promises; `T`: its interface. */
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

/** Makes one, with a completion queue that has room for all its requests. `words`: of the plain type's options. */
export const makeAwaitable = <T extends BareQueuePair, O extends QueuePairOptions>(
  kit: DeviceContext,
  call: string,
  options: WithoutQueues<O> | undefined,
  words: Words<O>,
  planWith: (options: WithoutQueues<O> & Pick<QueuePairOptions, 'sendCq'>) => Plan<T>,
): T => {
  const { sendCq: _, recvCq: __, srq: ___, signalAll: ____, ...own } = words as Words<QueuePairOptions>
  const given = options ?? ({} as WithoutQueues<O>)
  checkOptions(call, 'options', given, own)
  const { maxSendWr: send = DEPTH, maxRecvWr: receive = DEPTH } = given as Partial<QueuePairOptions>
  const cq = make(kit, cqPlan(kit, { entries: Math.max(1, Number(send) + Number(receive)) }))
  try {
    const qp = make(kit, planWith({ ...given, sendCq: cq }))
    const explain = (id: number): string | undefined => kit.carrier.explain?.(qp.qpn, id)
    return Object.assign(qp, { promises: new RequestPromises(cq, { send, receive }, explain) })
  } catch (error) {
    cq.close()
    throw error
  }
}
