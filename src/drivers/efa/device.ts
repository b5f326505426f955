/*
 * EFA devices, as Amazon's adapters: rdma-core's provider `efa` drives them (docs/decisions/efa.md). Queues and
 * doorbells are memory that the program maps; requests are found by reading doorbells at each poll.
 */
import { driverClass } from '../../core/devices/driver.ts'
import { setGid } from '../../core/devices/gids.ts'
import type { Identity } from '../../core/devices/identity.ts'
import { lowered } from '../../core/devices/lower-limits.ts'
import { register } from '../../core/devices/registry.ts'
import {
  type DeviceLink,
  type DeviceQueues,
  type LayerCounts,
  type NetworkDevice,
  type QpFacts,
  type RegisteredDriver,
  type RequestReader,
  ScanScope,
} from '../../core/driver-contract.ts'
import { lastFailure } from '../../core/failures.ts'
import type { Context, Core, CoreObject, Device } from '../../core/model.ts'
import { PeerTable } from '../../core/objects/peer-table.ts'
import { failureJson } from '../../spec/check/failures.ts'
import { Interface } from '../../spec/classes/device/interface.ts'
import { PortClass } from '../../spec/classes/device/port.ts'
import { AsyncFd } from '../../spec/classes/events/async_fd.ts'
import { CompChannel } from '../../spec/classes/events/comp_channel.ts'
import { EventQueueClass } from '../../spec/classes/events/event_queue.ts'
import { EFA_ABI, EFA_DRIVER_ID, EfaAbi } from '../../spec/drivers/efa.ts'
import { GidType, NodeType, QpState } from '../../spec/enums.ts'
import { createTimers } from '../../transport/engine/timers.ts'
import { emptyRun, flowsOfPeers } from '../../transport/phy/port.ts'
import type { RoceSite } from '../roce-site.ts'
import { setPortState, withCarrier } from '../soft/port-state.ts'
import { deviceAttributes, extendedAttributes, Limits, mtuOf, portAttributes, Senders } from './attributes.ts'
import { ahClass, cqClass, deviceClass, mrClass, pdClass } from './classes.ts'
import { polledOf, readCqDoorbell } from './completions.ts'
import { createCounts, type EfaState } from './device-state.ts'
import { attachTorment, failQueuePair, nextTimeout, poll, readDoorbells } from './engine.ts'
import { SCRATCH_BYTES } from './engine-common.ts'
import { srdClass, udClass } from './qp-classes.ts'
import { emptyReceive, outstandingSends, pendingElements, postedReceives, tableKey } from './requests.ts'
import { QueueScan } from './scan.ts'
import { type CqObject, createNumbers, type QpObject } from './state.ts'
import { Turns } from './turns.ts'
import { waitsOfDevice } from './waits.ts'

const { ERR } = QpState.values
const stateNames = Object.entries(QpState.values)

const isQp = (object: CoreObject): object is QpObject => 'qpn' in ((object.state ?? {}) as object)

/** Maximum rounds of `settle`. */
const MAX_ROUNDS = 16

const requestReader: RequestReader = {
  numbered: 'request',
  tableKey,
  receives: (queue, from) =>
    isQp(queue) && queue.state.receive !== undefined && queue.context !== undefined
      ? postedReceives(queue.context.device.memory, queue.state.receive, from)
      : [],
  queuesOf: context => [...(context.device.state as EfaState).qps.values()].filter(qp => qp.context === context),
  completions: cq => {
    const { produced, lastError } = (cq as CqObject).state
    return { written: produced, polled: polledOf(cq as CqObject), lastError }
  },
  pendingSends: qp => outstandingSends((qp as QpObject).state),
  settle(object) {
    const { state: qp, context } = object as QpObject
    const { state, core } = context!.device as Device<EfaState>
    readDoorbells(state, qp)
    for (let round = 0; round < MAX_ROUNDS && outstandingSends(qp) > 0; round++)
      if (!poll(state, core.now(), ScanScope.CHANGED)) return
  },
}

export const efaDriver = {
  name: 'efa',
  id: EFA_DRIVER_ID,
  abi: EFA_ABI,
  linux: EfaAbi,
  hasAddress: true,
  canBeSilent: true,
  nodeType: NodeType.values.UNSPECIFIED,
  settableLimits: ['max_qp', 'max_cq', 'max_mr', 'max_pd', 'max_ah', 'max_pinned'],
  classes: [
    driverClass(Interface),
    deviceClass,
    driverClass(PortClass),
    pdClass,
    mrClass,
    driverClass(CompChannel),
    driverClass(AsyncFd),
    driverClass(EventQueueClass),
    cqClass,
    udClass,
    srdClass,
    ahClass,
  ],
  createDevice: (core: Core, name: string, site: RoceSite): NetworkDevice => createEfaDevice(core, name, site),
  *removing({ state }) {
    for (const { state: qp } of state.qps.values()) {
      qp.state = ERR
      failQueuePair(state, qp)
      yield
    }
    state.torment?.close()
  },
  removed: ({ state }) => state.port.close(),
  requests: requestReader,
} satisfies RegisteredDriver<EfaState>

const lastErrorOf = (context: Context | undefined, qpn: number): Pick<QpFacts, 'lastError'> => {
  const failure = context && lastFailure(context.device, qpn)
  return failure === undefined ? {} : { lastError: failureJson(failure) }
}

const qpFacts = ({ class: { name }, context, state: qp }: QpObject): QpFacts => ({
  qpn: qp.qpn,
  type: name,
  state: stateNames.find(([, number]) => number === qp.state)![0],
  send: { pending: outstandingSends(qp), depth: qp.cap.maxSendWr },
  receive: { pending: qp.receive === undefined ? 0 : pendingElements(qp.receive), depth: qp.cap.maxRecvWr },
  psn: { next: 0, expected: 0 },
  ...lastErrorOf(context, qp.qpn),
})

const deviceQueues = ({ qps }: EfaState): DeviceQueues => ({
  qpOfNumber: qpn => qps.get(qpn),
  qp: object =>
    isQp(object)
      ? { qpn: object.state.qpn, port: 1, state: object.state.state, destQpn: 0, rqPsn: 0, sqPsn: object.state.sqPsn }
      : undefined,
  cqEntries: cq => (cq as CqObject).state.entries,
  list(from, max) {
    const all = [...qps.values()].slice(from)
    const found = all.slice(0, max).map(qp => ({ facts: qpFacts(qp), context: qp.context }))
    return all.length > max ? { qps: found, next: from + max } : { qps: found }
  },
})

/**
 * The device follows its interface: the port's state, and the identity. Width, speed and MTU are the adapter's; the
 * only GID is the device's address, as on Amazon's adapters, so other addresses make none.
 */
const deviceLink = ({ state: { port }, ports }: Device<EfaState>, own: Identity): DeviceLink => {
  let identity = own
  return {
    get identity() {
      return identity
    },
    pathMtu: port.pathMtu,
    ...withCarrier(link => setPortState(ports[0]!.attributes, link).event),
    addAddress: () => undefined,
    removeAddress: () => undefined,
    setMac: () => [],
    moveTo(interfaceName, interfaceIndex) {
      identity = { ...identity, interfaceName, interfaceIndex }
      port.setInterface?.(interfaceIndex)
    },
  }
}

/** Registers a device of this driver. Throws CallError EEXIST, EINVAL, and the errors of `Port.addAddress`. */
const createEfaDevice = (core: Core, name: string, { allocate, network }: RoceSite): NetworkDevice => {
  const { identity } = network
  const attributes = lowered(name, deviceAttributes(identity.guid), network.limits)
  const port = network.attach()
  const gid = identity.gids.at(-1)!
  port.addAddress(gid)
  const mtu = mtuOf(port.pathMtu)
  const isReused = network.torment?.reuses(name) === true
  const state: EfaState = {
    kind: 'efa',
    gid,
    port,
    mtu,
    device: () => device,
    counts: createCounts(),
    now: 0,
    qps: new Map(),
    cqs: new Map(),
    scan: new QueueScan(queue => (isQp(queue) ? readDoorbells(state, queue.state) : readCqDoorbell(queue))),
    ahs: new Map(),
    qpns: createNumbers(1, Limits.maxQp, isReused),
    cqNumbers: createNumbers(1, Limits.maxCq + 1),
    ahNumbers: createNumbers(1, Limits.maxAh),
    memory: undefined,
    scratch: allocate(SCRATCH_BYTES),
    range: { hi: 0, lo: 0, length: 0, key: 0, written: 0 },
    request: undefined,
    receive: emptyReceive(),
    arrival: {
      ...{ id: 0, operation: 0, length: 0, hasImm: false, imm: 0 },
      ...{ sourceQpn: 0, source: undefined, isUnsolicited: false },
    },
    peers: { byText: new Map(), free: [], bySource: [], strangers: new Map() },
    transfers: [],
    turns: new Turns(network.now),
    timers: createTimers(),
    timed: [],
    timerRows: [],
    run: emptyRun(),
    ready: new Set(),
    senders: new PeerTable('senders of SRD packets', Senders.max, Senders.bytes),
    addresses: new PeerTable(
      'addresses of senders of SRD packets',
      Math.min(Senders.maxAddresses, flowsOfPeers(port)),
      0,
    ),
    writes: new PeerTable('incomplete WRITEs of peers', Number.POSITIVE_INFINITY, Senders.writeBytes),
    responses: new PeerTable('READs of peers with data in flight', Number.POSITIVE_INFINITY, Senders.responseBytes),
    sender: { address: new Uint8Array(16), text: '', peer: undefined },
    opened: 0,
    toAcknowledge: [],
    forgetAt: 0,
    torment: undefined,
  }
  port.receiver = state
  const device: Device<EfaState> = register(core, {
    name,
    random: network.torment?.random(),
    driver: efaDriver,
    state,
    attributes,
    extended: extendedAttributes(),
    ports: [portAttributes(mtu, network.adapter?.rate)],
    numCompVectors: Limits.compVectors,
    limits: {
      pd: attributes.maxPd,
      cq: attributes.maxCq,
      mr: attributes.maxMr,
      'ud_qp driver_qp': Math.min(attributes.maxQp, Limits.maxQp - 1),
      ah: Math.min(attributes.maxAh, Limits.maxAh - 1),
    },
    set: network.limits,
  })
  if (isReused) device.memory.freedKeys = []
  if (network.torment !== undefined) attachTorment(state, network.torment, network.now)
  setGid(device.ports[0]!.gids, 0, { gid, type: GidType.values.IB, ifindex: 0 })
  return {
    device: device as Device,
    poll: (time, scope) => poll(state, time, scope),
    nextTimeout: () => nextTimeout(state),
    counters: (): LayerCounts => ({ engine: {}, port: { ...port.counters }, hardware: state.counts }),
    queues: deviceQueues(state),
    waits: () => waitsOfDevice(state),
    link: deviceLink(device, network.identity),
  }
}
