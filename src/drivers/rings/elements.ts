/*
 * Scatter/gather elements of a ring in the engine's layout (transport/engine/types.ts, Sge).
 */

import type { Ring } from '../../core/memory/rings.ts'
import { RingSge } from '../../spec/drivers/mapped-rings.ts'
import { Sge } from '../../transport/engine/types.ts'

/**
 * Copies `count` elements from byte offset `from` of the ring's buffer to word `at` of `into`. The caller bounds
 * `count`. Returns the sum of the lengths, which may be above 2^32.
 */
export const copySges = (ring: Ring, from: number, count: number, into: Uint32Array, at: number): number => {
  let total = 0
  const { words } = ring.area
  for (let i = 0, source = from >> 2, target = at; i < count; i++, source += RingSge.BYTES >> 2, target += Sge.WORDS) {
    const length = words[source + (RingSge.LENGTH >> 2)] >>> 0
    into[target + Sge.LO] = words[source + (RingSge.ADDRESS >> 2)]
    into[target + Sge.HI] = words[source + (RingSge.ADDRESS >> 2) + 1]
    into[target + Sge.LENGTH] = length
    into[target + Sge.LKEY] = words[source + (RingSge.LKEY >> 2)]
    total += length
  }
  return total
}
