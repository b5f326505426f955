/*
 * `userdma check --races` on test/programs/check/races.c and on programs without races.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { raceIds } from '../../../src/tools/check/races/races.ts'
import { casesOf, longOnly } from '../../long-run.ts'
import { lacking, ownProgram, runUserdma, suiteScope } from '../programs.ts'
import { checkScript, type FindingJson, faulty, serverAndClient } from './checking.ts'

const program = ownProgram('races')

const racesOf = (found: readonly FindingJson[]): readonly FindingJson[] =>
  found.filter(({ id }) => raceIds.some(one => one === id))

/** The ids of race findings, by the wr_id of the case's requests. */
const findingsByCase = (found: readonly FindingJson[]): Map<string, string[]> => {
  const byCase = new Map<string, string[]>()
  for (const { id, details } of racesOf(found))
    for (const [, wrId = ''] of details.join(' ').matchAll(/wr_id (\d+)/g)) {
      const ids = byCase.get(wrId) ?? []
      if (!ids.includes(id)) byCase.set(wrId, [...ids, id])
    }
  return byCase
}

describe('userdma check --races', { skip: lacking(program) }, () => {
  const suite = suiteScope()
  let checked: Awaited<ReturnType<typeof checkScript>>
  before(async () => {
    checked = await checkScript(suite, program, ['--races'])
  })

  it('judges at least 95 % of the cases correctly, and reports no false race', () => {
    const { found, stdout, stderr } = checked
    const byCase = findingsByCase(found)
    const cases = stdout
      .trim()
      .split('\n')
      .map(line => line.split(' '))
    assert.ok(cases.length >= 60, `${stdout}${stderr}`)
    const wrong = cases
      .map(([number = '', name, expected]) => [name, expected, byCase.get(number)?.join(', ') ?? 'none'])
      .filter(([, expected, reported]) => expected !== reported)
    assert.deepEqual(
      wrong.filter(([, expected]) => expected === 'none'),
      [],
    )
    assert.deepEqual(
      wrong.filter(([name]) => name === 'no_child_ended'),
      [],
      'a call that found no ended child counts as a wait',
    )
    assert.ok(wrong.length <= 0.05 * cases.length, JSON.stringify(wrong))
  })

  it('reports both requests with their stacks', () => {
    const { found } = checked
    assert.notDeepEqual(racesOf(found), [])
    for (const { moments, details } of racesOf(found)) {
      assert.equal(moments.length, 2, details.join('\n'))
      for (const { frames } of moments) assert.ok(frames.length > 0, details.join('\n'))
    }
  })

  it('is off without the option', { skip: longOnly }, async t => {
    const { found } = await checkScript(t, program)
    assert.deepEqual(racesOf(found), [])
  })

  it('prints which requests race', async t => {
    const { stderr } = await runUserdma(t, ['check', '--races', '--private', '--', faulty('race')])
    assert.match(stderr, /race: process \d+ \(race\), rxe0: WRITE of QP 0x[0-9a-f]+ and WRITE of QP 0x[0-9a-f]+ access/)
  })
})

// Further programs: real-programs.test.ts.
describe('userdma check --races finds no race in', {
  skip: lacking('ibv_rc_pingpong', 'ib_write_bw', 'ss'),
}, () => {
  const commands = [
    'ibv_rc_pingpong -g 1 -n 200 -e -N',
    'ib_write_bw -d rxe0 -n 200 -q 4',
    'ib_read_bw -d rxe0 -n 200 -b',
    'ib_send_bw -d rxe0 -n 200 -q 2 --use-srq',
  ]
  for (const command of casesOf(commands, (_, i) => i < 2))
    it(command, async t => {
      const { found, status, stderr } = await checkScript(t, await serverAndClient(command), ['--races'])
      assert.deepEqual(
        racesOf(found).map(({ id, text }) => `${id}: ${text}`),
        [],
      )
      assert.equal(status, 0, stderr)
    })

  it('ibv_srq_pingpong except a warning: it sends and receives with one buffer', async t => {
    const { found } = await checkScript(t, await serverAndClient('ibv_srq_pingpong -g 1 -n 200'), ['--races'])
    const races = racesOf(found)
    assert.notDeepEqual(races, [])
    for (const { id, severity } of races) assert.deepEqual([id, severity], ['buffer-reused', 'warning'])
  })
})
