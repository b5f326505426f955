/*
 * Fuzz targets for connection management. `ucma`: a program writes to rdma_cm files. `mads`: peers send datagrams to
 * queue pair 1. Identifiers and connections must be bounded, and none may remain at the end.
 */
import assert from 'node:assert/strict'
import { createRandom } from '../../../src/base/random.ts'
import type { MadAddress } from '../../../src/core/driver-contract.ts'
import {
  closeContext,
  dispatch,
  findDescriptor,
  invokeNow,
  noMemory,
  openContext,
  stat,
  systemDevice,
} from '../../../src/core/index.ts'
import type { Caller, Core, Device } from '../../../src/core/model.ts'
import { ucmaDialect } from '../../../src/daemon/session/dialects.ts'
import { IbCm, type Mads } from '../../../src/services/cm-client/ib-cm.ts'
import type { MadService } from '../../../src/services/mad-client/layer.ts'
import type { Identifier, IdOwner } from '../../../src/services/rdma-cm/identifier.ts'
import { RdmaCm } from '../../../src/services/rdma-cm/rdma-cm.ts'
import { addressSize, emitAddress } from '../../../src/services/socket-address.ts'
import { CmChannel } from '../../../src/spec/classes/connections/cm_channel.ts'
import type { SocketAddress } from '../../../src/spec/classes/connections/cm_parameters.ts'
import { AsyncEventType, CmPortSpace, QpState } from '../../../src/spec/enums.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { UCMA_HEADER_BYTES, type UcmaCommand, ucmaCommands } from '../../../src/spec/linux/ucma.ts'
import { DEFAULT_PKEY } from '../../../src/spec/wire/headers.ts'
import { GSI_QPN, MAD_BYTES, rejReason } from '../../../src/spec/wire/mad.ts'
import { emitCm, emitRdmaCmHeader, parseCm, rdmaCmServiceId } from '../../../src/transport/wire/mad/mad.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { plainRequest } from '../../services/cm-engine/request.ts'
import { any4, assertNothingLeft, type Host, ip4, parametersOf, VirtualNetwork } from '../../services/rdma-cm/hosts.ts'
import { HEADER_BYTES, record, splitProgram } from './calls.ts'
import type { Target } from './fuzzer.ts'

const PORT = 7471

// ---- ucma: records {u8 channel, u8 0, u16 message bytes, u16 area bytes, u16 0}, the message (write(2)), the bytes at
// AREA, to which pointers in the message lead ----

const MAX_MESSAGES = 40
/** Addresses in the program's memory. */
const MESSAGE = 0x10000
const AREA = 0x20000
const AREA_BYTES = 4096
/** Descriptor numbers of the rdma_cm files. A record's first byte is an index into them. */
const CHANNEL_FDS = [3, 4]
/** Queue pairs of the client (identifier 1, and the client of `mads`) and of the server's first connection. */
const [CLIENT_QPN, SERVER_QPN] = [0x11, 0x12]
/** The queue pair of peer 1. */
const PEER_QPN = 0x33

/** The numbers in the struct of a command, by name. */
const fieldsOf = ({ in: { cells }, currentChannelAt, userMemory }: UcmaCommand) => [
  ...cells,
  ...(currentChannelAt === undefined ? [] : [{ name: 'currentChannel', at: currentChannelAt, size: 4 }]),
  ...(userMemory === undefined
    ? []
    : [
        { name: 'memory', at: userMemory.address, size: 8 },
        { name: 'memoryLength', at: userMemory.length, size: 4 },
      ]),
]

/**
 * A command on the channel with index `channel`. `values`: numbers in its struct by name; `object` is an identifier or
 * a group. The response goes to AREA.
 */
const command = (
  name: string,
  values: Readonly<Record<string, number>> = {},
  { address, channel = 0 }: { readonly address?: SocketAddress; readonly channel?: number } = {},
): Uint8Array => {
  const row = ucmaCommands.find(one => one.name === name)!
  const { number, in: request, response, out, option } = row
  const written = new Uint8Array(UCMA_HEADER_BYTES + request.size)
  const header = new DataView(written.buffer)
  header.setUint32(0, number, true)
  header.setUint16(4, request.size, true)
  header.setUint16(6, out?.size ?? 0, true)
  const struct = new DataView(written.buffer, UCMA_HEADER_BYTES)
  for (const [field, value] of Object.entries(values)) {
    const { at, size } = fieldsOf(row).find(one => one.name === field)!
    for (let byte = 0; byte < size; byte++) struct.setUint8(at + byte, Math.floor(value / 256 ** byte) & 0xff)
  }
  if (option !== undefined) struct.setUint32(option.at, option.value, true)
  if (response !== undefined) struct.setBigUint64(response, BigInt(AREA), true)
  if (address !== undefined) {
    const { at, length } = row.addresses!.at(-1)!
    struct.setUint16(length!, addressSize(address), true)
    written.set(emitAddress(address), UCMA_HEADER_BYTES + at)
  }
  return record(channel, written)
}

const create = (portSpace: number) => command('CREATE_ID', { portSpace })
const bind = (id: number) => command('BIND', { object: id }, { address: any4(PORT) })
const resolve = (id: number) => command('RESOLVE_ADDR', { object: id }, { address: ip4(1, PORT) })
const connect = (id: number) =>
  command('CONNECT', { object: id, 'parameters.qpNum': CLIENT_QPN, 'parameters.valid': 1 })
/** The server accepts a request. */
const accept = (id: number) => command('ACCEPT', { object: id, 'parameters.qpNum': SERVER_QPN, 'parameters.valid': 1 })
/** The client confirms a response: an ACCEPT without parameters. */
const confirm = (id: number) => command('ACCEPT', { object: id })
const getEvent = command('GET_EVENT')
const destroy = (id: number) => command('DESTROY_ID', { object: id })
const GROUP: SocketAddress = { ...ip4(1, 0), address: ipv4(239, 1, 2, 3) }
const join = (id: number) => command('JOIN_MCAST', { id }, { address: GROUP })
const setTos = (id: number) => command('SET_OPTION', { object: id, memory: AREA, memoryLength: 1 })
/** Moves an identifier from the first channel to the second. */
const migrate = (id: number) => command('MIGRATE_ID', { object: id, currentChannel: CHANNEL_FDS[0]! }, { channel: 1 })

/** Identifier 0 listens; identifier 1 connects to it, which creates identifier 2. */
const connecting = (portSpace: number) => [
  create(portSpace),
  bind(0),
  command('LISTEN', { object: 0 }),
  create(portSpace),
  resolve(1),
  command('RESOLVE_ROUTE', { object: 1 }),
  connect(1),
]
const queries = [
  command('QUERY', { object: 1 }),
  command('QUERY_PATH', { object: 1 }),
  command('QUERY_GID', { object: 1 }),
  command('INIT_QP_ATTR', { object: 1, state: QpState.values.INIT }),
]

const ucmaPrograms = (): Uint8Array[] =>
  [
    [
      ...connecting(CmPortSpace.values.TCP),
      getEvent,
      getEvent,
      getEvent,
      ...queries,
      accept(2),
      getEvent,
      confirm(1),
      getEvent,
      command('NOTIFY', { object: 2, event: AsyncEventType.values.COMM_EST }),
      command('DISCONNECT', { object: 1 }),
      getEvent,
      command('DISCONNECT', { object: 2 }),
      getEvent,
      destroy(2),
      destroy(1),
      destroy(0),
    ],
    [
      ...connecting(CmPortSpace.values.TCP),
      getEvent,
      getEvent,
      getEvent,
      command('REJECT', { object: 2 }),
      getEvent,
      connect(1),
      setTos(1),
      migrate(1),
      migrate(0),
      command('GET_EVENT', {}, { channel: 1 }),
      destroy(0),
    ],
    [
      ...connecting(CmPortSpace.values.UDP),
      getEvent,
      getEvent,
      getEvent,
      ...queries,
      accept(2),
      getEvent,
      join(1),
      getEvent,
      command('LEAVE_MCAST', { object: 3 }),
      join(2),
      destroy(2),
    ],
  ].map(records => new Uint8Array(Buffer.concat(records)))

/**
 * One host for all inputs. Each input has its own context and files. The program's memory is `written` at MESSAGE and
 * `area` at AREA.
 */
interface Setup {
  readonly network: VirtualNetwork
  readonly host: Host
  readonly caller: Caller
  readonly area: Uint8Array
  written: Uint8Array
  fds: Map<number, number>
}

const efault = (): never => {
  throw new CallError('EFAULT', 'the address is not mapped')
}

const createSetup = (): Setup => {
  const network = new VirtualNetwork()
  const host = network.host()
  host.plug(1)
  const bytesAt = (address: bigint, length: number): Uint8Array => {
    const [start, bytes] = address >= AREA ? [AREA, self.area] : [MESSAGE, self.written]
    const offset = Number(address) - start
    return offset < 0 || offset + length > bytes.length ? efault() : bytes.subarray(offset, offset + length)
  }
  const self: Setup = {
    network,
    host,
    area: new Uint8Array(AREA_BYTES),
    written: new Uint8Array(0),
    fds: new Map(),
    caller: {
      memory: noMemory,
      copyIn: (address, length) => bytesAt(address, length).slice(),
      copyOut: (address, bytes) => bytesAt(address, bytes.length).set(bytes),
      descriptor: fd => self.fds.get(fd),
    },
  }
  return self
}

let setup: Setup | undefined

const ucmaTarget: Target = {
  name: 'ucma',
  split: splitProgram,
  seeds: ucmaPrograms,
  run(bytes, feature) {
    setup ??= createSetup()
    const { network, host, caller, area } = setup
    const context = openContext(systemDevice(host.core), { isOpened: true })
    setup.fds = new Map(
      CHANNEL_FDS.map(fd => [fd, invokeNow(context, CmChannel, 'create', 0, {}, caller).descriptors![0]!.object]),
    )
    for (const one of splitProgram(bytes).slice(0, MAX_MESSAGES)) {
      if (one.length < HEADER_BYTES) continue
      const view = new DataView(one.buffer, one.byteOffset, one.length)
      const length = view.getUint16(2, true)
      setup.written = one.slice(HEADER_BYTES, HEADER_BYTES + length)
      area.fill(0)
      area.set(one.subarray(HEADER_BYTES + length, HEADER_BYTES + length + AREA_BYTES))
      const fd = CHANNEL_FDS[one[0]! & 1]!
      const channel = findDescriptor(host.core, setup.fds.get(fd)!)
      const message = [BigInt(MESSAGE), setup.written.length] as const
      const answer = dispatch(context, ucmaDialect(channel, fd, caller), message, caller)
      assert.ok(!(answer instanceof Promise))
      if (answer.ret < 0) assert.ok(String(answer.reason).length > 9, 'no message')
      // the errno, and the number of the command
      feature(((answer.ret < 0 ? -answer.ret : 0) << 8) | (setup.written[0] ?? 0))
      network.settle()
    }
    closeContext(context)
    assertNothingLeft(network)
    assert.deepEqual([stat(host.core).faults, stat(host.core).descriptors], [0, 0])
  },
}

// ---- mads: records {u8 peer, u8 flags (IdFlag), u16 bytes, u16 0, u16 0}, then the datagram's bytes ----

/**
 * Bits that make a datagram an answer to the last sent MAD. LOCAL: the datagram's local communication ID is the MAD's
 * remote ID. REMOTE: the datagram's remote ID is the MAD's local ID.
 */
const IdFlag = { LOCAL: 1, REMOTE: 2 }
/** Offsets of the communication IDs in a MAD. */
const LOCAL_ID = 24
const REMOTE_ID = 28
/** Last byte of the address of peer 1, to which the consumer's client connects. */
const PEER = 9

const madPrograms = (): Uint8Array[] => {
  const privateData = emitRdmaCmHeader(
    { ipVersion: 4, port: 9, source: ipv4(0, 0, 0, 0), destination: Uint8Array.of(...new Uint8Array(12), 10, 0, 0, 1) },
    Uint8Array.of(1),
  )
  const ids = { tid: 5n, localId: 77, remoteId: 0 }
  const serviceId = rdmaCmServiceId(CmPortSpace.values.TCP, PORT)
  const gids = { localGid: ipv4(10, 0, 0, PEER), remoteGid: ipv4(10, 0, 0, 1) }
  const req = emitCm({
    ...plainRequest,
    tid: 5n,
    localId: 77,
    serviceId,
    caGuid: 9n,
    qpn: PEER_QPN,
    ...gids,
    localAckTimeout: 17,
    privateData,
  })
  const rep = emitCm({
    name: 'REP',
    ...ids,
    startingPsn: 1,
    targetAckDelay: 15,
    caGuid: 9n,
    qpn: PEER_QPN,
    responderResources: 1,
    initiatorDepth: 1,
    flowControl: false,
    rnrRetryCount: 7,
    srq: false,
  })
  const sidr = emitCm({
    name: 'SIDR_REQ',
    tid: 5n,
    requestId: 78,
    pkey: 0xffff,
    serviceId: rdmaCmServiceId(CmPortSpace.values.UDP, PORT),
    privateData,
  })
  const rtu = emitCm({ name: 'RTU', ...ids })
  const mra = emitCm({ name: 'MRA', ...ids, message: 0, serviceTimeout: 20 })
  const rej = emitCm({ name: 'REJ', ...ids, message: 0, reason: rejReason.CONSUMER_DEFINED })
  const dreq = emitCm({ name: 'DREQ', ...ids, remoteQpn: SERVER_QPN })
  const drep = emitCm({ name: 'DREP', ...ids })
  /** A record of peer 1; `flags` as in IdFlag. */
  const fromPeer = (flags: number, mad: Uint8Array): Uint8Array => record(1, mad, flags)
  const { REMOTE } = IdFlag
  const scripts = [
    [fromPeer(0, req), fromPeer(REMOTE, rtu), fromPeer(REMOTE, dreq), fromPeer(REMOTE, drep)],
    [fromPeer(0, req), fromPeer(0, req), fromPeer(REMOTE, rej)],
    [fromPeer(0, sidr), fromPeer(0, sidr)],
    [fromPeer(REMOTE, mra), fromPeer(REMOTE, rep), fromPeer(REMOTE, dreq)],
    [fromPeer(REMOTE, rej), fromPeer(REMOTE, rep)],
  ]
  return scripts.map(records => new Uint8Array(Buffer.concat(records)))
}

/** A consumer that in turn accepts two requests, rejects one and ignores one. */
class Consumer implements IdOwner {
  readonly ids = new Set<Identifier>()
  readonly requests: Identifier[] = []
  readonly cm: RdmaCm
  turn = 0

  constructor(cm: RdmaCm) {
    this.cm = cm
  }

  create(portSpace: number): Identifier {
    const id = this.cm.create(this, portSpace, 0)
    this.ids.add(id)
    return id
  }

  createRequest({ portSpace }: { readonly portSpace: number }): Identifier {
    return this.create(portSpace)
  }

  event(_type: number, _details: object, request?: Identifier): void {
    if (request !== undefined) this.requests.push(request)
  }

  /** Handles the requests that have arrived. */
  act(): void {
    for (const id of this.requests.splice(0)) {
      if (!this.ids.has(id)) continue
      const turn = this.turn++
      const choice = turn % 4
      try {
        // A queue pair has at most one connection, so each accept needs another one.
        if (choice < 2) this.cm.accept(id, parametersOf(SERVER_QPN + turn))
        else if (choice === 2) this.cm.reject(id, new Uint8Array(3), rejReason.CONSUMER_DEFINED)
      } catch (error) {
        assert.ok(error instanceof CallError, String(error))
      }
    }
  }
}

/** A MAD layer that records sent datagrams. */
class FakeLayer implements Mads {
  agent: MadService | undefined
  readonly sent: Uint8Array[] = []
  createAgent(): never {
    throw new Error('only on InfiniBand')
  }
  register(agent: MadService): () => void {
    this.agent = agent
    return () => {}
  }
  send(_device: Device, mad: Uint8Array): boolean {
    this.sent.push(mad)
    return true
  }
  hasQueuePair(): boolean {
    return true
  }
}

/** One host receives the datagrams of all inputs. */
interface MadHost {
  readonly device: Device
  readonly core: Core
}
let madHost: MadHost | undefined

/** The consumer listens for TCP and for UDP. */
const LISTENERS = 2
const BACKLOG = 8

const madTarget: Target = {
  name: 'mads',
  split: splitProgram,
  seeds: madPrograms,
  run(bytes, feature) {
    if (madHost === undefined) {
      const host = new VirtualNetwork().host()
      madHost = { device: host.plug(1), core: host.core }
    }
    let now = 1
    const layer = new FakeLayer()
    const environment = { now: () => now, random: createRandom(bytes.length) }
    const ibCm = new IbCm(layer, environment)
    const cm = new RdmaCm(madHost.core, ibCm, environment)
    const consumer = new Consumer(cm)
    for (const portSpace of [CmPortSpace.values.TCP, CmPortSpace.values.UDP]) {
      const listener = consumer.create(portSpace)
      cm.bind(listener, any4(PORT))
      cm.listen(listener, BACKLOG)
    }
    const client = consumer.create(CmPortSpace.values.TCP)
    cm.resolveAddress(client, ip4(PEER, PORT), undefined)
    cm.resolveRoute(client)
    cm.connect(client, parametersOf(CLIENT_QPN))
    const records = splitProgram(bytes)
    for (const one of records) {
      if (one.length < HEADER_BYTES) continue
      const length = new DataView(one.buffer, one.byteOffset).getUint16(2, true)
      const mad = new Uint8Array(MAD_BYTES)
      mad.set(one.subarray(HEADER_BYTES, HEADER_BYTES + Math.min(length, MAD_BYTES)))
      const lastSent = layer.sent.at(-1)
      if (lastSent !== undefined && one[1]! & IdFlag.REMOTE)
        mad.set(lastSent.subarray(LOCAL_ID, LOCAL_ID + 4), REMOTE_ID)
      if (lastSent !== undefined && one[1]! & IdFlag.LOCAL)
        mad.set(lastSent.subarray(REMOTE_ID, REMOTE_ID + 4), LOCAL_ID)
      const from: MadAddress = {
        localGid: ipv4(10, 0, 0, 1),
        remoteGid: ipv4(10, 0, 0, one[0] === 1 ? PEER : one[0]!),
        qpn: GSI_QPN,
        pkey: DEFAULT_PKEY,
        flowLabel: 1,
        trafficClass: 0,
        hopLimit: 64,
      }
      layer.agent?.receive(madHost.device, mad, from)
      consumer.act()
      // the kind of the MAD, by the length of its name, and the number of sent MADs
      feature((parseCm(mad)?.name.length ?? 0) | ((layer.sent.length & 0xff) << 8))
    }
    // the listeners, the client, and at most one identifier for each datagram
    assert.ok(cm.counts.identifiers <= LISTENERS + 1 + records.length)
    assert.ok(cm.counts.connections <= 1 + records.length)
    for (const id of consumer.ids) cm.destroy(id)
    for (let turns = 0; ibCm.nextTimeout() !== Number.POSITIVE_INFINITY; turns++) {
      assert.ok(turns < 1000, 'timers do not end')
      now = ibCm.nextTimeout()
      ibCm.onTimeout(now)
    }
    assert.deepEqual(cm.counts, { identifiers: 0, listeners: 0, connections: 0 })
    cm.close()
  },
}

export const connectionTargets: readonly Target[] = [ucmaTarget, madTarget]
