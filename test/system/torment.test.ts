/*
 * `--torment` with real programs: mistakes that work otherwise are found in under 100 seeds, and the same programs
 * without them pass.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { TormentKinds } from '../../src/spec/torment.ts'
import { lacking, ownProgram, runUserdma, type Scope } from './programs.ts'

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
