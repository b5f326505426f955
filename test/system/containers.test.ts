/*
 * What a container gets of a daemon on its host: the file of `userdma cdi`; the standing of a guest, also for the
 * daemon's own user; and the sentence if the daemon cannot see it. Namespaces and capabilities are as a container's;
 * containers.long.test.ts runs podman.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { DaemonLine } from '../../src/spec/session.ts'
import {
  assertGood,
  cleanEnvironment,
  lacking,
  ownProgram,
  run,
  runUserdma,
  start,
  startDaemon,
  temporaryFolder,
  userdma,
} from './programs.ts'

const LOOPBACK = ownProgram('loopback')
const skip = (process.geteuid?.() !== 0 && 'needs root') || lacking('unshare', 'setpriv', LOOPBACK)

/** Capabilities that podman leaves to root of a container. */
const CAPABILITIES = ['chown', 'dac_override', 'fowner', 'fsetid', 'kill', 'setgid', 'setuid', 'setpcap']
const BOUND = `--bounding-set=-all,${CAPABILITIES.map(name => `+${name}`).join(',')}`
/** Commands that run a program of root as in a container. The second is as with `--pid=host`. */
const CONFINED = {
  'a PID namespace': ['unshare', '--pid', '--fork', '--mount-proc', '--mount', 'setpriv', BOUND],
  'fewer capabilities': ['setpriv', BOUND],
} as const

describe('userdma cdi', { skip: lacking() }, () => {
  it('describes what containers need', async t => {
    const daemon = await startDaemon(t, { devices: ['rxe0@127.0.50.11', 'mlx5_0@127.0.50.12,driver=mlx5'] })
    const file = join(temporaryFolder(t), 'userdma.json')
    assertGood(await runUserdma(t, ['cdi', '--socket', daemon.socket, '--output', file]))
    const { kind, devices } = JSON.parse(readFileSync(file, 'utf8')) as {
      readonly kind: string
      readonly devices: readonly {
        readonly name: string
        readonly containerEdits: {
          readonly env: readonly string[]
          readonly mounts: readonly { readonly hostPath: string; readonly options: readonly string[] }[]
        }
      }[]
    }
    assert.equal(kind, 'userdma.dev/rdma')
    assert.deepEqual(
      devices.map(({ name }) => name),
      ['rxe0', 'mlx5_0', 'all'],
    )
    const { env, mounts } = devices[0]!.containerEdits
    assert.deepEqual(env, [`USERDMA_SOCKET=${daemon.socket}`, 'LD_PRELOAD=/opt/userdma/libuserdma_shim.so'])
    assert.deepEqual(
      mounts.map(({ hostPath }) => hostPath.replace(/^.*\/libuserdma/, 'libuserdma')),
      [daemon.socket, `${daemon.socket}.tree`, 'libuserdma_shim.so'],
    )
    for (const { options } of mounts) assert.ok(options.includes('ro'))
    const none = await runUserdma(t, ['cdi', '--socket', join(temporaryFolder(t), 'none')])
    assert.deepEqual([none.status, none.stdout], [1, ''])
    assert.match(none.stderr, /^userdma: no daemon at/)
  })
})

describe("root of a container at root's daemon", { skip, concurrency: true }, () => {
  for (const [name, prefix] of Object.entries(CONFINED))
    it(`is a guest, by ${name}`, async t => {
      const daemon = await startDaemon(t, { devices: ['rxe0@127.0.50.11', 'mlx5_0@127.0.50.12,driver=mlx5'] })
      const confined = (...words: readonly string[]) => {
        const [program, ...args] = [...prefix, ...words]
        return run(t, program!, args, { env: daemon.env })
      }
      const tool = (...words: readonly string[]) => confined(userdma, ...words)
      const [rxe, mlx5, stat, ...refused] = await Promise.all([
        confined(LOOPBACK, '-d', 'rxe0'),
        confined(LOOPBACK, '-d', 'mlx5_0'),
        tool('stat'),
        tool('stop'),
        tool('trace', '--', 'true'),
      ])
      for (const finished of [rxe, mlx5, stat]) assertGood(finished)
      for (const { status, stderr } of refused) {
        assert.notEqual(status, 0)
        assert.match(stderr, /only the (?:daemon's own user|user of this daemon) may/)
      }
      // Root itself may, as before.
      assertGood(await run(t, userdma, ['stop'], { env: daemon.env }))
    })

  it('gets a sentence if the daemon is in another container', async t => {
    const socket = join(temporaryFolder(t), 'sock')
    const words = ['--pid', '--fork', '--mount-proc', '--kill-child', userdma, 'daemon', '--socket', socket]
    const daemon = start(t, 'unshare', [...words, '--device', 'rxe0@127.0.50.14'], { env: cleanEnvironment() })
    await daemon.printed(new RegExp(DaemonLine.READY))
    const { stderr } = await runUserdma(t, ['run', '--socket', socket, '--', 'ibv_devices'])
    assert.match(
      stderr,
      /^userdma: the daemon at \S+: it is in another PID namespace and cannot access this program's memory: run both in one container, or in one pod with shareProcessNamespace, or the daemon on the host/,
    )
  })
})
