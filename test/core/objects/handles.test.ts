/*
 * The table of handles.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createHandles, findHandle, freeHandle, takeHandle } from '../../../src/core/objects/handles.ts'

test('a new handle is the lowest free number', () => {
  /** The other steps free a handle. */
  const TAKE = -1
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.constant(TAKE), fc.nat(40)), { maxLength: 300, size: 'max' }), steps => {
      const table = createHandles<string>()
      const taken = new Map<number, string>()
      for (const [i, step] of steps.entries()) {
        const held = [...taken.keys()]
        if (step === TAKE || held.length === 0) {
          let lowest = 0
          while (taken.has(lowest)) lowest++
          assert.equal(takeHandle(table, `v${i}`), lowest)
          taken.set(lowest, `v${i}`)
        } else {
          const handle = held[step % held.length]
          freeHandle(table, handle)
          taken.delete(handle)
        }
        assert.equal(table.count, taken.size)
        for (let handle = 0; handle < 45; handle++) assert.equal(findHandle(table, handle), taken.get(handle))
      }
    }),
    { numRuns: 200 },
  )
})

test('numbers that are not handles find nothing', () => {
  const table = createHandles<string>()
  takeHandle(table, 'x')
  for (const wrong of [-1, 0.5, Number.NaN, 2 ** 32 - 1, 1]) assert.equal(findHandle(table, wrong), undefined)
  assert.throws(() => freeHandle(table, 1), /free already/)
})

test('an emptied table keeps no memory of its former size', () => {
  const table = createHandles<number>()
  for (let i = 0; i < 10_000; i++) takeHandle(table, i)
  for (let i = 0; i < 10_000; i++) freeHandle(table, i)
  assert.equal(table.slots.length + table.free.length, 0)
  assert.equal(takeHandle(table, 1), 0)
})
