import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { hashWords } from '../../../../src/drivers/mlx5/raw/keyed-hash.ts'

describe('the hash of flow rules', () => {
  it('differs for words whose differences cancel out in a product', () => {
    // (a ^ 2^31) · c = a · c ^ 2^31, whatever a and the odd c: the next word takes the difference back, shifted by some
    // bits
    const pairs = 10
    fc.assert(
      fc.property(fc.nat(0xffff_ffff), fc.nat(31), (key, shift) => {
        const back = (0x8000_0000 ^ (0x8000_0000 >>> shift)) >>> 0
        const hashes = Array.from({ length: 2 ** pairs }, (_, choice) => {
          const words = new Uint32Array(2 * pairs)
          for (let i = 0; i < pairs; i++) if ((choice >> i) & 1) words.set([0x8000_0000, back], 2 * i)
          return hashWords(key, words, words.length)
        })
        assert.ok(new Set(hashes).size > hashes.length - 4)
      }),
      { numRuns: 32 },
    )
  })

  it('depends on the key, on every word, and on no more than these', () => {
    fc.assert(
      fc.property(fc.nat(0xffff_fffe), fc.uint32Array({ minLength: 1, maxLength: 8 }), fc.nat(), (key, words, pick) => {
        const hash = hashWords(key, words, words.length)
        assert.equal(hashWords(key, Uint32Array.of(...words, 1), words.length), hash)
        assert.notEqual(hashWords(key + 1, words, words.length), hash)
        const other = words.slice()
        other[pick % words.length]! ^= 1 << (pick & 31)
        assert.notEqual(hashWords(key, other, words.length), hash)
      }),
      { seed: 1 },
    )
  })
})
