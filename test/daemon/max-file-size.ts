/*
 * Files that cannot grow, as on a full disk.
 */
import assert from 'node:assert/strict'
import { mapArena } from '../../src/host/memory/mapping.ts'
import { libcFunctions } from '../../src/host/native.ts'

const sys = libcFunctions({
  getrlimit: 'int getrlimit(int resource, int64_t limits)',
  setrlimit: 'int setrlimit(int resource, int64_t limits)',
})
const RLIMIT_FSIZE = 1

/** Runs `body` while files of this process have at most `bytes` bytes. The write that reaches the limit is short. */
export const withMaxFileSize = (bytes: number, body: () => void): void => {
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
