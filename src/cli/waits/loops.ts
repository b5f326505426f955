/*
 * Threads of a checked program that run for a second without a call: they are asked where they are, by a signal at
 * which the preload library writes a sample into the wait table (shim/check/samples.c). A signal would end poll(2) and
 * others early, so only threads get it that have not slept since the last look.
 */
import type { ToolSession } from '../../daemon/client/tool-session.ts'
import { descendantsOf } from '../../host/process-status.ts'
import { runningThreads, signalThread } from '../../host/threads.ts'
import { WaitTable } from '../../spec/wait-table.ts'

/** Milliseconds between looks. */
const INTERVAL = 500
/** Looks before the first sample of a thread; those between the next ones double, up to MAX_LOOKS. */
const FIRST_LOOKS = 2
const MAX_LOOKS = 64
/** Processes, and running threads, that are looked at. */
const MAX_PROCESSES = 256
const MAX_THREADS = 256
/** Milliseconds between samples: a loop is at its load only now and then. */
const SAMPLE_INTERVAL = 3

interface Running {
  /** How often it has slept, in all. */
  readonly sleeps: number
  /** Looks since it began. */
  readonly looks: number
  /** The looks at which it is asked. */
  readonly askAt: number
}

const sleep = (milliseconds: number): Promise<void> => new Promise(resolve => setTimeout(resolve, milliseconds))

/** Begins to look at the programs that this process has started. Returns a function that ends it. */
export const watchLoops = (client: Pick<ToolSession, 'threadWaits'>): (() => void) => {
  /** By pid and tid. */
  let running = new Map<string, Running>()
  let timer: NodeJS.Timeout | undefined
  let isOver = false

  const look = async (): Promise<void> => {
    const before = running
    const asked: { readonly pid: number; readonly tid: number; readonly blocked: bigint }[] = []
    running = new Map()
    for (const pid of descendantsOf(process.pid).slice(0, MAX_PROCESSES))
      for (const { tid, sleeps, blocked } of runningThreads(pid, MAX_THREADS)) {
        const key = `${pid} ${tid}`
        const last = before.get(key)
        const isSame = last?.sleeps === sleeps
        const looks = isSame ? last.looks + 1 : 0
        const isAsked = isSame && looks >= last.askAt
        if (isAsked) asked.push({ pid, tid, blocked })
        running.set(key, {
          sleeps,
          looks,
          askAt: isSame ? (isAsked ? looks + Math.min(MAX_LOOKS, looks) : last.askAt) : FIRST_LOOKS,
        })
      }
    if (asked.length === 0) return
    const processes = await client.threadWaits()
    const signals = asked.flatMap(({ pid, tid, blocked }) => {
      const found = processes.find(one => one.pid === pid)
      const signal = found?.sampleSignal
      // Those that poll say so themselves.
      if (signal === undefined || found?.threads.some(thread => thread.tid === tid && thread.kind !== 'runs')) return []
      return ((blocked >> BigInt(signal - 1)) & 1n) === 1n ? [] : [{ pid, tid, signal }]
    })
    for (let round = 0; !isOver && round * signals.length < WaitTable.samples && signals.length > 0; round++) {
      for (const { pid, tid, signal } of signals.slice(0, WaitTable.samples)) signalThread(pid, tid, signal)
      await sleep(SAMPLE_INTERVAL)
    }
  }
  const lookLater = (): void => {
    timer = setTimeout(() => {
      // The daemon may have ended.
      void look()
        .catch(() => {})
        .then(() => {
          if (!isOver) lookLater()
        })
    }, INTERVAL)
  }
  lookLater()
  return () => {
    isOver = true
    clearTimeout(timer)
  }
}
