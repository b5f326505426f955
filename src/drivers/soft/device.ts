/*
 * The soft device: joins core's objects, an engine and a port (ARCHITECTURE.md). Several drivers are made of it, each
 * with its queue format (format.ts) and attributes.
 *
 * Core passes calls to the class handlers. `poll` moves work requests and packets. The daemon's loop or the library's
 * network calls `poll` after a doorbell, after the port's `wake`, and at `nextTimeout`.
 */
import type { Identity } from '../../core/devices/identity.ts'
import { lowered } from '../../core/devices/lower-limits.ts'
import { register } from '../../core/devices/registry.ts'
import {
  type AdapterFacts,
  type ContextWait,
  createTaps,
  type DeviceLink,
  type DeviceQueues,
  type Driver,
  type FabricOptions,
  type LayerCounts,
  type LinkedDevice,
  type RegisteredDriver,
  ScanScope,
} from '../../core/driver-contract.ts'
import { raiseObjectEvent } from '../../core/events/events.ts'
import { type Context, type Core, type Device, Lifecycle } from '../../core/model.ts'
import { findHandle } from '../../core/objects/handles.ts'
import { objectsDownwards } from '../../core/objects/lifetime.ts'
import { nextTurn } from '../../host/event-loop/next-turn.ts'
import { createCause } from '../../spec/check/causes.ts'
import type { DeviceAttributes, ExtendedDeviceAttributes } from '../../spec/classes/device/device.ts'
import { QpTypes } from '../../spec/classes/qp/qp.ts'
import { type DeviceLimits, deviceLimitNames } from '../../spec/device-limits.ts'
import { AsyncEventType, QpState } from '../../spec/enums.ts'
import type { ErrnoName } from '../../spec/errno.ts'
import type { EthernetLink } from '../../spec/link-rate.ts'
import type { LinkName } from '../../spec/links.ts'
import { mtuBytes, mtuEnum } from '../../spec/mtu.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'
import { SMI_QPN } from '../../spec/wire/subnet.ts'
import { bytesPerMicrosecond, dcqcnParameters } from '../../transport/engine/congestion/dcqcn.ts'
import { createEngine, type Engine } from '../../transport/engine/engine.ts'
import { MAX_PACED_BYTES } from '../../transport/engine/flow-control/peer-window-accounting.ts'
import { PollResult } from '../../transport/engine/scheduling.ts'
import type { Environment, FrameSink } from '../../transport/engine/types.ts'
import { emptyRun, type Port, type ReceivedRun } from '../../transport/phy/port.ts'
import { ECN_CAPABLE } from '../../transport/wire/flow.ts'
import { infinibandPaths } from './address/infiniband.ts'
import { localPeerDeviceOf } from './address/local-device.ts'
import { createGroups } from './address/multicast.ts'
import { rocePaths } from './address/path.ts'
import { Limits, portAttributes, type QueueLimits } from './attributes.ts'
import { findSrqOfDomain } from './classes/xrc-qp-class.ts'
import { isSilent, withCompletionFaults } from './completion-faults.ts'
import { cqCompletions, failQps } from './completions.ts'
import { openDatagrams, openManagement } from './core-queues.ts'
import { PacketDelivery } from './delivery.ts'
import { createFailures } from './failures.ts'
import { fabricAttributes, InfinibandPort } from './infiniband-port.ts'
import { addGid, deviceLink, setDefaultGid } from './interface.ts'
import { regionMemory } from './memory.ts'
import { createPostScan, type PostScan, SLICE_ROWS } from './posts.ts'
import { queueWork } from './queues.ts'
import { deviceQueues } from './resources.ts'
import { createSlots } from './slots.ts'
import {
  AttributeBits,
  createNumbers,
  FIRST_CQN,
  FIRST_QPN,
  FIRST_SRQN,
  openersOf,
  type QpObject,
  type SoftState,
} from './state.ts'
import { engineTaps, requestReader, tapReceives } from './taps.ts'
import type { DeviceTorment, Torment } from './torment/torment.ts'
import { tellViolations } from './violations.ts'
import { rnrWaitOf, waitsOfDevice } from './waits.ts'

/**
 * A soft device: what its owner polls, and what a program's own event loop that drives it needs in addition
 * (library/network/).
 */
export interface SoftDevice<Own = unknown> extends LinkedDevice {
  readonly device: Device<SoftState<Own>>
  readonly queues: DeviceQueues
  counters(): LayerCounts
  isUnfinished(): boolean
  waits(disconnected?: ReadonlyMap<number, boolean>): Iterable<ContextWait | undefined>
  onDoorbell(context: Context, handle: number): void
  /** Passes new requests of the queue pairs named by `onDoorbell` to the engine; true if there were any. */
  scanChanged(): boolean
  /** Whether `poll` has anything to do before the next timer, if `onDoorbell` has reported every post. */
  hasWork(): boolean
  /** Calls `visit` for each send that has got at least `minRnrNaks` RNR NAKs. */
  visitStalls(minRnrNaks: number, visit: (stall: Stall) => void): void
  /** What the queue pair with this number waits for without limit: a receive of its peer. Undefined: it does not. */
  rnrWait(qpn: number): ContextWait | undefined
}

/** A send whose peer has no receive for it. */
interface Stall {
  readonly qpn: number
  /** The PSN of the send. */
  readonly psn: number
  readonly rnrNaks: number
  /** When the first RNR NAK came, in microseconds. */
  readonly since: number
  readonly rnrRetry: number
}

/** What the devices of one driver have in common. `Own`: what the driver keeps of its own. */
export interface DeviceKind<Own> {
  readonly driver: RegisteredDriver<SoftState<Own>>
  readonly limits: QueueLimits & { readonly maxMsgSize: number }
  /** Attributes of a device with this GUID. `limits`: at most those of the kind. */
  readonly attributes: (guid: Uint8Array, limits: QueueLimits) => RecordOf<typeof DeviceAttributes>
  readonly extended: RecordOf<typeof ExtendedDeviceAttributes>
  /** Of RoCE ports. */
  readonly ethernetLink: EthernetLink
  /** As in `SoftState`. */
  readonly gidTypes: readonly number[]
  /** Datagrams have the UDP source port of their queue pair, not of the flow label; IPv6's flow label is 0. */
  readonly sendsAsRxe?: boolean
  /** Maximum objects of the driver's other classes, by class name. */
  readonly objectLimits?: Readonly<Record<string, number>>
  /** As in `DeviceDescription`. */
  readonly fullErrno?: ErrnoName
  /** See `regionMemory` (memory.ts). */
  readonly freeKeyStatus?: number
  /** See the engine's `Environment`. */
  readonly refusesLongDatagrams?: boolean
  /** Called once, when the soft device is complete. */
  readonly own: (soft: SoftState<Own>) => Own
}

/** What a device has of its own. */
export interface SoftOptions {
  readonly name: string
  readonly identity: Identity
  /** With its layers (assembly/assembly.ts). */
  readonly port: Port
  /** The clock of `poll`, microseconds. */
  readonly now: () => number
  /** `--torment` of the network. */
  readonly torment?: Torment | undefined
  /** As in `DeviceNetwork`. */
  readonly dcqcn?: number | undefined
  readonly limits?: DeviceLimits | undefined
  readonly timerDelay?: number | undefined
  readonly adapter?: AdapterFacts | undefined
  /** Of an InfiniBand port. */
  readonly fabric?: FabricOptions | undefined
  /** Where queue pairs for raw packets send frames. */
  readonly frames?: FrameSink | undefined
}

const rateOf = (adapter: AdapterFacts | undefined): ReturnType<EthernetLink> | undefined =>
  adapter?.rate && { ...adapter.rate, activeSpeedEx: adapter.rate.activeSpeed }

/** Class names of a driver's queue pairs and work queues, which are rows too: they share one limit (max_qp). */
const qpNamesOf = ({ classes }: Pick<RegisteredDriver, 'classes'>): string[] =>
  classes.map(({ class: { name } }) => name).filter(name => name === 'wq' || Object.hasOwn(QpTypes, name))

const { SQ_DRAINED } = AsyncEventType.values
const { RESET, ERR } = QpState.values

/** Moves all queue pairs that are not in RESET to ERR, so that their programs see flushed completions. */
function* failAllQps({ qps, engine }: SoftState): Generator<void> {
  for (const qp of qps) {
    const before = qp === undefined ? RESET : engine().stateOf(qp.state.row)
    if (qp !== undefined && before !== RESET && before !== ERR)
      engine().modify(qp.state.row, ERR, {}, createCause('DEVICE_REMOVED', {}))
    yield
  }
}

/** Number of objects that `resetQps` checks in one step. */
const OBJECTS_PER_STEP = 64

/**
 * Resets the queue pairs of a context that closes, so that they neither send nor respond until they are destroyed. XRC
 * targets that another context has open are not reset.
 */
function* resetQps(context: Context, { qps, engine, sendResponses }: SoftState): Generator<void> {
  let remaining = OBJECTS_PER_STEP
  for (const object of objectsDownwards(context)) {
    const qp = object as QpObject | undefined
    const row = qp?.state?.row
    // of objects of all classes, only queue pairs have rows
    const isQp = qp !== undefined && row !== undefined && qps[row] === qp
    if (isQp && openersOf(qp).every(opener => opener.context === context)) {
      sendResponses(row)
      engine().modify(row, RESET, {})
    }
    if (--remaining > 0) continue
    yield
    remaining = OBJECTS_PER_STEP
  }
}

/** What the records of all drivers of soft devices have in common. */
export const softDriver = {
  link: 'roce' as LinkName,
  hasAddress: true,
  hasRateControl: true,
  hasVlans: true,
  canBeSilent: true,
  settableLimits: deviceLimitNames,
  removing: ({ state }) => failAllQps(state),
  closing: context => resetQps(context, context.device.state),
  openManagement: ({ state }, receive) => openManagement(state, receive),
  openSubnetManagement: ({ driver, state }, receive) =>
    driver.link === 'ib' ? openManagement(state, receive, SMI_QPN) : undefined,
  setSubnetManager: ({ state }, isManager) => state.fabric?.setManager(isManager) ?? false,
  openDatagrams: ({ state, ports }, qkey, account, receive) =>
    openDatagrams(state, mtuBytes(ports[0]!.attributes.activeMtu), qkey, account, receive),
  removed({ state }) {
    state.fabric?.removed()
    state.torment?.close()
    state.port.close()
  },
  requests: requestReader,
} satisfies Partial<Driver<SoftState>>

/** Maximum calls of `Engine.pollTransmit` in one `poll`. A call ends when it has sent 1 MiB to local peers. */
const MAX_TRANSMIT_CALLS = 4

/**
 * If a `poll` on a socket port receives 1 to this many packets, and finds no new requests and no expired timer, only
 * the next `poll` sends. A program may respond to a received message immediately, and the ACK and the response are then
 * sent with one system call.
 */
const DELAYED_ACK_PACKETS = 4

/**
 * Maximum average rate of all unreliable queue pairs together, on a port with a window
 * (transport/engine/flow-control/peer-window.ts): the receiver's socket buffer must hold what arrives while the
 * receiver is not scheduled.
 */
const PACE_BYTES_PER_US = 500

/** How late the system's timers are, µs, at most: a queue pair that its rate has stopped may catch up as much. */
const TIMER_DELAY = 1000

class JoinedDevice<Own> implements SoftDevice<Own> {
  readonly device: Device<SoftState<Own>>
  readonly queues: DeviceQueues
  readonly link: DeviceLink
  readonly subnetPort: InfinibandPort | undefined
  readonly #state: SoftState<Own>
  readonly #port: Port
  readonly #engine: Engine
  readonly #posts: PostScan
  readonly #delivery: PacketDelivery
  readonly #torment: DeviceTorment | undefined
  // properties of the state, copied because every poll reads them
  readonly #releasedFlows: number[]
  readonly #coreQueues: SoftState['coreQueues']
  /** Whether the port has sockets: only such ports have a window. */
  readonly #isSocketPort: boolean
  /** Whether the last `poll` has left sending to the next one (DELAYED_ACK_PACKETS, or packets that take long). */
  #isSendingHeld = false

  constructor(core: Core, kind: DeviceKind<Own>, options: SoftOptions) {
    const { torment } = options
    const { port } = options
    this.#port = port
    this.#isSocketPort = port.windowBytes !== undefined
    const random = torment?.random() ?? core.random
    const isReused = torment?.reuses(options.name) === true
    this.#state = this.#createState(kind, options, random, isReused)
    const state = this.#state
    this.#releasedFlows = state.releasedFlows
    this.#coreQueues = state.coreQueues
    this.device = this.#register(core, kind, options, random)
    if (isReused) this.device.memory.freedKeys = []
    state.taps = this.device.taps
    state.pkeys = this.device.ports[0]!.pkeys
    this.queues = deviceQueues(state)
    const { fabric } = options
    this.subnetPort = fabric && new InfinibandPort(this.device as Device<SoftState>, fabric)
    state.fabric = this.subnetPort
    this.link = this.subnetPort?.link ?? deviceLink(this.device)

    const run = emptyRun()
    const environment = this.#createEnvironment(kind, run, options.frames)
    this.#torment = torment?.attach(this.device, environment.memory, (notify, words) =>
      cqCompletions(state, notify, words),
    )
    state.torment = this.#torment
    this.#engine = this.#createEngine(
      withCompletionFaults(state, this.#torment?.environment(environment) ?? environment),
      options,
    )
    this.#posts = this.#createPosts()
    const { subnetPort } = this
    const received =
      subnetPort === undefined
        ? port
        : tellViolations(port, this.#engine.counters, news => subnetPort.subnet?.news(news))
    this.#delivery = new PacketDelivery(state, received, this.#engine, run)
    state.own = kind.own(state)
  }

  #createState(
    { limits, ethernetLink, gidTypes, sendsAsRxe }: DeviceKind<Own>,
    { name, identity, now, torment, dcqcn, fabric, limits: set, adapter }: SoftOptions,
    random: () => number,
    isReused: boolean,
  ): SoftState<Own> {
    const port = this.#port
    const rate = rateOf(adapter)
    const paths =
      fabric === undefined
        ? rocePaths(port, () => this.device.ports[0].gids, sendsAsRxe)
        : infinibandPaths(port, () => this.device.ports[0])
    return {
      own: undefined,
      limits: lowered(name, torment?.limits(name, limits) ?? limits, set),
      ethernetLink: rate === undefined ? ethernetLink : () => rate,
      gidTypes,
      identity,
      port,
      paths,
      fabric: undefined,
      cqs: createSlots(FIRST_CQN),
      qpns: createNumbers(FIRST_QPN, random(), isReused && (qpn => this.#state.taps.isConnected?.(qpn) === true)),
      srqs: createSlots(),
      srqOwners: new WeakMap(),
      srqns: createNumbers(FIRST_SRQN),
      domains: new Map(),
      ahs: new Map(),
      ahns: createNumbers(1),
      groups: createGroups(port, Limits.multicast, paths.groupAddress),
      qps: [],
      datagramRows: new Map(),
      lastAddress: undefined,
      queues: [],
      releasedFlows: [],
      qpEnds: new Map(),
      failingQps: [],
      inError: new Set(),
      failures: createFailures(
        () => this.#state,
        () => this.device as Device,
      ),
      pkeys: new Uint16Array(),
      taps: createTaps(),
      coreQueues: { byNumber: new Map(), waiting: 0 },
      addQueues: row => this.#posts.add(row),
      recheck: row => this.#posts.recheck(row),
      catchUp: row => this.#catchUp(row),
      pollNow: () => this.device.isAlive && this.#withoutDelays(() => this.poll(this.#state.now(), ScanScope.CHANGED)),
      catchUpDatagrams: pd => this.#catchUpDatagrams(pd),
      catchUpAll: isInProcess => this.#catchUpAll(isInProcess),
      sendResponses: row => this.#sendResponses(row),
      linkDowned: 0,
      ecn: dcqcn === undefined ? 0 : ECN_CAPABLE,
      now,
      torment: undefined,
      engine: () => this.#engine,
    }
  }

  /** Adds the GIDs of RoCE to the port, and registers the device. */
  #register(
    core: Core,
    kind: DeviceKind<Own>,
    { name, fabric, limits, adapter }: SoftOptions,
    random: () => number,
  ): Device<SoftState<Own>> {
    const state = this.#state
    const { identity, port } = state
    const gids = fabric === undefined ? identity.gids : []
    // first, because it may fail
    for (const gid of gids) port.addAddress(gid)
    const attributes = {
      ...lowered(name, kind.attributes(fabric?.guid ?? identity.guid, state.limits), limits),
      ...(kind.driver.adapter !== undefined && adapter?.partId !== undefined && { vendorPartId: adapter.partId }),
    }
    const portOf = portAttributes(
      mtuEnum(port.pathMtu),
      () => state.engine().counters,
      kind.limits.maxMsgSize,
      state.ethernetLink(),
    )
    const device = register(core, {
      name,
      random,
      driver: kind.driver,
      state,
      attributes,
      extended: kind.extended,
      ports: [fabric === undefined ? portOf : Object.assign(portOf, fabricAttributes, rateOf(adapter))],
      numCompVectors: Limits.compVectors,
      limits: {
        pd: attributes.maxPd,
        cq: attributes.maxCq,
        mr: attributes.maxMr,
        mw: attributes.maxMw,
        [qpNamesOf(kind.driver).join(' ')]: attributes.maxQp,
        ah: attributes.maxAh,
        'srq xrc_srq': attributes.maxSrq,
        ...kind.objectLimits,
      },
      set: limits,
      fullErrno: kind.fullErrno,
    })
    const [defaultGid, ...others] = gids
    if (defaultGid !== undefined) setDefaultGid(device, defaultGid)
    for (const gid of others) addGid(device, gid)
    return device
  }

  /** `run`: the record of received runs. */
  #createEnvironment(kind: DeviceKind<Own>, run: ReceivedRun, frames: FrameSink | undefined): Environment {
    const state = this.#state
    const { port, qpns } = state
    const localDevice = localPeerDeviceOf(port, qpns)
    if (localDevice !== undefined) port.receiver = localDevice
    return {
      ...(localDevice && { localDevice }),
      pkeys: state.pkeys,
      grh: state.paths.grhBuilder(port, run),
      ...(frames && { frames }),
      work: queueWork(state.queues, findSrqOfDomain(state)),
      memory: regionMemory(this.device.memory, kind.freeKeyStatus),
      refusesLongDatagrams: kind.refusesLongDatagrams ?? false,
      completions: cqCompletions(state),
      causes: state.failures,
      taps: engineTaps(state, state.taps),
      now: state.now,
      events: {
        raise(row, type, cause) {
          if (isSilent(state, row)) return
          const qp = state.qps[row]
          // SQ_DRAINED only if the program has enabled it (IBV_QP_EN_SQD_ASYNC_NOTIFY)
          if (
            qp?.state.row !== row ||
            (type === SQ_DRAINED && (qp.state.attributeBits & AttributeBits.SQD_EVENT) === 0)
          )
            return
          state.failures.event(row, type, cause)
          for (const object of openersOf(qp)) raiseObjectEvent(object, type)
        },
      },
    }
  }

  #createEngine(environment: Environment, { dcqcn, timerDelay = TIMER_DELAY }: SoftOptions): Engine {
    const { windowBytes, sharedWindowBytes = 0, pathBytes } = this.#port
    // READs are requested in parts on a port without a window too (docs/decisions/reads-in-parts.md)
    return createEngine(environment, {
      boundReads: true,
      ...(pathBytes !== undefined && { windowBytes: pathBytes }),
      ...(dcqcn !== undefined && { rateControl: dcqcnParameters(bytesPerMicrosecond(dcqcn), timerDelay) }),
      ...(windowBytes !== undefined && {
        windowBytes,
        sharedWindowBytes,
        pacingInterval: Math.min(windowBytes, MAX_PACED_BYTES) / PACE_BYTES_PER_US,
      }),
    })
  }

  #createPosts(): PostScan {
    const { device } = this
    const state = this.#state
    const engine = this.#engine
    const handlers = {
      onDoorbell: engine.onDoorbell,
      onReceiveScan(row: number) {
        if (state.taps.requests !== undefined) tapReceives(state, state.taps.requests, row)
        engine.onReceiveScan(row)
      },
    }
    return createPostScan(state.queues, handlers, () => device.memory.windows > 0)
  }

  /** A fault rule has silenced the whole device: it does nothing any more. */
  get #isDead(): boolean {
    return this.#state.taps.silenced?.isHalf === false
  }

  poll(time: number, scope: ScanScope = ScanScope.ALL): boolean {
    if (this.#isDead) return false
    this.#engine.beginPoll()
    let progress = this.#posts.scan(scope)
    if (this.#torment !== undefined) progress = this.#torment.poll(time) || progress
    if (time >= this.#port.nextTimeout()) this.#port.onTimeout(time)
    const wasHeld = this.#isSendingHeld
    const mayHold = this.#isSocketPort && !wasHeld && !progress
    // before timeouts: an ACK that arrived in time may still be in the port
    const received = wasHeld ? 0 : this.#delivery.deliver(time)
    if (received > 0) progress = true
    this.#isSendingHeld = this.#engine.isBusy() || (mayHold && received > 0 && received <= DELAYED_ACK_PACKETS)
    if (time >= this.#engine.nextTimeout()) {
      this.#engine.onTimeout(time)
      progress = true
      this.#isSendingHeld = false
    }
    const mayHaveSends = this.#isSocketPort || !this.#engine.isIdle() || this.#coreQueues.waiting > 0
    if (!this.#isSendingHeld && mayHaveSends) progress = this.#transmit(time) || progress
    while (this.#releasedFlows.length > 0) this.#port.closeFlow(this.#releasedFlows.pop() as number)
    if (this.#state.failingQps.length > 0) failQps(this.#state)
    return progress
  }

  isUnfinished(): boolean {
    return this.#posts.isUnfinished()
  }

  scanChanged(): boolean {
    return this.#posts.scan(ScanScope.CHANGED)
  }

  onDoorbell(context: Context, handle: number): void {
    const object = findHandle(context.handles, handle) as QpObject | undefined
    if (object === undefined || object.life !== Lifecycle.LIVE) return
    // the handle may belong to another object: only queue pairs have rows
    const row = object.state?.row
    if (row !== undefined && this.#state.qps[row] === object) this.#posts.recheck(row)
  }

  hasWork(): boolean {
    const port = this.#port
    if (this.#isDead) return false
    return (
      this.#posts.hasChanges() ||
      !this.#engine.isIdle() ||
      this.#coreQueues.waiting > 0 ||
      this.#delivery.hasWaiting ||
      port.isWaiting === undefined ||
      port.isWaiting() ||
      this.#state.failingQps.length > 0
    )
  }

  nextTimeout(): number {
    if (this.#isDead) return Number.POSITIVE_INFINITY
    return Math.min(
      this.#engine.nextTimeout(),
      this.#port.nextTimeout(),
      this.#torment?.nextTimeout() ?? Number.POSITIVE_INFINITY,
    )
  }

  counters(): LayerCounts {
    const { port, linkDowned } = this.#state
    return { engine: this.#engine.counters, port: { ...port.counters, linkDowned } }
  }

  waits(disconnected?: ReadonlyMap<number, boolean>): Iterable<ContextWait | undefined> {
    return waitsOfDevice(this.#state, disconnected)
  }

  visitStalls(minRnrNaks: number, visit: (stall: Stall) => void): void {
    this.#engine.visitRnrWaits((row, psn, rnrNaks, since) => {
      const qpn = this.#state.qps[row]?.state.qpn
      if (qpn !== undefined && rnrNaks >= minRnrNaks)
        visit({ qpn, psn, rnrNaks, since, rnrRetry: this.#engine.query(row).rnrRetry })
    })
  }

  rnrWait(qpn: number): ContextWait | undefined {
    return rnrWaitOf(this.#state, qpn)
  }

  /**
   * Sends until nothing is left, the port is full, or MAX_TRANSMIT_CALLS is reached. True if anything was sent, or the
   * engine has more work, such as a long flush.
   */
  #transmit(time: number): boolean {
    // unlike the port's counter, the engine's includes packets that a fault layer drops
    const { counters } = this.#engine
    const start = counters.sentPackets
    let before: number
    let result: number
    let callsLeft = MAX_TRANSMIT_CALLS
    do {
      before = counters.sentPackets
      result = this.#engine.pollTransmit(this.#port, time)
    } while (
      result !== PollResult.DONE &&
      result !== PollResult.PAUSE &&
      counters.sentPackets !== before &&
      --callsLeft > 0
    )
    if (this.#coreQueues.waiting > 0) for (const queue of this.#coreQueues.byNumber.values()) queue.transmit()
    this.#port.flush()
    return result === PollResult.MORE || result === PollResult.PAUSE || counters.sentPackets !== start
  }

  /**
   * Checks the rest of the queues, one slice per turn of the event loop. The number of slices is bounded, because the
   * daemon's loop may begin new rounds meanwhile.
   */
  async #finishRound(): Promise<void> {
    for (let slices = this.#state.queues.length / SLICE_ROWS; slices > 0 && this.#posts.isUnfinished(); slices--) {
      await nextTurn()
      if (!this.device.isAlive) return
      const hasWorked = this.#withoutDelays(() => this.poll(this.#state.now(), ScanScope.CONTINUE))
      // the received packets have left the port, which thus wakes nobody, but their ACKs and timers are due
      if (hasWorked) this.#port.wake?.()
    }
  }

  /** `--torment` delays nothing that `run` causes. */
  #withoutDelays(run: () => boolean): boolean {
    return this.#torment === undefined ? run() : this.#torment.withoutDelays(run)
  }

  #catchUp(row: number): void {
    const hasUnseenSends = this.#posts.hasUnseenSends(row)
    if (this.#torment === undefined && !hasUnseenSends) return
    if (hasUnseenSends) this.#posts.recheck(row)
    this.#withoutDelays(() => this.poll(this.#state.now(), ScanScope.CHANGED))
  }

  /** Checks at most SLICE_ROWS queue pairs, so that a program with very many does not delay others. */
  #catchUpDatagrams(pd: number): void {
    let rowsLeft = SLICE_ROWS
    let hasSends = false
    for (const row of this.#state.datagramRows.get(pd) ?? []) {
      if (rowsLeft-- === 0) break
      if (!this.#posts.hasWaitingSends(row)) continue
      this.#posts.recheck(row)
      hasSends = true
    }
    if (hasSends) this.#withoutDelays(() => this.poll(this.#state.now(), ScanScope.CHANGED))
  }

  #sendResponses(row: number): void {
    if (!this.device.isAlive) return
    if (this.#withoutDelays(() => this.#engine.sendResponses(row, this.#port))) this.#port.flush()
  }

  #catchUpAll(isInProcess: boolean): Promise<void> | undefined {
    this.#withoutDelays(() => this.poll(this.#state.now(), isInProcess ? ScanScope.CHANGED : ScanScope.BEGIN))
    return isInProcess || !this.#posts.isUnfinished() ? undefined : this.#finishRound()
  }
}

/**
 * Registers a device. Throws CallError EEXIST for a name in use, EINVAL for an invalid name, and the errors of
 * `Port.addAddress`.
 */
export const createSoftDevice = <Own>(core: Core, kind: DeviceKind<Own>, options: SoftOptions): SoftDevice<Own> =>
  new JoinedDevice(core, kind, options)
