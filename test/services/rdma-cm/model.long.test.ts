/*
 * A long run of the model of rdma_cm (model.ts).
 */
import { it } from 'node:test'
import { runModel } from './model.ts'

const CONNECTIONS = 100_000
const STEPS = 20_000

it('100,000 connections: events and states of identifiers match the model', () => {
  let connections = 0
  for (let seed = 1; connections < CONNECTIONS; seed++) {
    const hasLoss = seed % 2 === 0
    connections += runModel(seed, STEPS, hasLoss)
  }
})
