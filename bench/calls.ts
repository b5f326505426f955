/*
 * Rows "calls": the cost of calls on a device in this process (docs/reference/performance.md). Address handles are
 * created and destroyed by plain calls and by the library, whose objects cost more; queue pairs are brought to ready to
 * send by one call (R7) and by four, compared with TCP connections in Node.
 */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { Ah } from '../src/spec/classes/ah.ts'
import { Cq } from '../src/spec/classes/cq.ts'
import { Pd } from '../src/spec/classes/pd.ts'
import { RcQp } from '../src/spec/classes/qp/rc_qp.ts'
import { QpState } from '../src/spec/enums.ts'
import type { In } from '../src/spec/schema/schema.ts'
import { createNetwork, open } from '../src/verbs/index.ts'
import { localCarrier } from '../src/verbs/local/carrier.ts'
import { parseAddress } from '../src/wire/address.ts'
import { type Bench, median, type Row } from './harness.ts'
import { type Body, perCall } from './loops.ts'

const { INIT, RTR, RTS } = QpState.values
const ADDRESS = '10.0.0.1'
const dgid = parseAddress(ADDRESS) as Uint8Array
const address = {
  dgid,
  sgidIndex: 1,
  port: 1,
  isGlobal: 1,
  hopLimit: 64,
  trafficClass: 0,
  flowLabel: 0,
  sl: 0,
  staticRate: 0,
}

/** A device without the library's objects. */
const calls = () => {
  const carrier = localCarrier(createNetwork(), 'calls', ADDRESS)
  const { object: pd } = carrier.call(Pd, 'create', 0, {})
  return { carrier, pd }
}

const byCall = (): Bench => {
  const { carrier, pd } = calls()
  const args = { pd, address, userHandle: 0n }
  const body: Body = times => {
    for (let i = 0; i < times; i++) carrier.call(Ah, 'destroy', carrier.call(Ah, 'create', 0, args).object, {})
    return times
  }
  return { ours: perCall(body), close: () => carrier.close() }
}

const byLibrary = async (): Promise<Bench> => {
  const device = await open({ network: createNetwork() })
  const pd = device.pd()
  const to = { gid: device.address }
  const body: Body = times => {
    for (let i = 0; i < times; i++) pd.addressHandle(to).close()
    return times
  }
  return { ours: perCall(body), close: () => device.close() }
}

// ---- create → RTS ----

/** Simultaneous queue pairs, and repetitions of a measurement. */
const PAIRS = 1000
const REPEATS = 5
/** Repetitions for TCP, which is slower. */
const CONNECTIONS = 200

type Create = In<typeof RcQp.methods.create>

const toInit = { pkeyIndex: 0, port: 1, accessFlags: 0 }
const toRtr = {
  address,
  pathMtu: 3,
  destQpn: 17,
  rqPsn: 0,
  maxDestRdAtomic: 16,
  minRnrTimer: 12,
}
const toRts = { sqPsn: 0, timeout: 14, retryCnt: 7, rnrRetry: 7, maxRdAtomic: 16 }

const readyPairs = (isOneCall: boolean): Bench => {
  const { carrier, pd } = calls()
  const { object: cq } = carrier.call(Cq, 'create', 0, { cqe: 16, userHandle: 0n, compVector: 0 })
  const cap = { maxSendWr: 16, maxRecvWr: 16, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
  const plain: Create = { pd, sendCq: cq, recvCq: cq, cap, userHandle: 0n }
  const ready: Create = { ...plain, state: RTS, ...toInit, ...toRtr, ...toRts }
  const step = (qp: number, args: In<typeof RcQp.methods.modify>): void => {
    carrier.call(RcQp, 'modify', qp, args)
  }
  const one = (): number => {
    if (isOneCall) return carrier.call(RcQp, 'create', 0, ready).object
    const { object: qp } = carrier.call(RcQp, 'create', 0, plain)
    step(qp, { state: INIT, ...toInit })
    step(qp, { state: RTR, ...toRtr })
    step(qp, { state: RTS, ...toRts })
    return qp
  }
  const ours = (): number => {
    const times: number[] = []
    for (let i = 0; i < REPEATS; i++) {
      const start = performance.now()
      const made = Array.from({ length: PAIRS }, one)
      times.push(performance.now() - start)
      for (const qp of made) carrier.call(RcQp, 'destroy', qp, {})
    }
    return (PAIRS * 1000) / median(times)
  }
  return { ours, close: () => carrier.close() }
}

/** Connections of TCP, both ends, per second. */
const tcpPairs = async () => {
  const ends: Socket[] = []
  const server = createServer(socket => ends.push(socket)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const reference = async (): Promise<number> => {
    const start = performance.now()
    const near = Array.from({ length: CONNECTIONS }, () => connect(port, '127.0.0.1'))
    await Promise.all(near.map(socket => once(socket, 'connect')))
    while (ends.length < CONNECTIONS) await once(server, 'connection')
    const rate = (CONNECTIONS * 1000) / (performance.now() - start)
    const all = [...near, ...ends.splice(0)]
    const closed = all.map(socket => once(socket, 'close'))
    for (const socket of all) socket.destroy()
    await Promise.all(closed)
    return rate
  }
  return { reference: reference, close: () => server.close() }
}

const rtsRow = (name: string, quantity: string, isOneCall: boolean): Row => ({
  name,
  quantity,
  unit: 'pairs/s',
  better: 'higher',
  cores: 1,
  reference: 'connections of TCP in Node',
  floor: 10,
  aim: 30,
  async prepare() {
    const pairs = readyPairs(isOneCall)
    const tcp = await tcpPairs()
    const close = async (): Promise<void> => {
      await pairs.close?.()
      tcp.close()
    }
    return { ...pairs, reference: tcp.reference, close }
  },
})

const ahRow = (name: string, quantity: string, prepare: Row['prepare']): Row => ({
  name,
  quantity,
  unit: 'ns',
  better: 'lower',
  cores: 1,
  reference: 'its limit',
  floor: 2000,
  aim: 1000,
  prepare,
})

export const callRows: readonly Row[] = [
  ahRow('calls ah', 'an address handle created and destroyed', byCall),
  ahRow('calls ah library', 'the same as an object of the library', byLibrary),
  rtsRow('calls rts', 'queue pairs created and brought to RTS by one call', true),
  rtsRow('calls rts four', 'queue pairs created and brought to RTS by four calls', false),
]
