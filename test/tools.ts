/*
 * Programs that a test needs and a machine may lack (a C compiler, rdma-core's programs, tshark, …): without them the
 * test is skipped with a message that says what is missing; in CI that is a failure. And C programs compiled for a
 * test.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, extname, join } from 'node:path'
import { after, type TestContext } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { repoRoot } from './paths.ts'

/** Whether missing programs are failures: USERDMA_CI decides, then CI. */
export const inCi = (): boolean => {
  const ci = process.env.USERDMA_CI ?? process.env.CI ?? ''
  return ci !== '' && ci !== '0' && ci !== 'false'
}

/** Full path of a program in PATH, or undefined. */
export const findTool = (name: string): string | undefined =>
  (process.env.PATH ?? '')
    .split(':')
    .map(folder => join(folder || '.', name))
    .find(path => {
      try {
        const found = statSync(path)
        return found.isFile() && (found.mode & 0o111) !== 0
      } catch {
        // Missing, or in a folder that we may not read.
        return false
      }
    })

/** Runs the garbage collector. */
export const collectGarbage = (): void => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
}

const O_CLOEXEC = 0o2000000

/** Whether a descriptor of this process is closed by exec. */
export const closesOnExec = (fd: number): boolean => {
  const flags = /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '0'
  return (Number.parseInt(flags, 8) & O_CLOEXEC) !== 0
}

/** Ids of the movers (native/mover.c) that a process has started; `state`: only those in this state (proc(5)). */
export const moversOf = (parent: number, state = '\\w'): number[] => {
  const pattern = new RegExp(`\\(userdma-mover\\) ${state} ${parent} `)
  const isMover = (name: string): boolean => {
    try {
      return /^\d+$/.test(name) && pattern.test(readFileSync(`/proc/${name}/stat`, 'latin1'))
    } catch {
      // The process has ended.
      return false
    }
  }
  return readdirSync('/proc').filter(isMover).map(Number)
}

/** Skips the test with a message; in CI throws it. Returns false. */
export const skipTest = (t: TestContext, message: string): false => {
  if (inCi()) throw new Error(message)
  t.skip(message)
  return false
}

/**
 * Full path of a program that the test needs, or undefined after the test was skipped. `debianPackage` is for the
 * message.
 */
export const requireTool = (name: string, t: TestContext, debianPackage?: string): string | undefined => {
  const path = findTool(name)
  if (path) return path
  skipTest(t, `${name} is not installed here${debianPackage ? ` (Debian: apt-get install ${debianPackage})` : ''}`)
  return undefined
}

/** A folder that is removed when the tests of the file have ended. */
export const scratchFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-test-'))
  after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Compiler options that the build uses (scripts/build.mjs), warnings as errors. */
const FLAGS = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror']

/** Compiles C sources to `output`; throws the compiler's message. */
export const compileC = (output: string, sources: readonly string[], options: readonly string[] = []): string => {
  const { status, stderr, error } = spawnSync(
    findTool('cc') ?? 'cc',
    [...FLAGS, '-o', output, ...sources, ...options],
    { encoding: 'utf8' },
  )
  if (error) throw error
  if (status !== 0) throw new Error(`${basename(output, extname(output))} does not compile:\n${stderr}`)
  return output
}

/** The files below a folder, sorted. */
export const filesBelow = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .sort()

/**
 * The program that the build has made of the C sources below `folder`, if none of them has changed since. `output`: its
 * path below build/.
 */
export const currentBuild = (output: string, folder: string): string | undefined => {
  const built = join(repoRoot, 'build', output)
  const since = statSync(built, { throwIfNoEntry: false })?.mtimeMs ?? 0
  const sources = filesBelow(join(repoRoot, folder)).filter(path => /\.[ch]$/.test(path))
  return sources.every(path => statSync(path).mtimeMs <= since) ? built : undefined
}

/** Whether the compiler finds a header. */
export const hasHeader = (header: string): boolean =>
  spawnSync(findTool('cc') ?? 'cc', ['-E', '-x', 'c', '-'], { input: `#include <${header}>\n`, stdio: 'pipe' })
    .status === 0
