/*
 * What threads of other processes do, from /proc: only with the rights of ptrace(2). Reading may wait for the process,
 * so the daemon does not.
 */
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { libcFunctions } from './native.ts'
import { statFieldsOf } from './process-status.ts'

const sys = libcFunctions({ syscall: 'int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c)' })
/** Number of tgkill(2). */
const tgkill = (): number => (process.arch === 'arm64' ? 131 : 234)

export interface ThreadStatus {
  readonly tid: number
  /** The letter of proc(5), as R, S or D; undefined: the thread has ended. */
  readonly state: string
  /** The system call in which it waits, and its arguments. 'running': none. Undefined: no rights. */
  readonly call: { readonly number: number; readonly args: readonly bigint[] } | 'running' | undefined
}

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return undefined
  }
}

const callOf = (text: string | undefined): ThreadStatus['call'] => {
  if (text === undefined) return undefined
  const [number = '', ...args] = text.trim().split(' ')
  if (!/^\d+$/.test(number)) return 'running'
  return { number: Number(number), args: args.slice(0, 6).map(word => BigInt(word)) }
}

/** The numbers of a process's threads, at most `most`. Empty: it has ended. */
const namesOf = (pid: number, most: number): readonly string[] => {
  try {
    return readdirSync(`/proc/${pid}/task`).slice(0, most)
  } catch {
    return []
  }
}

/** Begins the names of threads that a preload library has made (shim/session/peers.c). */
const OWN = 'userdma-'

/** The threads of a process but our own, at most `most`. Empty: it has ended. */
export const threadsOf = (pid: number, most: number): readonly ThreadStatus[] =>
  namesOf(pid, most).flatMap(name => {
    const state = statFieldsOf(`${pid}/task/${name}`)?.[0]
    if (state === undefined || read(`/proc/${pid}/task/${name}/comm`)?.startsWith(OWN)) return []
    return [{ tid: Number(name), state, call: callOf(read(`/proc/${pid}/task/${name}/syscall`)) }]
  })

interface RunningThread {
  readonly tid: number
  /** How often it has waited for something since its start. */
  readonly sleeps: number
  /** The signals that it blocks: bit 0 is signal 1. */
  readonly blocked: bigint
}

/** The threads of a process that run or are ready to, at most `most`. */
export const runningThreads = (pid: number, most: number): readonly RunningThread[] =>
  namesOf(pid, most).flatMap(name => {
    if (statFieldsOf(`${pid}/task/${name}`)?.[0] !== 'R') return []
    const status = read(`/proc/${pid}/task/${name}/status`) ?? ''
    const sleeps = /^voluntary_ctxt_switches:\s*(\d+)$/m.exec(status)?.[1]
    const blocked = /^SigBlk:\s*([0-9a-f]+)$/m.exec(status)?.[1]
    if (sleeps === undefined || blocked === undefined) return []
    return [{ tid: Number(name), sleeps: Number(sleeps), blocked: BigInt(`0x${blocked}`) }]
  })

/** Sends a signal (a number) to a thread; no effect if it has ended. */
export const signalThread = (pid: number, tid: number, signal: number): void => {
  sys().syscall(tgkill(), pid, tid, signal)
}

/** A word of 32 bits of a process's memory; undefined: no rights, or no memory there. */
export const wordOf = (pid: number, address: bigint): number | undefined => {
  try {
    const fd = openSync(`/proc/${pid}/mem`, 'r')
    try {
      const bytes = Buffer.alloc(4)
      return readSync(fd, bytes, 0, 4, address) === 4 ? bytes.readUInt32LE() : undefined
    } finally {
      closeSync(fd)
    }
  } catch {
    return undefined
  }
}
