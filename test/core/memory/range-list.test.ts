/*
 * Ranges that do not overlap, against a search through all of them.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
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

/** How many elements calls of `splice` have moved. */
const countMoves = (t: TestContext): (() => number) => {
  let moves = 0
  const { splice } = Array.prototype
  Array.prototype.splice = function (this: unknown[], ...args: [number, number]) {
    moves += this.length - args[0]
    return splice.apply(this, args)
  }
  t.after(() => {
    Array.prototype.splice = splice
  })
  return () => moves
}

const COUNT = 20_000
/** Linux's order of new mappings, and one in which neighbours are far apart. */
for (const [name, step] of [
  ['downwards', COUNT - 1],
  ['scattered', 7919],
] as const)
  test(`to add and remove one of very many ranges moves few others: ${name}`, t => {
    const moves = countMoves(t)
    const list = new RangeList<Range>()
    const ordered = Array.from({ length: COUNT }, (_, i) => ({ start: 10 * i, end: 10 * i + 5 }))
    const added = Array.from({ length: COUNT }, (_, i) => ordered[((i + 1) * step) % COUNT]!)
    for (const range of added) list.add(range)
    assert.equal(list.size, COUNT)
    for (const range of ordered) assert.equal(list.at(range.start + 4), range)
    assert.equal(list.at(7), undefined)
    assert.deepEqual(list.overlapping(0, 10 * COUNT), ordered)
    assert.deepEqual(list.removeOverlapping(13, 40_001), ordered.slice(1, 4001))
    for (const range of added.filter(({ start }) => start < 10 || start > 40_001))
      assert.equal(list.remove(range), true)
    assert.equal(list.size, 0)
    assert.ok(moves() < 2 * COUNT * 300, `${moves()} moved`)
  })
