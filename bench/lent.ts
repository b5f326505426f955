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

/** `ours`: see `compare`. */
const row = (
  name: string,
  quantity: string,
  reference: string,
  aim: number,
  ours: Parameters<typeof compare>[0],
): Row => ({
  name: `lent ${name}`,
  quantity,
  unit: 'µs',
  better: 'lower',
  cores: 2,
  reference,
  floor: 2,
  aim,
  prepare: () => compare(ours),
})

const NOT_LEARNT = 'the same with --lent declared'

export const lentRows: readonly Row[] = [
  row('declared', 'WRITE of 64 B under userdma check to one of 10,000 lends', 'the same without lends', 1.1, [
    'write',
    10_000,
    200_000,
  ]),
  row('learnt write', 'WRITE of 64 B under userdma check, which looks for keys in it', NOT_LEARNT, 1.3, [
    'write',
    0,
    200_000,
  ]),
  row('learnt tell', 'a SEND under userdma check that tells of 4 KiB, which the peer READs', NOT_LEARNT, 1.3, [
    'tell',
    0,
    20_000,
  ]),
]
