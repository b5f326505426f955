/*
 * Pairs of network namespaces, joined by veth.
 */
import { spawnSync } from 'node:child_process'
import type { TestContext } from 'node:test'
import { findTool, skipTest } from '../tools.ts'
import type { Scope } from './programs.ts'

/** iproute2's `ip`. */
export const ip = (...args: readonly string[]): void => {
  const { status, stderr } = spawnSync('ip', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr}`)
}

/** Skips the test if network namespaces cannot be created here. */
export const canMakeNamespaces = (t: TestContext): boolean => {
  const name = `ud${process.pid}x`
  const attempts = [
    ['netns', 'add', name],
    ['-n', name, 'link', 'show'],
  ]
  const succeeded = findTool('ip') !== undefined && attempts.every(args => spawnSync('ip', args).status === 0)
  spawnSync('ip', ['netns', 'delete', name])
  return succeeded || skipTest(t, 'network namespaces need root and iproute2')
}

interface VethOptions {
  /** Default: true. */
  readonly hasOffload?: boolean
}

let createdPairs = 0

/** Creates two namespaces joined by a veth pair v0 (see `connectNamespaces`), until the end of the scope. */
export const twoNamespaces = (scope: Scope, mtu: number, options: VethOptions = {}): readonly [string, string] => {
  const names = [0, 1].map(i => `ud${process.pid}n${createdPairs}${i}`)
  createdPairs++
  scope.after(() => {
    for (const name of names) spawnSync('ip', ['netns', 'delete', name])
  })
  for (const name of names) {
    ip('netns', 'add', name)
    ip('-n', name, 'link', 'set', 'lo', 'up')
  }
  const pair = [names[0], names[1]] as const
  connectNamespaces(pair, 'v0', mtu, options)
  return pair
}

/** Creates a veth pair `dev`: 10.99.0.1 and fd99::1 in the first namespace, 10.99.0.2 and fd99::2 in the second. */
export const connectNamespaces = (
  namespaces: readonly [string, string],
  dev: string,
  mtu: number,
  { hasOffload = true }: VethOptions = {},
): void => {
  const [first, second] = namespaces
  ip('link', 'add', dev, 'netns', first, 'type', 'veth', 'peer', 'name', dev, 'netns', second)
  namespaces.forEach((name, i) => {
    ip('-n', name, 'address', 'add', `10.99.0.${i + 1}/24`, 'dev', dev)
    ip('-n', name, 'address', 'add', `fd99::${i + 1}/64`, 'dev', dev, 'nodad')
    // Without offload the kernel segments messages before the interface: single packets are on the wire.
    ip('-n', name, 'link', 'set', dev, 'mtu', String(mtu), ...(hasOffload ? [] : ['gso_max_segs', '1']), 'up')
  })
  for (const name of namespaces) untilUp(name, dev)
}

/** As if_nametoindex(3). */
export const interfaceIndex = (namespace: string, dev: string): number =>
  Number.parseInt(spawnSync('ip', ['-n', namespace, '-o', 'link', 'show', 'dev', dev], { encoding: 'utf8' }).stdout, 10)

/** Linux attaches an interface's queue within a second, and drops packets until then. */
const untilUp = (namespace: string, dev: string): void => {
  for (let tries = 0; tries < 2000; tries++) {
    const { stdout } = spawnSync('ip', ['-n', namespace, 'link', 'show', 'dev', dev], { encoding: 'utf8' })
    if (/ state UP /.test(stdout)) return
  }
  throw new Error(`${dev} of ${namespace} does not come up`)
}
