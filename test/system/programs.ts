/*
 * Real programs under the test's own daemon. Nothing here sleeps: a daemon is ready when it prints so, a server when
 * the kernel shows its listener. All programs are killed when the test ends.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { freePort, untilListening } from '../../src/cli/listening.ts'
import { programEnvironment } from '../../src/cli/program/program.ts'
import { openToolSession } from '../../src/daemon/client/tool-session.ts'
import { DaemonLine } from '../../src/spec/session.ts'
import type { DeviceStat, Stat } from '../../src/uapi/tool.ts'
import { until } from '../limits.ts'
import { repoRoot } from '../paths.ts'
import { findTool, inCi } from '../tools.ts'

export { freePort, untilListening }

/** What this file uses of node:test's contexts. */
export interface Scope {
  after(cleanup: () => unknown): void
}

/**
 * A scope that ends with the file or `describe` that calls this function. `before` hooks need it: cleanups given to a
 * hook's own context run at the end of the hook. Cleanups run in reverse order.
 */
export const suiteScope = (): Scope => {
  const cleanups: (() => unknown)[] = []
  after(async () => {
    for (const cleanup of cleanups.reverse()) await cleanup()
  })
  return { after: cleanup => void cleanups.push(cleanup) }
}

export const userdma = join(repoRoot, 'bin', 'userdma')

/** Path of a C program of test/programs. */
export const ownProgram = (name: string): string => join(repoRoot, 'build', 'programs', name)

/**
 * A reason for the option `skip` if one of these programs (names in PATH, or paths) or the preload library is missing.
 * Throws in CI, where no test may be skipped.
 */
export const lacking = (...programs: readonly string[]): string | false => {
  const needed = [join(repoRoot, 'build', 'native', 'libuserdma_shim.so'), ...programs]
  const missing = needed.filter(name => (name.includes('/') ? !existsSync(name) : findTool(name) === undefined))
  if (missing.length === 0) return false
  const message = `missing: ${missing.join(', ')} (node scripts/setup.mjs says what to install)`
  if (inCi()) throw new Error(`${message}; in CI a test that cannot run is a failure`)
  return message
}

/** UID and GID of a user who is not root. */
export const NOBODY = 65534

/** The reason why NOBODY cannot run userdma here; false if NOBODY can. */
export const noOtherUser = (): string | false => {
  otherUser ??= { reason: reasonAgainstNobody() }
  return otherUser.reason
}
let otherUser: { readonly reason: string | false } | undefined

const reasonAgainstNobody = (): string | false => {
  if (process.geteuid?.() !== 0) return 'only root can start programs of two users'
  const { status } = spawnSync(userdma, ['--version'], { uid: NOBODY, gid: NOBODY })
  return status === 0 ? false : 'other users may not read this checkout'
}

/** The reason why a daemon cannot have guests here; false if it can. */
export const noGuests = (): string | false =>
  process.geteuid?.() === 0 ? noOtherUser() : "needs root: only root's daemon has guests"

export interface Finished {
  /** null if a signal ended the program. */
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export const assertGood = ({ status, signal, stdout, stderr }: Finished): void => {
  assert.equal(status, 0, `status ${status}, signal ${signal}\n${stdout}${stderr}`)
}

export interface Running {
  readonly child: ChildProcess
  readonly ended: Promise<Finished>
  /** Resolves when the output matches; rejects if the program ends before. */
  printed(pattern: RegExp): Promise<RegExpExecArray>
  output(): string
}

/** Removed at the end of the test. */
export const temporaryFolder = (scope: Scope): string => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-test-'))
  scope.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** `detached`: the program leads a process group, which is killed as a whole. */
export const start = (scope: Scope, program: string, args: readonly string[], options: SpawnOptions = {}): Running => {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  let stdout = ''
  let stderr = ''
  let hasEnded = false
  const watchers = new Set<() => void>()
  const notifyWatchers = (): void => {
    for (const watcher of watchers) watcher()
  }
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk
    notifyWatchers()
  })
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk
    notifyWatchers()
  })
  const kill = (): void => {
    try {
      if (options.detached && child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      else child.kill('SIGKILL')
    } catch {
      // The process group is empty.
    }
  }
  const command = [program.split('/').at(-1), ...args].join(' ')
  const ended = new Promise<Finished>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (status, signal) => {
      hasEnded = true
      notifyWatchers()
      resolve({ status, signal, stdout, stderr })
    })
  })
  // Without this handler a rejection that no caller awaits would end the process.
  ended.catch(() => {})
  scope.after(kill)
  return {
    child,
    ended,
    output: () => stdout + stderr,
    printed: pattern =>
      new Promise((resolve, reject) => {
        const search = (): void => {
          const match = pattern.exec(stdout) ?? pattern.exec(stderr)
          if (match) resolve(match)
          else if (hasEnded)
            reject(new Error(`${command} ended without printing ${pattern}; its output:\n${stdout}${stderr}`))
          else return
          watchers.delete(search)
        }
        watchers.add(search)
        search()
      }),
  }
}

export const run = (
  scope: Scope,
  program: string,
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<Finished> => start(scope, program, args, options).ended

/** Without the variables that lead a program to a daemon or tag it for a trace. */
export const cleanEnvironment = (extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => {
  const { USERDMA_SOCKET: _socket, USERDMA_TAG: _tag, XDG_RUNTIME_DIR: _folder, ...env } = process.env
  return { ...env, ...extra }
}

/**
 * With TEST_CLOCK=skip, programs that have a daemon of their own have a clock that skips, but not where a limit is real
 * time.
 */
const withTestClock = (args: readonly string[]): readonly string[] => {
  const [command = '', ...others] = args
  const own = others.includes('--') ? others.slice(0, others.indexOf('--')) : others
  const isAlone = (command === 'run' && own.includes('--private')) || (command === 'check' && !own.includes('--socket'))
  const hasClock = own.some(
    word =>
      ['--clock', '--timers', '--host', '--link', '--time-limit', '--search-time'].includes(word) ||
      /\.(udr|pcap)$/.test(word),
  )
  return process.env.TEST_CLOCK === 'skip' && isAlone && !hasClock ? [command, '--clock', 'skip', ...others] : args
}

/** What is printed with a clock that skips, as with the real one. */
const withoutTestClock = (text: string): string =>
  text.replace(/^userdma: [\d,.]+ s skipped in .*\n/m, '').replaceAll(' --clock skip -- ', ' -- ')

export const runUserdma = async (
  scope: Scope,
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<Finished> => {
  const words = withTestClock(args)
  const finished = await run(scope, userdma, words, { env: cleanEnvironment(), ...options })
  return words === args ? finished : { ...finished, stderr: withoutTestClock(finished.stderr) }
}

export interface TestDaemon {
  readonly socket: string
  readonly running: Running
  readonly pid: number
  /** For programs that use the daemon. */
  readonly env: NodeJS.ProcessEnv
  stat(): Promise<Stat>
  /** Polls `stat`: the daemon destroys objects a little after their process exits. */
  settled(isReached: (stat: Stat) => boolean): Promise<Stat>
}

export const removeDevice = async (t: Scope, { socket }: TestDaemon, name: string): Promise<void> => {
  const { status, stderr } = await runUserdma(t, ['device', 'remove', name, '--socket', socket])
  assert.equal(status, 0, stderr)
}

/** Options --device. */
export const ONE_DEVICE = ['rxe0@127.0.0.1']
export const TWO_DEVICES = ['rxe0@127.0.0.1', 'rxe1@127.0.0.2']

interface DaemonSettings {
  readonly devices?: readonly string[]
  readonly fault?: string
  readonly link?: string
  /** Network namespace of the daemon; its programs may be in others. */
  readonly netns?: string
  /** Limit of open descriptors. */
  readonly descriptors?: number
  /** A command that runs the daemon's command, appended to it. */
  readonly wrapper?: readonly string[]
  /** UID of another user; only root's daemon can be shared. */
  readonly guest?: number
  /** More options of `userdma daemon`. */
  readonly options?: readonly string[]
}

/** The daemon is killed at the end of the scope. */
export const startDaemon = async (
  scope: Scope,
  { devices = ONE_DEVICE, fault, link, netns, descriptors, wrapper = [], guest, options = [] }: DaemonSettings = {},
): Promise<TestDaemon> => {
  let started: Running | undefined
  const cleanups: (() => unknown)[] = []
  scope.after(async () => {
    started?.child.kill('SIGKILL')
    await started?.ended.catch(() => {})
    // The folder is removed once the daemon no longer writes there.
    for (const cleanup of cleanups) await cleanup()
  })
  const folder = temporaryFolder({ after: cleanup => void cleanups.push(cleanup) })
  const socket = join(folder, 'sock')
  const args = ['daemon', '--socket', socket, ...devices.flatMap(device => ['--device', device]), ...options]
  if (fault !== undefined) args.push('--fault', fault)
  if (link !== undefined) args.push('--link', link)
  chmodSync(folder, 0o755)
  if (guest !== undefined) args.push('--allow-user', `${guest}`)
  const command = [...wrapper, ...(netns === undefined ? [] : ['ip', 'netns', 'exec', netns]), userdma]
  if (descriptors !== undefined) command.unshift('sh', '-c', `ulimit -n ${descriptors}; exec "$0" "$@"`)
  const running = start(scope, command[0], [...command.slice(1), ...args], { env: cleanEnvironment() })
  started = running
  await running.printed(new RegExp(DaemonLine.READY))
  const stat = async (): Promise<Stat> => {
    const client = await openToolSession(socket)
    try {
      return await client.stat()
    } finally {
      client.close()
    }
  }
  return {
    socket,
    running,
    pid: running.child.pid ?? 0,
    env: programEnvironment(socket),
    stat,
    async settled(isReached) {
      let found: Stat | undefined
      const isSettled = async (): Promise<boolean> => {
        found = await stat()
        return isReached(found)
      }
      await until(isSettled, () => `the daemon's numbers are still: ${JSON.stringify(found, null, 2)}`, 60)
      return found as Stat
    },
  }
}

/**
 * Asserts that the fault rules of these daemons have affected packets: each kind of fault of each rule at least one.
 */
export const assertFaultsInjected = async (...daemons: readonly TestDaemon[]): Promise<void> => {
  for (const { socket } of daemons) {
    const client = await openToolSession(socket)
    const stats = await client.faults().finally(() => client.close())
    assert.ok(stats.length > 0, 'the daemon has no fault rules')
    for (const { rule, dropped, duplicated, reordered, corrupted } of stats)
      for (const [kind, count] of Object.entries({
        drop: dropped,
        dup: duplicated,
        reorder: reordered,
        corrupt: corrupted,
      }))
        if (rule.includes(`${kind}=`)) assert.ok((count ?? 0) > 0, `${rule}: no packet was affected by ${kind}`)
  }
}

const sum = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((total, count) => total + count, 0)

export const objectCountOf = (devices: readonly DeviceStat[]): number =>
  devices.reduce((total, device) => total + sum(device.objects), 0)

/** Whether the daemon has only objects of processes that exist. */
export const hasOnlyLiving = ({ charged }: Stat): boolean =>
  charged.processes.every(({ pid }) => existsSync(`/proc/${pid}`))

/** Whether the daemon has no object of any program. */
export const isEmpty = ({ sessions, contexts, rings, mappings, descriptors, connections, devices }: Stat): boolean =>
  sessions === 0 &&
  contexts === 0 &&
  rings.count === 0 &&
  mappings.count === 0 &&
  descriptors === 0 &&
  connections.identifiers === 0 &&
  objectCountOf(devices) === 0
