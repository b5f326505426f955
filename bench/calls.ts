/*
 * Rows "calls": the cost of calls on a device in this process (docs/reference/performance.md). Address handles are
 * created and destroyed by calls and by the library. Queue pairs get to RTS by one call (R7) or four, compared with TCP
 * connections in Node.
 */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { createNetwork, open } from '../src/library/index.ts'
import { localCarrier } from '../src/library/network/carrier.ts'
import type { LocalNetwork } from '../src/library/network/contract.ts'
import { Ah } from '../src/spec/classes/ah.ts'
import { Cq } from '../src/spec/classes/cq.ts'
import { Pd } from '../src/spec/classes/pd.ts'
import { RcQp } from '../src/spec/classes/qp/rc_qp.ts'
import { Mtu, QpState } from '../src/spec/enums.ts'
import type { In } from '../src/spec/schema/schema.ts'
import { parseAddress } from '../src/transport/wire/address.ts'
import { type Bench, median, type Row } from './harness/harness.ts'
import { type Body, perCall } from './loops.ts'

const { INIT, RTR, RTS } = QpState.values
const ADDRESS = '10.0.0.1'
const dgid = parseAddress(ADDRESS) as Uint8Array
/** The address of the device itself, at GID index 1. */
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

/** A device with a protection domain, without objects of the library. */
const openDevice = () => {
  const carrier = localCarrier(createNetwork() as LocalNetwork, 'calls', ADDRESS)
  const { object: pd } = carrier.call(Pd, 'create', 0, {})
  return { carrier, pd }
}

const ahByCall = (): Bench => {
  const { carrier, pd } = openDevice()
  const args = { pd, address, userHandle: 0n }
  const body: Body = times => {
    for (let i = 0; i < times; i++) carrier.call(Ah, 'destroy', carrier.call(Ah, 'create', 0, args).object, {})
    return times
  }
  return { ours: perCall(body), close: () => carrier.close() }
}

const ahByLibrary = async (): Promise<Bench> => {
  const device = await open({ network: createNetwork() })
  const pd = device.pd()
  const destination = { gid: device.address }
  const body: Body = times => {
    for (let i = 0; i < times; i++) pd.addressHandle(destination).close()
    return times
  }
  return { ours: perCall(body), close: () => device.close() }
}

// ---- create → RTS ----

/** Simultaneous queue pairs of a measurement, and its repetitions. */
const PAIRS = 1000
const REPEATS = 5
/** TCP connections of a measurement, without repetitions: they are slower. */
const CONNECTIONS = 200

type Create = In<typeof RcQp.methods.create>

/** Attributes of the state changes. Nothing is sent: the peer does not exist. */
const toInit = { pkeyIndex: 0, port: 1, accessFlags: 0 }
const toRtr = {
  address,
  pathMtu: Mtu.values.MTU_1024,
  destQpn: 17,
  rqPsn: 0,
  maxDestRdAtomic: 16,
  minRnrTimer: 12,
}
const toRts = { sqPsn: 0, timeout: 14, retryCnt: 7, rnrRetry: 7, maxRdAtomic: 16 }

const readyPairs = (isOneCall: boolean): Bench => {
  const { carrier, pd } = openDevice()
  const { object: cq } = carrier.call(Cq, 'create', 0, { cqe: 16, userHandle: 0n, compVector: 0 })
  const cap = { maxSendWr: 16, maxRecvWr: 16, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
  const resetArgs: Create = { pd, sendCq: cq, recvCq: cq, cap, userHandle: 0n }
  const readyArgs: Create = { ...resetArgs, state: RTS, ...toInit, ...toRtr, ...toRts }
  const modify = (qp: number, args: In<typeof RcQp.methods.modify>): void => {
    carrier.call(RcQp, 'modify', qp, args)
  }
  const createReady = (): number => {
    if (isOneCall) return carrier.call(RcQp, 'create', 0, readyArgs).object
    const { object: qp } = carrier.call(RcQp, 'create', 0, resetArgs)
    modify(qp, { state: INIT, ...toInit })
    modify(qp, { state: RTR, ...toRtr })
    modify(qp, { state: RTS, ...toRts })
    return qp
  }
  const ours = (): number => {
    const times: number[] = []
    for (let i = 0; i < REPEATS; i++) {
      const start = performance.now()
      const qps = Array.from({ length: PAIRS }, createReady)
      times.push(performance.now() - start)
      for (const qp of qps) carrier.call(RcQp, 'destroy', qp, {})
    }
    return (PAIRS * 1000) / median(times)
  }
  return { ours, close: () => carrier.close() }
}

/** TCP connections per second, with both ends in this process. */
const tcpConnections = async () => {
  const accepted: Socket[] = []
  const server = createServer(socket => accepted.push(socket)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const reference = async (): Promise<number> => {
    const start = performance.now()
    const clients = Array.from({ length: CONNECTIONS }, () => connect(port, '127.0.0.1'))
    await Promise.all(clients.map(socket => once(socket, 'connect')))
    while (accepted.length < CONNECTIONS) await once(server, 'connection')
    const rate = (CONNECTIONS * 1000) / (performance.now() - start)
    const sockets = [...clients, ...accepted.splice(0)]
    const closed = sockets.map(socket => once(socket, 'close'))
    for (const socket of sockets) socket.destroy()
    await Promise.all(closed)
    return rate
  }
  return { reference, close: () => server.close() }
}

const rtsRow = (name: string, quantity: string, isOneCall: boolean): Row => ({
  name,
  quantity,
  unit: 'pairs/s',
  better: 'higher',
  cores: 1,
  reference: 'TCP connections in Node',
  floor: 10,
  aim: 30,
  async prepare() {
    const pairs = readyPairs(isOneCall)
    const tcp = await tcpConnections()
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
  reference: 'none',
  floor: 2000,
  aim: 1000,
  prepare,
})

export const callRows: readonly Row[] = [
  ahRow('calls ah', 'an address handle created and destroyed', ahByCall),
  ahRow('calls ah library', 'the same as an object of the library', ahByLibrary),
  rtsRow('calls rts', 'queue pairs created and brought to RTS by one call', true),
  rtsRow('calls rts four', 'queue pairs created and brought to RTS by four calls', false),
]
