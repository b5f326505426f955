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
  /** Unsettled requests, and the slots that `#release` has passed to calls of `add`. */
  #inFlight = 0
  /** The first failure since `add` or `drain` has reported one. */
  #failure: { readonly error: unknown } | undefined
  // Two lists, because `shift` of a long list moves all its values.
  /** Calls of `add` that wait for a slot, after those of `#older`; the oldest first. */
  #newer: (() => void)[] = []
  /** Calls of `add` that wait for a slot; the oldest last. */
  #older: (() => void)[] = []
  /** Calls of `drain`. */
  #draining: (() => void)[] = []

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
   * new request. If earlier requests have failed since the last report of a failure, `add` does not call `post` and
   * rejects with the first of these failures.
   */
  async add(post: () => PromiseLike<unknown>): Promise<void> {
    checkWindow('requestWindow.add', this)
    checkFunction('requestWindow.add', 'post', post)
    this.#throwFailure()
    if (this.#inFlight < this.limit) this.#inFlight++
    else await new Promise<void>(resolve => this.#newer.push(resolve))
    try {
      this.#throwFailure()
      // An exception means that nothing was posted; a rejection is reported by the next call.
      void Promise.resolve(post()).then(
        () => this.#release(),
        error => {
          this.#failure ??= { error }
          this.#release()
        },
      )
    } catch (error) {
      this.#release()
      throw error
    }
  }

  /** Waits until no request is in flight. Rejects with the first failure since the last report of a failure. */
  async drain(): Promise<void> {
    checkWindow('requestWindow.drain', this)
    while (this.#inFlight > 0) await new Promise<void>(resolve => this.#draining.push(resolve))
    this.#throwFailure()
  }

  /** Passes a slot to the oldest waiting `add`. Without one the slot is free. */
  #release(): void {
    if (this.#older.length === 0) {
      this.#older = this.#newer.reverse()
      this.#newer = []
    }
    const startAdd = this.#older.pop()
    if (startAdd !== undefined) startAdd()
    else if (--this.#inFlight === 0) for (const resolve of this.#draining.splice(0)) resolve()
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
