/*
 * Finds seeds of `--torment` by the share of a kind (src/drivers/rxe/torment/decisions.ts): the fraction of
 * opportunities in which the kind acts, 0 to 1.
 */
import { createDecisions } from '../../../../src/drivers/rxe/torment/decisions.ts'
import type { TormentKind } from '../../../../src/spec/check/torment.ts'

const shareOf = (seed: number, kind: TormentKind): number =>
  createDecisions({ seed, maxDecisions: Number.POSITIVE_INFINITY }).share(kind)

/** The first seed in which the share of `kind` is at least `minShare`. */
export const seedWith = (kind: TormentKind, minShare: number): number => {
  for (let seed = 0; ; seed++) if (shareOf(seed, kind) >= minShare) return seed
}

/** The first seed in which `kind` never acts. */
export const seedWithout = (kind: TormentKind): number => {
  for (let seed = 0; ; seed++) if (shareOf(seed, kind) === 0) return seed
}
