/*
 * Ranges that do not overlap, against a search through all of them.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Range, RangeList } from '../../../src/core/memory/range-list.ts'

const operation = fc.record({
  isAdding: fc.boolean(),
  start: fc.integer({ min: 0, max: 60 }),
  length: fc.integer({ min: 1, max: 8 }),
})

test('ranges are found by address, and removed, as by a search through all', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 60, size: 'max' }), operations => {
      const list = new RangeList<Range>()
      let all: Range[] = []
      for (const { isAdding, start, length } of operations) {
        const end = start + length
        const overlapping = all.filter(range => range.start < end && start < range.end)
        assert.deepEqual(list.overlapping(start, end), overlapping)
        if (isAdding && overlapping.length === 0) {
          const range = { start, end }
          list.add(range)
          all = [...all, range].sort((a, b) => a.start - b.start)
        } else if (isAdding) {
          assert.equal(list.remove({ start, end }), false)
          assert.equal(list.remove(overlapping[0]!), true)
          all = all.filter(range => range !== overlapping[0])
        } else {
          assert.deepEqual(list.removeOverlapping(start, end), overlapping)
          all = all.filter(range => !overlapping.includes(range))
        }
        assert.equal(list.size, all.length)
        for (let address = 0; address < 70; address++)
          assert.equal(
            list.at(address),
            all.find(range => range.start <= address && address < range.end),
          )
      }
    }),
  )
})
