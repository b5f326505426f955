/*
 * `userdma run --fault-walk` on a program with known faults (test/programs/failures/walked.c).
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { problemsOf, type Schema } from '../../cli/check/json-schema.ts'
import { fixture } from '../../paths.ts'
import { lacking, ownProgram, runUserdma, temporaryFolder } from '../programs.ts'

const program = ownProgram('walked')

interface WalkJson {
  readonly outcome: string
  readonly text: string
  readonly rule: string
  readonly frames: readonly { readonly function: string }[]
  readonly stacks: readonly { readonly signal: string; readonly frames: readonly unknown[] }[]
  readonly details: readonly string[]
  readonly isFinding: boolean
}

describe('a fault walk', { skip: lacking(program) }, () => {
  it('reports crashes, hangs, leaks and swallowed failures, and nothing else', async t => {
    const folder = temporaryFolder(t)
    const [report, sarif] = [join(folder, 'report'), join(folder, 'sarif')]
    const options = ['--hang', '2', '--json', '-o', report, '--sarif', sarif]
    const { status, stdout, stderr } = await runUserdma(t, ['run', '--fault-walk', ...options, '--', program])
    assert.deepEqual({ status, stdout, stderr }, { status: 65, stdout: '', stderr: '' })
    const lines = readFileSync(report, 'utf8').trimEnd().split('\n')
    const results = lines.map(line => JSON.parse(line) as WalkJson)
    const found = results.filter(({ isFinding }) => isFinding).sort((a, b) => a.outcome.localeCompare(b.outcome))
    assert.deepEqual(
      found.map(({ outcome, text }) => `${outcome}: ${text}`),
      [
        'crash: comp_channel.create fails with ENOMEM',
        'hang: WRITE completes with RETRY_EXC_ERR',
        'leak: srq.create fails with ENOMEM',
        'swallowed: mr.create fails with ENOMEM',
      ],
    )
    for (const text of ['device.open fails with ENOMEM', 'the post of WRITE fails with ENOMEM'])
      assert.ok(
        results.some(result => result.text === text && result.outcome === 'ended'),
        text,
      )
    const [crash, hang, leak] = found
    assert.deepEqual(
      [crash, hang].map(({ stacks: [first] }) => [first?.signal, (first?.frames.length ?? 0) > 0]),
      [
        ['SIGSEGV', true],
        ['SIGQUIT', true],
      ],
    )
    assert.match(leak.details.join('\n'), /^CQ \d+ was never destroyed$/)

    const log = JSON.parse(readFileSync(sarif, 'utf8'))
    assert.deepEqual(
      log.runs[0].results.map(({ ruleId }: { ruleId: string }) => ruleId).sort(),
      found.map(({ outcome }) => outcome),
    )
    const schema = JSON.parse(readFileSync(fixture('sarif', 'sarif-schema-2.1.0.json'), 'utf8')) as Schema
    assert.deepEqual(problemsOf(schema, log), [])

    // The rule of a finding repeats it, in a run without the walk.
    const repeated = await runUserdma(t, ['run', '--private', '--fault', crash.rule, '--', program])
    assert.equal(repeated.signal, 'SIGSEGV')
  })

  it('ends early with --points, says so, and prints how to repeat a finding', async t => {
    const { status, stderr } = await runUserdma(t, ['run', '--fault-walk', '--points', '12', '--', program])
    assert.equal(status, 65)
    assert.match(
      stderr,
      /^userdma walk: \d+ points at \d+ call sites of 1 process; without failures the program takes /,
    )
    assert.match(
      stderr,
      /^userdma walk: crash: comp_channel\.create fails with ENOMEM in .*: signal SIGSEGV \(2 of 2 runs\)$/m,
    )
    assert.match(
      stderr,
      /^ {2}repeat it: userdma run --private --record walk\.udr --fault call=comp_channel\.create,.* -- .*walked$/m,
    )
    assert.match(stderr, / 12 runs in \d+ s: 1 crash, .*; \d+ points were not tried \(--points, --time-limit\)$/m)
  })

  it('refuses a program that fails without faults, and options without the walk', async t => {
    const failing = await runUserdma(t, ['run', '--fault-walk', '--', 'sh', '-c', 'echo no >&2; exit 3'])
    assert.deepEqual([failing.status, failing.stdout], [1, ''])
    assert.match(failing.stderr, /^userdma walk: sh fails without failures \(exit status 3\), so none was made; .*\nno/)
    const { status, stderr } = await runUserdma(t, ['run', '--points', '3', '--', 'true'])
    assert.equal(status, 2)
    assert.match(stderr, /--points is for --fault-walk/)
  })
})
