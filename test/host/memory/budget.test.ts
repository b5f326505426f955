/*
 * Waiting times of users.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { ETIMEDOUT } from '../../../src/host/errno.ts'
import {
  charged,
  chargedRequest,
  isUsedUp,
  MAX_WAIT,
  untilRequests,
  whenAffordable,
} from '../../../src/host/memory/budget.ts'
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
    uid,
    wait(microseconds: number, answer = 0): number {
      const mover = { waited: () => microseconds, delayed: () => 0 } as Mover
      let given = 0
      const result = charged(uid, mover, timeout => {
        given = timeout
        return answer
      })
      if (given === 0) return result
      assert.equal(result, answer)
      return given
    },
    /** Charges a call that waits so long for a processor. */
    delay(microseconds: number): void {
      charged(uid, { waited: () => 0, delayed: () => microseconds } as Mover, () => 0)
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

test('a user whose requests have waited for a processor gets no less time for waits, and pauses', t => {
  const { wait, delay, sleep, uid } = setUp(t)
  delay(3600e6)
  assert.equal(untilRequests(uid), 0, 'of its queues')
  for (let i = 0; i < 10; i++) {
    assert.equal(untilRequests(uid), 0)
    chargedRequest(uid, () => delay(MAX_WAIT / 10))
  }
  assert.ok(untilRequests(uid) > 0)
  assertNear(wait(0), MAX_WAIT)
  for (const last of [100_000, 3600e6]) {
    const before = untilRequests(uid)
    chargedRequest(uid, () => delay(last))
    // at a twentieth of the time, and at most for what can be saved up
    assertNear(untilRequests(uid) - before, 20 * Math.min(last, MAX_WAIT - 100_000))
  }
  const pause = untilRequests(uid)
  sleep(pause / 2)
  assert.ok(untilRequests(uid) > 0)
  sleep(pause / 2)
  assert.equal(untilRequests(uid), 0)
  assert.equal(untilRequests(setUp(t).uid), 0)
})

test('a mapping that waits is charged in full; further ones are made when the time is regained, in their order', t => {
  const { uid, sleep, wait } = setUp(t)
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const made: string[] = []
  whenAffordable(uid, () => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    sleep(1_000_000)
    made.push('slept')
  })
  assert.ok(isUsedUp(uid))
  assert.equal(wait(0), -ETIMEDOUT)
  whenAffordable(uid, () => made.push('second'))
  whenAffordable(uid, () => made.push('third'))
  const late = 1_000_000 - MAX_WAIT
  sleep(late * 20)
  t.mock.timers.tick((late * 20) / 1000)
  assert.deepEqual(made, ['slept'])
  sleep(40_000)
  t.mock.timers.tick(40)
  assert.deepEqual(made, ['slept', 'second', 'third'])
})
