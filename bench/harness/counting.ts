/*
 * What a process does in a span of time: system calls (strace), wake-ups (/proc) and bytes of the young generation
 * (bench/sides/young-generation.ts).
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, watch } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Unavailable } from './harness.ts'

/** Waits of threads for each other: how many there are depends on the machine. */
const NOT_COUNTED = new Set(['futex', 'restart_syscall'])
const COPIES = new Set(['process_vm_readv', 'process_vm_writev'])

interface SystemCalls {
  /** All, without futex. */
  readonly calls: number
  /** process_vm_readv and process_vm_writev. */
  readonly copies: number
  /** By name. */
  readonly names: ReadonlyMap<string, number>
}

/** Lines of `strace -c`: share, seconds, microseconds per call, calls, errors or nothing, name. */
export const parseSummary = (text: string): SystemCalls => {
  const names = new Map<string, number>()
  for (const [, count, name] of text.matchAll(/^ *[\d.]+ +[\d.]+ +\d+ +(\d+)(?: +\d+)? +(\w+)$/gm))
    if (name !== 'total' && !NOT_COUNTED.has(name)) names.set(name, Number(count))
  const sum = (isCounted: (name: string) => boolean): number =>
    [...names].reduce((total, [name, count]) => total + (isCounted(name) ? count : 0), 0)
  return { calls: sum(() => true), copies: sum(name => COPIES.has(name)), names }
}

/** The system calls of all threads of a process during `run`. Throws Unavailable if strace may not attach. */
export const systemCallsDuring = async (pid: number, run: () => Promise<unknown>): Promise<SystemCalls> => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-counts-'))
  const file = join(folder, 'summary')
  try {
    const strace = spawn('strace', ['-f', '-c', '-o', file, '-p', String(pid)], { stdio: ['ignore', 'ignore', 'pipe'] })
    let output = ''
    strace.stderr.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
    const ended = once(strace, 'close')
    while (!output.includes('attached') && strace.exitCode === null)
      await Promise.race([once(strace.stderr, 'data'), ended])
    if (strace.exitCode !== null) throw new Unavailable(`strace cannot attach to the daemon: ${output.trim()}`)
    try {
      await run()
    } finally {
      strace.kill('SIGINT')
      await ended
    }
    return parseSummary(readFileSync(file, 'utf8'))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** How often threads of a process have slept so far and been woken: voluntary context switches. */
export const wakeUps = (pid: number): number => {
  let sum = 0
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const status = readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8')
    sum += Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)?.[1] ?? 0)
  }
  return sum
}

/** Bytes that a process with bench/sides/young-generation.ts has allocated so far. `file`: `Daemon.allocations`. */
export const allocated = async (pid: number, file: string): Promise<number> => {
  const lines = (): string[] => {
    try {
      return readFileSync(file, 'utf8').split('\n').slice(0, -1)
    } catch {
      return []
    }
  }
  const before = lines().length
  const watcher = watch(join(file, '..'))
  try {
    process.kill(pid, 'SIGWINCH')
    while (lines().length === before) await once(watcher, 'change')
    return Number(lines().at(-1))
  } finally {
    watcher.close()
  }
}
