/*
 * Rows "inproc": messages between two devices of the library in one process, on one thread (inproc-side.ts). Bandwidth
 * is compared with memcpy in C between two buffers of the same size. The rows of small requests have no reference:
 * their `floor` and `aim` are absolute values.
 */
import { startChild } from './harness/children.ts'
import type { Bench, Row } from './harness/harness.ts'
import { runReference } from './harness/processes.ts'
import type { InprocOrder } from './sides/inproc-side.ts'

/** Requests posted before the first poll. */
const BATCH = 16
const MEBI = 2 ** 20
/** Bytes copied per measurement of the reference. */
const REFERENCE_BYTES = 5e9

/** Starts the process that measures nanoseconds per message. */
export const startInprocSide = async (order: InprocOrder) => {
  const child = startChild<InprocOrder | { readonly again: true }>('inproc-side.js')
  await child.ask(order)
  const nanoseconds = async () => (await child.ask<{ readonly nanoseconds: number }>({ again: true })).nanoseconds
  return { nanoseconds, close: child.stop }
}

const bandwidth = async (operation: InprocOrder['operation'], size: number): Promise<Bench> => {
  const { nanoseconds, close } = await startInprocSide({ operation, size, batch: BATCH })
  return {
    ours: async () => size / (await nanoseconds()),
    reference: () => runReference('memcpy', size, Math.round(REFERENCE_BYTES / size)),
    close,
  }
}

const bandwidthRow = (operation: InprocOrder['operation'], size: number, floor: number, aim: number): Row => ({
  name: `inproc ${operation} ${size}`,
  quantity: `${operation.toUpperCase()} ${size / 1024} KiB inside a process`,
  unit: 'GB/s',
  better: 'higher',
  cores: 1,
  reference: 'memcpy in C',
  floor,
  aim,
  prepare: () => bandwidth(operation, size),
})

/** Bytes of a small request. */
const SMALL = 64
/** Requests of the row "inproc rate" that are posted before the first poll. */
const RATE_BATCH = 256

/** Small WRITEs in batches. `convert`: nanoseconds of a request to the row's unit. */
const smallWrites = async (batch: number, convert: (nanoseconds: number) => number): Promise<Bench> => {
  const { nanoseconds, close } = await startInprocSide({ operation: 'write', size: SMALL, batch })
  return { ours: async () => convert(await nanoseconds()), close }
}

export const inprocRows: readonly Row[] = [
  ...[65536, MEBI].flatMap(size => [
    bandwidthRow('write', size, 0.75, 0.9),
    bandwidthRow('read', size, 0.75, 0.9),
    bandwidthRow('send', size, 0.6, 0.85),
  ]),
  {
    name: 'inproc post-poll',
    quantity: 'WRITE of 64 bytes inside a process, post to poll',
    unit: 'µs',
    better: 'lower',
    cores: 1,
    reference: 'none',
    floor: 0.6,
    aim: 0.15,
    prepare: () => smallWrites(1, nanoseconds => nanoseconds / 1000),
  },
  {
    name: 'inproc rate',
    quantity: `WRITEs of 64 bytes inside a process, ${RATE_BATCH} at a time`,
    unit: 'M/s',
    better: 'higher',
    cores: 1,
    reference: 'none',
    floor: 2,
    aim: 8,
    prepare: () => smallWrites(RATE_BATCH, nanoseconds => 1000 / nanoseconds),
  },
]
