/*
 * A file as memory of a region.
 */
import assert from 'node:assert/strict'
import { openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileMemory } from '../../src/assembly/file-memory.ts'
import { Errno } from '../../src/spec/errno.ts'
import { plainArena } from '../../src/transport/wire/arena.ts'
import { compareSwap, fetchAdd, readSpace, writeSpace } from '../core/memory/address-space.ts'
import { scratchFolder } from '../tools.ts'

const folder = scratchFolder()

test('bytes of a file are checked against its size and mode; 0 bytes always exist', t => {
  const path = join(folder, 'file')
  writeFileSync(path, 'memory')
  const { space, close } = fileMemory(openSync(path, 'r'))
  t.after(close)
  const check = (offset: number, length: number, access: 'read' | 'write') =>
    space.check(0, offset, length, access === 'write')
  assert.equal(check(0, 6, 'read'), true)
  assert.equal(check(0, 6, 'write'), false, 'the file is open for reading only')
  assert.equal(check(0, 7, 'read'), false)
  assert.equal(check(7, 0, 'write'), true)
})

test('chunks are read and written, within the file only', t => {
  const path = join(folder, 'chunks')
  writeFileSync(path, 'abcdefgh')
  const { space, close } = fileMemory(openSync(path, 'r+'))
  t.after(close)
  const arena = plainArena(64)
  assert.equal(readSpace(space, 1, arena, { chunk: 2, stride: 10, total: 5 }), 0)
  assert.deepEqual(
    [0, 10, 20].map(at => Buffer.from(arena.bytes.subarray(at, at + 2)).toString('latin1')),
    ['bc', 'de', 'f\0'],
  )
  arena.bytes.set(Buffer.from('XY'), 10)
  assert.equal(writeSpace(space, 3, arena, { chunk: 2, stride: 10, total: 4 }), 0)
  assert.equal(readFileSync(path, 'latin1'), 'abcbcXYh')
  assert.equal(readSpace(space, 4, arena, { total: 5 }), Errno.EFAULT)
  assert.equal(writeSpace(space, 4, arena, { total: 5 }), Errno.EFAULT)
  assert.equal(writeSpace(space, 2 ** 32, arena, { total: 1 }), Errno.EFAULT)
  assert.equal(readFileSync(path, 'latin1'), 'abcbcXYh', 'the file does not grow')
})

test('atomics have 64 bits, and return the original', t => {
  const path = join(folder, 'word')
  const file = Buffer.alloc(16)
  file.writeBigUint64LE(0x1_ffff_fffen, 8)
  writeFileSync(path, file)
  const { space, close } = fileMemory(openSync(path, 'r+'))
  t.after(close)
  const word = (): bigint => readFileSync(path).readBigUint64LE(8)
  assert.equal(fetchAdd(space, 8, 0x1000_0000_0000_0003n), 0x1_ffff_fffen)
  assert.equal(word(), 0x1000_0002_0000_0001n)
  for (const otherValue of [0x1000_0002_0000_0002n, 0x1000_0003_0000_0001n]) {
    assert.equal(compareSwap(space, 8, otherValue, 0x5_0000_0006n), 0x1000_0002_0000_0001n)
    assert.equal(word(), 0x1000_0002_0000_0001n)
  }
  assert.equal(compareSwap(space, 8, 0x1000_0002_0000_0001n, 0x5_0000_0006n), 0x1000_0002_0000_0001n)
  assert.equal(word(), 0x5_0000_0006n)
  assert.equal(fetchAdd(space, 12, 1n), Errno.EFAULT, 'beyond the end of the file')
})
