/*
 * `userdma net` with hosts of InfiniBand: programs on different hosts, and what others see of the switches between
 * them.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { canMakeNets, newNet, untilListeningAt } from './nets.ts'
import { assertGood, lacking } from './programs.ts'

/** Of librdmacm's and libibverbs' examples. */
const PORT = 18515

describe('a net with InfiniBand hosts', { skip: lacking('ibv_rc_pingpong', 'ibnetdiscover', 'rping', 'ip') }, () => {
  it('carries messages by LID and by rdma_cm, and shows its switches', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'ring: { switches: 3, hosts: 2 }')
    await net.up()
    const { hosts } = await net.show()
    const server = net.startExec('h1', 'ibv_rc_pingpong', '-e', '-n', '20')
    await untilListeningAt(hosts[0]!.daemon.pid, PORT, server)
    const client = await net.exec('h2', 'ibv_rc_pingpong', '-e', '-n', '20', 'h1')
    assertGood(client)
    assertGood(await server.ended)
    assert.match(client.stdout, /local address: {2}LID 0x000\d, .*\n {2}remote address: LID 0x000\d/)
    const listener = net.startExec('h1', 'rping', '-s', '-P', '-a', hosts[0]!.interfaces[0]!.address)
    // The listener has no socket whose state tells that it listens.
    for (;;) {
      const pinged = await net.exec('h2', 'rping', '-c', '-C', '3', '-v', '-a', 'h1')
      if (pinged.status === 0) break
      assert.match(pinged.stdout + pinged.stderr, /REJECTED, error 8/)
    }
    listener.child.kill()
    const shown = (await net.exec('h2', 'ibnetdiscover')).stdout
    for (const name of ['switch1', 'switch2', 'switch3']) assert.match(shown, new RegExp(`"${name}" enhanced port 0`))
    for (const name of ['h1 mlx5_0', 'h2 mlx5_0']) assert.match(shown, new RegExp(`# "${name}"\n`))
    assertGood(await net.net('down', net.name))
    net.assertGone()
  })
})
