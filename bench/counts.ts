/*
 * Rows "counts": what a daemon does per operation: system calls without futex, copies by process_vm_*, wake-ups, and
 * bytes of the young generation. Each is the difference between a long and a short run, divided by the further
 * operations, so start and end of the programs do not count. Counts depend on the machine much less than times do.
 */
import { fileURLToPath } from 'node:url'
import { allocated, systemCallsDuring, wakeUps } from './harness/counting.ts'
import type { Bench, Row } from './harness/harness.ts'
import { benchProgram, type Daemon, needProgram, ownProgram, runPair, startDaemon } from './harness/processes.ts'
import { SEMI_SPACE_MIB } from './sides/young-generation.ts'

interface Operation {
  readonly name: string
  readonly quantity: string
  /** Operations of the short and of the long run. */
  readonly counts: readonly [number, number]
  prepare(daemon: Daemon): Promise<{ run(count: number): Promise<unknown>; close(): Promise<unknown> }>
}

const NOTHING = async (): Promise<void> => {}
const PORT = 7472

/** Messages go in both directions: twice as many as round trips. */
const pingpong = (...options: readonly string[]): Operation['prepare'] => {
  return async daemon => {
    needProgram('ibv_rc_pingpong', 'ibverbs-utils')
    return {
      run: count => runPair(daemon, 'ibv_rc_pingpong', '-g', 1, '-s', 64, '-n', count / 2, ...options),
      close: NOTHING,
    }
  }
}

const operations = {
  events: {
    name: 'events',
    quantity: 'message of ibv_rc_pingpong -e 64 B',
    counts: [400, 4400],
    prepare: pingpong('-e'),
  },
  polling: {
    name: 'polling',
    quantity: 'message of ibv_rc_pingpong 64 B',
    counts: [400, 4400],
    prepare: pingpong(),
  },
  write_bw: {
    name: 'write_bw',
    quantity: 'message of ib_write_bw 64 KiB',
    counts: [400, 4400],
    async prepare(daemon) {
      needProgram('ib_write_bw', 'perftest')
      const args = ['-d', 'rxe0', '-x', 1, '-F', '-s', 65536, '-n']
      return { run: count => runPair(daemon, 'ib_write_bw', ...args, count), close: NOTHING }
    },
  },
  control: {
    name: 'control',
    quantity: 'control call',
    counts: [400, 8400],
    prepare: async daemon => ({ run: count => daemon.run(ownProgram('calls'), count).finished(), close: NOTHING }),
  },
  rdmacm: {
    name: 'rdmacm',
    quantity: 'connect + disconnect by librdmacm',
    counts: [20, 120],
    async prepare(daemon) {
      const program = benchProgram('rdmacm_connects')
      const server = await daemon.runReady(program, 'server', '127.0.0.1', PORT)
      return {
        run: count => daemon.run(program, 'client', '127.0.0.1', PORT, count).finished(),
        close: () => server.stop(),
      }
    },
  },
} as const satisfies Readonly<Record<string, Operation>>

export type OperationName = keyof typeof operations

/** Starts a daemon for an operation, and calls `use` with a function that counts per operation. */
export const withOperation = async (
  name: OperationName,
): Promise<{
  readonly daemon: Daemon
  /** `during`: counts during a run. Resolves with the counts per operation. */
  perOperation(during: (run: () => Promise<unknown>) => Promise<number>): Promise<number>
  close(): Promise<void>
}> => {
  const { counts, prepare }: Operation = operations[name]
  const daemon = await startDaemon({
    nodeOptions: [
      `--min-semi-space-size=${SEMI_SPACE_MIB}`,
      `--max-semi-space-size=${SEMI_SPACE_MIB}`,
      '--import',
      fileURLToPath(new URL('./sides/young-generation.js', import.meta.url)),
    ],
  })
  try {
    const { run, close } = await prepare(daemon)
    const [short, long] = counts
    return {
      daemon,
      async perOperation(during) {
        const few = await during(() => run(short))
        return ((await during(() => run(long))) - few) / (long - short)
      },
      async close() {
        await close()
        await daemon.stop()
      },
    }
  } catch (error) {
    await daemon.stop()
    throw error
  }
}

export type Quantity = 'calls' | 'copies' | 'wakeups' | 'allocations'

/** Counts a quantity of `daemon` during a run. */
export const countOf =
  (quantity: Quantity, daemon: Daemon) =>
  async (run: () => Promise<unknown>): Promise<number> => {
    const { pid, allocations } = daemon
    if (quantity === 'calls') return (await systemCallsDuring(pid, run)).calls
    if (quantity === 'copies') return (await systemCallsDuring(pid, run)).copies
    const now = async (): Promise<number> => (quantity === 'wakeups' ? wakeUps(pid) : allocated(pid, allocations))
    const before = await now()
    await run()
    return (await now()) - before
  }

const prepareRow = async (name: OperationName, quantity: Quantity): Promise<Bench> => {
  if (quantity === 'calls' || quantity === 'copies') needProgram('strace', 'strace')
  const { daemon, perOperation, close } = await withOperation(name)
  return { ours: () => perOperation(countOf(quantity, daemon)), close }
}

const UNITS: Readonly<Record<Quantity, readonly [text: string, unit: string]>> = {
  calls: ['system calls', ''],
  copies: ['process_vm_readv and process_vm_writev', ''],
  wakeups: ['wake-ups', ''],
  allocations: ['young generation', 'B'],
}

/** Floor and aim. Floors leave room for a busy machine, aims are goals: some are not reached. */
export const LIMITS: Readonly<
  Record<OperationName, Readonly<Record<Quantity, readonly [floor: number, aim: number]>>>
> = {
  events: { calls: [13, 6], copies: [4, 2], wakeups: [4, 1], allocations: [8000, 2000] },
  polling: { calls: [8, 3], copies: [4, 2], wakeups: [2, 0.2], allocations: [1500, 300] },
  write_bw: { calls: [6, 2], copies: [4, 2], wakeups: [2, 0.1], allocations: [1000, 300] },
  control: { calls: [8, 2], copies: [2, 0.1], wakeups: [2, 0.1], allocations: [20_000, 5000] },
  rdmacm: { calls: [700, 200], copies: [200, 60], wakeups: [40, 5], allocations: [900_000, 300_000] },
}

export const countRows: readonly Row[] = (Object.keys(operations) as OperationName[]).flatMap(name =>
  (Object.keys(UNITS) as Quantity[]).map((quantity): Row => {
    const [floor, aim] = LIMITS[name][quantity]
    const [text, unit] = UNITS[quantity]
    return {
      name: `counts ${name} ${quantity}`,
      quantity: `${text} of the daemon, per ${operations[name].quantity}`,
      unit,
      better: 'lower',
      cores: 0,
      reference: 'none',
      floor,
      aim,
      rounds: 1,
      prepare: () => prepareRow(name, quantity),
    }
  }),
)
