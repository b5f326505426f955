/*
 * The drivers and formats of the conformance suite, a line for each, and why some cases are not for them.
 */

import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { rxeDriver } from '../../../src/drivers/rxe/device.ts'
import { createNetwork, open } from '../../../src/library/index.ts'
import { EfaOperation, EfaStatus } from '../../../src/spec/drivers/efa-queues.ts'
import { CompletionKind, syndromes } from '../../../src/spec/drivers/mlx5-queues.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { Classes } from '../../../src/spec/index.ts'
import { WcStatus } from '../../../src/spec/work.ts'
import { repoRoot } from '../../paths.ts'
import * as efa from '../efa/machine.ts'
import { driverMachine, ipv4 } from '../machine.ts'
import * as mlx5 from '../mlx5/machine.ts'
import type { Completion, End, Options, Pair, Subject } from './end.ts'
import { mappedEnd, statusOf } from './mapped.ts'

type Driver = Parameters<typeof driverMachine>[0]

/** Polls of `settle`: more than any case needs that does not wait for a timer. */
const POLLS = 50

const stepped = (m: ReturnType<typeof driverMachine>, a: End, b: End): Pair => ({
  a,
  b,
  taps: m.devices[0]!.device.taps,
  until: async isDone => m.runUntil(isDone),
  async settle() {
    for (let turn = 0; turn < POLLS; turn++) for (const device of m.devices) device.poll(m.time.now)
  },
})

/** `devices`: 1 if the queue pairs of a device reach only each other. */
const onMappedRings =
  (driver: Driver, devices: 1 | 2) =>
  ({ entries = 64, fault = '' }: Options): Pair => {
    const names = Array.from({ length: devices }, (_, i) => `dev${i}`)
    const m = driverMachine(driver, names, fault)
    const [a, b] = [0, devices - 1].map(i => mappedEnd(m.core, m.devices[i]!, entries))
    a!.connect(b!, ipv4(devices))
    b!.connect(a!, ipv4(1))
    return stepped(m, a!, b!)
  }

const onLibrary =
  (rings: 'compact' | 'mapped') =>
  async ({ entries = 64, fault = '' }: Options, t: { after(end: () => unknown): void }): Promise<Pair> => {
    const network = createNetwork(fault === '' ? {} : { fault })
    // mapped rings keep a slot empty
    const capacity = rings === 'mapped' ? entries - 1 : entries
    const side = async () => {
      const device = await open({ network, ...(rings === 'mapped' && { rings }) })
      t.after(() => device.close())
      const pd = device.pd()
      const bytes = new Uint8Array(1 << 16)
      const mr = pd.register(bytes, { remoteRead: true, remoteWrite: true })
      const cq = device.cq({ entries: capacity })
      const qp = pd.polledRcQp({ sendCq: cq, maxSendWr: 15, maxRecvWr: 15 })
      return { device, bytes, mr, cq, qp }
    }
    const sides = [await side(), await side()]
    const endOf = (own: (typeof sides)[number], peer: (typeof sides)[number]): End => ({
      bytes: own.bytes,
      depth: 15,
      entries: capacity,
      send: (id, offset, length) => own.qp.send(own.mr.slice(offset, length), { id }),
      write(id, offset, length, to, isRefused = false) {
        const { address, rkey } = peer.mr.remote(to, length)
        const remote = { address, length, rkey: isRefused ? (rkey ^ 0x5500) >>> 0 : rkey }
        own.qp.write(own.mr.slice(offset, length), remote, { id })
      },
      receive: (id, offset, length) => own.qp.receive(own.mr.slice(offset, length), id),
      poll(max = Number.POSITIVE_INFINITY) {
        const all: Completion[] = []
        while (all.length < max) {
          if (!own.cq.poll()) break
          const { id, status, opcodeName } = own.cq.completion
          all.push({ id, status: statusOf(status), isReceive: opcodeName.startsWith('RECV') })
        }
        return all
      },
      fail: () => void own.device.call(Classes.rc_qp, 'modify', { state: QpState.values.ERR }, own.qp as never),
      arm: () => {},
      takeEvent: () => false,
      resize: count => void own.cq.resize(rings === 'mapped' ? count - 1 : count),
      scribble: () => {},
    })
    const [a, b] = [endOf(sides[0]!, sides[1]!), endOf(sides[1]!, sides[0]!)]
    sides[0]!.qp.connect(sides[1]!.qp.endpoint)
    sides[1]!.qp.connect(sides[0]!.qp.endpoint)
    const turns = async (count: number, isDone: () => boolean): Promise<boolean> => {
      for (let turn = 0; turn < count; turn++) {
        if (isDone()) return true
        await nextTurn()
      }
      return false
    }
    return {
      a,
      b,
      async until(isDone) {
        if (!(await turns(1_000_000, isDone))) throw new Error('the devices still have work after many turns')
      },
      settle: async () => void (await turns(POLLS, () => false)),
    }
  }

const onMlx5 =
  (entryBytes: 64 | 128) =>
  ({ entries = 64, fault = '' }: Options): Pair => {
    const m = mlx5.machine(2, fault)
    const programs = [0, 1].map(i => mlx5.program(m, i, { entries, entryBytes, events: true }))
    const queues = programs.map(p => p.queuePair('rc', { sends: 16, receives: 16, sges: 1 }))
    queues[0]!.connect(queues[1]!, 1)
    queues[1]!.connect(queues[0]!, 0)
    const { REQUEST, REQUEST_ERROR, RECEIVE, RECEIVE_ERROR } = CompletionKind
    const statuses = new Map(Object.entries(syndromes).map(([status, syndrome]) => [syndrome, Number(status)]))
    const endOf = (i: number): End => {
      const [p, qp, peer] = [programs[i]!, queues[i]!, programs[1 - i]!]
      // completions name requests by their place in the queue
      const sent = new Map<number, number>()
      const received: number[] = []
      let receives = 0
      // all contexts of the machine share a core, whose counter counts the events of both ends
      let events = p.device.core.events
      return {
        bytes: p.bytes,
        depth: 16,
        entries,
        send: (id, offset, length) =>
          void sent.set(qp.post({ opcode: mlx5.SEND, data: [p.element(offset, length)] }) & 0xffff, id),
        write(id, offset, length, to, isRefused = false) {
          const rkey = isRefused ? (peer.region.rkey ^ 0x5500) >>> 0 : peer.region.rkey
          const remote = { address: peer.address + BigInt(to), rkey }
          const place = qp.post({ opcode: mlx5.RDMA_WRITE, data: [p.element(offset, length)], remote })
          sent.set(place & 0xffff, id)
        },
        receive(id, offset, length) {
          received[receives++ & 0xffff] = id
          qp.receive(p.element(offset, length))
        },
        poll: max =>
          p.poll(max).map(({ kind, counter, syndrome }): Completion => {
            const isReceive = kind === RECEIVE || kind === RECEIVE_ERROR
            const isOk = kind === REQUEST || kind === RECEIVE
            if (!isOk && !isReceive && kind !== REQUEST_ERROR) throw new Error(`completion of kind ${kind}`)
            const status = isOk ? WcStatus.values.SUCCESS : (statuses.get(syndrome) ?? -1)
            return {
              id: (isReceive ? received[counter] : sent.get(counter)) ?? -1,
              status: statusOf(status),
              isReceive,
            }
          }),
        fail: qp.fail,
        arm: () => p.arm(),
        takeEvent() {
          const isNew = p.device.core.events > events
          events = p.device.core.events
          if (isNew) p.cq.serial++
          return isNew
        },
        resize: p.resize,
        scribble(random) {
          const { view } = p.pages
          for (let at = 0; at < 1 << 16; at += 4) if (random() < 0.3) view.setUint32(at, Math.floor(random() * 2 ** 32))
        },
      }
    }
    return stepped(m, endOf(0), endOf(1))
  }

const onEfa = ({ entries = 64, fault = '' }: Options): Pair => {
  const m = efa.machine(2, fault)
  const programs = [0, 1].map(i => efa.program(m, i, { entries, channel: true }))
  const { OK, FLUSHED, BAD_ADDRESS } = EfaStatus
  const statuses = new Map<number, Completion['status']>([
    [OK, 'ok'],
    [FLUSHED, 'flushed'],
    [BAD_ADDRESS, 'access'],
  ])
  // RDMA needs a handle of the initiator too
  const handles = programs.map((p, i) => p.handleOf(1 - i))
  const endOf = (i: number): End => {
    const [p, peer, ah] = [programs[i]!, programs[1 - i]!, handles[i]!]
    let waiting: Completion[] = []
    return {
      bytes: p.bytes,
      depth: 256,
      entries,
      send: (id, offset, length) => p.post({ id, operation: EfaOperation.SEND, ah, qpn: peer.qpn, offset, length }),
      write(id, offset, length, to, isRefused = false) {
        const rkey = isRefused ? (peer.region.rkey ^ 0x5500) >>> 0 : peer.region.rkey
        const remote = { address: peer.address + to, rkey }
        p.post({ id, operation: EfaOperation.RDMA_WRITE, ah, qpn: peer.qpn, offset, length, remote })
      },
      receive: p.receive,
      poll(max = Number.POSITIVE_INFINITY) {
        waiting.push(
          ...p.poll().map(({ id, status, isSend }) => ({
            ...{ id, isReceive: !isSend },
            status: statuses.get(status) ?? ('failed' as const),
          })),
        )
        const taken = waiting.slice(0, max)
        waiting = waiting.slice(max)
        return taken
      },
      fail: () => p.modify({ state: QpState.values.ERR }),
      arm: p.arm,
      takeEvent: p.takeEvent,
      resize: () => {},
      scribble(random) {
        p.ringCq(Math.floor(random() * 2 ** 32))
        p.ringReceives(Math.floor(random() * 2 ** 16))
      },
    }
  }
  return stepped(m, endOf(0), endOf(1))
}

const example = async (name: string): Promise<Driver> =>
  ((await import(join(repoRoot, 'examples/drivers', name))) as { driver: Driver }).driver

const library = {
  taps: 'the taps are of the device: rxe runs with them',
  events: 'the library arms itself when a program awaits: test/library/verbs/cq',
  scribble: 'the rings are the memory of the program that has the device: test/drivers/rxe/failures',
}

export const subjects: readonly Subject[] = [
  { name: 'rxe', open: onMappedRings(rxeDriver as Driver, 2) },
  { name: 'the library, compact rings', open: onLibrary('compact'), lacks: library },
  { name: 'the library, mapped rings', open: onLibrary('mapped'), lacks: library },
  { name: 'mlx5', open: onMlx5(64) },
  { name: 'mlx5, completions of 128 bytes', open: onMlx5(128) },
  {
    name: 'efa',
    open: onEfa,
    lacks: {
      order: 'SRD delivers and completes in any order',
      connection: 'a queue pair of SRD has no connection that a refused request could end',
      resize: 'libefa does not resize completion queues',
    },
  },
  {
    name: 'examples/drivers/loop.mjs',
    open: onMappedRings(await example('loop.mjs'), 1),
    lacks: {
      faults: 'there are no packets',
      resize: 'the class has no modify',
    },
  },
]
