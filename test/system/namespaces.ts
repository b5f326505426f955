/*
 * Network namespaces for tests: two joined by a veth pair, and changes to them.
 */
import { spawnSync } from 'node:child_process'
import { findTool, missing } from '../tools.ts'
import type { Scope } from './programs.ts'

export const ip = (...args: readonly string[]): void => {
  const { status, stderr } = spawnSync('ip', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr}`)
}

/** Whether network namespaces can be created here; skips the test if not. */
export const canMakeNamespaces = (t: Scope & { skip(why: string): void; name: string }): boolean => {
  const name = `ud${process.pid}x`
  const tried = [
    ['netns', 'add', name],
    ['-n', name, 'link', 'show'],
  ]
  const made = findTool('ip') !== undefined && tried.every(args => spawnSync('ip', args).status === 0)
  spawnSync('ip', ['netns', 'delete', name])
  return made || missing(t as Parameters<typeof missing>[0], 'network namespaces need root and iproute2')
}

let namespaces = 0

/** Two namespaces joined by a veth pair with IPv4 and IPv6 addresses; removed with the test. */
export const twoNamespaces = (scope: Scope, mtu: number, hardware: boolean): readonly [string, string] => {
  const names = [0, 1].map(i => `ud${process.pid}n${namespaces}${i}`)
  namespaces++
  scope.after(() => {
    for (const name of names) spawnSync('ip', ['netns', 'delete', name])
  })
  for (const name of names) {
    ip('netns', 'add', name)
    ip('-n', name, 'link', 'set', 'lo', 'up')
  }
  const two = [names[0], names[1]] as const
  join(two, 'v0', mtu, hardware)
  return two
}

/** A veth pair with the same name on both sides, with the addresses that end in 1 and 2. */
export const join = (namespaces: readonly [string, string], dev: string, mtu: number, hardware: boolean): void => {
  const [first, second] = namespaces
  ip('link', 'add', dev, 'netns', first, 'type', 'veth', 'peer', 'name', dev, 'netns', second)
  namespaces.forEach((name, i) => {
    ip('-n', name, 'address', 'add', `10.99.0.${i + 1}/24`, 'dev', dev)
    ip('-n', name, 'address', 'add', `fd99::${i + 1}/64`, 'dev', dev, 'nodad')
    // An interface without segmentation offload: the kernel segments first, so that real packets are on the wire.
    ip('-n', name, 'link', 'set', dev, 'mtu', String(mtu), ...(hardware ? [] : ['gso_max_segs', '1']), 'up')
  })
  for (const name of namespaces) untilUp(name, dev)
}

/** Index of an interface. */
export const indexOf = (namespace: string, dev: string): number =>
  Number.parseInt(spawnSync('ip', ['-n', namespace, '-o', 'link', 'show', 'dev', dev], { encoding: 'utf8' }).stdout, 10)

/** Linux attaches a queue to the interface within a second; until then it drops packets. */
const untilUp = (namespace: string, dev: string): void => {
  for (let left = 2000; left > 0; left--) {
    const { stdout } = spawnSync('ip', ['-n', namespace, 'link', 'show', 'dev', dev], { encoding: 'utf8' })
    if (/ state UP /.test(stdout)) return
  }
  throw new Error(`${dev} of ${namespace} does not come up`)
}
