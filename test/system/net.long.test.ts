/*
 * A net of eight hosts behind one switch: seven send to one at the same time, then all to all; what `userdma inspect`
 * shows of it. And a net of root with two hosts.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { About } from '../../src/tools/inspect/protocol.ts'
import type { DeviceStat, Stat } from '../../src/uapi/tool.ts'
import { canMakeNets, newNet, untilListeningAt, useNet } from './nets.ts'
import { assertGood, lacking, run, start, userdma } from './programs.ts'

const CLIENTS = [1, 2, 3, 4, 5, 6, 7].map(i => `client${i}`)
const HOSTS = [...CLIENTS, 'server']
const TOPOLOGY = `
hosts: { client: { count: 7 }, server: { driver: mlx5 } }
switches: [tor]
links:
  - { between: [client, tor], rate: 200mbit, delay: 50us, loss: 0.1%, mtu: 4200 }
  - { between: [server, tor], rate: 200mbit, mtu: 4200 }
`
/** Of the host's IPv4 address as RoCE v2: an mlx5 device has RoCE v1 too. */
const gidIndexOf = (host: string): string => (host === 'server' ? '3' : '1')
/** Bytes that each client sends to the server. */
const MESSAGES = 200
const MESSAGE = 65_536

describe('userdma net with eight hosts', { skip: lacking('ib_write_bw', 'ibv_rc_pingpong', 'ip') }, () => {
  it('carries incast and all-to-all; inspect shows every host', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, TOPOLOGY)
    await net.up()
    const { hosts } = await net.show()
    const pidOf = (name: string): number => hosts.find(host => host.name === name)!.daemon.pid
    const statOf = async (name: string): Promise<{ readonly device: DeviceStat; readonly stat: Stat }> => {
      const { stdout } = await net.exec(name, userdma, 'stat', '--json')
      const stat = JSON.parse(stdout) as Stat
      return { device: stat.devices[0]!, stat }
    }

    await t.test('incast', async t => {
      const runs = CLIENTS.map(async (client, i) => {
        const port = 18_600 + i
        const options = ['-p', `${port}`, '-F', '-n', `${MESSAGES}`, '-s', `${MESSAGE}`, '-u', '18']
        const server = net.startExec('server', 'ib_write_bw', '-d', 'mlx5_0', '-x', gidIndexOf('server'), ...options)
        await untilListeningAt(pidOf('server'), port, server)
        assertGood(await net.exec(client, 'ib_write_bw', '-d', 'rxe0', '-x', gidIndexOf(client), ...options, 'server'))
        assertGood(await server.ended)
      })
      await Promise.all(runs)
      const { device } = await statOf('server')
      assert.ok(device.counters.port_rcv_data! * 4 >= CLIENTS.length * MESSAGES * MESSAGE, 'all bytes arrived')
      const dropped = await Promise.all(CLIENTS.map(async client => (await statOf(client)).device.faults.dropped!))
      const total = dropped.reduce((sum, count) => sum + count, 0)
      assert.ok(total > 0, 'the links lose packets')
      t.diagnostic(`${total} packets lost by the links`)
    })

    await t.test('all to all', async () => {
      // Rounds of a tournament: with all pairs at once, a busy machine would answer later than ibv_rc_pingpong waits.
      const [fixed, ...others] = HOSTS
      for (let round = 0; round < others.length; round++) {
        const order = [fixed!, ...others.slice(round), ...others.slice(0, round)]
        const pairs = order.slice(0, 4).map((host, i) => [host, order.at(-1 - i)!] as const)
        await Promise.all(
          pairs.map(async ([a, b]) => {
            const pingpong = (host: string) => ['ibv_rc_pingpong', '-g', gidIndexOf(host), '-e', '-n', '10'] as const
            const server = net.startExec(a, ...pingpong(a))
            await untilListeningAt(pidOf(a), 18_515, server)
            assertGood(await net.exec(b, ...pingpong(b), a))
            assertGood(await server.ended)
          }),
        )
      }
    })

    await t.test('inspect', async t => {
      const page = start(t, userdma, ['inspect', '--net', net.name], net.options)
      const [, origin, token] = await page.printed(/(http:\/\/127\.0\.0\.1:\d+\/)#token=(\S+)/)
      const session = await (await fetch(`${origin}api/session`, { method: 'POST', body: token! })).text()
      const about = (headers: Readonly<Record<string, string>>) =>
        fetch(`${origin}api/about`, { headers: { 'x-userdma-session': session, ...headers } })
      const first = (await (await about({})).json()) as About
      assert.deepEqual([first.name, first.hosts], ['client1', HOSTS])
      const last = (await (await about({ 'x-userdma-host': 'server' })).json()) as About
      assert.deepEqual([last.name, last.isLive], ['server', true])
      assert.equal((await about({ 'x-userdma-host': 'client8' })).status, 404)
      page.child.kill('SIGINT')
      assertGood(await page.ended)
    })

    const metrics = await run(t, userdma, ['metrics', '--net', net.name], net.options)
    for (const host of HOSTS) assert.ok(metrics.stdout.includes(`userdma_up{host="${host}"} 1\n`), metrics.stderr)

    assertGood(await net.net('down', net.name))
    net.assertGone()
  })

  it('is as of another user for root', t => useNet(t, {}))
})

describe('classes of a net', { skip: lacking('ib_send_bw', 'ip', 'tc') }, () => {
  it('packets are in the class of their DSCP, whose queue loses them when it is full', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(
      t,
      `
hosts: { client: , server: }
links:
  - between: [client, server]
    rate: 20mbit
    mtu: 4200
    classes: [{ name: storage, dscp: af31, weight: 3, queue: 100kb }]
`,
    )
    await net.up()
    const { hosts } = await net.show()
    const { pid } = hosts.find(({ name }) => name === 'server')!.daemon
    const options = ['-F', '-x', '1', '-n', '64', '-s', '65536', '-u', '18', '-p', '18700', '--tclass=104']
    const server = net.startExec('server', 'ib_send_bw', ...options)
    await untilListeningAt(pid, 18_700, server)
    assertGood(await net.exec('client', 'ib_send_bw', ...options, 'server'))
    assertGood(await server.ended)
    const { stdout } = await net.exec('client', 'tc', '-s', '-j', 'qdisc', 'show', 'dev', 'eth0')
    const queues = JSON.parse(stdout) as { parent?: string; bytes: number; drops: number }[]
    const [storage, other] = ['1:1', '1:2'].map(id => queues.find(({ parent }) => parent === id))
    assert.ok(storage!.bytes >= 64 * 65_536 && storage!.drops > 0, stdout)
    // what the programs tell each other over TCP
    assert.ok(other!.bytes > 0 && other!.bytes < 100_000 && other!.drops === 0, stdout)
  })
})
