/* Times of the connection manager, and the queue of deadlines. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ackTimeout, fromExponent } from '../../../src/services/cm-engine/timeout.ts'
import { type Timed, TimerQueue } from '../../../src/services/cm-engine/timer-queue.ts'

test('exponent n is 4.096 µs times 2^n', () => {
  assert.equal(fromExponent(0), 4.096)
  assert.equal(Math.round(fromExponent(20)), 4294967)
})

test('an ACK timeout is from 4/5 to 4/3 of the sum of the ACK delay and twice the packet life time', () => {
  const MAX_EXPONENT = 31
  for (let delay = 0; delay <= MAX_EXPONENT; delay++) {
    for (let life = 0; life <= MAX_EXPONENT; life++) {
      const needed = 2 * 2 ** life + 2 ** delay
      const exponent = ackTimeout(delay, life)
      assert.ok(2 ** exponent * 3 <= needed * 4, `${delay} ${life}: exponent ${exponent} is too large`)
      // The maximum exponent may be too small.
      if (exponent < MAX_EXPONENT)
        assert.ok(2 ** exponent * 5 >= needed * 4, `${delay} ${life}: exponent ${exponent} is too small`)
    }
  }
  assert.equal(ackTimeout(15, 18), 19)
  assert.equal(ackTimeout(31, 31), 31)
})

test('deadlines expire in order after any sets, changes and clears', () => {
  const NOW = 25
  const operations = fc.array(fc.tuple(fc.nat(9), fc.option(fc.nat(50))), { maxLength: 60, size: 'max' })
  fc.assert(
    fc.property(operations, list => {
      const queue = new TimerQueue<Timed>()
      const entries = Array.from({ length: 10 }, () => ({ deadline: 0, heapIndex: -1 }))
      const expected = new Map<Timed, number>()
      for (const [index, deadline] of list) {
        const entry = entries[index]!
        if (deadline === null) {
          queue.clear(entry)
          expected.delete(entry)
        } else {
          queue.set(entry, deadline)
          expected.set(entry, deadline)
        }
        assert.equal(queue.next, Math.min(...expected.values()))
      }
      const taken: number[] = []
      for (let entry = queue.take(NOW); entry; entry = queue.take(NOW)) taken.push(entry.deadline)
      assert.deepEqual(
        taken,
        [...expected.values()].filter(deadline => deadline <= NOW).sort((a, b) => a - b),
      )
      assert.equal(queue.next, Math.min(...[...expected.values()].filter(deadline => deadline > NOW)))
    }),
  )
})
