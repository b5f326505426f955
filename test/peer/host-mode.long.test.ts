/*
 * `userdma check --host` on Linux's own rxe, in a guest: programs behave as without it, and mistakes are found. The
 * guest has no Node.js, so userdma is there as its tarball.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { repoRoot } from '../paths.ts'
import type { FindingJson } from '../system/check/checking.ts'
import { lacking, ownProgram, suiteScope, temporaryFolder } from '../system/programs.ts'
import { type Guest, startGuest, whyNoGuest } from './guest.ts'

/** Mistakes that are found without a device of userdma. */
const MISTAKES = ['stale-rkey', 'no-receive-posted'] as const
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
const MISTAKES_SCRIPT = MISTAKES.map(name => `/host/findings/${name} > /dev/null 2>&1`).join('\n')

describe("programs on Linux's rxe, observed", {
  skip: lacking('cc', join(repoRoot, 'build', 'findings', 'stale-rkey')) || whyNoGuest(),
}, () => {
  const scope = suiteScope()
  let guest: Guest
  let userdma = ''
  before(async () => {
    guest = await startGuest(scope, 'Linux 6.1')
    const packages = temporaryFolder(scope)
    const script = join(repoRoot, 'scripts', 'package.mjs')
    execFileSync(process.execPath, [script, 'tarball', '--arch', 'x64', '--output', packages], { stdio: 'ignore' })
    const unpacked = temporaryFolder(scope)
    execFileSync('tar', ['-xJf', join(packages, readdirSync(packages)[0]!), '-C', unpacked])
    userdma = `${guest.share(join(unpacked, readdirSync(unpacked)[0]!))}/bin/userdma`
    await guest.installLibrary(scope, 'libstdc++.so.6')
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
    const command = [userdma, 'check', '--host', '--json', '-o', '/tmp/findings', '--', 'sh', guest.share(file)]
    const { stdout, stderr } = await guest.start(scope, 'env', command, LIMIT_SECONDS).ended
    const found = await guest.exec(scope, 'cat', ['/tmp/findings'])
    const findings = found.stdout
      .split('\n')
      .filter(line => line.startsWith('{"number"'))
      .map(line => JSON.parse(line) as FindingJson)
    return { stdout, stderr, findings }
  }

  it('programs end as without it, and have no error', async () => {
    const { stdout, stderr, findings } = await observe(SCRIPT)
    assert.deepEqual(
      stdout.trim().split('\n'),
      ['ibv_rc_pingpong', 'ibv_ud_pingpong', 'ibv_srq_pingpong', 'ib_send_bw'].map(name => `${name} 0 0`),
      stderr,
    )
    assert.deepEqual(
      findings.filter(({ severity }) => severity === 'error'),
      [],
    )
  })

  it('mistakes are found with the stacks of their posts', async () => {
    const { findings } = await observe(MISTAKES_SCRIPT)
    for (const id of MISTAKES) {
      const finding = findings.find(one => one.id === id)
      assert.ok(finding, `${id} is not among ${findings.map(one => one.id).join(', ')}`)
      // The guest has no addr2line, which would add files and lines.
      const objects = finding.moments.flatMap(({ frames }) => frames.map(({ object }) => object ?? ''))
      assert.ok(
        objects.some(object => object.endsWith(`/${id}`)),
        JSON.stringify(finding.moments),
      )
    }
  })
})
