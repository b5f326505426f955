/*
 * writeNewFile and replaceFile when a part of the text cannot be written, for example on a full disk.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { replaceFile, writeNewFile } from '../../../src/daemon/files/tree-files.ts'
import { withMaxFileSize } from '../../soft-limits.ts'
import { scratchFolder } from '../../tools.ts'

const root = scratchFolder()

test('a new file of which only a part can be written is removed, and a file to be replaced keeps its text', () => {
  writeNewFile(join(root, 'kept'), 'old\n')
  withMaxFileSize(10, () => {
    assert.throws(() => writeNewFile(join(root, 'a'), '0123456789abcdef\n'), { code: 'EFBIG' })
    assert.throws(() => replaceFile(root, 'kept', '0123456789abcdef\n', 0o644), { code: 'EFBIG' })
  })
  // `new` is the temporary file of replaceFile.
  assert.ok(!existsSync(join(root, 'a')) && !existsSync(join(root, 'new')))
  assert.equal(readFileSync(join(root, 'kept'), 'latin1'), 'old\n')
})
