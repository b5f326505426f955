/*
 * The table that remembers the newest packets of a ladder.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Recent } from '../../web/ladder/recent.ts'

const LEAST = 8

describe('a table of recent entries', () => {
  it('has the newest value of at least the newest keys', () => {
    const key = fc.oneof(
      fc.nat({ max: 30 }),
      fc.nat({ max: 30 }).map(i => i * 2 ** 48),
      fc.nat({ max: 2 ** 53 - 1 }),
    )
    fc.assert(
      fc.property(fc.array(key, { maxLength: 100, size: 'max' }), keys => {
        const table = new Recent<number>(LEAST)
        const newest = new Map<number, number>()
        for (const [i, one] of keys.entries()) {
          table.set(one, i)
          newest.delete(one)
          newest.set(one, i)
          for (const [known, value] of [...newest].slice(-LEAST)) assert.equal(table.get(known), value)
          for (const known of keys) {
            const value = table.get(known)
            assert.ok(value === undefined || value === newest.get(known))
          }
        }
      }),
    )
  })
})
