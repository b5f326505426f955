/*
 * Random operations on random queue pairs over a hostile network (simulation.ts). USERDMA_MODEL_SEED=n runs only that
 * seed, with USERDMA_MODEL_OPERATIONS operations.
 */
import { describe, it } from 'node:test'
import { runModel } from './run.ts'

const OPERATIONS = 2500
const { USERDMA_MODEL_SEED: seed, USERDMA_MODEL_OPERATIONS: operations } = process.env
const seeds = seed === undefined ? Array.from({ length: 20 }, (_, i) => i + 1) : [Number(seed)]

describe('random operations over a hostile network', () => {
  for (const eachSeed of seeds)
    it(`complete as the model says, seed ${eachSeed}`, () => void runModel(eachSeed, Number(operations ?? OPERATIONS)))
})
