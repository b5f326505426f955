/*
 * rdma_cm over a driver's own connection protocol (`Driver.openConnections`), without management datagrams: both ends
 * are in this process and call each other, so that events are reported during calls.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setGid } from '../../../src/core/devices/gids.ts'
import type {
  Connection,
  ConnectionEnd,
  ConnectionListeners,
  ConnectionParameters,
  ConnectionProtocol,
  QpAttributes,
} from '../../../src/core/driver-contract.ts'
import {
  type CoreObject,
  type Device,
  driverClass,
  invokeNow,
  openContext,
  register,
  unregister,
} from '../../../src/core/index.ts'
import { findHandle } from '../../../src/core/objects/handles.ts'
import type { Identifier } from '../../../src/services/rdma-cm/identifier.ts'
import { pathRecord } from '../../../src/services/rdma-cm/path-record.ts'
import { qpAttributesFor } from '../../../src/services/rdma-cm/qp-attributes.ts'
import { acceptWithQueuePair, connectQueuePair } from '../../../src/services/rdma-cm/queue-pair-owner.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { AccessFlags, CmEventType, CmPortSpace, GidType, QpState } from '../../../src/spec/enums.ts'
import { CallError, Errno } from '../../../src/spec/errno.ts'
import { rejReason } from '../../../src/spec/wire/mad.ts'
import { describeDevice, errnoOf, testCaller, testClasses, testDriver } from '../../core/fixture.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { any4, assertNothingLeft, type Host, ip4, parametersOf, VirtualNetwork } from './hosts.ts'

const PORT = 7471
const MAX_PRIVATE_DATA = 16
const { CONNECT_REQUEST, ESTABLISHED, REJECTED, UNREACHABLE, DISCONNECTED } = CmEventType.values
const { INIT, RTR } = QpState.values

/** The protocols of all devices, by address. */
type Wire = Map<string, PairProtocol>

class PairProtocol implements ConnectionProtocol {
  readonly #wire: Wire
  readonly #address: Uint8Array
  readonly #listeners: ConnectionListeners
  readonly ports = new Set<ConnectionEnd>()
  readonly connections = new Set<PairConnection>()

  constructor(wire: Wire, address: Uint8Array, listeners: ConnectionListeners) {
    this.#wire = wire
    this.#address = address
    this.#listeners = listeners
    wire.set(address.join(), this)
  }

  get size(): number {
    return this.connections.size
  }

  listen(listener: ConnectionEnd): () => void {
    this.ports.add(listener)
    return () => this.ports.delete(listener)
  }

  create(end: ConnectionEnd): PairConnection {
    const connection = new PairConnection(this)
    connection.end = end
    this.connections.add(connection)
    return connection
  }

  close(): void {
    for (const { peer } of this.connections) peer?.lost()
    this.connections.clear()
    this.#wire.delete(this.#address.join())
  }

  /** Sends the request of `from` to its destination. */
  request({ end }: PairConnection, from: PairConnection, parameters: ConnectionParameters): void {
    const { destination, source, remoteGid, portSpace, qpType } = end!
    const target = this.#wire.get(remoteGid!.join())
    if (target === undefined) {
      end!.report(UNREACHABLE, { status: -Errno.ETIMEDOUT })
      return
    }
    const isListening = [...target.ports].some(listener => listener.source?.port === destination!.port)
    const passive = new PairConnection(target)
    const found = isListening
      ? target.#listeners.request(
          {
            portSpace,
            qpType,
            local: destination!,
            peer: source!,
            path: { localGid: remoteGid!, remoteGid: this.#address },
          },
          passive,
        )
      : 'NO_LISTENER'
    if (typeof found === 'string') {
      from.end!.report(REJECTED, { status: rejReason.INVALID_SERVICE_ID, privateData: Buffer.from(found) })
      return
    }
    target.connections.add(passive)
    passive.end = found
    passive.peer = from
    from.peer = passive
    found.report(CONNECT_REQUEST, newsOf(parameters))
  }
}

const newsOf = (parameters: ConnectionParameters) => ({
  privateData: parameters.privateData.subarray(0, parameters.privateDataLength),
  connection: { qpNum: parameters.qpNum, initiatorDepth: parameters.responderResources },
})

class PairConnection implements Connection {
  readonly #protocol: PairProtocol
  end: ConnectionEnd | undefined
  peer: PairConnection | undefined
  isEstablished = false
  /** The queue pair that the protocol has moved to RTS. */
  qpn = 0

  constructor(protocol: PairProtocol) {
    this.#protocol = protocol
  }

  get isIdle(): boolean {
    return this.peer === undefined
  }

  connect(parameters: ConnectionParameters): void {
    if (parameters.privateDataLength > MAX_PRIVATE_DATA)
      throw new CallError('EINVAL', `cm_id.connect: at most ${MAX_PRIVATE_DATA} bytes of private data`)
    this.qpn = parameters.qpNum
    this.#protocol.request(this, this, parameters)
  }

  accept(parameters: ConnectionParameters): void {
    const { peer } = this
    if (peer === undefined) throw new CallError('EINVAL', 'cm_id.accept: the request was withdrawn')
    this.qpn = parameters.qpNum
    this.isEstablished = true
    peer.isEstablished = true
    peer.end?.report(ESTABLISHED, newsOf(parameters))
    this.end?.report(ESTABLISHED)
  }

  reject(privateData: Uint8Array, reason: number): void {
    const { peer } = this
    if (peer === undefined || this.isEstablished || !(this.end as Identifier).isRequest)
      throw new CallError('EINVAL', 'cm_id.reject: there is no request')
    this.#part()
    peer.end?.report(REJECTED, { status: reason, privateData })
  }

  disconnect(): void {
    if (!this.isEstablished) return
    const { peer } = this
    this.#part()
    peer?.end?.report(DISCONNECTED)
    this.end?.report(DISCONNECTED)
  }

  queuePairAttributes(state: number): Omit<QpAttributes, 'state'> | undefined {
    return state === INIT ? { accessFlags: AccessFlags.values.REMOTE_WRITE, pkeyIndex: 0, port: 1 } : undefined
  }

  destroy(): void {
    this.#protocol.connections.delete(this)
    const { peer } = this
    this.#part()
    peer?.end?.report(DISCONNECTED)
    this.end = undefined
  }

  /** The peer's device is gone. */
  lost(): void {
    this.#part()
    this.end?.report(DISCONNECTED, { status: -Errno.ETIMEDOUT })
  }

  #part(): void {
    for (const end of [this, this.peer]) if (end !== undefined) end.isEstablished = false
    if (this.peer !== undefined) this.peer.peer = undefined
    this.peer = undefined
  }
}

interface TestQp {
  readonly qpn: number
  /** The states to which it was modified. */
  readonly states: (number | undefined)[]
}

const qpClass = driverClass<typeof Classes.rc_qp, TestQp>(Classes.rc_qp, {
  create({ device }, object, { cap }) {
    const qpn = 16 + device.core.nextObject
    object.state = { qpn, states: [] }
    return { cap, qpNum: qpn }
  },
  modify(_call, { state: { states } }, { state }) {
    states.push(state)
    return {}
  },
  destroy: () => ({ events: 0 }),
})

const queuePair = (device: Device): CoreObject<TestQp> => {
  const context = openContext(device, { isOpened: true })
  const caller = testCaller()
  const pd = invokeNow(context, Classes.pd, 'create', 0, {}, caller).object!
  const cq = invokeNow(context, Classes.cq, 'create', 0, { cqe: 1, userHandle: 0n, compVector: 0 }, caller).object!
  const cap = { maxSendWr: 1, maxRecvWr: 1, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
  const create = { pd, sendCq: cq, recvCq: cq, cap, userHandle: 0n }
  const { object } = invokeNow(context, Classes.rc_qp, 'create', 0, create, caller)
  return findHandle(context.handles, object!) as CoreObject<TestQp>
}

const listed: readonly string[] = ['interface', 'device', 'port', 'pd', 'cq', 'async_fd']

/** Adds the device pairN with the address 10.0.0.N. */
const plug = ({ core }: Host, wire: Wire, number: number): Device => {
  const address = ipv4(10, 0, 0, number)
  const driver = {
    ...testDriver([qpClass, ...testClasses.filter(cls => listed.includes(cls.class.name))]),
    openConnections: (_device: Device, listeners: ConnectionListeners) => new PairProtocol(wire, address, listeners),
  }
  const device = register(core, describeDevice(`pair${number}`, driver)) as Device
  setGid(device.ports[0]!.gids, 0, { gid: address, type: GidType.values.ROCE_V2, ifindex: 1 })
  return device
}

const twoEnds = () => {
  const network = new VirtualNetwork()
  const wire: Wire = new Map()
  const [a, b] = [network.host(), network.host()]
  return { network, wire, a, b, deviceA: plug(a, wire, 1), deviceB: plug(b, wire, 2) }
}

const dataOf = (bytes: { privateData: Uint8Array; privateDataLength: number } | undefined): number[] => [
  ...bytes!.privateData.subarray(0, bytes!.privateDataLength),
]

const requestOf = (host: Host, listener: Identifier): Identifier => {
  const [request] = host.requests(listener)
  assert.ok(request)
  return request
}

describe('a device whose driver has connections and no datagrams', () => {
  it('has the classes of rdma_cm, and no others of clients', () => {
    const { deviceA } = twoEnds()
    const { byName } = deviceA.sharedTable
    const names = ['cm_channel', 'cm_id', 'cm_multicast', 'mad_agent', 'ip_socket'].filter(name => byName.has(name))
    assert.deepEqual(names, ['cm_channel', 'cm_id', 'cm_multicast'])
  })

  it('connects, with private data of both sides, and disconnects', () => {
    const { network, a, b } = twoEnds()
    const listener = b.listen(any4(PORT))
    const active = a.connect(ip4(2, PORT), 0x11, { data: Uint8Array.of(1, 2) })
    // As with iWARP on Linux, the route needs no resolution and has no path record.
    assert.deepEqual(a.eventNames(active), ['ADDR_RESOLVED', 'ROUTE_RESOLVED'])
    assert.deepEqual(pathRecord(active), [])
    const [{ details, request } = assert.fail()] = b.take(listener)
    assert.ok(request)
    assert.deepEqual(dataOf(details.connection), [1, 2])
    assert.deepEqual([details.connection?.qpNum, details.connection?.initiatorDepth], [0x11, 1])
    assert.deepEqual([request.source, request.destination?.address], [ip4(2, PORT), ipv4(10, 0, 0, 1)])
    b.cm.accept(request, parametersOf(0x22, Uint8Array.of(3)))
    const [reply] = a.take(active)
    assert.deepEqual([reply?.name, reply?.details.connection?.qpNum], ['ESTABLISHED', 0x22])
    assert.deepEqual(dataOf(reply?.details.connection), [3])
    assert.deepEqual(b.eventNames(request), ['ESTABLISHED'])
    assert.equal(
      errnoOf(() => a.cm.accept(active, undefined)),
      'EINVAL',
    )
    assert.deepEqual(qpAttributesFor(active, INIT), { state: INIT, accessFlags: 2, pkeyIndex: 0, port: 1 })
    assert.equal(qpAttributesFor(active, RTR), undefined)
    assert.deepEqual(b.cm.counts, { identifiers: 2, listeners: 1, connections: 1 })
    a.cm.disconnect(active)
    assert.deepEqual([a.eventNames(active), b.eventNames(request)], [['DISCONNECTED'], ['DISCONNECTED']])
    a.cm.destroy(active)
    for (const id of [request, listener]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('rejects with reason and private data, and the active side can connect again', () => {
    const { a, b } = twoEnds()
    const listener = b.listen(ip4(2, PORT))
    const active = a.connect(ip4(2, PORT), 0x11)
    b.cm.reject(requestOf(b, listener), Uint8Array.of(9), rejReason.CONSUMER_DEFINED)
    const rejected = a.take(active).at(-1)
    assert.deepEqual([rejected?.name, rejected?.details.status], ['REJECTED', rejReason.CONSUMER_DEFINED])
    assert.deepEqual(dataOf(rejected?.details.connection), [9])
    a.cm.connect(active, parametersOf(0x11))
    b.cm.accept(requestOf(b, listener), parametersOf(0x22))
    assert.deepEqual(a.eventNames(active), ['ESTABLISHED'])
  })

  it('refuses a request without listener, beyond the backlog, to another address or device, or for another type', () => {
    const { a, b, wire } = twoEnds()
    const why = (active: Identifier): string =>
      Buffer.from(dataOf(a.take(active).at(-1)?.details.connection)).toString()
    const toNothing = a.connect(ip4(2, PORT), 0x11)
    // REJECTED is reported during `connect`.
    assert.deepEqual([why(toNothing), toNothing.state], ['NO_LISTENER', 'ROUTE_RESOLVED'])
    const listener = b.listen(ip4(2, PORT), { backlog: 1 })
    a.connect(ip4(2, PORT), 0x12)
    assert.equal(why(a.connect(ip4(2, PORT), 0x13)), 'BUSY')
    plug(b, wire, 3)
    assert.equal(why(a.connect(ip4(3, PORT), 0x14)), 'NO_LISTENER')
    assert.equal(b.requests(listener).length, 1)
    assert.deepEqual(a.eventNames(a.connect(ip4(9, PORT), 0x15)).at(-1), 'UNREACHABLE')
  })

  it('refuses private data that is too long, and the identifier can connect with less', () => {
    const { a, b } = twoEnds()
    const listener = b.listen(ip4(2, PORT))
    const active = a.create()
    a.resolve(active, ip4(2, PORT))
    const tooLong = parametersOf(0x11, new Uint8Array(MAX_PRIVATE_DATA + 1))
    assert.equal(
      errnoOf(() => a.cm.connect(active, tooLong)),
      'EINVAL',
    )
    assert.deepEqual([active.state, active.connection, a.cm.counts.connections], ['ROUTE_RESOLVED', undefined, 0])
    a.cm.connect(active, parametersOf(0x11))
    assert.ok(requestOf(b, listener))
  })

  it('can be failed by a fault rule in `connect` and `accept`', () => {
    const { a, b } = twoEnds()
    const listener = b.listen(ip4(2, PORT))
    const fail = (id: Identifier) => id.failCall({ type: UNREACHABLE, report() {} })
    const active = a.create()
    a.resolve(active, ip4(2, PORT))
    fail(active)
    a.cm.connect(active, parametersOf(0x11))
    assert.equal(a.eventNames(active).at(-1), 'UNREACHABLE')
    assert.deepEqual([active.state, a.cm.counts.connections], ['ROUTE_RESOLVED', 0])
    b.take(listener)
    a.cm.connect(active, parametersOf(0x11))
    const request = requestOf(b, listener)
    fail(request)
    b.cm.accept(request, parametersOf(0x22))
    assert.equal(b.eventNames(request).at(-1), 'UNREACHABLE')
    assert.equal(a.eventNames(active).at(-1), 'DISCONNECTED')
  })

  it('has no datagrams: connect, a bound listener and groups are refused', () => {
    const { a, deviceA } = twoEnds()
    const { UDP } = CmPortSpace.values
    const active = a.create(UDP)
    a.resolve(active, ip4(2, PORT))
    const listener = a.create(UDP)
    a.cm.bind(listener, ip4(1, PORT))
    assert.equal(
      errnoOf(() => a.cm.connect(active, parametersOf(0x11))),
      'EOPNOTSUPP',
    )
    assert.equal(
      errnoOf(() => a.cm.listen(listener, 0)),
      'EOPNOTSUPP',
    )
    assert.equal(listener.state, 'ADDR_BOUND')
    assert.ok(deviceA.isAlive)
  })

  it('informs the other end if an identifier is destroyed at any time', () => {
    const { network, a, b } = twoEnds()
    const listener = b.listen(ip4(2, PORT))
    for (const stage of ['requested', 'established']) {
      const active = a.connect(ip4(2, PORT), 0x11)
      const request = requestOf(b, listener)
      if (stage === 'established') b.cm.accept(request, parametersOf(0x22))
      b.eventNames(request)
      a.cm.destroy(active)
      assert.deepEqual(b.eventNames(request), ['DISCONNECTED'], stage)
      if (stage === 'requested')
        assert.equal(
          errnoOf(() => b.cm.accept(request, parametersOf(0x22))),
          'EINVAL',
        )
      b.cm.destroy(request)
    }
    b.cm.destroy(listener)
    assertNothingLeft(network)
  })

  it('can be removed: its identifiers get DEVICE_REMOVAL, the peers DISCONNECTED; wildcards listen on a new device', () => {
    const { network, wire, a, b, deviceB } = twoEnds()
    const [wildcard, bound] = [b.listen(any4(PORT)), b.listen(ip4(2, PORT + 1))]
    const active = a.connect(ip4(2, PORT), 0x11)
    const request = requestOf(b, wildcard)
    b.cm.accept(request, parametersOf(0x22))
    a.eventNames(active)
    b.reported.length = 0
    unregister(deviceB)
    assert.deepEqual(b.eventNames(request), ['DEVICE_REMOVAL'])
    assert.deepEqual(b.eventNames(bound), ['DEVICE_REMOVAL'])
    assert.deepEqual([b.eventNames(wildcard), a.eventNames(active)], [[], ['DISCONNECTED']])
    plug(b, wire, 4)
    const again = a.connect(ip4(4, PORT), 0x12)
    b.cm.destroy(request)
    const second = requestOf(b, wildcard)
    for (const id of [active, again]) a.cm.destroy(id)
    for (const id of [wildcard, bound, second]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('moves queue pairs itself: rdma_cm only moves them to INIT', () => {
    const { a, b, deviceA, deviceB } = twoEnds()
    const listener = b.listen(ip4(2, PORT))
    const [qpA, qpB] = [queuePair(deviceA), queuePair(deviceB)]
    const active = a.create()
    connectQueuePair(a.cm, active, qpA, parametersOf(0), ip4(2, PORT))
    acceptWithQueuePair(b.cm, requestOf(b, listener), qpB, parametersOf(0))
    assert.deepEqual(a.eventNames(active), ['ESTABLISHED'])
    assert.deepEqual([(active.connection as PairConnection).qpn, active.qpn], [qpA.state.qpn, qpA.state.qpn])
    assert.deepEqual([qpA.state.states, qpB.state.states], [[INIT], [INIT]])
  })
})
