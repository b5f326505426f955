/*
 * Rows "chain": objects that a daemon makes for a client of the library, a hundred by one chain (R16) beside a hundred
 * by calls of their own, for each class. What was made is destroyed outside the measurement.
 */
import { type Chain, type CompletionQueue, type Device, open, type ProtectionDomain } from '../src/verbs/index.ts'
import { type Bench, median, type Row } from './harness.ts'
import { startDaemon } from './processes.ts'

/** Objects of a chain, and how often a measurement makes them. */
const OBJECTS = 100
const REPEATS = 20

interface Base {
  readonly device: Device
  readonly pd: ProtectionDomain
  readonly cq: CompletionQueue
  readonly buffer: Uint8Array
}

/** How one object of a class is made by itself, and in a chain. */
interface Maker {
  readonly name: string
  one(base: Base): Disposable
  chained(chain: Chain, base: Base): object
}

const GID = '127.0.0.1'

const makers: readonly Maker[] = [
  { name: 'pd', one: ({ device }) => device.pd(), chained: chain => chain.pd() },
  {
    name: 'mr',
    one: ({ pd, buffer }) => pd.register(buffer),
    chained: (chain, { pd, buffer }) => chain.register(pd, buffer),
  },
  { name: 'mw', one: ({ pd }) => pd.window(), chained: (chain, { pd }) => chain.window(pd) },
  { name: 'cq', one: ({ device }) => device.cq(), chained: chain => chain.cq() },
  { name: 'srq', one: ({ pd }) => pd.srq(), chained: (chain, { pd }) => chain.srq(pd) },
  {
    name: 'rc_qp',
    one: ({ pd, cq }) => pd.rcQp({ sendCq: cq }),
    chained: (chain, { pd, cq }) => chain.rcQp(pd, { sendCq: cq }),
  },
  {
    name: 'ud_qp',
    one: ({ pd, cq }) => pd.udQp({ sendCq: cq }),
    chained: (chain, { pd, cq }) => chain.udQp(pd, { sendCq: cq }),
  },
  {
    name: 'ah',
    one: ({ pd }) => pd.addressHandle({ gid: GID }),
    chained: (chain, { pd }) => chain.addressHandle(pd, { gid: GID }),
  },
]

/** Objects per second of `make`, which makes OBJECTS of them. */
const rate = (make: () => Iterable<Disposable>): number => {
  const times: number[] = []
  for (let i = 0; i < REPEATS; i++) {
    const start = performance.now()
    const made = make()
    times.push(performance.now() - start)
    for (const one of made) one[Symbol.dispose]()
  }
  return (OBJECTS * 1000) / median(times)
}

const prepare = async ({ one, chained }: Maker): Promise<Bench> => {
  const daemon = await startDaemon()
  const device = await open({ socket: daemon.socket })
  const pd = device.pd()
  const base: Base = { device, pd, cq: device.cq(), buffer: new Uint8Array(4096) }
  const all = Array.from({ length: OBJECTS })
  return {
    ours: () => rate(() => device.chain(chain => all.map(() => chained(chain, base))) as unknown as Disposable[]),
    beside: () => rate(() => all.map(() => one(base))),
    close: async () => {
      await device.close()
      await daemon.stop()
    },
  }
}

export const chainRows: readonly Row[] = makers.map(maker => ({
  name: `chain ${maker.name}`,
  quantity: `${maker.name}s made by a chain of ${OBJECTS}`,
  unit: 'objects/s',
  better: 'higher',
  cores: 2,
  reference: `${OBJECTS} single calls`,
  floor: 5,
  aim: 8,
  prepare: () => prepare(maker),
}))
