/*
 * The promises for the requests of one queue pair. While requests are outstanding, the queue pair's own completion
 * queue is polled; the id of a completion finds the promise. A request counts as outstanding until its completion is
 * polled, so that the completion queue cannot overflow.
 */

import type { Clock } from '../../../host/event-loop/clock.ts'
import { Errno } from '../../../spec/errno.ts'
import type { Completion, OpcodeName } from '../cq/completion.ts'
import { type CompletionQueue, waitInLibrary } from '../cq/completion-queue.ts'
import { RdmaError, refused } from '../error.ts'
import { beginStackAtProgram } from '../watch/stacks.ts'
import { RequestError, type Restarts } from './request-error.ts'

/** The result of a request: a copy of its completion. */
export interface CompletedRequest {
  /** ibv_wc_opcode by name. */
  readonly opcode: OpcodeName
  /** Bytes received or read. */
  readonly bytes: number
  /** Immediate data of a received message, u32; undefined without immediate data. */
  readonly immediate: number | undefined
  /** The rkey that a received message has invalidated; undefined if there is none. */
  readonly invalidated: number | undefined
  /**
   * Queue pair number of a received datagram's sender. The first 40 bytes of the buffer are for the GRH or the IP
   * header (`senderOf`).
   */
  readonly sourceQpn: number
  /** LID of a received datagram's sender, on InfiniBand; otherwise 0. */
  readonly sourceLid: number
  /** Whether the 40 bytes have a header. */
  readonly hasGrh: boolean
}

/** A request that was posted, and what its completion does. */
export interface Outstanding {
  readonly call: string
  readonly queue: 'send' | 'receive'
  resolve(completed: CompletedRequest): void
  /**
   * `error` makes the error, and may be called only before `reject` returns: errors cost much, and the library needs
   * few of those of its own requests. `isConsequence`: the request was flushed, or the queue pair was closed or reset,
   * or the device is gone. Node then does not report an unhandled rejection.
   */
  reject(error: () => RdmaError, isConsequence: boolean): void
}

const copyOf = ({
  opcodeName,
  bytes,
  immediate,
  invalidated,
  sourceQpn,
  sourceLid,
  hasGrh,
}: Completion): CompletedRequest => ({
  opcode: opcodeName,
  bytes,
  immediate,
  invalidated,
  sourceQpn,
  sourceLid,
  hasGrh,
})

/** Limits of the wait for a request; `timeout` in milliseconds. */
interface RequestLimits {
  readonly signal?: AbortSignal | undefined
  readonly timeout?: number | undefined
}

const ignore = (): void => {}

/**
 * Calls `reject` with the signal's reason or ETIMEDOUT when one of the limits is reached, unless the returned function
 * is called before.
 */
export const startLimits = (
  clock: Clock,
  call: string,
  { signal, timeout }: RequestLimits,
  hint: string | undefined,
  reject: (reason: unknown) => void,
): (() => void) => {
  const onAbort = (): void => reject(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  const onTimeout = (): void => reject(refused('ETIMEDOUT', call, `it is not complete after ${timeout} ms`, hint))
  const timer = timeout === undefined ? undefined : clock.after(timeout, 'program', onTimeout)
  return () => {
    signal?.removeEventListener('abort', onAbort)
    clock.clear(timer)
  }
}

/**
 * Settles as `request`. An error gets the stack of the program's `await`, which V8 knows if the program awaits the
 * returned promise directly or by `Promise.all`: when the request failed, only the library was running.
 */
const withAwaitedStack = async (request: Promise<unknown>): Promise<unknown> => {
  try {
    return await request
  } catch (error) {
    // Not the reason of a signal, which is the program's.
    if (error instanceof RdmaError) beginStackAtProgram(error)
    throw error
  }
}

/** An outstanding request and its promise. The promise resolves with `value`, or with the completion if undefined. */
const outstandingRequest = (
  clock: Clock,
  call: string,
  queue: Outstanding['queue'],
  value: unknown,
  limits: RequestLimits,
) => {
  let request: Outstanding = { call, queue, resolve: ignore, reject: ignore }
  const completion = new Promise<unknown>((resolve, reject) => {
    const endLimits = startLimits(clock, call, limits, 'the request stays in the queue', reject)
    request = {
      call,
      queue,
      resolve(completed) {
        endLimits()
        resolve(value ?? completed)
      },
      reject(error, isConsequence) {
        endLimits()
        reject(error())
        // Later than `withAwaitedStack`: V8 finds the program's `await` only while nothing else waits for the promise.
        if (isConsequence) queueMicrotask(() => promise.catch(ignore))
      },
    }
  })
  const promise = withAwaitedStack(clock.watch(call, completion))
  return { outstanding: request, promise }
}

export class RequestPromises {
  readonly #clock: Clock
  readonly #cq: CompletionQueue
  readonly #depths: Readonly<Record<Outstanding['queue'], number>>
  /** Hints in errors. Replaced if the queue pair gets a connection by address. */
  restarts: Restarts
  /** See `Carrier.explain`. */
  readonly #explain: (id: number) => string | undefined
  /** Resolves a wait for the completion queue. */
  readonly #endWait: () => void
  /** Lets the device execute the posted requests. */
  readonly #drive: () => void
  /** Called when a post is refused because the queue is full. */
  readonly #onFull: (queue: Outstanding['queue']) => void
  readonly #outstandingById = new Map<number, Outstanding>()
  readonly #counts = { send: 0, receive: 0 }
  #lastId = 0
  #isPolling = false
  #isClosed = false
  /** The first failed or flushed request since the queue pair was created, reset, or moved to RTS again. */
  #failure: RequestError | undefined
  /** Whether the program has moved the queue pair to ERR, or a receive has failed, which moves it there too. */
  #isInErr = false
  #drainWaiters: (() => void)[] = []
  /** Set by `connection.messages()`: SENDs and receives are its own. Called after completions were settled. */
  onSettled: (() => void) | undefined

  constructor(
    clock: Clock,
    cq: CompletionQueue,
    depths: Readonly<Record<Outstanding['queue'], number>>,
    restarts: Restarts,
    explain: (id: number) => string | undefined,
    endWait: () => void,
    drive: () => void,
    onFull: (queue: Outstanding['queue']) => void,
  ) {
    this.#clock = clock
    this.#cq = cq
    this.#depths = depths
    this.restarts = restarts
    this.#explain = explain
    this.#endWait = endWait
    this.#drive = drive
    this.#onFull = onFull
  }

  get outstandingSends(): number {
    return this.#counts.send
  }

  get outstandingReceives(): number {
    return this.#counts.receive
  }

  /** How many sends the queue takes now. */
  get sendRoom(): number {
    return this.#depths.send - this.#counts.send
  }

  /** Calls `post`, which posts a request of the library. There must be room for it. Throws what `post` throws. */
  post(request: Outstanding, post: (id: number) => void): void {
    const id = ++this.#lastId
    post(id)
    this.#counts[request.queue]++
    this.#outstandingById.set(id, request)
    if (!this.#isPolling) void this.#poll()
  }

  /**
   * Calls `post`, which posts a request with the passed id. When the request completes, the promise resolves with the
   * result of `post`, or with the completion if `post` returned undefined. If one of `limits` is reached before, the
   * promise rejects, and the request stays outstanding. Throws what `post` throws, and RdmaError ENOMEM if the
   * queue is full.
   */
  request(
    call: string,
    queue: Outstanding['queue'],
    post: (id: number) => unknown,
    limits: RequestLimits = {},
  ): Promise<unknown> {
    if (this.onSettled !== undefined && (call === 'qp.send' || call === 'qp.receive'))
      throw refused(
        'EBUSY',
        call,
        'connection.messages() uses sends and receives',
        `write messages.${call.slice(3)}(…)`,
      )
    const depth = this.#depths[queue]
    if (this.#counts[queue] >= depth) {
      const option = queue === 'send' ? 'maxSendWr' : 'maxRecvWr'
      this.#onFull(queue)
      throw refused(
        'ENOMEM',
        call,
        `the ${queue} queue is full: ${depth} requests are outstanding`,
        `await earlier ones first (requestWindow() does), or ask for a larger ${option}`,
      )
    }
    const id = ++this.#lastId
    const value = post(id)
    this.#counts[queue]++
    const { outstanding, promise } = outstandingRequest(this.#clock, call, queue, value, limits)
    this.#outstandingById.set(id, outstanding)
    if (!this.#isPolling) void this.#poll()
    return promise
  }

  /** A refused request, which in virtual time is a failed wait: a program may try it again and again. */
  refused<T>(call: string, rejected: Promise<T>): Promise<T> {
    return this.#clock.watch(call, rejected)
  }

  /** Resolves when no send is outstanding. Asynchronous, so that it resolves after the promises of the sends. */
  async drained(): Promise<void> {
    if (this.#counts.send > 0)
      await this.#clock.watch('qp.drained', new Promise<void>(resolve => this.#drainWaiters.push(resolve)))
  }

  /** Settles the requests whose completions are available. */
  settle(): void {
    while (this.#cq.poll()) this.#settleOne(this.#cq.completion)
  }

  /** Rejects all outstanding requests with ECANCELED: they get no completions. */
  cancel(reason: string): void {
    for (const [id, request] of this.#outstandingById) {
      // Not `refused`, which names a method that is running now, such as `qp.close`.
      request.reject(() => new RdmaError('ECANCELED', Errno.ECANCELED, request.call, reason), true)
      this.#remove(id, request)
    }
    this.#failure = undefined
    this.#isInErr = false
    // Without requests, a wait would keep the process alive.
    this.#endWait()
  }

  /** Settles available completions and forgets the first failure. Called after a move to RTS, perhaps from SQE. */
  forgetFailure(): void {
    this.settle()
    this.#failure = undefined
    this.#isInErr = false
  }

  /** Called after a move to ERR by the program. */
  enterErr(): void {
    this.#isInErr = true
  }

  /** Cancels all requests and closes the completion queue: the queue pair is closed. */
  close(): void {
    this.#isClosed = true
    this.cancel('the queue pair was closed before the request was complete')
    this.#cq.close()
  }

  /** Called after the promise is settled: `drained` resolves last. */
  #remove(id: number, { queue }: Outstanding): void {
    this.#outstandingById.delete(id)
    if (--this.#counts[queue] > 0 || queue === 'receive') return
    for (const resolve of this.#drainWaiters.splice(0)) resolve()
  }

  /**
   * How to start the queue pair again. If a send is flushed without an earlier failure, the queue pair was moved to
   * ERR, as after a failed receive.
   */
  #hint({ queue }: Outstanding, isFlushed: boolean): string {
    const { afterSend, afterReceive } = this.restarts
    if (queue === 'receive' || this.#isInErr) return afterReceive
    return isFlushed ? (this.#failure?.hint ?? afterReceive) : afterSend
  }

  #settleOne(wc: Completion): void {
    const { id } = wc
    const request = this.#outstandingById.get(id)
    if (request === undefined) return
    if (wc.ok) request.resolve(copyOf(wc))
    else this.#fail(request, wc)
    this.#remove(id, request)
  }

  #fail(request: Outstanding, wc: Completion): void {
    const isFlushed = wc.statusName === 'WR_FLUSH_ERR'
    const earlier = isFlushed ? this.#failure : undefined
    const hint = this.#hint(request, isFlushed)
    let made: RequestError | undefined
    const error = (): RequestError => {
      made ??= new RequestError(request.call, wc, this.#explain(wc.id), hint, earlier)
      return made
    }
    this.#failure ??= error()
    if (request.queue === 'receive') this.#isInErr = true
    request.reject(error, isFlushed)
  }

  /** Polls and waits until no request is outstanding. */
  async #poll(): Promise<void> {
    this.#isPolling = true
    try {
      this.#drive()
      // The post that starts the poll settles nothing: in every mode, a burst of posts fills the queue.
      await undefined
      for (;;) {
        this.settle()
        this.onSettled?.()
        if (this.#outstandingById.size === 0) return
        await waitInLibrary(this.#cq)
        // All requests were canceled.
        if (this.#isClosed) return
      }
    } catch {
      this.cancel('the device is closed or removed')
    } finally {
      this.#isPolling = false
    }
  }
}
