/*
 * The order of requests of one send queue (IBA 10.8.3.3, the table of work request ordering): a SEND or WRITE has ended
 * at the peer before any later request begins there. A READ or atomic may still be outstanding when a later SEND, WRITE
 * or atomic is executed, unless the later request, or one between the two, has the fence indicator.
 *
 * If both ends of a connection use the same memory, requests of one queue access it at both ends. The accesses at the
 * requester are not ordered with those at the peer as the requests are.
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
export const isOrderedInQueue = (first: Queued, firstAccess: Range, second: Queued, secondAccess: Range): boolean => {
  const { SOURCE, RESULT, READ } = AccessKind
  if (isFetching(first.kind)) {
    if (second.fencesSoFar > first.fencesSoFar) return true
    // Responses come in the order of their requests.
    if (firstAccess.kind === RESULT && secondAccess.kind === RESULT) return true
    // The peer may read the second READ's data before it has sent the response to the first request.
    return second.kind === 'READ' && !(firstAccess.kind === RESULT && secondAccess.kind === READ)
  }
  // The requester may fetch the data of a request before earlier requests arrive at the peer. A fence does not delay
  // it.
  return firstAccess.kind === SOURCE || secondAccess.kind !== SOURCE
}
