/*
 * A file of the tree that does not fit, for example on a full disk.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { replaceFile, writeNewFile } from '../../../src/daemon/files/tree-files.ts'
import { mapArena } from '../../../src/host/memory/mapping.ts'
import { libcFunctions } from '../../../src/host/native.ts'
import { scratchFolder } from '../../tools.ts'

const sys = libcFunctions({
  getrlimit: 'int getrlimit(int resource, int64_t limits)',
  setrlimit: 'int setrlimit(int resource, int64_t limits)',
})
const RLIMIT_FSIZE = 1

const root = scratchFolder()

/** Runs `body` while files of this process have at most `bytes` bytes. The write that reaches the limit is short. */
const withMaxFileSize = (bytes: number, body: () => void): void => {
  const limits = mapArena(16)
  assert.equal(sys().getrlimit(RLIMIT_FSIZE, limits.address), 0)
  const before = limits.view.getBigUint64(0, true)
  limits.view.setBigUint64(0, BigInt(bytes), true)
  assert.equal(sys().setrlimit(RLIMIT_FSIZE, limits.address), 0)
  try {
    body()
  } finally {
    limits.view.setBigUint64(0, before, true)
    assert.equal(sys().setrlimit(RLIMIT_FSIZE, limits.address), 0)
  }
}

test('a file of which only a part can be written is refused and removed', () => {
  writeNewFile(join(root, 'kept'), 'old\n')
  withMaxFileSize(10, () => {
    assert.throws(() => writeNewFile(join(root, 'a'), '0123456789abcdef\n'), { code: 'EFBIG' })
    assert.throws(() => replaceFile(root, 'kept', '0123456789abcdef\n', 0o644), { code: 'EFBIG' })
  })
  assert.ok(!existsSync(join(root, 'a')) && !existsSync(join(root, 'new')))
  assert.equal(readFileSync(join(root, 'kept'), 'latin1'), 'old\n')
})
