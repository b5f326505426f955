/*
 * ibv_rc_pingpong on one daemon: the cases `pairwise` of pingpong.ts, and more.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { isEmpty, lacking, startDaemon, suiteScope, type TestDaemon, TWO_DEVICES } from '../programs.ts'
import { assertGoodPair, caseName, pairwise, runCase, runPair, startPair } from './pingpong.ts'

describe('ibv_rc_pingpong', { skip: lacking('ibv_rc_pingpong') }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  for (const one of pairwise()) it(caseName(one), t => runCase(t, daemon, one))

  it('transfers more messages of an odd length than the queue holds', async t => {
    assertGoodPair(await runPair(t, daemon, ['-g', '1', '-s', '1027', '-m', '256', '-n', '1200', '-r', '10', '-c']))
  })

  it('runs ten pairs at the same time', async t => {
    const settings = { checksData: true, size: 4096, mtu: 1024 }
    await Promise.all(
      Array.from({ length: 10 }, (_, i) =>
        runCase(t, daemon, { ...settings, waitsForEvents: i % 2 === 1, usesTwoDevices: i > 4 }, 100),
      ),
    )
  })

  it('cannot connect without a GID index, as on Linux', async t => {
    // The ends exit in any order.
    const pair = await startPair(t, daemon, ['-n', '4'])
    const [server, client] = await Promise.all([pair.server.ended, pair.client.ended])
    assert.equal(server.status, 1)
    assert.match(server.stderr, /Failed to modify QP to RTR/)
    // The server exits before it has sent its address.
    assert.equal(client.status, 1)
    assert.match(client.stderr, /Couldn't read\/write remote address/)
  })

  it('leaves nothing behind', async () => {
    await daemon.settled(isEmpty)
  })
})
