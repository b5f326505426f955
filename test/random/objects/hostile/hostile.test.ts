/*
 * Mutated messages to core (R2). hostile.long.test.ts sends more of them.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type DialectName, hostileRun } from './hostile.ts'

const dialects: readonly DialectName[] = ['object', 'write', 'ioctl']

describe('mutated messages', () => {
  for (const dialect of dialects)
    it(`do no harm in the ${dialect} dialect`, () => {
      const tally = hostileRun(dialect, 1, 5000)
      // enough calls succeed, and enough fail in core
      assert.ok(tally.ok > 1000 && tally.EINVAL > 500 && tally.EBUSY > 10, JSON.stringify(tally))
    })
})
