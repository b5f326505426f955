/*
 * model.test.ts with 1,000,000 operations and other seeds.
 */
import { describe, it } from 'node:test'
import { runModel } from './run.ts'

describe('a million random operations over a hostile network', () => {
  for (let seed = 1000; seed < 1100; seed++)
    it(`complete as the model says, seed ${seed}`, () => void runModel(seed, 10_000))
})
