/*
 * `userdma fault link` on devices of a daemon: the port's state, its files and events, and packets.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { openToolSession } from '../../../src/daemon/client/tool-session.ts'
import { hasNative } from '../../../src/host/native.ts'
import { type Device, open } from '../../../src/library/index.ts'
import { closeAll, completionText, pair } from '../../library/verbs/endpoints.ts'
import { assertGood, runUserdma, startDaemon, suiteScope, type TestDaemon } from '../programs.ts'

const DEVICES = [
  'rxe0@127.0.0.1',
  'rxe1@127.0.0.2',
  'efa0@127.0.0.3,driver=efa',
  'mlx5_0@127.0.0.4,driver=mlx5',
  'ctx0',
]

describe('the link of a device of a daemon', { skip: !hasNative() && 'koffi is missing' }, () => {
  const scope = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(scope, { devices: DEVICES })
  })
  const link = (...args: readonly string[]) => runUserdma(scope, ['fault', 'link', '--socket', daemon.socket, ...args])
  const stateOf = (device: string): string =>
    readFileSync(join(`${daemon.socket}.tree`, 'sys/class/infiniband', device, 'ports/1/state'), 'latin1').trim()
  const eventsOf = (device: Device) => {
    const events = device.events()
    return async (): Promise<string | undefined> => (await events.next()).value?.type
  }

  for (const name of ['rxe0', 'efa0', 'mlx5_0'])
    it(`goes down and up: ${name}`, async () => {
      const device = await open({ socket: daemon.socket, device: name })
      const next = eventsOf(device)
      assertGood(await link(name, 'down'))
      assert.equal(await next(), 'PORT_ERR')
      assert.equal(stateOf(name), '1: DOWN')
      assertGood(await link(name, 'up'))
      assert.equal(await next(), 'PORT_ACTIVE')
      assert.equal(stateOf(name), '4: ACTIVE')
      await device.close()
    })

  it('loses the packets of both directions while it is down', async () => {
    const openTwo = async () =>
      [await open({ socket: daemon.socket }), await open({ socket: daemon.socket, device: 'rxe1' })] as const
    const { a, b } = await pair(openTwo)
    assertGood(await link('rxe1', 'down'))
    a.qp.write(a.mr.slice(0, 8), b.mr.remote(), { id: 1 })
    assert.equal(await completionText(a.cq), '1 RETRY_EXC_ERR')
    b.qp.write(b.mr.slice(0, 8), a.mr.remote(), { id: 2 })
    assert.equal(await completionText(b.cq), '2 RETRY_EXC_ERR')
    assertGood(await link('rxe1', 'up'))
    await closeAll(a, b)
  })

  it('comes back after the time of --for', async () => {
    const device = await open({ socket: daemon.socket })
    const next = eventsOf(device)
    assertGood(await link('rxe0', 'down', '--for', '50ms'))
    assert.deepEqual([await next(), await next()], ['PORT_ERR', 'PORT_ACTIVE'])
    await device.close()
  })

  it('mistakes get a sentence', async () => {
    for (const [args, message] of [
      [['rxe9', 'down'], /there is no device rxe9; there are rxe0, rxe1, efa0, mlx5_0, ctx0/],
      [['ctx0', 'down'], /the device ctx0 has no link/],
      [['rxe0', 'off'], /"off" is no state of a link; give down or up/],
      [['rxe0', 'up', '--for', '1s'], /--for is the time for which a link is down; leave it out with up/],
      [['rxe0', 'down', '--for', '1h'], /--for: "1h" is not milliseconds from 1 to 600000/],
    ] as const) {
      const { status, stderr } = await link(...args)
      assert.notEqual(status, 0)
      assert.match(stderr, message)
    }
  })

  it('thousands of outages, some of a device that is removed meanwhile, leave the daemon as it was', async () => {
    const client = await openToolSession(daemon.socket)
    const spec = { name: 'rxe2', address: '127.0.0.5' }
    await client.changeDevices({ add: spec })
    for (let n = 0; n < 2000; n++) {
      await client.setLink('rxe2', false, 1 + (n % 3))
      if (n % 100 === 0) await client.setLink('rxe2', true)
    }
    await client.setLink('rxe2', false, 20)
    await client.changeDevices({ remove: 'rxe2' })
    await client.changeDevices({ add: spec })
    assert.equal(stateOf('rxe2'), '4: ACTIVE')
    assert.equal((await client.config()).devices.length, DEVICES.length + 1)
    client.close()
  })
})
