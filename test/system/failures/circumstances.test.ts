/*
 * Programs under unusual circumstances (test/programs/failures/circumstances.c) send data and make calls as others do,
 * and leave nothing behind.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { isEmpty, lacking, ownProgram, run, startDaemon, suiteScope, type TestDaemon } from '../programs.ts'

const program = ownProgram('circumstances')

describe('a program works', { skip: lacking(program) }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite)
  })

  for (const [name, title, isForRoot] of [
    ['main_ends', 'after its main thread has ended', false],
    ['execs', 'after an exec in the middle of calls of other threads', false],
    ['exits', 'and its context ends when it exits in the middle of calls of other threads', false],
    ['user_namespace', 'in a new user namespace', true],
    ['own_descriptors', 'with a descriptor table of its own', false],
    ['other_root', 'in another root folder', true],
  ] as const)
    it(title, { skip: isForRoot && process.getuid?.() !== 0 && 'only root may do that' }, async t => {
      const { status, stdout, stderr } = await run(t, program, [name], { env: daemon.env })
      assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: 'done\n', stderr: '' })
      await daemon.settled(isEmpty)
    })
})
