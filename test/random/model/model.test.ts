/*
 * Random operations on random queue pairs over a hostile network (simulation.ts). USERDMA_MODEL_SEED=n runs only that
 * seed, with USERDMA_MODEL_OPERATIONS operations.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { inLongRun } from '../../long-run.ts'
import { createStatistics } from './checks.ts'
import { runModel } from './run.ts'

const OPERATIONS = 2500
const { USERDMA_MODEL_SEED: seed, USERDMA_MODEL_OPERATIONS: operations } = process.env
const seeds = seed === undefined ? Array.from({ length: inLongRun(20, 10) }, (_, i) => i + 1) : [Number(seed)]

describe('random operations over a hostile network', () => {
  const total = createStatistics()
  for (const eachSeed of seeds)
    it(`complete as the model says, seed ${eachSeed}`, () => {
      const statistics = runModel(eachSeed, Number(operations ?? OPERATIONS))
      for (const name of Object.keys(total) as (keyof typeof total)[]) total[name] += statistics[name]
    })

  it('complete in every way, most with success', { skip: seed !== undefined && 'one seed is too few' }, () => {
    const { succeeded, failed, flushed, messages, lives, unpredictable, attacks } = total
    const numbers = JSON.stringify(total)
    assert.ok(succeeded > 20 * (failed + flushed), numbers)
    assert.ok(failed > 100 && flushed > 500 && messages > 10_000 && attacks > 5, numbers)
    assert.ok(unpredictable < lives / 2, numbers)
  })
})
