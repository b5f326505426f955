/*
 * What devices of the driver mlx5 have beyond rxe's, through the distribution's libmlx5
 * (test/programs/pairs/adapter.c).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { loopbackText } from '../../loopback.ts'
import { isEmpty, lacking, ownProgram, run, startDaemon } from '../programs.ts'

const LIBRARY = '/etc/libibverbs.d/mlx5.driver'
const program = ownProgram('adapter')

describe('libmlx5', { skip: lacking(program, LIBRARY) }, () => {
  it('reads the clock of a daemon that sleeps, and has events moderated', async t => {
    const daemon = await startDaemon(t, { devices: [`mlx5_0@${loopbackText(31)},driver=mlx5`] })
    const { stdout, stderr, status } = await run(t, program, ['-d', 'mlx5_0'], { env: daemon.env })
    assert.deepEqual([stderr, status], ['', 0], stdout)
    await daemon.settled(isEmpty)
    assert.doesNotMatch(daemon.running.output(), /polls every|error/i)
  })
})
