/*
 * `--host`: programs on the machine's own devices, observed. Here the machine's devices are those of a daemon: the
 * command itself runs under `userdma run`, whose preload library is below that of `--host`.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { type FindingId, findings } from '../../../src/spec/check/findings.ts'
import { repoRoot } from '../../paths.ts'
import {
  cleanEnvironment,
  freePort,
  lacking,
  ownProgram,
  runUserdma,
  type Scope,
  temporaryFolder,
  userdma,
} from '../programs.ts'
import { type FindingJson, PYTHON, PYVERBS, pythonFramesOf, refusedRegistration, serverAndClient } from './checking.ts'

const OBSERVED = ownProgram('observed')
const TALK = ownProgram('umad_talk')
const skip = lacking(
  'ibv_rc_pingpong',
  'ib_write_bw',
  'rping',
  join(repoRoot, 'build', 'findings', 'leak'),
  OBSERVED,
  TALK,
)
const program = (name: string, fixed = false): string =>
  join(repoRoot, 'build', 'findings', ...(fixed ? ['fixed'] : []), name)

/** Runs a command of userdma on a script, inside `userdma run`. */
const observe = async (scope: Scope, command: readonly string[], script: string) => {
  const output = join(temporaryFolder(scope), 'output')
  const [name = '', ...options] = command
  const inner = [
    userdma,
    name,
    '--host',
    ...(name === 'run' ? [] : ['-o', output]),
    ...options,
    '--',
    'sh',
    '-c',
    script,
  ]
  const ended = await runUserdma(scope, ['run', '--private', '--', ...inner], { env: cleanEnvironment() })
  const text = name === 'run' ? '' : readFileSync(output, 'utf8')
  return { ...ended, lines: text.split('\n').filter(Boolean) }
}

/** The findings that need no device, each with the program of docs/findings that has it. */
const FOUND: readonly FindingId[] = [
  'stale-rkey',
  'lkey-other-pd',
  'no-receive-posted',
  'never-signaled',
  'leak',
  'batch-misused',
  'poll-misused',
  'adapter-error',
  'use-after-destroy',
  'double-destroy',
]

describe('check --host', { skip }, () => {
  it('finds what needs no device of userdma, with the lines of the program', async t => {
    const { status, lines } = await observe(t, ['check', '--json'], FOUND.map(id => program(id)).join('; '))
    assert.equal(status, 65)
    const found = lines.map(line => JSON.parse(line) as FindingJson)
    for (const id of FOUND) {
      assert.ok(!findings[id].needs.includes('device'), id)
      const one = found.find(finding => finding.id === id && finding.program.command === id.slice(0, 15))
      assert.ok(one, `${id} is not among ${found.map(finding => finding.id).join(', ')}`)
      const files = one.moments.flatMap(({ frames }) => frames.map(({ file }) => file ?? ''))
      assert.ok(
        files.some(file => file.endsWith(`${id}.c`)),
        `${id}: ${files.join(', ')}`,
      )
    }
  })

  it('has Python functions and lines', { skip: lacking(PYTHON, PYVERBS) }, async t => {
    const { status, stdout, lines } = await observe(t, ['check', '--json'], refusedRegistration(t))
    assert.deepEqual([stdout, status], ['PyverbsRDMAError\n', 0])
    const found = lines.map(line => JSON.parse(line) as FindingJson)
    assert.deepEqual(pythonFramesOf(found), ['register:8', '<module>:11'])
  })

  it('finds nothing in programs without a fault, in batches of ibv_wr_ and extended polls too', async t => {
    const pair = await serverAndClient('ibv_rc_pingpong -g 1 -n 20')
    const batches = await serverAndClient('ib_write_bw -x 1 -n 48 -F --post_list=4')
    const script = [`(${pair})`, `(${batches})`, ...FOUND.map(id => program(id, true))].join(' && ')
    const { status, stdout, stderr, lines } = await observe(t, ['check'], script)
    assert.equal(status, 0, `${lines.join('\n')}${stdout}${stderr}`)
    assert.match(lines.join('\n'), /^userdma check: no findings/)
  })
})

describe('trace --host', { skip }, () => {
  it('decodes calls with the results of the kernel', async t => {
    const { status, lines } = await observe(t, ['trace', '--json'], program('stale-rkey', true))
    assert.equal(status, 0)
    const calls = lines.map(line => JSON.parse(line) as Record<string, unknown>)
    const created = calls.find(call => call.class === 'rc_qp' && call.method === 'create')
    assert.ok(created, lines.join('\n'))
    assert.equal(typeof (created.out as { readonly qpNum: unknown }).qpNum, 'number')
    assert.ok(calls.some(call => call.class === 'mr' && call.method === 'destroy' && call.ret === 0))
  })

  it('decodes calls of rdma_cm, events, management datagrams and netlink', async t => {
    const port = await freePort()
    const rping = `rping -a 127.0.0.1 -p ${port} -C 1`
    const isListening = `rdma resource show cm_id | grep -q 'state LISTEN.*:${port} '`
    const pair = `${rping} -s > /dev/null & until ${isListening}; do :; done; ${rping} -c > /dev/null; wait $!`
    const { status, lines } = await observe(
      t,
      ['trace'],
      `${pair}; ${TALK} client rxe0 ${'0'.repeat(20)}ffff7f000001 10`,
    )
    const output = lines.join('\n')
    assert.equal(status, 1, 'no server answers the client of umad_talk')
    for (const expected of [
      /fd \d+ cm_id\.resolveAddress\(object 0, destination \w+….*, timeout 2000\) = 280/,
      /cm_channel\.getEvent\(object \d+\) = 16 \{userHandle \w+, object 1, type CONNECT_REQUEST/,
      /cm_id\.accept\(object 1, /,
      /comp_channel\.getEvent\(object \d+\) = 8 \{userHandle 0x/,
      /netlink\(send RES_CM_ID_GET list, DEV_INDEX 0\) = 24/,
      /netlink\(receive RES_CM_ID_GET, DEV_INDEX 0, DEV_NAME "rxe0", RES_CM_ID \{RES_CM_ID_ENTRY \{PORT_INDEX 1/,
      /umad\(umad ENABLE_PKEY\) = 0/,
      /mad_agent\.send\(object 0, address \{dgid ::ffff:127\.0\.0\.1, .* qpn 1, pkeyIndex 0, .* = 320/,
      /mad_channel\.receive\(.*bufferBytes 256\) = 320 \{agent 0, status 0, length 256, data 013201/,
    ])
      assert.match(output, expected)
    assert.doesNotMatch(output, /rdma_cm\(ucma/, 'every call of rdma_cm is decoded')
  })

  it('knows descriptors that are duplicated, inherited, passed or kept over exec, and no reused ones', async t => {
    const { status, lines, stderr } = await observe(t, ['trace', '--json', '--class', 'pd'], `${OBSERVED} descriptors`)
    assert.equal(status, 0, stderr)
    const calls = lines.map(line => JSON.parse(line) as Record<string, number>)
    assert.deepEqual(
      calls.map(({ method, device, command, ret }) => `${method} ${device} ${command} ${ret}`),
      [
        ...Array.from({ length: 4 }, () => ['create', 'destroy']).flat(),
        // the parent's, and between them the child's: inherited, then passed
        ...['create', 'create', 'destroy', 'destroy', 'create', 'create', 'destroy', 'destroy'],
        // before exec, and after it
        ...['create', 'create', 'destroy'],
      ].map(method => `${method} rxe0 observed 0`),
    )
    assert.equal(new Set(calls.slice(0, 8).map(({ fd }) => fd)).size, 5)
    assert.equal(new Set(calls.map(({ pid }) => pid)).size, 3)
  })
})

describe('run --host', { skip }, () => {
  it('prints failed requests with their causes, and ends as the program', async t => {
    const { status, stderr } = await observe(t, ['run'], `${program('stale-rkey')}; exit 7`)
    assert.equal(status, 7)
    assert.match(stderr, /REM_ACCESS_ERR: peer QP 0x[0-9a-f]+: rkey 0x[0-9a-f]+ was deregistered/)
  })

  it('refuses options that configure devices of userdma', async t => {
    const { status, stderr } = await runUserdma(t, ['check', '--host', '--torment', '7', '--', 'true'])
    assert.equal(status, 2)
    assert.match(stderr, /--host and --torment exclude each other/)
  })
})
