/*
 * Promises for the requests of one queue pair: it owns the completion queue, takes completions while requests are
 * outstanding, and finds the request by the completion's id. A request counts until its completion was taken, so that
 * the completion queue cannot overflow.
 */
import type { Completion, OpcodeName } from '../cq/completion.ts'
import type { CompletionQueue } from '../cq/completion-queue.ts'
import { type RdmaError, refused } from '../error.ts'
import { RequestError } from './request-error.ts'

/** The result of a request: a copy of its completion. */
export interface CompletedRequest {
  /** ibv_wc_opcode by name. */
  readonly opcode: OpcodeName
  /** Bytes received or read. */
  readonly bytes: number
  /** Of a received message: its immediate data. */
  readonly immediate: number | undefined
  /** Of a received message: the rkey that it invalidated. */
  readonly invalidated: number | undefined
  /** Of a datagram: the sender's queue pair number. The first 40 bytes of the buffer are a GRH (`senderOf`). */
  readonly sourceQpn: number
}

interface Outstanding {
  readonly call: string
  readonly queue: 'send' | 'receive'
  resolve(completed: CompletedRequest): void
  /** `isHandled`: the program handles the rejection elsewhere, so Node must not report the promise as unhandled. */
  reject(error: RdmaError, isHandled: boolean): void
}

const copyOf = ({ opcodeName, bytes, immediate, invalidated, sourceQpn }: Completion): CompletedRequest => ({
  opcode: opcodeName,
  bytes,
  immediate,
  invalidated,
  sourceQpn,
})

const ignore = (): void => {}

/** An outstanding request, and its promise, which resolves with `answer`, or with the completion if it is undefined. */
const outstandingRequest = (call: string, queue: Outstanding['queue'], answer: unknown) => {
  let one: Outstanding = { call, queue, resolve: ignore, reject: ignore }
  const promise = new Promise<unknown>((resolve, reject) => {
    one = {
      call,
      queue,
      resolve: completed => resolve(answer ?? completed),
      reject(error, isHandled) {
        if (isHandled) promise.catch(ignore)
        reject(error)
      },
    }
  })
  return { one, promise }
}

export class RequestPromises {
  readonly #cq: CompletionQueue
  readonly #depths: Readonly<Record<Outstanding['queue'], number>>
  /** Details of a request's failure beyond its completion. */
  readonly #explain: (id: number) => string | undefined
  readonly #outstanding = new Map<number, Outstanding>()
  readonly #counts = { send: 0, receive: 0 }
  #last = 0
  #isTaking = false
  /** The failure that moved the queue pair to ERR. */
  #failure: RequestError | undefined
  #drained: (() => void)[] = []

  constructor(
    cq: CompletionQueue,
    depths: Readonly<Record<Outstanding['queue'], number>>,
    explain: (id: number) => string | undefined,
  ) {
    this.#cq = cq
    this.#depths = depths
    this.#explain = explain
  }

  get sends(): number {
    return this.#counts.send
  }

  /**
   * Posts a request with the id that `post` receives; resolves with the value that `post` returned, or with the
   * completion if it returned undefined. Throws what `post` throws, and ENOMEM when the queue is full.
   */
  request(call: string, queue: Outstanding['queue'], post: (id: number) => unknown): Promise<unknown> {
    if (this.#counts[queue] >= this.#depths[queue])
      throw refused(
        'ENOMEM',
        call,
        `the ${queue} queue is full: ${this.#depths[queue]} requests are outstanding`,
        `await earlier ones first (requestWindow() does), or ask for a larger ${queue === 'send' ? 'maxSendWr' : 'maxRecvWr'}`,
      )
    const id = ++this.#last
    const answer = post(id)
    this.#counts[queue]++
    const { one, promise } = outstandingRequest(call, queue, answer)
    this.#outstanding.set(id, one)
    if (!this.#isTaking) void this.#take()
    return promise
  }

  /** Resolves when no send is outstanding. */
  drained(): Promise<void> {
    return this.#counts.send === 0 ? Promise.resolve() : new Promise(resolve => this.#drained.push(resolve))
  }

  /** Takes all available completions. */
  settle(): void {
    while (this.#cq.poll()) this.#settleOne(this.#cq.completion)
  }

  /** Rejects all outstanding requests: the queue pair was reset or closed, so they get no completions. */
  cancel(reason: string): void {
    for (const [id, one] of this.#outstanding) {
      this.#end(id, one)
      one.reject(refused('ECANCELED', one.call, reason), true)
    }
    this.#failure = undefined
  }

  /** The queue pair is closed. */
  close(): void {
    this.cancel('the queue pair was closed before the request was complete')
    this.#cq.close()
  }

  #end(id: number, { queue }: Outstanding): void {
    this.#outstanding.delete(id)
    if (--this.#counts[queue] > 0 || queue === 'receive') return
    for (const resolve of this.#drained.splice(0)) resolve()
  }

  #settleOne(wc: Completion): void {
    const { id } = wc
    const one = this.#outstanding.get(id)
    if (one === undefined) return
    this.#end(id, one)
    if (wc.ok) {
      one.resolve(copyOf(wc))
      return
    }
    const isFlushed = wc.statusName === 'WR_FLUSH_ERR'
    const error = new RequestError(one.call, wc, this.#explain(id), isFlushed ? this.#failure : undefined)
    this.#failure ??= error
    one.reject(error, isFlushed)
  }

  async #take(): Promise<void> {
    this.#isTaking = true
    try {
      for (;;) {
        this.settle()
        if (this.#outstanding.size === 0) return
        await this.#cq.wait()
      }
    } catch {
      this.cancel('the device is closed or removed')
    } finally {
      this.#isTaking = false
    }
  }
}
