/*
 * The timer heap, compared with a map.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import fc from 'fast-check'
import { clearTimer, createTimers, nextDeadline, setTimer, takeExpired } from '../../../src/transport/engine/timers.ts'

const row = fc.nat({ max: 40 })
const set = fc.record({ kind: fc.constant('set' as const), row, deadline: fc.nat({ max: 1000 }) })
const action = fc.oneof(
  // Most actions set a timer, so that the heap grows.
  { arbitrary: set, weight: 6 },
  fc.record({ kind: fc.constant('clear' as const), row }),
  fc.record({ kind: fc.constant('expire' as const), now: fc.nat({ max: 1000 }) }),
)

it('timers expire at the deadline that was set last, earliest first', () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60, size: 'max' }), actions => {
      const timers = createTimers()
      const deadlineByRow = new Map<number, number>()
      for (const action of actions) {
        if (action.kind === 'expire') {
          const due = [...deadlineByRow.values()].filter(deadline => deadline <= action.now).sort((a, b) => a - b)
          const expired: number[] = []
          for (let row = takeExpired(timers, action.now); row >= 0; row = takeExpired(timers, action.now)) {
            expired.push(deadlineByRow.get(row) ?? -1)
            deadlineByRow.delete(row)
          }
          assert.deepEqual(expired, due)
        } else if (action.kind === 'set') {
          setTimer(timers, action.row, action.deadline)
          deadlineByRow.set(action.row, action.deadline)
        } else {
          clearTimer(timers, action.row)
          deadlineByRow.delete(action.row)
        }
        assert.equal(nextDeadline(timers), Math.min(Number.POSITIVE_INFINITY, ...deadlineByRow.values()))
      }
    }),
  )
})
