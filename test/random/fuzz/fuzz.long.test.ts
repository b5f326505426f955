/*
 * Fuzzes for many minutes, with a new seed each time. The input of a finding is kept in the corpus.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { watchCoverage } from './coverage.ts'
import { Finding, fuzz, keepInput } from './fuzzer.ts'
import { targets } from './targets.ts'

/** Seconds per target; the engine gets most. */
const secondsFor = (name: string): number => (name === 'engine' ? 480 : 30)

describe('long fuzzing', () => {
  const seed = Date.now() & 0x7fff_ffff
  for (const target of targets)
    it(`${target.name}: no findings, seed ${seed}`, () => {
      const coverage = watchCoverage('/dist/src/')
      const end = Date.now() + 1000 * secondsFor(target.name)
      try {
        const { kept } = fuzz(target, seed, coverage, () => Date.now() < end)
        assert.ok(kept.length > 1, 'nothing was reached')
      } catch (error) {
        if (error instanceof Finding) keepInput(target, error.input, 'regression-')
        throw error
      } finally {
        coverage.stop()
      }
    })
})
