/*
 * Rows "efa" and "mlx5": WRITEs, READs, and a round trip of SENDs of two queue pairs of a device of that driver (SRD on EFA,
 * RC on mlx5), compared with RC on an rxe device of the same daemon; rows "infiniband": of an mlx5 device with an InfiniBand
 * port, by LID, compared with one with a RoCE port. One C program does all (bench/references/verbs_pair.c).
 * WRITEs over SRD need rdma-core 48 or newer.
 */
import type { Bench, Row } from './harness/harness.ts'
import { benchProgram, startDaemon } from './harness/processes.ts'

/** Bytes of a measurement of WRITEs or READs. */
const TARGET_BYTES = 2e9
const ROUND_TRIPS = 20_000

/** A device (docs/reference/cli.md), and the index of its GID. */
interface Side {
  readonly device: string
  readonly gid: number
}
interface Pair {
  readonly name: string
  readonly service: string
  readonly ours: Side
  readonly reference: Side
  readonly referenceText: string
  /** The least that ours may be of the reference, as a ratio of speeds. */
  readonly floor: number
}

const rxe: Side = { device: 'rxe0@127.0.0.1', gid: 1 }
const efa: Side = { device: 'efa0@127.0.0.2,driver=efa', gid: 0 }
const mlx5: Side = { device: 'mlx5_0@127.0.0.2,driver=mlx5', gid: 1 }
const infiniband: Side = { device: 'mlx5_1@127.0.0.3,driver=mlx5,layer=infiniband', gid: 0 }
const pairs: readonly Pair[] = [
  { name: 'efa', service: 'SRD', ours: efa, reference: rxe, referenceText: 'RC on rxe', floor: 0.77 },
  { name: 'mlx5', service: 'RC', ours: mlx5, reference: rxe, referenceText: 'RC on rxe', floor: 0.77 },
  { name: 'infiniband', service: 'RC', ours: infiniband, reference: mlx5, referenceText: 'a RoCE port', floor: 0.97 },
]

const compare = async (pair: Pair, test: 'write' | 'read' | 'send', size: number): Promise<Bench> => {
  const program = benchProgram('verbs_pair')
  const count = test !== 'send' ? Math.round(TARGET_BYTES / size) : ROUND_TRIPS
  const daemon = await startDaemon({ devices: [pair.reference.device, pair.ours.device] })
  const measure = async ({ device, gid }: Side): Promise<number> => {
    const [name = device] = device.split('@')
    return Number.parseFloat(await daemon.run(program, name, gid, test, size, count).finished())
  }
  return {
    ours: () => measure(pair.ours),
    reference: () => measure(pair.reference),
    note: `${count} ${test === 'send' ? 'round trips' : `${test.toUpperCase()}s`} a round`,
    close: () => daemon.stop(),
  }
}

export const driverRows: readonly Row[] = pairs.flatMap(pair => [
  ...(['write', 'read'] as const).map(
    (test): Row => ({
      name: `${pair.name} ${test}_bw`,
      quantity: `${test.toUpperCase()}s of 64 KiB over ${pair.service}`,
      unit: 'GB/s',
      better: 'higher',
      cores: 2,
      reference: pair.referenceText,
      floor: pair.floor,
      aim: 1,
      prepare: () => compare(pair, test, 65536),
    }),
  ),
  ...[4096, 64].map(
    (size): Row => ({
      name: `${pair.name} pingpong ${size}`,
      quantity: `SENDs of ${size} B over ${pair.service}, round trip`,
      unit: 'µs',
      better: 'lower',
      cores: 2,
      reference: pair.referenceText,
      floor: Number((1 / pair.floor).toFixed(2)),
      aim: 1,
      prepare: () => compare(pair, 'send', size),
    }),
  ),
])
