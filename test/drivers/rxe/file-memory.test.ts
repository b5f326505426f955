/*
 * A file as memory of a region.
 */
import assert from 'node:assert/strict'
import { openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileMemory } from '../../../src/drivers/rxe/file-memory.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { plainArena } from '../../../src/wire/arena.ts'
import { scratchFolder } from '../../tools.ts'

const folder = scratchFolder()

test('bytes of a file are checked against its size and mode; 0 bytes always exist', t => {
  const path = join(folder, 'file')
  writeFileSync(path, 'memory')
  const { space, close } = fileMemory(openSync(path, 'r'))
  t.after(close)
  assert.equal(space.check(0, 0, 6, false), true)
  assert.equal(space.check(0, 0, 6, true), false, 'the file is open for reading only')
  assert.equal(space.check(0, 0, 7, false), false)
  assert.equal(space.check(0, 7, 0, true), true)
})

test('chunks are read and written, within the file only', t => {
  const path = join(folder, 'chunks')
  writeFileSync(path, 'abcdefgh')
  const { space, close } = fileMemory(openSync(path, 'r+'))
  t.after(close)
  const arena = plainArena(64)
  // 5 bytes from offset 1 of the file on, in chunks of 2 at 0, 10 and 20.
  assert.equal(space.read(0, 1, arena, 0, 2, 10, 5), 0)
  assert.deepEqual(
    [0, 10, 20].map(at => Buffer.from(arena.bytes.subarray(at, at + 2)).toString('latin1')),
    ['bc', 'de', 'f\0'],
  )
  arena.bytes.set(Buffer.from('XY'), 10)
  assert.equal(space.write(0, 3, arena, 0, 2, 10, 4), 0)
  assert.equal(readFileSync(path, 'latin1'), 'abcbcXYh')
  assert.equal(space.read(0, 4, arena, 0, 8, 8, 5), Errno.EFAULT)
  assert.equal(space.write(0, 4, arena, 0, 8, 8, 5), Errno.EFAULT)
  assert.equal(space.write(1, 0, arena, 0, 1, 1, 1), Errno.EFAULT)
  assert.equal(readFileSync(path, 'latin1'), 'abcbcXYh', 'the file does not grow')
})

test('atomics have 64 bits, and return the original', t => {
  const path = join(folder, 'word')
  const file = Buffer.alloc(16)
  file.writeBigUint64LE(0x1_ffff_fffen, 8)
  writeFileSync(path, file)
  const { space, close } = fileMemory(openSync(path, 'r+'))
  t.after(close)
  const original = new Uint32Array(2)
  const word = (): bigint => readFileSync(path).readBigUint64LE(8)
  assert.equal(space.fetchAdd(0, 8, 0x1000_0000, 3, original), 0)
  assert.deepEqual([...original], [0xffff_fffe, 1])
  assert.equal(word(), 0x1000_0002_0000_0001n)
  const compareSwap = (hi: number, lo: number): number => space.compareSwap(0, 8, hi, lo, 5, 6, original)
  for (const [hi, lo] of [
    [0x1000_0002, 2],
    [0x1000_0003, 1],
  ] as const) {
    assert.equal(compareSwap(hi, lo), 0)
    assert.equal(word(), 0x1000_0002_0000_0001n)
  }
  assert.equal(compareSwap(0x1000_0002, 1), 0)
  assert.deepEqual([...original], [1, 0x1000_0002])
  assert.equal(word(), 0x5_0000_0006n)
  assert.equal(space.fetchAdd(0, 12, 0, 1, original), Errno.EFAULT)
})
