/*
 * Programs built with AddressSanitizer or ThreadSanitizer need no setting, and the sanitizers see the device
 * (docs/how-to/debuggers.md).
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { compileC, scratchFolder, skipTest } from '../../tools.ts'
import { assertFound, checkScript } from '../check/checking.ts'
import { lacking, ownProgram, run, startDaemon, userdma } from '../programs.ts'
import { ASAN, casesOf, programs, TSAN, wrongReport } from './sanitized.ts'

const folder = scratchFolder()
/** Findings that it makes. */
const FINDINGS = { [ASAN]: ['outside-objects'], [TSAN]: ['touched-in-flight', 'unordered-access'] }
const OPTIONS = { [ASAN]: '-fsanitize=address', [TSAN]: '-fsanitize=thread' }

/** Returns a program with the sanitizer; undefined, with the test skipped, if it cannot be built or does not start. */
const build = (
  t: TestContext,
  source: string,
  sanitizer: typeof ASAN | typeof TSAN,
  {
    path = join(folder, `${source.replaceAll('/', '_')}_${sanitizer}`),
    from = 'test/programs',
    define = '-DNDEBUG',
  } = {},
): string | undefined => {
  const options = ['-g', define, OPTIONS[sanitizer], '-libverbs', '-lpthread']
  try {
    const program = compileC(path, [join(repoRoot, from, `${source}.c`)], options)
    // Its memory may be where the kernel has put something else.
    if (!/FATAL: ThreadSanitizer/.test(spawnSync(program, { encoding: 'utf8' }).stderr)) return program
    skipTest(t, 'ThreadSanitizer does not start here')
  } catch (error) {
    skipTest(t, `the compiler cannot build with ${sanitizer}: ${error instanceof Error ? error.message : error}`)
  }
  return undefined
}

for (const sanitizer of [ASAN, TSAN] as const)
  describe(sanitizer, { skip: lacking(ownProgram('verbs_check')) }, () => {
    for (const [name, { mistakes, right }] of Object.entries(programs)) {
      it(`sees the mistakes of ${name}`, async t => {
        const program = build(t, `sanitizers/${name}`, sanitizer)
        if (program === undefined) return
        const { env } = await startDaemon(t)
        const outcomes = await Promise.all(
          Object.entries(mistakes).map(async ([mistake, of]) => {
            const { stdout, stderr } = await run(t, program, [mistake], { env })
            return wrongReport(mistake, of, sanitizer, stdout + stderr)
          }),
        )
        assert.deepEqual(
          outcomes.filter(wrong => wrong !== undefined),
          [],
        )
      })

      it(`reports nothing that is right in ${name}`, async t => {
        const program = build(t, `sanitizers/${name}`, sanitizer)
        if (program === undefined) return
        const { env } = await startDaemon(t)
        // Leak detection needs rights that containers lack.
        const settings = { ...env, ASAN_OPTIONS: 'detect_leaks=0' }
        const { stdout, stderr, status } = await run(t, program, casesOf(right, false), { env: settings })
        assert.equal(`${stdout}${stderr}`, '')
        assert.equal(status, 0)
      })
    }

    it('is no hindrance: data is transferred, and found whole', async t => {
      const program = build(t, 'pairs/verbs_check', sanitizer)
      if (program === undefined) return
      const { env } = await startDaemon(t, { devices: ['rxe0@127.0.0.1', 'rxe1@127.0.0.2'] })
      const args = ['-g', '1', '-d', 'rxe0', '-x', 'rxe1', '-1', '-s', '5000', '-n', '50', '-S', '1']
      // The runtime makes the folder before the C library has started.
      const log = `log_path=${join(folder, 'logs', 'report')}`
      const settings = { ...env, ASAN_OPTIONS: `detect_leaks=0:${log}`, TSAN_OPTIONS: log }
      const { stdout, stderr, status } = await run(t, program, args, { env: settings })
      assert.equal(status, 0, stdout + stderr)
    })

    if (sanitizer === ASAN)
      it('ends with the last thread of its own', async t => {
        const program = build(t, 'sanitizers/one_sided', sanitizer)
        if (program === undefined) return
        const { env } = await startDaemon(t)
        const settings = { ...env, ASAN_OPTIONS: 'detect_leaks=0' }
        const { status, stderr } = await run(t, program, ['last_thread'], { env: settings })
        assert.equal(status, 0, stderr)
      })

    it('makes findings of `userdma check`', async t => {
      for (const id of FINDINGS[sanitizer]) {
        const of = (define: string) =>
          build(t, id, sanitizer, { path: join(scratchFolder(), id), from: 'docs/findings', define })
        const [faulty, fixed] = [of('-DFAULTY'), of('-DFIXED')]
        if (faulty === undefined || fixed === undefined) return
        assertFound(id, (await checkScript(t, `${faulty} >&2; true`)).found)
        assert.deepEqual((await checkScript(t, `${fixed} >&2`)).found, [])
      }
    })

    it('is found by `userdma doctor`', async t => {
      const program = build(t, 'sanitizers/sanitized', sanitizer)
      if (program === undefined) return
      const { stdout } = await run(t, userdma, ['doctor', program])
      assert.match(stdout, new RegExp(`has ${sanitizer}, which is told what devices do`))
    })
  })
