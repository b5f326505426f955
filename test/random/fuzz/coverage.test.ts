/*
 * Coverage of code with nested functions.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { watchCoverage } from './coverage.ts'

const outer = (depth: number): number => {
  const inner = (): number => depth + 1
  return inner() + inner()
}

test('`countNew` and `recordNew` count each character once, also in nested functions', () => {
  const coverage = watchCoverage('coverage.test')
  try {
    outer(1)
    const counted = coverage.countNew()
    outer(1)
    assert.equal(coverage.recordNew(), counted)
    assert.ok(counted > 0)
    outer(1)
    assert.equal(coverage.countNew(), 0)
  } finally {
    coverage.stop()
  }
})
