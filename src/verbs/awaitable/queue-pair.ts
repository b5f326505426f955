/*
 * Queue pairs whose requests answer promises: made without completion queues, since they own one. Their methods are
 * those of the type's table, each posting as the plain one does, under an id of its own.
 */
import { checkOptions, type Words } from '../checks/options.ts'
import type { ImmediateOptions, InvalidateOptions, SendOptions } from '../checks/request-options.ts'
import { cqPlan } from '../cq/completion-queue.ts'
import { detached, invalidArgument } from '../error.ts'
import type { Slice } from '../mr/region.ts'
import { type DeviceContext, make, type Named, type Plan } from '../plan.ts'
import { type BareQueuePair, bareMethods, type QpSelf, type QueuePairOptions, queueMethods } from '../qp/queue-pair.ts'
import { type CompletedRequest, RequestPromises } from './request-promises.ts'

/** What is not said of a request whose promise tells of its completion. */
type PlainOnly = 'id' | 'signaled'
export interface AwaitedOptions extends Omit<SendOptions, PlainOnly> {}
export interface AwaitedMessageOptions extends AwaitedOptions, ImmediateOptions {}
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

type Self = QpSelf & { readonly promises: RequestPromises }
type Post = (this: QpSelf, ...args: never[]) => unknown

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
  return function (this: Self | undefined, ...args: unknown[]): Promise<unknown> {
    return promising(() => {
      if (this?.kit === undefined) throw detached(call)
      if (args[at] !== undefined) checkAwaited(call, args[at])
      return this.promises.request(call, 'send', id => {
        args[at] = { ...(args[at] as object | undefined), id }
        return post.apply(this, args as never[])
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

/** Part of a type's table: its requests as promises, and what replaces what all types have. */
export const awaitable = (plain: object, requests: PromisedRequests): object => {
  const posts = Object.entries(requests).map(([name, at]) => [
    name,
    promised(name, (plain as Readonly<Record<string, Post>>)[name]!, at),
  ])
  return Object.defineProperties(Object.fromEntries(posts), Object.getOwnPropertyDescriptors(common))
}

const common = {
  get pending(): number {
    return (this as unknown as Self).promises.sends
  },
  receive(this: Self | undefined, local?: Slice | readonly Slice[]): Promise<unknown> {
    return promising(() => {
      if (this?.kit === undefined) throw detached('qp.receive')
      return this.promises.request('qp.receive', 'receive', id => queueMethods.receive.call(this, local, id))
    })
  },
  drained(this: Self): Promise<void> {
    return this.promises.drained()
  },
  modify(this: Self, args: Parameters<BareQueuePair['modify']>[0]): void {
    bareMethods.modify.call(this as never, args)
    if (args.state === 0 || args.state === 'RESET') this.promises.cancel('the queue pair was moved to RESET')
  },
  close(this: Self): void {
    if (!this.isOpen) return
    this.promises.settle()
    bareMethods.close.call(this as never)
    this.promises.close()
  },
}

const DEPTH = 16

/** Makes one, with a completion queue that has room for all its requests. `words`: of the plain type's options. */
export const makeAwaitable = <T extends Named & Disposable, O extends QueuePairOptions>(
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
    const { qpn } = qp as unknown as QpSelf
    const explain = (id: number): string | undefined => kit.carrier.explain?.(qpn, id)
    return Object.assign(qp, { promises: new RequestPromises(cq, { send, receive }, explain) })
  } catch (error) {
    cq.close()
    throw error
  }
}
