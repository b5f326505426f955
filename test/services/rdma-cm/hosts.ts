/*
 * Hosts in virtual time, connected by one memory link. A host is a core with soft devices, the MAD layer and rdma_cm.
 * The test is the consumer of all events.
 */
import assert from 'node:assert/strict'
import { createRandom } from '../../../src/base/random.ts'
import { identify } from '../../../src/core/devices/identity.ts'
import type { ConnectionParameters, QpAttributes } from '../../../src/core/driver-contract.ts'
import { createCore, unregister } from '../../../src/core/index.ts'
import type { Core, Device } from '../../../src/core/model.ts'
import { createRxeDevice, type RxeDevice } from '../../../src/drivers/rxe/device.ts'
import { parseFaults } from '../../../src/faults/rules.ts'
import { type ClientEnvironment, Clients, classesWithClients } from '../../../src/services/clients.ts'
import { IbConnection } from '../../../src/services/cm-client/connection.ts'
import type { CmConnection } from '../../../src/services/cm-engine/connection.ts'
import type { CmEngine } from '../../../src/services/cm-engine/engine.ts'
import type { MadLayer } from '../../../src/services/mad-client/layer.ts'
import type { CmDevice, Identifier, IdOwner } from '../../../src/services/rdma-cm/identifier.ts'
import type { EventDetails } from '../../../src/services/rdma-cm/parameters.ts'
import { qpAttributesFor } from '../../../src/services/rdma-cm/qp-attributes.ts'
import type { RdmaCm } from '../../../src/services/rdma-cm/rdma-cm.ts'
import { Family, ipAddress } from '../../../src/services/socket-address.ts'
import { CmConnectionParameters, type SocketAddress } from '../../../src/spec/classes/connections/cm_parameters.ts'
import { CmEventType, CmPortSpace } from '../../../src/spec/enums.ts'
import { zeroRecord } from '../../../src/spec/schema/schema.ts'
import { withFaults } from '../../../src/transport/phy/faults/layer.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../../src/transport/phy/memory.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { rdmaCmServiceId } from '../../../src/transport/wire/mad/mad.ts'
import { ipv4, ipv6 } from '../../drivers/rxe/machine.ts'

const typeNames = Object.fromEntries(Object.entries(CmEventType.values).map(([name, value]) => [value, name]))

export interface ReportedEvent {
  readonly id: Identifier
  readonly name: string
  readonly details: EventDetails
  readonly request: Identifier | undefined
}

/** Stores the events of an identifier in the host. */
class Consumer implements IdOwner {
  readonly #host: Host
  id: Identifier | undefined

  constructor(host: Host) {
    this.#host = host
  }

  event(type: number, details: EventDetails, request?: Identifier): void {
    assert.ok(this.id)
    this.#host.reported.push({ id: this.id, name: typeNames[type] ?? String(type), details, request })
  }

  createRequest({
    portSpace,
    qpType,
  }: {
    readonly portSpace: number
    readonly qpType: number
  }): Identifier | undefined {
    return this.#host.refusesRequests ? undefined : this.#host.create(portSpace, qpType)
  }
}

/** Parameters of `connect` or `accept`. `data` is the private data. */
export const parametersOf = (qpNum: number, data = new Uint8Array(0)): ConnectionParameters => {
  const zero = zeroRecord(CmConnectionParameters)
  zero.privateData.set(data)
  return { ...zero, qpNum, privateDataLength: data.length, retryCount: 7, rnrRetryCount: 7, responderResources: 1 }
}

/** The connection of InfiniBand's connection manager. */
export const cmOf = (id: Identifier): CmConnection => {
  assert.ok(id.connection instanceof IbConnection)
  return id.connection.cm
}

export const attributesOf = (id: Identifier, state: number): QpAttributes => {
  const attributes = qpAttributesFor(id, state)
  assert.ok(attributes)
  return attributes
}

export class Host {
  readonly core: Core
  readonly clients: Clients
  readonly reported: ReportedEvent[] = []
  readonly devices = new Map<string, RxeDevice>()
  readonly #network: VirtualNetwork
  /** True: the consumer creates no identifiers for requests. Requests are then dropped. */
  refusesRequests = false

  constructor(network: VirtualNetwork, seed: number, environment: Partial<ClientEnvironment>, startsRdmaCm: boolean) {
    this.#network = network
    this.core = createCore({ ...classesWithClients(() => this.clients), random: createRandom(seed) })
    this.clients = new Clients(this.core, { now: () => network.now, random: createRandom(seed + 1), ...environment })
    if (startsRdmaCm) this.clients.use('rdma_cm')
  }

  get mads(): MadLayer {
    return this.clients.use('mad')
  }

  get cm(): RdmaCm {
    return this.clients.use('rdma_cm')
  }

  get engine(): CmEngine {
    return this.clients.use('ib_cm').engine
  }

  /** Adds the device rxeN with addresses 10.0.0.N and fd00::N. */
  plug(number: number, fault = ''): Device {
    const name = `rxe${number}`
    const identityWithoutIpv6 = identify(ipv4(10, 0, 0, number), { name: 'lo', index: 1 })
    const port = withFaults(this.#network.link.attach(), name, parseFaults(fault))
    const identity = { ...identityWithoutIpv6, gids: [...identityWithoutIpv6.gids, ipv6(number)] }
    const rxe = createRxeDevice(this.core, { name, identity, port, now: () => this.#network.now })
    this.devices.set(name, rxe)
    return rxe.device
  }

  unplug(number: number): void {
    const name = `rxe${number}`
    const rxe = this.devices.get(name)
    assert.ok(rxe)
    this.devices.delete(name)
    unregister(rxe.device)
  }

  /** `qpType` 0: RC, but UD in port spaces UDP and IPOIB. */
  create(portSpace: number = CmPortSpace.values.TCP, qpType = 0, onlyDevice?: CmDevice): Identifier {
    const consumer = new Consumer(this)
    const id = this.cm.create(consumer, portSpace, qpType, onlyDevice)
    consumer.id = id
    return id
  }

  listen(address: SocketAddress, { backlog = 0, portSpace = CmPortSpace.values.TCP as number } = {}): Identifier {
    const id = this.create(portSpace)
    this.cm.bind(id, address)
    this.cm.listen(id, backlog)
    return id
  }

  /** Creates an identifier, resolves the address and sends the REQ or SIDR_REQ. */
  connect(
    to: SocketAddress,
    qpn: number,
    { portSpace = CmPortSpace.values.TCP as number, data = new Uint8Array(0) } = {},
  ) {
    const id = this.create(portSpace)
    this.resolve(id, to)
    this.cm.connect(id, parametersOf(qpn, data))
    return id
  }

  resolve(id: Identifier, to: SocketAddress): void {
    this.cm.resolveAddress(id, to, undefined)
    this.cm.resolveRoute(id)
  }

  /** Returns the names of an identifier's events, and clears the events. */
  eventNames(id: Identifier): string[] {
    return this.take(id).map(({ name }) => name)
  }

  /** Returns the events of an identifier, and clears them. */
  take(id: Identifier): ReportedEvent[] {
    const found = this.reported.filter(reported => reported.id === id)
    for (const reported of found) this.reported.splice(this.reported.indexOf(reported), 1)
    return found
  }

  /** Returns the requests that a listener has received, and clears its events. */
  requests(listener: Identifier): Identifier[] {
    return this.take(listener).flatMap(({ request }) => request ?? [])
  }
}

export class VirtualNetwork {
  /** Microseconds. */
  now = 1
  readonly link = createMemorySwitch({ arena: plainArena(memorySwitchBytes(64, 256)), runs: 64, smallRuns: 256 })
  readonly hosts: Host[] = []

  /** `startsRdmaCm`: rdma_cm starts before any device exists. */
  host(environment: Partial<ClientEnvironment> = {}, startsRdmaCm = true): Host {
    const host = new Host(this, 2 * this.hosts.length + 1, environment, startsRdmaCm)
    this.hosts.push(host)
    return host
  }

  /** Runs until nothing changes, without advancing time. */
  settle(): void {
    for (let turn = 0; turn < 100_000; turn++) {
      let progress = false
      for (const { devices, clients } of this.hosts) {
        for (const device of devices.values()) progress = device.poll(this.now) || progress
        progress = clients.onTimeout(this.now) || progress
      }
      if (!progress) return
    }
    assert.fail('the hosts still have work after many polls')
  }

  /** Advances time to the next timer, and settles; false if no timer runs. */
  tick(): boolean {
    const timers = this.hosts.flatMap(({ clients, devices }) => [
      clients.nextTimeout(),
      ...[...devices.values()].map(device => device.nextTimeout()),
    ])
    const due = Math.min(...timers)
    if (due === Number.POSITIVE_INFINITY) return false
    this.now = Math.max(this.now, due)
    this.settle()
    return true
  }

  /** Runs until no timer is left. */
  runTimers(): void {
    this.settle()
    for (let turn = 0; this.tick(); turn++) assert.ok(turn < 10_000_000, 'timers do not end')
  }
}

/** The socket addresses 10.0.0.N and fd00::N, and the wildcards. */
export const ip4 = (last: number, port: number): SocketAddress => ipAddress(ipv4(10, 0, 0, last), port)
export const ip6 = (last: number, port: number): SocketAddress => ipAddress(ipv6(last), port)
export const any4 = (port: number): SocketAddress => ({ ...ipAddress(ipv4(0, 0, 0, 0), port), family: Family.INET })
export const any6 = (port: number): SocketAddress => ({ ...ipAddress(new Uint8Array(16), port), family: Family.INET6 })

/** AF_IB: the GID of an address, and the service id of its port. */
export const byGid = ({ address, port }: SocketAddress, portSpace: number = CmPortSpace.values.TCP): SocketAddress => ({
  ...ipAddress(address, port),
  family: Family.IB,
  serviceId: rdmaCmServiceId(portSpace, port),
  serviceMask: (1n << 64n) - 1n,
})

/** Host `a` with device rxe1 (10.0.0.1), host `b` with rxe2 (10.0.0.2). */
export const twoHosts = (fault = ''): { network: VirtualNetwork; a: Host; b: Host } => {
  const network = new VirtualNetwork()
  const [a, b] = [network.host(), network.host()]
  a.plug(1, fault)
  b.plug(2, fault)
  return { network, a, b }
}

/** An established connection from `a` to a listener of `b`. */
export const establish = (
  network: VirtualNetwork,
  a: Host,
  b: Host,
  listener: Identifier,
  qpns: readonly [number, number],
  to = listener.source,
) => {
  assert.ok(to)
  const active = a.connect(to, qpns[0])
  network.settle()
  const [passive] = b.requests(listener)
  assert.ok(passive, 'no request has arrived')
  b.cm.accept(passive, parametersOf(qpns[1]))
  network.settle()
  a.cm.accept(active, undefined)
  network.settle()
  return { active, passive }
}

/** Runs all timers, and asserts that rdma_cm has no objects. */
export const assertNothingLeft = (network: VirtualNetwork): void => {
  network.runTimers()
  for (const { cm } of network.hosts) assert.deepEqual(cm.counts, { identifiers: 0, listeners: 0, connections: 0 })
}
