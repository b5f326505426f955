/*
 * A node of an InfiniBand fabric, without I/O: an adapter or a switch with its ports, its agent of subnet management
 * (IBA 14.2, 14.3) and, of a switch, its tables (18.2.4). Packets and time go in; packets, and datagrams that are not
 * the agent's, come out. Times are microseconds.
 *
 * What a switch passes on is what its tables say. A packet is lost, and counted, where there is no output port, where
 * the output port is the input port, and after MAX_PACKET_HOPS links.
 */
import { MAD_BASE_VERSION, MAD_BYTES, madHeader } from '../../spec/wire/mad.ts'
import { MAD_STATUS_INVALID_FIELD, MAD_STATUS_UNSUPPORTED, MadClass, MadMethod } from '../../spec/wire/management.ts'
import {
  FIRST_MULTICAST_LID,
  MFT_PORTS,
  NodeType,
  NoticeType,
  type noticeData,
  PERMISSIVE_LID,
  PortCapability,
  PortState,
  SMI_QPN,
  SUBNET_VERSION,
  smAttributes,
  Trap,
} from '../../spec/wire/subnet.ts'
import { respond } from '../../transport/wire/mad/management.ts'
import { answerPerformance } from '../../transport/wire/mad/performance.ts'
import type { RecordOf } from '../../transport/wire/mad/records.ts'
import {
  noticeCodecs,
  type SmAttribute,
  type SmAttributeName,
  type Smp,
  smAttributeNames,
  smCodecs,
  smpCodec,
} from '../../transport/wire/mad/subnet.ts'
import { type AgentTarget, attributeHandlers, createTables, type SwitchTables } from './agent.ts'
import { directedStep, turnAround } from './directed-route.ts'
import type { SubnetPacket } from './packet.ts'
import { NodePort, type PortOptions } from './port.ts'

export interface NodeOptions {
  readonly kind: 'adapter' | 'switch'
  readonly guid: bigint
  /** Default: the node's own. */
  readonly systemGuid?: bigint
  /** At most 64 bytes of UTF-8. */
  readonly description: string
  /** Of an adapter: from port 1 on. Of a switch: the management port, 0, and the external ports. */
  readonly ports: readonly PortOptions[]
  readonly vendorId?: number
  readonly deviceId?: number
  readonly revision?: number
  /** Number of the first port; default: 1 of an adapter, 0 of a switch. */
  readonly firstPort?: number
  /** Number of ports in NodeInfo; default: the external ports. */
  readonly portCount?: number
}

interface NodeOwner {
  /** Sends a packet over the link of a port. */
  transmit(port: NodePort, packet: SubnetPacket): void
  /** A datagram for managers or the general services of a port. Returns false if none is there. */
  deliver(port: NodePort, packet: SubnetPacket): boolean
  /** A Set of the agent has changed the port. */
  changed?(port: NodePort): void
  /** A Set of the agent asks for a physical state: the link goes down and, unless disabled, up again. */
  setPhysical(port: NodePort, state: number): void
  /** `nextTimeout` is earlier now. */
  wakeAt(time: number): void
  /** The forwarding tables, or the states of ports, have changed. */
  routesChanged(): void
}

/** After so many links a packet is lost: the switches' lifetime limit. */
export const MAX_PACKET_HOPS = 64
/** A trap is sent again until it is repressed. */
const TRAP_INTERVAL = 1_000_000
const LINEAR_CAP = 0xc000
const MULTICAST_CAP = 0x3ffe
/** Bytes of a management packet in PortXmitData, which counts words: payload and headers. */
const PACKET_WORDS = 72
const BAD_VERSION = 0x0004
const BAD_METHOD = 0x0008
const RESPONSE = MadMethod.RESPONSE
const CLASS_AT = madHeader.mgmtClass[0] >> 3

interface PendingTrap {
  readonly port: NodePort
  readonly mad: Smp
  due: number
}

/** The data of a notice. */
type NoticeFields<T extends keyof typeof noticeData> = Partial<RecordOf<(typeof noticeData)[T]>>

const isUnicast = (lid: number): boolean => lid > 0 && lid < FIRST_MULTICAST_LID

export class SubnetNode {
  readonly kind: 'adapter' | 'switch'
  readonly guid: bigint
  readonly ports: readonly NodePort[]
  readonly tables: SwitchTables | undefined
  description: Uint8Array
  readonly #options: NodeOptions
  readonly #owner: NodeOwner
  /** By trap and port. */
  readonly #traps = new Map<string, PendingTrap>()
  #tid = 0n
  #nextTimeout = Number.POSITIVE_INFINITY
  /** When the M_Key's lease ends, by port. */
  readonly #leases = new Map<NodePort, number>()

  constructor(options: NodeOptions, owner: NodeOwner) {
    const { kind, guid, description, ports, firstPort = kind === 'switch' ? 0 : 1 } = options
    this.kind = kind
    this.guid = guid
    this.#options = options
    this.#owner = owner
    this.description = descriptionBytes(description)
    this.ports = ports.map((port, i) => new NodePort(firstPort + i, kind === 'switch', port))
    this.tables = kind === 'switch' ? createTables(ports.length - 1, LINEAR_CAP, MULTICAST_CAP) : undefined
  }

  port(number: number): NodePort | undefined {
    return this.ports[number - this.ports[0]!.number]
  }

  /** The port with LID and agent of a port's packets: of a switch, its management port. */
  #endPort(port: NodePort): NodePort {
    return this.tables === undefined ? port : this.ports[0]!
  }

  nodeInfo(inPort: NodePort): SmAttribute<'NodeInfo'> {
    const { systemGuid = this.guid, vendorId = 0, deviceId = 0, revision = 0 } = this.#options
    const end = this.#endPort(inPort)
    return {
      baseVersion: MAD_BASE_VERSION,
      classVersion: SUBNET_VERSION,
      nodeType: this.tables === undefined ? NodeType.ADAPTER : NodeType.SWITCH,
      numPorts: this.#options.portCount ?? this.ports.filter(({ number }) => number > 0).length,
      systemImageGuid: systemGuid,
      nodeGuid: this.guid,
      portGuid: end.guids[0]!,
      partitionCap: end.pkeys.length,
      deviceId,
      revision,
      localPort: inPort.number,
      vendorId,
    }
  }

  setPhysical(port: NodePort, state: number): void {
    this.#owner.setPhysical(port, state)
  }

  // ---- packets ----

  /**
   * Sends a packet from a port of this node. The datagram is copied. A directed route begins here, and also ends here
   * if it has no hops; one to a LID begins where the LID is.
   */
  send(from: NodePort, packet: SubnetPacket): void {
    const own = { ...packet, mad: packet.mad.slice(), hops: 0 }
    const isDirected = own.mad[CLASS_AT] === MadClass.SUBNET_DIRECTED_ROUTE && own.destQp === SMI_QPN
    if (isDirected && own.dlid === PERMISSIVE_LID) this.#directed(own, undefined, from)
    else this.#routed(own, from, true)
  }

  /** A packet that comes in by a link. */
  receive(port: NodePort, packet: SubnetPacket): void {
    port.count('port_rcv_packets')
    port.count('port_rcv_data', PACKET_WORDS)
    const isManagement = packet.destQp === SMI_QPN
    if (!isManagement && port.info.portState < PortState.ARMED) port.count('port_rcv_errors')
    else if (packet.hops > MAX_PACKET_HOPS) port.count('port_xmit_discards')
    else if (isManagement && packet.mad[CLASS_AT] === MadClass.SUBNET_DIRECTED_ROUTE && packet.dlid === PERMISSIVE_LID)
      this.#directed(packet, port, port)
    else this.#routed(packet, port, false)
  }

  #directed(packet: SubnetPacket, inPort: NodePort | undefined, at: NodePort): void {
    const step = directedStep(packet.mad, inPort?.number, this.tables !== undefined)
    if (step === 'local') this.#take(packet, inPort ?? at)
    else if (step === undefined) at.count('VL15_dropped')
    // The switch itself sends it on, perhaps by the port that it came in by.
    else if ('lid' in step) this.#routed({ ...packet, dlid: step.lid }, this.#endPort(inPort ?? at), true)
    else {
      const out = this.port(step.port)
      if (out !== undefined && (this.tables !== undefined || out === at)) this.#transmit(out, packet)
      else at.count('VL15_dropped')
    }
  }

  /** By LID. `isOwn`: this node sends it, so a packet may leave by the port that it is at. */
  #routed(packet: SubnetPacket, at: NodePort, isOwn: boolean): void {
    const { dlid } = packet
    if (dlid === PERMISSIVE_LID || (dlid === this.#endPort(at).info.lid && dlid !== 0)) this.#arrive(packet, at)
    else if (this.tables === undefined) {
      if (isOwn) this.#transmit(at, packet)
      // A group's LID goes with the QPN of groups, which no agent has.
      else at.count('port_rcv_errors')
    } else
      for (const number of this.outputs(at, dlid, isOwn && at.number === 0))
        if (number === 0) this.#take(packet, at)
        else this.#transmit(this.port(number)!, packet)
  }

  /** A directed route that began by LID goes on from here by ports. */
  #arrive(packet: SubnetPacket, at: NodePort): void {
    const { mad, destQp, dlid } = packet
    if (destQp !== SMI_QPN || mad[CLASS_AT] !== MadClass.SUBNET_DIRECTED_ROUTE) this.#take(packet, at)
    else if (dlid !== PERMISSIVE_LID) this.#directed({ ...packet, dlid: PERMISSIVE_LID }, at, at)
    else this.#take(packet, at)
  }

  /**
   * The ports by which a switch passes on a packet to `dlid` from port `at`; 0: the switch itself. Counts `lost`
   * packets at the input port if there is none. `mayReturn`: the packet is the switch's own.
   */
  outputs(at: NodePort, dlid: number, mayReturn = false, lost = 1): readonly number[] {
    const { tables } = this
    if (tables === undefined) return []
    if (dlid >= FIRST_MULTICAST_LID) {
      const ports = multicastPorts(tables, dlid).filter(number => number !== at.number || mayReturn)
      return ports.filter(number => this.port(number) !== undefined)
    }
    const number = dlid <= tables.info.linearFdbTop ? tables.linear[dlid]! : undefined
    if (number === undefined || this.port(number) === undefined || (number === at.number && !mayReturn)) {
      at.count('port_rcv_switch_relay_errors', lost)
      return []
    }
    return [number]
  }

  #transmit(out: NodePort, packet: SubnetPacket): void {
    const mayPass = packet.destQp === SMI_QPN ? out.isUp : out.isActive
    if (out.number === 0 || !mayPass) {
      out.count(packet.destQp === SMI_QPN ? 'VL15_dropped' : 'port_xmit_discards')
      return
    }
    out.count('port_xmit_packets')
    out.count('port_xmit_data', PACKET_WORDS)
    this.#owner.transmit(out, { ...packet, hops: packet.hops + 1 })
  }

  // ---- datagrams for this node ----

  #take(packet: SubnetPacket, inPort: NodePort): void {
    const port = this.#endPort(inPort)
    const { mad } = packet
    if (mad.length !== MAD_BYTES || mad[0] !== MAD_BASE_VERSION) return
    if (packet.destQp !== SMI_QPN) {
      if (this.#owner.deliver(port, packet) || this.tables === undefined) return
      this.#respond(inPort, packet, this.#answerPerformance(mad) ?? respond(mad, MAD_STATUS_UNSUPPORTED))
      return
    }
    const smp = smpCodec.parse(mad)
    if (smp.mgmtClass !== MadClass.SUBNET_LID_ROUTED && smp.mgmtClass !== MadClass.SUBNET_DIRECTED_ROUTE) return
    if (smp.method === MadMethod.TRAP_REPRESS) {
      for (const [key, { mad: trap }] of this.#traps) if (trap.tid === smp.tid) this.#traps.delete(key)
      return
    }
    const isRequest = smp.method === MadMethod.GET || smp.method === MadMethod.SET
    if (!isRequest || smp.attribute === smAttributes.SMInfo.id) {
      if (this.#owner.deliver(port, packet) || !isRequest) return
    }
    const answer = this.#answer(smp, inPort)
    if (answer !== undefined) this.#respond(inPort, packet, smpCodec.emit(answer))
  }

  /** The performance management of a switch's port that the request selects. Adapters' is their device's. */
  #answerPerformance(mad: Uint8Array): Uint8Array | undefined {
    return answerPerformance(mad, {
      numbers: this.ports.map(({ number }) => number).filter(number => number > 0),
      counters: number => this.port(number)!.counters,
      reset: (number, files) => {
        for (const file of files) this.port(number)!.counters[file] = 0
      },
    })
  }

  #respond(inPort: NodePort, request: SubnetPacket, mad: Uint8Array): void {
    const { slid, sl, sourceQp, destQp, pkey, qkey } = request
    const lid = this.#endPort(inPort).info.lid
    if (destQp === SMI_QPN && mad[CLASS_AT] === MadClass.SUBNET_DIRECTED_ROUTE) {
      turnAround(mad)
      const back = { slid: PERMISSIVE_LID, dlid: PERMISSIVE_LID, sl, sourceQp: destQp, destQp: sourceQp, pkey, qkey }
      this.#directed({ ...back, mad, hops: 0 }, undefined, inPort)
    } else
      this.#routed(
        { slid: lid, dlid: slid, sl, sourceQp: destQp, destQp: sourceQp, pkey, qkey, mad, hops: 0 },
        this.#endPort(inPort),
        true,
      )
  }

  #answer(request: Smp, inPort: NodePort): Smp | undefined {
    const port = this.#endPort(inPort)
    const { info } = port
    if (!this.#mayPass(request, port)) return undefined
    const name = smAttributeNames.get(request.attribute)
    const handler = name && (attributeHandlers[name] as AnyHandler | undefined)
    const answer = (status: number, data = request.data): Smp => ({
      ...request,
      method: MadMethod.GET | RESPONSE,
      status,
      data,
    })
    if (request.classVersion !== SUBNET_VERSION) return answer(BAD_VERSION)
    if (request.method !== MadMethod.GET && request.method !== MadMethod.SET) return answer(BAD_METHOD)
    if (name === undefined || handler === undefined) return answer(MAD_STATUS_UNSUPPORTED)
    const target: AgentTarget = { node: this, inPort }
    const codec = smCodecs[name] as AnyCodec
    let status = 0
    if (request.method === MadMethod.SET) {
      if (handler.set === undefined) return answer(MAD_STATUS_UNSUPPORTED)
      const wasReregistered = info.clientReregister
      if (!handler.set(target, request.modifier, codec.parse(request.data))) status = MAD_STATUS_INVALID_FIELD
      else this.#wasSet(name, target, request.modifier)
      info.clientReregister = wasReregistered
    }
    const record = handler.get(target, request.modifier)
    if (record === undefined) return answer(MAD_STATUS_INVALID_FIELD)
    const data = new Uint8Array(request.data.length)
    // M_Key is hidden from who does not have it, if protection asks for it (14.2.4.1).
    const isHidden = name === 'PortInfo' && info.mKeyProtectBits !== 0 && request.mKey !== info.mKey
    codec.emit(isHidden ? { ...record, mKey: 0n } : record, data)
    return answer(status, data)
  }

  #wasSet(name: SmAttributeName, target: AgentTarget, modifier: number): void {
    const { inPort } = target
    const isRoute = name === 'LinearForwardingTable' || name === 'MulticastForwardingTable' || name === 'SwitchInfo'
    if (isRoute || name === 'PortInfo') this.#owner.routesChanged()
    if (isRoute) return
    const selected = name === 'P_KeyTable' ? modifier >>> 16 : name === 'PortInfo' ? modifier & 0xff : 0
    const port = selected === 0 ? this.#endPort(inPort) : this.port(selected)
    if (port !== undefined) this.#owner.changed?.(port)
  }

  /** Whether M_Key allows a request (14.2.4). A violation is counted, tells the manager, and starts the lease. */
  #mayPass(
    { method, mKey, attribute, modifier, drSlid, mgmtClass, hopCount, returnPath }: Smp,
    port: NodePort,
  ): boolean {
    const { info } = port
    if (info.mKey === 0n || mKey === info.mKey) {
      this.#leases.delete(port)
      return true
    }
    if (method === MadMethod.GET && info.mKeyProtectBits < 2) return true
    info.mKeyViolations = Math.min(0xffff, info.mKeyViolations + 1)
    if (info.mKeyLeasePeriod > 0 && !this.#leases.has(port)) {
      // The owner's clock is read by the next call of onTimeout.
      this.#leases.set(port, Number.NaN)
      this.#wakeAt(0)
    }
    const isDirected = mgmtClass === MadClass.SUBNET_DIRECTED_ROUTE
    this.trap(port, Trap.BAD_M_KEY, {
      lid: info.lid,
      drSlid,
      method,
      attribute,
      modifier,
      mKey,
      isDirected,
      isTruncated: hopCount > 29,
      hopCount: Math.min(hopCount, 30),
      returnPath: returnPath.slice(1, 31),
    })
    return false
  }

  // ---- traps ----

  /** Tells the manager of the subnet, now and again until it represses the trap. Without a manager, nobody is told. */
  trap<T extends keyof typeof noticeData>(port: NodePort, trap: T, data: NoticeFields<T>): void {
    const { smLid, lid, portState } = port.info
    if (smLid === 0 || lid === 0 || portState === PortState.DOWN) return
    const noticeBytes = new Uint8Array(54)
    const codec = noticeCodecs[trap] as unknown as { emit(record: object, bytes: Uint8Array): void }
    codec.emit(data, noticeBytes)
    const producerType = this.tables === undefined ? NodeType.ADAPTER : NodeType.SWITCH
    const type =
      trap >= Trap.BAD_M_KEY
        ? NoticeType.SECURITY
        : trap === Trap.LINK_STATE
          ? NoticeType.URGENT
          : NoticeType.INFORMATIONAL
    const notice = { isGeneric: true, type, producerType, trapNumber: trap, issuerLid: lid, data: noticeBytes }
    const bytes = new Uint8Array(64)
    smCodecs.Notice.emit(notice, bytes)
    const empty = smpCodec.parse(new Uint8Array(MAD_BYTES))
    this.#tid = (this.#tid + 1n) & 0xffff_ffffn
    const mad: Smp = {
      ...empty,
      baseVersion: MAD_BASE_VERSION,
      mgmtClass: MadClass.SUBNET_LID_ROUTED,
      classVersion: SUBNET_VERSION,
      method: MadMethod.TRAP,
      tid: this.#tid,
      attribute: smAttributes.Notice.id,
      data: bytes,
    }
    this.#traps.set(`${trap}.${port.number}`, { port, mad, due: 0 })
    this.#wakeAt(0)
  }

  /** The capability mask of a port has changed. */
  setCapabilities(port: NodePort, capabilityMask: number): void {
    if (port.info.capabilityMask === capabilityMask) return
    port.info.capabilityMask = capabilityMask
    this.trap(port, Trap.CAPABILITY, { lid: port.info.lid, capabilityMask })
  }

  setIsSm(port: NodePort, isSm: boolean): void {
    const { capabilityMask } = port.info
    this.setCapabilities(port, isSm ? capabilityMask | PortCapability.IS_SM : capabilityMask & ~PortCapability.IS_SM)
  }

  setDescription(description: string): void {
    this.description = descriptionBytes(description)
    // A change of the node's description is a local change of trap 144 (14.2.5.1).
    for (const port of this.ports)
      if (port.guids.length > 0) {
        const { lid, capabilityMask } = port.info
        this.trap(port, Trap.CAPABILITY, { lid, capabilityMask, localChanges: 1, changeFlags: 1 })
      }
  }

  /** The link of a port came up or went down. */
  setLink(port: NodePort, isUp: boolean): void {
    if (port.isUp === isUp) return
    if (isUp) port.linkUp()
    else {
      port.linkDown()
      port.count('link_downed')
    }
    if (this.tables !== undefined) {
      this.tables.info.portStateChange = true
      const [management] = this.ports
      this.trap(management!, Trap.LINK_STATE, { lid: management!.info.lid })
    }
    this.#owner.routesChanged()
    this.#owner.changed?.(port)
  }

  // ---- time ----

  nextTimeout(): number {
    return this.#nextTimeout
  }

  onTimeout(now: number): void {
    if (now < this.#nextTimeout) return
    this.#nextTimeout = Number.POSITIVE_INFINITY
    for (const [key, pending] of this.#traps) {
      const { port, mad } = pending
      if (!isUnicast(port.info.smLid) || !port.isUp) {
        this.#traps.delete(key)
        continue
      }
      if (pending.due <= now) {
        pending.due = now + TRAP_INTERVAL
        const { lid: slid, smLid: dlid, smSl: sl } = port.info
        this.send(port, {
          slid,
          dlid,
          sl,
          sourceQp: SMI_QPN,
          destQp: SMI_QPN,
          pkey: 0,
          qkey: 0,
          mad: smpCodec.emit(mad),
          hops: 0,
        })
      }
      this.#wakeAt(pending.due)
    }
    for (const [port, end] of this.#leases) {
      const due = Number.isNaN(end) ? now + port.info.mKeyLeasePeriod * 1_000_000 : end
      if (due <= now) {
        // The manager with the key is gone: another one may set it (14.2.4.2).
        port.info.mKeyProtectBits = 0
        port.info.mKey = 0n
        this.#leases.delete(port)
      } else {
        this.#leases.set(port, due)
        this.#wakeAt(due)
      }
    }
  }

  #wakeAt(time: number): void {
    if (time >= this.#nextTimeout) return
    this.#nextTimeout = time
    this.#owner.wakeAt(time)
  }
}

interface AnyHandler {
  get(target: AgentTarget, modifier: number): Record<string, unknown> | undefined
  set?(target: AgentTarget, modifier: number, value: unknown): boolean
}
interface AnyCodec {
  parse(bytes: Uint8Array): unknown
  emit(record: Record<string, unknown>, bytes: Uint8Array): void
}

const DESCRIPTION_BYTES = 64
const descriptionBytes = (text: string): Uint8Array => {
  const bytes = new Uint8Array(DESCRIPTION_BYTES)
  new TextEncoder().encodeInto(text, bytes)
  return bytes
}

const multicastPorts = ({ multicast, positions }: SwitchTables, mlid: number): number[] => {
  const from = (mlid - FIRST_MULTICAST_LID) * positions
  const ports: number[] = []
  for (let position = 0; position < positions; position++)
    for (let bit = 0, mask = multicast[from + position] ?? 0; mask >> bit !== 0; bit++)
      if ((mask >> bit) & 1) ports.push(position * MFT_PORTS + bit)
  return ports
}
