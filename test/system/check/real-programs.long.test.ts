/*
 * The programs of the catalogue, pyverbs' tests and programs of test/programs under `userdma check`: all errors and
 * warnings are known findings.
 */
import assert from 'node:assert/strict'
import { basename } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { isRunIn, titleOf } from '../../project/catalogue/cases.ts'
import { catalogue } from '../../project/catalogue/catalogue.ts'
import { runProgram } from '../../project/catalogue/run.ts'
import { userlandRoot } from '../../project/catalogue/userland.ts'
import { ownPrograms } from '../../random/mutation/programs.ts'
import { freePort, lacking, ONE_DEVICE, ownProgram, run, type Scope } from '../programs.ts'
import { runPyverbs, SHIPPED } from '../suites/pyverbs.ts'
import { startCheckedDaemon, unknownFindings, unmatchedRows } from './real-programs.ts'

/** Runs a program, and ends the processes that it started. Failure is only a diagnostic: other tests check success. */
const attempt = async (t: TestContext, title: string, body: (scope: Scope) => Promise<unknown>): Promise<void> => {
  const cleanups: (() => unknown)[] = []
  try {
    await body({ after: cleanup => void cleanups.push(cleanup) })
  } catch (error) {
    t.diagnostic(`${title} failed: ${String(error)}`)
  } finally {
    for (const cleanup of cleanups.reverse()) await cleanup()
  }
}

const userland = userlandRoot('Debian 12')
const builtFrom = (file: string): string => ownProgram(basename(file, '.c'))
const skip = lacking(
  ...['ibv_rc_pingpong', 'ib_write_bw', 'rping', 'ss', SHIPPED],
  ...ownPrograms.map(({ file }) => builtFrom(file)),
)

for (const races of [false, true])
  describe(`findings are known${races ? ', with --races' : ''}`, { skip }, () => {
    for (const { name, cases } of catalogue)
      it(name, async t => {
        assert.ok('command' in userland)
        const { daemon, newFindings } = await startCheckedDaemon(t, { races })
        const unknown: string[] = []
        for (const one of cases.filter(listed => isRunIn(listed, 'Debian 12'))) {
          const title = titleOf(one)
          await attempt(t, title, scope => runProgram(scope, daemon, userland, one))
          unknown.push(...unknownFindings(await newFindings(title)))
        }
        assert.deepEqual(unknown, [])
      })

    it('pyverbs', async t => {
      assert.ok('command' in userland)
      const { daemon, newFindings } = await startCheckedDaemon(t, { races, devices: ONE_DEVICE })
      await runPyverbs(t, { ...userland, daemon })
      assert.deepEqual(unknownFindings(await newFindings('pyverbs')), [])
    })

    it('programs of test/programs', async t => {
      const { daemon, newFindings } = await startCheckedDaemon(t, { races, devices: ONE_DEVICE })
      const unknown: string[] = []
      for (const { name, file, command } of ownPrograms) {
        const words = ['-c', command, builtFrom(file), `${await freePort()}`]
        await run(t, 'sh', words, { env: daemon.env })
        unknown.push(...unknownFindings(await newFindings(name)))
      }
      assert.deepEqual(unknown, [])
    })
  })

it('names the rows of the table that no run matched', { skip }, t => {
  // Not a failure: some findings depend on the timing of the programs.
  for (const row of unmatchedRows()) t.diagnostic(`no run matched: ${row}`)
})
