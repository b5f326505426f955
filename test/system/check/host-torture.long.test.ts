/*
 * `--host` under hardship: rings overflow, programs fork, exec and are killed, the observer is stopped or killed. A
 * program never waits for its observer, and no loss goes unsaid.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { ObservationFile } from '../../../src/tools/observe/file.ts'
import { ObserveEnv } from '../../../src/tools/observe/file-layout.ts'
import { repoRoot } from '../../paths.ts'
import { cleanEnvironment, lacking, ownProgram, runUserdma, type Scope, temporaryFolder, userdma } from '../programs.ts'

const OBSERVED = ownProgram('observed')
const INJECTED = ownProgram('injected')
const THREADS = ownProgram('threads')
const LIBRARY = join(repoRoot, 'build', 'native', 'libuserdma_host.so')
const skip = lacking('ibv_rc_pingpong', OBSERVED, INJECTED, THREADS, LIBRARY)

/** Runs a script with the devices of a daemon. */
const runScript = (scope: Scope, script: string) =>
  runUserdma(scope, ['run', '--private', '--', 'sh', '-c', script], { env: cleanEnvironment() })

/** Runs a program under `check --host`; `after`: the rest of the script. */
const check = async (scope: Scope, program: string, after = '') => {
  const output = join(temporaryFolder(scope), 'findings')
  const command = `${userdma} check --host --leaks -o ${output} -- sh -c '${program}'`
  const ended = await runScript(scope, `${command}${after}`)
  return { ...ended, report: existsSync(output) ? readFileSync(output, 'utf8') : '' }
}

const NO_FINDINGS = /^userdma check: no findings\n {2}accesses .*\n$/

/** The number of records of a program that nobody reads, and the number that it has dropped. */
const recordsOf = async (scope: Scope, program: string) => {
  const path = join(temporaryFolder(scope), 'observed')
  const file = new ObservationFile(path)
  const { status, stderr } = await runScript(
    scope,
    `LD_PRELOAD=${LIBRARY}:$LD_PRELOAD ${ObserveEnv.file}=${path} ${program}`,
  )
  assert.equal(status, 0, stderr)
  const records = file.read(process.hrtime.bigint())
  const lost = records.reduce((sum, record) => sum + (record.kind === 'lost' ? record.count : 0), 0)
  const kinds = new Set(records.map(({ kind }) => kind))
  const read = records.filter(({ kind }) => kind !== 'lost' && kind !== 'gone').length
  const rest = file.read(process.hrtime.bigint())
  assert.deepEqual(rest, [], 'the rings are free')
  file.close()
  return { read, lost, kinds }
}

describe('--host under hardship', { skip }, () => {
  it('counts every dropped record, and keeps those of descriptors and the process', async t => {
    const [few, more] = [await recordsOf(t, `${OBSERVED} queries 10`), await recordsOf(t, `${OBSERVED} queries 30`)]
    assert.deepEqual([few.lost, more.lost], [0, 0])
    const perQuery = (more.read - few.read) / 20
    const many = await recordsOf(t, `${OBSERVED} queries 5000`)
    assert.ok(many.lost > 0)
    assert.equal(many.read + many.lost, few.read + 4990 * perQuery)
    assert.ok(many.kinds.has('close') && many.kinds.has('end'))
  })

  it('a program goes on while its observer is stopped, and the report has the loss', async t => {
    const { status, stderr, report } = await check(
      t,
      `kill -STOP $PPID; ${OBSERVED} queries 5000; s=$?; kill -CONT $PPID; exit $s`,
    )
    assert.equal(status, 0, stderr)
    assert.match(report, /^userdma check: no findings\n {2}left out: \d+ records of calls and posts were dropped/)
  })

  it('a program that signals interrupt does not wait for a stopped observer that decides about faults', async t => {
    const options = '--host --allow-host-faults --fault call=mr.create,nth=1000,errno=ENOMEM'
    const { stdout, stderr } = await runScript(t, `${userdma} run ${options} -- ${INJECTED} stopped`)
    assert.equal(stdout, 'ibv_reg_mr: ok\n', stderr)
  })

  it('a program goes on after its observer was killed', async t => {
    const done = join(temporaryFolder(t), 'done')
    const { stderr } = await check(
      t,
      `kill -KILL $PPID; ${OBSERVED} queries 5000 && ${OBSERVED} descriptors; echo $? > ${done}`,
      `; until test -s ${done}; do :; done`,
    )
    assert.equal(readFileSync(done, 'utf8'), '0\n', stderr)
  })

  it('children of forks are observed while another thread makes calls', async t => {
    const { status, stderr, report } = await check(t, `${OBSERVED} forks 100`)
    assert.equal(status, 0, stderr)
    assert.match(report, NO_FINDINGS)
  })

  it('rings of killed programs are used again', async t => {
    const server = 'ibv_rc_pingpong -g 1 -p 18711 > /dev/null 2>&1'
    const isListening = 'ss -Htln "sport = :18711" | grep -q .'
    const kill = `for i in $(seq 70); do ${server} & until ${isListening}; do :; done; kill -KILL $!; wait $!; done; true`
    const { status, stderr, report } = await check(t, kill)
    assert.equal(status, 0, stderr)
    assert.match(report, /leak: process \d+ \(ibv_rc_pingpong\)/)
    assert.doesNotMatch(report, /error|left out/)
  })

  it('many threads of two processes have no false error', async t => {
    const { status, stderr, report } = await check(t, `${THREADS} -t 40 -f & ${THREADS} -t 40 && wait $!`)
    assert.equal(status, 0, stderr)
    assert.doesNotMatch(report, /error/)
  })
})
