/*
 * Devices of network namespaces: `rdma system set netns exclusive` and `rdma dev set netns`, as programs in two
 * namespaces and in the daemon's own see the devices.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { describe, it } from 'node:test'
import { Errno } from '../../../src/spec/errno.ts'
import { dial } from '../../daemon/client.ts'
import { canMakeNamespaces, twoNamespaces } from '../namespaces.ts'
import { lacking, startDaemon, TWO_DEVICES } from '../programs.ts'
import { shell } from './rdma-tool.ts'

describe('exclusive network namespaces', { skip: lacking('rdma', 'ibv_devices', 'rping') }, () => {
  it('see their own devices only: by netlink, files, opens, events and rdma_cm', async t => {
    if (!canMakeNamespaces(t)) return
    const [first, second] = twoNamespaces(t, 1500)
    const daemon = await startDaemon(t, { devices: TWO_DEVICES })
    /** Runs a shell line in a network namespace; undefined: the daemon's. */
    const runIn = (netns: string | undefined, command: string) =>
      shell(t, daemon, netns === undefined ? command : `ip netns exec ${netns} sh -c '${command}'`)
    const devicesSeen = async (): Promise<string[]> => {
      const seen: string[] = []
      for (const netns of [undefined, first, second]) {
        const { output } = await runIn(netns, 'rdma dev; ls /sys/class/infiniband; ibv_devices')
        const [, ofNetlink = '', others = ''] = /^((?:\d+: .*\n)*)([\s\S]*)$/.exec(output) ?? []
        const names = [...ofNetlink.matchAll(/^\d+: (\S+):/gm)].map(([, name]) => name!)
        const inOthers = names.map(name => others.split(new RegExp(`\\b${name}\\b`)).length - 1)
        assert.ok(
          inOthers.every(count => count === 2),
          output,
        )
        assert.equal(others.match(/rxe\d/g)?.length ?? 0, 2 * names.length, output)
        seen.push(names.join())
      }
      return seen
    }

    assert.deepEqual(await devicesSeen(), Array(3).fill('rxe0,rxe1'))
    const refusal = await runIn(undefined, `rdma dev set rxe1 netns ${first}`)
    assert.match(refusal.output, /first `rdma system set netns exclusive`.*\nerror: Operation not supported$/m)

    assert.deepEqual(await runIn(undefined, 'rdma system set netns exclusive'), { status: 0, output: '' })
    assert.match((await runIn(undefined, 'rdma system')).output, /^netns exclusive /)
    assert.deepEqual(await devicesSeen(), ['rxe0,rxe1', '', ''])
    assert.deepEqual(await runIn(undefined, `rdma dev set rxe1 netns ${first}`), { status: 0, output: '' })
    assert.deepEqual(await devicesSeen(), ['rxe0', 'rxe1', ''])

    const client = dial(t, daemon)
    await client.hello()
    assert.equal((await client.open(1)).error, Errno.EPERM)
    client.close()

    // The daemon's namespace does not reach a server on the device of another through rdma_cm.
    const server = runIn(first, 'rping -s -C 1 -a 127.0.0.2')
    await runIn(first, 'until rdma res show cm_id | grep LISTEN; do :; done')
    assert.match((await runIn(undefined, 'rping -c -C 1 -a 127.0.0.2')).output, /REJECTED/)
    assert.equal((await runIn(first, 'rping -c -C 1 -a 127.0.0.2')).status, 0)
    assert.equal((await server).status, 0)

    // A device can be added only in the daemon's namespace, and the mode cannot change while another uses the daemon.
    assert.match((await runIn(first, 'rdma link add rxe9 type rxe netdev lo')).output, /Operation not supported/)
    const busy = await runIn(first, 'rdma system set netns shared')
    assert.match(busy.output, /from another network namespace.*\nerror: Device or resource busy$/m)

    // The device of a namespace that ends returns.
    spawnSync('ip', ['netns', 'delete', first])
    assert.equal((await runIn(undefined, `rdma dev set rxe0 netns ${second}`)).status, 0)
    const returned = 'until rdma dev show rxe1 >/dev/null 2>&1; do :; done; rdma dev'
    assert.match((await runIn(undefined, returned)).output, /^\d+: rxe1: .*\n$/)
    assert.deepEqual(await runIn(undefined, 'rdma system set netns shared'), { status: 0, output: '' })
    assert.match(
      (await runIn(undefined, 'rdma dev; ls /sys/class/infiniband')).output,
      /^(?=[\s\S]*: rxe0:)(?=[\s\S]*: rxe1:)[\s\S]*rxe0\nrxe1\n$/,
    )
  })
})
