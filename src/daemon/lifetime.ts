/*
 * When the daemon ends.
 */

/** Why a daemon has ended. */
export type DaemonEnd = 'closed' | 'on a request' | 'its last client has ended'

/** Decides when the daemon ends: on a request, or with its last client. */
export class Lifetime {
  readonly #endsUnused: boolean
  readonly #counts: (() => number)[] = []
  readonly #onEnd: (reason: DaemonEnd) => void

  constructor(endsUnused: boolean, onEnd: (reason: DaemonEnd) => void) {
    this.#endsUnused = endsUnused
    this.#onEnd = onEnd
  }

  /** While `count`, the number of sessions or contexts for example, is not 0, the daemon is used. */
  watch(count: () => number): void {
    this.#counts.push(count)
  }

  /** Descriptors can outlive all sessions: they may be in transit to another program, or inherited. */
  #isUnused(): boolean {
    return this.#endsUnused && this.#counts.every(count => count() === 0)
  }

  readonly endIfUnused = (): void => {
    if (this.#isUnused())
      setImmediate(() => {
        if (this.#isUnused()) this.#onEnd('its last client has ended')
      })
  }

  /** Ends the daemon, after the current message. */
  stop(): void {
    setImmediate(() => this.#onEnd('on a request'))
  }
}
