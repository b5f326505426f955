/*
 * Rows "lent": what it costs under `userdma check` that memory is lent (docs/how-to/lent-memory.md): by declarations, and
 * learnt from messages. One C program does all (bench/references/lends.c).
 */

import type { Bench, Row } from './harness/harness.ts'
import { benchProgram, type Daemon, startDaemon } from './harness/processes.ts'

const microseconds = async (daemon: Daemon, mode: string, lends: number, count: number): Promise<number> =>
  Number.parseFloat(await daemon.run(benchProgram('lends'), mode, lends, count).finished())

const compare = async (ours: readonly [mode: string, lends: number, count: number]): Promise<Bench> => {
  const [mode, lends, count] = ours
  const learning = await startDaemon({ check: true })
  const plain = await startDaemon({ check: true, lent: 'declared' }).catch(async error => {
    await learning.stop()
    throw error
  })
  return {
    ours: () => microseconds(lends > 0 ? plain : learning, mode, lends, count),
    reference: () => microseconds(plain, mode, 0, count),
    close: async () => {
      await learning.stop()
      await plain.stop()
    },
  }
}

export const lentRows: readonly Row[] = [
  {
    name: 'lent declared',
    quantity: 'WRITE of 64 B under userdma check to one of 10,000 lends',
    unit: 'µs',
    better: 'lower',
    cores: 2,
    reference: 'the same without lends',
    floor: 2,
    aim: 1.1,
    prepare: () => compare(['write', 10_000, 200_000]),
  },
  {
    name: 'lent learnt write',
    quantity: 'WRITE of 64 B under userdma check, which looks for keys in it',
    unit: 'µs',
    better: 'lower',
    cores: 2,
    reference: 'the same with --lent declared',
    floor: 2,
    aim: 1.3,
    prepare: () => compare(['write', 0, 200_000]),
  },
  {
    name: 'lent learnt tell',
    quantity: 'a SEND under userdma check that tells of 4 KiB, which the peer READs',
    unit: 'µs',
    better: 'lower',
    cores: 2,
    reference: 'the same with --lent declared',
    floor: 2,
    aim: 1.3,
    prepare: () => compare(['tell', 0, 20_000]),
  },
]
