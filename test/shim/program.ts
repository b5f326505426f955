/*
 * Compiles the shim for a test, and runs programs under it while this process acts as the daemon.
 */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { hasNative } from '../../src/host/native.ts'
import { repoRoot } from '../paths.ts'
import { compileC, currentBuild, filesBelow, hasHeader, missing, requireTool } from '../tools.ts'

/** Whether the shim can be compiled and used here; skips the test otherwise. */
export const shimIsPossible = (t: TestContext): boolean => {
  if (!requireTool('cc', t, 'gcc libc6-dev')) return false
  if (!hasHeader('infiniband/verbs.h'))
    return missing(t, '<infiniband/verbs.h> is not installed here (Debian: apt-get install libibverbs-dev)')
  return hasNative() || missing(t, 'the npm package koffi cannot be loaded here')
}

let shim: string | undefined

/** The shim's path: the built one if it is up to date, otherwise one compiled for this test file. */
export const compileShim = (folder: string): string => {
  shim ??= currentBuild('native/libuserdma_shim.so', 'shim')
  if (shim) return shim
  shim = compileShimWith(folder)
  return shim
}

/** The shim, compiled with more options. */
export const compileShimWith = (folder: string, more: readonly string[] = []): string => {
  const waits = join(repoRoot, 'shim', 'waits')
  const sources = filesBelow(join(repoRoot, 'shim')).filter(path => path.endsWith('.c') && !path.startsWith(waits))
  const options = [...more, '-shared', '-fPIC', '-fvisibility=hidden', '-ldl', '-lpthread']
  return compileC(join(folder, 'libuserdma_shim.so'), sources, options)
}

/** Scenarios of scenarios.c that need only a daemon, and their titles. */
export const scenarioTitles = {
  paths: 'RDMA paths are served by the daemon, others are unchanged',
  relative_paths: 'relative paths lead to devices, as absolute ones do',
  walks: 'functions that walk directories find devices',
  written: 'all attributes can be read, and a few can be written',
  device: 'a device node opens as a character device whose calls are forwarded',
  bell: 'the doorbell rings only while the daemon is parked',
  events: "event descriptors read like Linux's",
  stray_stores: 'a reply is stored only where the call expects it',
  copies: 'a context exists exactly as long as a copy of its descriptor',
  hidden_sockets: 'hidden sockets are inaccessible, and their numbers can be used by the program',
  low_limit: 'a full descriptor table is EMFILE, and leaves nothing behind',
  forks: 'a child has its own session and shares the contexts',
  exec: 'a descriptor that is kept across exec still works, and its context ends with it',
  exec_events: 'numbers of event descriptors inherited by exec are free after close',
  passed_and_closed: 'numbers of passed descriptors are free after close',
  left_by_longjmp: 'a call abandoned by siglongjmp blocks no others',
  bare_calls: 'system calls by number reach devices, as functions of the C library do',
  spawns: 'a context inherited and duplicated by posix_spawn works in the child',
  vforks: 'a vfork child does not affect its parent',
  passed: 'a passed descriptor works in the receiver',
  signals: 'signal handlers may ring doorbells and make calls',
  threads: 'threads call, open and close concurrently, while the process forks',
} as const

const programs = new Map<string, string>()

/** The program of the scenarios, once for each set of options. */
export const compileScenarios = (folder: string, more: readonly string[] = []): string => {
  const key = more.join(' ')
  const known = programs.get(key)
  if (known !== undefined) return known
  const sources = ['scenarios.c', 'scenarios_paths.c', 'scenarios_processes.c', 'scenarios_bare.c']
  const made = compileC(
    join(folder, more.length === 0 ? 'scenarios' : 'scenarios-with'),
    sources.map(name => join(repoRoot, 'test/shim', name)),
    [...more, '-rdynamic', '-ldl', '-lpthread'],
  )
  programs.set(key, made)
  return made
}

export interface Ended {
  /** Exit status, or the signal's name. */
  readonly status: number | string
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end, without blocking this process. A program that hangs is killed after 30 seconds. */
export const runProgram = (
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  options: { readonly cwd?: string; readonly input?: string } = {},
): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, { env, cwd: options.cwd, timeout: 30_000, killSignal: 'SIGKILL' })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', text => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', text => {
      stderr += text
    })
    child.stdin.on('error', () => {})
    child.stdin.end(options.input ?? '')
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ status: signal ?? code ?? -1, stdout, stderr }))
  })
