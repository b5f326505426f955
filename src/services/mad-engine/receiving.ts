/*
 * RMPP transfers that an agent is receiving. If there are too many transfers or bytes, a transfer of the peer with the
 * most is stopped. So a peer that finishes no transfers cannot block other peers.
 */
import type { MadFields } from '../../transport/wire/mad/management.ts'
import type { SegmentReceiver } from './rmpp-receiver.ts'

/** A transfer that is being received, or is complete and kept to acknowledge repeated segments. */
export interface Receiving<P> {
  /** The first datagram, with fields and path. */
  readonly mad: Uint8Array
  readonly fields: MadFields
  readonly from: P
  /** `peerOf` of the path. */
  readonly peer: string
  readonly segments: SegmentReceiver
  /** When the transfer is dropped, µs. */
  deadline: number
  /** Bytes charged for it. */
  charged: number
}

/**
 * The newest incomplete transfer of the peer with the largest sum of `weightOf`; undefined if `peer`, which needs the
 * space, has as large a sum. `transfers`: oldest first.
 */
export const newestOfLargest = <P>(
  transfers: Iterable<Receiving<P>>,
  peer: string,
  weightOf: (receiving: Receiving<P>) => number,
): Receiving<P> | undefined => {
  const weights = new Map<string, number>()
  let maxWeight = 0
  let newest: Receiving<P> | undefined
  for (const receiving of transfers) {
    if (receiving.segments.isComplete) continue
    const weight = (weights.get(receiving.peer) ?? 0) + weightOf(receiving)
    weights.set(receiving.peer, weight)
    if (weight < maxWeight) continue
    maxWeight = weight
    newest = receiving
  }
  return (weights.get(peer) ?? 0) < maxWeight ? newest : undefined
}
