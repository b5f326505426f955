/*
 * Compiles the preload library (the shim) and the programs of its tests. Runs programs asynchronously: this process is
 * their daemon.
 */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { hasNative } from '../../src/host/native.ts'
import { repoRoot } from '../paths.ts'
import { compileC, currentBuild, filesBelow, hasHeader, requireTool, skipTest } from '../tools.ts'

/** Skips the test if the shim cannot be compiled and used here. */
export const shimIsPossible = (t: TestContext): boolean => {
  if (!requireTool('cc', t, 'gcc libc6-dev')) return false
  if (!hasHeader('infiniband/verbs.h'))
    return skipTest(t, '<infiniband/verbs.h> is not installed here (Debian: apt-get install libibverbs-dev)')
  return hasNative() || skipTest(t, 'the npm package koffi cannot be loaded here')
}

let shim: string | undefined

/** Returns the shim's path: the built one if it is up to date, otherwise compiles one. */
export const currentShim = (folder: string): string => {
  shim ??= currentBuild('native/libuserdma_shim.so', 'shim')
  if (shim) return shim
  shim = compileShimWith(folder)
  return shim
}

export const compileShimWith = (folder: string, extraOptions: readonly string[] = []): string => {
  // Other libraries: those of `userdma check` and of `--host`.
  const separateFolders = ['waits', 'frees', 'host', 'clock', 'run'].map(name => join(repoRoot, 'shim', name))
  const isOfShim = (path: string): boolean =>
    path.endsWith('.c') && !separateFolders.some(separate => path.startsWith(separate))
  const sources = filesBelow(join(repoRoot, 'shim')).filter(isOfShim)
  const options = [...extraOptions, '-shared', '-fPIC', '-fvisibility=hidden', '-ldl', '-lpthread']
  return compileC(join(folder, 'libuserdma_shim.so'), sources, options)
}

/** Scenarios of scenarios.c that need only a daemon. */
export const scenarioTitles = {
  paths: 'RDMA paths are served by the daemon, others are unchanged',
  relative_paths: 'relative paths lead to devices',
  folders_above: 'lists of the folders above RDMA paths show them',
  device_numbers: 'the number of a device node leads to its files and to the node',
  directory_walks: 'functions that walk directories find devices',
  attribute_writes: 'only a few attributes can be written',
  old_stats: 'programs for glibc before 2.33 see devices',
  device: 'a device node opens as a character device whose calls are forwarded',
  doorbells: 'a doorbell reaches the daemon only while it is parked',
  full_doorbell: 'a doorbell succeeds also if its socket is full',
  events: "event descriptors read like Linux's",
  driver_records: 'a read that is too short for a driver’s record leaves the record',
  stray_stores: 'a reply is stored only where the call expects it',
  copies: 'a context lives as long as a copy of its descriptor',
  close_on_exec: 'a doorbell socket is closed on exec if its descriptor is',
  hidden_sockets: 'the program cannot read, write or close hidden sockets, but can use their numbers',
  lost_sockets: 'hidden sockets that the program has closed are replaced, and their numbers are its own',
  wrong_reply: 'the descriptors of a wrong reply are closed',
  low_limit: 'a full descriptor table is EMFILE',
  last_number: 'a copy of a descriptor at the last free number rings doorbells by calls',
  lowered_limit: 'a limit of descriptors that is lowered later leaves contexts usable, in children too',
  forks: 'a child has its own session and shares the contexts',
  half_copied: 'a child can use numbers that other threads opened during the fork',
  exec: 'a device descriptor works after exec until it is closed',
  exec_events: 'numbers of event descriptors inherited by exec are free after close',
  passed_and_closed: 'numbers of passed descriptors are free after close',
  replaced_session: "the number of the session's socket can be taken while a call waits for its answer",
  interrupted_call: 'a handler that interrupts a waiting call may make calls and fork',
  sandbox: 'a program whose sandbox forbids process_vm_readv makes calls, in signal handlers too',
  without_close_range: 'closefrom works without close_range(2)',
  unknown_child: 'a child that is made without the C library makes calls, whatever its parent does',
  cancelled_threads: 'a thread that is cancelled in a call blocks no other thread',
  late_attaches: 'a late reply to ATTACH is used for neither another connection nor another file',
  attach_again: 'a received context is attached also if the connection has ended',
  restarted_wait: 'a handler with SA_RESTART does not end a wait for an event',
  left_by_longjmp: 'a call abandoned by siglongjmp blocks no later calls',
  bare_calls: 'syscall(2) with statx and openat2 reaches devices',
  spawns: 'a context inherited and duplicated by posix_spawn works in the child',
  vforks: 'a vfork child does not affect its parent',
  passed_descriptors: 'a passed descriptor works in the receiver',
  signals: 'signal handlers may ring doorbells and make calls',
  threads: 'threads call, open and close while the process forks',
} as const

/** Paths by additional options. */
const programs = new Map<string, string>()

/** Returns the path of the program, compiled once for each set of options. */
export const compileScenarios = (folder: string, extraOptions: readonly string[] = []): string => {
  const key = extraOptions.join(' ')
  const compiled = programs.get(key)
  if (compiled !== undefined) return compiled
  const sources = ['scenarios.c', 'scenarios_paths.c', 'scenarios_processes.c', 'scenarios_bare.c']
  const program = compileC(
    join(folder, `scenarios${programs.size}`),
    sources.map(name => join(repoRoot, 'test/shim', name)),
    [...extraOptions, '-rdynamic', '-ldl', '-lpthread'],
  )
  programs.set(key, program)
  return program
}

export interface Ended {
  /** Exit status, or the signal's name. */
  readonly status: number | string
  readonly stdout: string
  readonly stderr: string
}

export const runProgram = (
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  options: { readonly cwd?: string; readonly input?: string } = {},
): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, { env, cwd: options.cwd })
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
