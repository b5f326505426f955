/*
 * What the parts of a connection's messages know of the whole, which channel.ts makes of them.
 */
import type { Clock } from '../../../host/event-loop/clock.ts'
import type { RequestPromises } from '../../verbs/awaitable/request-promises.ts'
import type { ProtectionDomain } from '../../verbs/pd.ts'
import type { QueuedQp } from '../../verbs/qp/queue-pair.ts'
import type { End } from './end.ts'
import type { Hello } from './frame.ts'

export interface Whole {
  readonly clock: Clock
  readonly pd: ProtectionDomain
  readonly qp: QueuedQp
  readonly promises: RequestPromises
  /** What this side announces in HELLO. */
  readonly limits: Pick<Hello, 'slotBytes' | 'maxMessageBytes'>
  readonly peer: {
    /** A request is complete. */
    addSign(): void
    /** A request was posted. */
    watchForLoss(): void
  }
  /** Set when the messages have ended. */
  readonly end: End | undefined
  /** Whether this side sends no more messages. */
  readonly isEnding: boolean
  /** Posts what can be posted. */
  pump(): void
  /** A request has failed. `isConsequence`: the reason is another failure, or the end of the connection. */
  fail(makeError: () => unknown, isConsequence: boolean): void
  /** Ends everything. */
  finish(end: End): void
  /** A wait of the program. An error gets the stack of its `await`. */
  withStack<T>(call: string, wait: Promise<T>): Promise<T>
}
