/*
 * `run --host --record`: calls, objects, posts and polls of a program on the machine's own devices, and beside a
 * capture of the machine its packets, in one recording. The machine's devices are those of a daemon here, whose packets
 * `userdma trace --pcap` writes.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { lacking, temporaryFolder, userdma } from './programs.ts'

const program = join(repoRoot, 'build', 'findings', 'unknown-rkey')
const run = (...args: string[]) => spawnSync(userdma, args, { encoding: 'utf8' })

test('a failed request and its packets are in one recording', { skip: lacking(program) }, t => {
  const folder = temporaryFolder(t)
  const [session, capture] = [join(folder, 'session.udr'), join(folder, 'packets.pcapng')]
  const observed = [userdma, 'run', '--host', '--record', session, '--', program]
  const { status, stderr } = run(
    'trace',
    '--private',
    '-o',
    join(folder, 'trace'),
    '--pcap',
    capture,
    '--',
    ...observed,
  )
  assert.equal(status, 0, stderr)
  assert.match(stderr, /REM_ACCESS_ERR/)

  const alone = run('export', session, '--to', 'text').stdout
  assert.match(alone, /object \d+ created: rc_qp /)
  assert.match(alone, /changed: rc_qp .*"state":3/)
  assert.match(alone, /request 1 posted to object \d+: RDMA_WRITE wr_id 1 4096 B/)
  assert.match(alone, /request 1 completed: REM_ACCESS_ERR/)
  assert.match(alone, /unknown-rkey \(\d+\) ended with status 0/)
  assert.doesNotMatch(alone, / sent WRITE/)

  const lines = run('export', session, '--capture', capture, '--to', 'text').stdout.split('\n')
  const at = (pattern: RegExp): number => lines.findIndex(line => pattern.test(line))
  const order = [/request 1 posted/, /device 0 sent WRITE_FIRST/, /device 0 sent ACKNOWLEDGE .* NAK REMOTE_ACCESS/]
  const places = order.map(at)
  assert.ok(
    places.every((place, i) => place > (places[i - 1] ?? 0)),
    lines.join('\n'),
  )
  const slow = run('explain', '--slow', session, '--capture', capture).stdout
  assert.match(slow, /the acknowledgement or answer/)
})

test('with --record-on-failure, a program that succeeds leaves no file', t => {
  const file = join(temporaryFolder(t), 'session.udr')
  assert.equal(
    run('run', '--private', '--', userdma, 'run', '--host', '--record', file, '--record-on-failure', '--', 'true')
      .status,
    0,
  )
  assert.equal(existsSync(file), false)
  assert.equal(
    run('run', '--private', '--', userdma, 'run', '--host', '--record', file, '--record-on-failure', '--', 'false')
      .status,
    1,
  )
  assert.equal(existsSync(file), true)
})

test('mistakes get a sentence', t => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'session.udr')
  assert.match(
    run('run', '--host', '--record', file, '--payload', '64', '--', 'true').stderr,
    /--host and --payload exclude each other/,
  )
  assert.match(run('check', '--host', '--record', file, '--', 'true').stderr, /--host and --record exclude each other/)
  assert.match(run('inspect', '--capture', file).stderr, /--capture shows packets beside a recording/)
  writeFileSync(file, 'neither')
  assert.match(run('export', file, '--capture', file, '--to', 'text').stderr, /this is no session file/)
})
