/*
 * The subnet of the InfiniBand ports of this process: switches to which the ports are cabled, with a subnet manager
 * (priority 0, which yields to any other) in the first one or at a port, or without. By default there is one switch,
 * and beyond its ports there are further ones in a row; others are a fabric's (settings/fabric.ts). Ports are reached
 * by their seam (spec/subnet-port.ts) only, and what arrives from them is handled in the next turn.
 */

import { DEFAULT_FABRIC, type FabricSpec, type LinkConditions, parseFabric } from '../../settings/fabric.ts'
import { LinkSpeed } from '../../spec/enums.ts'
import type { Disturbance, ManagementPath, PortSubnet, SubnetPort, SubnetSettings } from '../../spec/subnet-port.ts'
import { GSI_QPN, madHeader } from '../../spec/wire/mad.ts'
import { MadMethod } from '../../spec/wire/management.ts'
import { PERMISSIVE_LID, PortCapability, PortState, SMI_QPN, Trap } from '../../spec/wire/subnet.ts'
import { type CarriedPacket, Fabric, type FabricPort, type Link, type LinkOptions } from '../subnet-engine/fabric.ts'
import type { SubnetNode } from '../subnet-engine/node.ts'
import type { SubnetPacket } from '../subnet-engine/packet.ts'
import type { NodePort, PortInfo } from '../subnet-engine/port.ts'
import { SubnetManager } from '../subnet-manager/manager.ts'

export interface CarrierOwner {
  /** Sends a packet from the port with this LID into the fabric. */
  carry(fromLid: number, packet: CarriedPacket): void
  /** Whether the fabric takes a further packet. */
  hasRoom(): boolean
  /** What the port with this LID has given to the link. */
  portWith(lid: number): object | undefined
  /** `nextTimeout` is now, or ports have packets. */
  wake(): void
}

/** Takes data packets from ports, and gives them to ports (assembly/fabric/data-carrier.ts). */
export interface DataCarrier {
  /** A packet has arrived at the port that has given `to` to the link. */
  arrived(to: object, packet: CarriedPacket): void
  /** Times are microseconds. */
  nextTimeout(): number
  onTimeout(now: number): void
  close(): void
}

export interface SubnetEnvironment {
  /** Microseconds. */
  readonly now: () => number
  /** An unpredictable u32. */
  readonly random: () => number
  /** Called when there is something to do in the next turn. */
  readonly wake?: () => void
  /** As for `parseFabric`; default: one switch, or several in a row, with a subnet manager. */
  readonly fabric?: string
  /**
   * What carries packets of the data path over links with a rate, a delay or a loss. Throws an Error if there is no
   * place for it. Absent: only management datagrams meet them.
   */
  readonly createCarrier?: (owner: CarrierOwner) => DataCarrier
}

/** A cabled port. */
interface Cabled {
  readonly port: SubnetPort
  readonly at: FabricPort
  readonly link: Link
}

/** Arguments of `#startManager`. */
interface ManagerPlace {
  readonly at: FabricPort
  readonly guid: bigint
  readonly deliver: (packet: SubnetPacket) => boolean
}

/** External ports of a switch, at least. Links to switches take the last ones. */
const SWITCH_PORTS = 36
/** Of a switch in a row. */
const ROW_LINKS = 2
/** For which the switches of a fabric have ports, together. */
const MIN_PLACES = 64
/** Between two traps of a port about a key, µs. */
const VIOLATION_INTERVAL = 1_000_000
const MAX_VIOLATIONS = 0xffff
/** Turns of one call of `onTimeout`; the rest stays due. */
const MAX_TURNS = 256
/** Datagrams that move by one link in a turn: with tables that make loops of groups, each may become many. */
const MAX_PACKETS = 32
/** Packets in the fabric from which on the others wait where they were sent, as without credits. */
const MAX_CARRIED = 8192
/** Locally administered, as in an EUI-64. */
const LOCAL_GUID = 0x0200_0000n << 32n
const CAPABILITIES =
  PortCapability.TRAP |
  PortCapability.SL_MAPPING |
  PortCapability.EXTENDED_SPEEDS |
  PortCapability.CAPABILITY_MASK_NOTICE
const { DOWN, INIT, ACTIVE } = PortState
const ROW_DESCRIPTION = 'userdma switch'

export class EmbeddedSubnet {
  readonly #environment: SubnetEnvironment
  readonly #fabric = new Fabric({
    rerouted: () => {
      for (const { port } of this.#cabled.values()) port.rerouted()
    },
    arrived: ({ port }, packet) => {
      const to = this.#cabled.get(port)?.port
      if (to !== undefined) this.#carrier?.arrived(to, packet)
    },
  })
  /** Set with the first link that takes time, or loses packets. */
  #carrier: DataCarrier | undefined
  readonly #cabled = new Map<NodePort, Cabled>()
  readonly #spec: FabricSpec
  readonly #switches: SubnetNode[] = []
  /** The fabric's own, by name. */
  readonly #named = new Map<string, SubnetNode>()
  /** Of the links between them. */
  readonly #conditions = new Map<Link, LinkConditions>()
  #nextLeaf = 0
  /** By port and kind of violation: when the manager is told again. */
  readonly #quietUntil = new Map<string, number>()
  #manager: SubnetManager | undefined
  /** Where the manager is, or was before it died. */
  #managerPlace: ManagerPlace | undefined
  /** Of links: how many fault rules keep them pulled. */
  readonly #pulled = new Map<Link, number>()
  /** What ports, manager and agents have sent since the last turn. */
  readonly #queue: (() => void)[] = []
  /** Called when `isConfigured`. */
  #whenConfigured: (() => void)[] = []

  constructor(environment: SubnetEnvironment) {
    this.#environment = environment
    const { fabric } = environment
    this.#spec = fabric === undefined ? DEFAULT_FABRIC : parseFabric(fabric)
  }

  close(): void {
    for (const { port } of [...this.#cabled.values()]) port.attach(undefined)
    this.#manager?.stop()
    this.#carrier?.close()
  }

  // ---- ports ----

  /** Cables a port to the switch. */
  attach(port: SubnetPort): void {
    const { identity } = port
    const place = this.#freePlace(port.description)
    const node = this.#fabric.add(
      {
        kind: 'adapter',
        guid: integerOf(identity.nodeGuid),
        systemGuid: integerOf(identity.systemGuid),
        description: port.description,
        vendorId: identity.vendorId,
        deviceId: identity.deviceId,
        revision: identity.revision,
        firstPort: identity.number,
        portCount: identity.ports,
        ports: [
          {
            guid: integerOf(identity.portGuid),
            pkeys: [...port.settings.pkeys],
            pkeyCap: identity.pkeyTableLength,
            guidCap: identity.guidTableLength,
            capabilityMask: port.capabilityMask,
            mtuCap: identity.maxMtu,
            linkWidth: port.settings.activeWidth,
            linkSpeed: port.settings.activeSpeed,
          },
        ],
      },
      {
        changed: changed => {
          const { state, pkeys } = port.settings
          setPort(port, changed)
          // Before it is ACTIVE, the manager is about to set it.
          if (state === ACTIVE || !isSame(pkeys, port.settings.pkeys))
            this.#manager?.portSet(integerOf(identity.portGuid))
        },
      },
    )
    const at = { node, port: node.ports[0]! }
    const deliver = (packet: SubnetPacket): boolean => {
      port.deliver(packet.mad, pathOf(packet))
      return true
    }
    this.#fabric.setConsumer(at, deliver)
    // The port may change before it has a place.
    port.attach(this.#subnetOf(port, at))
    this.#cabled.set(at.port, { port, at, link: this.#fabric.connect(at, place) })
    port.rerouted()
    const { manager } = this.#spec
    if (typeof manager === 'object' && manager.at === port.description)
      this.#startManager(at, integerOf(identity.portGuid), deliver)
    this.#later(() => this.#resweep(place.node))
  }

  #subnetOf(port: SubnetPort, at: FabricPort): PortSubnet {
    const fabric = this.#fabric
    const send = (mad: Uint8Array, path: ManagementPath): void => {
      // Only queue pair 0 sends on VL 15, on which queue pair 0 receives (IBA 3.5.7).
      if ((path.sourceQpn === SMI_QPN) !== (path.destQpn === SMI_QPN)) return
      const packet = packetOf(mad, path, at.port.info.lid)
      this.#later(() => fabric.send(at, packet, this.#environment.now()))
    }
    return {
      send,
      news: news => {
        if ((news.kind !== 'bad-pkey' && news.kind !== 'bad-qkey') || this.#isViolationTold(at.port, news.kind))
          this.#later(() => this.#onNews(port, at, news))
      },
      reached: dlid => {
        if (this.#carrier !== undefined && fabric.isCarried(at, dlid)) return [this.#carrier]
        return fabric.reached(at, dlid).flatMap(end => this.#cabled.get(end.port)?.port ?? [])
      },
      lost: (dlid, packets) => fabric.lose(at, dlid, packets),
      disturb: disturbance => this.#disturb(port, at, disturbance),
      removed: () => {
        const place = this.#placeOf(at)
        this.#cabled.delete(at.port)
        if (this.#managerPlace?.at.port === at.port) this.#endManager()
        fabric.remove(at.node)
        this.#later(() => {
          this.#managerLeft(port)
          this.#resweep(place)
        })
      },
    }
  }

  /**
   * Counts a violation; whether the manager is told of it: a port sends such a trap once in an interval (IBA 13.4.9).
   */
  #isViolationTold({ info, number }: NodePort, kind: 'bad-pkey' | 'bad-qkey'): boolean {
    const counter = kind === 'bad-pkey' ? 'pKeyViolations' : 'qKeyViolations'
    info[counter] = Math.min(MAX_VIOLATIONS, info[counter] + 1)
    const now = this.#environment.now()
    const key = `${info.lid}.${number}.${kind}`
    if (now < (this.#quietUntil.get(key) ?? 0)) return false
    this.#quietUntil.set(key, now + VIOLATION_INTERVAL)
    return true
  }

  #onNews(port: SubnetPort, { node, port: at }: FabricPort, news: Parameters<PortSubnet['news']>[0]): void {
    const link = this.#cabled.get(at)?.link
    if (link === undefined) return
    switch (news.kind) {
      case 'capabilities':
        node.setCapabilities(at, port.capabilityMask)
        if ((port.capabilityMask & PortCapability.IS_SM) === 0) this.#managerLeft(port)
        break
      case 'description':
        node.setDescription(port.description)
        break
      case 'link':
        this.#fabric.setPlugged(link, news.hasCarrier)
        this.#resweep(this.#placeOf({ node, port: at }))
        break
      default: {
        const { key, path } = news
        const trap = news.kind === 'bad-pkey' ? Trap.BAD_P_KEY : Trap.BAD_Q_KEY
        const { slid: lid1, dlid: lid2, sl, sourceQpn: qp1, destQpn: qp2, grh } = path
        const gids = grh && { gid1: grh.source, gid2: grh.destination }
        node.trap(at, trap, { lid1, lid2, key, sl, qp1, qp2, ...gids })
      }
    }
  }

  /** A port of a switch for a device. */
  #freePlace(device: string): FabricPort {
    const { switches, leaves, places } = this.#spec
    if (switches.length === 0) {
      const free = this.#switches.map(node => freePort(node, this.#fabric, ROW_LINKS)).find(port => port !== undefined)
      return free ?? { node: this.#lengthenRow(), port: this.#switches.at(-1)!.port(1)! }
    }
    if (this.#named.size === 0) this.#build()
    const own = places.get(device)
    if (own !== undefined) return this.#portAt(own) ?? this.#noPort(device, [own])
    for (let tries = leaves.length; tries > 0; tries--) {
      const found = this.#portAt(leaves[this.#nextLeaf++ % leaves.length]!)
      if (found !== undefined) return found
    }
    return this.#noPort(device, leaves)
  }

  #portAt(name: string): FabricPort | undefined {
    return freePort(this.#named.get(name)!, this.#fabric)
  }

  /** Throws an Error. */
  #noPort(device: string, names: readonly string[]): never {
    const counts = names.map(name => this.#named.get(name)!.ports.length - 1)
    const ports = counts.reduce((sum, count) => sum + count, 0)
    throw new Error(
      `device ${device} has no place in the fabric: the ${ports} ports of ${names.length === 1 ? `switch ${names[0]}` : `its ${names.length} leaf switches`} are all in use; give the fabric more leaves (a fabric of one row, the default, grows)`,
    )
  }

  /** The switches of the fabric, with their links. */
  #build(): void {
    const { switches, links, leaves, places } = this.#spec
    const spread = Math.ceil(MIN_PLACES / leaves.length)
    for (const name of switches) {
      const cabled = [...links.flatMap(({ between }) => between), ...places.values()].filter(
        other => other === name,
      ).length
      this.#named.set(name, this.#addSwitch(name, Math.max(SWITCH_PORTS, cabled + spread)))
    }
    for (const { between, conditions } of links) {
      const [a, b] = between.map(name => lastPort(this.#named.get(name)!, this.#fabric)) as [FabricPort, FabricPort]
      const link = this.#fabric.connect(a, b, this.#optionsOf(conditions))
      this.#conditions.set(link, conditions)
    }
  }

  /** What a link does to packets, for the fabric. */
  #optionsOf({ rate, delay, loss }: LinkConditions): LinkOptions {
    const { random, createCarrier } = this.#environment
    if (rate === undefined && delay === undefined && loss === undefined) return {}
    if (createCarrier !== undefined)
      this.#carrier ??= createCarrier({
        carry: (from, packet) => {
          const at = this.#withLid(from)?.at
          if (at !== undefined) this.#fabric.carry(at, packet, this.#environment.now())
        },
        hasRoom: () => this.#fabric.inFlight < MAX_CARRIED,
        portWith: lid => this.#withLid(lid)?.port,
        wake: () => this.#environment.wake?.(),
      })
    return {
      rate,
      ...(delay !== undefined && { delay: delay * 1000 }),
      ...(loss !== undefined && { loses: () => random() < loss * 2 ** 32 }),
    }
  }

  #withLid(lid: number): Cabled | undefined {
    for (const cabled of this.#cabled.values()) if (cabled.at.port.info.lid === lid) return cabled
    return undefined
  }

  /** The links between two switches. */
  #between(a: string, b: string): readonly Link[] {
    const [from, to] = [this.#named.get(a), this.#named.get(b)]
    return (from?.ports ?? []).flatMap(port => {
      const link = this.#fabric.linkOf(port)
      return link?.ends.some(({ node }) => node !== from && node === to) ? [link] : []
    })
  }

  /** Pulls or plugs the cables between two switches. Returns false if there are none. */
  setCable(a: string, b: string, isPlugged: boolean): boolean {
    const links = this.#between(a, b)
    for (const link of links) {
      this.#pulled.delete(link)
      this.#fabric.setPlugged(link, isPlugged)
    }
    if (links.length > 0) this.#later(() => this.#resweep())
    return links.length > 0
  }

  // ---- faults ----

  #disturb({ identity }: SubnetPort, at: FabricPort, disturbance: Disturbance): (() => void) | undefined {
    switch (disturbance.kind) {
      case 'lid':
        this.#later(() => this.#manager?.moveLid(integerOf(identity.portGuid), this.#environment.now()))
        return undefined
      case 'manager':
        return this.#interruptManager()
      default: {
        const { between } = disturbance
        return this.#pull(between === undefined ? this.#linksOnWay(at) : this.#between(...between))
      }
    }
  }

  /**
   * The first link between switches on the way of the port's packets; before the first packet, of those to the other
   * ports.
   */
  #linksOnWay(at: FabricPort): readonly Link[] {
    const used = this.#fabric.destinationsOf(at)
    const lids = used.length > 0 ? used : [...this.#cabled.keys()].map(({ info }) => info.lid)
    for (const lid of lids) {
      const links = this.#fabric.linksTo(at, lid).filter(({ ends }) => ends.every(({ node }) => node.kind === 'switch'))
      if (links.length > 0) return links.slice(0, 1)
    }
    return []
  }

  #pull(links: readonly Link[]): (() => void) | undefined {
    if (links.length === 0) return undefined
    for (const link of links) this.#pulled.set(link, (this.#pulled.get(link) ?? 0) + 1)
    this.#plug(links, false)
    return () => {
      for (const link of links) this.#pulled.set(link, Math.max(0, (this.#pulled.get(link) ?? 0) - 1))
      this.#plug(
        links.filter(link => this.#pulled.get(link) === 0),
        true,
      )
    }
  }

  #plug(links: readonly Link[], isPlugged: boolean): void {
    this.#later(() => {
      for (const link of links) this.#fabric.setPlugged(link, isPlugged)
      this.#resweep()
    })
  }

  /** The manager dies. Returns what starts another one at the same port; undefined: there is none. */
  #interruptManager(): (() => void) | undefined {
    const place = this.#managerPlace
    if (this.#manager === undefined || place === undefined) return undefined
    this.#later(() => {
      if (this.#managerPlace !== place) return
      this.#manager?.stop()
      this.#manager = undefined
      // The port is there, and nobody behind it.
      this.#fabric.setConsumer(place.at, place.deliver)
    })
    return () =>
      this.#later(() => {
        if (this.#managerPlace === place && this.#manager === undefined)
          this.#startManager(place.at, place.guid, place.deliver)
      })
  }

  /**
   * What the links between two switches do to packets from now on; undefined: what the fabric's text says. Returns
   * false if there are none. Throws an Error if no port of the process is free for it.
   */
  setConditions(a: string, b: string, conditions: LinkConditions | undefined): boolean {
    const links = this.#between(a, b)
    for (const link of links)
      this.#fabric.setOptions(link, this.#optionsOf(conditions ?? this.#conditions.get(link) ?? {}))
    return links.length > 0
  }

  #lengthenRow(): SubnetNode {
    const before = this.#switches.at(-1)
    const node = this.#addSwitch(`${ROW_DESCRIPTION} ${this.#switches.length + 1}`, SWITCH_PORTS)
    if (before !== undefined)
      this.#fabric.connect(lastPort(before, this.#fabric), { node, port: node.port(SWITCH_PORTS - 1)! })
    return node
  }

  #addSwitch(description: string, portCount: number): SubnetNode {
    const { random } = this.#environment
    const guid = LOCAL_GUID | (BigInt(random()) << 8n) | BigInt(this.#switches.length)
    const external = Array.from({ length: portCount }, () => ({}))
    const node = this.#fabric.add(
      { kind: 'switch', guid, description, ports: [{ guid, capabilityMask: CAPABILITIES }, ...external] },
      {
        changed: ({ info, number }) => {
          // Other states are the manager's doing.
          if (info.portState === DOWN || info.portState === INIT) this.#manager?.linkChanged(guid, number)
        },
      },
    )
    this.#switches.push(node)
    if (this.#switches.length === 1 && this.#spec.manager === 'embedded')
      this.#startManager({ node, port: node.port(0)! }, guid)
    return node
  }

  #endManager(): void {
    this.#manager?.stop()
    this.#manager = undefined
    this.#managerPlace = undefined
  }

  /**
   * `deliver`: what is not for the manager, as an answer to a program at the same port may be. Default: nobody has it.
   */
  #startManager(at: FabricPort, guid: bigint, deliver: (packet: SubnetPacket) => boolean = () => false): void {
    const { now, random } = this.#environment
    const tid = (BigInt(random()) << 32n) | BigInt(random())
    const manager = new SubnetManager(
      { guid, priority: 0, yields: true, random: tid },
      {
        send: packet => this.#later(() => this.#fabric.send(at, packet, now())),
        setIsSm: isSm => at.node.setIsSm(at.port, isSm),
        wakeAt: () => {},
      },
    )
    this.#manager = manager
    this.#managerPlace = { at, guid, deliver }
    this.#fabric.setConsumer(at, packet => {
      const isTaken = manager.onPacket(packet, now())
      return (isTaken && !isResponse(packet)) || deliver(packet) || isTaken
    })
    manager.start(now())
  }

  /** Whether the ports are ACTIVE that the manager configures. */
  get #isConfigured(): boolean {
    const isDone = ({ link, at }: Cabled): boolean => !link.isPlugged || at.port.isActive
    return this.#manager === undefined || [...this.#cabled.values()].every(isDone)
  }

  /** Resolves when the ports are ACTIVE that the manager configures: over links with a delay that takes time. */
  configured(): Promise<void> | undefined {
    return this.#isConfigured ? undefined : new Promise(resolve => void this.#whenConfigured.push(resolve))
  }

  /** The program that was the manager at this port has closed its node, or ended. */
  #managerLeft({ identity }: SubnetPort): void {
    this.#manager?.managerLeft(integerOf(identity.portGuid), this.#environment.now())
  }

  /** The switch of a device's port. */
  #placeOf({ port }: FabricPort): SubnetNode | undefined {
    return this.#cabled.get(port)?.link.ends.find(end => end.port !== port)?.node
  }

  /** A link of this switch has changed. Undefined: of any. */
  #resweep(at?: SubnetNode): void {
    this.#manager?.resweep(this.#environment.now(), at?.guid)
  }

  // ---- turns ----

  #later(step: () => void): void {
    this.#queue.push(step)
    if (this.#queue.length === 1) this.#environment.wake?.()
  }

  /** When `onTimeout` must be called next, µs; Infinity: never. */
  nextTimeout(): number {
    if (this.#queue.length > 0) return Number.NEGATIVE_INFINITY
    const next = Math.min(this.#fabric.nextTimeout(), this.#manager?.nextTimeout() ?? Number.POSITIVE_INFINITY)
    return this.#carrier === undefined ? next : Math.min(next, this.#carrier.nextTimeout())
  }

  /** Returns whether anything was due. */
  onTimeout(now: number): boolean {
    let turns = 0
    for (; turns < MAX_TURNS && this.nextTimeout() <= now; turns++) {
      for (const step of this.#queue.splice(0)) step()
      this.#carrier?.onTimeout(now)
      this.#fabric.onTimeout(now, MAX_PACKETS)
      this.#manager?.onTimeout(now)
    }
    if (this.#whenConfigured.length > 0 && this.#isConfigured) for (const tell of this.#whenConfigured.splice(0)) tell()
    return turns > 0
  }
}

// ---- ports of switches ----

/** The first external port without a link, except the last `reserved` ones. */
const freePort = (node: SubnetNode, fabric: Fabric, reserved = 0): FabricPort | undefined => {
  const port = node.ports.slice(1, node.ports.length - reserved).find(each => fabric.linkOf(each) === undefined)
  return port && { node, port }
}

/** The last port without a link. */
const lastPort = (node: SubnetNode, fabric: Fabric): FabricPort => ({
  node,
  port: node.ports.filter(each => fabric.linkOf(each) === undefined).at(-1)!,
})

// ---- the seam ----

const METHOD_AT = madHeader.method[0] >> 3
const isResponse = ({ mad }: SubnetPacket): boolean => (mad[METHOD_AT]! & MadMethod.RESPONSE) !== 0

const integerOf = (guid: Uint8Array): bigint => new DataView(guid.buffer, guid.byteOffset).getBigUint64(0)
const bytesOf = (value: bigint): Uint8Array => {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, value)
  return bytes
}

const pathOf = ({ slid, dlid, sl, sourceQp, destQp, qkey, pkey }: SubnetPacket): ManagementPath => ({
  slid,
  dlid,
  sl,
  sourceQpn: sourceQp,
  destQpn: destQp,
  qkey,
  pkey,
})

/** `lid`: of the sending port, which has only one. */
const packetOf = (mad: Uint8Array, path: ManagementPath, lid: number): SubnetPacket => {
  const { dlid, sl, sourceQpn, destQpn, qkey, pkey } = path
  const slid = dlid === PERMISSIVE_LID && destQpn !== GSI_QPN ? PERMISSIVE_LID : lid
  return { slid, dlid, sl, sourceQp: sourceQpn, destQp: destQpn, qkey, pkey, mad: mad.slice(), hops: 0 }
}

const { FDR } = LinkSpeed.values
const speedOf = ({ linkSpeedExtActive, linkSpeedActive }: PortInfo): number =>
  linkSpeedExtActive > 0 ? linkSpeedExtActive * FDR : linkSpeedActive

const settingsOf = ({ info, guids, pkeys }: NodePort): SubnetSettings => ({
  state: info.portState,
  physState: info.physicalState,
  lid: info.lid,
  lmc: info.lmc,
  smLid: info.smLid,
  smSl: info.smSl,
  gidPrefix: bytesOf(info.gidPrefix),
  activeMtu: info.neighborMtu,
  activeWidth: info.linkWidthActive,
  activeSpeed: speedOf(info),
  subnetTimeout: info.subnetTimeout,
  initTypeReply: info.initTypeReply,
  guids: guids.map(bytesOf),
  pkeys: Uint16Array.from(pkeys),
})

const isSame = (a: unknown, b: unknown): boolean => {
  if (typeof a !== 'object' || typeof b !== 'object') return a === b
  const [x, y] = [a, b] as [ArrayLike<unknown>, ArrayLike<unknown>]
  return x.length === y.length && Array.prototype.every.call(x, (each, i) => isSame(each, y[i]))
}

/** Gives the port what its agent has now, as far as it is another. */
const setPort = (port: SubnetPort, at: NodePort): void => {
  const before = port.settings
  const change = Object.fromEntries(
    Object.entries(settingsOf(at)).filter(([name, value]) => !isSame(value, before[name as keyof SubnetSettings])),
  )
  if (Object.keys(change).length > 0) port.set(change)
  if (at.info.clientReregister) port.reregister()
}
