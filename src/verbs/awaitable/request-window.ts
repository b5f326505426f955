/*
 * A bounded window of requests: posting waits while as many as the limit are in flight. For anything that answers
 * promises; queue pairs that do need it where a program posts more than their queues hold.
 */
import { checkFunction, detached, formatValue, invalidArgument } from '../error.ts'

/** At most `limit` requests in flight; made by `requestWindow`. */
export class RequestWindow {
  /** The most that are in flight. */
  readonly limit: number
  #inFlight = 0
  /** What the first one that failed since `add` or `drain` last told of it has rejected with. */
  #failure: { readonly error: unknown } | undefined
  #waiting: (() => void)[] = []

  /** Use `requestWindow`. */
  constructor(limit: number) {
    this.limit = limit
  }

  /** Requests that have not settled. */
  get inFlight(): number {
    return #inFlight in this ? this.#inFlight : 0
  }

  /**
   * Calls `post` as soon as fewer than `limit` are in flight, and resolves then: not when the request is complete.
   * Rejects without posting when an earlier one has failed, with its error.
   */
  async add(post: () => PromiseLike<unknown>): Promise<void> {
    checkWindow('requestWindow.add', this)
    checkFunction('requestWindow.add', 'post', post)
    while (this.#inFlight >= this.limit && this.#failure === undefined) await this.#change()
    this.#throwFailure()
    this.#inFlight++
    try {
      // What throws at once has posted nothing; of what rejects the next call tells.
      void Promise.resolve(post()).then(
        () => this.#settled(),
        error => this.#settled({ error }),
      )
    } catch (error) {
      this.#settled()
      throw error
    }
  }

  /** Resolves when none is in flight; rejects with the error of the first that failed. */
  async drain(): Promise<void> {
    checkWindow('requestWindow.drain', this)
    while (this.#inFlight > 0) await this.#change()
    this.#throwFailure()
  }

  #change(): Promise<void> {
    return new Promise(resolve => this.#waiting.push(resolve))
  }

  #settled(failure?: { readonly error: unknown }): void {
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

const checkWindow = (call: string, self: unknown): void => {
  if (!(self instanceof RequestWindow)) throw detached(call)
}

/** A window of at most `limit` requests in flight, 1 or more. */
export const requestWindow = (limit: number): RequestWindow => {
  if (!Number.isSafeInteger(limit) || limit < 1)
    throw invalidArgument('requestWindow', `limit ${formatValue(limit)} is no number of requests`, 'give 1 or more')
  return new RequestWindow(limit)
}
