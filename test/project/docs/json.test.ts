/*
 * The output of every command with --json is as docs/reference/json.schema.json says. That of `net show` is validated
 * in test/system/nets.ts, where there is a net.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { commands } from '../../../src/cli/command-line/commands.ts'
import { threadWaitKinds } from '../../../src/spec/check/thread-waits.ts'
import { fixture, repoRoot } from '../../paths.ts'
import { lacking, runUserdma, start, startDaemon, suiteScope, temporaryFolder, userdma } from '../../system/programs.ts'
import { assertValid, readReference, schema } from './json-schema.ts'

const failing = join(repoRoot, 'build', 'findings', 'no-receive-posted')
/** Ends by SIGALRM after three seconds. */
const hanging = join(repoRoot, 'build', 'findings', 'both-receive')
const endless = 'ibv_rc_pingpong -g 1 -n 1000000000 & while ! ibv_rc_pingpong -g 1 -n 1000000000 localhost; do :; done'
const skip = lacking('ibv_rc_pingpong', failing)

let socket = ''

/** Validates the output of a command: of `lines` each line by itself, of the others the whole text. */
const testOutput = (definition: string, args: readonly string[], kind: 'whole' | 'lines' = 'whole'): void => {
  test(`userdma ${definition} --json`, { skip }, async t => {
    const { stdout, stderr } = await runUserdma(
      t,
      args.map(word => (word === 'SOCKET' ? socket : word)),
    )
    // trace and check write to standard error, beside the output of the program.
    const lines = `${stdout}\n${stderr}`.split('\n').filter(line => line.startsWith('{'))
    const values = kind === 'lines' ? lines : [stdout]
    assert.ok(values.length > 0, stdout + stderr)
    for (const value of values) assertValid(definition, JSON.parse(value))
  })
}

const INFINIBAND = 'mlx5_1@127.0.0.3,driver=mlx5,layer=infiniband'
const at = ['--socket', 'SOCKET', '--json'] as const

describe('of a daemon with traffic', () => {
  const scope = suiteScope()
  before(async () => {
    const devices = ['rxe0@127.0.0.1', 'mlx5_0@127.0.0.2,pci=0000:81:00.0', 'ctx0', INFINIBAND]
    const options = ['--fault', 'device=mlx5_0,drop=1%', '--torment', '7']
    ;({ socket } = await startDaemon(scope, { devices, options }))
    if (skip) return
    start(scope, userdma, ['run', '--socket', socket, '--', 'sh', '-c', endless], { detached: true })
    // A queue pair with a peer exists from now on.
    await start(scope, userdma, ['top', '--socket', socket, '--json', '-d', '0.1']).printed(/"peer":/)
  })

  testOutput('stat', ['stat', ...at])
  testOutput('stat --qps', ['stat', ...at, '--qps'])
  testOutput('stat --waits', ['stat', ...at, '--waits'])
  testOutput('stat --health', ['stat', ...at, '--health'])
  testOutput('top', ['top', ...at, '-n', '2', '-d', '0.1'], 'lines')
  testOutput('devices', ['devices', ...at])
  testOutput('fault show', ['fault', 'show', ...at])
  testOutput('trace', ['trace', ...at, '--abi', '--', 'sh', '-c', `${failing} >&2`], 'lines')
  testOutput('trace -c', ['trace', ...at, '-c', '--', 'ibv_devinfo'], 'lines')
})

testOutput('doctor', ['doctor', '--json', 'ibv_devinfo', 'no-such-program'])
testOutput('walk', ['walk', '--json', '--points', '8', '--', failing], 'lines')
testOutput('check', ['check', '--json', '--notes', '--', failing], 'lines')

test('userdma sim --json', async t => {
  const file = join(temporaryFolder(t), 'sim.yaml')
  writeFileSync(file, 'topology: { star: 3 }\ntraffic: { pattern: incast }\ntime: 100us\n')
  const { status, stdout, stderr } = await runUserdma(t, ['sim', file, '--json'])
  assert.equal(status, 0, stderr)
  assertValid('sim', JSON.parse(stdout))
})

test('userdma explain --slow --json', { skip }, async t => {
  const file = join(temporaryFolder(t), 'session.udr')
  await runUserdma(t, ['run', '--private', '--record', file, '--', 'sh', '-c', `${failing}; ${hanging}`])
  const { stdout } = await runUserdma(t, ['explain', '--slow', file, '--json'])
  const lines = stdout.trim().split('\n')
  for (const kind of ['wait', 'programEnd', 'queuePair', 'request'])
    assert.match(stdout, new RegExp(`"kind":"${kind}"`))
  for (const line of lines) assertValid('explain --slow', JSON.parse(line))
})

test('the page lists every definition and every command with --json', () => {
  const page = readReference('json.md')
  const listed = [...page.matchAll(/`#\/\$defs\/([^`]+)`/g)].map(([, name]) => name)
  const helpers = ['deviceStat', 'failure', 'frame', 'logLine', 'loopWait', 'moment', 'storyLine']
  assert.deepEqual([...listed, ...helpers].sort(), Object.keys(schema.$defs).sort())
  const all = Object.values(commands).flatMap(one => [one, ...Object.values(one.commands ?? {})])
  const withJson = all.filter(({ options = {} }) => Object.hasOwn(options, 'json'))
  // `stat --qps`, `stat --waits`, `stat --health`, `stat --lent`, `trace -c`, `explain LOG`, `explain --slow` and
  // `net show --flows` are outputs of their own. `schema --json` is described elsewhere, and `net walk` prints what `walk` does.
  assert.equal(withJson.length, listed.length - 8 + 2)
})

test('the kinds of waits are those of the program', () => {
  const text = JSON.stringify(schema.$defs['stat --waits'])
  assert.ok(text.includes(`"kind":{"enum":${JSON.stringify(threadWaitKinds)}}`), text)
})

test('userdma explain FILE --json', async t => {
  const files = [
    ...['rping', 'nak_access_write', 'udaddy_reject', 'loss_read_responses'].map(name => `wire/${name}.pcap`),
    ...['healthy-udp-gso', 'one-direction-requests', 'wrong-rkey'].map(name => `captures/${name}.pcap.gz`),
  ]
  const { stdout } = await runUserdma(t, ['explain', '--json', ...files.map(file => fixture(file))])
  const lines = stdout.trimEnd().split('\n')
  assert.ok(lines.length > 12, stdout)
  for (const line of lines) assertValid('explain', JSON.parse(line))
})
