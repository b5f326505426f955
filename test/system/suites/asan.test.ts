/*
 * Programs built with AddressSanitizer run with the setting of docs/how-to/debuggers.md.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { compileC, scratchFolder, skipTest } from '../../tools.ts'
import { isEmpty, lacking, ownProgram, run, startDaemon, TWO_DEVICES } from '../programs.ts'

const folder = scratchFolder()

/** Returns the program's path; undefined, with the test skipped, if the compiler cannot build it. */
const compileWithAsan = (t: TestContext): string | undefined => {
  const sources = [join(repoRoot, 'test', 'programs', 'pairs', 'verbs_check.c')]
  const options = ['-g', '-fsanitize=address', '-libverbs', '-lpthread']
  try {
    return compileC(join(folder, 'verbs_check_asan'), sources, options)
  } catch (error) {
    skipTest(t, `the compiler cannot build with AddressSanitizer: ${error instanceof Error ? error.message : error}`)
    return undefined
  }
}

test('a program built with AddressSanitizer transfers data', { skip: lacking(ownProgram('verbs_check')) }, async t => {
  const program = compileWithAsan(t)
  if (program === undefined) return
  const setting = /^ASAN_OPTIONS=(\S+) userdma run/m.exec(
    readFileSync(join(repoRoot, 'docs', 'how-to', 'debuggers.md'), 'utf8'),
  )?.[1]
  assert.ok(setting, 'docs/how-to/debuggers.md names the setting')
  const daemon = await startDaemon(t, { devices: TWO_DEVICES })
  const args = ['-g', '1', '-d', 'rxe0', '-x', 'rxe1', '-1', '-s', '5000', '-n', '50', '-S', '1']
  const withoutSetting = await run(t, program, args, { env: daemon.env })
  assert.match(withoutSetting.stderr, /runtime does not come first/)
  // Leak detection needs rights that containers lack.
  const env = { ...daemon.env, ASAN_OPTIONS: `${setting}:detect_leaks=0` }
  const { status, stdout, stderr } = await run(t, program, args, { env })
  assert.equal(status, 0, stdout + stderr)
  await daemon.settled(isEmpty)
})
