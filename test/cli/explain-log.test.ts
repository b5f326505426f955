/*
 * `userdma explain` of logs: what it takes, and its exit status.
 */
import assert from 'node:assert/strict'
import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { fixture } from '../paths.ts'
import { assertValid } from '../project/docs/json-schema.ts'
import { temporaryFolder, userdma } from '../system/programs.ts'

const log = fixture('logs', 'nccl-one-peer.log')
const explain = (args: readonly string[], input?: Uint8Array): SpawnSyncReturns<string> =>
  spawnSync(userdma, ['explain', ...args], {
    encoding: 'utf8',
    maxBuffer: 32 << 20,
    ...(input !== undefined && { input }),
  })
const FIRST = /^On node1, mlx5_3: a request was sent several times, and node7 \(10\.0\.0\.7\) did not answer/

test('files, standard input, folders and archives; 65 if RDMA failed, 0 if not, 2 if it cannot be read', t => {
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'logs', 'inner'), { recursive: true })
  copyFileSync(log, join(folder, 'logs', 'inner', 'job.log'))
  writeFileSync(join(folder, 'logs', 'job.gz'), gzipSync('nothing of RDMA\n'))
  spawnSync('tar', ['-czf', 'logs.tar.gz', 'logs'], { cwd: folder })
  const archive = join(folder, 'logs.tar.gz')
  for (const [args, input] of [
    [[log]],
    [['-'], readFileSync(log)],
    [['-'], gzipSync(readFileSync(log))],
    [[join(folder, 'logs')]],
    [[archive]],
    [['-'], readFileSync(archive)],
  ] as const) {
    const { stdout, stderr, status } = explain(args, input)
    assert.match(stdout, FIRST, stderr)
    assert.equal(status, 65)
  }
  const { stdout } = explain(['-'], readFileSync(archive).subarray(0, -200))
  assert.match(stdout, FIRST)
  assert.match(stdout, /archive is damaged; read up to there/)
  const nothing = explain([join(folder, 'logs', 'job.gz'), '--quiet'])
  assert.deepEqual([nothing.stdout, nothing.status], ['No failure of RDMA stands in 1 log of 1 line.\n', 0])
  const binary = join(folder, 'core')
  writeFileSync(binary, new Uint8Array(8192))
  assert.equal(explain([binary]).status, 2)
  assert.match(explain([join(folder, 'none.log')]).stderr, /there is no such file/)
  const both = explain(['--json', log, binary])
  assert.equal(both.status, 2)
  const [first] = both.stdout.split('\n').map(line => JSON.parse(line || '{}'))
  assertValid('explain LOG', first)
  assert.deepEqual(
    first.unread.map(({ name }: { name: string }) => name),
    [binary],
  )
})

test('hosts by name, beside a capture, as objects, in one line, and without names', () => {
  const capture = fixture('wire', 'nak_access_write.pcap')
  const both = explain([`node1=${fixture('logs', 'memlock.log')}`, capture])
  assert.match(both.stdout, /^On node1: memory could not be registered[\s\S]*failure: NAK remote access error/)
  const { stdout } = explain([log, '--json'])
  for (const line of stdout.trimEnd().split('\n')) assertValid('explain LOG', JSON.parse(line))
  assert.match(explain([log, '--quiet']).stdout, /^RDMA failed: On node1, .*\n$/)
  const redacted = explain([log, '--redact'])
  assert.doesNotMatch(redacted.stdout, /node\d|10\.0\.0/)
  assert.equal(redacted.stdout.split('\n').length, readFileSync(log, 'utf8').split('\n').length)
  assert.equal(explain([log, '--qp', '7']).status, 2)
})

test('a line of megabytes is redacted in pieces, and stays one line', t => {
  const file = join(temporaryFolder(t), 'long.log')
  const words = 'failed at 10.0.0.7 '.repeat(200_000)
  writeFileSync(file, `${words}\nnext 10.0.0.7\n${words}`)
  const redacted = words.replaceAll('10.0.0.7', 'addr1')
  assert.ok(explain([file, '--redact']).stdout === `${redacted}\nnext addr1\n${redacted}\n`)
})

test('words keep their meaning, and others follow', () => {
  assert.match(explain(['0x502']).stdout, /^vendor_err 0x502 {2}RKEY_DEREGISTERED/)
  assert.match(
    explain(['12']).stdout,
    /^RETRY_EXC_ERR: look for these[\s\S]*As a value of other software[\s\S]*ENOMEM \(12\)/,
  )
  assert.match(explain(['0x81']).stdout, /^0x81 may be:/)
  assert.match(explain(['synd', '0x15', 'vend', '0x81']).stdout, /RETRY_EXC_ERR/)
  assert.match(explain(['Failed status 12: wr_id 0 syndrom 0x81']).stdout, /did not answer/)
  const unknown = explain(['hello', 'world'])
  assert.deepEqual([unknown.status, unknown.stdout], [2, ''])
  assert.match(unknown.stderr, /not a status/)
})

test('what is packed otherwise, or no text, is refused by name; UTF-16 is read', t => {
  const folder = temporaryFolder(t)
  const packed = join(folder, 'a.log')
  writeFileSync(packed, Buffer.from('fd377a585a000004', 'hex'))
  const refused = explain([packed])
  assert.deepEqual([refused.status, refused.stdout], [2, ''])
  assert.match(refused.stderr, /packed by xz: unpack it first \(xz -d\)/)
  writeFileSync(join(folder, 'wide.log'), Buffer.from(readFileSync(log, 'utf8'), 'utf16le'))
  const both = explain([folder])
  assert.equal(both.status, 2)
  assert.match(both.stdout, FIRST)
  assert.equal(explain([log, '--redact', '--json']).status, 2)
})
