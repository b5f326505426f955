/*
 * Rows "efa": WRITEs, READs, and a round trip of SENDs, of two queue pairs of SRD on an EFA device, compared with RC on an rxe device
 * of the same daemon. One C program does both (bench/references/verbs_pair.c). WRITEs need rdma-core 48 or newer.
 */
import type { Bench, Row } from './harness/harness.ts'
import { benchProgram, startDaemon } from './harness/processes.ts'

/** Bytes of a measurement of WRITEs or READs. */
const TARGET_BYTES = 2e9
const ROUND_TRIPS = 20_000
const DEVICES = ['rxe0@127.0.0.1', 'efa0@127.0.0.2,driver=efa']

const compare = async (test: 'write' | 'read' | 'send', size: number): Promise<Bench> => {
  const program = benchProgram('verbs_pair')
  const count = test !== 'send' ? Math.round(TARGET_BYTES / size) : ROUND_TRIPS
  const daemon = await startDaemon({ devices: DEVICES })
  const measure = async (device: string, gid: number): Promise<number> =>
    Number.parseFloat(await daemon.run(program, device, gid, test, size, count).finished())
  return {
    ours: () => measure('efa0', 0),
    reference: () => measure('rxe0', 1),
    note: `${count} ${test === 'send' ? 'round trips' : `${test.toUpperCase()}s`} a round`,
    close: () => daemon.stop(),
  }
}

/** Limits: within 1.3 times of rxe. */
export const efaRows: readonly Row[] = [
  ...(['write', 'read'] as const).map(
    (test): Row => ({
      name: `efa ${test}_bw`,
      quantity: `${test.toUpperCase()}s of 64 KiB over SRD`,
      unit: 'GB/s',
      better: 'higher',
      cores: 2,
      reference: 'RC on rxe',
      floor: 0.77,
      aim: 1,
      prepare: () => compare(test, 65536),
    }),
  ),
  ...[4096, 64].map(
    (size): Row => ({
      name: `efa pingpong ${size}`,
      quantity: `SENDs of ${size} B over SRD, round trip`,
      unit: 'µs',
      better: 'lower',
      cores: 2,
      reference: 'RC on rxe',
      floor: 1.3,
      aim: 1,
      prepare: () => compare('send', size),
    }),
  ),
]
