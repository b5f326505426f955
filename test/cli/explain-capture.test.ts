/*
 * `userdma explain FILE…`: files of every kind, and mistakes.
 */
import assert from 'node:assert/strict'
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, watch, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { fixture } from '../paths.ts'
import { temporaryFolder, userdma } from '../system/programs.ts'
import { findTool } from '../tools.ts'

const capture = fixture('wire', 'nak_access_write.pcap')
const explain = (args: readonly string[], input?: Uint8Array): SpawnSyncReturns<string> =>
  spawnSync(userdma, ['explain', ...args], { encoding: 'utf8', ...(input !== undefined && { input }) })
const NAMED =
  /1\. failure: NAK remote access error\n.*10\.77\.0\.2 QP 0x\w+ → 10\.77\.0\.3 QP 0x\w+ \(RC\)\n.*PSN 0x101\n.*frames 6, 7\n/

test('a capture: the worst problem with its frames, what is unknown, and what to do', () => {
  const { stdout, stderr, status } = explain([capture])
  assert.equal(status, 0, stderr)
  assert.match(stdout, NAMED)
  assert.match(stdout, /why: unknown, because .*\n\s+what to do: on the responder: /)
})

test('gzip, zstd and standard input are read; damage ends them with its place', t => {
  const folder = temporaryFolder(t)
  const bytes = readFileSync(capture)
  const gzip = join(folder, 'capture.gz')
  writeFileSync(gzip, gzipSync(bytes))
  assert.match(explain([gzip]).stdout, NAMED)
  assert.match(explain(['-'], bytes).stdout, NAMED)
  assert.match(explain(['-'], bytes.subarray(0, -3)).stdout, /read up to byte \d+: the file ends within a record/)
  assert.match(
    explain(['-'], gzipSync(bytes).subarray(0, -40)).stdout,
    /read up to byte \d+: its compression is damaged/,
  )
  // The packets before the damage are read, also of a small file.
  const more = gzipSync(bytes.subarray(24))
  writeFileSync(gzip, Buffer.concat([gzipSync(bytes), more, Buffer.from(more).fill(0xff, 12)]))
  assert.match(explain([gzip]).stdout, /: pcap, 14 packets .*\n {2}read up to byte \d+: its compression is damaged/)
  if (findTool('zstd') === undefined) return
  const zstd = spawnSync('zstd', ['-c'], { input: bytes }).stdout
  assert.match(explain(['-'], zstd).stdout, NAMED)
  const broken = explain(['-'], Buffer.concat([zstd, Buffer.from('not a frame of zstd')]))
  assert.match(broken.stdout, NAMED)
  assert.match(broken.stdout, /read up to byte \d+: its compression is damaged/)
  assert.equal(broken.stderr, '')
})

test('filters: hosts, queue pairs, time and port', () => {
  assert.match(explain(['--host', '10.77.0.9', capture]).stdout, /no RDMA packets/)
  assert.match(explain(['--host', '10.77.0.3', capture]).stdout, NAMED)
  assert.match(explain(['--qp', '0xfffff0', capture]).stdout, /no RDMA packets/)
  assert.doesNotMatch(explain(['--until', '0', capture]).stdout, /failure/)
  assert.match(explain(['--port', '4792', capture]).stdout, /RoCEv2 packets go to another UDP port\n\s+port 4791\n/)
})

test('several captures are compared: as text and as objects, and not from standard input', () => {
  const bytes = readFileSync(capture)
  const { stdout } = explain([capture, capture])
  assert.match(stdout, /together: .*\n\s+the clock of .* agrees with that of .* by 7 packets that both have/)
  const objects = explain(['--json', capture, capture])
    .stdout.trim()
    .split('\n')
    .map(line => JSON.parse(line) as { kind: string; packets?: number })
  assert.deepEqual(
    objects.filter(({ kind }) => kind === 'clock' || kind === 'path').map(({ kind, packets }) => [kind, packets]),
    [
      ['clock', 7],
      ['path', 5],
      ['path', 2],
    ],
  )
  const { status, stderr } = explain([capture, '-'], bytes)
  assert.equal(status, 2)
  assert.match(stderr, /several captures are read twice: give files/)
})

test('mistakes get a sentence', t => {
  const text = join(temporaryFolder(t), 'text.pcap')
  writeFileSync(text, 'this is no capture at all')
  const zeros = join(temporaryFolder(t), 'zeros.pcap')
  writeFileSync(zeros, 'values: 000000000000000000000000\n'.repeat(10_000))
  const mistakes: readonly (readonly [args: readonly string[], message: RegExp])[] = [
    [[text], /neither a pcap, a pcapng nor an ERF file: it begins with 0x74686973/],
    [[zeros], /neither a pcap, a pcapng nor an ERF file: it begins with 0x76616c75/],
    [['--top', '0', capture], /--top "0": give an integer from 1 to 10000/],
    [['--host', 'x', capture], /--host "x" is not an IPv4 or IPv6 address/],
    [['--qp', '-1', capture], /--qp "-1": give an integer from 0 to 16777215/],
    [['--from', 'now', capture], /--from "now": give a number of seconds/],
    [['no-such.pcap'], /explain "no-such.pcap": there is no such file\n$/],
    [
      [capture.replace('nak_', 'nac_')],
      /nac_access_write\.pcap": there is no such file, did you mean "nak_access_write\.pcap"/,
    ],
    [[capture, 'nosuch'], /explain "nosuch": there is no such file\n$/],
    [['nosuch'], /explain "nosuch": not a status.*nor a capture file/],
    [['--json', 'stale-rkey'], /options of explain are for logs, captures and --slow/],
    [[temporaryFolder(t)], /has no files that are logs/],
  ]
  for (const [args, message] of mistakes) {
    const { status, stderr } = explain(args)
    assert.equal(status, 2, args.join(' '))
    assert.match(stderr, message)
  }
})

test('a named pipe is read once, and refused where a capture is read twice', t => {
  const pipe = join(temporaryFolder(t), 'pipe')
  assert.equal(spawnSync('mkfifo', [pipe]).status, 0)
  for (const [args, message] of [
    [['explain', capture, pipe], /"\S+pipe" is not a regular file, and is read twice/],
    [['export', pipe, '--to', 'text'], /cannot read \S+pipe: it is not a regular file/],
    [['inspect', pipe], /\S+pipe: it is not a regular file/],
  ] as const) {
    const { status, stderr } = spawnSync(userdma, args, { encoding: 'utf8' })
    assert.ok(status === 1 || status === 2, `${args.join(' ')}: ${status}`)
    assert.match(stderr, message)
  }
})

test('a capture as a session: text, JSON, --slow, and what is neither is refused', t => {
  const run = (...args: string[]): SpawnSyncReturns<string> => spawnSync(userdma, args, { encoding: 'utf8' })
  const text = run('export', capture, '--to', 'text').stdout
  assert.match(text, /request 2 posted to object \d+: RDMA_WRITE wr_id 1 2100 B\n/)
  assert.match(text, /request 2 completed: REM_ACCESS_ERR/)
  const json = run('export', capture, '--to', 'json', '--qp', '0xa0').stdout.trim().split('\n')
  assert.equal((JSON.parse(json[0]!) as { isCapture: boolean }).isCapture, true)
  assert.match(
    run('explain', '--slow', fixture('wire', 'loss_send_requests.pcap')).stdout,
    /lost packets that were sent again/,
  )
  const other = join(temporaryFolder(t), 'text')
  writeFileSync(other, 'this is no capture at all')
  for (const args of [
    ['inspect', other],
    ['explain', '--slow', other],
  ])
    assert.match(run(...args).stderr, /is neither a session file nor a capture: neither a pcap/)
})

test('export of a capture: redacted, as pcapng to a file', t => {
  const file = join(temporaryFolder(t), 'redacted.pcapng')
  const run = (...args: string[]): SpawnSyncReturns<string> =>
    spawnSync(userdma, ['export', capture, ...args], { encoding: 'utf8' })
  assert.equal(run('--to', 'pcapng', '--redact', '-o', file).status, 0)
  assert.match(explain([file]).stdout, /1\. failure: NAK remote access error\n\s+10\.0\.0\.1 QP /)
  assert.match(run('--to', 'text', '--redact', '-o', file).stderr, /--redact of a capture is for --to pcapng/)
  assert.match(run('--to', 'pcapng').stderr, /a capture is written to a file: name it with -o FILE/)
  assert.match(run('--to', 'pcapng', '-o', capture).stderr, /same file/)
  const tshark = findTool('tshark')
  if (tshark === undefined) return
  const { stdout } = spawnSync(tshark, ['-r', file, '-T', 'fields', '-e', 'infiniband.bth.psn'], { encoding: 'utf8' })
  assert.equal(
    stdout
      .trim()
      .split('\n')
      .filter(line => line !== '').length,
    7,
    stdout,
  )
})

for (const to of ['text', 'pcapng'])
  test(`a signal while a capture is exported as ${to} leaves no file behind`, async t => {
    const folder = temporaryFolder(t)
    const temporary = join(folder, 'tmp')
    mkdirSync(temporary)
    const large = join(folder, 'large.pcap')
    const bytes = readFileSync(capture)
    writeFileSync(large, Buffer.concat([bytes, ...Array.from({ length: 50_000 }, () => bytes.subarray(24))]))
    const watcher = watch(temporary)
    const command = spawn(
      userdma,
      ['export', large, '--to', to, ...(to === 'text' ? [] : ['-o', join(temporary, 'o')])],
      {
        env: { ...process.env, TMPDIR: temporary },
        stdio: 'ignore',
      },
    )
    await once(watcher, 'change')
    watcher.close()
    command.kill('SIGINT')
    const [, signal] = await once(command, 'close')
    assert.equal(signal, 'SIGINT')
    assert.deepEqual(readdirSync(temporary), [])
  })
