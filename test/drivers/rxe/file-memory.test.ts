/*
 * A file as memory of a region.
 */
import assert from 'node:assert/strict'
import { openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileMemory } from '../../../src/drivers/rxe/file-memory.ts'
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
