/*
 * Soft limits of this process: files that cannot grow, as on a full disk, and no free descriptors.
 */
import assert from 'node:assert/strict'
import { closeSync, openSync } from 'node:fs'
import { mapArena } from '../src/host/memory/mapping.ts'
import { libcFunctions } from '../src/host/native.ts'

const sys = libcFunctions({
  getrlimit: 'int getrlimit(int resource, int64_t limits)',
  setrlimit: 'int setrlimit(int resource, int64_t limits)',
})
const [RLIMIT_FSIZE, RLIMIT_NOFILE] = [1, 7]

/** Sets a soft limit, and keeps the hard one. The returned function restores the soft limit. */
const setSoftLimit = (resource: number, soft: number): (() => void) => {
  // struct rlimit
  const limits = mapArena(16)
  assert.equal(sys().getrlimit(resource, limits.address), 0)
  const before = limits.view.getBigUint64(0, true)
  const set = (value: bigint): void => {
    limits.view.setBigUint64(0, value, true)
    assert.equal(sys().setrlimit(resource, limits.address), 0)
  }
  set(BigInt(soft))
  return () => set(before)
}

/** Runs `body` while files of this process have at most `bytes` bytes. The write that reaches the limit is short. */
export const withMaxFileSize = (bytes: number, body: () => void): void => {
  const restore = setSoftLimit(RLIMIT_FSIZE, bytes)
  try {
    body()
  } finally {
    restore()
  }
}

/** Takes all descriptors of this process that are free. */
export const takeDescriptors = () => {
  const taken = [openSync('/dev/null', 'r')]
  // The usual limit may be a million descriptors, which would take long.
  const restore = setSoftLimit(RLIMIT_NOFILE, taken[0]! + 20)
  assert.throws(() => {
    for (;;) taken.push(openSync('/dev/null', 'r'))
  }, /EMFILE/)
  const free = (count: number): void => {
    for (const fd of taken.splice(0, count)) closeSync(fd)
  }
  return {
    /** Closes `count` of the taken descriptors. */
    free,
    /** Closes the others, and restores the limit. */
    release(): void {
      restore()
      free(taken.length)
    },
  }
}
