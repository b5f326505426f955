/*
 * Lent memory under `userdma check`, by programs: each way in which an owner tells its peer of memory
 * (test/programs/check/lent_cases.c), and each kind of memory and key that it declares (lend_cases.c). The rules are in
 * test/tools/check/lends/.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { assertValid } from '../../project/docs/json-schema.ts'
import { lacking, ownProgram, runUserdma, start, startDaemon, temporaryFolder, userdma } from '../programs.ts'
import { checkScript, faulty, linesOf } from './checking.ts'

const program = ownProgram('lent_cases')
const srd = faulty('srd/late-read')

const devices = {
  rxe: [],
  mlx5: ['--device', 'mlx5_0@127.0.0.1,driver=mlx5'],
} as const

/** How the first advertisement is named. */
const rows = [
  ['inline', 'rxe', 'SEND wr_id 0'],
  ['batch', 'rxe', 'SEND wr_id 3'],
  ['list', 'mlx5', 'WRITE wr_id 3'],
  ['window', 'rxe', 'SEND wr_id 1'],
  ['window', 'mlx5', 'SEND wr_id 1'],
  ['ud', 'rxe', 'SEND wr_id 1'],
  ['connect', 'rxe', 'the private data of rdma_connect'],
  ['accept', 'rxe', 'the private data of rdma_accept'],
] as const

describe('userdma check learns what is lent', { skip: lacking(program) }, () => {
  for (const [name, device, message] of casesOf(rows, ([name]) => name !== 'inline'))
    it(`${name} on ${device}`, async t => {
      const { found, stderr } = await checkScript(t, `${program} ${name} && ${program} ${name} right`, devices[device])
      assert.deepEqual(
        found.map(({ id, count }) => [id, count]),
        [...(name === 'connect' || name === 'accept' ? [] : [['lent-twice', 1]]), ['late-read', 1]],
        stderr,
      )
      const { text, moments } = found.at(-1)!
      assert.ok(text.includes(`, which are not those that ${message} told its peer `), text)
      for (const { action, frames } of moments) assert.ok(frames.length > 0, action)
    })
})

it('userdma check learns what is lent by SRD', { skip: lacking(srd) }, async t => {
  const { found, stderr } = await checkScript(t, srd, ['--device', 'efa_0@127.0.0.1,driver=efa'])
  const ids = found.map(({ id }) => id).filter(id => id.startsWith('l'))
  assert.deepEqual(ids, ['lent-twice', 'late-read'], stderr)
})

it('userdma check learns what is lent to several processes by datagrams', { skip: lacking(program) }, async t => {
  const { found, stderr } = await checkScript(t, `${program} writers && ${program} writers right`)
  assert.deepEqual(
    found.map(({ id, severity, count }) => [id, severity, count]),
    [['late-write', 'warning', 1]],
    stderr,
  )
})

it('userdma check tells a WRITE to memory that a message has told of, and that its owner has freed', {
  skip: lacking(program),
}, async t => {
  const { found, stderr } = await checkScript(t, `${program} freed; ${program} freed right`)
  const [one, another] = found.filter(({ id }) => id === 'memory-gone')
  assert.ok(one !== undefined && another === undefined, stderr)
  assert.match(one.text, /WRITE/)
  for (const { action, frames } of one.moments)
    assert.ok(
      frames.some(({ file }) => file?.endsWith('lent_cases.c')),
      action,
    )
  assert.deepEqual(
    one.moments.map(({ action }) => action),
    ['posted', 'told a peer of it (SEND wr_id 1)', 'freed'],
  )
})

const declaring = ownProgram('lend_cases')

/** What is said of the lend; a further line. */
const declared = [
  ['levels', 'rxe', 'had lent these bytes for reading (slab); taken back '],
  ['overlaps', 'rxe', 'had lent these bytes for reading (low); taken back '],
  ['windows', 'rxe', 'has not lent these bytes, but others of the region'],
  ['on-demand', 'rxe', 'had lent these bytes for reading (block); taken back '],
  ['everything', 'rxe', ' of all memory: '],
  ['signals', 'rxe', 'had lent these bytes for reading (block); taken back '],
  ['children', 'rxe', 'has not lent these bytes, but others of the region'],
  ['indirect', 'mlx5', 'had lent these bytes for reading (third); taken back '],
  ['dynamic', 'mlx5', 'had lent these bytes for reading (block) to the peer of QP 0x'],
] as const

describe('userdma check finds accesses to bytes that are not lent', { skip: lacking(declaring) }, () => {
  for (const [name, device, text] of casesOf(declared, ([name]) => name !== 'overlaps' && name !== 'on-demand'))
    it(`${name} on ${device}`, async t => {
      const { found, stderr } = await checkScript(
        t,
        `${declaring} ${name} && ${declaring} ${name} right`,
        devices[device],
      )
      assert.deepEqual(
        found.map(({ id, count }) => [id, count]),
        [['not-lent', 1]],
        stderr,
      )
      const [one] = found
      assert.ok(one!.text.includes(text), one!.text)
      assert.match(one!.text, /^READ wr_id 1 of QP 0x/)
      assert.ok(linesOf(one!).some(line => line.startsWith('lend_cases.c:')))
    })
})

/** What is taken back. */
const early = [
  ['indirect-early', 'the program takes back 1024 bytes (third) of MR '],
  ['dynamic-early', 'the program takes back 1024 bytes (block) of MR '],
] as const

describe('userdma check finds lends that end while a request is outstanding', { skip: lacking(declaring) }, () => {
  for (const [name, text] of early)
    it(name, async t => {
      const script = `${declaring} ${name} && ${declaring} ${name} right`
      const { found, stderr } = await checkScript(t, script, [
        ...devices.mlx5,
        '--fault',
        'delay=1s',
        '--clock',
        'skip',
      ])
      assert.deepEqual(
        found.map(({ id, count }) => [id, count]),
        [
          ['taken-back-early', 1],
          ['not-lent', 1],
        ],
        stderr,
      )
      const [one] = found
      assert.ok(one!.text.startsWith(text), one!.text)
      assert.match(one!.text, /while READ wr_id 1 of .* is outstanding$/)
    })
})

it('a recording for the checker tells as text who has lent and accessed which bytes', {
  skip: lacking(declaring),
}, async t => {
  const file = join(temporaryFolder(t), 'lent.udr')
  const options = ['--record', file, '--record-depth', 'check']
  const { status, stderr } = await runUserdma(t, ['check', ...options, '--', declaring, 'levels', 'right'])
  assert.equal(status, 0, stderr)
  const { stdout } = await runUserdma(t, ['export', '--to', 'text', file])
  const [, start, lend] =
    /\d process \d+ lends \d+ bytes at (0x[0-9a-f]+) for reading \(slab\), lend (\d+) from .*lend_cases\.c:\d+/.exec(
      stdout,
    ) ?? []
  assert.ok(start !== undefined, stdout)
  assert.match(stdout, new RegExp(`\\d process \\d+ takes back lend ${lend} from `))
  assert.match(stdout, /\d READ of the peer of QP 0x[0-9a-f]+: \d+ bytes at 0x[0-9a-f]+, rkey 0x/)
  const json = await runUserdma(t, ['export', '--to', 'json', file])
  const records = json.stdout
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
  const [slab] = records.filter(({ kind }) => kind === 'lend')
  assert.deepEqual([slab.name, slab.label, `0x${slab.start.toString(16)}`], ['lent', 'slab', start])
  assert.ok(records.some(({ kind, length }) => kind === 'accessed' && length === 64))
  assert.ok(records.every(({ kind }) => kind !== 'program' && kind !== 'answer'))
})

it('userdma stat --lent lists what programs lend', { skip: lacking(declaring, program) }, async t => {
  const { socket } = await startDaemon(t, { options: ['--check'] })
  const script = `exec 3<&0; ${declaring} hold <&3 & ${program} hold; wait`
  const programs = start(t, userdma, ['check', '--socket', socket, '--', 'sh', '-c', script], {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  await programs.printed(/ready[\s\S]*ready/)
  const json = await runUserdma(t, ['stat', '--lent', '--json', '--socket', socket])
  const rows = JSON.parse(json.stdout) as Record<string, unknown>[]
  assertValid('stat --lent', rows)
  assert.deepEqual(
    rows.map(({ command, length, rights, label, told }) => [command, length, rights, label ?? told]),
    [
      ['lend_cases', 1024, ['read'], 'request 1'],
      ['lend_cases', 64, ['read', 'write'], 'request 2'],
      ['lent_cases', 2048, undefined, 'SEND wr_id 1'],
    ],
  )
  const { stdout } = await runUserdma(t, ['stat', '--lent', '--socket', socket])
  for (const { stack } of rows)
    assert.match(String((stack as string[]).join()), /le[nt]d?_cases|told\.h|pair\.h/, json.stdout)
  assert.match(stdout, /\n {4}hold at \S*lend_cases\.c:\d+\n/)
  assert.match(
    stdout,
    /^process \d+ \(lend_cases\)\n {2}1024 bytes at 0x[0-9a-f]+ lent for reading \(request 1\), since /,
  )
  assert.match(stdout, /\(request 2\) to process \d+ \(lend_cases\) by QP 0x[0-9a-f]+, since \d.*, for \d+ s\n/)
  programs.child.stdin?.end()
  assert.equal((await programs.ended).status, 0)
})

it('userdma trace of a daemon that checks prints lends and accesses', { skip: lacking(declaring) }, async t => {
  const { socket } = await startDaemon(t, { options: ['--check'] })
  const traced = (options: readonly string[]) =>
    runUserdma(t, ['trace', '--socket', socket, ...options, '--', declaring, 'levels', 'right'])
  const { stderr } = await traced([])
  const [, lend] =
    /\[pid \d+ lend_cases\] process \d+ lends 3072 bytes at 0x\S+ for reading \(slab\), lend (\d+)\n/.exec(stderr) ?? []
  assert.ok(lend !== undefined, stderr)
  assert.match(stderr, new RegExp(`lend_cases\\] process \\d+ takes back lend ${lend}\n`))
  assert.match(stderr, /lend_cases\] READ of the peer of QP 0x[0-9a-f]+: 64 bytes at 0x/)
  const json = await traced(['--json'])
  const records = json.stderr
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
  for (const record of records) assertValid('trace', record)
  const said = records.flatMap(({ lent }) => lent?.event ?? [])
  assert.ok(
    ['lent', 'accessed', 'takenBack'].every(name => said.includes(name)),
    json.stderr,
  )
})

it('userdma stat --lent of a daemon that does not check is refused', async t => {
  const { socket } = await startDaemon(t)
  const { status, stderr } = await runUserdma(t, ['stat', '--lent', '--socket', socket])
  assert.notEqual(status, 0)
  assert.match(stderr, /this daemon does not check programs/)
})
