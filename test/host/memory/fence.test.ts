/*
 * setWord and loadWord on a mapped memory file.
 */
import assert from 'node:assert/strict'
import { closeSync, readSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import { loadWord, setWord } from '../../../src/host/memory/fence.ts'
import { createRingPool } from '../../../src/host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_SHRINK } from '../../../src/host/memory/memfd.ts'

test('setWord changes a word of the file, and loadWord reads one', t => {
  const fd = createMemfd('words', 4096)
  t.after(() => closeSync(fd))
  // `map` accepts only files that cannot shrink.
  addSeals(fd, SEAL_SHRINK)
  const pool = createRingPool()
  const { i32 } = pool.map(fd, 0, 4096)
  const bytes = Buffer.alloc(4)
  setWord(i32, 3, 0x01020304)
  readSync(fd, bytes, 0, 4, 12)
  assert.equal(bytes.readInt32LE(), 0x01020304)
  bytes.writeInt32LE(-5)
  writeSync(fd, bytes, 0, 4, 16)
  assert.equal(loadWord(i32, 4), -5)
})
