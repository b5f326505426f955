/*
 * `userdma check --host` on Linux's own rxe, in a guest: programs behave as without it, and mistakes are found. The
 * guest has no Node.js, so userdma is there as its tarball.
 */
import assert from 'node:assert/strict'
import { chmodSync, existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { type FindingId, findings as findingTable } from '../../../src/spec/check/findings.ts'
import { repoRoot } from '../../paths.ts'
import type { FindingJson } from '../../system/check/checking.ts'
import { lacking, ownProgram, suiteScope, temporaryFolder } from '../../system/programs.ts'
import { type Guest, installUserdma, startGuest, whyNoGuest } from './guest.ts'

/**
 * Not here: the peer must have another observer; Linux's rxe does not end the request before the limit; and it ends a
 * receive that is too short by another status.
 */
const ABSENT: readonly FindingId[] = ['peer-refused', 'no-answer', 'no-rd-atomic', 'receive-too-short']
/** Mistakes that are found without a device of userdma. */
const MISTAKES = (Object.keys(findingTable) as FindingId[]).filter(
  id =>
    !findingTable[id].needs.includes('device') &&
    !ABSENT.includes(id) &&
    existsSync(join(repoRoot, 'build', 'findings', id)),
)
/** The limit of all programs under one observer: the guest's processor is emulated. */
const LIMIT_SECONDS = 900

/** A server and a client in the guest. The port is free: nothing else runs there. */
const pair = (name: string, server: string, client: string, port: number): string =>
  `${server} > /tmp/out 2>&1 & until ss -Htln 'sport = :${port}' | grep -q .; do sleep 0.2; done; ${client} > /tmp/out2 2>&1; c=$?; wait $!; echo "${name} $? $c"`

const onPort = (program: string, port: number, host = ''): string => `${program} -p ${port} ${host}`
const twoEnds = (program: string, port: number): string =>
  pair(program.split(' ')[0]!, onPort(program, port), onPort(program, port, '10.77.0.2'), port)

const SCRIPT = [
  twoEnds('ibv_rc_pingpong -d rxe0 -g 1 -n 50', 18700),
  twoEnds('ibv_ud_pingpong -d rxe0 -g 1 -n 50', 18701),
  twoEnds('ibv_srq_pingpong -d rxe0 -g 1 -n 50', 18702),
  twoEnds('ib_send_bw -d rxe0 -x 1 -n 50 -s 1000 -u 18 -F', 18703),
].join('\n')
/** A server and a client of rdma_cm. */
const cmEnds = (server: string, client: string, port: number): string =>
  pair(server.split(' ')[0]!, server, client, port).replace(
    /until .*?; do/,
    `until rdma resource show cm_id | grep -q 'state LISTEN.*:${port} '; do`,
  )
const MORE_SCRIPT = [
  cmEnds('rping -s -a 10.77.0.2 -C 5 -p 18710', 'rping -c -a 10.77.0.2 -C 5 -p 18710', 18710),
  cmEnds('ucmatose -c 2 -C 5 -p 18711', 'ucmatose -s 10.77.0.2 -c 2 -C 5 -p 18711', 18711),
  // Its option -p is the port space.
  cmEnds('udaddy -c 2 -C 5', 'udaddy -s 10.77.0.2 -c 2 -C 5', 7174),
  ...['ib_send_lat -s 64', 'ib_read_bw -s 1000', 'ib_atomic_bw'].map((program, i) =>
    twoEnds(`${program} -d rxe0 -x 1 -n 50 -F`, 18713 + i),
  ),
].join('\n')
const MORE = ['rping', 'ucmatose', 'udaddy', 'ib_send_lat', 'ib_read_bw', 'ib_atomic_bw']

const MISTAKES_SCRIPT = MISTAKES.map(name => `timeout 120 /host/findings/${name} > /dev/null 2>&1`).join('\n')

describe("programs on Linux's rxe, observed", {
  skip: lacking('cc', join(repoRoot, 'build', 'findings', 'stale-rkey')) || whyNoGuest(),
}, () => {
  const scope = suiteScope()
  let guest: Guest
  let userdma = ''
  before(async () => {
    guest = await startGuest(scope, 'Linux 6.1')
    userdma = await installUserdma(scope, guest)
    guest.share(join(repoRoot, 'build', 'findings'))
  })

  it('faults of calls, posts and completions act', async () => {
    const injected = guest.share(ownProgram('injected'))
    const command = `${userdma} run --host --allow-host-faults --fault`
    const script = [
      `${command} call=mr.create,nth=5,errno=ENOMEM -- ${injected} regions`,
      `${command} call=pd.create,nth=3,delay=100ms -- ${injected} duration`,
      `${command} post=ENOMEM,request=WRITE,nth=3 -- ${injected} list`,
      `${command} completion=WRITE,status=RETRY_EXC_ERR,nth=2 -- ${injected} sends`,
    ].join('\n')
    const { stdout, stderr } = await guest.start(scope, 'sh', ['-c', script], LIMIT_SECONDS).ended
    assert.deepEqual(
      stdout
        .trim()
        .split('\n')
        .map(line => line.replace(/, vendor_err .*/, '')),
      [
        ...['ok', 'ok', 'ENOMEM', 'ok'].map(outcome => `ibv_reg_mr: ${outcome}`),
        'ibv_alloc_pd: ok after 100 or more ms',
        ...['ibv_post_send: ENOMEM, bad_wr 3', 'wr_id 1: success', 'wr_id 2: success', 'state 3', 'list unchanged'],
        ...['wr_id 1: success', 'wr_id 2: transport retry counter exceeded'],
        ...['wr_id 3: Work Request Flushed Error', 'wr_id 4: Work Request Flushed Error', 'state 6'],
      ],
      stderr,
    )
  })

  /** Runs a script under `check --host`: its output, and the findings. */
  const observe = async (script: string) => {
    const file = join(temporaryFolder(scope), 'observed.sh')
    writeFileSync(file, script)
    chmodSync(file, 0o755)
    const command = [
      userdma,
      'check',
      '--host',
      '--json',
      '--notes',
      '--leaks',
      '-o',
      '/tmp/findings',
      '--',
      'sh',
      guest.share(file),
    ]
    const { stdout, stderr } = await guest.start(scope, 'env', command, LIMIT_SECONDS).ended
    const found = await guest.exec(scope, 'cat', ['/tmp/findings'])
    const findings = found.stdout
      .split('\n')
      .filter(line => line.startsWith('{"number"'))
      .map(line => JSON.parse(line) as FindingJson)
    return { stdout, stderr, findings }
  }

  const requireNoError = async (script: string, names: readonly string[]): Promise<void> => {
    const { stdout, stderr, findings } = await observe(script)
    assert.deepEqual(
      stdout.trim().split('\n'),
      names.map(name => `${name} 0 0`),
      stderr,
    )
    assert.deepEqual(
      findings.filter(({ severity }) => severity === 'error'),
      [],
    )
  }

  it('programs end as without it, and have no error', () =>
    requireNoError(SCRIPT, ['ibv_rc_pingpong', 'ibv_ud_pingpong', 'ibv_srq_pingpong', 'ib_send_bw']))

  it('so do programs of rdma_cm, latencies, READs and atomics', () => requireNoError(MORE_SCRIPT, MORE))

  it('mistakes are found with the stacks of their calls and posts', async () => {
    const { findings, stderr } = await observe(MISTAKES_SCRIPT)
    // The guest has no addr2line, which would add files and lines.
    const isOf = (id: string, { moments }: FindingJson): boolean =>
      moments.some(({ frames }) => frames.some(({ object }) => object?.endsWith(`/${id}`)))
    const missing = MISTAKES.filter(id => !findings.some(one => one.id === id && isOf(id, one)))
    const made = findings.map(({ id, program }) => `${program.command}: ${id}`)
    assert.deepEqual(missing, [], `${made.join('\n')}\n${stderr}`)
  })
})
