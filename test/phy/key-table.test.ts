import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { createKeyTable } from '../../src/phy/key-table.ts'

describe('key table', () => {
  it('behaves as a map with counts, through growth, collisions and removal', () => {
    const step = fc.record({ key: fc.integer({ min: 0, max: 120 }), take: fc.boolean() })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400, size: 'max' }), steps => {
        const table = createKeyTable(2)
        const model = new Map<number, { number: number; holders: number }>()
        for (const { key, take } of steps) {
          // Small numbers in one word, so that many hashes are close together.
          const words = Uint32Array.of(9, 0, key)
          const known = model.get(key)
          assert.equal(table.find(words, 1), known?.number ?? -1)
          if (take) {
            const number = table.take(words, 1)
            if (known) assert.equal(number, known.number)
            else assert.ok(![...model.values()].some(m => m.number === number), 'the number of a key in use')
            model.set(key, { number, holders: (known?.holders ?? 0) + 1 })
          } else if (known) {
            assert.equal(table.drop(known.number), known.holders === 1)
            if (--known.holders === 0) model.delete(key)
          }
          assert.equal(table.size, model.size)
        }
        for (const [key, { number, holders }] of model) {
          assert.equal(table.find(Uint32Array.of(0, key), 0), number)
          assert.equal(table.holders(number), holders)
        }
      }),
    )
  })

  it('reuses numbers, so it does not grow with use', () => {
    const table = createKeyTable(1)
    for (let i = 0; i < 10000; i++) table.drop(table.take(Uint32Array.of(i), 0))
    assert.equal(table.take(Uint32Array.of(1), 0), 0)
    assert.throws(() => table.drop(5), /has no holder/)
  })
})
