/*
 * The test of hostile.test.ts with 100,000 messages of each dialect and new seeds in each run.
 */
import { describe, it } from 'node:test'
import { type DialectName, hostileRun } from './hostile.ts'

const RUNS = 10
const dialects: readonly DialectName[] = ['object', 'write', 'ioctl']

describe('many mutated messages', () => {
  const first = Date.now() & 0x7fff_ffff
  for (const dialect of dialects)
    for (let seed = first; seed < first + RUNS; seed++)
      it(`do no harm in the ${dialect} dialect, seed ${seed}`, () => void hostileRun(dialect, seed, 10_000))
})
