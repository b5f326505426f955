/*
 * Scatter/gather elements from a ring, in the layout that engines read (transport/types.ts, Sge). How many may be read
 * is the caller's to bound.
 */
import { RingSge } from '../../spec/drivers/rxe-rings.ts'
import { Sge } from '../../transport/types.ts'
import type { Ring } from './rings.ts'

/** Copies `count` elements; answers the sum of their lengths, which may be above 2^32. */
export const copySges = (ring: Ring, from: number, count: number, into: Uint32Array, at: number): number => {
  let total = 0
  const { view } = ring.area
  for (let i = 0, source = from, to = at; i < count; i++, source += RingSge.BYTES, to += Sge.WORDS) {
    const length = view.getUint32(source + RingSge.LENGTH, true)
    into[to + Sge.LO] = view.getUint32(source + RingSge.ADDRESS, true)
    into[to + Sge.HI] = view.getUint32(source + RingSge.ADDRESS + 4, true)
    into[to + Sge.LENGTH] = length
    into[to + Sge.LKEY] = view.getUint32(source + RingSge.LKEY, true)
    total += length
  }
  return total
}
