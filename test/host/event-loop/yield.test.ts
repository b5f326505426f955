import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nowMicroseconds } from '../../../src/host/event-loop/clock.ts'
import { yieldOnce } from '../../../src/host/event-loop/yield.ts'

test('after a long yield there is none for 100 ms, however long the yield took', () => {
  const beforeYield = nowMicroseconds()
  // This yield begins 130 ms ago, so it takes at least 130 ms.
  assert.equal(yieldOnce(beforeYield - 130_000), true)
  assert.equal(yieldOnce(beforeYield), false)
  assert.equal(yieldOnce(nowMicroseconds() + 100_000), true)
})
