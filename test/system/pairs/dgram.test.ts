/*
 * --link dgram: programs of two daemons over sockets of Node (node:dgram).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { loopbackText } from '../../loopback.ts'
import { isEmpty, lacking, type Scope, startDaemon, type TestDaemon } from '../programs.ts'
import { assertGoodPair, runPair, startPair } from './pingpong.ts'

const skip = lacking('ibv_rc_pingpong', 'ib_write_bw')

/** `n`: last byte of the loopback address of the daemon's device. */
const startDaemonAt = (scope: Scope, n: number, link: string): Promise<TestDaemon> =>
  startDaemon(scope, { devices: [`rxe0@${loopbackText(n)}`], link })

describe('--link dgram', { skip }, () => {
  it('carries data between programs of two daemons', async t => {
    const [a, b] = [await startDaemonAt(t, 1, 'dgram'), await startDaemonAt(t, 2, 'dgram')]
    for (const args of [['-c'], ['-e', '-s', '100000', '-m', '4096']])
      assertGoodPair(await runPair(t, a, ['-g', '1', '-n', '100', ...args], { clientDaemon: b }))
    const perftestArgs = ['-x', '1', '-F', '-s', '65536', '-n', '200']
    const { client } = await runPair(t, a, perftestArgs, { program: 'ib_write_bw', clientDaemon: b })
    assert.equal(client.status, 0, client.stdout + client.stderr)
    for (const daemon of [a, b]) {
      const [{ port }] = (await daemon.settled(isEmpty)).devices
      assert.deepEqual([port.icrcErrors, port.dropped, port.foreignPackets], [0, 0, 0])
    }
  })

  it('drops packets that a daemon with --link udp sends', async t => {
    const [a, b] = [await startDaemonAt(t, 3, 'dgram'), await startDaemonAt(t, 4, 'udp')]
    const pair = await startPair(t, a, ['-g', '1', '-n', '100'], { clientDaemon: b })
    await a.running.printed(
      /rxe0 refuses packets from 127\.\S+: .*--link dgram speaks to --link dgram only; use --link udp/,
    )
    const [{ port }] = (await a.stat()).devices
    assert.ok(port.foreignPackets > 0)
    assert.equal(port.receivedPackets, 0)
    for (const { child } of [pair.client, pair.server]) child.kill()
  })
})
