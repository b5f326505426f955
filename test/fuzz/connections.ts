/*
 * Fuzz targets for connection management: programs' writes to rdma_cm files, and peers' datagrams to queue pair 1.
 * Commands are answered with an errno and a message, datagrams are tolerated, their cost is bounded, and when the
 * program ends nothing is left.
 */
import assert from 'node:assert/strict'
import type { MadService } from '../../src/clients/mad/layer.ts'
import type { Identifier, IdOwner } from '../../src/clients/rdma-cm/identifier.ts'
import { type Datagrams, RdmaCm } from '../../src/clients/rdma-cm/rdma-cm.ts'
import { emitAddress } from '../../src/clients/rdma-cm/socket-address.ts'
import { CmError } from '../../src/cm/error.ts'
import {
  closeContext,
  dispatch,
  findDescriptor,
  invokeNow,
  noMemory,
  openContext,
  stat,
  systemDevice,
} from '../../src/core/index.ts'
import type { Caller, Core, Device, MadAddress } from '../../src/core/model.ts'
import { ucmaDialect } from '../../src/daemon/session/dialects.ts'
import { CmChannel } from '../../src/spec/classes/connections/cm_channel.ts'
import { CmPortSpace } from '../../src/spec/enums.ts'
import { CallError } from '../../src/spec/errno.ts'
import { MAD_BYTES } from '../../src/spec/wire/mad.ts'
import { emitCm, emitRdmaCmHeader, parseCm, rdmaCmServiceId } from '../../src/wire/mad/mad.ts'
import { any4, assertNothingLeft, type Host, ip4, parametersOf, VirtualNetwork } from '../clients/rdma-cm/hosts.ts'
import { randomFrom } from '../cm/pair.ts'
import { plainRequest } from '../cm/request.ts'
import { ipv4 } from '../drivers/rxe/machine.ts'
import { HEADER, splitProgram } from './calls.ts'
import type { Target } from './fuzzer.ts'

const PORT = 7471

// ---- programs: {u8 channel, u8 0, u16 bytes written, u16 bytes of the area, u16 0}, both ----

const MAX_MESSAGES = 40
const MESSAGE = 0x10000
const AREA = 0x20000
const AREA_BYTES = 4096
const CHANNELS = [3, 4]

const record = (channel: number, written: Uint8Array, area = new Uint8Array(0)): Uint8Array => {
  const bytes = new Uint8Array(HEADER + written.length + area.length)
  const view = new DataView(bytes.buffer)
  bytes[0] = channel
  view.setUint16(2, written.length, true)
  view.setUint16(4, area.length, true)
  bytes.set(written, HEADER)
  bytes.set(area, HEADER + written.length)
  return bytes
}

/** A command on the first channel, with its response in the area. */
const command = (number: number, size: number, fill: (body: DataView) => void, at = -1, out = 0): Uint8Array => {
  const written = new Uint8Array(8 + size)
  const view = new DataView(written.buffer)
  view.setUint32(0, number, true)
  view.setUint16(4, size, true)
  view.setUint16(6, out, true)
  fill(new DataView(written.buffer, 8))
  if (at >= 0) view.setBigUint64(8 + at, BigInt(AREA), true)
  return record(0, written)
}
const put = (body: DataView, at: number, bytes: Uint8Array): void =>
  new Uint8Array(body.buffer, body.byteOffset).set(bytes, at)

const create = (portSpace: number) => command(0, 24, body => body.setUint16(16, portSpace, true), 8, 4)
const onId = (number: number, id: number, size: number, at: number, response = -1, out = 0, second = 0) =>
  command(
    number,
    size,
    body => {
      body.setUint32(at, id, true)
      if (at + 8 <= size) body.setUint32(at + 4, second, true)
    },
    response,
    out,
  )
const bind = (id: number) =>
  command(20, 136, body => {
    body.setUint32(0, id, true)
    body.setUint16(4, 16, true)
    put(body, 8, emitAddress(any4(PORT)))
  })
const resolve = (id: number) =>
  command(21, 272, body => {
    body.setUint32(0, id, true)
    body.setUint16(10, 16, true)
    put(body, 144, emitAddress(ip4(1, PORT)))
  })
const connect = (id: number) =>
  command(6, 288, body => {
    body.setUint32(0, 0x11, true)
    body.setUint8(271, 1)
    body.setUint32(272, id, true)
  })
const accept = (id: number, qpn: number) =>
  command(8, 296, body => {
    body.setUint32(8, qpn, true)
    body.setUint8(8 + 271, qpn === 0 ? 0 : 1)
    body.setUint32(280, id, true)
  })
const event = command(12, 8, () => {}, 0, 336)
const destroy = (id: number) => onId(1, id, 16, 8, 0, 4)
const join = (id: number) =>
  command(
    22,
    152,
    body => {
      body.setUint32(16, id, true)
      put(body, 24, emitAddress({ ...ip4(1, 0), address: ipv4(239, 1, 2, 3) }))
    },
    0,
    4,
  )
const setTos = (id: number) =>
  command(14, 24, body => {
    body.setBigUint64(0, BigInt(AREA), true)
    body.setUint32(8, id, true)
    body.setUint32(20, 1, true)
  })
/** For the second channel. */
const migrate = (id: number): Uint8Array => {
  const bytes = onId(18, id, 16, 8, 0, 4, CHANNELS[0])
  bytes[0] = 1
  return bytes
}

const start = (portSpace: number) => [
  create(portSpace),
  bind(0),
  onId(7, 0, 8, 0),
  create(portSpace),
  resolve(1),
  onId(4, 1, 8, 0),
  connect(1),
]
const queries = [
  onId(19, 1, 16, 8, 0, 280, 0),
  onId(19, 1, 16, 8, 0, 440, 1),
  onId(19, 1, 16, 8, 0, 280, 2),
  onId(11, 1, 16, 8, 0, 144, 1),
]

const programs = (): Uint8Array[] =>
  [
    [
      ...start(CmPortSpace.values.TCP),
      event,
      event,
      event,
      ...queries,
      accept(2, 0x12),
      event,
      accept(1, 0),
      event,
      onId(15, 2, 8, 0, -1, 0, 4),
      onId(10, 1, 4, 0),
      event,
      onId(10, 2, 4, 0),
      event,
      destroy(2),
      destroy(1),
      destroy(0),
    ],
    [
      ...start(CmPortSpace.values.TCP),
      event,
      event,
      event,
      onId(9, 2, 264, 0),
      event,
      connect(1),
      setTos(1),
      migrate(1),
      migrate(0),
      record(1, event.slice(HEADER)),
      destroy(0),
    ],
    [
      ...start(CmPortSpace.values.UDP),
      event,
      event,
      event,
      ...queries,
      accept(2, 0x12),
      event,
      join(1),
      event,
      onId(17, 3, 16, 8, 0, 4),
      join(2),
      destroy(2),
    ],
  ].map(records => new Uint8Array(Buffer.concat(records)))

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
  const place = (address: bigint, length: number): Uint8Array => {
    const [start, bytes] = address >= AREA ? [AREA, self.area] : [MESSAGE, self.written]
    const from = Number(address) - start
    return from < 0 || from + length > bytes.length ? efault() : bytes.subarray(from, from + length)
  }
  const self: Setup = {
    network,
    host,
    area: new Uint8Array(AREA_BYTES),
    written: new Uint8Array(0),
    fds: new Map(),
    caller: {
      memory: noMemory,
      copyIn: (address, length) => place(address, length).slice(),
      copyOut: (address, bytes) => place(address, bytes.length).set(bytes),
      descriptor: fd => self.fds.get(fd),
    },
  }
  return self
}

let setup: Setup | undefined

const ucma: Target = {
  name: 'ucma',
  split: splitProgram,
  seeds: programs,
  run(bytes, feature) {
    setup ??= createSetup()
    const { network, host, caller, area } = setup
    const context = openContext(systemDevice(host.core), { opened: true })
    setup.fds = new Map(
      CHANNELS.map(fd => [fd, invokeNow(context, CmChannel, 'create', 0, {}, caller).descriptors![0]!.object]),
    )
    for (const one of splitProgram(bytes).slice(0, MAX_MESSAGES)) {
      if (one.length < HEADER) continue
      const view = new DataView(one.buffer, one.byteOffset, one.length)
      const length = view.getUint16(2, true)
      setup.written = one.slice(HEADER, HEADER + length)
      area.fill(0)
      area.set(one.subarray(HEADER + length, HEADER + length + AREA_BYTES))
      const fd = CHANNELS[one[0]! & 1]!
      const channel = findDescriptor(host.core, setup.fds.get(fd)!)
      const message = [BigInt(MESSAGE), setup.written.length] as const
      const answer = dispatch(context, ucmaDialect(channel, fd, caller), message, caller)
      assert.ok(!(answer instanceof Promise))
      if (answer.ret < 0) assert.ok((answer.reason?.length ?? 0) > 5, 'no message')
      feature(((answer.ret < 0 ? -answer.ret : 0) << 8) | (setup.written[0] ?? 0))
      network.settle()
    }
    closeContext(context)
    assertNothingLeft(network)
    assert.deepEqual([stat(host.core).faults, stat(host.core).descriptors], [0, 0])
  },
}

// ---- datagrams: {u8 peer, u8 flags: which ids are replaced by ours, u16 bytes, u16 0, u16 0}, bytes ----

const IDS = { LOCAL: 1, REMOTE: 2 }
const LOCAL_ID = 24
const REMOTE_ID = 28
/** The address of peer 1, to which the active identifier connects. */
const PEER = 9

const mads = (): Uint8Array[] => {
  const data = emitRdmaCmHeader(
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
    qpn: 0x33,
    ...gids,
    localAckTimeout: 17,
    privateData: data,
  })
  const rep = emitCm({
    name: 'REP',
    ...ids,
    startingPsn: 1,
    targetAckDelay: 15,
    caGuid: 9n,
    qpn: 0x33,
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
    privateData: data,
  })
  const rtu = emitCm({ name: 'RTU', ...ids })
  const mra = emitCm({ name: 'MRA', ...ids, message: 0, serviceTimeout: 20 })
  const rej = emitCm({ name: 'REJ', ...ids, message: 0, reason: 28 })
  const dreq = emitCm({ name: 'DREQ', ...ids, remoteQpn: 0x12 })
  const drep = emitCm({ name: 'DREP', ...ids })
  const make = (flags: number, mad: Uint8Array): Uint8Array => {
    const bytes = record(1, mad)
    bytes[1] = flags
    return bytes
  }
  const { REMOTE } = IDS
  const scripts = [
    [make(0, req), make(REMOTE, rtu), make(REMOTE, dreq), make(REMOTE, drep)],
    [make(0, req), make(0, req), make(REMOTE, rej)],
    [make(0, sidr), make(0, sidr)],
    [make(REMOTE, mra), make(REMOTE, rep), make(REMOTE, dreq)],
    [make(REMOTE, rej), make(REMOTE, rep)],
  ]
  return scripts.map(records => new Uint8Array(Buffer.concat(records)))
}

/** A consumer that reacts differently to each event in turn and keeps its identifiers. */
class Consumer implements IdOwner {
  readonly ids = new Set<Identifier>()
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
  readonly requests: Identifier[] = []

  /** The next action of an event loop. */
  act(): void {
    for (const id of this.requests.splice(0)) {
      if (!this.ids.has(id)) continue
      const way = this.turn++ % 4
      try {
        if (way < 2) this.cm.accept(id, parametersOf(0x12 + this.turn))
        else if (way === 2) this.cm.reject(id, new Uint8Array(3), 28)
      } catch (error) {
        assert.ok(error instanceof CallError || error instanceof CmError, String(error))
      }
    }
  }
}

/** A MAD layer that records sent datagrams. */
class FakeLayer implements Datagrams {
  agent: MadService | undefined
  readonly sent: Uint8Array[] = []
  register(agent: MadService): () => void {
    this.agent = agent
    return () => {}
  }
  send(_device: Device, mad: Uint8Array): boolean {
    this.sent.push(mad)
    return true
  }
  has(): boolean {
    return true
  }
}

interface Peer {
  readonly device: Device
  readonly core: Core
}
let peer: Peer | undefined

const LISTENERS = 2
const BACKLOG = 8

const datagrams: Target = {
  name: 'mads',
  split: splitProgram,
  seeds: mads,
  run(bytes, feature) {
    if (peer === undefined) {
      const host = new VirtualNetwork().host()
      peer = { device: host.plug(1), core: host.core }
    }
    let now = 1
    const layer = new FakeLayer()
    const cm = new RdmaCm(peer.core, layer, { now: () => now, random: randomFrom(bytes.length) })
    const consumer = new Consumer(cm)
    for (const portSpace of [CmPortSpace.values.TCP, CmPortSpace.values.UDP]) {
      const listener = consumer.create(portSpace)
      cm.bind(listener, any4(PORT))
      cm.listen(listener, BACKLOG)
    }
    const active = consumer.create(CmPortSpace.values.TCP)
    cm.resolveAddress(active, ip4(PEER, PORT), undefined)
    cm.resolveRoute(active)
    cm.connect(active, parametersOf(0x11))
    const records = splitProgram(bytes)
    for (const one of records) {
      if (one.length < HEADER) continue
      const length = new DataView(one.buffer, one.byteOffset).getUint16(2, true)
      const mad = new Uint8Array(MAD_BYTES)
      mad.set(one.subarray(HEADER, HEADER + Math.min(length, MAD_BYTES)))
      const known = layer.sent.at(-1)
      if (known !== undefined && one[1]! & IDS.REMOTE) mad.set(known.subarray(LOCAL_ID, LOCAL_ID + 4), REMOTE_ID)
      if (known !== undefined && one[1]! & IDS.LOCAL) mad.set(known.subarray(REMOTE_ID, REMOTE_ID + 4), LOCAL_ID)
      const from: MadAddress = {
        localGid: ipv4(10, 0, 0, 1),
        remoteGid: ipv4(10, 0, 0, one[0] === 1 ? PEER : one[0]!),
        qpn: 1,
        pkey: 0xffff,
        flowLabel: 1,
        trafficClass: 0,
        hopLimit: 64,
      }
      layer.agent?.receive(peer.device, mad, from)
      consumer.act()
      feature((parseCm(mad)?.name.length ?? 0) | ((layer.sent.length & 0xff) << 8))
    }
    // Identifiers belong to the consumer; beyond them there are at most as many unreported ones as datagrams were sent.
    assert.ok(cm.counts.identifiers <= LISTENERS + 1 + records.length)
    assert.ok(cm.counts.connections <= 1 + records.length)
    for (const id of consumer.ids) cm.destroy(id)
    for (let turns = 0; cm.nextTimeout() !== Number.POSITIVE_INFINITY; turns++) {
      assert.ok(turns < 1000, 'timers do not end')
      now = cm.nextTimeout()
      cm.onTimeout(now)
    }
    assert.deepEqual(cm.counts, { identifiers: 0, listeners: 0, connections: 0 })
    cm.close()
  },
}

export const connectionTargets: readonly Target[] = [ucma, datagrams]
