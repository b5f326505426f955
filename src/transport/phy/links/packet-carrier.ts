/*
 * Carries packets of a memory link over links (links.ts), in virtual time: ports are hosts, and packets travel one by
 * one, with all their bytes. A packet is known by a number of the memory link's. A flow's path depends on its addresses
 * and UDP source port, as switches hash them.
 *
 * A host's port accepts a run while its link has at most one packet to send, so that queue pairs take turns. The
 * packets in flight have an upper limit, beyond which hosts wait too.
 */

import type { PacketFlow } from '../../../spec/wire/flow.ts'
import { hasLinkScope, isMulticastGid } from '../../wire/address.ts'
import { ECN_CE, ECN_MASK, flowHash } from '../../wire/flow.ts'
import type { HeldClass } from '../port.ts'
import { type CarriedFlow, type CarriedPath, FlowPaths, type LostOnPath } from './flow-paths.ts'
import { type LinkTopology, longestDelay, namesOf } from './graph.ts'
import { createLinks, DSCP_SHIFT, FRAME_BYTES, type Links, NOT_ROUTED } from './links.ts'

/** Bytes of the longest packet: path MTU 4096 and all headers. */
export const MAX_PACKET_BYTES = 4224
/** Packets of a run: so many leave before the next queue pair's turn. */
const RUN_PACKETS = 4
/** Packets in flight at most: about 280 MB. */
const MAX_IN_FLIGHT = 65_536
/** Bytes that a queue pair may have in flight beside those that fill the path: what waits in queues. */
const BASE_WINDOW = 2 ** 18
const MAX_WINDOW = 2 ** 28

interface PacketCarrierOptions {
  readonly topology: LinkTopology
  readonly seed: number
  /** Microseconds. */
  readonly now: () => number
  /** `Links.nextAt` has changed. */
  readonly changed: () => void
}

export interface PacketCarrier {
  readonly links: Links
  /** Maximum packets and bytes of a run. */
  readonly maxPackets: number
  readonly maxBytes: number
  /** Bytes that a queue pair may have unacknowledged, so that one can fill the longest path. */
  readonly windowBytes: number
  /** Maximum bytes of an IP packet that the host's own links carry; Infinity: any. */
  mtuOf(host: number): number
  /** Bits/s of the host's fastest link. */
  rateOf(host: number): number
  /** Until then the host's port accepts no run, µs. */
  fullUntil(host: number): number
  /** Begins a run of packets of a flow from one host to another. */
  begin(flow: PacketFlow, from: number, to: number, packets: number): void
  /**
   * Sends packet number `packet` of the run, of `length` bytes at `at` of `bytes`, which are copied.
   */
  send(packet: number, bytes: Uint8Array, at: number, length: number): void
  /** Whether packets of a flow cross this router on their way now. */
  crosses(flow: PacketFlow, from: number, to: number, router: string): boolean
  /** A rule has lost a packet of a flow at this router; `isSent`: before it left its host. */
  lostAt(flow: PacketFlow, from: number, to: number, router: string, isSent: boolean): void
  /** Where packets of a flow were lost on the path that it has taken last. */
  lossesOf(flow: PacketFlow, from: number, to: number): readonly LostOnPath[]
  /** The maximum bytes of an IP packet of the link between two nodes; Infinity: any. */
  mtuBetween(from: string, to: string): number
  /** The first router on a path between two hosts now; undefined: none, or there is no path. */
  routerBetween(from: number, to: number): string | undefined
  /** The flows so far, with their paths; the first 65,536. */
  flows(): readonly CarriedFlow[]
  /**
   * Takes the links between two nodes, or those of one, down until the returned function is called. Routes are computed
   * anew at once. Undefined: there is no such node or link.
   */
  takeDown(node: string, other?: string): (() => void) | undefined
  /** Whether a link of a node is not down. */
  isUp(node: string): boolean
  /**
   * From now on a node pauses a class of a node to which it has links, or no longer. False: there is no such link, or
   * none on which the class is lossless.
   */
  setStorm(from: string, to: string, name: string, isOn: boolean): boolean
  /** As `Port.heldClass`. */
  heldClass(flow: PacketFlow, from: number, to: number): HeldClass | undefined
  /** Set by the memory link: a packet to `host` was lost. Its bytes are in `links.arena` during the call. */
  onLost: (packet: number, host: number, at: number, length: number) => void
  /** Set by the memory link: a packet has arrived at a port. */
  onArrived: (host: number) => void
  /** A port has the host, or has it no more: then packets to the host are lost. */
  setTaken(host: number, isTaken: boolean): void
  /** Whether a packet has arrived at the host. */
  hasArrived(host: number): boolean
  /** Takes the packet that has arrived first, and copies its bytes to `at` of `bytes`; -1: none. */
  receive(host: number, bytes: Uint8Array, at: number): number
  /** Of the packet that was received last. */
  readonly length: number
  readonly isMarked: boolean
  /** What routers have left of its TTL. */
  readonly ttl: number
  /** Moves packets up to now; true if any has arrived at a host, or a host may send again. */
  poll(): boolean
}

/** The TTL and DSCP of a flow, and whether no router forwards its packets: groups, link-local addresses, RoCE v1. */
const hopsOf = ({ source, destination, hopLimit, grh, trafficClass }: PacketFlow): number => {
  const isLocal = grh !== undefined || isMulticastGid(destination) || hasLinkScope(destination) || hasLinkScope(source)
  return hopLimit | (isLocal ? NOT_ROUTED : 0) | ((trafficClass >> 2) << DSCP_SHIFT)
}

/**
 * A number that is equal for the packets of a flow: its addresses and source port; the rest of the five-tuple is equal.
 */
const hashOf = (flow: PacketFlow): number => (flowHash(flow) ^ Math.imul(flow.sourcePort, 0x9e37_79b1)) >>> 0

/** As `Port.heldClass`, of packets that take these directed links. */
const heldClassOf = (
  topology: LinkTopology,
  links: Links,
  directions: readonly number[],
  dscp: number,
  now: number,
): HeldClass | undefined => {
  const names = namesOf(topology)
  const ways = directions.flatMap(direction => {
    const { ends, classes = [] } = topology.links[direction >> 1]
    const own = classes.findIndex(({ dscps }) => dscps.includes(dscp))
    if (own < 0) return []
    const [from, to] = [ends[direction & 1], ends[1 - (direction & 1)]].map(node => names[node])
    const counts = links.classesOf(direction, now)[own]
    const lossless = classes.find(({ pause }) => pause !== undefined)?.name
    return { at: { dscp, name: counts.name, from, to }, counts, lossless }
  })
  // Pauses spread against the way of packets.
  const paused = ways.findLast(({ counts }) => counts.isPaused)
  if (paused !== undefined) return paused.at
  for (const { at, counts, lossless } of ways)
    if (lossless !== undefined && !counts.isLossless && counts.overflowed > 0)
      return { ...at, lossy: { lost: counts.overflowed, lossless } }
  return undefined
}

/** By host: the least MTU of its links, and the highest rate. */
const limitsOfHosts = ({ hosts, links }: LinkTopology) => {
  const mtus = new Float64Array(hosts).fill(Number.POSITIVE_INFINITY)
  const rates = new Float64Array(hosts)
  for (const { ends, rate, mtu = Number.POSITIVE_INFINITY } of links)
    for (const end of ends)
      if (end < hosts) {
        mtus[end] = Math.min(mtus[end], mtu)
        rates[end] = Math.max(rates[end], rate)
      }
  return { mtus, rates }
}

/** The links of a node, or those between two. `names`: of the nodes. */
const linksByName =
  ({ links }: LinkTopology, names: readonly string[]) =>
  (node: string, other?: string): number[] =>
    links.flatMap(({ ends }, link) => {
      const own = ends.map(end => names[end])
      return own.includes(node) && (other === undefined || (other !== node && own.includes(other))) ? [link] : []
    })

export const createPacketCarrier = ({ topology, seed, now, changed }: PacketCarrierOptions): PacketCarrier => {
  const { hosts } = topology
  const firstRouter = hosts + topology.switches
  let inFlight = 0
  let length = 0
  let isMarked = false
  let ttl = 0
  const names = namesOf(topology)
  /** By outage: its links. */
  const outages = new Set<ReadonlySet<number>>()
  /** The run that was begun last. */
  const run = { from: 0, to: 0, hash: 0, ecn: 0, hops: 0, path: undefined as CarriedPath | undefined }
  const links = createLinks({
    topology,
    seed,
    keptBytes: MAX_PACKET_BYTES,
    arrived: host => {
      if (taken[host] === 0) discardArrived(host)
      else carrier.onArrived(host)
    },
    lost(slot, reason, node, direction) {
      const to = direction < 0 ? undefined : names[topology.links[direction >> 1].ends[1 - (direction & 1)]]
      paths.lost(pathOfPacket[links.tagOf(slot)], reason, names[node], to)
      noteLost(slot)
    },
    resumed(host) {
      hasResumed = true
      carrier.onArrived(host)
    },
  })
  /** Since the last poll, a host may send again that was paused. */
  let hasResumed = false
  const linksOf = linksByName(topology, names)
  const paths = new FlowPaths(links, names)
  /** By packet. */
  const pathOfPacket: (CarriedPath | undefined)[] = []
  const noteLost = (slot: number): void => {
    inFlight--
    carrier.onLost(links.tagOf(slot), links.destinationOf(slot), links.offsetOf(slot), links.lengthOf(slot))
  }
  const taken = new Uint8Array(hosts)
  const discardArrived = (host: number): void => {
    for (let slot = links.receive(host); slot >= 0; slot = links.receive(host)) {
      noteLost(slot)
      links.release(slot)
    }
  }
  const { mtus, rates } = limitsOfHosts(topology)
  const roomTime = rates.map(rate => ((MAX_PACKET_BYTES + FRAME_BYTES) * 8e6) / rate)
  const roundTrip = 2 * longestDelay(topology, links.routes)
  const fastest = rates.reduce((most, rate) => Math.max(most, rate), 0)
  let nextBefore = Number.POSITIVE_INFINITY
  const noteNext = (): void => {
    const next = links.nextAt()
    if (next === nextBefore) return
    nextBefore = next
    changed()
  }

  const carrier: PacketCarrier = {
    links,
    maxPackets: RUN_PACKETS,
    maxBytes: RUN_PACKETS * MAX_PACKET_BYTES,
    windowBytes: Math.min(MAX_WINDOW, Math.ceil(BASE_WINDOW + (fastest / 8e6) * roundTrip)),
    mtuOf: host => mtus[host],
    rateOf: host => rates[host],
    fullUntil: host => (inFlight >= MAX_IN_FLIGHT ? links.nextAt() : links.busyUntil(host) - roomTime[host]),
    begin(flow, from, to, packets) {
      run.from = from
      run.to = to
      run.hash = hashOf(flow)
      run.ecn = flow.trafficClass & ECN_MASK
      run.hops = hopsOf(flow)
      run.path = paths.count(flow, from, to, run.hash, packets)
    },
    send(packet, bytes, at, size) {
      inFlight++
      const { from, to, hash, ecn, hops, path } = run
      pathOfPacket[packet] = path
      links.send(from, to, hash, ecn, bytes, at, size, now(), packet, hops)
      noteNext()
    },
    crosses: (flow, from, to, router) =>
      from !== to && links.pathOf(from, to, hashOf(flow))?.some(node => names[node] === router) === true,
    lostAt(flow, from, to, router, isSent) {
      paths.lost(paths.count(flow, from, to, hashOf(flow), isSent ? 1 : 0), 'rule', router)
    },
    lossesOf: (flow, from, to) => paths.lastOf(flow, from, to)?.lost ?? [],
    mtuBetween: (from, to) =>
      Math.min(...linksOf(from, to).map(link => topology.links[link].mtu ?? Number.POSITIVE_INFINITY)),
    routerBetween(from, to) {
      // All paths between two hosts have the same number of routers.
      const first = from === to ? undefined : links.pathOf(from, to, 0)?.find(node => node >= firstRouter)
      return first === undefined ? undefined : names[first]
    },
    heldClass: (flow, from, to) =>
      from === to
        ? undefined
        : heldClassOf(topology, links, links.directionsOf(from, to, hashOf(flow)) ?? [], flow.trafficClass >> 2, now()),
    setStorm(from, to, name, isOn) {
      let isFound = false
      topology.links.forEach(({ ends, classes = [] }, link) => {
        const index = classes.findIndex(one => one.name === name && one.pause !== undefined)
        const end = ends.findIndex((node, i) => names[node] === from && names[ends[1 - i]] === to)
        if (index < 0 || end < 0) return
        isFound = true
        links.setStorm(2 * link + end, 1 << index, isOn, now())
      })
      noteNext()
      return isFound
    },
    flows: () => paths.flows(),
    isUp: node => linksOf(node).some(link => ![...outages].some(outage => outage.has(link))),
    takeDown(node, other) {
      const down = linksOf(node, other)
      if (down.length === 0) return undefined
      const outage = new Set(down)
      const apply = (): void => {
        links.setDown(link => [...outages].some(one => one.has(link)), now())
        paths.rerouted()
        noteNext()
      }
      outages.add(outage)
      apply()
      return () => {
        if (outages.delete(outage)) apply()
      }
    },
    onLost() {},
    onArrived() {},
    setTaken(host, isTaken) {
      taken[host] = isTaken ? 1 : 0
      if (!isTaken) discardArrived(host)
    },
    hasArrived: links.hasArrived,
    receive(host, bytes, at) {
      const slot = links.receive(host)
      if (slot < 0) return -1
      inFlight--
      const { bytes: kept } = links.arena
      const offset = links.offsetOf(slot)
      length = links.lengthOf(slot)
      bytes.set(kept.subarray(offset, offset + length), at)
      isMarked = (links.ecnOf(slot) & ECN_MASK) === ECN_CE
      ttl = links.ttlOf(slot)
      const packet = links.tagOf(slot)
      links.release(slot)
      return packet
    },
    get length() {
      return length
    },
    get isMarked() {
      return isMarked
    },
    get ttl() {
      return ttl
    },
    poll() {
      const before = links.delivered
      links.poll(now())
      noteNext()
      const isDue = links.delivered !== before || hasResumed
      hasResumed = false
      return isDue
    },
  }
  return carrier
}
