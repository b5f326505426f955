/*
 * The order of requests of one send queue (IBA 10.8.3.3, the table of work request ordering): a SEND or WRITE has ended
 * at the peer before any later request begins there. A READ or atomic may still be outstanding when a later SEND, WRITE
 * or atomic is executed, unless the later request, or one between the two, has the fence indicator.
 */
import { AccessKind, type Range } from './shadow.ts'

/** `RECEIVE`: a message that fills a receive buffer. `ATOMIC`: also ATOMIC WRITE. `OTHER`: no checked access. */
export type RequestKind = 'SEND' | 'WRITE' | 'READ' | 'ATOMIC' | 'RECEIVE' | 'OTHER'

/** Whether a request may still be outstanding when later requests are executed. */
export const isFetching = (kind: RequestKind): boolean => kind === 'READ' || kind === 'ATOMIC'

/** The fields of a request that decide its order within its queue. */
export interface Queued {
  readonly kind: RequestKind
  /** Number of fenced requests of the queue up to and including this one. */
  readonly fencesSoFar: number
}

/** Whether an access of a request has ended before the access of a later request of the same queue. */
export const isOrderedInQueue = (first: Queued, firstAccess: Range, second: Queued, secondAccess: Range): boolean =>
  !isFetching(first.kind) ||
  second.kind === 'READ' ||
  second.fencesSoFar > first.fencesSoFar ||
  // Responses come in the order of their requests.
  (firstAccess.kind === AccessKind.RESULT && secondAccess.kind === AccessKind.RESULT)
