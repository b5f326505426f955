/*
 * The order of requests of one send queue (IBA 10.8.3.3, the table of work request ordering): SENDs and WRITEs have
 * ended at the peer before any later request begins. READs and atomics may still be outstanding when a later SEND,
 * WRITE or atomic is executed, unless that one, or one between them, has the fence indicator.
 */
import { AccessKind, type Range } from './shadow.ts'

/** `RECEIVE`: a message that fills a receive buffer. `OTHER`: no access to memory. */
export type RequestKind = 'SEND' | 'WRITE' | 'READ' | 'ATOMIC' | 'RECEIVE' | 'OTHER'

/** Whether a request returns data to its poster. */
export const isFetching = (kind: RequestKind): boolean => kind === 'READ' || kind === 'ATOMIC'

/** A request for the order within its queue. `fencesBefore`: number of fenced requests up to it, itself included. */
export interface Queued {
  readonly kind: RequestKind
  readonly fencesBefore: number
}

/** Whether an access of a request has ended before that of a later request of the same queue. */
export const isOrderedInQueue = (first: Queued, access: Range, second: Queued, later: Range): boolean =>
  !isFetching(first.kind) ||
  second.kind === 'READ' ||
  second.fencesBefore > first.fencesBefore ||
  // Responses come in the order of their requests.
  (access.kind === AccessKind.RESULT && later.kind === AccessKind.RESULT)
