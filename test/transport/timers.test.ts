/*
 * The timer heap against a plain list: random sequences of set, clear and expire, with growth.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import fc from 'fast-check'
import { clearTimer, createTimers, nextDeadline, setTimer, takeExpired } from '../../src/transport/timers.ts'

const row = fc.nat({ max: 12 })
const action = fc.oneof(
  fc.record({ kind: fc.constant('set' as const), row, at: fc.nat({ max: 1000 }) }),
  fc.record({ kind: fc.constant('clear' as const), row }),
  fc.record({ kind: fc.constant('expire' as const), at: fc.nat({ max: 1000 }) }),
)

it('timers expire exactly at their last setting, earliest first', () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), actions => {
      const timers = createTimers()
      const model = new Map<number, number>()
      for (const a of actions) {
        if (a.kind === 'expire') {
          const due = [...model].filter(([, at]) => at <= a.at).sort((x, y) => x[1] - y[1])
          const taken: number[] = []
          for (let r = takeExpired(timers, a.at); r >= 0; r = takeExpired(timers, a.at)) {
            taken.push(model.get(r) ?? -1)
            model.delete(r)
          }
          assert.deepEqual(
            taken,
            due.map(([, at]) => at),
          )
        } else {
          if (a.kind === 'set') {
            setTimer(timers, a.row, a.at)
            model.set(a.row, a.at)
          } else {
            clearTimer(timers, a.row)
            model.delete(a.row)
          }
        }
        assert.equal(nextDeadline(timers), Math.min(Number.POSITIVE_INFINITY, ...model.values()))
      }
    }),
  )
})
