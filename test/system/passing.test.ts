/*
 * Descriptors of a device that one program gives to another (R28, R37): across exec and over a socket, by an opener
 * that has closed all of its own by the time they are used. Those of drivers: hot-plug.test.ts.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isEmpty, lacking, ownProgram, run, startDaemon } from './programs.ts'

const passing = ownProgram('passing')
const imported = ownProgram('imported')
/** Another user than the daemon's. */
const OTHER = 65534
const notRoot = process.getuid?.() === 0 ? false : 'only root can run a program as another user'

describe('descriptors that are given away', { skip: lacking(passing) }, () => {
  it('work from their first call on, whatever that is, and leave nothing behind', async t => {
    const daemon = await startDaemon(t)
    const { status, stdout, stderr } = await run(t, passing, [], { env: daemon.env })
    assert.equal(stderr, '')
    assert.equal(stdout, '10 ways\n')
    assert.equal(status, 0)
    await daemon.settled(isEmpty)
  })

  it('are of no use without a daemon that serves the receiver: EIO, and its end is told', async t => {
    const daemon = await startDaemon(t)
    const env = { ...daemon.env, PASSING_OTHER: `${daemon.socket}.none` }
    const { status, stderr } = await run(t, passing, ['nobody'], { env })
    assert.match(stderr, /nobody serves this socket/)
    assert.equal(status, 0, stderr)
    await daemon.settled(isEmpty)
  })
})

describe('a context that two programs use', { skip: lacking(imported) }, () => {
  it('has its objects for both, and for nobody else; they stay when either ends', async t => {
    const daemon = await startDaemon(t)
    for (const how of ['share', 'outlive']) {
      const { status, stdout, stderr } = await run(t, imported, [how], { env: daemon.env })
      assert.deepEqual([status, stdout, stderr], [0, how === 'share' ? 'shared\n' : '', ''])
      await daemon.settled(isEmpty)
    }
  })

  it('is of use to another user if the daemon serves him', { skip: notRoot }, async t => {
    const shared = await startDaemon(t, { guest: OTHER })
    const good = await run(t, imported, ['share', `${OTHER}`], { env: shared.env })
    assert.deepEqual([good.status, good.stdout, good.stderr], [0, 'shared\n', ''])
    await shared.settled(isEmpty)
    const own = await startDaemon(t)
    const refused = await run(t, imported, ['share', `${OTHER}`], { env: own.env })
    assert.equal(refused.status, 1)
    assert.match(refused.stderr, /QUERY_CONTEXT: EACCES/)
    await own.settled(isEmpty)
  })
})
