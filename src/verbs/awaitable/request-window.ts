/*
 * A window of requests: at most `limit` are in flight. For programs that post more requests than the queues of a queue
 * pair hold.
 */
import { checkFunction, formatValue, invalidArgument, withoutObject } from '../error.ts'
import { showAs } from '../objects/show.ts'

/** At most `limit` requests in flight; created by `requestWindow`. */
export class RequestWindow {
  /** Maximum requests in flight. */
  readonly limit: number
  #inFlight = 0
  /** The first failure that neither `add` nor `drain` has reported. */
  #failure: { readonly error: unknown } | undefined
  #waiting: (() => void)[] = []

  /** Private; use `requestWindow`. */
  constructor(limit: number) {
    this.limit = limit
  }

  /** Number of unsettled requests. */
  get inFlight(): number {
    return #inFlight in this ? this.#inFlight : 0
  }

  /**
   * Waits until fewer than `limit` requests are in flight, and calls `post`. Does not wait for the completion of the
   * new request. If an earlier request has failed and the failure was not reported, `add` does not call `post` and
   * rejects with the failure.
   */
  async add(post: () => PromiseLike<unknown>): Promise<void> {
    checkWindow('requestWindow.add', this)
    checkFunction('requestWindow.add', 'post', post)
    while (this.#inFlight >= this.limit && this.#failure === undefined) await this.#nextSettlement()
    this.#throwFailure()
    this.#inFlight++
    try {
      // An exception means that nothing was posted; a rejection is reported by the next call.
      void Promise.resolve(post()).then(
        () => this.#onSettled(),
        error => this.#onSettled({ error }),
      )
    } catch (error) {
      this.#onSettled()
      throw error
    }
  }

  /** Waits until no request is in flight. Rejects with the first failure that `add` has not reported. */
  async drain(): Promise<void> {
    checkWindow('requestWindow.drain', this)
    while (this.#inFlight > 0) await this.#nextSettlement()
    this.#throwFailure()
  }

  #nextSettlement(): Promise<void> {
    return new Promise(resolve => this.#waiting.push(resolve))
  }

  #onSettled(failure?: { readonly error: unknown }): void {
    this.#inFlight--
    this.#failure ??= failure
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  #throwFailure(): void {
    const failure = this.#failure
    this.#failure = undefined
    if (failure !== undefined) throw failure.error
  }
}

showAs<RequestWindow>(
  RequestWindow.prototype,
  'RequestWindow',
  ({ limit, inFlight }) => ({ limit, inFlight }),
  self => Object.hasOwn(self, 'limit'),
)

/** Throws RdmaError EINVAL if a method is called without its window. */
const checkWindow = (call: string, self: unknown): void => {
  if (!(self instanceof RequestWindow)) throw withoutObject(call)
}

/** A window of at most `limit` (≥ 1) requests in flight. */
export const requestWindow = (limit: number): RequestWindow => {
  if (!Number.isSafeInteger(limit) || limit < 1)
    throw invalidArgument('requestWindow', `limit ${formatValue(limit)} is not a number of requests`, 'give 1 or more')
  return new RequestWindow(limit)
}
