import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nowMicroseconds } from '../../../src/host/event-loop/clock.ts'
import { yieldOnce } from '../../../src/host/event-loop/yield.ts'

test('after a long yield there is none for 20 ms, however long the yield took', () => {
  const beforeYield = nowMicroseconds()
  // This yield begins 30 ms ago, so it takes at least 30 ms.
  assert.equal(yieldOnce(beforeYield - 30_000), true)
  assert.equal(yieldOnce(beforeYield), false)
  assert.equal(yieldOnce(nowMicroseconds() + 20_000), true)
})
