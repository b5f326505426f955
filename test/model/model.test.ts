/*
 * Random operations on random queue pairs over a hostile network (world.ts), by seed. A failure prints the seed and
 * what happened last; `USERDMA_MODEL_SEED=n` runs that seed alone.
 */
import { describe, it } from 'node:test'
import { runModel } from './run.ts'

describe('random operations over a hostile network', () => {
  for (const seed of [1, 2, 3, 4, 5]) it(`keep their meaning, seed ${seed}`, () => void runModel(seed, 10_000))
})
