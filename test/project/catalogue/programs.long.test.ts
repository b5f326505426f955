/*
 * The catalogue and rdma-core's tests of pyverbs in both userlands. UPDATE_GOLDEN=1 writes the results to
 * docs/reference/programs.md (npm run docs:programs).
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { after, before, describe, it } from 'node:test'
import { isEmpty, lacking, startDaemon, suiteScope, type TestDaemon, userdma } from '../../system/programs.ts'
import { assertGoodRdmacm, rpingCases, runRdmacm } from '../../system/rdmacm/rdmacm.ts'
import { assertGoodPyverbs, runPyverbs } from '../../system/suites/pyverbs.ts'
import { isRunIn, type ProgramCase, reasonOf, titleOf, type Userland, userlands } from './cases.ts'
import { catalogue } from './catalogue.ts'
import { PAGE, renderPage, type Verdict } from './page.ts'
import { pyverbsSection, type Skipped } from './pyverbs-section.ts'
import { CATALOGUE_DEVICES, runProgram } from './run.ts'
import { type UserlandRoot, userlandRoot, type Words } from './userland.ts'

const results = new Map<ProgramCase, Map<Userland, Verdict>>()
const skippedTests = new Map<Userland, Skipped>()

const record = (programCase: ProgramCase, userland: Userland, verdict: Verdict): void => {
  const verdicts = results.get(programCase) ?? new Map<Userland, Verdict>()
  results.set(programCase, verdicts.set(userland, verdict))
}

for (const userland of userlands) {
  const rootOrReason = userlandRoot(userland)
  const skip =
    'skip' in rootOrReason ? rootOrReason.skip : lacking('rping', 'ib_send_bw', 'ibstat', 'rdma', 'ibv_devinfo')
  describe(`programs of ${userland}`, { skip }, () => {
    const suite = suiteScope()
    const root = rootOrReason as UserlandRoot
    let daemon: TestDaemon
    before(async () => {
      daemon = await startDaemon(suite, { devices: CATALOGUE_DEVICES })
    })

    it('rping works under `userdma run`', async t => {
      const underRun = ['env', '-u', 'LD_PRELOAD', '-u', 'USERDMA_SOCKET', userdma, 'run', '--socket'] as const
      const command = (words: Words): Words => root.command([...underRun, daemon.socket, '--', ...words])
      assertGoodRdmacm(rpingCases[0]!, await runRdmacm(t, daemon, rpingCases[0]!, { command }))
    })

    for (const { name, cases } of catalogue)
      describe(name, () => {
        for (const programCase of cases.filter(listed => isRunIn(listed, userland))) {
          const reason = reasonOf(programCase, userland)
          it(`${titleOf(programCase)}${reason === undefined ? '' : ` (fails: ${reason})`}`, async t => {
            const running = runProgram(t, daemon, root, programCase)
            const works = await running.then(
              () => true,
              () => false,
            )
            record(programCase, userland, works ? 'works' : 'fails')
            if (reason === undefined) await running
            else assert.ok(!works, 'it works: remove `fails` from its case in the catalogue')
          })
        }
      })

    it('leave nothing behind', async () => {
      await daemon.settled(isEmpty)
    })

    it('rdma-core’s tests of pyverbs pass', async t => {
      const tests = await runPyverbs(t, root)
      assertGoodPyverbs(tests, userland)
      skippedTests.set(
        userland,
        tests.filter(({ kind }) => kind === 'skip'),
      )
    })
  })
}

after(() => {
  if (!process.env.UPDATE_GOLDEN) return
  assert.equal(skippedTests.size, userlands.length, 'the page is written where both userlands can be run')
  writeFileSync(
    PAGE,
    renderPage((programCase, userland) => results.get(programCase)?.get(userland) ?? '–', pyverbsSection(skippedTests)),
  )
})
