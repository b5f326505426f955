/*
 * Nodes of an InfiniBand fabric with the links between their ports, without I/O. Management packets wait in one queue
 * and take the time of each link. Data packets only ask which ports their tables lead to (`reached`); those whose way
 * has a link with a rate, a delay or a loss go through the same queue (`carry`). Times are microseconds.
 */
import { FIRST_MULTICAST_LID, PhysicalState, SMI_QPN } from '../../spec/wire/subnet.ts'
import { InFlight, type Timed } from './in-flight.ts'
import { MAX_PACKET_HOPS, type NodeOptions, SubnetNode } from './node.ts'
import type { SubnetPacket } from './packet.ts'
import type { NodePort } from './port.ts'

/** A port of a node. */
export interface FabricPort {
  readonly node: SubnetNode
  readonly port: NodePort
}

/** Receives the datagrams of an end port that are not for the node's agents. Returns false if it takes none of them. */
type PortConsumer = (packet: SubnetPacket, now: number) => boolean

interface NodeHooks {
  /** A Set of the agent, or the link, has changed a port. */
  readonly changed?: (port: NodePort) => void
}

/** What a link does to packets, in both directions. Absent: nothing. */
export interface LinkOptions {
  /** One way, µs. */
  readonly delay?: number | undefined
  /** Bits per second. Packets wait for it, those of subnet management before the others (IBA 7.6.9). */
  readonly rate?: number | undefined
  /** Whether this packet is lost. */
  readonly loses?: (() => boolean) | undefined
}

export interface Link {
  readonly ends: readonly [FabricPort, FabricPort]
  readonly options: LinkOptions
  /** Whether the cable is plugged. */
  readonly isPlugged: boolean
}

/** A direction of a link: when its last packet has left, of subnet management and of all others, and has arrived. */
interface Direction {
  managementLeftAt: number
  leftAt: number
  arrivedAt: number
}

interface OwnLink extends Link {
  options: LinkOptions
  isPlugged: boolean
  readonly directions: readonly [Direction, Direction]
}

/** A packet of the data path on its way. Its owner has the bytes. */
export interface CarriedPacket {
  readonly dlid: number
  /** Bytes on a link. */
  readonly bytes: number
}

/** A packet that arrives at a port. */
interface Waiting extends Timed {
  readonly to: FabricPort
  /** Of management, or of the data path. */
  readonly packet: SubnetPacket | CarriedPacket
  /** Links passed. */
  readonly hops: number
  readonly seen: Set<NodePort> | undefined
}

/** Where packets of an end port to a LID arrive. */
interface Reach {
  readonly ends: readonly FabricPort[]
  /** Whether a link on the way takes time, or loses packets. */
  readonly isCarried: boolean
}

interface FabricHooks {
  /** `nextTimeout` is now this time. */
  readonly wake?: (time: number) => void
  /** What `reached` and `isCarried` answer may be another now. */
  readonly rerouted?: () => void
  /** A carried packet has arrived at an end port; a multicast one at each. */
  readonly arrived?: (at: FabricPort, packet: CarriedPacket) => void
}

/** Packets in flight; further ones are lost. */
const MAX_WAITING = 65_536
/**
 * µs for which a packet waits for a link with a rate, as HOQLife of a switch (IBA 18.2.5.4; at most 2.1 s): a program
 * that sends more than the link takes does not hold up others for longer.
 */
const LIFETIME = 2_000_000
/** Of a management packet on a link: LRH, BTH, DETH, 256 bytes, ICRC, VCRC. */
const MANAGEMENT_BYTES = 8 + 12 + 8 + 256 + 4 + 2

const isManagement = (packet: SubnetPacket | CarriedPacket): packet is SubnetPacket => 'mad' in packet

export class Fabric {
  readonly nodes: SubnetNode[] = []
  readonly #links = new Map<NodePort, OwnLink>()
  readonly #nodeOf = new Map<NodePort, SubnetNode>()
  readonly #consumers = new Map<NodePort, PortConsumer>()
  readonly #waiting = new InFlight<Waiting>()
  /** Nodes that have a timeout. */
  readonly #withTraps = new Set<SubnetNode>()
  #now = 0
  #nextTimeout = Number.POSITIVE_INFINITY
  readonly #hooks: FabricHooks
  readonly #reached = new Map<NodePort, Map<number, Reach>>()
  /** Somebody may have kept an answer of `reached` or `isCarried`. */
  #wasAsked = false
  /** Packets that the fabric has lost: too many in flight, or by a link's loss. */
  lost = 0

  constructor(hooks: FabricHooks = {}) {
    this.#hooks = hooks
  }

  add(options: NodeOptions, hooks: NodeHooks = {}): SubnetNode {
    const node: SubnetNode = new SubnetNode(options, {
      transmit: (port, packet) => this.#transmit(port, packet),
      deliver: (port, packet) => this.#consumers.get(port)?.(packet, this.#now) ?? false,
      changed: port => hooks.changed?.(port),
      setPhysical: (port, state) => this.#setPhysical(port, state),
      wakeAt: time => {
        this.#withTraps.add(node)
        this.#wakeAt(time)
      },
      routesChanged: () => this.#routesChanged(),
    })
    this.nodes.push(node)
    for (const port of node.ports) this.#nodeOf.set(port, node)
    return node
  }

  /** Removes a node with its links. */
  remove(node: SubnetNode): void {
    for (const port of node.ports) {
      const link = this.#links.get(port)
      if (link !== undefined) this.disconnect(link)
      this.#nodeOf.delete(port)
      this.#consumers.delete(port)
    }
    this.#withTraps.delete(node)
    this.nodes.splice(this.nodes.indexOf(node), 1)
  }

  /** Throws if a port has a link already. */
  connect(a: FabricPort, b: FabricPort, options: LinkOptions = {}): Link {
    for (const { port } of [a, b]) if (this.#links.has(port)) throw new Error(`port ${port.number} has a link already`)
    const directions = [a, b].map((): Direction => ({ managementLeftAt: 0, leftAt: 0, arrivedAt: 0 })) as [
      Direction,
      Direction,
    ]
    const link: OwnLink = { ends: [a, b], options, isPlugged: true, directions }
    for (const { port } of link.ends) this.#links.set(port, link)
    this.#train(link)
    return link
  }

  disconnect(link: Link): void {
    this.setPlugged(link, false)
    for (const { port } of link.ends) this.#links.delete(port)
  }

  setPlugged({ ends }: Link, isPlugged: boolean): void {
    const link = this.#links.get(ends[0].port)
    if (link === undefined) return
    link.isPlugged = isPlugged
    this.#train(link)
  }

  /** Packets that are on the link already keep their time. */
  setOptions({ ends }: Link, options: LinkOptions): void {
    const link = this.#links.get(ends[0].port)
    if (link === undefined) return
    link.options = options
    this.#routesChanged()
  }

  linkOf(port: NodePort): Link | undefined {
    return this.#links.get(port)
  }

  /** Who receives the datagrams of an end port; undefined: nobody. */
  setConsumer({ port }: FabricPort, consumer: PortConsumer | undefined): void {
    if (consumer === undefined) this.#consumers.delete(port)
    else this.#consumers.set(port, consumer)
  }

  /** Sends a datagram from an end port. */
  send({ node, port }: FabricPort, packet: SubnetPacket, now: number): void {
    this.#now = now
    node.send(port, packet)
  }

  // ---- routes of data packets ----

  /**
   * The end ports that a packet from an end port to `dlid` reaches: by tables and states of ports, as they are now. At
   * most one, but for multicast.
   */
  reached(from: FabricPort, dlid: number): readonly FabricPort[] {
    return this.#reach(from, dlid).ends
  }

  /**
   * Whether packets from an end port to `dlid` pass a link that takes time or loses some: they are to be sent by
   * `carry`.
   */
  isCarried(from: FabricPort, dlid: number): boolean {
    return this.#reach(from, dlid).isCarried
  }

  #reach(from: FabricPort, dlid: number): Reach {
    this.#wasAsked = true
    let byLid = this.#reached.get(from.port)
    if (byLid === undefined) {
      byLid = new Map()
      this.#reached.set(from.port, byLid)
    }
    let found = byLid.get(dlid)
    if (found === undefined) {
      found = this.#walk(from, dlid, 0)
      byLid.set(dlid, found)
    }
    return found
  }

  /** Counts data packets that reach no port where they end. */
  lose(from: FabricPort, dlid: number, packets: number): void {
    this.#walk(from, dlid, packets)
  }

  /** The LIDs to which an end port has sent packets since routes have changed, in the order of the first. */
  destinationsOf({ port }: FabricPort): readonly number[] {
    return [...(this.#reached.get(port)?.keys() ?? [])].filter(lid => lid !== port.info.lid)
  }

  /** The links on the way of packets from an end port to `dlid`, from the first on. */
  linksTo(from: FabricPort, dlid: number): readonly Link[] {
    const links: Link[] = []
    this.#walk(from, dlid, 0, links)
    return links
  }

  /** Follows packets; `lost`: how many to count where they end without a port. `links`: gets those on the way. */
  #walk(from: FabricPort, dlid: number, lost: number, links?: Link[]): Reach {
    let isCarried = false
    const ends = new Set<NodePort>()
    /** A port and the number of links before it. Packets of a loop are followed until their end. */
    const isMulticast = dlid >= FIRST_MULTICAST_LID
    const seen = new Set<NodePort>()
    const leave = (out: NodePort, hops: number): void => {
      const peer = out.isActive ? this.#peer(out) : undefined
      if (peer === undefined || hops >= MAX_PACKET_HOPS) {
        out.count('port_xmit_discards', lost)
        return
      }
      if (isMulticast && seen.has(peer.port)) return
      seen.add(peer.port)
      const link = this.#links.get(out)!
      links?.push(link)
      const { delay = 0, rate, loses } = link.options
      isCarried ||= delay > 0 || rate !== undefined || loses !== undefined
      const { node, port } = peer
      if (node.tables === undefined) {
        if (isMulticast || port.info.lid === dlid) ends.add(port)
        else port.count('port_rcv_errors', lost)
        return
      }
      for (const number of node.outputs(port, dlid, false, lost))
        if (number === 0) ends.add(node.ports[0]!)
        else leave(node.port(number)!, hops + 1)
    }
    if (from.node.tables === undefined && from.port.info.lid === dlid) return { ends: [from], isCarried }
    if (from.node.tables === undefined) leave(from.port, 0)
    else
      for (const number of from.node.outputs(from.port, dlid, true, lost))
        if (number > 0) leave(from.node.port(number)!, 0)
    return { ends: [...ends].map(port => ({ node: this.#nodeOf.get(port)!, port })), isCarried }
  }

  // ---- carried packets ----

  /** Packets on their way. */
  get inFlight(): number {
    return this.#waiting.size
  }

  /** Sends a packet of the data path from an end port by the tables of the switches. */
  carry(from: FabricPort, packet: CarriedPacket, now: number): void {
    this.#now = now
    this.#passOn(from.port, packet, 0, packet.dlid >= FIRST_MULTICAST_LID ? new Set() : undefined)
  }

  /**
   * Sends a carried packet by a port. `seen`: the ports that a packet to a group has reached, each once, as in `#walk`.
   */
  #passOn(out: NodePort, packet: CarriedPacket, hops: number, seen: Set<NodePort> | undefined): void {
    const peer = out.isActive ? this.#peer(out) : undefined
    if (peer === undefined || hops >= MAX_PACKET_HOPS) out.count('port_xmit_discards')
    else if (seen?.has(peer.port) !== true) {
      seen?.add(peer.port)
      this.#enter(out, packet, hops + 1, seen)
    }
  }

  #receiveCarried({ to: { node, port }, hops, seen }: Waiting, packet: CarriedPacket): void {
    const { dlid } = packet
    if (node.tables !== undefined) {
      // No queue pair of a switch takes data.
      for (const number of node.outputs(port, dlid))
        if (number > 0) this.#passOn(node.port(number)!, packet, hops, seen)
    } else if (port.isActive && (dlid >= FIRST_MULTICAST_LID || port.info.lid === dlid))
      this.#hooks.arrived?.({ node, port }, packet)
    else port.count('port_rcv_errors')
  }

  #routesChanged(): void {
    if (!this.#wasAsked) return
    this.#wasAsked = false
    this.#reached.clear()
    this.#hooks.rerouted?.()
  }

  // ---- links ----

  #peer(port: NodePort): FabricPort | undefined {
    const link = this.#links.get(port)
    return link?.ends.find(end => end.port !== port)
  }

  /** Both ends are up if the cable is plugged and neither is disabled. */
  #train({ ends, isPlugged }: OwnLink): void {
    const isUp = isPlugged && ends.every(({ port }) => port.info.physicalState !== PhysicalState.DISABLED)
    for (const { node, port } of ends) node.setLink(port, isUp)
  }

  #setPhysical(port: NodePort, state: number): void {
    const link = this.#links.get(port)
    const isDisabled = state === PhysicalState.DISABLED || state === PhysicalState.SLEEP
    if (link === undefined) {
      port.info.physicalState = isDisabled ? PhysicalState.DISABLED : PhysicalState.POLLING
      return
    }
    port.info.physicalState = PhysicalState.DISABLED
    this.#train(link)
    if (isDisabled) return
    port.info.physicalState = PhysicalState.POLLING
    this.#train(link)
  }

  #transmit(port: NodePort, packet: SubnetPacket): void {
    this.#enter(port, packet, packet.hops)
  }

  /** A packet leaves by a port. */
  #enter(out: NodePort, packet: SubnetPacket | CarriedPacket, hops: number, seen?: Set<NodePort>): void {
    const link = this.#links.get(out)
    if (link === undefined) return
    const isFirst = link.ends[0].port === out
    const to = link.ends[isFirst ? 1 : 0]
    const { delay = 0, rate, loses } = link.options
    if (this.#waiting.size >= MAX_WAITING || loses?.()) {
      // A lost packet has arrived with errors.
      if (this.#waiting.size < MAX_WAITING) to.port.count('port_rcv_errors')
      this.lost++
      return
    }
    const bytes = isManagement(packet) ? MANAGEMENT_BYTES : packet.bytes
    const time = rate === undefined ? 0 : (bytes * 8e6) / rate
    const direction = link.directions[isFirst ? 0 : 1]
    let due: number
    // Virtual lane 15 goes before the others.
    if (isManagement(packet) && packet.destQp === SMI_QPN) {
      direction.managementLeftAt = Math.max(this.#now, direction.managementLeftAt) + time
      due = direction.managementLeftAt + delay
    } else if (direction.leftAt - this.#now > LIFETIME) {
      out.count('port_xmit_discards')
      this.lost++
      return
    } else {
      direction.leftAt = Math.max(this.#now, direction.leftAt) + time
      // Packets do not overtake each other when the delay has become shorter.
      due = Math.max(direction.leftAt + delay, direction.arrivedAt)
      direction.arrivedAt = due
    }
    this.#waiting.add({ due, order: 0, to, packet, hops, seen })
    this.#wakeAt(due)
  }

  // ---- time ----

  nextTimeout(): number {
    return this.#nextTimeout
  }

  /** Passes on the packets that are due, at most `max` of them, and lets the nodes send their traps. */
  onTimeout(now: number, max = Number.POSITIVE_INFINITY): void {
    if (now < this.#nextTimeout) return
    this.#now = now
    this.#nextTimeout = Number.POSITIVE_INFINITY
    for (const node of [...this.#withTraps]) node.onTimeout(now)
    for (let done = 0; done < max; done++) {
      const next = this.#waiting.take(now)
      if (next === undefined) break
      const { to, packet } = next
      // The link may have gone down meanwhile.
      if (!to.port.isUp || !this.#nodeOf.has(to.port)) continue
      if (isManagement(packet)) to.node.receive(to.port, packet)
      else this.#receiveCarried(next, packet)
    }
    this.#wakeAt(this.#waiting.next)
    for (const node of this.#withTraps) {
      const time = node.nextTimeout()
      if (time === Number.POSITIVE_INFINITY) this.#withTraps.delete(node)
      else this.#wakeAt(time)
    }
  }

  #wakeAt(time: number): void {
    if (time >= this.#nextTimeout) return
    this.#nextTimeout = time
    this.#hooks.wake?.(time)
  }
}
