/*
 * Seeds of torment by what they do.
 */
import { createDecisions } from '../../../../src/drivers/rxe/torment/decisions.ts'
import type { TormentKind } from '../../../../src/spec/check/torment.ts'

const shareOf = (seed: number, kind: TormentKind): number =>
  createDecisions({ seed, most: Number.POSITIVE_INFINITY }).share(kind)

/** The first seed in which `kind` takes at least this share of its opportunities. */
export const seedWith = (kind: TormentKind, minShare: number): number => {
  for (let seed = 0; ; seed++) if (shareOf(seed, kind) >= minShare) return seed
}

/** The first seed without `kind`. */
export const seedWithout = (kind: TormentKind): number => {
  for (let seed = 0; ; seed++) if (shareOf(seed, kind) === 0) return seed
}
