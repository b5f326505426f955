/*
 * `Intervals` against a list, with random ranges that overlap.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Interval, Intervals } from '../../../../src/tools/check/lends/intervals.ts'

const step = fc.record({
  adds: fc.boolean(),
  start: fc.integer({ min: 0, max: 60 }),
  length: fc.integer({ min: 1, max: 30 }),
  asked: fc.integer({ min: 0, max: 90 }),
})

test('what is found is what a list of the ranges has', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: 'max' }), steps => {
      const intervals = new Intervals<number>()
      const list: Interval<number>[] = []
      for (const [i, { adds, start, length, asked }] of steps.entries()) {
        if (adds || list.length === 0) list.push(intervals.add(start, start + length, i))
        else intervals.remove(list.splice(start % list.length, 1)[0]!)
        assert.equal(intervals.size, list.length)
        const before = list.filter(range => range.start <= asked)
        assert.equal(
          intervals.farthest(asked)?.end,
          before.length === 0 ? undefined : Math.max(...before.map(({ end }) => end)),
        )
        const overlapping = list.filter(range => range.start < asked + length && range.end > asked)
        assert.deepEqual(
          new Set(intervals.overlapping(asked, asked + length)),
          new Set(overlapping.map(({ value }) => value)),
        )
        assert.equal(intervals.first()?.start, list.length === 0 ? undefined : Math.min(...list.map(r => r.start)))
      }
    }),
  )
})
