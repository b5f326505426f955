/*
 * Everything that packets of peers fill (docs/decisions/shares.md): one guest's packets take no more than its share,
 * which is charged to it, given back, and reported once; new peers of another guest's program are heard as before.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addFailureHandler } from '../../src/core/failures.ts'
import { closeContext, invokeNow, noMemory, openContext } from '../../src/core/index.ts'
import type { Account, Context, Core, Limit } from '../../src/core/model.ts'
import { addMemory, addTo, hasShare } from '../../src/core/objects/limits.ts'
import { createSharedLimits } from '../../src/daemon/accounts.ts'
import type { EfaState } from '../../src/drivers/efa/device-state.ts'
import { emptyRequest } from '../../src/drivers/efa/requests.ts'
import { Opcode, packetBytes, putHeaders } from '../../src/drivers/efa/srd/packets.ts'
import type { Mlx5State } from '../../src/drivers/mlx5/state.ts'
import type { SoftState } from '../../src/drivers/soft/state.ts'
import { WaitingPackets } from '../../src/drivers/soft/waiting-packets.ts'
import { createCause } from '../../src/spec/check/causes.ts'
import type { Failure } from '../../src/spec/check/failures.ts'
import { MadAgentClass } from '../../src/spec/classes/mad/mad_agent.ts'
import { MadChannel } from '../../src/spec/classes/mad/mad_channel.ts'
import { UdQp } from '../../src/spec/classes/qp/ud_qp.ts'
import { EfaOperation } from '../../src/spec/drivers/efa-queues.ts'
import { CmPortSpace } from '../../src/spec/enums.ts'
import { MULTICAST_QPN } from '../../src/spec/wire/headers.ts'
import { MadClass, MadMethod, RMPP_VERSION, RmppFlag, RmppType } from '../../src/spec/wire/management.ts'
import { opcodeNumber } from '../../src/spec/wire/opcodes.ts'
import { emptyRun, type Port } from '../../src/transport/phy/port.ts'
import { plainArena } from '../../src/transport/wire/arena.ts'
import { putBth } from '../../src/transport/wire/bth.ts'
import { putDeth } from '../../src/transport/wire/extensions.ts'
import { emitRmpp } from '../../src/transport/wire/mad/management.ts'
import { accountIn, GUEST } from '../core/accounts.ts'
import * as efa from '../drivers/efa/machine.ts'
import * as mlx5 from '../drivers/mlx5/machine.ts'
import { Stack } from '../services/ip-client/stack.ts'
import { plainMad, SA_HEADERS } from '../services/mad-engine/pair.ts'
import { GUID, req, senderOf, sidrReq } from '../services/rdma-cm/forged.ts'
import { ip4, twoHosts } from '../services/rdma-cm/hosts.ts'
import { Program } from '../services/rdma-cm/program.ts'

/** Two guests, and a third who has the most of all already. */
const [ONE, OTHER, THIRD] = [GUEST, GUEST + 1, GUEST + 2]
type Who = 'one' | 'other'
type Accounts = Readonly<Record<Who | 'third', Account>>

interface Table {
  readonly core: Core
  /** A new peer sends to a guest's program. Whether it is heard. */
  send(to: Who, peer: number): boolean
  /** The objects of the first guest end. */
  end(): void
  /** A limit of the table's own; undefined: memory is the limit. */
  readonly limit?: Limit
  /** More peers than one guest may have; undefined: nothing is kept of any. */
  readonly flood?: number
}

const KEY = 5n
/** Memory that the first guest has left, where memory is the limit. */
const LEFT = 0x1_0000

const stranger = (n: number): Uint8Array =>
  Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1 + (n >> 16), (n >> 8) & 0xff, n & 0xff])

/** A port on the link of a machine that sends packets from any address to 127.0.0.1, the first device. */
const wild = (m: efa.Machine | mlx5.Machine) => {
  const port: Port = m.link.attach()
  const run = emptyRun()
  const poll = () => m.devices[0]!.poll(m.time.now)
  return (
    source: Uint8Array,
    bytes: number,
    put: (view: DataView, at: number) => void,
    destination = efa.ipv4(1),
  ): void => {
    port.addAddress(source)
    const headers = { sourcePort: 4791, trafficClass: 0, hopLimit: 64, flowLabel: 0 }
    const flow = port.openFlow({ source, destination, ...headers })
    const at = port.reserve(bytes)
    put(port.arena.view, at)
    port.commit(at, bytes, 1, bytes, flow)
    port.flush()
    poll()
    port.closeFlow(flow)
    while (port.receive(run));
    port.release()
    port.removeAddress(source)
  }
}

/** `kind`: what differs of the peers' packets of SRD. */
const srd = (kind: 'queue pairs' | 'addresses' | 'writes' | 'reads', accounts: Accounts): Table => {
  const m = efa.machine(1)
  const programs = {
    one: efa.program(m, 0, { account: accounts.one }),
    other: efa.program(m, 0, { account: accounts.other }),
  }
  const state = m.devices[0]!.device.state as EfaState
  const send = wild(m)
  const { SEND, RDMA_READ, RDMA_WRITE } = EfaOperation
  const isRdma = kind === 'writes' || kind === 'reads'
  if (isRdma) for (const { handle } of Object.values(programs)) handle(8)
  const [opcode, operation] = {
    ...{ 'queue pairs': [Opcode.SEND, SEND], addresses: [Opcode.SEND, SEND] },
    ...{ writes: [Opcode.WRITE_IMM, RDMA_WRITE], reads: [Opcode.READ, RDMA_READ] },
  }[kind] as [number, number]
  /** What a program has of its peers. */
  const kept = ({ state: { sources, pairs } }: efa.Program): number => {
    if (kind === 'writes') return [...sources.values()].reduce((sum, { writes }) => sum + writes.size, 0)
    return kind === 'reads' ? [...pairs.values()].reduce((sum, { responses }) => sum + responses, 0) : sources.size
  }
  return {
    core: m.core,
    ...(kind === 'queue pairs' && { limit: state.senders.limit }),
    ...(kind === 'addresses' && { limit: state.addresses.limit }),
    flood: { 'queue pairs': 300, addresses: 300, writes: 1200, reads: 40 }[kind],
    send(to, peer) {
      const one = programs[to]
      const before = kept(one)
      const request = {
        ...emptyRequest(one.state),
        ...{
          destQpn: one.qpn,
          qkey: efa.QKEY,
          operation,
          message: peer,
          hasImm: kind === 'writes',
          rkey: one.region.rkey,
        },
        ...{ length: 64, remoteHi: Math.floor(one.address / 2 ** 32), remoteLo: one.address >>> 0 },
      }
      const source = kind === 'writes' ? 7 : 100 + peer
      const payload = kind === 'reads' ? 0 : 16
      send(kind === 'addresses' ? stranger(peer) : efa.ipv4(9), packetBytes(opcode, payload), (view, at) => {
        putHeaders(view, at, opcode, request, 5, isRdma ? peer : 0, 0, payload)
        view.setUint32(at + 16, source)
      })
      const isHeard = kept(one) === before + 1
      return isHeard
    },
    end: () => closeContext(programs.one.context),
  }
}

const dc = (accounts: Accounts): Table => {
  const m = mlx5.machine(1, 'drop=0')
  const programs = {
    one: mlx5.program(m, 0, { account: accounts.one }),
    other: mlx5.program(m, 0, { account: accounts.other }),
  }
  const targetOf = (one: mlx5.Program) => one.target(one.sharedReceives(16).object, KEY)
  const targets = { one: targetOf(programs.one), other: targetOf(programs.other) }
  const state = m.devices[0]!.device.state as SoftState<Mlx5State>
  const send = wild(m)
  const rows = (): number => state.engine().stat().queuePairs
  return {
    core: m.core,
    limit: state.own!.dc.targets.table.limit,
    flood: 400,
    send(to, peer) {
      const before = rows()
      send(stranger(peer), 36, (view, at) => {
        putBth(view, at, opcodeNumber.DC_CONNECT, 0, 0xffff, targets[to].qpn, 5)
        view.setUint32(at + 12, 1000)
        view.setUint32(at + 16, 1)
        view.setUint32(at + 20, 1234)
        view.setBigUint64(at + 24, KEY)
      })
      m.devices[0]!.poll(m.time.now)
      return rows() === before + 1
    },
    end: () => closeContext(programs.one.context),
  }
}

/** Packets for scattered memory that wait for their turn. */
const waiting = (accounts: Accounts): Table => {
  const m = mlx5.machine(1)
  const contexts = {
    one: mlx5.program(m, 0, { account: accounts.one }).context,
    other: mlx5.program(m, 0, { account: accounts.other }).context,
  }
  const packets = new WaitingPackets()
  const arena = plainArena(4096)
  return {
    core: m.core,
    flood: 400,
    send: (to, peer) => packets.add({ context: contexts[to], qpn: 8 }, arena, 0, 4000, peer, false),
    end(): void {
      while (packets.take() !== undefined);
      closeContext(contexts.one)
    },
  }
}

/** Datagrams of unknown senders, of which nothing is kept: to a queue pair, or to a group that it has joined. */
const datagrams = (driver: 'efa' | 'mlx5', isGroup: boolean, accounts: Accounts): Table => {
  const group = efa.ipv4(9).fill(239, 12, 13)
  const make = () => {
    if (driver === 'mlx5') {
      const m = mlx5.machine(1, 'drop=0')
      const open = (account: Account) => {
        const one = mlx5.program(m, 0, { account })
        const qp = one.queuePair('ud', { receives: 64 })
        qp.activate()
        if (isGroup) one.call(UdQp, 'attachMcast', qp.object, { gid: group, mlid: 0 })
        return { context: one.context, qpn: qp.qpn, poll: one.poll, receive: () => qp.receive(one.element(0, 256)) }
      }
      return { m, programs: { one: open(accounts.one), other: open(accounts.other) } }
    }
    const m = efa.machine(1)
    const open = (account: Account) => {
      const one = efa.program(m, 0, { account, isUd: true })
      return { context: one.context, qpn: one.qpn, poll: one.poll, receive: () => one.receive(1, 0, 256) }
    }
    return { m, programs: { one: open(accounts.one), other: open(accounts.other) } }
  }
  const { m, programs } = make()
  const send = wild(m)
  return {
    core: m.core,
    send(to, peer) {
      const { qpn, poll, receive } = programs[to]
      receive()
      send(
        stranger(peer),
        12 + 8 + 16 + 4,
        (view, at) => {
          putBth(view, at, opcodeNumber.UD_SEND_ONLY, 0, 0xffff, isGroup ? MULTICAST_QPN : qpn, peer)
          putDeth(view, at + 12, efa.QKEY, 77)
        },
        isGroup ? group : undefined,
      )
      return poll().length === 1
    },
    end: () => closeContext(programs.one.context),
  }
}

/** Requests of connections that a program has not answered. */
const connections = (isDatagram: boolean, accounts: Accounts): Table => {
  const { network, a, b } = twoHosts()
  const { UDP, TCP } = CmPortSpace.values
  const space = isDatagram ? UDP : TCP
  const programs = { one: new Program(b, accounts.one), other: new Program(b, accounts.other) }
  const ports = { one: 7001, other: 7002 }
  const channels = { one: programs.one.channel(), other: programs.other.channel() }
  for (const who of ['one', 'other'] as const) programs[who].listen(channels[who], ip4(2, ports[who]), 1024, space)
  const send = senderOf(network, a)
  return {
    core: b.core,
    flood: 100,
    send(to, peer) {
      const before = programs[to].unread(channels[to])
      send(isDatagram ? sidrReq(peer + 1, undefined, space, ports[to]) : req(peer + 1, GUID, { port: ports[to] }))
      network.settle()
      return programs[to].unread(channels[to]) === before + 1
    },
    end: () => closeContext(programs.one.context),
  }
}

/** Neighbours that ask for an interface's address, or send datagrams to a socket. */
const neighbours = (isSocket: boolean, accounts: Accounts): Table => {
  const { network, a, b } = twoHosts()
  const [deviceA, deviceB] = [a.devices.get('rxe1')!.device, b.devices.get('rxe2')!.device]
  const stacks = {
    one: new Stack(deviceB, '10.9.0.1', 16, accounts.one),
    other: new Stack(deviceB, '10.8.0.1', 16, accounts.other),
  }
  const sockets = { one: stacks.one.udp(7), other: stacks.other.udp(7) }
  /** A neighbour has its interface for one message, a peer of a socket only a port. */
  const peerOf = (to: Who, peer: number): Stack =>
    new Stack(deviceA, `10.${to === 'one' ? 9 : 8}.${1 + (peer >> 8)}.${peer & 255}`, 16)
  const lasting = { one: peerOf('one', 9999), other: peerOf('other', 9999) }
  return {
    core: b.core,
    flood: isSocket ? 300 : 90,
    send(to, peer) {
      const stack = isSocket ? lasting[to] : peerOf(to, peer)
      const known = stacks[to].query().neighbours
      const payload = new Uint8Array(isSocket ? 1000 : 1)
      const waits = () => sockets[to].query().waiting
      const waited = waits()
      const socket = stack.udp()
      socket.send(to === 'one' ? '10.9.0.1' : '10.8.0.1', 7, payload)
      network.settle()
      socket.close()
      if (!isSocket) stack.close()
      return isSocket ? waits() === waited + 1 : stacks[to].query().neighbours === known + 1
    },
    end: () => stacks.one.close(),
  }
}

/** Long messages of which segments are missing, or whole ones that a program has not read. */
const managementMessages = (isLong: boolean, accounts: Accounts): Table => {
  const { network, a, b } = twoHosts()
  const { device } = b.devices.get('rxe2')!
  const caller = { memory: noMemory, copyIn: () => new Uint8Array(), copyOut: () => {}, descriptor: (fd: number) => fd }
  const versions = { one: 1, other: 2 }
  /** An agent for reports of subnet administration; each program has a version of the class. */
  const open = (who: Who) => {
    const context = openContext(device, { isOpened: true, account: accounts[who] })
    const channel = invokeNow(context, MadChannel, 'create', 0, {}, caller).descriptors![0]!.object
    const methods = new Uint8Array(16)
    methods[MadMethod.REPORT >> 3] = 1 << (MadMethod.REPORT & 7)
    const agent = {
      channel,
      mgmtClass: MadClass.SUBNET_ADMINISTRATION,
      classVersion: versions[who],
      methods,
      rmppVersion: 1,
    }
    invokeNow(context, MadAgentClass, 'create', 0, agent, caller)
    return { context, unread: () => invokeNow(context, MadChannel, 'query', channel, {}, caller).out.unread }
  }
  const programs = { one: open('one'), other: open('other') }
  const send = senderOf(network, a)
  const heldBy = (who: Who): number => accounts[who].memory.held.get(`user ${accounts[who].user}`) ?? 0
  return {
    core: b.core,
    flood: isLong ? 100 : 300,
    send(to, peer) {
      const mad = plainMad(MadClass.SUBNET_ADMINISTRATION, MadMethod.REPORT, peer)
      mad[2] = versions[to]
      const rmpp = { version: RMPP_VERSION, type: RmppType.DATA, flags: RmppFlag.ACTIVE | RmppFlag.FIRST, segment: 1 }
      const before = isLong ? heldBy(to) : programs[to].unread()
      send(isLong ? emitRmpp(mad.subarray(0, SA_HEADERS), rmpp) : mad)
      network.settle()
      return (isLong ? heldBy(to) : programs[to].unread()) > before
    },
    end: () => closeContext(programs.one.context),
  }
}

const tables: Readonly<Record<string, (accounts: Accounts) => Table>> = {
  'senders of SRD packets, efa': accounts => srd('queue pairs', accounts),
  'addresses of senders of SRD packets, efa': accounts => srd('addresses', accounts),
  'incomplete WRITEs with immediate data, efa': accounts => srd('writes', accounts),
  'READs whose data is not acknowledged, efa': accounts => srd('reads', accounts),
  'connections of DC targets, mlx5': dc,
  'packets that wait for scattered memory, mlx5': waiting,
  'requests of connections, rxe': accounts => connections(false, accounts),
  'requests of service ids, rxe': accounts => connections(true, accounts),
  'long management messages, rxe': accounts => managementMessages(true, accounts),
  'unread management messages, rxe': accounts => managementMessages(false, accounts),
  'neighbours of IP interfaces, rxe': accounts => neighbours(false, accounts),
  'datagrams of IP sockets, rxe': accounts => neighbours(true, accounts),
  'datagrams, efa': accounts => datagrams('efa', false, accounts),
  'datagrams, mlx5': accounts => datagrams('mlx5', false, accounts),
  'datagrams to a group, mlx5': accounts => datagrams('mlx5', true, accounts),
}

describe('new peers of another guest are heard, when one guest has as many as it may have of', () => {
  for (const [name, make] of Object.entries(tables))
    it(name, () => {
      const limits = createSharedLimits({ memory: 2 ** 24 })
      const [one, other, third] = [ONE, OTHER, THIRD].map((user, i) => accountIn(limits, user, 10 + i)) as [
        Account,
        Account,
        Account,
      ]
      const table = make({ one, other, third })
      const { flood, limit } = table
      const told: [user: number | undefined, subject: unknown][] = []
      addFailureHandler(table.core, ({ cause }: Failure, _device, context: Context | undefined) => {
        if (cause.id === 'NO_SHARE') told.push([context?.account?.user, cause.args.subject])
      })
      const { memory } = limits
      const heldBy = (user: number): number => memory.held.get(`user ${user}`) ?? 0
      let filled = 0
      if (limit !== undefined) addTo(limit, third, Math.floor((limit.max * 7) / 8) - 512)
      else if (flood !== undefined) for (; hasShare(memory, one, LEFT + 4096); filled += 4096) addMemory(one, 4096)
      const before = heldBy(ONE)
      let heard = 0
      for (let peer = 0; peer < (flood ?? 300); peer++) if (table.send('one', peer)) heard++
      if (flood === undefined) {
        assert.equal(heard, 300)
        assert.equal(heldBy(ONE), before, 'what is kept of no peer is not charged')
      } else {
        assert.ok(heard > 0 && heard < flood, `${heard} of ${flood}`)
        assert.ok(heldBy(ONE) - before >= heard * 32, `${heard} peers, ${heldBy(ONE) - before} bytes`)
        assert.equal(table.send('one', 60_000), false)
      }
      for (let peer = 1000; peer < 1020; peer++) assert.ok(table.send('other', peer), `peer ${peer} of the other guest`)
      const subjects = told.map(([, subject]) => subject)
      assert.equal(subjects.length > 0, flood !== undefined)
      assert.deepEqual([...new Set(subjects)], subjects, 'each once')
      assert.ok(told.every(([user]) => user === ONE))
      table.end()
      assert.equal(heldBy(ONE), filled, 'all is given back')
    })
})

it('what one guest’s queue pairs refuse does not make the causes of another’s be forgotten', () => {
  const limits = createSharedLimits()
  const m = mlx5.machine(1)
  const [one, other] = [ONE, OTHER].map(user =>
    mlx5.program(m, 0, { account: accountIn(limits, user) }).queuePair('rc'),
  ) as [ReturnType<mlx5.Program['queuePair']>, ReturnType<mlx5.Program['queuePair']>]
  for (const qp of [one, other]) qp.connect({ qpn: 99 }, 0)
  const { failures, qpns } = m.devices[0]!.device.state as SoftState
  const cause = createCause('RKEY_UNKNOWN', { key: 1 })
  failures.nak(qpns.rowOf(other.qpn), 7, cause)
  for (let psn = 0; psn < 1000; psn++) failures.nak(qpns.rowOf(one.qpn), psn, cause)
  assert.equal(failures.nakOf(other.qpn, 99, 7), cause)
  assert.equal(failures.nakOf(one.qpn, 99, 999), cause)
})
