/*
 * Under valgrind received bytes are initialised, and the other bytes of the buffer are not.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { lacking, ownProgram, run, startDaemon } from '../programs.ts'

const program = ownProgram('initialised')

describe('under valgrind', { skip: lacking(program, 'valgrind') }, () => {
  for (const [mode, errors] of [
    ['recv', false],
    ['extended', false],
    ['read', false],
    ['write', false],
    ['beyond', true],
  ] as const)
    it(`bytes that have ${errors ? 'not ' : ''}arrived are ${errors ? 'un' : ''}initialised (${mode})`, async t => {
      const daemon = await startDaemon(t)
      const { stdout, stderr, status } = await run(t, 'valgrind', ['--error-exitcode=9', program, mode], {
        env: daemon.env,
      })
      assert.equal(stdout, 'arrived\n', stderr)
      assert.equal(status, errors ? 9 : 0, stderr)
      assert.equal(/uninitialised/.test(stderr), errors)
      assert.doesNotMatch(stderr, /unhandled/)
    })
})
