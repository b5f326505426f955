/*
 * Whether the peer lives. A completion is a sign of life. On a silent connection, and after requests that stay without
 * a completion, a ping asks the peer: the first notices a peer that is gone, the second a loss, long before the ACK
 * timeout.
 */
import { nextTurnOf, type Timer } from '../../../host/event-loop/clock.ts'
import { refused } from '../../verbs/error.ts'
import { postPing } from '../../verbs/qp/operations.ts'
import type { Whole } from './parts.ts'
import type { Receiving } from './receiving.ts'
import type { Sending } from './sending.ts'

/** A dead peer is noticed after three whole parts without a sign of life, the fourth part at most. */
const KEEPALIVE_PARTS = 3
/** Milliseconds without a completion, the first time, after which requests in flight are followed by a ping. */
const PROBE_DELAY = 67

export class PeerWatch {
  readonly #whole: Whole
  readonly #receiving: Receiving
  readonly #sending: Sending
  /** Completions. */
  #signs = 0
  /** `#signs` at the last check of the peer. */
  #checkedSigns = 0
  #silentParts = 0
  #timer: Timer | undefined
  #probeTimer: Timer | undefined
  #probeDelay = PROBE_DELAY

  constructor(whole: Whole, receiving: Receiving, sending: Sending) {
    this.#whole = whole
    this.#receiving = receiving
    this.#sending = sending
  }

  /** A request is complete. */
  addSign(): void {
    this.#signs++
  }

  /** Starts to check that the peer lives; `milliseconds` as option `keepalive`. */
  start(milliseconds: number): void {
    const part = Math.floor(milliseconds / KEEPALIVE_PARTS)
    // Waits of the program keep the process alive, as far as an event can follow.
    this.#timer = this.#whole.clock.every(part, 'background', () => void this.#check(milliseconds))
  }

  stop(): void {
    const { clock } = this.#whole
    clock.clear(this.#timer)
    clock.clear(this.#probeTimer)
  }

  /**
   * Follows requests in flight with pings, at intervals that double. If the last packets before were lost, the peer
   * notices the gap and reports it; the ACK timeout, which tolerates a busy peer, would take seconds.
   */
  watchForLoss(): void {
    if (this.#probeTimer !== undefined) return
    const whole = this.#whole
    const signs = this.#signs
    this.#probeTimer = whole.clock.after(this.#probeDelay, 'background', () => {
      this.#probeTimer = undefined
      const isSilent = this.#signs === signs
      this.#probeDelay = isSilent ? 2 * this.#probeDelay : PROBE_DELAY
      if (whole.end !== undefined || this.#sending.inFlight + this.#receiving.readsInFlight === 0) return
      if (isSilent && whole.promises.sendRoom > 0) this.#ping()
      this.watchForLoss()
    })
  }

  /** Called three times in the time of `keepalive`. */
  async #check(milliseconds: number): Promise<void> {
    const whole = this.#whole
    this.#receiving.shrink()
    this.#sending.returnUnusedGrants()
    this.#silentParts = this.#signs === this.#checkedSigns ? this.#silentParts + 1 : 0
    this.#checkedSigns = this.#signs
    if (this.#silentParts === 1 && this.#sending.inFlight === 0 && whole.promises.sendRoom > 0) this.#ping()
    if (this.#silentParts < KEEPALIVE_PARTS) return
    // The event loop may have been blocked: packets that wait in a socket are read first.
    await nextTurnOf(whole.clock)
    if (this.#signs !== this.#checkedSigns || whole.end !== undefined) return
    const text = `the peer has not answered for ${milliseconds} ms`
    whole.finish({ failure: refused('ETIMEDOUT', 'messages.keepalive', text), text })
  }

  #ping(): void {
    const whole = this.#whole
    try {
      whole.promises.post(
        {
          call: 'messages.keepalive',
          queue: 'send',
          resolve: () => this.#signs++,
          reject: (error, isConsequence) => whole.fail(error, isConsequence),
        },
        id => postPing(whole.qp, { id }),
      )
    } catch (error) {
      whole.fail(() => error, false)
    }
  }
}
