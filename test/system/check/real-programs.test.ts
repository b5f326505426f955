/*
 * Findings of `userdma check` in a few real programs are in the table of known findings (real-programs.ts). The long
 * form, real-programs.long.test.ts, runs the whole catalogue.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { titleOf } from '../../project/catalogue/cases.ts'
import { catalogue } from '../../project/catalogue/catalogue.ts'
import { runProgram } from '../../project/catalogue/run.ts'
import { userlandRoot } from '../../project/catalogue/userland.ts'
import { lacking, ownProgram, run } from '../programs.ts'
import { startCheckedDaemon, unknownFindings, unmatchedRows } from './real-programs.ts'

/** Of each program, the first command line in the catalogue is run. */
const fewPrograms = [
  'ibv_rc_pingpong',
  'ibv_ud_pingpong',
  'ibv_srq_pingpong',
  'ib_write_bw',
  'ib_send_bw',
  'ib_read_lat',
  'ib_atomic_bw',
  'rping',
  'ucmatose',
]
const cases = fewPrograms.map(name => {
  const found = catalogue.flatMap(section => section.cases).find(one => one.client.startsWith(name))
  assert.ok(found, name)
  return found
})

describe('findings in real programs are known', {
  skip: lacking('ibv_rc_pingpong', 'ib_write_bw', 'rping', 'ss', ownProgram('memory_windows')),
}, () => {
  const root = userlandRoot('Debian 12')
  for (const races of casesOf([false, true], one => one))
    it(races ? 'with --races' : 'without --races', async t => {
      assert.ok('command' in root)
      const { daemon, newFindings } = await startCheckedDaemon(t, { races })
      for (const one of cases) {
        await runProgram(t, daemon, root, one)
        assert.deepEqual(unknownFindings(await newFindings(titleOf(one))), [])
      }
      await run(t, ownProgram('memory_windows'), ['type1'], { env: daemon.env })
      const provoked = await newFindings('memory_windows type1')
      assert.ok(provoked.some(({ finding }) => finding.id === 'stale-rkey'))
      assert.deepEqual(unknownFindings(provoked), [])
      const unmatched = unmatchedRows()
      assert.ok(!unmatched.some(row => row.includes('memory_windows.c, type1')), 'no finding matched the row of type1')
      assert.ok(
        unmatched.some(row => row.includes('memory_windows.c, type2')),
        'a finding matched the row of type2, which did not run',
      )
      // The finding is unknown in a program that the table does not name.
      const [one] = provoked.filter(({ finding }) => finding.severity === 'error')
      assert.ok(one)
      const ofOther = { ...one, finding: { ...one.finding, program: { pid: 1, command: 'other' } } }
      assert.equal(unknownFindings([ofOther]).length, 1)
    })
})
