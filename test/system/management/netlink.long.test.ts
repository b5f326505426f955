/*
 * Debian 13's `rdma` (iproute2 6.15).
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { lacking, start, startDaemon } from '../programs.ts'
import { debian13 } from '../suites/debian13.ts'
import { assertShowsIdentifiers, assertShowsObjects, shell } from './rdma-tool.ts'

const RECORDINGS = '6.15-on-6.12'

describe("Debian 13's rdma", { skip: lacking('ibv_rc_pingpong', 'ibv_srq_pingpong', 'rping', 'ucmatose') }, () => {
  const rdma = debian13(['iproute2'], 'rdma')
  const skip = 'skip' in rdma ? rdma.skip : false
  const path = 'path' in rdma ? rdma.path : ''

  it('shows devices, links, objects and counters as on Linux', { skip }, t => assertShowsObjects(t, RECORDINGS, path))

  it('shows identifiers of rdma_cm as on Linux', { skip }, t => assertShowsIdentifiers(t, RECORDINGS, path))

  it('sets and shows whether all programs may use controlled Q_Keys', { skip }, async t => {
    const daemon = await startDaemon(t)
    await shell(t, daemon, 'rdma system set privileged-qkey on', path)
    assert.match((await shell(t, daemon, 'rdma system', path)).output, /privileged-qkey on/)
  })

  it('is notified of devices that are added, renamed and removed', { skip }, async t => {
    const daemon = await startDaemon(t)
    const monitor = start(t, 'stdbuf', ['-oL', join(path, 'rdma'), 'monitor'], { env: daemon.env })
    // The monitor does not tell when it has subscribed: renames the device until the monitor prints a rename.
    let isSubscribed = false
    const renamed = monitor.printed(/\[RENAME\]/).then(() => {
      isSubscribed = true
    })
    for (let [name, next] = ['rxe0', 'other']; !isSubscribed; [name, next] = [next, name])
      await shell(t, daemon, `rdma dev set ${name} name ${next}`, path)
    await renamed
    const { devices } = await daemon.stat()
    // Linux gives the numbers of devices in turn (xa_alloc_cyclic in assign_name).
    const steps = [
      [`rdma link del ${devices[0].name}`, /\[UNREGISTER\]\tdev 0 \w+\n$/],
      [
        'rdma link add rxe7 type rxe netdev lo',
        /\[REGISTER\]\tdev 1 rxe7\n\[NETDEV_ATTACH\]\tdev 1 rxe7 port 1 netdev 1 lo\n$/,
      ],
      ['rdma dev set rxe7 name mlx5_0', /\[RENAME\]\tdev 1 mlx5_0\n$/],
    ] as const
    for (const [command, pattern] of steps) {
      assert.deepEqual(await shell(t, daemon, command, path), { status: 0, output: '' }, command)
      await monitor.printed(pattern)
    }
  })
})
