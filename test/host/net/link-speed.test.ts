/*
 * The speed that the driver of an interface tells.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { linkSpeed } from '../../../src/host/net/link-speed.ts'
import { findTool } from '../../tools.ts'

const NAMESPACE = ['unshare', '--user', '--map-root-user', '--net']
const [command, ...options] = NAMESPACE
const canTry =
  findTool('ip') !== undefined &&
  findTool('unshare') !== undefined &&
  spawnSync(command!, [...options, 'true']).status === 0

test('a loopback and a missing interface have none', () => {
  assert.equal(linkSpeed('lo'), undefined)
  assert.equal(linkSpeed('no-such-interface-of-any-length'), undefined)
})

test("a virtual Ethernet's is 10 Gb/s", { skip: canTry ? false : 'the system allows no network namespace' }, () => {
  const module = new URL('../../../src/host/net/link-speed.js', import.meta.url).href
  const script = `import('${module}').then(({ linkSpeed }) => console.log(linkSpeed('one0'), linkSpeed('two0')))`
  const shell = `ip link add one0 type veth peer name two0 && exec '${process.execPath}' -e "$0"`
  const { stdout, stderr } = spawnSync(command!, [...options, 'sh', '-c', shell, script], { encoding: 'utf8' })
  assert.equal(stdout, '10000 10000\n', stderr)
})
