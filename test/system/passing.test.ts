/*
 * Descriptors of a device that one program gives to another (R28, R37): across exec and over a socket, by an opener
 * that has closed all of its own by the time they are used. Those of drivers: hot-plug.test.ts.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isEmpty, lacking, ownProgram, run, startDaemon } from './programs.ts'

const passing = ownProgram('passing')

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
