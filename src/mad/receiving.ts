/*
 * RMPP transfers that an agent is receiving, and the choice of the one to stop when there are too many, or too many
 * bytes: one of the peer with the most, so that a peer that finishes no transfers cannot keep out those of other peers.
 */
import type { MadFields } from '../wire/mad/management.ts'
import type { SegmentReceiver } from './rmpp-receiver.ts'

/** A transfer that is being received, or is complete and still acknowledged. */
export interface Receiving<P> {
  /** Its first datagram, with fields and path. */
  readonly mad: Uint8Array
  readonly fields: MadFields
  readonly from: P
  /** The peer's GID as text. */
  readonly peer: string
  readonly segments: SegmentReceiver
  /** When it is dropped, µs. */
  deadline: number
}

/** A GID as text. */
export const peerOf = (gid: Uint8Array): string => gid.join()

/**
 * The newest incomplete transfer of the peer with the largest sum of `weightOf`; undefined if the sum of `peer`, whose
 * transfer needs the space, is as large. `transfers` are ordered by age, oldest first.
 */
export const newestOfLargest = <P>(
  transfers: Iterable<Receiving<P>>,
  peer: string,
  weightOf: (receiving: Receiving<P>) => number,
): Receiving<P> | undefined => {
  const weights = new Map<string, number>()
  let [maxWeight, newest]: [number, Receiving<P> | undefined] = [0, undefined]
  for (const receiving of transfers) {
    if (receiving.segments.isComplete) continue
    const weight = (weights.get(receiving.peer) ?? 0) + weightOf(receiving)
    weights.set(receiving.peer, weight)
    if (weight >= maxWeight) [maxWeight, newest] = [weight, receiving]
  }
  return (weights.get(peer) ?? 0) < maxWeight ? newest : undefined
}
