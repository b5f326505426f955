/*
 * A hostile client (test/programs/failures/hostile.c) affects no other program.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { open } from '../../../src/library/index.ts'
import { until } from '../../limits.ts'
import { loopbackText } from '../../loopback.ts'
import { assertGoodPair, type PairOptions, startPair } from '../pairs/pingpong.ts'
import {
  isEmpty,
  lacking,
  ownProgram,
  run,
  startDaemon,
  suiteScope,
  type TestDaemon,
  TWO_DEVICES,
} from '../programs.ts'

const CALLS = 10_000
const hostile = ownProgram('hostile')

describe('a hostile client', { skip: lacking(hostile, ownProgram('verbs_check'), 'ibv_rc_pingpong') }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  /** Programs that run beside the hostile one. verbs_check checks every byte. */
  const neighbours: readonly PairOptions[] = [
    { program: 'ibv_rc_pingpong', devices: ['rxe0', 'rxe0'] },
    { program: ownProgram('verbs_check'), devices: ['rxe0', 'rxe0'] },
    { program: ownProgram('verbs_check'), devices: ['rxe0', 'rxe1'] },
  ]
  const argumentsOf = ({ program }: PairOptions): string[] =>
    program === 'ibv_rc_pingpong'
      ? ['-g', '1', '-s', '4096', '-m', '1024', '-n', '3000', '-c', '-e']
      : ['-g', '1', '-s', '8192', '-m', '1024', '-n', '6000', '-S', '9']

  neighbours.forEach((neighbour, seed) => {
    it(`affects no other program with ${CALLS} random and mutated calls (seed ${seed})`, async t => {
      const pair = await startPair(t, daemon, argumentsOf(neighbour), neighbour)
      const { status, signal, stdout, stderr } = await run(t, hostile, ['-S', String(seed), '-n', String(CALLS)], {
        env: daemon.env,
      })
      assert.equal(status, 0, `seed ${seed}: status ${status}, signal ${signal}\n${stdout}${stderr}`)
      assertGoodPair(await pair.ended())
      await daemon.settled(isEmpty)
    })
  })

  it('leaves nothing behind when it is killed in the middle', async t => {
    const { signal } = await run(t, hostile, ['-S', '4', '-n', '3000', '-k'], { env: daemon.env })
    assert.equal(signal, 'SIGKILL')
    await daemon.settled(isEmpty)
  })

  it('gets only its share of a daemon’s few descriptors', async t => {
    const small = await startDaemon(t, { descriptors: 300 })
    const greedy = await open({ socket: small.socket })
    t.after(() => greedy.close())
    const queues: { close(): void }[] = []
    const takeAll = (): void => {
      for (;;) queues.push(greedy.eventQueue())
    }
    const shareError = { code: 'EMFILE', message: /process \d+ has \d+ descriptors of the daemon and may have/ }
    assert.throws(takeAll, shareError)
    assert.ok(queues.length > 30, `${queues.length} event queues`)
    await assert.rejects(open({ socket: small.socket }), { code: 'EMFILE' })
    const pair = await startPair(t, small, ['-g', '1', '-e'], { program: 'ibv_rc_pingpong', devices: ['rxe0', 'rxe0'] })
    assertGoodPair(await pair.ended())
    await assert.rejects(small.stat(), /has no sessions or descriptors left for this process or user/)
    // The daemon notices a little later that descriptors were released.
    const share = queues.length
    for (const queue of queues.splice(0, 5)) queue.close()
    const hasShare = (): boolean => {
      assert.throws(takeAll, shareError)
      return queues.length >= share
    }
    await until(hasShare, () => `the client has only ${queues.length} of ${share} event queues again`)
    assert.doesNotMatch(small.running.output(), /internal error|Error/)
  })

  it('does not use all descriptors of a daemon for multicast groups', async t => {
    const small = await startDaemon(t, { devices: [`rxe0@${loopbackText(61)}`], link: 'udp', descriptors: 300 })
    const greedy = await open({ socket: small.socket })
    t.after(() => greedy.close())
    const qp = greedy.pd().udQp()
    let joined = 0
    const joinAll = (): void => {
      for (; joined < 1000; joined++) qp.attach(`239.77.${joined >> 8}.${joined & 0xff}`)
    }
    const shareError = { code: 'EMFILE', message: /qp.attach: process \d+ has \d+ descriptors of the daemon/ }
    assert.throws(joinAll, shareError)
    assert.ok(joined > 30 && joined < 150, `${joined} groups`)
    const { status } = await run(t, 'ibv_devinfo', [], { env: small.env })
    assert.equal(status, 0)
    const share = joined
    for (; joined > 0; joined--) qp.detach(`239.77.0.${joined - 1}`)
    assert.throws(joinAll, shareError)
    assert.equal(joined, share)
  })

  it('causes no exception in the daemon', () => {
    const { exitCode, signalCode } = daemon.running.child
    assert.deepEqual({ exitCode, signalCode }, { exitCode: null, signalCode: null }, 'the daemon still runs')
    assert.doesNotMatch(daemon.running.output(), /internal error|Error/)
  })
})
