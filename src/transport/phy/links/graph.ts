/*
 * Topologies of links (links.ts): nodes are numbers, hosts first, then switches, then routers. Small functions build
 * the usual ones; `routesOf` finds all shortest paths, of which switches and routers choose one for each flow (ECMP).
 */

/** RED: no packet is marked below `min` bytes of queue, then up to `probability` at `max`, all beyond. */
interface Marking {
  readonly min: number
  readonly max: number
  readonly probability: number
}

/** A class of packets: what a link does with those of some DSCPs. */
export interface LinkClass {
  readonly name: string
  /** 0 to 63; each is in one class of the link. */
  readonly dscps: readonly number[]
  /** Share of the link while other classes have packets too, in proportion to their weights. */
  readonly weight: number
  /** As those of the link, which are the default. In a lossless class, packets have no limit that came by one. */
  readonly queue?: number | undefined
  readonly marking?: Marking | 'none' | undefined
  /** The class is lossless: its receivers send pauses (PFC). Absent: lossy. */
  readonly pause?: PauseSettings | undefined
}

/**
 * Bytes of a class that a switch has got from one link, and not sent on: beyond `xoff` the other end is paused, at
 * `xon` or below it may send again, and what exceeds `buffer` is lost. Default of `buffer`: as much as can come after a
 * pause.
 */
interface PauseSettings {
  readonly xoff: number
  readonly xon: number
  readonly buffer?: number | undefined
}

/** Classes of a link: IEEE 802.1Q has eight priorities. */
export const MAX_CLASSES = 8

/** The properties of a link, the same in both directions. */
export interface LinkSettings {
  /** Bits/s, above 0. */
  readonly rate: number
  /** One way, µs. */
  readonly delay: number
  /** Bytes that a switch keeps in front of the link; further packets are lost. */
  readonly queue: number
  /** Marking in a switch. */
  readonly marking?: Marking | undefined
  /** Probability that a packet is lost. */
  readonly loss?: number | undefined
  /** Maximum bytes of an IP packet; longer ones are lost. Default: any. */
  readonly mtu?: number | undefined
  /** At most MAX_CLASSES, with all DSCPs. Absent: one queue has all packets, with `queue` and `marking`. */
  readonly classes?: readonly LinkClass[] | undefined
}

interface TopologyLink extends LinkSettings {
  readonly ends: readonly [number, number]
}

export interface LinkTopology {
  readonly hosts: number
  readonly switches: number
  /** Absent: none. */
  readonly routers?: number
  readonly links: readonly TopologyLink[]
  /** Of all nodes. */
  readonly names?: readonly string[]
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

/** The number of the first router, and of nodes. */
const nodesOf = ({ hosts, switches, routers = 0 }: LinkTopology): { firstRouter: number; nodes: number } => ({
  firstRouter: hosts + switches,
  nodes: hosts + switches + routers,
})

/** The names of all nodes; without names, which routers have, they are h1, h2 … and s1, s2 … */
export const namesOf = ({ hosts, switches, names }: LinkTopology): readonly string[] =>
  names ?? [...range(hosts).map(i => `h${i + 1}`), ...range(switches).map(i => `s${i + 1}`)]

const joined = (settings: LinkSettings, pairs: readonly (readonly [number, number])[]): TopologyLink[] =>
  pairs.map(ends => ({ ...settings, ends }))

/** All hosts at one switch. */
export const star = (hosts: number, settings: LinkSettings): LinkTopology => ({
  hosts,
  switches: 1,
  links: joined(
    settings,
    range(hosts).map(host => [host, hosts]),
  ),
})

/** Switches in a row, `perSwitch` hosts at each; `trunk`: the links between switches. */
export const chain = (
  switches: number,
  perSwitch: number,
  settings: LinkSettings,
  trunk: LinkSettings = settings,
): LinkTopology => {
  const hosts = switches * perSwitch
  return {
    hosts,
    switches,
    links: [
      ...joined(
        settings,
        range(hosts).map(host => [host, hosts + Math.floor(host / perSwitch)]),
      ),
      ...joined(
        trunk,
        range(switches - 1).map(i => [hosts + i, hosts + i + 1]),
      ),
    ],
  }
}

/** `leaves` switches with `perLeaf` hosts each, and each joined to all of `spines` switches by `trunk`. */
export const leafSpine = (
  leaves: number,
  spines: number,
  perLeaf: number,
  settings: LinkSettings,
  trunk: LinkSettings = settings,
): LinkTopology => {
  const hosts = leaves * perLeaf
  return {
    hosts,
    switches: leaves + spines,
    links: [
      ...joined(
        settings,
        range(hosts).map(host => [host, hosts + Math.floor(host / perLeaf)]),
      ),
      ...joined(
        trunk,
        range(leaves * spines).map(i => [hosts + Math.floor(i / spines), hosts + leaves + (i % spines)]),
      ),
    ],
  }
}

/** The next links of all shortest paths. A directed link 2i or 2i + 1 leads from the first or second end of link i. */
export interface Routes {
  /** By node times number of hosts plus destination: a group; -1: no path. */
  readonly groups: Int32Array
  /** By group: its directed links. */
  readonly members: readonly Int32Array[]
}

/** A router on the way is longer than all links of a path without one. */
const ROUTER_LENGTH = 2 ** 16

/**
 * Of all paths, those with the fewest routers, and of these those with the fewest links. Hosts do not forward.
 * `isDown`: links that no path has.
 */
export const routesOf = (topology: LinkTopology, isDown: (link: number) => boolean = () => false): Routes => {
  const { hosts, links } = topology
  const { firstRouter, nodes } = nodesOf(topology)
  const leaving: { to: number; link: number }[][] = range(nodes).map(() => [])
  links.forEach(({ ends: [a, b] }, i) => {
    if (isDown(i)) return
    leaving[a].push({ to: b, link: 2 * i })
    leaving[b].push({ to: a, link: 2 * i + 1 })
  })
  const groups = new Int32Array(nodes * hosts).fill(-1)
  const members: Int32Array[] = []
  const numbers = new Map<string, number>()
  const groupOf = (next: readonly number[]): number => {
    const key = next.join()
    const known = numbers.get(key)
    if (known !== undefined) return known
    numbers.set(key, members.length)
    return members.push(Int32Array.from(next)) - 1
  }
  const distance = new Int32Array(nodes)
  const stepOf = (node: number): number => (node < firstRouter ? 1 : ROUTER_LENGTH + 1)
  /** Whether a shortest path leads from a node over `to`, which no host forwards. */
  const isCloser = (node: number, to: number): boolean =>
    distance[to] >= 0 && distance[to] === distance[node] - stepOf(node) && (to >= hosts || distance[to] === 0)
  for (let destination = 0; destination < hosts; destination++) {
    distance.fill(-1)
    distance[destination] = 0
    // a node is there again if a shorter path to it was found
    const reached = [destination]
    for (const node of reached) {
      if (node < hosts && node !== destination) continue
      for (const { to } of leaving[node]) {
        const length = distance[node] + stepOf(to)
        if (distance[to] >= 0 && distance[to] <= length) continue
        distance[to] = length
        reached.push(to)
      }
    }
    for (const node of reached) {
      if (node === destination) continue
      // most nodes are hosts with one link
      const next = leaving[node].length === 1 ? leaving[node] : leaving[node].filter(({ to }) => isCloser(node, to))
      groups[node * hosts + destination] = groupOf(next.map(({ link }) => link))
    }
  }
  return { groups, members }
}

/**
 * By host the number of its subnet, from 0 in the order of hosts: switches that are joined are one with their hosts,
 * and so is each link between hosts, or of a host to a router. The first link of a host counts.
 */
export const subnetsOf = (topology: LinkTopology): Int32Array => {
  const { hosts, links } = topology
  const { firstRouter } = nodesOf(topology)
  const isSwitch = (node: number): boolean => node >= hosts && node < firstRouter
  /** By switch: another one to which it is joined, or itself. */
  const joined = range(firstRouter)
  const rootOf = (node: number): number => (joined[node] === node ? node : rootOf(joined[node]))
  for (const {
    ends: [a, b],
  } of links)
    if (isSwitch(a) && isSwitch(b)) joined[rootOf(a)] = rootOf(b)
  const places = new Int32Array(hosts).fill(-1)
  links.forEach(({ ends }, link) => {
    const at = ends.find(isSwitch)
    for (const end of ends)
      if (end < hosts && places[end] < 0) places[end] = at === undefined ? firstRouter + link : rootOf(at)
  })
  const numbers = [...new Set(places)]
  return places.map(place => numbers.indexOf(place))
}

/** The longest time from host to host on an idle network, without serialization, µs. */
export const longestDelay = (topology: LinkTopology, routes: Routes): number =>
  longestTime(topology, routes, ({ delay }) => delay)

/** The longest time from host to host with full queues, µs. */
export const longestStay = (topology: LinkTopology, routes: Routes): number =>
  longestTime(topology, routes, link => link.delay + (longestQueue(link) * 8e6) / link.rate)

/** Bytes that leave before the last packet of a full queue; pauses take longer. */
const longestQueue = ({ queue, classes = [] }: LinkSettings): number => {
  const weights = classes.reduce((sum, { weight }) => sum + weight, 0)
  return Math.max(queue, ...classes.map(one => ((one.queue ?? queue) * weights) / one.weight))
}

/** The longest sum of `timeOf` of the links from host to host. */
const longestTime = (
  topology: LinkTopology,
  { groups, members }: Routes,
  timeOf: (link: LinkSettings) => number,
): number => {
  const { hosts, links } = topology
  let longest = 0
  /** By node: the delay to `destination`; -1: not known yet. */
  const delays = new Float64Array(nodesOf(topology).nodes)
  const delayFrom = (node: number, destination: number): number => {
    if (delays[node] >= 0) return delays[node]
    delays[node] = 0
    const group = groups[node * hosts + destination]
    if (group >= 0)
      for (const direction of members[group]) {
        const link = links[direction >> 1]
        const next = link.ends[1 - (direction & 1)]
        delays[node] = Math.max(delays[node], timeOf(link) + delayFrom(next, destination))
      }
    return delays[node]
  }
  for (let destination = 0; destination < hosts; destination++) {
    delays.fill(-1)
    delays[destination] = 0
    for (let host = 0; host < hosts; host++) longest = Math.max(longest, delayFrom(host, destination))
  }
  return longest
}

/** Two hosts between which there is no path; undefined: there are paths between all. */
export const separatedHosts = (
  { hosts }: LinkTopology,
  { groups }: Routes,
): readonly [from: number, to: number] | undefined => {
  for (let from = 0; from < hosts; from++)
    for (let to = 0; to < hosts; to++) if (from !== to && groups[from * hosts + to] < 0) return [from, to]
  return undefined
}
