/*
 * Tests of programs that have a daemon of their own, once more with a clock that skips: what they assert holds in both
 * clocks.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { repoRoot } from '../paths.ts'
import { cleanEnvironment, lacking, run } from './programs.ts'

/** Parts of paths below test/, as for `npm test`. */
const suites = [
  'system/run',
  'system/calls',
  'system/loading',
  'system/record',
  'system/trace',
  'system/check/',
  'system/own-faults',
  'system/pairs',
  'system/devices',
  'system/failures',
  'system/management',
  'system/rdmacm',
  'system/suites',
]

describe('with a clock that skips', { skip: lacking() }, () => {
  for (const suite of suites)
    it(suite, async t => {
      const { status, stdout } = await run(t, process.execPath, ['scripts/test.mjs', suite], {
        cwd: repoRoot,
        env: cleanEnvironment({ TEST_CLOCK: 'skip', NODE_TEST_CONTEXT: undefined }),
      })
      assert.match(stdout, /^ℹ pass [1-9]/m)
      assert.equal(status, 0, stdout.slice(stdout.indexOf('failing tests')))
    })
})
