/*
 * The drivers and formats of the conformance suite, a line for each, and why some cases are not for them.
 */

import { join } from 'node:path'
import type { NetworkDevice } from '../../../src/core/driver-contract.ts'
import { mlx5Driver } from '../../../src/drivers/mlx5/device.ts'
import { rxeDriver } from '../../../src/drivers/rxe/device.ts'
import { createNetwork, open } from '../../../src/library/index.ts'
import type { LocalNetwork } from '../../../src/library/network/contract.ts'
import { EfaOperation, EfaStatus } from '../../../src/spec/drivers/efa-queues.ts'
import { CompletionKind, syndromes } from '../../../src/spec/drivers/mlx5-queues.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { Classes } from '../../../src/spec/index.ts'
import { WcStatus } from '../../../src/spec/work.ts'
import { repoRoot } from '../../paths.ts'
import * as efa from '../efa/machine.ts'
import { driverMachine, ipv4 } from '../machine.ts'
import * as mlx5 from '../mlx5/machine.ts'
import { wirePair } from './connected.ts'
import type { Completion, End, Options, Pair, Subject } from './end.ts'
import { mappedEnd, statusOf } from './mapped.ts'
import { listenTo, RUNS, stepped, tormentOf } from './stepped.ts'

/** Longest time between two looks, milliseconds of virtual time. */
const MAX_LOOK = 100

type Driver = Parameters<typeof driverMachine>[0]

/** `devices`: 1 if the queue pairs of a device reach only each other. */
const onMappedRings =
  (driver: Driver, devices: 1 | 2) =>
  (options: Options): Pair => {
    const names = Array.from({ length: devices }, (_, i) => `dev${i}`)
    const [torment, acted] = tormentOf(options)
    const m = driverMachine(driver, names, options.fault ?? '', { torment, runs: RUNS })
    const [a, b] = [0, devices - 1].map(i => mappedEnd(m.core, m.devices[i]!, options))
    a!.connect(b!, ipv4(devices))
    b!.connect(a!, ipv4(1))
    return stepped(m, acted, [a!, b!])
  }

const onLibrary =
  (rings: 'compact' | 'mapped') =>
  async (
    { entries = 64, fault = '', torment, shared }: Options,
    t: { after(end: () => unknown): void },
  ): Promise<Pair> => {
    const options = {
      clock: 'virtual' as const,
      ...(fault !== '' && { fault }),
      ...(torment !== undefined && { torment }),
    }
    const network = createNetwork(options) as LocalNetwork
    const acted = listenTo(network.decisions)
    // mapped rings keep a slot empty
    const capacity = rings === 'mapped' ? entries - 1 : entries
    const side = async () => {
      const device = await open({ network, ...(rings === 'mapped' && { rings }) })
      t.after(() => device.close())
      const pd = device.pd()
      const bytes = new Uint8Array(1 << 16)
      const mr = pd.register(bytes, { remoteRead: true, remoteWrite: true, relaxedOrdering: true })
      const cq = device.cq({ entries: capacity })
      const srq = shared && pd.srq({ maxWr: 15 })
      const queuePair = () => pd.polledRcQp({ sendCq: cq, maxSendWr: 15, ...(srq ? { srq } : { maxRecvWr: 15 }) })
      return { device, bytes, mr, cq, srq, qp: queuePair(), second: shared && queuePair() }
    }
    const sides = [await side(), await side()]
    type Side = (typeof sides)[number]
    const secondOf = ({ device, mr }: Side, qp: Side['qp']) => ({
      send: (id: number, offset: number, length: number) => qp.send(mr.slice(offset, length), { id }),
      fail: () => void device.call(Classes.rc_qp, 'modify', { state: QpState.values.ERR }, qp as never),
    })
    const endOf = (own: Side, peer: Side): End => ({
      ...secondOf(own, own.qp),
      qpn: own.qp.qpn,
      bytes: own.bytes,
      depth: 15,
      receives: 15,
      entries: capacity,
      write(id, offset, length, to, isRefused = false) {
        const { address, rkey } = peer.mr.remote(to, length)
        const remote = { address, length, rkey: isRefused ? (rkey ^ 0x5500) >>> 0 : rkey }
        own.qp.write(own.mr.slice(offset, length), remote, { id })
      },
      read: (id, offset, length, from) =>
        own.qp.read(own.mr.slice(offset, length), peer.mr.remote(from, length), { id }),
      receive: (id, offset, length) => (own.srq ?? own.qp).receive(own.mr.slice(offset, length), id),
      poll(max = Number.POSITIVE_INFINITY) {
        const all: Completion[] = []
        while (all.length < max) {
          if (!own.cq.poll()) break
          const { id, status, opcodeName } = own.cq.completion
          all.push({ id, status: statusOf(status), isReceive: opcodeName.startsWith('RECV') })
        }
        return all
      },
      arm: () => {},
      takeEvent: () => false,
      asyncEvents: () => [],
      resize: count => void own.cq.resize(rings === 'mapped' ? count - 1 : count),
      scribble: () => {},
      ...(own.second && { second: secondOf(own, own.second) }),
    })
    const [one, other] = [sides[0]!, sides[1]!]
    for (const [own, peer] of [
      [one, other],
      [other, one],
    ] as const) {
      own.qp.connect(peer.qp.endpoint)
      if (peer.second) own.second?.connect(peer.second.endpoint)
    }
    const deviceOf = ({ device }: Side): NetworkDevice => network.softDevice(device.name)!.network
    return {
      a: endOf(one, other),
      b: endOf(other, one),
      devices: [deviceOf(one), deviceOf(other)],
      acted,
      async until(isDone) {
        for (let time = 0.02; !isDone(); time = Math.min(time * 1.5, MAX_LOOK)) await network.sleep(time)
      },
      settle: () => network.sleep(1),
      setFaults: rules => network.setFaults(rules),
    }
  }

const onMlx5 =
  (entryBytes: 64 | 128, commands = false) =>
  (options: Options): Pair => {
    const { entries = 64, fault = '', shared } = options
    const [torment, acted] = tormentOf(options)
    const m = driverMachine(mlx5Driver, ['mlx5_0', 'mlx5_1'], fault, { torment, runs: RUNS })
    const programs = [0, 1].map(i => mlx5.program(m, i, { entries, entryBytes, events: true, commands }))
    const sides = programs.map(p => {
      const srq = shared && p.sharedReceives(16)
      const queuePair = () =>
        p.queuePair('rc', { sends: 16, receives: 16, sges: 1, inline: 64, ...(srq && { srq: srq.object }) })
      return { p, srq, qp: queuePair(), second: shared && queuePair() }
    })
    const { REQUEST, REQUEST_ERROR, RECEIVE, RECEIVE_ERROR } = CompletionKind
    const statuses = new Map(Object.entries(syndromes).map(([status, syndrome]) => [syndrome, Number(status)]))
    const endOf = (i: number): End => {
      const [{ p, srq, qp, second }, { p: peer }] = [sides[i]!, sides[1 - i]!]
      // completions name requests by their place in the queue
      const sent = new Map<number, number>()
      const received: number[] = []
      const keyOf = (uidx: number, place: number): number => uidx * 0x1_0000 + (place & 0xffff)
      const post = (by: typeof qp, id: number, request: mlx5.Request): void =>
        void sent.set(keyOf(by.uidx, by.post(request)), id)
      const secondOf = (by: typeof qp) => ({
        send: (id: number, offset: number, length: number) =>
          post(by, id, { opcode: mlx5.SEND, data: [p.element(offset, length)] }),
        fail: by.fail,
      })
      let receives = 0
      // all contexts of the machine share a core, whose counter counts the events of both ends
      let events = p.device.core.events
      return {
        ...secondOf(qp),
        qpn: qp.qpn,
        bytes: p.bytes,
        depth: 16,
        receives: srq ? 15 : 16,
        entries,
        write(id, offset, length, to, isRefused = false) {
          const rkey = isRefused ? (peer.region.rkey ^ 0x5500) >>> 0 : peer.region.rkey
          const remote = { address: peer.address + BigInt(to), rkey }
          post(qp, id, { opcode: mlx5.RDMA_WRITE, data: [p.element(offset, length)], remote })
        },
        read(id, offset, length, from) {
          const remote = { address: peer.address + BigInt(from), rkey: peer.region.rkey }
          post(qp, id, { opcode: mlx5.RDMA_READ, data: [p.element(offset, length)], remote })
        },
        receive(id, offset, length) {
          if (srq) received[srq.receive(p.element(offset, length))] = id
          else {
            received[receives++ & 0xffff] = id
            qp.receive(p.element(offset, length))
          }
        },
        poll: max =>
          p.poll(max).map(({ kind, counter, syndrome, uidx }): Completion => {
            const isReceive = kind === RECEIVE || kind === RECEIVE_ERROR
            const isOk = kind === REQUEST || kind === RECEIVE
            if (!isOk && !isReceive && kind !== REQUEST_ERROR) throw new Error(`completion of kind ${kind}`)
            const status = isOk ? WcStatus.values.SUCCESS : (statuses.get(syndrome) ?? -1)
            if (isReceive && srq) srq.free(counter)
            return {
              id: (isReceive ? received[counter] : sent.get(keyOf(uidx, counter))) ?? -1,
              status: statusOf(status),
              isReceive,
            }
          }),
        arm: () => p.arm(),
        takeEvent() {
          const isNew = p.device.core.events > events
          events = p.device.core.events
          if (isNew) p.cq.serial++
          return isNew
        },
        asyncEvents: p.asyncEvents,
        resize: p.resize,
        scribble(random) {
          const { view } = p.pages
          for (let at = 0; at < 1 << 16; at += 4) if (random() < 0.3) view.setUint32(at, Math.floor(random() * 2 ** 32))
        },
        ...(second && { second: secondOf(second) }),
      }
    }
    for (const [i, { qp, second }] of sides.entries()) {
      const peer = sides[1 - i]!
      qp.connect(peer.qp, 1 - i)
      if (second && peer.second) second.connect(peer.second, 1 - i)
    }
    return stepped(m, acted, [endOf(0), endOf(1)])
  }

const onEfa = (options: Options): Pair => {
  const { entries = 64, fault = '' } = options
  const [torment, acted] = tormentOf(options)
  const m = efa.machine(2, fault, { torment, runs: RUNS })
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
    const post = (operation: number, id: number, offset: number, length: number, remote?: efa.Remote): void =>
      p.post({ id, operation, ah, qpn: peer.qpn, offset, length, ...(remote && { remote }) })
    const remoteOf = (at: number): efa.Remote => ({ address: peer.address + at, rkey: peer.region.rkey })
    return {
      qpn: p.qpn,
      bytes: p.bytes,
      depth: 256,
      receives: 256,
      entries,
      send: (id, offset, length) => post(EfaOperation.SEND, id, offset, length),
      write(id, offset, length, to, isRefused = false) {
        const remote = remoteOf(to)
        const rkey = isRefused ? (remote.rkey ^ 0x5500) >>> 0 : remote.rkey
        post(EfaOperation.RDMA_WRITE, id, offset, length, { ...remote, rkey })
      },
      read: (id, offset, length, from) => post(EfaOperation.RDMA_READ, id, offset, length, remoteOf(from)),
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
      asyncEvents: p.asyncEvents,
      resize: () => {},
      scribble(random) {
        p.ringCq(Math.floor(random() * 2 ** 32))
        p.ringReceives(Math.floor(random() * 2 ** 16))
      },
    }
  }
  return stepped(m, acted, [endOf(0), endOf(1)])
}

const example = async (name: string): Promise<Driver> =>
  ((await import(join(repoRoot, 'examples/drivers', name))) as { driver: Driver }).driver

const library = {
  events: 'the library arms itself when a program awaits: test/library/verbs/cq',
  scribble: 'the rings are the memory of the program that has the device: test/drivers/soft/failures',
}
const verbs = {
  faults: 'there are no packets',
  resize: 'the class has no modify',
  shared: 'there are no shared receive queues',
  torment: 'the driver does not ask the torment of its network',
  waits: 'the driver does not tell why programs wait',
}

export const subjects: readonly Subject[] = [
  { name: 'rxe', open: onMappedRings(rxeDriver as Driver, 2) },
  {
    name: 'the library, compact rings',
    open: onLibrary('compact'),
    lacks: library,
    without: ['queue', 'limit', 'event', 'spurious'],
  },
  {
    name: 'the library, mapped rings',
    open: onLibrary('mapped'),
    lacks: library,
    without: ['limit', 'event', 'spurious'],
  },
  { name: 'mlx5', open: onMlx5(64), without: ['queue', 'limit', 'fields'] },
  { name: 'mlx5, completions of 128 bytes', open: onMlx5(128), lacks: { torment: 'as of those of 64 bytes' } },
  {
    name: 'mlx5, queues of firmware commands',
    open: onMlx5(64, true),
    lacks: { resize: 'no command resizes a completion queue' },
    without: ['queue', 'limit', 'fields'],
  },
  {
    name: 'efa',
    open: onEfa,
    lacks: {
      order: 'SRD delivers and completes in any order',
      connection: 'a queue pair of SRD has no connection that a failed request could end',
      resize: 'libefa does not resize completion queues',
      shared: "Amazon's adapters have no shared receive queues",
    },
    without: ['queue', 'limit', 'adapter'],
  },
  { name: 'examples/drivers/loop.mjs', open: onMappedRings(await example('loop.mjs'), 1), lacks: verbs },
  { name: 'examples/drivers/wire.mjs', open: wirePair(await example('wire.mjs')), lacks: verbs },
]
