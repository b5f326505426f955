/*
 * The scenarios with ThreadSanitizer in the shim and in their program. ThreadSanitizer's runtime is preloaded before
 * the shim: the runtime's versions of C library functions call the shim's.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, realpathSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { scratchFolder, skipTest } from '../tools.ts'
import { startFakeDaemon } from './fake-daemon.ts'
import { compileScenarios, compileShimWith, runProgram, scenarioTitles, shimIsPossible } from './program.ts'

const folder = scratchFolder()

/**
 * ThreadSanitizer runs signal handlers later, with its own masks. If a child is made without the C library,
 * ThreadSanitizer takes it for the parent.
 */
const EXCLUDED: readonly string[] = [
  'left_by_longjmp',
  'interrupted_call',
  'restarted_wait',
  'sandbox',
  'unknown_child',
]

/** -Wno-tsan: against gcc's warning of the doorbell's fence (atomic_thread_fence). */
const OPTIONS = ['-g', '-fsanitize=thread', '-Wno-tsan']

/** undefined: gcc has no ThreadSanitizer. */
const runtime = (): string | undefined => {
  const { stdout } = spawnSync('gcc', ['-print-file-name=libtsan.so'], { encoding: 'utf8' })
  const path = stdout?.trim() ?? ''
  return isAbsolute(path) ? realpathSync(path) : undefined
}

let built: { readonly program: string; readonly preload: string } | undefined
/** Skips the test and returns undefined if gcc has no ThreadSanitizer. */
const build = (t: TestContext): typeof built => {
  const tsan = runtime()
  if (tsan === undefined) {
    skipTest(t, 'gcc has no ThreadSanitizer here (Debian: libtsan2, which comes with gcc)')
    return undefined
  }
  built ??= {
    program: compileScenarios(folder, OPTIONS),
    preload: `${tsan}:${compileShimWith(folder, OPTIONS)}`,
  }
  return built
}

for (const [name, title] of Object.entries(scenarioTitles))
  if (!EXCLUDED.includes(name))
    test(`has no data race: ${title}`, async t => {
      if (!shimIsPossible(t)) return
      const programs = build(t)
      if (programs === undefined) return
      const daemonFolder = join(folder, name)
      mkdirSync(daemonFolder)
      const daemon = startFakeDaemon(daemonFolder)
      try {
        const { status, stdout, stderr } = await runProgram(programs.program, [name], {
          PATH: process.env.PATH,
          LD_PRELOAD: programs.preload,
          USERDMA_SOCKET: daemon.socket,
          // A process with threads that forks is not killed; the child joins no thread of its parent.
          TSAN_OPTIONS: 'die_after_fork=0:report_thread_leaks=0',
        })
        assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' })
      } finally {
        daemon.crash()
      }
    })
