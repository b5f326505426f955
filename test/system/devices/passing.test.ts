/*
 * Descriptors of a device passed from one program to another (R28, R37), and contexts that two programs use.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isEmpty, lacking, NOBODY, noOtherUser, ownProgram, run, startDaemon } from '../programs.ts'

const passing = ownProgram('passing')
const imported = ownProgram('imported')

describe('passed descriptors', { skip: lacking(passing) }, () => {
  it('work from the first call on, whichever call that is', async t => {
    const daemon = await startDaemon(t)
    const { status, stdout, stderr } = await run(t, passing, [], { env: daemon.env })
    assert.equal(stderr, '')
    assert.equal(stdout, '8 ways\n')
    assert.equal(status, 0)
    await daemon.settled(isEmpty)
  })

  it('answer EIO if no daemon serves the receiver', async t => {
    const daemon = await startDaemon(t)
    const env = { ...daemon.env, PASSING_OTHER: `${daemon.socket}.none` }
    const { status, stderr } = await run(t, passing, ['nobody'], { env })
    assert.match(stderr, /no daemon serves this socket/)
    assert.equal(status, 0, stderr)
    await daemon.settled(isEmpty)
  })
})

describe('a context used by two programs', { skip: lacking(imported) }, () => {
  it('has objects of both programs, which remain when one program exits', async t => {
    const daemon = await startDaemon(t)
    for (const mode of ['share', 'outlive']) {
      const { status, stdout, stderr } = await run(t, imported, [mode], { env: daemon.env })
      assert.deepEqual([status, stdout, stderr], [0, mode === 'share' ? 'shared\n' : '', ''])
      await daemon.settled(isEmpty)
    }
  })

  it('works for another user if the daemon serves that user', { skip: noOtherUser() }, async t => {
    const shared = await startDaemon(t, { guest: NOBODY })
    const served = await run(t, imported, ['share', `${NOBODY}`], { env: shared.env })
    assert.deepEqual([served.status, served.stdout, served.stderr], [0, 'shared\n', ''])
    await shared.settled(isEmpty)
    const unshared = await startDaemon(t)
    const refused = await run(t, imported, ['share', `${NOBODY}`], { env: unshared.env })
    assert.equal(refused.status, 1)
    assert.match(refused.stderr, /QUERY_CONTEXT: EACCES/)
    await unshared.settled(isEmpty)
  })
})
