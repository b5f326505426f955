/*
 * Rows "check" and "record": unmodified programs under `userdma check`, or of a daemon that records, compared with
 * `userdma run`; and programs in TypeScript with checked devices, compared with unchecked devices.
 */
import type { Bench, Row } from './harness/harness.ts'
import { type Daemon, needProgram, startDaemon } from './harness/processes.ts'
import { startInprocSide } from './inproc.ts'
import { roundTrip } from './pingpong.ts'
import type { InprocOrder } from './sides/inproc-side.ts'
import { writeBandwidth } from './write-bw.ts'

const compare = async (
  measure: (daemon: Daemon) => Promise<number>,
  settings: Parameters<typeof startDaemon>[0] = { check: true },
): Promise<Bench> => {
  needProgram('ibv_rc_pingpong', 'ibverbs-utils')
  needProgram('ib_write_bw', 'perftest')
  const plain = await startDaemon()
  const slower = await startDaemon(settings).catch(async error => {
    await plain.stop()
    throw error
  })
  return {
    ours: () => measure(slower),
    reference: () => measure(plain),
    close: async () => {
      await plain.stop()
      await slower.stop()
    },
  }
}

/** A WRITE of 64 bytes in a process, from post to poll. */
const compareInProcess = async (check: NonNullable<InprocOrder['check']>): Promise<Bench> => {
  const order = { operation: 'write', size: 64, batch: 1 } as const
  const [checked, plain] = [await startInprocSide({ ...order, check }), await startInprocSide(order)]
  return {
    ours: async () => (await checked.nanoseconds()) / 1000,
    reference: async () => (await plain.nanoseconds()) / 1000,
    close: async () => {
      await checked.close()
      await plain.close()
    },
  }
}

const ROUND_TRIPS = 10_000

export const checkRows: readonly Row[] = [
  {
    name: 'check pingpong',
    quantity: 'ibv_rc_pingpong 64 B under userdma check',
    unit: 'µs',
    better: 'lower',
    cores: 2,
    reference: 'the same under userdma run',
    floor: 3,
    aim: 1.5,
    prepare: () => compare(daemon => roundTrip(daemon, 64, ROUND_TRIPS)),
  },
  {
    name: 'record pingpong',
    quantity: 'ibv_rc_pingpong 64 B of a daemon that records',
    unit: 'µs',
    better: 'lower',
    cores: 2,
    reference: 'the same of another daemon',
    floor: 2,
    aim: 1.15,
    prepare: () => compare(daemon => roundTrip(daemon, 64, ROUND_TRIPS), { record: true }),
  },
  {
    name: 'check races pingpong',
    quantity: 'ibv_rc_pingpong 64 B under userdma check --races',
    unit: 'µs',
    better: 'lower',
    cores: 2,
    reference: 'the same under userdma run',
    floor: 5,
    aim: 3,
    prepare: () => compare(daemon => roundTrip(daemon, 64, ROUND_TRIPS), { check: true, races: true }),
  },
  {
    name: 'check write_bw',
    quantity: 'ib_write_bw 1024 KiB under userdma check',
    unit: 'GB/s',
    better: 'higher',
    cores: 2,
    reference: 'the same under userdma run',
    floor: 0.5,
    aim: 0.9,
    prepare: () => compare(daemon => writeBandwidth(daemon, 2 ** 20)),
  },
  {
    name: 'check inproc',
    quantity: 'WRITE of 64 bytes inside a process, checked',
    unit: 'µs',
    better: 'lower',
    cores: 1,
    reference: 'not checked',
    floor: 3,
    aim: 2,
    prepare: () => compareInProcess({}),
  },
  {
    name: 'check races inproc',
    quantity: 'WRITE of 64 bytes inside a process, races: true',
    unit: 'µs',
    better: 'lower',
    cores: 1,
    reference: 'not checked',
    floor: 5,
    aim: 3,
    prepare: () => compareInProcess({ races: true }),
  },
]
