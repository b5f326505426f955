/*
 * What threads of other processes do, from /proc: only with the rights of ptrace(2). Reading may wait for the process, so
 * the daemon does not.
 */
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { statFieldsOf } from './process-status.ts'

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

/** The threads of a process, at most `most`. Empty: it has ended. */
export const threadsOf = (pid: number, most: number): readonly ThreadStatus[] => {
  let names: readonly string[] = []
  try {
    names = readdirSync(`/proc/${pid}/task`)
  } catch {}
  return names.slice(0, most).flatMap(name => {
    const state = statFieldsOf(`${pid}/task/${name}`)?.[0]
    if (state === undefined) return []
    return [{ tid: Number(name), state, call: callOf(read(`/proc/${pid}/task/${name}/syscall`)) }]
  })
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
