/*
 * The clock of engines and devices.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nowMicroseconds, waitAtLeast } from '../../../src/host/event-loop/clock.ts'
import { yieldProcessor } from '../../../src/host/event-loop/yield.ts'

test('the clock counts microseconds and never goes back', () => {
  const start = process.hrtime.bigint()
  const first = nowMicroseconds()
  let last = first
  for (let i = 0; i < 1000; i++) {
    const now = nowMicroseconds()
    assert.ok(now >= last)
    last = now
    yieldProcessor()
  }
  const wholeTime = Number(process.hrtime.bigint() - start) / 1000
  assert.ok(last > first)
  assert.ok(last - first <= wholeTime + 1, `${last - first} µs within ${wholeTime} µs of wall time`)
  assert.ok(last - first > wholeTime / 100, 'the unit is microseconds')
})

test('a wait is not shorter, wherever in a millisecond it begins', async () => {
  // A timer of Node is early in about one of 50.
  for (let i = 0; i < 200; i++) {
    const turn = nowMicroseconds()
    while (nowMicroseconds() - turn < (i % 20) * 50) yieldProcessor()
    const start = nowMicroseconds()
    await waitAtLeast(2, true)
    assert.ok(nowMicroseconds() - start >= 2000, `${nowMicroseconds() - start} µs`)
  }
})
