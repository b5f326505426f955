/*
 * Short runs of the model of rdma_cm (model.ts).
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { runModel } from './model.ts'

const SEEDS = 8
const STEPS = 1500

for (const hasLoss of [false, true])
  it(`events and states of identifiers match the model, ${hasLoss ? 'with' : 'without'} loss`, () => {
    let connections = 0
    for (let seed = 1; seed <= SEEDS; seed++) connections += runModel(seed, STEPS, hasLoss)
    assert.ok(connections > 300, `only ${connections} connections were established`)
  })
