/*
 * A host of a net with devices on two subnets: the device on the one reaches nothing on the other, as on Linux, and
 * `userdma check` says so.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { canMakeNets, newNet, untilListeningAt } from '../nets.ts'
import { assertGood, lacking, userdma } from '../programs.ts'

const HOSTS = `
check: true
hosts: [h1, h2]
switches: [sa, sb]
links:
  - { between: [h1, sa] }
  - { between: [h2, sa] }
  - { between: [h1, sb] }
`
const PORT = 18515

it('a device reaches no other subnet than its own', { skip: lacking('ip', 'ibv_rc_pingpong') }, async t => {
  if (!canMakeNets(t)) return
  const net = newNet(t, HOSTS)
  await net.up()
  const { hosts } = await net.show()
  assert.deepEqual(
    hosts[0]!.interfaces.map(({ device }) => device),
    ['rxe0', 'rxe1'],
  )
  /** The output of the server on the host with two devices. */
  const run = async (device: string) => {
    const server = net.startExec('h1', userdma, 'check', 'ibv_rc_pingpong', '-d', device, '-g', '1', '-n', '20')
    await untilListeningAt(hosts[0]!.daemon.pid, PORT, server)
    await net.exec('h2', 'ibv_rc_pingpong', '-g', '1', '-n', '20', 'h1')
    return server.ended
  }
  const { stderr } = await run('rxe1')
  assert.match(stderr, /warning refused-call: .*: ENETUNREACH: /)
  const [from, to] = [hosts[0]!.interfaces[1]!.address, hosts[1]!.interfaces[0]!.address]
  assert.ok(stderr.includes(`the system has no route from ${from} to ${to} (ENETUNREACH)`), stderr)
  assertGood(await run('rxe0'))
})
