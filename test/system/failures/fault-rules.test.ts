/*
 * Fault rules of a running daemon, and `userdma fault`.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { openToolSession, type ToolSession } from '../../../src/daemon/client/tool-session.ts'
import type { FaultStat } from '../../../src/spec/faults.ts'
import { assertGoodPair, type PingpongCase, runCase, startPair } from '../pairs/pingpong.ts'
import { isEmpty, lacking, runUserdma, type Scope, startDaemon, type TestDaemon, TWO_DEVICES } from '../programs.ts'

/**
 * `counters`: they must grow. No rule drops ACKs: a sender that misses the last ACK completes with RETRY_EXC, because
 * its peer has exited. QPN 0xffffff (multicast) matches no packet of a pingpong.
 */
const cases: readonly (readonly [rules: string, counters: readonly string[], iterations: number])[] = [
  ['delay=1ms,jitter=500us', ['delayed'], 20],
  ['rate=20mbit', ['delayed'], 20],
  ['dir=sent,opcode=RC_SEND_*,drop=2%,seed=3', ['dropped'], 40],
  ['dir=sent,opcode=RC_SEND_*,corrupt=2%,dup=5%,seed=3', ['duplicated', 'corrupted'], 40],
  ['dir=sent,reorder=5%,seed=3', ['reordered'], 40],
  ['dir=sent,delay=1ms;dir=sent,rate=50mbit', ['delayed'], 20],
  ['opcode=RC_ACKNOWLEDGE,delay=3ms', ['delayed'], 20],
  ['device=rxe1,dir=both,opcode=RC_SEND_MIDDLE,drop=5%;qp=0xffffff,drop=1', ['dropped'], 40],
]
const pingpong: PingpongCase = { waitsForEvents: false, checksData: true, size: 4096, mtu: 1024, usesTwoDevices: true }

const clientOf = async (t: Scope, { socket }: TestDaemon): Promise<ToolSession> => {
  const client = await openToolSession(socket)
  t.after(() => client.close())
  return client
}

describe('fault rules', { skip: lacking('ibv_rc_pingpong') }, () => {
  it('inject the faults that they name, without preventing a transfer', async t => {
    const daemon = await startDaemon(t, { devices: TWO_DEVICES })
    const client = await clientOf(t, daemon)
    for (const [rules, counters, iterations] of cases)
      await t.test(rules, async s => {
        const before = await client.stat()
        await client.faults(rules)
        await runCase(s, daemon, pingpong, iterations)
        const { devices } = await client.stat()
        for (const kind of counters) {
          const count = devices.reduce((sum, { faults }, i) => sum + faults[kind] - before.devices[i].faults[kind], 0)
          assert.ok(count > 0, `${kind} is ${count}`)
        }
      })
    client.close()
    await daemon.settled(isEmpty)
  })

  it('are changed during a transfer', async t => {
    // At 1 Mbit/s the transfer takes more than half a minute.
    const daemon = await startDaemon(t, { devices: TWO_DEVICES, fault: 'rate=1mbit' })
    const fault = (...args: string[]) => runUserdma(t, ['fault', ...args, '--socket', daemon.socket])
    const pair = await startPair(t, daemon, ['-g', '1', '-c', '-s', '2048', '-n', '2000'], {
      devices: ['rxe0', 'rxe1'],
    })
    const client = await clientOf(t, daemon)
    const until = async (isReached: (faults: readonly FaultStat[]) => boolean): Promise<void> => {
      while (!isReached(await client.faults()));
    }
    await until(([rate]) => rate.matched > 10)
    const set = await fault('set', 'drop=10%,seed=3', 'device=rxe0,rate=1mbit')
    assert.deepEqual([set.status, set.stdout, set.stderr], [0, '', ''])
    await until(([drop]) => (drop.dropped ?? 0) > 1)
    const shown = await fault('show')
    assert.match(shown.stdout, /^drop=0\.1,seed=3 {9}# of \d+ packets: dropped \d+\ndevice=rxe0,rate=1mbit {2}# of /)
    const wrong = await fault('set', 'device=rxe7,drop=1')
    assert.equal(wrong.status, 1)
    assert.match(
      wrong.stderr,
      /refuses these fault rules: fault device: there is no soft device "rxe7"; there are rxe0, rxe1, did you mean "rxe0"\?\n$/,
    )
    assert.equal((await fault('clear')).status, 0)
    assert.equal((await fault('show')).stdout, 'no faults\n')
    assertGoodPair(await pair.ended())
    client.close()
    await daemon.settled(isEmpty)
  })
})
