/*
 * Messages that an agent is receiving, and which of them makes room when there are too many: no peer can keep out the
 * messages of others by beginning many and finishing none.
 */
import type { MadFields } from '../wire/management.ts'
import type { SegmentReceiver } from './rmpp-receiver.ts'

export interface Receiving<P> {
  readonly mad: Uint8Array
  readonly fields: MadFields
  readonly from: P
  /** Its GID as text. */
  readonly peer: string
  readonly segments: SegmentReceiver
  deadline: number
}

export const peerOf = (gid: Uint8Array): string => gid.join()

/**
 * The newest unfinished message of the peer that has most by weight; undefined if `peer`, which needs the room, has as
 * much. `all`: the oldest first.
 */
export const newestOfLargest = <P>(
  all: Iterable<Receiving<P>>,
  peer: string,
  weightOf: (one: Receiving<P>) => number,
): Receiving<P> | undefined => {
  const weights = new Map<string, number>()
  let [maxWeight, newest]: [number, Receiving<P> | undefined] = [0, undefined]
  for (const one of all) {
    if (one.segments.isComplete) continue
    const weight = (weights.get(one.peer) ?? 0) + weightOf(one)
    weights.set(one.peer, weight)
    if (weight >= maxWeight) [maxWeight, newest] = [weight, one]
  }
  return (weights.get(peer) ?? 0) < maxWeight ? newest : undefined
}
