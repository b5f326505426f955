/*
 * Rows "chain": a hundred objects that the library creates by one chain (R16), compared with a hundred single calls, on
 * a daemon and in the process. Destruction is not measured.
 */
import {
  type Chain,
  type CompletionQueue,
  createNetwork,
  type Device,
  open,
  type ProtectionDomain,
} from '../src/library/index.ts'
import { type Bench, median, type Row } from './harness/harness.ts'
import { startDaemon } from './harness/processes.ts'

/** Objects per chain. */
const OBJECTS = 100
/** A measurement creates OBJECTS objects this many times. */
const REPEATS = 20
const REPEATS_IN_PROCESS = 400

interface Base {
  readonly device: Device
  readonly pd: ProtectionDomain
  readonly cq: CompletionQueue
  readonly buffer: Uint8Array
}

interface Maker {
  readonly name: string
  single(base: Base): Disposable
  chained(chain: Chain, base: Base): object
}

const GID = '127.0.0.1'

const makers: readonly Maker[] = [
  { name: 'pd', single: ({ device }) => device.pd(), chained: chain => chain.pd() },
  {
    name: 'mr',
    single: ({ pd, buffer }) => pd.register(buffer),
    chained: (chain, { pd, buffer }) => chain.register(pd, buffer),
  },
  { name: 'mw', single: ({ pd }) => pd.window(), chained: (chain, { pd }) => chain.window(pd) },
  { name: 'cq', single: ({ device }) => device.cq(), chained: chain => chain.cq() },
  { name: 'srq', single: ({ pd }) => pd.srq(), chained: (chain, { pd }) => chain.srq(pd) },
  {
    name: 'rc_qp',
    single: ({ pd, cq }) => pd.polledRcQp({ sendCq: cq }),
    chained: (chain, { pd, cq }) => chain.rcQp(pd, { sendCq: cq }),
  },
  {
    name: 'ud_qp',
    single: ({ pd, cq }) => pd.polledUdQp({ sendCq: cq }),
    chained: (chain, { pd, cq }) => chain.udQp(pd, { sendCq: cq }),
  },
  {
    name: 'ah',
    single: ({ pd }) => pd.addressHandle({ gid: GID }),
    chained: (chain, { pd }) => chain.addressHandle(pd, { gid: GID }),
  },
]

/** Objects per second. `make` creates OBJECTS objects. */
const rate = (repeats: number, make: () => Iterable<Disposable>): number => {
  const times: number[] = []
  for (let i = 0; i < repeats; i++) {
    const start = performance.now()
    const objects = make()
    times.push(performance.now() - start)
    for (const object of objects) object[Symbol.dispose]()
  }
  return (OBJECTS * 1000) / median(times)
}

const prepare = (device: Device, repeats: number, { single, chained }: Maker, stop: () => Promise<void>): Bench => {
  const pd = device.pd()
  const base: Base = { device, pd, cq: device.cq(), buffer: new Uint8Array(4096) }
  const items = Array.from({ length: OBJECTS })
  return {
    ours: () =>
      rate(repeats, () => device.chain(chain => items.map(() => chained(chain, base))) as unknown as Disposable[]),
    reference: () => rate(repeats, () => items.map(() => single(base))),
    close: async () => {
      await device.close()
      await stop()
    },
  }
}

const common = { unit: 'objects/s', better: 'higher', reference: `${OBJECTS} single calls` } as const

const onDaemon = (maker: Maker): Row => ({
  ...common,
  name: `chain ${maker.name}`,
  quantity: `${maker.name}s created by a chain of ${OBJECTS}`,
  cores: 2,
  floor: 5,
  aim: 8,
  prepare: async () => {
    const daemon = await startDaemon()
    return prepare(await open({ socket: daemon.socket }), REPEATS, maker, () => daemon.stop())
  },
})

const inProcess = (maker: Maker): Row => ({
  ...common,
  name: `chain in process ${maker.name}`,
  quantity: `${maker.name}s created in the process by a chain of ${OBJECTS}`,
  cores: 1,
  floor: 0.9,
  aim: 1,
  prepare: async () => prepare(await open({ network: createNetwork() }), REPEATS_IN_PROCESS, maker, async () => {}),
})

export const chainRows: readonly Row[] = [...makers.map(onDaemon), ...makers.map(inProcess)]
