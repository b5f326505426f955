/*
 * `userdma check FILE`: a recording of depth check has the findings of its run, byte for byte, in all forms of output,
 * and one of a plain recording says which it cannot have.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { type FindingId, findings } from '../../../src/spec/check/findings.ts'
import { LACKING, type Need } from '../../../src/spec/check/needs.ts'
import { BLOCK_MAGIC, BLOCK_TRAILER, BlockHeader, FileHeader, recordKinds } from '../../../src/spec/session-file.ts'
import { checksum } from '../../../src/tools/record/checksum.ts'
import { SessionWriter } from '../../../src/tools/record/writer.ts'
import { scaled } from '../../limits.ts'
import { casesOf, longOnly } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import { repoRoot } from '../../paths.ts'
import { createMemorySink } from '../../tools/record/memory-sink.ts'
import {
  cleanEnvironment,
  freePort,
  lacking,
  runUserdma,
  type Scope,
  start,
  temporaryFolder,
  untilListening,
  userdma,
} from '../programs.ts'
import { EX_DATAERR, faulty, fixed, isHanging, NEED_MORE, optionsOf, programNames } from './checking.ts'

/** One of each kind of event: failures, races, misuse that the preload library sees, waits, calls, ends of programs. */
const FEW = [
  'stale-rkey',
  'buffer-reused',
  'frame-returned',
  'memory-gone',
  'send-buffer-changed',
  'sends-lost--exit',
  'batch-misused',
  'refused-call--library',
  'program-died',
  'message-dropped--no-member',
]
/** Those whose finding depends on the time between two events, so that the run may have others. */
const OTHERS: readonly string[] = [...NEED_MORE, 'adapter-error', 'cq-overrun']
/** Those that need options, or whose call a library refuses, which no plain recording has. */
const ELSEWHERE = [
  ...OTHERS,
  'peer-refused',
  'destroy-busy--channel',
  'double-destroy--cm-event',
  'refused-call--library',
  'refused-call--null',
]

/** The names of programs that can run together: without options of their own. */
const together = (names: readonly string[]): string => names.map(name => `${faulty(name)} >&2`).join('; ')

/** Gives the symbols of a session file a kind that there is not: a recorder that is killed has none. */
const removeSymbols = (file: string): void => {
  const bytes = readFileSync(file)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let at: number = FileHeader.bytes; at + BlockHeader.size <= bytes.length; ) {
    if (view.getUint32(at, true) !== BLOCK_MAGIC) {
      at += 4
      continue
    }
    const end = at + view.getUint32(at + 4, true) - BLOCK_TRAILER
    for (let record = at + BlockHeader.size; record < end; record += view.getUint32(record, true) & 0xff_ffff)
      if (bytes[record + 3] === recordKinds.indexOf('symbol') + 1) bytes[record + 3] = 0xff
    view.setUint32(end, checksum(new DataView(bytes.buffer, bytes.byteOffset + at), end - at), true)
    at = end + BLOCK_TRAILER
  }
  writeFileSync(file, bytes)
}

/** Records a check of a script, and checks the recording with the same options. */
const both = async (scope: Scope, script: string, recordOptions: readonly string[], options: readonly string[]) => {
  const folder = temporaryFolder(scope)
  const file = join(folder, 'session.udr')
  const [live, read] = [join(folder, 'live'), join(folder, 'read')]
  const record = ['--record', file, '--record-depth', 'check']
  const run = await runUserdma(scope, [
    'check',
    ...options,
    ...recordOptions,
    ...record,
    '-o',
    live,
    '--',
    'sh',
    '-c',
    script,
  ])
  const again = await runUserdma(scope, ['check', file, ...options, '-o', read])
  return { file, run, again, live: readFileSync(live, 'utf8'), read: readFileSync(read, 'utf8') }
}

describe('userdma check of a recording', { skip: lacking(faulty('leak')) }, () => {
  for (const json of casesOf([false, true], one => !one))
    it(`has the findings of its run, ${json ? 'as JSON' : 'as text'}`, async t => {
      const options = ['--notes', '--races', '--story', 'all', ...(json ? ['--json'] : [])]
      const { live, read, run, again } = await both(t, `${together(FEW)}; true`, [], options)
      assert.equal(read, live)
      for (const name of FEW) assert.match(live, new RegExp(name.replace(/--.*/, '')), name)
      assert.deepEqual([run.status, again.status], [EX_DATAERR, EX_DATAERR])
    })

  it('has them also for programs that hang, and other programs of docs/findings', async t => {
    const all = programNames.filter(name => !OTHERS.includes(name) && !FEW.includes(name))
    for (const name of casesOf(all, one => one === 'lost-wakeup--no-channel')) {
      const hang = isHanging(name) ? ['--hang', '2'] : []
      const { live, read } = await both(
        t,
        `${faulty(name)} >&2; true`,
        [...optionsOf(name), ...hang],
        ['--notes', '--races', '--story', 'all'],
      )
      assert.equal(read, live, name)
    }
  })

  it('finds races, and what other adapters refuse, although the run has not looked for them', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    const script = `${faulty('race')}; ${faulty('adapter-limit')}; true`
    const { status } = await runUserdma(t, [
      'run',
      '--record',
      file,
      '--record-depth',
      'check',
      '--',
      'sh',
      '-c',
      script,
    ])
    assert.equal(status, 0)
    const plain = await runUserdma(t, ['check', file])
    assert.doesNotMatch(plain.stderr, / race: |adapter-limit/)
    const { stderr } = await runUserdma(t, ['check', file, '--races', '--like', 'mlx5,rxe'])
    assert.match(stderr, / race: .*\n(.*\n)*.*race\.c:\d+/)
    assert.match(stderr, /adapter-limit: .*max_send_sge 32 exceeds 30 of mlx5/)
  })

  it('of a plain recording has the findings of calls, posts and completions, and names the others', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    await runUserdma(t, ['run', '--record', file, '--', faulty('unknown-rkey')])
    const { stderr, status } = await runUserdma(t, ['check', file, '--fail-on', 'warning'])
    assert.match(
      stderr,
      /error unknown-rkey: process \d+ \(unknown-rkey\), rxe0: QP 0x\w+ WRITE wr_id 1: REM_ACCESS_ERR/,
    )
    assert.match(stderr, /without `--record-depth check`: .*send-buffer-changed/)
    assert.equal(status, EX_DATAERR)
  })

  it('of a plain recording has all findings that need no more, and none of programs without mistakes', async t => {
    const isPlain = (name: string): boolean => {
      const { needs } = findings[name.replace(/--.*/, '') as FindingId]
      const isElsewhere = ELSEWHERE.includes(name) || optionsOf(name).length > 0
      return !isElsewhere && !LACKING.plain.some(need => (needs as readonly Need[]).includes(need))
    }
    const needsOf = (name: string): readonly Need[] => findings[name as FindingId]?.needs ?? []
    const names = casesOf(programNames.filter(isPlain), name => needsOf(name).includes('device'))
    const record = async (programs: readonly string[]): Promise<string> => {
      const file = join(temporaryFolder(t), 'session.udr')
      const script = programs.map(one => `timeout ${scaled(10)} ${one} >&2`).join('; ')
      await runUserdma(t, ['run', '--record', file, '--', 'sh', '-c', `${script}; true`])
      return (await runUserdma(t, ['check', file, '--notes'])).stderr
    }
    const found = await record(names.map(faulty))
    for (const name of names) {
      const head = `${name.replace(/--.*/, '')}: process \\d+ \\(${name.slice(0, 15)}\\)`
      assert.match(found, new RegExp(`^userdma check: \\w+ ${head}`, 'm'), name)
    }
    assert.match(await record(names.map(fixed)), /^userdma check: no findings$/m)
  })

  it('knows both ends, if the recordings of both are read', {
    skip: longOnly || lacking('ibv_rc_pingpong'),
  }, async t => {
    const folder = temporaryFolder(t)
    const port = await freePort()
    const [server, client] = [101, 102].map((host, i) => [
      ...['run', '--private', '--link', 'udp', '--device', `rxe${i}@${loopbackText(host)}`],
      ...['--record', join(folder, `${i}.udr`), '--record-depth', 'check', '--', 'ibv_rc_pingpong', '-g', '1'],
      ...['-s', '8000', '-n', '20', '-p', String(port), '-m', i === 0 ? '1024' : '2048'],
    ]) as [string[], string[]]
    const serving = start(t, userdma, server)
    await untilListening(port, serving.ended)
    await Promise.all([serving.ended, runUserdma(t, [...client, 'localhost'])])
    const files = [0, 1].map(i => join(folder, `${i}.udr`))
    assert.match((await runUserdma(t, ['check', files[1]!])).stderr, /error peer-refused: /)
    const { stderr } = await runUserdma(t, ['check', ...files])
    assert.match(stderr, /error path-mtu-mismatch: .*REM_INV_REQ_ERR/)
    assert.match(stderr, /path_mtu +2048 +1024 +< does not fit/)
  })

  it('has no tool read the files that a recording without symbols names, unless asked', async t => {
    const folder = temporaryFolder(t)
    const [file, log] = ['session.udr', 'log'].map(name => join(folder, name)) as [string, string]
    await runUserdma(t, ['check', '--record', file, '--record-depth', 'check', '--', faulty('stale-rkey')])
    removeSymbols(file)
    for (const tool of ['llvm-symbolizer', 'addr2line'])
      writeFileSync(join(folder, tool), `#!/bin/sh\necho "$@" >> ${log}; exit 1\n`, { mode: 0o755 })
    const env = cleanEnvironment({ PATH: `${folder}:${process.env.PATH}` })
    const { stderr } = await runUserdma(t, ['check', file], { env })
    assert.ok(!existsSync(log))
    assert.match(stderr, /error stale-rkey(?:.*\n)*.* #0 \?\? \(.*stale-rkey\)\n/)
    assert.match(stderr, /^ {2}no lines: none are in .*session\.udr; `--symbols` looks/m)
    const asked = await runUserdma(t, ['check', file, '--symbols'], { env })
    assert.ok(!asked.stderr.includes('--symbols'), asked.stderr)
    assert.match(readFileSync(log, 'utf8'), / -e .*stale-rkey\n/)
  })

  it('of a capture has what its packets show', async t => {
    const capture = join(repoRoot, 'test', 'fixtures', 'wire', 'nak_access_range.pcap')
    const { stderr, status } = await runUserdma(t, [
      'check',
      capture,
      '--sarif',
      join(temporaryFolder(t), 'found.sarif'),
    ])
    assert.match(stderr, /error capture remote-access: .*NAK remote access error/)
    assert.equal(status, EX_DATAERR)
  })

  it('of somebody else counts findings with values of other types, and prints the others', async t => {
    const sink = createMemorySink()
    const check = { probes: [], findsWaits: true }
    const writer = new SessionWriter(sink, { application: 'stub', machine: 'none', origin: 0, payload: 0, check })
    const program = { pid: 7, command: 'stub' }
    const at = { time: 1, device: 'stub0', deviceNumber: 0, context: 1, program, stack: [] }
    for (const event of [
      { event: 'died', ...at, signal: 'SIGSEGV', isInOurs: true },
      { event: 'died', ...at, signal: 'SIGBUS', isInOurs: true, program: { pid: { $n: '7' }, command: 'stub' } },
      { event: 'died', ...at, signal: 'SIGILL', isInOurs: true, stack: 'main' },
      { event: 'waits', ...at, wait: { id: 'endless-rnr', text: 'waits', graph: { threads: 5 } } },
    ])
      writer.program(1, JSON.stringify(event))
    await writer.end(2, 'the stub has ended')
    const file = join(temporaryFolder(t), 'session.udr')
    writeFileSync(file, sink.bytes)
    for (const form of [[], ['--json']]) {
      const { stderr, status } = await runUserdma(t, ['check', ...form, file])
      assert.equal(stderr.match(/died of/g)?.length, 1, stderr)
      assert.match(stderr, /3 parts of the recording could not be read/)
      assert.equal(status, EX_DATAERR)
    }
  })

  it('runs what is no recording, and any file after --', async t => {
    const folder = temporaryFolder(t)
    const file = join(folder, 'session.udr')
    await runUserdma(t, ['run', '--record', file, '--', 'true'])
    assert.match((await runUserdma(t, ['check', '--', file])).stderr, /is not executable for you/)
    assert.match((await runUserdma(t, ['check', file, folder])).stderr, /is neither a session file nor a capture/)
    assert.match(
      (await runUserdma(t, ['check', '--device', 'rxe0@127.0.0.1', file])).stderr,
      /--device is for a program that runs/,
    )
    const { stderr, status } = await runUserdma(t, ['check', file])
    assert.match(stderr, /no findings: no program made a call of verbs/)
    assert.equal(status, 0)
  })
})
