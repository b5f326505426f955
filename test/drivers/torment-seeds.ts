/*
 * Finds seeds of `--torment` by the probability that a kind acts at an opportunity
 * (src/transport/phy/faults/torment-decisions.ts), 0 to 1.
 */

import { type TormentKind, tormentOf } from '../../src/spec/check/torment.ts'
import { createDecisions } from '../../src/transport/phy/faults/torment-decisions.ts'

const probabilityOf = (seed: number, kind: TormentKind): number => createDecisions(tormentOf(seed)).probability(kind)

/** The first seed in which the probability of `kind` is at least `min`, and `other` never acts. */
export const seedWith = (kind: TormentKind, min: number, other?: TormentKind): number => {
  for (let seed = 0; ; seed++)
    if (probabilityOf(seed, kind) >= min && (other === undefined || probabilityOf(seed, other) === 0)) return seed
}

/** The first seed in which `kind` never acts. */
export const seedWithout = (kind: TormentKind): number => {
  for (let seed = 0; ; seed++) if (probabilityOf(seed, kind) === 0) return seed
}
