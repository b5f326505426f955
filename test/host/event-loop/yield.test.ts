import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nowMicroseconds } from '../../../src/host/event-loop/clock.ts'
import { yieldOnce } from '../../../src/host/event-loop/yield.ts'

test('after a long yield there is none for 20 ms, however long the yield took', () => {
  const begin = nowMicroseconds()
  // a yield of 30 ms or more, by its begin
  assert.equal(yieldOnce(begin - 30_000), true)
  assert.equal(yieldOnce(begin), false)
  assert.equal(yieldOnce(nowMicroseconds() + 20_000), true)
})
