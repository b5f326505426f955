/*
 * What messages tell of memory: found at any offset, in either byte order, and never in bytes that only look like it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AdvertisedKeys } from '../../../../src/tools/check/lends/messages.ts'

const RKEY = 0x1234_5678
const region = { device: 0, rkey: RKEY, iova: 0x7f00_0000_1000, length: 0x1_0000 }
const zeroBased = { device: 0, rkey: 0x8765_4321, iova: 0, length: 4096 }

const found = (message: Buffer, regions = [region]): (readonly [offset: number, length: number])[] => {
  const keys = new AdvertisedKeys<typeof region>()
  for (const one of regions) keys.add(one)
  const told: (readonly [number, number])[] = []
  const bytes = new Uint8Array(message)
  keys.find({ bytes, view: new DataView(bytes.buffer) }, bytes.length, ({ offset, length }) =>
    told.push([offset, length]),
  )
  return told
}

const word = (value: number, isLittle = true): Buffer => {
  const bytes = Buffer.alloc(4)
  if (isLittle) bytes.writeUInt32LE(value)
  else bytes.writeUInt32BE(value)
  return bytes
}
const long = (value: number, isLittle = true): Buffer => {
  const bytes = Buffer.alloc(8)
  if (isLittle) bytes.writeBigUInt64LE(BigInt(value))
  else bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}
const at = (offset: number, isLittle = true): Buffer => long(region.iova + offset, isLittle)

const rows: readonly (readonly [title: string, parts: readonly Buffer[], told: ReturnType<typeof found>])[] = [
  ['id, address, key, length', [long(7), at(64), word(RKEY), word(4096)], [[64, 4096]]],
  ['a long length before the key', [long(512), word(RKEY), at(0)], [[0, 512]]],
  ['a length behind the address', [word(RKEY), at(16), long(100)], [[16, 100]]],
  ['big endian', [at(64, false), word(RKEY, false), word(4096, false)], [[64, 4096]]],
  ['at an odd offset', [Buffer.alloc(3), at(64), word(RKEY), word(4096)], [[64, 4096]]],
  ['far behind the address', [at(64), long(256), Buffer.alloc(40), word(RKEY)], [[64, 256]]],
  ['too far behind the address', [at(64), long(256), Buffer.alloc(64), word(RKEY)], []],
  ['without a length', [long(0), at(64), word(RKEY), word(0)], []],
  ['a length of a word', [long(0), at(64), word(RKEY), word(8)], []],
  ['a length beyond the region', [long(0), at(64), word(RKEY), word(0x1_0000)], []],
  ['an address of no region', [long(0), at(0x1_0000), word(RKEY), word(64)], []],
  ['another key', [long(0), at(64), word(RKEY + 1), word(64)], []],
  [
    'two',
    [at(0), word(RKEY), word(64), at(64), word(RKEY), word(128)],
    [
      [0, 64],
      [64, 128],
    ],
  ],
]
for (const [title, parts, told] of rows) test(title, () => assert.deepEqual(found(Buffer.concat([...parts])), told))

test('an offset of a region that is zero-based', () => {
  const parts = [long(128), word(zeroBased.rkey), word(256)]
  assert.deepEqual(found(Buffer.concat(parts), [zeroBased]), [[128, 256]])
  assert.deepEqual(found(Buffer.concat([Buffer.alloc(2), ...parts]), [zeroBased]), [[128, 256]])
})

test('a key that is deregistered', () => {
  const keys = new AdvertisedKeys<typeof region>()
  keys.add(region)
  keys.add({ ...region, device: 1 })
  keys.delete(0, RKEY)
  const bytes = new Uint8Array(Buffer.concat([at(64), word(RKEY), word(64)]))
  const view = new DataView(bytes.buffer)
  const devices: number[] = []
  const look = (): void => keys.find({ bytes, view }, bytes.length, told => devices.push(told.region.device))
  look()
  keys.delete(1, RKEY)
  look()
  assert.deepEqual(devices, [1])
  assert.equal(keys.size, 0)
})

test('random bytes, with keys and addresses in them, tell only of bytes of the region', () => {
  const piece = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 24, size: 'max' }).map(bytes => Buffer.from(bytes)),
    fc.boolean().map(isLittle => word(RKEY, isLittle)),
    fc.tuple(fc.integer({ min: -8, max: 0x1_0008 }), fc.boolean()).map(([offset, isLittle]) => at(offset, isLittle)),
    fc.tuple(fc.nat(0x2_0000), fc.boolean()).map(([value, isLittle]) => word(value, isLittle)),
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40, size: 'max' }), pieces => {
      for (const [offset, length] of found(Buffer.concat(pieces))) {
        assert.ok(offset >= 0 && length > 8 && offset + length <= region.length)
      }
    }),
  )
})
