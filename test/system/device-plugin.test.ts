/*
 * `userdma device-plugin` with a stand-in for kubelet (kubelet.ts) and a real daemon: what pods get, health, kubelets
 * that restart, die and misbehave, and other plugins. device-plugin.long.test.ts runs containers.
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { repoRoot } from '../paths.ts'
import { Kubelet, type Listed, type Misbehaviour } from './kubelet.ts'
import {
  cleanEnvironment,
  lacking,
  type Running,
  removeDevice,
  runUserdma,
  type Scope,
  start,
  startDaemon,
  type TestDaemon,
  temporaryFolder,
  userdma,
} from './programs.ts'

const RDMA = 'userdma.dev/rdma'
/** Restarts of kubelet; the long test has more. */
const ROUNDS = 20
const SHIM = '/opt/userdma/libuserdma_shim.so'

/** A scope whose cleanups run in reverse order: a folder is removed when nobody writes there any more. */
const reversed = (t: Scope): Scope => {
  const cleanups: (() => unknown)[] = []
  t.after(async () => {
    for (const cleanup of cleanups.reverse()) await cleanup()
  })
  return { after: cleanup => void cleanups.push(cleanup) }
}

const startPlugin = (t: Scope, kubelet: Kubelet, socket: string, ...options: readonly string[]): Running => {
  let plugin: Running | undefined
  t.after(() => plugin?.ended.catch(() => {}))
  const words = ['device-plugin', '--socket', socket, '--kubelet', kubelet.folder, ...options]
  plugin = start(t, userdma, words, { env: cleanEnvironment() })
  return plugin
}

const newKubelet = (t: Scope): Kubelet => {
  const kubelet = new Kubelet(join(temporaryFolder(t), 'device-plugins'))
  t.after(() => kubelet.stop())
  return kubelet
}

const isAll = (health: string) => (listed: readonly Listed[]) =>
  listed.length > 0 && listed.every(device => device.health === health)
const isHealthy = isAll('Healthy')

const byDevice = (ids: readonly string[]): Record<string, number> => {
  const counts: Record<string, number> = {}
  for (const id of ids) counts[id.replace(/-\d+$/, '')] = (counts[id.replace(/-\d+$/, '')] ?? 0) + 1
  return counts
}

const startAll = async (
  t: Scope,
  devices: readonly string[],
  ...options: readonly string[]
): Promise<{ readonly kubelet: Kubelet; readonly daemon: TestDaemon; readonly plugin: Running }> => {
  const kubelet = newKubelet(t)
  await kubelet.start()
  const daemon = await startDaemon(t, { devices })
  return { kubelet, daemon, plugin: startPlugin(t, kubelet, daemon.socket, ...options) }
}

describe('userdma device-plugin', { skip: lacking(), concurrency: true }, () => {
  it('offers shares of devices, and answers what containers need', async test => {
    const t = reversed(test)
    const cdi = temporaryFolder(t)
    const { kubelet, daemon } = await startAll(
      t,
      ['rxe0@127.0.30.11', 'efa0@127.0.30.12,driver=efa', 'mlx5_0@127.0.30.13,driver=mlx5', 'rxe1@127.0.30.14'],
      ...['--resource', `${RDMA},shares=3`, '--resource', 'rdma/hca,shares=2,device=rxe1', '--cdi', cdi],
      ...['--resource', 'vpc.amazonaws.com/efa,driver=efa,shares=1'],
    )
    const rdma = await kubelet.until(RDMA, isHealthy)
    const ids = rdma.listed?.map(({ ID }) => ID)
    assert.deepEqual(
      ids,
      ['rxe0', 'efa0', 'mlx5_0', 'rxe1'].flatMap(name => [0, 1, 2].map(i => `${name}-${i}`)),
    )
    assert.deepEqual(await rdma.options, { pre_start_required: false, get_preferred_allocation_available: true })
    const hca = await kubelet.until('rdma/hca', isHealthy)
    assert.deepEqual(
      hca.listed?.map(({ ID }) => ID),
      ['rxe1-0', 'rxe1-1'],
    )
    const efa = await kubelet.until('vpc.amazonaws.com/efa', isHealthy)
    assert.deepEqual(
      efa.listed?.map(({ ID }) => ID),
      ['efa0-0'],
    )

    // The same as in the file of `userdma cdi`.
    const { stdout } = await runUserdma(t, ['cdi', '--socket', daemon.socket])
    assert.equal(readFileSync(join(cdi, 'userdma.json'), 'utf8'), stdout)
    const { env, mounts } = JSON.parse(stdout).devices[0].containerEdits as {
      env: string[]
      mounts: { hostPath: string; containerPath: string }[]
    }
    const answer = await rdma.allocate('rxe0-1', 'rxe1-2', 'rxe1-0')
    assert.deepEqual(
      Object.entries(answer.envs).map(([name, value]) => `${name}=${value}`),
      env,
    )
    assert.equal(answer.envs.LD_PRELOAD, SHIM)
    assert.deepEqual(
      answer.mounts,
      mounts.map(({ hostPath, containerPath }) => ({
        container_path: containerPath,
        host_path: hostPath,
        read_only: true,
      })),
    )
    assert.deepEqual(answer.cdi_devices, [{ name: `${RDMA}=rxe0` }, { name: `${RDMA}=rxe1` }])
    assert.deepEqual((await efa.allocate('efa0-0')).cdi_devices, [{ name: `${RDMA}=efa0` }])

    const prefer = async (available: readonly string[], must: readonly string[], size: number) => {
      const request = { available_deviceIDs: available, must_include_deviceIDs: must, allocation_size: size }
      const { container_responses } = await rdma.call<{ container_responses: { deviceIDs: string[] }[] }>(
        'GetPreferredAllocation',
        { container_requests: [request] },
      )
      return container_responses[0]?.deviceIDs ?? []
    }
    assert.deepEqual(await prefer(['rxe0-2', 'rxe1-0', 'rxe1-1'], [], 1), ['rxe1-0'])
    assert.deepEqual(byDevice(await prefer(ids ?? [], ['rxe0-1'], 8)), { rxe0: 2, efa0: 2, mlx5_0: 2, rxe1: 2 })
    assert.equal((await prefer(['rxe0-0'], [], 4)).length, 1)

    await assert.rejects(rdma.allocate('rxe0-1', 'rxe9-0'), {
      code: 5,
      details: `${RDMA} has no share "rxe9-0"; it has rxe0-0 to rxe1-2`,
    })
    await assert.rejects(rdma.allocate(), { code: 3 })
    await rdma.call('PreStartContainer', { devices_ids: ['rxe0-0'] })
    await assert.rejects(rdma.call('PreStartContainer', { devices_ids: ['x'] }), { code: 5 })

    await removeDevice(t, daemon, 'rxe1')
    await kubelet.until(RDMA, listed => listed.length === 9)
    await kubelet.until('rdma/hca', listed => listed.length === 0)
    await assert.rejects(hca.allocate('rxe1-0'), { code: 5, details: 'rdma/hca has no share "rxe1-0"; it has none' })
  })

  it('takes 10,000 shares at once, and refuses 10,000 unknown ones', async test => {
    const t = reversed(test)
    const { kubelet } = await startAll(t, ['rxe0@127.0.30.15'], '--resource', `${RDMA},shares=10000`)
    const endpoint = await kubelet.until(RDMA, isHealthy)
    const ids = (endpoint.listed ?? []).map(({ ID }) => ID)
    assert.equal(ids.length, 10_000)
    assert.equal((await endpoint.allocate(...ids)).mounts.length, 3)
    const unknown = ids.map(id => `${id}\u001b[2J${'x'.repeat(200)}`)
    await assert.rejects(endpoint.allocate(...unknown), ({ code, details }: { code: number; details: string }) => {
      assert.equal(code, 5)
      assert.match(
        details,
        /^userdma\.dev\/rdma has no share "rxe0-0 \[2Jx{68,71}" and 9999 others; it has rxe0-0 to rxe0-9999$/,
      )
      return true
    })
    assert.equal((await endpoint.allocate('rxe0-9999')).mounts.length, 3)
  })

  it('reports health: without a daemon, at its end, and when it comes back', async test => {
    const t = reversed(test)
    const kubelet = newKubelet(t)
    await kubelet.start()
    const first = await startDaemon(t, { devices: ['rxe0@127.0.30.16'] })
    const { socket } = first
    first.running.child.kill('SIGKILL')
    await first.running.ended
    const library = join(temporaryFolder(t), 'library')
    const options = ['--resource', `${RDMA},shares=2`, '--library-folder', library]
    const plugin = startPlugin(t, kubelet, socket, ...options)
    const endpoint = await kubelet.until(RDMA, listed => listed.length === 0)
    for (let round = 0; round < 2; round++) {
      const daemon = start(t, userdma, ['daemon', '--socket', socket, '--device', 'rxe0@127.0.30.16'], {
        env: cleanEnvironment(),
      })
      await kubelet.until(RDMA, isHealthy)
      const { envs, mounts } = await endpoint.allocate('rxe0-0')
      assert.equal(envs.USERDMA_SOCKET, socket)
      const [copy] = mounts.filter(({ container_path }) => container_path === SHIM)
      assert.equal(copy.host_path, join(library, 'libuserdma_shim.so'))
      assert.ok(readFileSync(copy.host_path).equals(readFileSync(join(repoRoot, 'build/native/libuserdma_shim.so'))))
      daemon.child.kill('SIGKILL')
      await kubelet.until(RDMA, isAll('Unhealthy'))
      await assert.rejects(endpoint.allocate('rxe0-0'), { code: 14 })
    }
    assert.equal(kubelet.registrations, 1)
    assert.match(plugin.output(), /no daemon at .*\n(?:.*\n)*.*has ended\n/)
  })

  it('registers with each of many kubelets, one after another', async test => {
    const t = reversed(test)
    const { kubelet, plugin } = await startAll(t, ['rxe0@127.0.30.17'], '--resource', RDMA, '--resource', 'rdma/hca')
    for (let round = 0; round < ROUNDS; round++) {
      await Promise.all([RDMA, 'rdma/hca'].map(name => kubelet.until(name, isHealthy)))
      assert.deepEqual(readdirSync(kubelet.folder).sort(), [
        'kubelet.sock',
        'userdma_rdma_hca.sock',
        'userdma_userdma.dev_rdma.sock',
      ])
      if (round % 10 === 0) kubelet.stop()
      else await kubelet.restart()
      if (round % 10 === 0) await kubelet.start()
    }
    const descriptors = readdirSync(`/proc/${plugin.child.pid}/fd`).length
    assert.ok(descriptors < 60, `${descriptors} descriptors`)
  })

  it('goes on with kubelets that refuse it, die, or close in the middle', async test => {
    const t = reversed(test)
    const { kubelet, plugin } = await startAll(t, ['rxe0@127.0.30.18'])
    const misbehaviours: Misbehaviour[] = ['refuses', 'never watches', 'closes the stream']
    for (const misbehaviour of misbehaviours) {
      await kubelet.until(RDMA, isHealthy)
      kubelet.misbehaves = misbehaviour
      await kubelet.restart()
    }
    await kubelet.until(RDMA, isHealthy)
    assert.match(plugin.output(), /kubelet\.sock: refused; tries again\n/)
    assert.match(plugin.output(), /does not watch its devices, as kubelets before 1\.26 cannot; registers it again\n/)
    kubelet.stop()
    kubelet.misbehaves = 'dies before its answer'
    await kubelet.start()
    while (kubelet.misbehaves !== undefined) await new Promise(setImmediate)
    await kubelet.start()
    await kubelet.until(RDMA, isHealthy)
  })

  it('starts before kubelet, replaces what a killed plugin left, and removes its own socket only', async test => {
    const t = reversed(test)
    const kubelet = newKubelet(t)
    const daemon = await startDaemon(t, { devices: ['rxe0@127.0.30.19'] })
    const socket = join(kubelet.folder, 'userdma_userdma.dev_rdma.sock')
    const killed = startPlugin(t, kubelet, daemon.socket)
    await killed.printed(/waits for kubelet at /)
    assert.ok(existsSync(socket))
    const second = await startPlugin(t, kubelet, daemon.socket).ended
    assert.equal(second.status, 1)
    assert.match(second.stderr, /^userdma: another process serves \S+\/userdma_userdma\.dev_rdma\.sock; end it first$/m)
    // Another resource is no conflict.
    const other = startPlugin(t, kubelet, daemon.socket, '--resource', 'rdma/hca')
    await kubelet.start()
    await Promise.all([RDMA, 'rdma/hca'].map(name => kubelet.until(name, isHealthy)))
    killed.child.kill('SIGKILL')
    await killed.ended
    assert.ok(existsSync(socket))
    const before = kubelet.endpoints.get(RDMA)
    const plugin = startPlugin(t, kubelet, daemon.socket)
    await kubelet.until(RDMA, (listed, endpoint) => isHealthy(listed) && endpoint !== before)
    for (const running of [plugin, other]) {
      running.child.kill('SIGTERM')
      assert.equal((await running.ended).status, 0)
    }
    assert.deepEqual(readdirSync(kubelet.folder), ['kubelet.sock'])

    // A file that took the path stays.
    const ended = kubelet.endpoints.get(RDMA)
    const last = startPlugin(t, kubelet, daemon.socket)
    await kubelet.until(RDMA, (listed, endpoint) => isHealthy(listed) && endpoint !== ended)
    last.child.kill('SIGSTOP')
    writeFileSync(`${socket}.new`, 'x')
    renameSync(`${socket}.new`, socket)
    last.child.kill('SIGTERM')
    last.child.kill('SIGCONT')
    await last.ended
    assert.equal(readFileSync(socket, 'utf8'), 'x')
  })

  it('names what is wrong', async test => {
    const t = reversed(test)
    const folder = temporaryFolder(t)
    const message = async (...args: readonly string[]): Promise<string> => {
      const { status, stderr } = await runUserdma(t, ['device-plugin', '--kubelet', folder, ...args])
      assert.notEqual(status, 0)
      return stderr
    }
    assert.match(
      await message('--kubelet', join(folder, 'none')),
      /^userdma: there is no folder \S+\/none, which kubelet makes: no kubelet runs here, or it has another --root-dir; name the folder with --kubelet$/m,
    )
    assert.match(
      await message('--library-folder', '/tmp'),
      /^userdma: --library-folder "\/tmp": others may write to \/tmp/,
    )
    for (const [resource, expected] of [
      ['rdma', /"rdma" is no name of a resource, which is DOMAIN\/NAME/],
      ['rdma/hca,shares=0', /shares="0" is not an integer from 1 to 10000/],
      [
        'rdma/hca,speed=1',
        /"speed=1" is no setting of a resource; after its name may follow shares=, driver= and device=/,
      ],
      ['kubernetes.io/rdma', /has the domain kubernetes\.io, which kubelet refuses/],
    ] as const)
      assert.match(await message('--resource', resource), expected)
    assert.match(
      await message('--resource', 'rdma/hca', '--resource', 'rdma/hca,shares=2'),
      /"rdma\/hca" is given twice/,
    )
  })

  it('survives clients that are no kubelets', async test => {
    const t = reversed(test)
    const { kubelet, plugin } = await startAll(t, ['rxe0@127.0.30.20'])
    const endpoint = await kubelet.until(RDMA, isHealthy)
    for (const text of ['', 'GET / HTTP/1.1\r\n\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u0000\u0000\u00ff'])
      await new Promise<void>(resolve => {
        const client = connect(join(kubelet.folder, 'userdma_userdma.dev_rdma.sock'), () => client.end(text))
        client.on('error', () => {}).on('close', () => resolve())
        client.resume()
      })
    await assert.rejects(endpoint.call('PreStartContainer', { devices_ids: ['\u0000'] }), { code: 5 })
    assert.ok(plugin.child.exitCode === null)
    assert.equal((await endpoint.allocate('rxe0-0')).mounts.length, 3)
  })
})
