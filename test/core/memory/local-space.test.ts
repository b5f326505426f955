/*
 * The address space of a program in this process.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Bytes, createLocalSpace, noMemory } from '../../../src/core/index.ts'
import { copyBytes } from '../../../src/core/memory/local-space.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { halves } from '../../host/copy-arguments.ts'
import { errnoOf } from '../fixture.ts'
import { compareSwap, fetchAdd, readSpace, writeSpace } from './address-space.ts'

const { EFAULT } = Errno

const arena = (size: number): Bytes => {
  const buffer = new ArrayBuffer(size)
  return { address: 0, bytes: new Uint8Array(buffer), view: new DataView(buffer) }
}
const PAGE = 4096

test('buffers have page-aligned addresses from 2^32 with a gap behind each', () => {
  const space = createLocalSpace()
  const [a, b, c] = [1, PAGE, 0].map(size => space.add(new Uint8Array(size)))
  assert.deepEqual([a, b, c], [2 ** 32, 2 ** 32 + PAGE, 2 ** 32 + 3 * PAGE])
  const isWritable = (address: number, length: number): boolean => space.check(...halves(address), length, true)
  assert.deepEqual([isWritable(a, 1), isWritable(a, 2)], [true, false])
  assert.deepEqual([isWritable(b + PAGE - 1, 1), isWritable(b + PAGE, 1)], [true, false])
  assert.deepEqual([isWritable(0, 0), isWritable(0, 1)], [true, false])
})

test('the address of a removed buffer is not used again', () => {
  const space = createLocalSpace()
  const [a, b] = [1, 1].map(size => space.add(new Uint8Array(size)))
  assert.equal(space.remove(a), true)
  assert.ok(space.add(new Uint8Array(1)) > b)
})

test('a transferred buffer is refused', () => {
  const space = createLocalSpace()
  const bytes = new Uint8Array(8)
  structuredClone(bytes, { transfer: [bytes.buffer] })
  assert.equal(
    errnoOf(() => space.add(bytes)),
    'EINVAL',
  )
  assert.equal(space.add(new Uint8Array(1)), 2 ** 32, 'no address was taken')
})

test('reads and writes convert between consecutive bytes of the space and strided chunks of a buffer', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), fc.nat(20), fc.nat(200), fc.nat(30), (chunk, gap, total, at) => {
      const START = 5 // offset in the memory
      const space = createLocalSpace()
      const memory = Uint8Array.from({ length: 256 }, (_, i) => i)
      const address = space.add(memory)
      const stride = chunk + gap
      const local = arena(at + stride * (Math.ceil(total / chunk) + 1))
      assert.equal(readSpace(space, address + START, local, { at, chunk, stride, total }), 0)
      for (let i = 0; i < total; i++)
        assert.equal(local.bytes[at + Math.floor(i / chunk) * stride + (i % chunk)], START + i)
      memory.fill(0)
      assert.equal(writeSpace(space, address + START, local, { at, chunk, stride, total }), 0)
      for (let i = 0; i < 256; i++) assert.equal(memory[i], i >= START && i < START + total ? i : 0)
    }),
  )
})

test('a copy within one buffer works like memmove', () => {
  const maxSize = 400
  fc.assert(
    fc.property(fc.nat(maxSize), fc.nat(maxSize), fc.nat(maxSize), (from, to, size) => {
      const buffer = new ArrayBuffer(2 * maxSize + 8)
      const all = Uint8Array.from({ length: buffer.byteLength }, (_, i) => i * 7)
      new Uint8Array(buffer).set(all)
      // two views of one buffer
      const bytesFrom = (offset: number): Bytes => ({
        address: 0,
        bytes: new Uint8Array(buffer, offset),
        view: new DataView(buffer, offset),
      })
      copyBytes(bytesFrom(3), from, bytesFrom(5), to, size)
      const expected = Uint8Array.from(all)
      expected.copyWithin(5 + to, 3 + from, 3 + from + size)
      assert.deepEqual(new Uint8Array(buffer), expected)
    }),
    { numRuns: 1000 },
  )
})

test('atomics work on 64 bits with carry, and return the old value', () => {
  const space = createLocalSpace()
  const memory = new Uint8Array(24)
  const view = new DataView(memory.buffer)
  const address = space.add(memory) + 8
  const word = (): bigint => view.getBigUint64(8, true)
  view.setBigUint64(8, 0x1_ffff_ffffn, true)
  assert.equal(fetchAdd(space, address, 0x2_0000_0001n), 0x1_ffff_ffffn)
  assert.equal(word(), 0x4_0000_0000n)
  for (const otherValue of [0x4_0000_0001n, 0x5_0000_0000n]) {
    assert.equal(compareSwap(space, address, otherValue, 9n), 0x4_0000_0000n)
    assert.equal(word(), 0x4_0000_0000n)
  }
  assert.equal(compareSwap(space, address, 0x4_0000_0000n, 0x80000000_00000007n), 0x4_0000_0000n)
  assert.equal(word(), 0x80000000_00000007n)
  assert.equal(fetchAdd(space, address, 2n ** 64n - 1n), 0x80000000_00000007n)
  assert.equal(word(), 0x80000000_00000006n)
  assert.deepEqual([view.getBigUint64(0, true), view.getBigUint64(16, true)], [0n, 0n], 'the neighbours')
})

test('access to a removed buffer faults', () => {
  const space = createLocalSpace()
  const address = space.add(new Uint8Array(64))
  assert.equal(readSpace(space, address, arena(8), { total: 8 }), 0)
  assert.deepEqual([space.remove(address + 1), space.remove(address), space.remove(address)], [false, true, false])
  assert.equal(space.check(...halves(address), 1, false), false)
  assert.equal(readSpace(space, address, arena(8), { total: 8 }), EFAULT)
})

test('access to a detached buffer faults', () => {
  const space = createLocalSpace()
  const buffer = new ArrayBuffer(64)
  const address = space.add(new Uint8Array(buffer))
  structuredClone(buffer, { transfer: [buffer] })
  assert.equal(space.check(...halves(address), 1, false), false)
  assert.equal(readSpace(space, address, arena(8), { total: 8 }), EFAULT)
  assert.equal(writeSpace(space, address, arena(8), { total: 8 }), EFAULT)
  assert.equal(fetchAdd(space, address, 1n), EFAULT)
})

test('a resizable buffer is refused', () => {
  const space = createLocalSpace()
  const Resizable = ArrayBuffer as unknown as new (size: number, options: object) => ArrayBuffer
  assert.equal(
    errnoOf(() => space.add(new Uint8Array(new Resizable(8, { maxByteLength: 16 })))),
    'EINVAL',
  )
  const Growable = SharedArrayBuffer as unknown as new (size: number, options: object) => SharedArrayBuffer
  assert.equal(
    errnoOf(() => space.add(new Uint8Array(new Growable(8, { maxByteLength: 16 })))),
    'EINVAL',
  )
})

test('every access to noMemory faults', () => {
  const original = new Uint32Array(2)
  const local = arena(1)
  assert.deepEqual(
    [
      noMemory.check(0, 0, 1, false),
      noMemory.check(0, 0, 0, true),
      noMemory.read(0, 0, local, 0, 1, 1, 1),
      noMemory.write(0, 0, local, 0, 1, 1, 1),
      noMemory.compareSwap(0, 0, 0, 0, 0, 0, original),
      noMemory.fetchAdd(0, 0, 0, 0, original),
    ],
    [false, true, EFAULT, EFAULT, EFAULT, EFAULT],
  )
})
