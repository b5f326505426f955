/*
 * `--torment` with real programs: mistakes that work otherwise are found in under 100 seeds, and the same programs
 * without them pass.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { TormentKinds } from '../../../src/spec/check/torment.ts'
import { repoRoot } from '../../paths.ts'
import { lacking, ownProgram, runUserdma, type Scope } from '../programs.ts'

const cases = ownProgram('torment_cases')
const SEEDS = 100

const statusOf = async (scope: Scope, name: string, options: readonly string[]): Promise<number | null> => {
  const { status, stderr } = await runUserdma(scope, ['run', '--private', ...options, '--', cases, name])
  assert.ok(status === 0 || status === 1, stderr)
  return status
}

describe('userdma run --torment', { skip: lacking(cases) }, () => {
  it('a program that polls the last byte of a message works without it, and fails with a seed', async t => {
    assert.equal(await statusOf(t, 'last-byte', []), 0)
    for (let seed = 1; seed < SEEDS; seed++)
      if ((await statusOf(t, 'last-byte', ['--torment', String(seed)])) === 1) return
    assert.fail(`it passes with ${SEEDS} seeds`)
  })

  for (const name of ['last-byte-right', 'order-right', 'event-right'])
    it(`${name} passes`, async t => {
      for (const seed of ['1', '2', '3']) assert.equal(await statusOf(t, name, ['--torment', seed]), 0, `seed ${seed}`)
    })
})

describe('userdma trace --torment', { skip: lacking(cases) }, () => {
  it('prints each decision, in the order of the calls', async t => {
    const { status, stderr } = await runUserdma(t, ['trace', '--private', '--torment', '5', '--', cases, 'event-right'])
    assert.equal(status, 0, stderr)
    const lines = stderr.split('\n')
    const decisions = lines.flatMap(line => /^\[rxe0 torment (\d+), (\w+)\] ./.exec(line)?.slice(1, 3) ?? [])
    assert.ok(decisions.length > 10, stderr)
    const numbers = decisions.filter((_, i) => i % 2 === 0).map(Number)
    assert.deepEqual(
      numbers,
      numbers.map((_, i) => i + 1),
    )
    for (const kind of decisions.filter((_, i) => i % 2 === 1)) assert.ok(Object.hasOwn(TormentKinds, kind), kind)
    const destroys = lines.findLastIndex(line => line.includes('cq.destroy'))
    assert.ok(lines.findIndex(line => line.includes('torment 1,')) < destroys)
  })
})

describe('userdma check --torment-search', { skip: lacking(cases) }, () => {
  const search = (scope: Scope, options: readonly string[], ...program: readonly string[]) =>
    runUserdma(scope, ['check', ...options, '--', ...program])

  it('prints the shortest run that fails, and how to repeat it', async t => {
    const { status, stderr } = await search(t, ['--torment-search', '12'], cases, 'last-byte')
    assert.equal(status, 65, stderr)
    const [, failed, text, decisions] =
      /(\d+) of 12 seeds fail; the shortest is --torment (\S+) with (\d+) decisions\n/.exec(stderr) ?? []
    assert.ok(Number(failed) > 0 && Number(decisions) > 0, stderr)
    assert.match(stderr, /exit status 1\n {2}round \d: the last byte has arrived, byte \d+ has not\n/)
    assert.ok(stderr.includes(`repeat it: userdma check --torment ${text} -- ${cases} last-byte\n`), stderr)
    assert.ok(stderr.includes(`userdma trace --private --torment ${text} -- ${cases} last-byte\n`), stderr)
  })
  it('says so if no run fails', async t => {
    const { status, stderr } = await search(t, ['--torment-search', '2', '--torment', '40'], cases, 'order-right')
    assert.equal(stderr, 'userdma check: no failure with 2 seeds, 40 to 41\n')
    assert.equal(status, 0)
  })
  it('counts signals, the time limit and findings as failures', async t => {
    const one = ['--torment-search', '1']
    const killed = await search(t, one, 'sh', '-c', 'kill -SEGV $$')
    assert.match(killed.stderr, /signal SIGSEGV, also without torment\n/)
    assert.match(killed.stderr, /-- sh -c 'kill -SEGV \$\$'\n/)
    const late = await search(t, [...one, '--time-limit', '1'], 'sh', '-c', 'echo here; sleep 1000 & wait')
    assert.match(late.stderr, /no end within 1 s, also without torment\n {2}here\n/)
    const found = await search(t, one, 'sh', '-c', `${join(repoRoot, 'build', 'findings', 'stale-rkey')}; true`)
    assert.match(found.stderr, /finding stale-rkey: /)
    for (const { status } of [killed, late, found]) assert.equal(status, 65)
  })
  it('refuses numbers that are none', async t => {
    const cases: readonly (readonly [options: readonly string[], message: RegExp])[] = [
      [['--torment-search', '0'], /--torment-search "0": give an integer from 1 to 4294967295/],
      [['--torment-search', '2', '--torment', '4294967295'], /give an integer from 1 to 1/],
      [['--torment-search', '2', '--time-limit', 'long'], /--time-limit "long": give an integer from 1 to 86400/],
      [['--time-limit', '5'], /--time-limit is for --torment-search/],
      [['--torment-search', '2', '--json'], /--json and --sarif are for one run/],
    ]
    for (const [options, message] of cases) {
      const { status, stderr } = await search(t, options, 'true')
      assert.match(stderr, message)
      assert.equal(status, 2)
    }
  })
})
