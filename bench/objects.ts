/*
 * Rows "objects": bytes of idle objects (R15) in heap and buffers; bytes of an rc_qp among 100,000, compared with
 * 1,000; and resident bytes of a queue pair, compared with a TCP endpoint in Node. Each measurement is a separate
 * process (objects-side.ts). Bytes per object are repeatable: one round is enough.
 */
import { startChild } from './harness/children.ts'
import type { Measure, Row } from './harness/harness.ts'
import type { ObjectKind } from './object-makers.ts'
import type { ObjectsCost, ObjectsOrder } from './sides/objects-side.ts'

const cost = async (kind: ObjectsOrder['kind'], count: number): Promise<ObjectsCost> => {
  const child = startChild<ObjectsOrder>('objects-side.js')
  try {
    return await child.ask<ObjectsCost>({ kind, count })
  } finally {
    await child.stop()
  }
}

const bytes =
  (kind: ObjectKind, count: number): Measure =>
  async () =>
    (await cost(kind, count)).bytes

const base = { unit: 'B', better: 'lower', cores: 0, rounds: 1 } as const

/** The default number of objects. */
const COUNT = 10_000

const row = (kind: ObjectKind, floor: number, aim: number, count = COUNT): Row => ({
  ...base,
  name: `objects ${kind}`,
  quantity: `bytes of an idle ${kind}, of ${count}`,
  reference: 'none',
  floor,
  aim,
  prepare: () => ({ ours: bytes(kind, count) }),
})

export const objectRows: readonly Row[] = [
  row('pd', 400, 200),
  row('mr', 600, 300),
  row('mw', 600, 300),
  row('ah', 800, 400),
  row('cq', 2500, 1600),
  row('srq', 2000, 1200),
  row('rc_qp', 3500, 2600, 100_000),
  row('rc_qp without requests', 600, 520, 100_000),
  row('rc_qp connected', 4000, 3000),
  row('uc_qp', 3500, 2600),
  row('ud_qp', 3500, 2600),
  row('xrc_ini_qp', 2500, 2000),
  row('xrc_tgt_qp', 800, 600),
  row('library pd', 400, 200),
  row('library mr', 800, 400),
  row('library cq', 3000, 2000),
  row('library srq', 2500, 1700),
  row('library ah', 900, 450),
  row('library rc_qp', 4000, 3000),
  {
    ...base,
    name: 'objects flat',
    quantity: 'bytes of an idle rc_qp, of 100,000',
    reference: 'the same, of 1,000',
    floor: 1.15,
    aim: 1.05,
    prepare: () => ({ ours: bytes('rc_qp', 100_000), reference: bytes('rc_qp', 1000) }),
  },
  {
    ...base,
    name: 'objects tcp',
    quantity: 'resident bytes of an idle, connected rc_qp',
    reference: 'a TCP endpoint in Node',
    floor: 1.5,
    aim: 0.85,
    // The count is large: free memory of the process hides the cost of few objects.
    prepare: () => ({
      ours: async () => (await cost('rc_qp connected', COUNT)).resident,
      reference: async () => (await cost('tcp', COUNT)).resident,
    }),
  },
]
