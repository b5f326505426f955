/*
 * `userdma walk` on a program with known faults (test/programs/failures/walked.c).
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { problemsOf, type Schema } from '../../cli/check/json-schema.ts'
import { longOnly } from '../../long-run.ts'
import { fixture } from '../../paths.ts'
import { lacking, ownProgram, runUserdma, temporaryFolder } from '../programs.ts'

const program = ownProgram('walked')

interface WalkJson {
  readonly outcome: string
  readonly text: string
  readonly rule: string
  readonly frames: readonly { readonly function: string }[]
  readonly stacks: readonly { readonly signal?: string; readonly frames: readonly unknown[] }[]
  readonly details: readonly string[]
  readonly isFinding: boolean
}

/** Walks with a report in JSON and in SARIF. Expects findings. */
const walkWithReports = async (t: TestContext, options: readonly string[], ...words: readonly string[]) => {
  const folder = temporaryFolder(t)
  const [report, sarif] = [join(folder, 'report'), join(folder, 'sarif')]
  const reports = ['--json', '-o', report, '--sarif', sarif]
  const { status, stdout, stderr } = await runUserdma(t, [
    ...options,
    ...reports,
    '--',
    ...(words.length > 0 ? words : [program]),
  ])
  assert.deepEqual({ status, stdout }, { status: 65, stdout: '' })
  // What goes into files ends on the terminal with a line too. On a slow machine each start may have one.
  assert.match(
    stderr,
    /^(?:userdma: the daemon \(process \d+\) is still starting\n)*userdma walk: \d+ runs? in \d+ s: .*\n$/,
  )
  const results = readFileSync(report, 'utf8')
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line) as WalkJson)
  const found = results.filter(({ isFinding }) => isFinding)
  const log = JSON.parse(readFileSync(sarif, 'utf8'))
  assert.deepEqual(
    log.runs[0].results.map(({ ruleId }: { ruleId: string }) => ruleId),
    found.map(({ outcome }) => outcome),
  )
  const schema = JSON.parse(readFileSync(fixture('sarif', 'sarif-schema-2.1.0.json'), 'utf8')) as Schema
  assert.deepEqual(problemsOf(schema, log), [])
  return { results, found, texts: found.map(({ outcome, text }) => `${outcome}: ${text}`) }
}

const ended = (results: readonly WalkJson[], text: string): void =>
  assert.ok(
    results.some(result => result.text === text && result.outcome === 'ended'),
    text,
  )

describe('a fault walk', { skip: lacking(program) }, () => {
  it('reports crashes, leaks and swallowed failures of calls, and nothing else', async t => {
    const { results, found, texts } = await walkWithReports(t, ['walk', '--kinds', 'calls', '--points', '8'])
    assert.deepEqual(texts, [
      'crash: comp_channel.create fails with ENOMEM',
      'swallowed: mr.create fails with ENOMEM',
      'leak: srq.create fails with ENOMEM',
    ])
    ended(results, 'cq.create fails with ENOMEM')
    const [crash, , leak] = found
    assert.deepEqual([crash!.stacks[0]?.signal, (crash!.stacks[0]?.frames.length ?? 0) > 0], ['SIGSEGV', true])
    assert.match(leak!.details.join('\n'), /^CQ \d+ was never destroyed$/)
    // The rule of a finding repeats it, in a run without the walk.
    const repeated = await runUserdma(t, ['run', '--private', '--fault', crash!.rule, '--', program])
    assert.equal(repeated.signal, 'SIGSEGV')
  })

  it('reports a program that hangs, with its stacks and how to repeat it, and ends early with --points', {
    skip: longOnly,
  }, async t => {
    const options = ['walk', '--kinds', 'calls,posts,completions', '--points', '3', '--hang', '2']
    const { status, stderr } = await runUserdma(t, [...options, '--', program])
    assert.equal(status, 65)
    assert.match(
      stderr,
      /^userdma walk: \d+ points at \d+ call sites of 1 process; without failures the program takes /,
    )
    assert.match(stderr, /^userdma walk: hang: WRITE completes with RETRY_EXC_ERR in .*: no end after \d+\.\d s$/m)
    assert.match(stderr, /^ {2}process \d+ \(walked\) is at\n {4}#0 /m)
    assert.match(
      stderr,
      /^ {2}repeat it: userdma run --private --record walk\.udr --clock skip --fault completion=WRITE,.* -- .*walked$/m,
    )
    assert.match(stderr, /^ {2}posts +the post of WRITE fails with ENOMEM .* ended /m)
    assert.match(stderr, / 3 runs in \d+ s: 1 hang, .*; \d+ points were not tried \(--points, --time-limit\)$/m)
  })

  it('has no finding if a queue pair that cannot be stopped is destroyed', { skip: longOnly }, async t => {
    const { status, stderr } = await runUserdma(t, ['walk', '--kinds', 'calls', '--', program, 'stop'])
    assert.equal(status, 0, stderr)
    assert.match(stderr, /^ {2}calls +rc_qp\.modify fails with ENOMEM .* recovered$/m)
  })

  it('reports a program that goes on with failing completions, and where it posts', async t => {
    const options = ['walk', '--kinds', 'completions', '--points', '1']
    const { found, texts } = await walkWithReports(t, options, ownProgram('rails'))
    assert.deepEqual(texts, ['degraded: WRITE completes with RETRY_EXC_ERR'])
    assert.match(found[0]!.details.join('\n'), /^QP 0x\w+ .* was not made anew after its failure: .* 23 times more/)
    assert.ok(found[0]!.stacks[0]!.frames.length > 0)
    assert.equal(found[0]!.stacks[0]!.signal, undefined)
  })

  it('has no finding if the connection is made anew', { skip: longOnly }, async t => {
    const ended = await runUserdma(t, ['walk', '--kinds', 'completions', '--', ownProgram('rails'), '-a'])
    assert.equal(ended.status, 0, ended.stderr)
  })

  it('refuses a program that fails without faults', async t => {
    const failing = await runUserdma(t, ['walk', '--', 'sh', '-c', 'echo no >&2; exit 3'])
    assert.deepEqual([failing.status, failing.stdout], [1, ''])
    assert.match(
      failing.stderr,
      /^userdma walk: sh fails .*, so the walk takes real time .*\nuserdma walk: sh fails without failures \(exit status 3\), so none was made; .*\nno/,
    )
  })
})
