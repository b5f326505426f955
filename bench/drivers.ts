/*
 * Rows "efa" and "mlx5": WRITEs, READs, and a round trip of SENDs of two queue pairs of a device of that driver (SRD on EFA,
 * RC on mlx5), compared with RC on an rxe device of the same daemon. One C program does all (bench/references/verbs_pair.c).
 * WRITEs over SRD need rdma-core 48 or newer.
 */
import type { Bench, Row } from './harness/harness.ts'
import { benchProgram, startDaemon } from './harness/processes.ts'

/** Bytes of a measurement of WRITEs or READs. */
const TARGET_BYTES = 2e9
const ROUND_TRIPS = 20_000

interface Driver {
  readonly name: string
  readonly service: string
  readonly device: string
  readonly gid: number
}
const drivers: readonly Driver[] = [
  { name: 'efa', service: 'SRD', device: 'efa0', gid: 0 },
  { name: 'mlx5', service: 'RC', device: 'mlx5_0', gid: 1 },
]

const compare = async (driver: Driver, test: 'write' | 'read' | 'send', size: number): Promise<Bench> => {
  const program = benchProgram('verbs_pair')
  const count = test !== 'send' ? Math.round(TARGET_BYTES / size) : ROUND_TRIPS
  const daemon = await startDaemon({ devices: ['rxe0@127.0.0.1', `${driver.device}@127.0.0.2,driver=${driver.name}`] })
  const measure = async (device: string, gid: number): Promise<number> =>
    Number.parseFloat(await daemon.run(program, device, gid, test, size, count).finished())
  return {
    ours: () => measure(driver.device, driver.gid),
    reference: () => measure('rxe0', 1),
    note: `${count} ${test === 'send' ? 'round trips' : `${test.toUpperCase()}s`} a round`,
    close: () => daemon.stop(),
  }
}

/** Limits: within 1.3 times of rxe. */
export const driverRows: readonly Row[] = drivers.flatMap(driver => [
  ...(['write', 'read'] as const).map(
    (test): Row => ({
      name: `${driver.name} ${test}_bw`,
      quantity: `${test.toUpperCase()}s of 64 KiB over ${driver.service}`,
      unit: 'GB/s',
      better: 'higher',
      cores: 2,
      reference: 'RC on rxe',
      floor: 0.77,
      aim: 1,
      prepare: () => compare(driver, test, 65536),
    }),
  ),
  ...[4096, 64].map(
    (size): Row => ({
      name: `${driver.name} pingpong ${size}`,
      quantity: `SENDs of ${size} B over ${driver.service}, round trip`,
      unit: 'µs',
      better: 'lower',
      cores: 2,
      reference: 'RC on rxe',
      floor: 1.3,
      aim: 1,
      prepare: () => compare(driver, 'send', size),
    }),
  ),
])
