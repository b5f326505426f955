/*
 * Rows "write_bw": perftest's ib_write_bw, two processes through one daemon, compared with a C program that moves the
 * messages between two processes through a third process, with two copies.
 */
import type { Bench, Row } from './harness/harness.ts'
import { Unavailable } from './harness/harness.ts'
import { type Daemon, needProgram, runPair, runReference, startDaemon } from './harness/processes.ts'

/** Bytes of a measurement. */
const TARGET_BYTES = 1e9
/** perftest's "MB" are MiB. */
const MEBI = 2 ** 20
/** The line of results: bytes, iterations, peak bandwidth, average bandwidth, message rate. */
const NUMBERS = /^\s*\d+\s+\d+\s+[\d.]+\s+([\d.]+)\s+[\d.]+\s*$/m

const iterationsOf = (size: number): number => Math.round(TARGET_BYTES / size)

/** Average GB/s (1e9 bytes) of ib_write_bw. */
export const writeBandwidth = async (daemon: Daemon, size: number): Promise<number> => {
  const args = ['-d', 'rxe0', '-x', 1, '-F', '-s', size, '-n', iterationsOf(size)]
  const output = await runPair(daemon, 'ib_write_bw', ...args)
  const found = NUMBERS.exec(output)
  if (!found) throw new Unavailable(`ib_write_bw printed no bandwidth: ${output}`)
  return (Number(found[1]) * MEBI) / 1e9
}

const compare = async (size: number): Promise<Bench> => {
  needProgram('ib_write_bw', 'perftest')
  const daemon = await startDaemon()
  const iterations = iterationsOf(size)
  return {
    ours: () => writeBandwidth(daemon, size),
    reference: () => runReference('process_vm', size, iterations),
    note: `${iterations} messages a round`,
    close: () => daemon.stop(),
  }
}

export const writeBwRows: readonly Row[] = [65536, MEBI].map(size => ({
  name: `write_bw ${size}`,
  quantity: `ib_write_bw ${size / 1024} KiB`,
  unit: 'GB/s',
  better: 'higher',
  cores: 2,
  reference: 'process_vm_readv + writev in C',
  floor: 0.6,
  aim: 0.9,
  prepare: () => compare(size),
}))
