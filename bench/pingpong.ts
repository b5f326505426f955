/*
 * Rows "pingpong": Debian's ibv_rc_pingpong, two processes through one daemon, compared with two processes of a C
 * program that exchange messages over a unix socket. The programs report microseconds per round trip, without start-up.
 */
import type { Bench, Row } from './harness/harness.ts'
import { Unavailable } from './harness/harness.ts'
import { type Daemon, needProgram, runPair, runReference, startDaemon } from './harness/processes.ts'

/** Microseconds that a measurement should take. */
const TARGET_US = 500_000
/** Round trips of the trial run, which determines the round trips of a measurement; and their maximum. */
const TRIAL = 300
const MAX_ITERATIONS = 100_000

/** Microseconds per round trip of ibv_rc_pingpong. */
export const roundTrip = async (daemon: Daemon, size: number, iterations: number): Promise<number> => {
  const output = await runPair(daemon, 'ibv_rc_pingpong', '-g', 1, '-s', size, '-n', iterations)
  const found = /= ([\d.]+) usec\/iter/.exec(output)
  if (!found) throw new Unavailable(`ibv_rc_pingpong printed no time: ${output}`)
  return Number(found[1])
}

/** Round trips of `side` that take about TARGET_US. */
export const iterationsFor = async (side: (iterations: number) => Promise<number>): Promise<number> => {
  let iterations = TRIAL
  // The first run is slower: V8 has not compiled the code.
  for (let i = 0; i < 2; i++)
    iterations = Math.min(MAX_ITERATIONS, Math.max(TRIAL, Math.round(TARGET_US / (await side(iterations)))))
  return iterations
}

const compare = async (size: number): Promise<Bench> => {
  needProgram('ibv_rc_pingpong', 'ibverbs-utils')
  const daemon = await startDaemon()
  const ours = (iterations: number): Promise<number> => roundTrip(daemon, size, iterations)
  const reference = (iterations: number): Promise<number> => runReference('unix_pingpong', size, iterations)
  try {
    const ourIterations = await iterationsFor(ours)
    const referenceIterations = await iterationsFor(reference)
    return {
      ours: () => ours(ourIterations),
      reference: () => reference(referenceIterations),
      note: `${ourIterations} and ${referenceIterations} round trips a round`,
      close: () => daemon.stop(),
    }
  } catch (error) {
    await daemon.stop()
    throw error
  }
}

export const pingpongRows: readonly Row[] = [4096, 64].map(size => ({
  name: `pingpong ${size}`,
  quantity: `ibv_rc_pingpong ${size} B, round trip`,
  unit: 'µs',
  better: 'lower',
  cores: 2,
  reference: 'unix-socket ping-pong in C',
  floor: 1,
  aim: 0.2,
  prepare: () => compare(size),
}))
