/*
 * Soft devices on a memory link in this process, with the test's own clock (`machine`), and programs that use them
 * (`program`).
 */
import assert from 'node:assert/strict'
import { type Identity, identify } from '../../../src/core/devices/identity.ts'
import {
  attachSink,
  type Caller,
  type Context,
  type Core,
  closeContext,
  createCore,
  createEventQueue,
  createLocalSpace,
  type EventQueue,
  invokeNow,
  type LocalSpace,
  openContext,
  stat,
} from '../../../src/core/index.ts'
import { createRxeDevice, type RxeDevice } from '../../../src/drivers/rxe/device.ts'
import type { Torment } from '../../../src/drivers/soft/torment/torment.ts'
import { parseFaults } from '../../../src/faults/rules.ts'
import { Cq } from '../../../src/spec/classes/cq.ts'
import { AsyncFd } from '../../../src/spec/classes/events/async_fd.ts'
import { CompChannel } from '../../../src/spec/classes/events/comp_channel.ts'
import { Mr } from '../../../src/spec/classes/mr.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { AccessFlags, Mtu, QpState } from '../../../src/spec/enums.ts'
import type { In } from '../../../src/spec/schema/schema.ts'
import { type FaultPort, withFaults } from '../../../src/transport/phy/faults/layer.ts'
import type { Path } from '../../../src/transport/phy/memory/port.ts'
import { createMemorySwitch, type MemorySwitch, memorySwitchBytes } from '../../../src/transport/phy/memory.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { type MappedRing, mapRing, type TestRings, testRings } from './provider.ts'

export const ipv4 = (...octets: number[]): Uint8Array =>
  Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...octets])
export const ipv6 = (last: number): Uint8Array => Uint8Array.from([0xfd, ...new Array(14).fill(0), last])

export interface Machine {
  readonly core: Core
  readonly link: MemorySwitch
  readonly devices: readonly RxeDevice[]
  /** The devices' ports, with fault layers. */
  readonly ports: readonly FaultPort[]
  /** The time in µs. */
  now: number
  /** Polls all devices until none has work, without advancing time. Throws if that does not end. */
  settle(): void
  /** Advances time to the next timer of any device, and settles; false if no timer is set. */
  tick(): boolean
}

interface MachineOptions {
  /** An argument of `--fault`. */
  readonly fault?: string
  readonly path?: Path
  /** If it is given, the ports are ports to a network (transport/phy/port.ts). */
  readonly windowBytes?: number | undefined
  readonly torment?: Torment | undefined
  /** By device: its own torment, instead of `torment`, as if each device were in a daemon of its own. */
  readonly torments?: readonly (Torment | undefined)[] | undefined
}

/**
 * `count` devices: rxe0@127.0.0.1, rxe1@127.0.0.2, …, with fd00::1, fd00::2, … as GID 2.
 * With path 'packets' all messages are packets with ICRCs; with 'direct' they may be copied (transport/phy/memory.ts).
 */
export const machine = (
  count = 2,
  { fault = '', path = 'packets', windowBytes, torment, torments }: MachineOptions = {},
): Machine => {
  const core = createCore()
  const [runs, smallRuns] = [8, 64]
  const arena = plainArena(memorySwitchBytes(runs, smallRuns))
  const icrc = path === 'packets' ? 'always' : 'demand'
  const link = createMemorySwitch({ arena, runs, smallRuns, path, icrc })
  const ports: FaultPort[] = []
  const self: Machine = {
    core,
    link,
    ports,
    now: 0,
    devices: Array.from({ length: count }, (_, i) => {
      const plain = identify(ipv4(127, 0, 0, i + 1), { name: 'lo', index: 1 })
      const identity: Identity = { ...plain, gids: [...plain.gids, ipv6(i + 1)] }
      const attached = Object.assign(link.attach(), windowBytes === undefined ? {} : { windowBytes })
      const port = withFaults(attached, `rxe${i}`, parseFaults(fault))
      ports.push(port)
      const name = `rxe${i}`
      const ownTorment = torments?.[i] ?? torment
      return createRxeDevice(core, {
        name,
        identity,
        port: ownTorment?.port(port, name) ?? port,
        now: () => self.now,
        torment: ownTorment,
      })
    }),
    settle() {
      for (let turn = 0; turn < 100_000; turn++) {
        let progress = false
        for (const device of self.devices) progress = device.poll(self.now) || progress
        if (!progress) return
      }
      assert.fail('the devices still have work after many polls')
    },
    tick() {
      const due = Math.min(...self.devices.map(device => device.nextTimeout()))
      if (due === Number.POSITIVE_INFINITY) return false
      self.now = Math.max(self.now, due)
      self.settle()
      return true
    },
  }
  return self
}

/** A program in this process. */
export interface Program {
  readonly machine: Machine
  readonly rxe: RxeDevice
  readonly context: Context
  readonly caller: Caller
  readonly space: LocalSpace
  readonly rings: TestRings
  /** Core's number of each descriptor, by the program's number. */
  readonly fds: Map<number, number>
  /** Asynchronous events of the context. */
  readonly async: EventQueue
  /** Handle of a protection domain. */
  readonly pd: number
  close(): void
}

/** Opens device number `device`. Calls read zeros at every address of the program. */
export const program = (m: Machine, device = 0): Program => {
  const rxe = m.devices[device]
  const context = openContext(rxe.device, { isOpened: true })
  const rings = testRings()
  context.state = { rings }
  const space = createLocalSpace()
  const fds = new Map<number, number>()
  const caller: Caller = {
    memory: space,
    copyIn: (_address, length) => new Uint8Array(length),
    copyOut: () => {},
    descriptor: fd => fds.get(fd),
    // Descriptors from 0x100 on are open files.
    file: fd => (fd < 0x100 ? undefined : `file ${fd}`),
  }
  const asyncFd = invokeNow(context, AsyncFd, 'create', 0, {}, caller).descriptors![0].object
  fds.set(asyncFd, asyncFd)
  const async = createEventQueue()
  attachSink(m.core.descriptors.get(asyncFd)!, async)
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object!
  return {
    machine: m,
    rxe,
    context,
    caller,
    space,
    rings,
    fds,
    async,
    pd,
    close: () => closeContext(context),
  }
}

/** Creates a completion channel: number and event queue of its descriptor. */
export const makeChannel = (p: Program): { fd: number; queue: EventQueue } => {
  const fd = invokeNow(p.context, CompChannel, 'create', 0, {}, p.caller).descriptors![0].object
  p.fds.set(fd, fd)
  const queue = createEventQueue()
  attachSink(p.machine.core.descriptors.get(fd)!, queue)
  return { fd, queue }
}

export interface TestCq {
  readonly handle: number
  readonly cqe: number
  ring: MappedRing
}
export const makeCq = (p: Program, cqe = 15, channel?: number, userHandle = 0n, flags = 0): TestCq => {
  const args = { cqe, userHandle, compVector: 0, flags, ...(channel !== undefined && { channel }) }
  const { object, out } = invokeNow(p.context, Cq, 'create', 0, args, p.caller)
  const { queue } = out as unknown as { queue: { offset: bigint; size: number } }
  const chunk = p.rings.at(queue.offset)
  assert.equal(queue.size, chunk.length)
  return { handle: object!, cqe: out.cqe, ring: mapRing(chunk) }
}

export type Cap = In<typeof RcQp.methods.create>['cap']
export const cap = (overrides: Partial<Cap> = {}): Cap => ({
  maxSendWr: 15,
  maxRecvWr: 15,
  maxSendSge: 2,
  maxRecvSge: 2,
  maxInlineData: 64,
  ...overrides,
})

export interface TestQp {
  readonly program: Program
  readonly handle: number
  readonly qpn: number
  readonly cap: Cap
  readonly send: MappedRing
  readonly receive: MappedRing
}

export const makeQp = (
  p: Program,
  cq: TestCq,
  overrides: { cap?: Partial<Cap>; flags?: number; recvCq?: TestCq; userHandle?: bigint } = {},
): TestQp => {
  const { object, out } = invokeNow(
    p.context,
    RcQp,
    'create',
    0,
    {
      pd: p.pd,
      sendCq: cq.handle,
      recvCq: (overrides.recvCq ?? cq).handle,
      cap: cap(overrides.cap),
      userHandle: overrides.userHandle ?? 0n,
      ...(overrides.flags !== undefined && { flags: overrides.flags }),
    },
    p.caller,
  )
  const queues = out as unknown as Record<'sendQueue' | 'recvQueue', { offset: bigint; size: number }>
  return {
    program: p,
    handle: object!,
    qpn: out.qpNum,
    cap: out.cap,
    send: mapRing(p.rings.at(queues.sendQueue.offset)),
    receive: mapRing(p.rings.at(queues.recvQueue.offset)),
  }
}

export type Modify = In<typeof RcQp.methods.modify>
export const modify = (qp: TestQp, args: Modify): void => {
  const { context, caller } = qp.program
  invokeNow(context, RcQp, 'modify', qp.handle, args, caller)
}
export const query = (qp: TestQp) => invokeNow(qp.program.context, RcQp, 'query', qp.handle, {}, qp.program.caller).out

export const Qps = QpState.values

const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC } = AccessFlags.values
export const ALL_ACCESS = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC

export const toInit = (overrides: Modify = {}): Modify => ({
  state: Qps.INIT,
  pkeyIndex: 0,
  port: 1,
  accessFlags: ALL_ACCESS,
  ...overrides,
})
export const path = (dgid: Uint8Array, overrides: Partial<NonNullable<Modify['address']>> = {}) => ({
  dgid,
  flowLabel: 0,
  sgidIndex: 1,
  hopLimit: 1,
  trafficClass: 0,
  sl: 0,
  staticRate: 0,
  isGlobal: 1,
  port: 1,
  ...overrides,
})
export const toRtr = (destQpn: number, dgid: Uint8Array, overrides: Modify = {}): Modify => ({
  state: Qps.RTR,
  address: path(dgid),
  pathMtu: Mtu.values.MTU_1024,
  destQpn,
  rqPsn: 100,
  maxDestRdAtomic: 4,
  minRnrTimer: 12,
  ...overrides,
})
export const toRts = (overrides: Modify = {}): Modify => ({
  state: Qps.RTS,
  timeout: 14,
  retryCnt: 7,
  rnrRetry: 7,
  sqPsn: 100,
  maxRdAtomic: 4,
  ...overrides,
})

/** Moves two RC queue pairs from RESET to RTS. `rtr` and `rts` override attributes of the transitions. */
export const connectQps = (a: TestQp, b: TestQp, rtr: Modify = {}, rts: Modify = {}): void => {
  for (const [qp, peer] of [
    [a, b],
    [b, a],
  ]) {
    modify(qp, toInit())
    modify(qp, toRtr(peer.qpn, peer.program.rxe.device.state.identity.gids[1], rtr))
    modify(qp, toRts(rts))
  }
}

/** A memory region. `address` is that of `bytes` in the program. */
export interface Region {
  readonly handle: number
  readonly bytes: Uint8Array
  readonly address: number
  readonly lkey: number
  readonly rkey: number
}
export const register = (p: Program, size: number, access = ALL_ACCESS): Region => {
  const bytes = new Uint8Array(size)
  const address = p.space.add(bytes)
  const start = BigInt(address)
  const args = { pd: p.pd, start, length: BigInt(size), iova: start, access }
  const { object, out } = invokeNow(p.context, Mr, 'create', 0, args, p.caller)
  return { handle: object!, bytes, address, lkey: out.lkey, rkey: out.rkey }
}

/** Checks that closed contexts left nothing. */
export const assertNothingLeft = (m: Machine, programs: readonly Program[] = []): void => {
  m.settle()
  const { objects, descriptors, contexts, faults, waiting } = stat(m.core)
  assert.deepEqual(
    { objects, descriptors, contexts, faults, waiting },
    {
      objects: 0,
      descriptors: 0,
      contexts: 0,
      faults: 0,
      waiting: 0,
    },
  )
  for (const {
    device,
    device: { state },
  } of m.devices) {
    assert.equal(device.memory.liveKeys, 0, 'memory regions')
    assert.equal(state.cqs.size(), 0, 'completion queue slots')
    assert.ok(
      state.qps.every(qp => qp === undefined),
      'queue pairs',
    )
    assert.ok(
      state.queues.every(queues => queues === undefined),
      'queues of queue pairs',
    )
    assert.equal(state.qpns.count(), 0, 'QP numbers')
  }
  for (const { rings } of programs) assert.equal(rings.live.size, 0, 'rings')
  const { runs, smallRuns, flows } = m.link.stat()
  assert.deepEqual({ runs, smallRuns, flows }, { runs: 0, smallRuns: 0, flows: 0 })
}
