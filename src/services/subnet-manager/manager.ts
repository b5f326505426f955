/*
 * A subnet manager (IBA 14.4), without I/O: sweeps the subnet from its port, gives LIDs, partitions and forwarding
 * tables, and activates ports; agrees with other managers which one is the master. It knows datagrams only.
 * administration.ts answers the queries of end nodes. Times are microseconds.
 */
import { MAD_BYTES } from '../../spec/wire/mad.ts'
import { MadClass, MadMethod } from '../../spec/wire/management.ts'
import {
  DEFAULT_PARTITION,
  FIRST_MULTICAST_LID,
  FULL_MEMBER,
  LFT_BLOCK,
  MFT_BLOCK,
  MFT_PORTS,
  PERMISSIVE_LID,
  PhysicalState,
  PKEY_BLOCK,
  PortState,
  SMI_QPN,
  SmControl,
  SmState,
  smAttributes,
  Trap,
} from '../../spec/wire/subnet.ts'
import { type SmAttribute, type Smp, smCodecs, smpCodec } from '../../transport/wire/mad/subnet.ts'
import type { SubnetPacket } from '../subnet-engine/packet.ts'
import { Administration } from './administration.ts'
import { type Path, SmpRequests, smpPacket } from './requests.ts'
import { multicastBlock, Routes } from './routing.ts'
import { type Change, endPort, type FoundNode, type FoundPort, isSwitch, isUp, Subnet } from './subnet.ts'
import { look, sweep } from './sweep.ts'

interface ManagerOptions {
  /** GUID of the manager's port. */
  readonly guid: bigint
  /** 0 to 15. */
  readonly priority: number
  /** Gives the subnet to any other manager, and then shows itself only when the master is gone. */
  readonly yields?: boolean
  /** Default fe80::/64. */
  readonly gidPrefix?: bigint
  /** M_Key of the subnet's ports; default 0, none. */
  readonly mKey?: bigint
  /** The partition keys of a port; default: those that it has, and the default partition. */
  readonly pkeysOf?: (portGuid: bigint) => readonly number[] | undefined
  /** µs between looks at the switches; default 10 s. */
  readonly interval?: number
  /** A random 64-bit number. */
  readonly random: bigint
}

interface ManagerOwner {
  /** Sends a packet from the manager's port. */
  send(packet: SubnetPacket): void
  /** Whether the port says that a manager is there. */
  setIsSm(isSm: boolean): void
  wakeAt(time: number): void
}

/** SM_Key of managers that trust each other: OpenSM's default. */
const SM_KEY = 1n
const LINK_LOCAL = 0xfe80n << 48n
const DEFAULT_INTERVAL = 10_000_000
/** Between looks at the master, and how many may fail. */
const POLL_INTERVAL = 2_000_000
const MAX_FAILED_POLLS = 3
/** 4.096 µs × 2^18, about a second. */
const SUBNET_TIMEOUT = 18
const RESPONSE = MadMethod.RESPONSE
const VL0 = 1

type State = 'not-active' | 'discovering' | 'standby' | 'master'
const stateCodes: Readonly<Record<State, number>> = {
  'not-active': SmState.NOT_ACTIVE,
  discovering: SmState.DISCOVERING,
  standby: SmState.STANDBY,
  master: SmState.MASTER,
}

type SmInfo = Pick<SmAttribute<'SMInfo'>, 'guid' | 'priority'>

/** Whether manager `a` goes before `b` (14.4.1). */
const goesBefore = (a: SmInfo, b: SmInfo): boolean =>
  a.priority === b.priority ? a.guid < b.guid : a.priority > b.priority

export class SubnetManager {
  readonly #options: ManagerOptions
  readonly #owner: ManagerOwner
  readonly #requests: SmpRequests
  /** Of administration, which go on beside a sweep. */
  readonly #reads: SmpRequests
  readonly #administration: Administration
  #state: State = 'not-active'
  #subnet = new Subnet()
  #routes = new Routes(this.#subnet)
  /** LIDs by GUID of the port, which ports keep while they are away. */
  readonly #lids = new Map<bigint, number>()
  /** Ports that were told to register again. */
  readonly #registered = new Set<bigint>()
  /** What the multicast tables of a switch have, by block. */
  readonly #multicast = new Map<bigint, Map<number, readonly number[]>>()
  /** Ports of each switch, by the index of the group's LID. */
  readonly #trees = new Map<number, Map<FoundNode, Set<number>>>()
  /** Indices of groups whose trees must be made again. */
  readonly #changedGroups = new Set<number>()
  /** The route to the master, while this is a standby. */
  #master: { readonly path: Path; readonly guid: bigint; failedPolls: number } | undefined
  #handedOverBy: FoundNode | undefined
  /** Another manager has not decided yet what it is. */
  #isUndecided = false
  #isSweeping = false
  /** This was the master when the last sweep began. */
  #wasMaster = false
  /** All that the last sweep has found is set, and only links can change without a word to the manager. */
  #isComplete = false
  /** GUIDs of ports that were set since the last sweep. */
  #stale = new Set<bigint>()
  /**
   * GUIDs of the switches of which a link has changed since the last sweep, unless any may have, and the ports of which
   * that is known: all, or none.
   */
  #changed = new Map<bigint, Set<number>>()
  #mayAnyHaveChanged = false
  #now = 0
  #activity = 0
  #next = Number.POSITIVE_INFINITY
  /** When the next look at switches or the master is due. */
  #lookAt = Number.POSITIVE_INFINITY

  constructor(options: ManagerOptions, owner: ManagerOwner) {
    this.#options = options
    const wakeAt = (time: number): void => {
      if (time >= this.#next) return
      this.#next = time
      owner.wakeAt(time)
    }
    this.#owner = { ...owner, send: packet => owner.send(packet), setIsSm: isSm => owner.setIsSm(isSm), wakeAt }
    this.#requests = new SmpRequests(this.#owner, options.random, options.mKey ?? 0n)
    this.#reads = new SmpRequests(this.#owner, options.random ^ (1n << 63n), options.mKey ?? 0n)
    this.#administration = new Administration(
      { gidPrefix: options.gidPrefix ?? LINK_LOCAL, random: options.random },
      {
        send: packet => owner.send(packet),
        wakeAt,
        groupChanged: mlid => this.#groupChanged(mlid),
        multicastOf: guid => this.#multicast.get(guid) ?? new Map<number, readonly number[]>(),
        read: (path, attribute, modifier, done) => this.#reads.get(path, attribute, modifier, this.#now, done),
      },
    )
  }

  get state(): State {
    return this.#state
  }

  get isMaster(): boolean {
    return this.#state === 'master'
  }

  /** Whether all ports that were found are set. */
  get isSettled(): boolean {
    return this.isMaster && !this.#isSweeping && this.#requests.isIdle
  }

  start(now: number): void {
    this.#now = now
    this.#become('discovering')
    this.#owner.setIsSm(true)
    this.#sweep()
  }

  stop(): void {
    this.#become('not-active')
    this.#owner.setIsSm(false)
    this.#requests.clear()
    this.#isSweeping = false
    this.#lookAt = Number.POSITIVE_INFINITY
  }

  /** A link of this switch has changed. Undefined: of any. */
  resweep(now: number, switchGuid?: bigint): void {
    this.#now = now
    if (this.#state !== 'not-active') this.#sweep(switchGuid)
  }

  /**
   * The link of a switch's port came up or went down: a trap follows, or `resweep`. If the owner tells that of some
   * ports of a switch, it tells it of all.
   */
  linkChanged(switchGuid: bigint, port: number): void {
    if (this.#state !== 'not-active') this.#changedOf(switchGuid).add(port)
  }

  #changedOf(switchGuid: bigint): Set<number> {
    const ports = this.#changed.get(switchGuid) ?? new Set()
    this.#changed.set(switchGuid, ports)
    return ports
  }

  /** Somebody has set an attribute of this port, perhaps the manager: the next sweep asks for it. */
  portSet(portGuid: bigint): void {
    if (this.isMaster) this.#stale.add(portGuid)
  }

  /**
   * Gives a port the next LID that is free, as after two subnets were joined. Nothing if another manager configures it.
   */
  moveLid(portGuid: bigint, now: number): void {
    this.#now = now
    const old = this.#lids.get(portGuid)
    if (!this.isMaster || old === undefined) return
    const taken = new Set(this.#lids.values())
    let lid = old
    do lid = (lid % (FIRST_MULTICAST_LID - 1)) + 1
    while (taken.has(lid) && lid !== old)
    this.#lids.set(portGuid, lid)
    this.#sweep()
  }

  // ---- datagrams ----

  /** A datagram for the manager's port. Returns false if the manager does not take it. */
  onPacket(packet: SubnetPacket, now: number): boolean {
    this.#now = now
    if (packet.mad.length !== MAD_BYTES) return false
    if (packet.destQp !== SMI_QPN) return this.isMaster && this.#administration.onPacket(packet, now)
    const smp = smpCodec.parse(packet.mad)
    if (smp.mgmtClass !== MadClass.SUBNET_LID_ROUTED && smp.mgmtClass !== MadClass.SUBNET_DIRECTED_ROUTE) return false
    if (smp.method === (MadMethod.GET | RESPONSE)) {
      this.#requests.onResponse(smp, now)
      this.#reads.onResponse(smp, now)
      return true
    }
    if (smp.method === MadMethod.TRAP) {
      this.#onTrap(smp, packet)
      return true
    }
    const isSmInfo = smp.attribute === smAttributes.SMInfo.id
    if (!isSmInfo || (smp.method !== MadMethod.GET && smp.method !== MadMethod.SET)) return false
    if (smp.method === MadMethod.SET) this.#onControl(smp)
    this.#answerSmInfo(smp, packet)
    return true
  }

  #answerSmInfo(request: Smp, packet: SubnetPacket): void {
    const data = new Uint8Array(64)
    const { guid, priority } = this.#options
    const state = stateCodes[this.#state]
    smCodecs.SMInfo.emit({ guid, smKey: SM_KEY, activityCount: ++this.#activity >>> 0, priority, state }, data)
    const isDirected = request.mgmtClass === MadClass.SUBNET_DIRECTED_ROUTE
    const lids = isDirected ? { slid: PERMISSIVE_LID, dlid: PERMISSIVE_LID } : { slid: this.#ownLid, dlid: packet.slid }
    const answer = { ...request, method: MadMethod.GET | RESPONSE, isReturning: isDirected, status: 0, data }
    this.#owner.send(smpPacket(answer, lids))
  }

  /** A Set of SMInfo by another manager (14.4.1). */
  #onControl({ modifier }: Smp): void {
    if (modifier === SmControl.HANDOVER && this.#state === 'standby') {
      this.#handedOverBy = [...this.#subnet.nodes.values()].find(({ smInfo }) => smInfo?.state === SmState.MASTER)
      this.#becomeMaster()
    } else if (modifier === SmControl.DISABLE && this.#state === 'standby') this.#become('not-active')
    else if (modifier === SmControl.STANDBY && this.#state === 'not-active') this.#standBy(undefined)
    else if (modifier === SmControl.DISCOVER && this.#state === 'standby') {
      this.#become('discovering')
      this.#sweep()
    }
  }

  #onTrap(smp: Smp, packet: SubnetPacket): void {
    if (!this.isMaster || smp.attribute !== smAttributes.Notice.id) return
    const repress = { ...smp, method: MadMethod.TRAP_REPRESS, mKey: this.#options.mKey ?? 0n }
    this.#owner.send(smpPacket(repress, { slid: this.#ownLid, dlid: packet.slid }))
    const { trapNumber, isGeneric } = smCodecs.Notice.parse(smp.data)
    const from = this.#subnet.portOfLid(packet.slid)
    if (from !== undefined) this.#administration.notify(smp.data, from, this.#now)
    if (!isGeneric) return
    if (trapNumber === Trap.CAPABILITY) this.#isComplete = false
    const node = from?.node
    if (trapNumber === Trap.LINK_STATE) this.#sweep(node && isSwitch(node) ? node.info.portGuid : undefined)
    else if (trapNumber === Trap.CAPABILITY) this.#sweep()
  }

  // ---- time ----

  nextTimeout(): number {
    return this.#next
  }

  onTimeout(now: number): void {
    if (now < this.#next) return
    this.#now = now
    this.#next = Number.POSITIVE_INFINITY
    this.#requests.onTimeout(now)
    this.#reads.onTimeout(now)
    this.#administration.onTimeout(now)
    this.#setMulticast()
    if (this.#lookAt <= now) this.#look()
    else this.#owner.wakeAt(this.#lookAt)
  }

  #lookLater(): void {
    const { interval = DEFAULT_INTERVAL } = this.#options
    this.#lookAt = this.#now + (this.isMaster && !this.#isUndecided ? interval : POLL_INTERVAL)
    this.#owner.wakeAt(this.#lookAt)
  }

  #look(): void {
    this.#lookLater()
    if (this.isMaster) this.#lookAtSwitches()
    else if (this.#state === 'standby') this.#lookAtMaster()
    else if (this.#state === 'discovering' && !this.#isSweeping) this.#sweep()
  }

  /** A switch says whether the state of a port has changed since the last sweep. */
  #lookAtSwitches(): void {
    if (this.#isSweeping) return
    const { switches } = this.#subnet
    // Without a switch, the subnet is two ports, or one.
    if (switches.length === 0 || this.#isUndecided) this.#sweep()
    for (const { path } of switches)
      this.#requests.get(path, 'SwitchInfo', 0, this.#now, info => {
        if (info === undefined || info.portStateChange) this.#sweep()
      })
  }

  #lookAtMaster(): void {
    const master = this.#master
    if (master === undefined) {
      this.#become('discovering')
      this.#sweep()
      return
    }
    this.#requests.get(master.path, 'SMInfo', 0, this.#now, info => {
      if (this.#master !== master || this.#state !== 'standby') return
      master.failedPolls = info?.state === SmState.MASTER ? 0 : master.failedPolls + 1
      if (master.failedPolls >= MAX_FAILED_POLLS) this.#replaceMaster()
    })
  }

  /**
   * The port with this GUID no longer says that a manager is there: if that was the master, nobody waits for its
   * answers.
   */
  managerLeft(portGuid: bigint, now: number): void {
    if (this.#master?.guid !== portGuid) return
    this.#now = now
    // A sweep that has begun may have found it as the master.
    this.#isSweeping = false
    this.#replaceMaster()
  }

  #replaceMaster(): void {
    this.#owner.setIsSm(true)
    this.#become('discovering')
    this.#sweep()
  }

  // ---- states ----

  #become(state: State): void {
    this.#state = state
    this.#isComplete = false
    if (state !== 'standby') this.#master = undefined
    if (state === 'master') return
    this.#registered.clear()
    this.#reads.clear()
    this.#administration.clear()
  }

  #standBy(master: FoundNode | undefined): void {
    this.#become('standby')
    this.#master = master && { path: master.path, guid: master.info.portGuid, failedPolls: 0 }
    this.#lookLater()
  }

  #becomeMaster(): void {
    this.#become('master')
    this.#multicast.clear()
    this.#sweep()
  }

  get #ownLid(): number {
    return this.#subnet.portOfGuid(this.#options.guid)?.info.lid ?? 0
  }

  // ---- sweeps ----

  /** `changed`: the GUID of the only switch of which a link has changed. */
  #sweep(changed?: bigint): void {
    if (changed === undefined) this.#mayAnyHaveChanged = true
    else this.#changedOf(changed)
    if (!this.#isSweeping) this.#beginSweep()
  }

  /** Sweeps again if something was told since the last sweep began. */
  #sweepAgain(): void {
    if (this.#mayAnyHaveChanged || this.#changed.size > 0) this.#beginSweep()
  }

  #beginSweep(): void {
    this.#isSweeping = true
    this.#requests.clear()
    const known = this.#isComplete ? this.#subnet : undefined
    const stale = this.#stale
    const changed = this.#changed
    const isVague = this.#mayAnyHaveChanged || [...changed.keys()].some(guid => known?.nodes.has(guid) !== true)
    this.#stale = new Set()
    this.#changed = new Map()
    this.#mayAnyHaveChanged = false
    this.#isComplete = false
    this.#wasMaster = this.isMaster
    const options = {
      ownGuid: this.#options.guid,
      now: () => this.#now,
      isMaster: this.isMaster,
      known,
      stale,
      changed,
    }
    const own = known?.nodes.get(options.ownGuid)
    // With equal paths, tables depend on the order in which a sweep finds ports.
    if (known === undefined || own === undefined || !isSwitch(own) || isVague || this.#routes.hasEqualPaths)
      sweep(this.#requests, options, subnet => this.#swept(subnet))
    else look(this.#requests, { ...options, known }, change => this.#looked(change))
  }

  #looked(change: Change | undefined): void {
    this.#isSweeping = false
    this.#lookLater()
    if (change === undefined) this.#beginSweep()
    else if (change.ports.length > 0) this.#configure(change)
    else {
      this.#isComplete = true
      this.#sweepAgain()
    }
  }

  #swept(subnet: Subnet): void {
    this.#isSweeping = false
    this.#subnet = subnet
    this.#lookLater()
    const others = [...subnet.nodes.values()].filter(({ smInfo }) => smInfo !== undefined)
    const own = this.#options
    if (this.#state === 'discovering') {
      const master = others.find(({ smInfo }) => smInfo?.state === SmState.MASTER)
      const better = others.find(({ smInfo }) => smInfo!.state !== SmState.NOT_ACTIVE && goesBefore(smInfo!, own))
      if (master !== undefined || (better !== undefined && subnet.nodes.size > 1)) this.#standBy(master ?? better)
      else this.#become('master')
    }
    if (!this.isMaster) return
    // A manager that has not decided yet is looked at again soon.
    this.#isUndecided = others.some(({ smInfo }) => smInfo?.state === SmState.DISCOVERING)
    this.#lookLater()
    const isBefore = ({ smInfo }: FoundNode): boolean => own.yields === true || goesBefore(smInfo!, own)
    const master = others.find(other => other.smInfo!.state === SmState.MASTER && isBefore(other))
    if (master !== undefined) {
      this.#yieldTo(master)
      return
    }
    const heir = others
      .filter(other => other.smInfo!.state === SmState.STANDBY && isBefore(other))
      .sort((a, b) => (goesBefore(a.smInfo!, b.smInfo!) ? -1 : 1))[0]
    if (heir !== undefined) this.#handOver(heir)
    else this.#configure()
  }

  #handOver(heir: FoundNode): void {
    this.#requests.set(heir.path, 'SMInfo', SmControl.HANDOVER, this.#ownSmInfo(), this.#now, (_, status) => {
      if (status !== 0) this.#configure()
      else this.#yieldTo(heir)
    })
  }

  #yieldTo(master: FoundNode): void {
    this.#standBy(master)
    if (this.#options.yields === true) this.#owner.setIsSm(false)
  }

  #ownSmInfo(): SmAttribute<'SMInfo'> {
    const { guid, priority } = this.#options
    return { guid, smKey: SM_KEY, activityCount: this.#activity, priority, state: stateCodes[this.#state] }
  }

  // ---- configuration ----

  /** `change`: what is to be set; default: all. */
  #configure(change?: Change): void {
    const subnet = this.#subnet
    this.#isSweeping = true
    this.#hasFailed = false
    if (change === undefined) {
      this.#assignLids()
      this.#routes = new Routes(subnet)
    } else this.#apply(change)
    const ports = change === undefined ? subnet.ports() : subnet.portsOf(change)
    this.#steps(
      [
        () => this.#setPorts(ports),
        () => this.#setTables(),
        () => this.#activate(ports),
        () => {
          this.#isSweeping = false
          this.#isComplete = this.#wasMaster && !this.#hasFailed && !subnet.hasGaps && !hasOtherManager(subnet)
          this.#administration.update(subnet, this.#routes, this.#options.guid, this.#ownSmInfo(), this.#now, change)
          this.#trees.clear()
          for (const mlid of this.#administration.mlids()) this.#groupChanged(mlid)
          this.#acknowledge()
          this.#sweepAgain()
        },
      ],
      subnet,
    )
  }

  /** Does one step after the other, each when all requests of the one before have ended. */
  #steps(steps: readonly (() => void)[], subnet: Subnet): void {
    const [step, ...rest] = steps
    if (step === undefined || this.#subnet !== subnet || !this.isMaster) return
    this.#open = 1
    this.#afterOpen = () => this.#steps(rest, subnet)
    step()
    this.#closed()
  }

  /** Requests of the step. */
  #open = 0
  /** A request of the configuration had no good answer. */
  #hasFailed = false
  #afterOpen: (() => void) | undefined

  #closed(): void {
    if (--this.#open > 0) return
    const after = this.#afterOpen
    this.#afterOpen = undefined
    after?.()
  }

  /** Sets an attribute within a step. */
  #set: SmpRequests['set'] = (path, name, modifier, value, now, done) => {
    this.#open++
    this.#requests.set(path, name, modifier, value, now, (answer, status) => {
      if (answer === undefined) this.#hasFailed = true
      done(answer, status)
      this.#closed()
    })
  }

  /** Adapters that came get LIDs and routes. */
  #apply(change: Change): void {
    const subnet = this.#subnet
    const ends = change.added.flatMap(node => endPort(node) ?? [])
    const gone = change.removed.map(node => endPort(node)?.info.lid ?? 0)
    subnet.apply(change)
    const taken = new Set(this.#lids.values())
    let next = 1
    for (const port of ends) {
      const { portGuid } = port.node.info
      const own = port.info.lid
      let lid = this.#lids.get(portGuid) ?? (own > 0 && own < FIRST_MULTICAST_LID && !taken.has(own) ? own : 0)
      if (lid === 0) {
        while (taken.has(next)) next++
        lid = next < FIRST_MULTICAST_LID ? next : 0
      }
      if (lid > 0) this.#lids.set(portGuid, lid)
      taken.add(lid)
      this.#setLid(port, lid)
      subnet.indexLid(port)
    }
    this.#routes.change(ends, gone)
  }

  #setLid(port: FoundPort, lid: number): void {
    // `#setPorts` compares with what the port has.
    this.#hadLid.set(port, port.info.lid)
    if (port.info.lid !== lid) port.info = { ...port.info, lid }
  }

  #assignLids(): void {
    const subnet = this.#subnet
    const taken = new Set<number>()
    const claim = (lid: number): boolean => lid > 0 && lid < FIRST_MULTICAST_LID && !taken.has(lid)
    const without: FoundPort[] = []
    for (const port of subnet.endPorts) {
      const { portGuid } = port.node.info
      const lid = [this.#lids.get(portGuid) ?? 0, port.info.lid].find(claim)
      if (lid === undefined) without.push(port)
      else {
        taken.add(lid)
        this.#lids.set(portGuid, lid)
      }
    }
    // LIDs of ports that are away stay theirs while there are enough.
    for (const [guid, lid] of this.#lids) if (subnet.portOfGuid(guid) === undefined) taken.add(lid)
    let next = 1
    for (const port of without) {
      while (taken.has(next)) next++
      if (next >= FIRST_MULTICAST_LID) break
      taken.add(next)
      this.#lids.set(port.node.info.portGuid, next)
    }
    for (const port of subnet.endPorts) this.#setLid(port, this.#lids.get(port.node.info.portGuid) ?? 0)
    subnet.indexLids()
  }
  #hadLid = new WeakMap<FoundPort, number>()

  #setPorts(ports: Iterable<FoundPort>): void {
    const { guid, gidPrefix = LINK_LOCAL, mKey = 0n } = this.#options
    const smLid = this.#lids.get(guid) ?? 0
    for (const port of ports) {
      const { node } = port
      const isEnd = endPort(node) === port
      if (!isUp(port) || (isEnd && port.info.lid === 0)) continue
      const { info } = port
      const isNew = isEnd && !this.#registered.has(node.info.portGuid)
      const neighborMtu = Math.min(info.mtuCap, port.peer?.info.mtuCap ?? info.mtuCap)
      const wanted: Partial<SmAttribute<'PortInfo'>> = {
        neighborMtu,
        operationalVls: VL0,
        ...(isEnd && { smLid, smSl: 0, gidPrefix, subnetTimeout: SUBNET_TIMEOUT, mKey }),
      }
      const isInit = info.portState === PortState.INIT
      const differs = Object.entries(wanted).some(([name, value]) => info[name as keyof typeof info] !== value)
      const hasLid = !isEnd || this.#hadLid.get(port) === info.lid
      if (isEnd) this.#setPkeys(port)
      if (!isNew && !isInit && !differs && hasLid) continue
      this.#setPort(port, { ...wanted, clientReregister: isNew, portState: isInit ? PortState.ARMED : 0 }, () => {
        if (isEnd) this.#registered.add(node.info.portGuid)
      })
    }
  }

  #setPort(port: FoundPort, change: Partial<SmAttribute<'PortInfo'>>, done: () => void): void {
    const value = {
      ...port.info,
      portState: PortState.NO_CHANGE,
      physicalState: PhysicalState.NO_CHANGE,
      linkWidthEnabled: 0,
      linkSpeedEnabled: 0,
      linkSpeedExtEnabled: 0,
      clientReregister: false,
      ...change,
    }
    this.#set(port.node.path, 'PortInfo', port.number, value, this.#now, answer => {
      if (answer === undefined) return
      port.info = answer
      done()
    })
  }

  /** All ports are in the default partition. Other keys stay as they are, unless the options say otherwise. */
  #setPkeys(port: FoundPort): void {
    const { portGuid } = port.node.info
    const wanted = this.#options.pkeysOf?.(portGuid) ?? withDefaultPartition(port.pkeys)
    if (wanted === port.pkeys) return
    const size = Math.max(PKEY_BLOCK, port.pkeys.length)
    const keys = [...wanted, ...Array<number>(size).fill(0)].slice(0, size)
    for (let block = 0; block * PKEY_BLOCK < size; block++) {
      const part = keys.slice(block * PKEY_BLOCK, (block + 1) * PKEY_BLOCK)
      if (part.every((key, i) => key === (port.pkeys[block * PKEY_BLOCK + i] ?? 0))) continue
      this.#set(port.node.path, 'P_KeyTable', block, { pkeys: part }, this.#now, () => {
        port.pkeys = keys
      })
    }
  }

  #setTables(): void {
    for (const [node, table] of this.#routes.linear) {
      const top = table.length - 1
      const sent = this.#linearSent.get(node.info.portGuid) ?? []
      this.#linearSent.set(node.info.portGuid, sent)
      for (let block = 0; block * LFT_BLOCK < table.length; block++) {
        const ports = table.subarray(block * LFT_BLOCK, (block + 1) * LFT_BLOCK)
        const before = sent[block]
        if (before?.every((port, i) => port === ports[i]) && node.switchInfo?.portStateChange !== true) continue
        const set = ports.slice()
        this.#set(node.path, 'LinearForwardingTable', block, { ports: Array.from(set) }, this.#now, answer => {
          if (answer !== undefined) sent[block] = set
        })
      }
      const { switchInfo } = node
      if (switchInfo === undefined) continue
      // A sweep of the master has done that. What has changed since then is not read: the bit stays.
      const portStateChange = switchInfo.portStateChange && !this.#wasMaster
      const value = { ...switchInfo, linearFdbTop: top, lifeTime: 0, portStateChange }
      if (switchInfo.linearFdbTop !== top || portStateChange)
        this.#set(node.path, 'SwitchInfo', 0, value, this.#now, () => {})
    }
  }
  /** Blocks of linear tables, as switches have them, by the GUID of the switch. */
  readonly #linearSent = new Map<bigint, Uint8Array[]>()

  #activate(ports: Iterable<FoundPort>): void {
    for (const port of ports)
      if (port.info.portState === PortState.ARMED) this.#setPort(port, { portState: PortState.ACTIVE }, () => {})
  }

  #groupChanged(mlid: number): void {
    this.#changedGroups.add(mlid - FIRST_MULTICAST_LID)
    // Many changes of one turn are set together.
    this.#owner.wakeAt(this.#now)
  }

  /** Sets the blocks of multicast tables that have changed. */
  #setMulticast(): void {
    if (!this.isMaster || this.#isSweeping || this.#changedGroups.size === 0) return
    const blocks = new Set<number>()
    for (const index of this.#changedGroups) {
      const members = this.#administration.membersOf(index + FIRST_MULTICAST_LID)
      this.#trees.set(index, this.#routes.tree(members.flatMap(guid => this.#subnet.portOfGuid(guid) ?? [])))
      blocks.add(Math.floor(index / MFT_BLOCK))
    }
    this.#changedGroups.clear()
    for (const node of this.#subnet.switches) {
      const sent = this.#multicast.get(node.info.portGuid) ?? new Map<number, readonly number[]>()
      this.#multicast.set(node.info.portGuid, sent)
      const positions = Math.ceil((node.info.numPorts + 1) / MFT_PORTS)
      for (const block of blocks)
        for (let position = 0; position < positions; position++) {
          const masks = multicastBlock(this.#trees, node, block * MFT_BLOCK, position)
          const modifier = ((position << 28) | block) >>> 0
          const before = sent.get(modifier)
          if (masks.every((mask, i) => mask === (before?.[i] ?? 0))) continue
          sent.set(modifier, masks)
          this.#requests.set(node.path, 'MulticastForwardingTable', modifier, { masks }, this.#now, answer => {
            if (answer === undefined) sent.delete(modifier)
          })
        }
    }
  }

  /** Tells the manager that handed the subnet over that this one has it. */
  #acknowledge(): void {
    const from = this.#handedOverBy
    if (from === undefined) return
    this.#handedOverBy = undefined
    this.#requests.set(from.path, 'SMInfo', SmControl.ACKNOWLEDGE, this.#ownSmInfo(), this.#now, () => {})
  }
}

const hasOtherManager = ({ nodes }: Subnet): boolean => {
  for (const { smInfo } of nodes.values()) if (smInfo !== undefined) return true
  return false
}

/** The table of a port, with the default partition at its start if it is not there. */
const withDefaultPartition = (pkeys: readonly number[]): readonly number[] => {
  const keys = pkeys.filter(key => key !== 0)
  return keys.some(key => (key | FULL_MEMBER) === DEFAULT_PARTITION) ? pkeys : [DEFAULT_PARTITION, ...keys]
}
