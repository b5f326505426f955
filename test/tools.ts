/*
 * Helpers of tests. Programs that a machine may lack (a C compiler, rdma-core's programs, tshark): a test without such
 * a program is skipped with a message; in CI the test fails.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, extname, join } from 'node:path'
import { after, type TestContext } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { repoRoot } from './paths.ts'

/** In CI, missing programs are failures. USERDMA_CI takes precedence over CI. */
export const inCi = (): boolean => {
  const ci = process.env.USERDMA_CI ?? process.env.CI ?? ''
  return ci !== '' && ci !== '0' && ci !== 'false'
}

/** The full path of a program in PATH, or undefined. */
export const findTool = (name: string): string | undefined =>
  (process.env.PATH ?? '')
    .split(':')
    .map(folder => join(folder || '.', name))
    .find(path => {
      try {
        const found = statSync(path)
        return found.isFile() && (found.mode & 0o111) !== 0
      } catch {
        // The file does not exist, or the folder cannot be read.
        return false
      }
    })

/** makedev(3) for numbers below 256. */
export const makedev = (major: number, minor: number): number => major * 256 + minor

export const collectGarbage = (): void => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
}

const O_CLOEXEC = 0o2000000

/** For what another process, or a later turn of the event loop, brings about. */
export const until = async (isReached: () => boolean): Promise<void> => {
  while (!isReached()) await nextTurn()
}

export const closesOnExec = (fd: number): boolean => {
  const flags = /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '0'
  return (Number.parseInt(flags, 8) & O_CLOEXEC) !== 0
}

/** Process ids of the movers (native/mover.c) of a process. `state`: a process state of proc(5). */
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

/** Skips the test with a message, and returns false; in CI throws the message. */
export const skipTest = (t: TestContext, message: string): false => {
  if (inCi()) throw new Error(message)
  t.skip(message)
  return false
}

/** The full path of a program, or undefined after skipping the test. `debianPackage` is for the message. */
export const requireTool = (name: string, t: TestContext, debianPackage?: string): string | undefined => {
  const path = findTool(name)
  if (path) return path
  skipTest(t, `${name} is not installed here${debianPackage ? ` (Debian: apt-get install ${debianPackage})` : ''}`)
  return undefined
}

/** A folder that is removed after the tests of the file. */
export const scratchFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-test-'))
  after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** The compiler options of the build (scripts/build.mjs), with warnings as errors. */
const FLAGS = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror']

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

export const filesBelow = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .sort()

/**
 * The path of build/`output`, made from the C sources below `folder`. Undefined if it was not built, or if a source is
 * newer.
 */
export const currentBuild = (output: string, folder: string): string | undefined => {
  const built = join(repoRoot, 'build', output)
  const since = statSync(built, { throwIfNoEntry: false })?.mtimeMs ?? 0
  const sources = filesBelow(join(repoRoot, folder)).filter(path => /\.[ch]$/.test(path))
  return sources.every(path => statSync(path).mtimeMs <= since) ? built : undefined
}

export const hasHeader = (header: string): boolean =>
  spawnSync(findTool('cc') ?? 'cc', ['-E', '-x', 'c', '-'], { input: `#include <${header}>\n`, stdio: 'pipe' })
    .status === 0
