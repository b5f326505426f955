import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { assertGoodPair, startPair } from './pingpong.ts'
import { isEmpty, lacking, ownProgram, run, startDaemon, suiteScope, type TestDaemon, TWO_DEVICES } from './programs.ts'

const CALLS = 10_000
const hostile = ownProgram('hostile')

describe('a hostile client', { skip: lacking(hostile, 'ibv_rc_pingpong') }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  for (const seed of [1, 2, 3])
    it(`hurts nobody with ${CALLS} random and mutated calls (seed ${seed})`, async t => {
      const args = ['-g', '1', '-s', '4096', '-m', '1024', '-n', '3000', '-c', '-e']
      const pair = await startPair(t, daemon, args, { devices: ['rxe0', seed === 1 ? 'rxe0' : 'rxe1'] })
      const { status, signal, stdout, stderr } = await run(t, hostile, ['-S', String(seed), '-n', String(CALLS)], {
        env: daemon.env,
      })
      assert.equal(status, 0, `seed ${seed}: status ${status}, signal ${signal}\n${stdout}${stderr}`)
      assertGoodPair(await pair.ended())
      await daemon.settled(isEmpty)
    })

  it('leaves nothing behind when it is killed in the middle', async t => {
    const { signal } = await run(t, hostile, ['-S', '4', '-n', '3000', '-k'], { env: daemon.env })
    assert.equal(signal, 'SIGKILL')
    await daemon.settled(isEmpty)
  })

  it('brought no fault of the daemon to light', () => {
    assert.equal(daemon.running.child.exitCode, null)
    assert.doesNotMatch(daemon.running.output(), /unforeseen|Error/)
  })
})
