/*
 * Waiting times of users.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { ETIMEDOUT } from '../../../src/host/errno.ts'
import { charged, MAX_WAIT } from '../../../src/host/memory/budget.ts'
import type { Mover } from '../../../src/host/memory/mover.ts'

let users = 5_000_000

/**
 * A new user, and a stopped clock. `wait` charges a call that waits and then answers `answer`. It returns the timeout
 * that the call got, or the errno if the call was not made.
 */
const setUp = (t: TestContext) => {
  const uid = users++
  let milliseconds = performance.now()
  t.mock.method(performance, 'now', () => milliseconds)
  return {
    wait(microseconds: number, answer = 0): number {
      const mover = { waited: () => microseconds } as Mover
      let given = 0
      const result = charged(uid, mover, timeout => {
        given = timeout
        return answer
      })
      if (given === 0) return result
      assert.equal(result, answer)
      return given
    },
    sleep(microseconds: number): void {
      milliseconds += microseconds / 1000
    },
  }
}

const assertNear = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1, `${actual} is not about ${expected}`)

test('each call gets the remaining time as timeout; a twentieth of the time is regained, up to the maximum', t => {
  const { wait, sleep } = setUp(t)
  assertNear(wait(100_000), MAX_WAIT)
  assertNear(wait(50_000), MAX_WAIT - 100_000)
  // 50 ms are regained.
  sleep(1_000_000)
  assertNear(wait(0), MAX_WAIT - 100_000)
  assertNear(wait(0), MAX_WAIT - 100_000)
  sleep(3_600_000_000)
  assertNear(wait(0), MAX_WAIT)
})

test('without remaining time there is no call; a timeout uses all time; other users are not affected', t => {
  const { wait, sleep } = setUp(t)
  assertNear(wait(10, -ETIMEDOUT), MAX_WAIT)
  assert.equal(wait(0), -ETIMEDOUT)
  // 950 µs are regained, less than the minimum of a millisecond.
  sleep(19_000)
  assert.equal(wait(0), -ETIMEDOUT)
  assertNear(setUp(t).wait(0), MAX_WAIT)
})

test('a call with at least a millisecond left is made', t => {
  const { wait, sleep } = setUp(t)
  wait(10, -ETIMEDOUT)
  sleep(21_000)
  assertNear(wait(0), 21_000 / 20)
})
