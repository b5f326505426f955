/*
 * Runs every input of a target's corpus, if it has one, and a fixed number of mutated inputs from a fixed seed.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { inLongRun } from '../../long-run.ts'
import { watchCoverage } from './coverage.ts'
import { fuzz, readCorpus, runInput } from './fuzzer.ts'
import { targets } from './targets.ts'

/**
 * Executions by target in the long run: fewer for slow targets, more for the engine. `npm test` has a tenth of them.
 */
const EXECUTIONS: Readonly<Record<string, number>> = {
  engine: 8000,
  'calls-object': 600,
  'calls-write': 400,
  'calls-ioctl': 400,
  chain: 1000,
  ucma: 2000,
  mads: 4000,
  agents: 4000,
  umad: 1500,
}
const DEFAULT_EXECUTIONS = 3000

describe('fuzzing', () => {
  for (const target of targets) {
    const executions = Math.ceil((EXECUTIONS[target.name] ?? DEFAULT_EXECUTIONS) / inLongRun(1, 10))
    const corpus = readCorpus(target)
    if (corpus.length > 0)
      it(`${target.name}: no findings in the corpus`, () => {
        for (const { bytes } of corpus) runInput(target, bytes)
      })
    it(`${target.name}: no findings in ${executions} inputs`, () => {
      const coverage = watchCoverage('/dist/src/')
      const result = fuzz(target, 1, coverage, executed => executed < executions)
      coverage.stop()
      assert.ok(result.kept.length > 1, 'nothing was reached')
    })
  }
})
