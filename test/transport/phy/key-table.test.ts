/*
 * Numbers of keys (src/transport/phy/key-table.ts).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { createKeyTable } from '../../../src/transport/phy/key-table.ts'

describe('key table', () => {
  it('behaves as a map with counts, through growth, collisions and removal', () => {
    const step = fc.record({ key: fc.integer({ min: 0, max: 120 }), isAcquire: fc.boolean() })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400, size: 'max' }), steps => {
        const table = createKeyTable(2)
        const model = new Map<number, { number: number; refCount: number }>()
        for (const { key, isAcquire } of steps) {
          // The key is the second and third word.
          const words = Uint32Array.of(9, 0, key)
          const existing = model.get(key)
          assert.equal(table.find(words, 1), existing?.number ?? -1)
          if (isAcquire) {
            const number = table.acquire(words, 1)
            if (existing) assert.equal(number, existing.number)
            else assert.ok(![...model.values()].some(m => m.number === number), 'the number of a key in use')
            model.set(key, { number, refCount: (existing?.refCount ?? 0) + 1 })
          } else if (existing) {
            assert.equal(table.release(existing.number), existing.refCount === 1)
            if (--existing.refCount === 0) model.delete(key)
          }
          assert.equal(table.size, model.size)
        }
        for (const [key, { number, refCount }] of model) {
          assert.equal(table.find(Uint32Array.of(0, key), 0), number)
          assert.equal(table.refCount(number), refCount)
        }
      }),
    )
  })

  it('reuses the numbers of released keys, so it does not grow', () => {
    const table = createKeyTable(1)
    const { length } = table.keys
    for (let i = 0; i < 10000; i++) {
      assert.equal(table.acquire(Uint32Array.of(i), 0), 0)
      table.release(0)
    }
    assert.equal(table.keys.length, length)
  })

  it('refuses to release a number without a reference', () => {
    const table = createKeyTable(1)
    table.release(table.acquire(Uint32Array.of(9), 0))
    for (const number of [0, 5]) assert.throws(() => table.release(number), /has no reference/)
  })
})
