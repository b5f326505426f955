/*
 * The output of the examples, and their imports.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { hasNative } from '../../../src/host/native.ts'
import { fixture, repoRoot } from '../../paths.ts'
import { startDaemon, temporaryFolder } from '../../system/programs.ts'

const compiledPath = (name: string): string => fileURLToPath(new URL(`../../../examples/${name}.js`, import.meta.url))

/** The output of an example. With NODE_TEST_CONTEXT, node:test in an example would act as a child of this test. */
const run = (name: string, args: readonly string[] = [], options: readonly string[] = []): string => {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  const command = [...options, compiledPath(name), ...args]
  return execFileSync(process.execPath, command, { encoding: 'utf8', env })
}

test('examples and a third-party driver import only the package’s exports', () => {
  const { exports } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8'))
  const exportedFiles = Object.values<{ types?: string }>(exports).map(entry =>
    entry.types?.replace('./dist', repoRoot).replace(/\.d\.ts$/, '.ts'),
  )
  const sources = readdirSync(join(repoRoot, 'examples'), { recursive: true, encoding: 'utf8' })
    .filter(name => /\.m?[jt]s$/.test(name))
    .map(name => join(repoRoot, 'examples', name))
  for (const source of sources)
    for (const [, module] of readFileSync(source, 'utf8').matchAll(/from '(?!node:|vitest'|\.\/)([^']+)'/g))
      assert.ok(module!.replace(/^userdma/, '.') in exports, `${source}: ${module}`)
  // This driver imitates one outside the package.
  const driver = join(repoRoot, 'test', 'library', 'verbs', 'classes', 'third-party-driver.ts')
  assert.ok(sources.length >= 7)
  for (const [, module] of readFileSync(driver, 'utf8').matchAll(/from '(\.[^']+)'/g))
    assert.ok(exportedFiles.includes(join(driver, '..', module!)), `${driver}: ${module}`)
})

test('ping-pong has less than 60 lines, and makes all round trips', () => {
  assert.match(run('ping-pong', ['200', '100']), /^200 round trips of 100 bytes, [\d.]+ µs each\n$/)
  assert.ok(readFileSync(join(repoRoot, 'examples', 'ping-pong.ts'), 'utf8').split('\n').length < 60)
})

test('rpc has less than 50 lines, and all its clients get their answers', () => {
  assert.equal(run('rpc'), '8 of 8 clients got 1000 answers and one of 1 MB\n')
  assert.ok(readFileSync(join(repoRoot, 'examples', 'rpc.ts'), 'utf8').split('\n').length < 50)
})

test('fabric moves the flows of a spine that is down, and back', () => {
  const [both, one, again, , ...paths] = run('fabric', ['65536']).trim().split('\n')
  assert.match(both!, /^two spines: s5 has (?!0)\d+ flows, s6 has (?!0)\d+ flows, [\d.]+ ms$/)
  assert.match(one!, /^one spine: s5 has 0 flows, s6 has 64 flows, /)
  assert.equal(again!.replace(/, [\d.]+ ms$/, ''), both!.replace(/, [\d.]+ ms$/, ''))
  assert.ok(paths.every(path => /^ {2}s\d s\d s\d: \d+ packets$/.test(path)))
})

test('key-value finds all keys by RDMA READs', () => {
  const output = run('key-value', ['300'])
  assert.match(output, /^300 of 300 keys found, [\d.]+ µs each, \d+ packets sent\n/)
  assert.match(output, /\nkey 0 is "another value", key x is undefined\n$/)
})

test('key-value ends the lookup of an unknown key also with one key', () => {
  assert.match(run('key-value', ['1']), /\nkey 0 is "another value", key x is undefined\n$/)
})

test('clients of connect-by-address read the server’s memory', () => {
  assert.equal(run('connect-by-address', ['20']), '20 of 20 clients have read "every client may read this"\n')
})

test('ping: two IP stacks answer pings, and all bytes arrive over a lossy link', () => {
  assert.match(
    run('ping', ['2%', '100000']),
    /^10 pings answered, the fastest in \d+ µs\n100000 bytes arrived, in 72 datagrams with \d+ retransmissions\n$/,
  )
})

test('infiniband: messages by LID, and a cable that is pulled', () => {
  assert.equal(
    run('infiniband'),
    `4 ports are ACTIVE, host1 has LID 2, host4 8
host4 has "by LID"
a datagram of 6 bytes from LID 2, without a GRH
without the cable of host4: RETRY_EXC_ERR
`,
  )
})

test('the tests in network-double pass', () => {
  const output = run('network-double.test', [], ['--test', '--test-reporter=tap'])
  assert.match(output, /# pass 3\n# fail 0\n/)
})

test('the tests in checked pass', () => {
  const output = run('checked.test', [], ['--enable-source-maps', '--test', '--test-reporter=tap'])
  assert.match(output, /# pass 2\n# fail 0\n/)
})

test('many-connections serves 1,000 queue pairs from one event loop', () => {
  assert.match(run('many-connections', ['1000', '2']), /^2000 of 2000 answers on 1000 connections, \d+ a second\n$/)
})

const chainedOutput =
  /^one chain: [\d.]+ µs for each queue pair\nsingle calls: .*\nSUCCESS: the peer's byte is 42\nnothing was created: rc_qp\.create: maxSendWr/

test('chained-set-up creates all objects in one call, in this process and in a daemon', async t => {
  assert.match(run('chained-set-up', ['20']), chainedOutput)
  if (!hasNative()) return
  const { socket } = await startDaemon(t)
  assert.match(run('chained-set-up', ['50', socket]), chainedOutput)
})

test('decode-pcap prints a capture of Linux packet by packet', () => {
  const output = run('decode-pcap', [fixture('wire', 'atomics.pcap')])
  assert.match(output, /µs {2}[\d.]+ → [\d.]+ {2}COMPARE_SWAP qp 0x/)
  assert.match(output, /\n {5}0 {2}with a wrong ICRC\n$/)
})

test('decode-pcap refuses a capture that is not of Ethernet', t => {
  const capture = readFileSync(fixture('wire', 'atomics.pcap'))
  const [LINK_TYPE_OFFSET, LINUX_SLL] = [20, 113]
  capture.writeUInt32LE(LINUX_SLL, LINK_TYPE_OFFSET)
  const path = join(temporaryFolder(t), 'any.pcap')
  writeFileSync(path, capture)
  assert.throws(() => run('decode-pcap', [path]), { status: 1, message: /any\.pcap: link type 113 is not Ethernet/ })
})

test('ctx-messages exchanges messages between contexts of a device without verbs', () => {
  assert.deepEqual(run('ctx-messages').trim().split('\n'), [
    'context 0 got "contexts", tag 0, from context 1',
    'context 0 got "without", tag 1, from context 1',
    'context 0 got "verbs", tag 2, from context 1',
    'context 1 got "answer", tag 9, from context 0',
  ])
})
