/*
 * Values that come from right ones by usual mistakes, src/tools/check/nearly.ts.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { nearAccess, nearly } from '../../../src/tools/check/nearly.ts'
import { KnownObjects } from '../../../src/tools/check/objects.ts'

const START = 0x55b7_8936_5000n
const SIZE = 0x1_0000n
const range = { value: START, size: SIZE, what: 'which is in the range' }
const KEY = 0x7e6d_1644n
const key = { value: KEY, what: 'a key of MR 0x7e6d1644' }
const lineOf = (value: bigint, bits: 64 | 32 | 24, known = bits === 64 ? range : key) =>
  nearly(value, bits, [known])?.line

test('an address in the range is found whatever was done to it', () => {
  const swap = (value: bigint): bigint =>
    BigInt(`0x${value.toString(16).padStart(16, '0').match(/../g)!.reverse().join('')}`)
  fc.assert(
    fc.property(
      fc.bigInt({ min: 1n, max: SIZE - 1n }),
      fc.bigInt({ min: 0x1_0000n, max: 0xffff_ffffn }),
      (offset, next) => {
        const address = START + offset
        assert.match(
          lineOf(swap(address), 64) ?? '',
          new RegExp(` is 0x${address.toString(16)}, .*in the other byte order$`),
        )
        assert.match(lineOf(BigInt.asUintN(32, address), 64) ?? '', /has the lower 32 bits of 0x55b7/)
        assert.match(lineOf((address >> 32n) | (next << 32n), 64) ?? '', /read 4 bytes too late, as from a struct/)
        assert.match(lineOf((address >> 8n) | (0xffn << 56n), 64) ?? '', /read a byte too late/)
        assert.match(lineOf((address << 8n) | 0xabn, 64) ?? '', /too early/)
      },
    ),
  )
})

test('values that come from none are left alone', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: START + SIZE, max: 0x7fff_ffff_ffffn }), value => {
      assert.equal(nearly(value, 64, [range]), undefined)
    }),
    { examples: [[START + SIZE]] },
  )
  assert.equal(lineOf(0n, 64), undefined)
  assert.equal(lineOf(0x1234_5678n, 32), undefined)
})

test('keys and numbers', () => {
  assert.match(lineOf(0x4416_6d7en, 32) ?? '', /^0x44166d7e is 0x7e6d1644, a key of MR .* in the other byte order$/)
  assert.match(lineOf(0x1644n, 32) ?? '', /^0x1644 has the lower 16 bits of 0x7e6d1644/)
  assert.match(lineOf(0xff7e_6d16n, 32) ?? '', /^the lower 3 bytes of 0xff7e6d16 are the upper ones of 0x7e6d1644/)
  const qp = { value: 0x12_3456n, what: 'the number of QP 0x123456' }
  for (const wrong of [0x5634_1200n, 0x34_1200n]) assert.match(lineOf(wrong, 24, qp) ?? '', /in the other byte order$/)
})

test('a value is named only if chance does not explain it', () => {
  // of 64 KiB 1 in 32,768 addresses fits, of their beginning one in 2^31
  assert.match(lineOf(0x8936_5000n << 32n, 64) ?? '', /^the upper 4 bytes of 0x8936500000000000 are the lower ones of/)
  assert.match(lineOf(0x8936_5010n << 32n, 64) ?? '', / may be shifted by 4 bytes/)
  // of two bytes, 1 of 65,536 fits
  assert.equal(lineOf(0x55b7n, 64), '0x55b7 may be shifted by 4 bytes, as from a struct of another layout')
  const many = Array.from({ length: 64 }, (_, i) => ({ value: 0x10_0100n + BigInt(i), what: `the number of QP ${i}` }))
  assert.equal(nearly(0x01_1000n, 24, many)?.line, '0x11000 may be in the other byte order')
  // a length that is a power of two is a frequent number
  const other = nearly(4096n, 64, [range], [{ value: 4096n, what: 'the length of MR 0x1' }])
  assert.match(other?.line ?? '', /^0x1000 may be another member of the struct/)
})

test('an offset is no address, and a value near the range is neither', () => {
  const objects = new KnownObjects(() => {})
  const access = (start: bigint, length: bigint): string | undefined =>
    nearAccess(objects, {
      ...{ start, end: start + length, range: { start: START, end: START + SIZE }, region: undefined, context: 1 },
    })?.line
  const lines = [64n, SIZE, START - 1n].map(start => access(start, 8n))
  assert.match(lines[0] ?? '', /^0x40 is less than the length of the range: an offset, an index or a length/)
  assert.deepEqual(lines.slice(1), [undefined, undefined])
  // 100 bytes in the other byte order; 1 MiB is 4 KiB in the other, and a usual length
  assert.equal(access(START, 0x6400_0000n), '0x64000000 may be in the other byte order')
  assert.equal(access(START, 0x10_0000n), undefined)
})

test('an index that was multiplied twice, and one that is too large', () => {
  const objects = new KnownObjects(() => {})
  const lineOfAccess = (offset: bigint, length: bigint): string | undefined =>
    nearAccess(objects, {
      ...{ start: START + offset, end: START + offset + length, range: { start: START, end: START + SIZE } },
      ...{ region: undefined, context: 1 },
    })?.line
  assert.equal(
    lineOfAccess(33n * 64n * 64n, 64n),
    'the offset 0x21000 is 33 times 64 times 64: an index may have been multiplied by the size of its element twice',
  )
  // the first element behind the range, one of a longer array, and no index of the range
  for (const offset of [SIZE, 33n * 64n * 64n + 64n, SIZE * 64n]) assert.equal(lineOfAccess(offset, 64n), undefined)
})
