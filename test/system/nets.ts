/*
 * Nets of `userdma net` in tests. Their names have the test's process id, because root's namespaces are those of the
 * whole machine.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { assertValid } from '../project/docs/json-schema.ts'
import { skipTest } from '../tools.ts'
import {
  assertGood,
  cleanEnvironment,
  type Finished,
  type Running,
  run,
  type Scope,
  start,
  temporaryFolder,
  userdma,
} from './programs.ts'

/** The parts of `net show --json` that tests use. */
interface ShownNet {
  readonly phase: string
  readonly hosts: readonly {
    readonly name: string
    readonly socket: string
    readonly daemon: { readonly state: string; readonly pid: number }
    readonly interfaces: readonly { readonly address: string; readonly device?: string }[]
  }[]
}

interface NetUser {
  readonly uid?: number
  readonly gid?: number
}

/** Skips the test if nets cannot be made here. */
export const canMakeNets = (t: TestContext, user: NetUser = {}): boolean => {
  const isRoot = (user.uid ?? process.geteuid?.()) === 0
  const words = isRoot ? ['--net'] : ['--user', '--map-root-user', '--mount', '--net']
  const { status } = spawnSync('unshare', [...words, 'ip', 'link', 'show'], { cwd: '/', ...user })
  return status === 0 || skipTest(t, 'nets need iproute2, and root or user namespaces')
}

let made = 0

/**
 * A net of the file's text, which is not up yet. It is removed at the end of the scope. `folder`: the runtime folder.
 */
export const newNet = (scope: Scope, topology: string, user: NetUser = {}, folder = temporaryFolder(scope)) => {
  const name = `t${process.pid}n${made++}`
  const file = join(folder, `${name}.yaml`)
  writeFileSync(file, `name: ${name}\n${topology}`)
  const options = { cwd: '/', env: cleanEnvironment({ XDG_RUNTIME_DIR: folder }), ...user }
  const net = (...args: readonly string[]): Promise<Finished> => run(scope, userdma, ['net', ...args], options)
  const startNet = (...args: readonly string[]): Running => start(scope, userdma, ['net', ...args], options)
  scope.after(() => spawnSync(userdma, ['net', 'down', name], options))
  const show = async (): Promise<ShownNet> => {
    const shown = await net('show', name, '--json')
    assertGood(shown)
    const value = JSON.parse(shown.stdout) as ShownNet
    assertValid('net show', value)
    return value
  }
  return {
    name,
    file,
    folder,
    options,
    net,
    startNet,
    show,
    tryUp: () => net('up', file),
    up: async () => assertGood(await net('up', file)),
    /** A program on a host. */
    exec: (host: string, ...words: readonly string[]) => net('exec', '--net', name, host, '--', ...words),
    startExec: (host: string, ...words: readonly string[]) => startNet('exec', '--net', name, host, '--', ...words),
    /** Asserts that nothing is left of the net. */
    assertGone(): void {
      const nets = join(folder, 'userdma', 'net')
      assert.deepEqual(existsSync(nets) ? readdirSync(nets) : [], [])
      const namespaces = existsSync('/run/netns') ? readdirSync('/run/netns') : []
      assert.deepEqual(
        namespaces.filter(found => found.startsWith(`userdma-${name}-`)),
        [],
      )
      const processes = readdirSync('/proc').filter(pid => {
        try {
          // A zombie has no command line.
          return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`/net/${name}/`)
        } catch {
          return false
        }
      })
      assert.deepEqual(processes, [])
    },
  }
}

/** TCP_LISTEN in /proc/PID/net/tcp, which is that of the process's network namespace. */
const LISTEN = '0A'

/** Resolves when a program listens on a TCP port in the network namespace of a process; rejects if it ends before. */
export const untilListeningAt = async (pid: number, port: number, server: Running): Promise<void> => {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  let hasEnded = false
  void server.ended.finally(() => {
    hasEnded = true
  })
  for (;;) {
    const lines = ['tcp', 'tcp6'].flatMap(table => readFileSync(`/proc/${pid}/net/${table}`, 'utf8').split('\n'))
    const isListening = lines.some(line => {
      const [, address = '', , state] = line.trim().split(/\s+/)
      return state === LISTEN && address.endsWith(suffix)
    })
    if (isListening) return
    if (hasEnded) throw new Error(`the server has ended: ${server.output()}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

/** Hosts of two drivers: h1 and h2 reach each other by name, statuses and signals pass, and nothing is left. */
export const useNet = async (t: TestContext, user: NetUser, folder?: string): Promise<void> => {
  if (!canMakeNets(t, user)) return
  const hosts =
    'hosts: { h1: { driver: mlx5 }, h2: }\nlinks: [{ between: [h1, h2], mtu: 4200, rate: 1gbit, delay: 20us }]'
  const net = newNet(t, hosts, user, folder)
  await net.up()
  const { phase, hosts: shown } = await net.show()
  assert.equal(phase, 'up')
  assert.deepEqual(
    shown.map(({ name, daemon, interfaces }) => [name, daemon.state, interfaces[0]!.device, interfaces[0]!.address]),
    [
      ['h1', 'running', 'mlx5_0', '10.77.0.1'],
      ['h2', 'running', 'rxe0', '10.77.0.2'],
    ],
  )
  const server = net.startExec('h1', 'ibv_rc_pingpong', '-g', '3', '-e', '-n', '20')
  await untilListeningAt(shown[0]!.daemon.pid, 18515, server)
  const [client, served, ended] = await Promise.all([
    net.exec('h2', 'ibv_rc_pingpong', '-g', '1', '-e', '-n', '20', 'h1'),
    server.ended,
    net.exec('h2', 'sh', '-c', 'hostname; echo /sys/class/net/*; exit 7'),
  ])
  assertGood(client)
  assertGood(served)
  assert.deepEqual([ended.status, ended.stdout], [7, 'h2\n/sys/class/net/eth0 /sys/class/net/lo\n'])
  const again = await net.net('up', net.file)
  assert.match(again.stderr, /^userdma: the net \w+ is up already; `userdma net down \w+` removes it\n$/)
  const waiting = net.startExec('h1', 'sh', '-c', 'trap "" TERM; echo ready; sleep 1000; :')
  const stopped = net.startExec('h1', 'sh', '-c', 'echo ready; exec sleep 1000')
  await Promise.all([waiting.printed(/ready/), stopped.printed(/ready/)])
  stopped.child.kill('SIGTERM')
  assert.equal((await stopped.ended).signal, 'SIGTERM')
  assertGood(await net.net('down', net.name))
  assert.equal((await waiting.ended).signal, 'SIGKILL')
  net.assertGone()
}
