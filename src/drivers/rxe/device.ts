/*
 * The soft device: joins core's objects, an engine and a port (ARCHITECTURE.md).
 *
 * Core passes calls to the class handlers. `poll` moves work requests and packets; the owner of the device (the
 * daemon's loop, the library's network) calls it after a doorbell, after the port's `wake`, and at `nextTimeout`. Rings
 * lie in the context's memory, messages in the memory of the calling process, and packets in the port's memory.
 */
import { driverClass } from '../../core/devices/driver.ts'
import { setGid } from '../../core/devices/gids.ts'
import { register } from '../../core/devices/registry.ts'
import { raiseObjectEvent } from '../../core/events/events.ts'
import { type Context, type Core, type Device, type Driver, Lifecycle } from '../../core/model.ts'
import { findHandle } from '../../core/objects/handles.ts'
import { objectsDownwards } from '../../core/objects/lifetime.ts'
import { nextTurn } from '../../host/event-loop/next-turn.ts'
import { emptyRun, type Port } from '../../phy/port.ts'
import { createCause } from '../../spec/check/causes.ts'
import { CmChannel } from '../../spec/classes/connections/cm_channel.ts'
import { CmId, CmMulticast } from '../../spec/classes/connections/cm_id.ts'
import { Device as DeviceClass } from '../../spec/classes/device/device.ts'
import { Interface } from '../../spec/classes/device/interface.ts'
import { IpInterface, IpSocket } from '../../spec/classes/device/ip.ts'
import { Port as PortClass } from '../../spec/classes/device/port.ts'
import { AsyncFd } from '../../spec/classes/events/async_fd.ts'
import { CompChannel } from '../../spec/classes/events/comp_channel.ts'
import { EventQueue } from '../../spec/classes/events/event_queue.ts'
import { MadAgent } from '../../spec/classes/mad/mad_agent.ts'
import { MadChannel } from '../../spec/classes/mad/mad_channel.ts'
import { Mr } from '../../spec/classes/mr.ts'
import { Mw } from '../../spec/classes/mw.ts'
import { RXE_ABI, RXE_DRIVER_ID } from '../../spec/drivers/rxe.ts'
import { AsyncEventType, GidType, QpState } from '../../spec/enums.ts'
import { mtuBytes, mtuEnum } from '../../spec/mtu.ts'
import { MULTICAST_QPN } from '../../spec/wire/headers.ts'
import { createEngine, type Engine } from '../../transport/engine.ts'
import { MAX_PACED_BYTES } from '../../transport/flow-control/peer-window-accounting.ts'
import type { Environment } from '../../transport/types.ts'
import { bthDestQp } from '../../wire/bth.ts'
import type { Identity } from './address/identity.ts'
import { localPeerDeviceOf } from './address/local-device.ts'
import { createGroups } from './address/multicast.ts'
import { routeOf } from './address/route.ts'
import { deviceAttributes, extendedAttributes, Limits, portAttributes } from './attributes.ts'
import { ahClass, pdClass } from './classes/ah-class.ts'
import { cqClass, cqCompletions, failOverrunQps } from './classes/cq-class.ts'
import { datagramQpClasses } from './classes/datagram-qp-classes.ts'
import { qpClasses } from './classes/qp-class.ts'
import { srqClass, xrcSrqClass } from './classes/srq-class.ts'
import { findSrqOfDomain, xrcQpClasses } from './classes/xrc-qp-class.ts'
import { xrcdClass } from './classes/xrcd-class.ts'
import { openDatagrams, openManagement } from './core-queues.ts'
import { createFailures } from './failures.ts'
import { regionMemory } from './memory.ts'
import { watchRequests } from './requests/request-feed.ts'
import { createPostScan, ScanScope, SLICE_ROWS } from './rings/posts.ts'
import { ringWork } from './rings/work-source.ts'
import { createSlots } from './slots.ts'
import { AttributeBits, createNumbers, FIRST_QPN, FIRST_SRQN, type QpObject, type RxeState } from './state.ts'
import type { Torment } from './torment/torment.ts'

export interface RxeDevice {
  readonly device: Device<RxeState>
  readonly state: RxeState
  /**
   * Processes work requests, packets and timers; true if there was anything to do. `now` in microseconds; `scope`
   * selects the queues that are checked for new requests, by default all.
   */
  poll(now: number, scope?: ScanScope): boolean
  /** Whether a round over all queues has slices left (`ScanScope.CONTINUE`). */
  isUnfinished(): boolean
  /**
   * Passes new requests of the queue pairs named by `onDoorbell` to the engine, as `poll` does first. True if there
   * were any.
   */
  scanChanged(): boolean
  /** Requests were posted to the queue pair with this handle. The handle of no queue pair is ignored. */
  onDoorbell(context: Context, handle: number): void
  /**
   * Whether `poll` has anything to do before the next timer, provided that every post was reported by `onDoorbell`.
   * Always true with a port that cannot tell whether runs wait (`Port.isWaiting`).
   */
  hasWork(): boolean
  /** The time, in microseconds, at which `poll` must be called even if nothing else happens; Infinity for never. */
  nextTimeout(): number
}

export interface RxeOptions {
  readonly name: string
  readonly identity: Identity
  readonly port: Port
  /** The clock of `poll`, microseconds. */
  readonly now: () => number
  /** `--torment` of the network; absent without it. */
  readonly torment?: Torment | undefined
}

/** Names of the classes of queue pairs, which share one limit (max_qp). */
const qpNames = new Set([...qpClasses, ...datagramQpClasses, ...xrcQpClasses].map(({ class: cls }) => cls.name))

const { SQ_DRAINED } = AsyncEventType.values
const { RESET, ERR } = QpState.values

/** Moves all queue pairs but those in RESET to ERR: their programs see flushed completions. */
function* failAllQps({ qps, engine }: RxeState): Generator<void> {
  for (const qp of qps) {
    const before = qp === undefined ? RESET : engine().stateOf(qp.state.row)
    if (qp !== undefined && before !== RESET && before !== ERR)
      engine().modify(qp.state.row, ERR, {}, createCause('DEVICE_REMOVED', {}))
    yield
  }
}

/** Number of objects of a context that `resetQps` checks in one step. */
const OBJECTS_PER_STEP = 64

/** Resets the queue pairs of a context that closes: they neither send nor respond until they are destroyed. */
function* resetQps(context: Context, { qps, engine }: RxeState): Generator<void> {
  let remaining = OBJECTS_PER_STEP
  for (const object of objectsDownwards(context)) {
    const row = (object as QpObject | undefined)?.state?.row
    if (row !== undefined && qps[row] === object) engine().modify(row, RESET, {})
    if (--remaining > 0) continue
    yield
    remaining = OBJECTS_PER_STEP
  }
}

/** The driver record of all soft devices of a core without clients: they share one dispatch table. */
const rxeDriver: Driver<RxeState> = {
  name: 'rxe',
  id: RXE_DRIVER_ID,
  abi: RXE_ABI,
  link: 'roce',
  classes: [
    driverClass(Interface),
    driverClass(DeviceClass),
    driverClass(PortClass),
    pdClass,
    driverClass(Mr),
    driverClass(Mw),
    driverClass(CompChannel),
    driverClass(AsyncFd),
    driverClass(EventQueue),
    cqClass,
    ...qpClasses,
    ...datagramQpClasses,
    ...xrcQpClasses,
    ahClass,
    srqClass,
    xrcSrqClass,
    xrcdClass,
  ],
  removing: ({ state }) => failAllQps(state),
  closing: context => resetQps(context, context.device.state),
  openManagement: ({ state }, receive) => openManagement(state, receive),
  openDatagrams: ({ state, ports }, qkey, receive) =>
    openDatagrams(state, mtuBytes(ports[0]!.attributes.activeMtu), qkey, receive),
  removed({ state }) {
    state.torment?.close()
    state.port.close()
  },
  watch: (device, watcher, scratch) => device.state.watch(device, watcher, scratch),
}

/** The driver record for a core that has the classes of its clients (clients/clients.ts). */
const clientsDriver: Driver<RxeState> = {
  ...rxeDriver,
  classes: [
    ...rxeDriver.classes,
    ...[CmChannel, CmId, CmMulticast, MadChannel, MadAgent, IpInterface, IpSocket].map(cls => driverClass(cls)),
  ],
}

const driverFor = ({ classes }: Core): Driver<RxeState> =>
  classes.get(CmId.name)?.handlers.create === undefined ? rxeDriver : clientsDriver

/** Maximum calls of `Engine.pollTransmit` in one `poll`. A call ends when it has sent 1 MiB to local peers. */
const MAX_TRANSMIT_CALLS = 4

/** `peer` of a packet for queue pairs that send no acknowledgements. */
const NO_PEER = -1

/** Received bytes after which the runs are released to the port. */
const BURST_BYTES = 1 << 20

/**
 * A `poll` on a socket port that receives 1 to this many packets, and finds no new requests and no expired timer, does
 * not send, but the next one does: a program that receives a message may respond immediately, and the ACK and its
 * message then leave with one system call, which is the main cost of a small message.
 */
const DELAYED_ACK_PACKETS = 4

/**
 * Average rate at which unreliable queue pairs send on a port with a window
 * (transport/flow-control/peer-window.ts): the receiver's socket buffer must hold what arrives while the receiver is
 * not scheduled.
 */
const PACE_BYTES_PER_US = 500

/**
 * Registers a device of this driver. Throws CallError EEXIST for a name in use, EINVAL for an invalid name, and
 * SystemError if the port cannot use the device's addresses.
 */
export const createRxeDevice = (core: Core, options: RxeOptions): RxeDevice => {
  const { name, identity, now, torment } = options
  const port = torment?.port(options.port, name) ?? options.port
  // set last: the engine needs the device's memory table, the device its classes, and the classes the engine
  let engineOrNone: Engine | undefined
  const state: RxeState = {
    limits: torment?.limits(name) ?? Limits,
    identity,
    port,
    cqs: createSlots(),
    qpns: createNumbers(FIRST_QPN, core.random()),
    srqs: createSlots(),
    srqns: createNumbers(FIRST_SRQN),
    domains: new Map(),
    ahs: new Map(),
    ahns: createNumbers(1),
    groups: createGroups(port, Limits.multicast),
    qps: [],
    lastAddress: undefined,
    rings: [],
    releasedFlows: [],
    overrunQps: [],
    failures: createFailures(
      () => state,
      () => device as Device,
    ),
    feed: undefined,
    watch: (registered, watcher, scratch) => watchRequests(registered, work, completions, watcher, scratch),
    coreQueues: { byNumber: new Map(), waiting: 0 },
    addQueues: row => posts.add(row),
    recheck: row => posts.recheck(row),
    catchUp(row) {
      const hasUnseenSends = posts.hasUnseenSends(row)
      if (state.torment === undefined && !hasUnseenSends) return
      if (hasUnseenSends) posts.recheck(row)
      withoutDelays(() => poll(now(), ScanScope.CHANGED))
    },
    catchUpAll(isInProcess) {
      withoutDelays(() => poll(now(), isInProcess ? ScanScope.CHANGED : ScanScope.BEGIN))
      return isInProcess || !posts.isUnfinished() ? undefined : finishRound()
    },
    linkDowned: 0,
    now,
    torment: undefined,
    engine: () => engineOrNone as Engine,
  }

  /** Runs a poll on whose effects a call depends: `--torment` delays nothing meanwhile. */
  const withoutDelays = (run: () => boolean): boolean =>
    state.torment === undefined ? run() : state.torment.withoutDelays(run)

  // clients may watch the device as soon as it is registered
  const plainWork = ringWork(state.rings, findSrqOfDomain(state))
  const work = torment?.work(plainWork, state.rings) ?? plainWork
  let completions = cqCompletions(state)
  const attributes = deviceAttributes(identity.guid, state.limits)
  const device = register(core, {
    name,
    driver: driverFor(core),
    state,
    attributes,
    extended: extendedAttributes(),
    ports: [portAttributes(mtuEnum(port.pathMtu), () => state.engine().counters)],
    numCompVectors: Limits.compVectors,
    limits: {
      pd: attributes.maxPd,
      cq: attributes.maxCq,
      mr: attributes.maxMr,
      mw: attributes.maxMw,
      [[...qpNames].join(' ')]: attributes.maxQp,
      ah: attributes.maxAh,
      'srq xrc_srq': attributes.maxSrq,
    },
  })
  identity.gids.forEach((gid, index) => {
    setGid(device.ports[0].gids, index, { gid, type: GidType.values.ROCE_V2, ifindex: identity.interfaceIndex })
    port.addAddress(gid)
  })

  const run = emptyRun()
  const localDevice = localPeerDeviceOf(port, state.qpns)
  if (localDevice !== undefined) port.receiver = localDevice
  const plainEnvironment: Environment = {
    ...(localDevice && { localDevice }),
    route: routeOf(port, run),
    work,
    memory: regionMemory(device.memory),
    completions,
    causes: state.failures,
    events: {
      raise(row, type, cause) {
        const qp = state.qps[row]
        // a drained send queue raises an event only if the program has enabled it (IBV_QP_EN_SQD_ASYNC_NOTIFY)
        if (!qp || (type === SQ_DRAINED && (qp.state.attributeBits & AttributeBits.SQD_EVENT) === 0)) return
        state.failures.event(row, type, cause)
        for (const object of qp.state.openers ?? [qp]) raiseObjectEvent(object, type)
      },
    },
  }
  const deviceTorment = torment?.attach(device, plainEnvironment.memory, notify => {
    completions = cqCompletions(state, notify)
    state.feed?.watchCompletions(completions)
    return completions
  })
  state.torment = deviceTorment
  const environment = deviceTorment?.environment(plainEnvironment) ?? plainEnvironment
  const { windowBytes, sharedWindowBytes = 0 } = port
  // READs are requested in parts on a port without a window too (docs/decisions/reads-in-parts.md): fault rules may
  // drop responses, and the responses of one part stay in the processor's cache
  const engine = createEngine(environment, {
    boundReads: true,
    ...(windowBytes !== undefined && {
      windowBytes,
      sharedWindowBytes,
      pacingInterval: Math.min(windowBytes, MAX_PACED_BYTES) / PACE_BYTES_PER_US,
    }),
  })
  engineOrNone = engine
  const { onDoorbell } = deviceTorment?.doorbells(engine) ?? engine
  const postHandlers = {
    onDoorbell,
    onReceiveScan(row: number) {
      state.feed?.scanReceives(row)
      engine.onReceiveScan(row)
    },
  }
  const posts = createPostScan(state.rings, postHandlers, () => device.memory.windows > 0)
  // loaded from `state` once, because they are read for every run of packets
  const { rowOf } = state.qpns
  const { releasedFlows, coreQueues } = state

  /** Passes a packet of `run` to all queue pairs of its group. */
  const deliverToGroup = (at: number, length: number, time: number): void => {
    engine.counters.multicastReceived++
    const rows = state.groups.rowsOf(run.flowAddress.destination)
    if (rows.length === 0) engine.counters.dropped++
    for (let i = 0; i < rows.length; i++)
      if (rows[i] < 0) deliverToCore(-rows[i], at, length)
      else engine.onPacket(rows[i], port.arena, at, length, NO_PEER, time)
  }

  /** Passes a packet of `run` to a core client's queue pair, which has no row; drops it if the QPN is not in use. */
  const deliverToCore = (qpn: number, at: number, length: number): void => {
    const queue = coreQueues.byNumber.get(qpn)
    if (queue === undefined) engine.counters.dropped++
    else queue.onPacket(port.arena, at, length, run.flowAddress)
  }

  /** Passes the packets of `run` to their queue pairs. */
  const deliverRun = (time: number): void => {
    const { arena } = port
    const { count, packetBytes, lastBytes, peer } = run
    let qpn = -1
    let row = -1
    for (let i = 0, at = run.offset; i < count; ) {
      const destQpn = bthDestQp(arena.view, at)
      if (destQpn !== qpn) {
        qpn = destQpn
        row = rowOf(destQpn)
      }
      let packets = 1
      if (destQpn === MULTICAST_QPN) deliverToGroup(at, i === count - 1 ? lastBytes : packetBytes, time)
      else if (row < 0) deliverToCore(destQpn, at, i === count - 1 ? lastBytes : packetBytes)
      else packets = engine.onRun(row, arena, at, packetBytes, count - i, lastBytes, peer, time)
      i += packets
      at += packets * packetBytes
    }
  }

  /** Packets that the last `deliver` has received. */
  let receivedPackets = 0
  /** Whether the last `poll` has left sending to the next one (DELAYED_ACK_PACKETS). */
  let isHeld = false
  /** Only socket ports, whose system calls are expensive, have a window. */
  const mayHold = port.windowBytes !== undefined

  const deliver = (time: number): boolean => {
    receivedPackets = 0
    if (!port.receive(run)) return false
    let unreleased = 0
    do {
      deliverRun(time)
      receivedPackets += run.count
      unreleased += run.count * run.packetBytes
      // Deferred payloads still lie in the runs: they are written before the port gets the runs back, once for all
      // runs, since a message may lie in several.
      if (unreleased >= BURST_BYTES) {
        engine.endBurst()
        port.release()
        unreleased = 0
      }
    } while (port.receive(run))
    engine.endBurst()
    port.release()
    return true
  }

  /** Sends until nothing is left, the port is full, or MAX_TRANSMIT_CALLS are made; true if anything was sent. */
  const transmit = (time: number): boolean => {
    // the engine's counter includes packets that a fault layer drops, the port's does not
    const { counters } = engine
    const start = counters.sentPackets
    let before: number
    let callsLeft = MAX_TRANSMIT_CALLS
    do before = counters.sentPackets
    while (engine.pollTransmit(port, time) && counters.sentPackets !== before && --callsLeft > 0)
    if (coreQueues.waiting > 0) for (const queue of coreQueues.byNumber.values()) queue.transmit()
    port.flush()
    return counters.sentPackets !== start
  }

  /**
   * Checks the rest of the queues, a slice in each iteration of the event loop. The number of slices is bounded,
   * because the daemon's loop may begin new rounds meanwhile.
   */
  const finishRound = async (): Promise<void> => {
    for (let slices = state.rings.length / SLICE_ROWS; slices > 0 && posts.isUnfinished(); slices--) {
      await nextTurn()
      if (device.isAlive) withoutDelays(() => poll(now(), ScanScope.CONTINUE))
    }
  }

  const poll = (time: number, scope: ScanScope = ScanScope.ALL): boolean => {
    let progress = posts.scan(scope)
    if (deviceTorment !== undefined) progress = deviceTorment.poll(time) || progress
    if (time >= port.nextTimeout()) port.onTimeout(time)
    const wasHeld = isHeld
    isHeld = mayHold && !isHeld && !progress
    // before timeouts: if this process was not scheduled for a while, an ACK that arrived in time is still in the port
    if (!wasHeld) progress = deliver(time) || progress
    isHeld = isHeld && receivedPackets > 0 && receivedPackets <= DELAYED_ACK_PACKETS
    if (time >= engine.nextTimeout()) {
      engine.onTimeout(time)
      progress = true
      isHeld = false
    }
    if (!isHeld && (mayHold || !engine.isIdle() || coreQueues.waiting > 0)) progress = transmit(time) || progress
    while (releasedFlows.length > 0) port.closeFlow(releasedFlows.pop() as number)
    if (state.overrunQps.length > 0) failOverrunQps(state)
    return progress
  }

  return {
    device,
    state,
    poll,
    isUnfinished: posts.isUnfinished,
    scanChanged: () => posts.scan(ScanScope.CHANGED),
    onDoorbell(context, handle) {
      const object = findHandle(context.handles, handle) as QpObject | undefined
      if (object === undefined || object.life !== Lifecycle.LIVE) return
      // the handle may be that of another object: only queue pairs have rows
      const row = object.state?.row
      if (row !== undefined && state.qps[row] === object) posts.recheck(row)
    },
    hasWork: () =>
      posts.hasChanges() ||
      !engine.isIdle() ||
      coreQueues.waiting > 0 ||
      port.isWaiting === undefined ||
      port.isWaiting() ||
      state.overrunQps.length > 0,
    nextTimeout: () =>
      Math.min(engine.nextTimeout(), port.nextTimeout(), deviceTorment?.nextTimeout() ?? Number.POSITIVE_INFINITY),
  }
}
