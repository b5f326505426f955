/*
 * A graph of waits (spec/check/thread-waits.ts) as text.
 */
import type { ThreadWait, WaitGraph } from '../../../spec/check/thread-waits.ts'

/** Threads of a finding's sentence. */
const MAX_NAMED = 6

/** Tells processes apart, also of several hosts. */
export const processKey = ({ host, pid }: { readonly host?: string; readonly pid: number }): string =>
  `${host ?? ''} ${pid}`

/** `thread 12 of process 10 (server)`; of the only process: `thread 12`. */
const threadName = ({ host, pid, command, tid }: ThreadWait, { processes }: { readonly processes: number }): string => {
  const name = tid === pid ? 'the main thread' : `thread ${tid}`
  if (processes === 1) return name
  return `${name} of process ${pid} (${command})${host === undefined ? '' : ` on ${host}`}`
}

const processesIn = (threads: readonly ThreadWait[]): number => new Set(threads.map(processKey)).size

/** The sentence of the finding `deadlock`, without its full stop. */
export const deadlockText = ({ shape, first, threads }: WaitGraph): string => {
  const chain = first.map(i => threads[i]!)
  const processes = processesIn(threads)
  const named = chain.slice(0, MAX_NAMED).map(thread => `${threadName(thread, { processes })} ${thread.action}`)
  const more = chain.length > MAX_NAMED ? ` … (${chain.length - MAX_NAMED} more)` : ''
  const end = chain.at(-1)
  const reason = end?.reason === undefined ? '' : `; ${end.reason}`
  if (shape === 'end') return `a wait has no end: ${named.join('; ')}${more}${reason}`
  return chain.length === 1
    ? `a thread waits for itself: ${named[0]}${reason}`
    : `${chain.length} threads wait for each other: ${named.join('; ')}${more}`
}

/**
 * The lines of the block, without stacks: one for each thread. `pid`: of the program of the finding, whose threads need
 * no process, unless there are others.
 */
export const waitLines = ({ threads }: WaitGraph, pid?: number): readonly string[] => {
  const isOther = pid !== undefined && threads.some(thread => thread.pid !== pid)
  const processes = isOther ? Number.POSITIVE_INFINITY : processesIn(threads)
  return threads.map(
    thread =>
      `${threadName(thread, { processes })} ${thread.action}${thread.reason === undefined ? '' : `: ${thread.reason}`}`,
  )
}
