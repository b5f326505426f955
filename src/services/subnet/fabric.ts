/*
 * Nodes of an InfiniBand fabric with the links between their ports, without I/O. Management packets wait in one queue
 * and take the delay of each link; data packets only ask which ports their tables lead to (`reached`). Times are
 * microseconds.
 */
import { FIRST_MULTICAST_LID, PhysicalState } from '../../spec/wire/subnet.ts'
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

interface LinkOptions {
  /** One way, µs; default 0. */
  readonly delay?: number
  /** Whether this packet is lost. */
  readonly loses?: () => boolean
}

export interface Link {
  readonly ends: readonly [FabricPort, FabricPort]
  readonly options: LinkOptions
  /** Whether the cable is plugged. */
  isPlugged: boolean
}

interface Waiting {
  readonly due: number
  readonly to: FabricPort
  readonly packet: SubnetPacket
}

interface FabricHooks {
  /** `nextTimeout` is now this time. */
  readonly wake?: (time: number) => void
  /** What `reached` answers may be another now. */
  readonly rerouted?: () => void
}

/** Packets in flight; further ones are lost. */
const MAX_WAITING = 65_536

export class Fabric {
  readonly nodes: SubnetNode[] = []
  readonly #links = new Map<NodePort, Link>()
  readonly #nodeOf = new Map<NodePort, SubnetNode>()
  readonly #consumers = new Map<NodePort, PortConsumer>()
  /** By their time. */
  readonly #waiting: Waiting[] = []
  #now = 0
  #nextTimeout = Number.POSITIVE_INFINITY
  readonly #hooks: FabricHooks
  readonly #reached = new Map<NodePort, Map<number, readonly FabricPort[]>>()
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
      wakeAt: time => this.#wakeAt(time),
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
    this.nodes.splice(this.nodes.indexOf(node), 1)
  }

  /** Throws if a port has a link already. */
  connect(a: FabricPort, b: FabricPort, options: LinkOptions = {}): Link {
    for (const { port } of [a, b]) if (this.#links.has(port)) throw new Error(`port ${port.number} has a link already`)
    const link = { ends: [a, b] as const, options, isPlugged: true }
    for (const { port } of link.ends) this.#links.set(port, link)
    this.#train(link)
    return link
  }

  disconnect(link: Link): void {
    this.setPlugged(link, false)
    for (const { port } of link.ends) this.#links.delete(port)
  }

  setPlugged(link: Link, isPlugged: boolean): void {
    link.isPlugged = isPlugged
    this.#train(link)
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

  /** Follows packets; `lost`: how many to count where they end without a port. */
  #walk(from: FabricPort, dlid: number, lost: number): FabricPort[] {
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
    if (from.node.tables === undefined && from.port.info.lid === dlid) return [from]
    if (from.node.tables === undefined) leave(from.port, 0)
    else
      for (const number of from.node.outputs(from.port, dlid, true, lost))
        if (number > 0) leave(from.node.port(number)!, 0)
    return [...ends].map(port => ({ node: this.#nodeOf.get(port)!, port }))
  }

  #routesChanged(): void {
    this.#reached.clear()
    this.#hooks.rerouted?.()
  }

  // ---- links ----

  #peer(port: NodePort): FabricPort | undefined {
    const link = this.#links.get(port)
    return link?.ends.find(end => end.port !== port)
  }

  /** Both ends are up if the cable is plugged and neither is disabled. */
  #train({ ends, isPlugged }: Link): void {
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
    const link = this.#links.get(port)
    const to = this.#peer(port)
    if (link === undefined || to === undefined) return
    if (this.#waiting.length >= MAX_WAITING || link.options.loses?.()) {
      this.lost++
      return
    }
    const due = this.#now + (link.options.delay ?? 0)
    let at = this.#waiting.length
    while (at > 0 && this.#waiting[at - 1]!.due > due) at--
    this.#waiting.splice(at, 0, { due, to, packet })
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
    for (const node of this.nodes) node.onTimeout(now)
    let done = 0
    while (done < max && done < this.#waiting.length && this.#waiting[done]!.due <= now) {
      const { to, packet } = this.#waiting[done++]!
      // The link may have gone down meanwhile.
      if (to.port.isUp && this.#nodeOf.has(to.port)) to.node.receive(to.port, packet)
    }
    this.#waiting.splice(0, done)
    if (this.#waiting.length > 0) this.#wakeAt(this.#waiting[0]!.due)
    for (const node of this.nodes) this.#wakeAt(node.nextTimeout())
  }

  #wakeAt(time: number): void {
    if (time >= this.#nextTimeout) return
    this.#nextTimeout = time
    this.#hooks.wake?.(time)
  }
}
