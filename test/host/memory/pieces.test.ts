/*
 * The bounds of copies: pieces of `chunk` bytes, `stride` bytes apart, `total` bytes together.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { requirePieces } from '../../../src/host/memory/pieces.ts'

const BYTES = 64
const local = { address: 4096, bytes: new Uint8Array(BYTES) }

test('pieces that are not inside the memory, or overlap, are refused', () => {
  const number = fc.integer({ min: -2, max: BYTES + 2 })
  fc.assert(
    fc.property(number, number, number, fc.integer({ min: 1, max: BYTES + 2 }), (offset, chunk, stride, total) => {
      let isValid = offset >= 0 && chunk > 0 && stride >= chunk
      if (isValid)
        for (let done = 0, at = offset; done < total; done += chunk, at += stride)
          isValid &&= at + Math.min(chunk, total - done) <= BYTES
      const require = (): void => requirePieces(local, offset, chunk, stride, total)
      if (isValid) require()
      else assert.throws(require, RangeError)
    }),
    { numRuns: 2000 },
  )
  requirePieces(local, 0, BYTES, BYTES, BYTES)
  // The stride after the last piece may lead outside.
  requirePieces(local, 60, 4, 100, 4)
  for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY])
    assert.throws(() => requirePieces(local, wrong, 4, 4, 4), RangeError)
})
