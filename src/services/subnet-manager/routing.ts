/*
 * Tables of switches: shortest paths, spread over equal ones, and a tree for each multicast group.
 */
import { LFT_BLOCK, MFT_BLOCK, MFT_PORTS, NO_PORT } from '../../spec/wire/subnet.ts'
import { attachment, type FoundNode, type FoundPort, isSwitch, isUp, type Subnet } from './subnet.ts'

/** Distances to a switch from all that reach it, in links. */
type Distances = ReadonlyMap<FoundNode, number>

const linksBetweenSwitches = (node: FoundNode): { readonly port: FoundPort; readonly peer: FoundNode }[] =>
  [...node.ports.values()].flatMap(port =>
    port.number > 0 && isUp(port) && port.peer !== undefined && isSwitch(port.peer.node)
      ? [{ port, peer: port.peer.node }]
      : [],
  )

const distancesTo = (target: FoundNode): Distances => {
  const distances = new Map([[target, 0]])
  for (const [node, distance] of distances)
    for (const { peer } of linksBetweenSwitches(node)) if (!distances.has(peer)) distances.set(peer, distance + 1)
  return distances
}

const highestLid = (ports: readonly FoundPort[]): number => ports.reduce((top, { info }) => Math.max(top, info.lid), 0)
const tableBytes = (top: number): number => (Math.floor(top / LFT_BLOCK) + 1) * LFT_BLOCK

/** The shortest paths of a subnet as it is when they are made, but for adapters that come and go (`change`). */
export class Routes {
  readonly #subnet: Subnet
  readonly #distances = new Map<FoundNode, Distances>()
  readonly #links: ReadonlyMap<FoundNode, ReturnType<typeof linksBetweenSwitches>>
  /** Destinations of each port. */
  readonly #load = new Map<FoundPort, number>()
  /** The linear tables, by switch. */
  readonly linear = new Map<FoundNode, Uint8Array>()
  #top: number
  /** Equal paths are spread by the order of the end ports. */
  hasEqualPaths = false

  constructor(subnet: Subnet) {
    this.#subnet = subnet
    const { switches, endPorts } = subnet
    for (const node of switches) this.#distances.set(node, distancesTo(node))
    this.#links = new Map(switches.map(node => [node, linksBetweenSwitches(node)]))
    this.#top = highestLid(endPorts)
    const bytes = tableBytes(this.#top)
    for (const node of switches) this.linear.set(node, new Uint8Array(bytes).fill(NO_PORT))
    for (const end of endPorts) this.#add(end)
  }

  #add(end: FoundPort): void {
    const at = attachment(end)
    const distances = at && this.#distances.get(at.node)
    if (distances === undefined) return
    const load = this.#load
    for (const [node, table] of this.linear) {
      const here = distances.get(node)
      if (here === undefined) continue
      if (here === 0) {
        table[end.info.lid] = at!.port
        continue
      }
      let best: FoundPort | undefined
      for (const { port, peer } of this.#links.get(node)!) {
        if (distances.get(peer) !== here - 1) continue
        this.hasEqualPaths ||= best !== undefined
        if (best === undefined || (load.get(port) ?? 0) < (load.get(best) ?? 0)) best = port
      }
      if (best === undefined) continue
      load.set(best, (load.get(best) ?? 0) + 1)
      table[end.info.lid] = best.number
    }
  }

  /** Adapters came and went; the subnet has them. `gone`: LIDs. Not if there are equal paths. */
  change(added: readonly FoundPort[], gone: readonly number[]): void {
    if (gone.includes(this.#top)) this.#top = highestLid(this.#subnet.endPorts)
    this.#top = Math.max(this.#top, highestLid(added))
    const bytes = tableBytes(this.#top)
    for (const [node, table] of this.linear) {
      for (const lid of gone) table[lid] = NO_PORT
      if (table.length === bytes) continue
      const other = new Uint8Array(bytes).fill(NO_PORT)
      other.set(table.subarray(0, bytes))
      this.linear.set(node, other)
    }
    for (const end of added) this.#add(end)
  }

  /**
   * The ports by which packets from an end port leave nodes on their way to another one; undefined: there is no way.
   */
  walk(from: FoundPort, to: FoundPort): FoundPort[] | undefined {
    if (from === to) return []
    const passed: FoundPort[] = []
    let at: FoundPort | undefined = from
    // The first hop of an adapter is its only one.
    let out: FoundPort | undefined = isSwitch(from.node) ? undefined : from
    while (passed.length <= this.#subnet.nodes.size) {
      if (out === undefined) {
        const number: number | undefined = this.linear.get(at.node)?.[to.info.lid]
        if (number === 0 && at.node === to.node) return passed
        out = number === undefined ? undefined : at.node.ports.get(number)
      }
      at = out?.peer
      if (out === undefined || at === undefined) return undefined
      passed.push(out)
      if (at === to) return passed
      if (!isSwitch(at.node)) return undefined
      if (at.node === to.node) return passed
      out = undefined
    }
    return undefined
  }

  /**
   * The ports of each switch to which the packets of a group go, if `members` are in it: a tree of shortest paths to
   * the switch that has them nearest.
   */
  tree(members: readonly FoundPort[]): Map<FoundNode, Set<number>> {
    const ports = new Map<FoundNode, Set<number>>()
    const add = (node: FoundNode, port: number): void => {
      const set = ports.get(node) ?? new Set()
      ports.set(node, set.add(port))
    }
    const attached = members.flatMap(member => attachment(member) ?? [])
    const leaves = new Map<FoundNode, number>()
    for (const { node, port } of attached) {
      add(node, port)
      leaves.set(node, (leaves.get(node) ?? 0) + 1)
    }
    let root: FoundNode | undefined
    let least = Number.POSITIVE_INFINITY
    for (const [node, distances] of this.#distances) {
      let sum = 0
      for (const [leaf, count] of leaves) sum += count * (distances.get(leaf) ?? this.#distances.size)
      if (sum < least) [root, least] = [node, sum]
    }
    const distances = root && this.#distances.get(root)
    if (distances === undefined) return ports
    const done = new Set<FoundNode>([root!])
    for (const [leaf] of leaves)
      for (let node = leaf; !done.has(node); ) {
        done.add(node)
        const here = distances.get(node)
        const up = linksBetweenSwitches(node).find(({ peer }) => distances.get(peer) === (here ?? 0) - 1)
        if (up === undefined) break
        add(node, up.port.number)
        add(up.peer, up.port.peer!.number)
        node = up.peer
      }
    return ports
  }
}

/** The masks of a block of MFT_BLOCK multicast LIDs, of one group of MFT_PORTS ports. */
export const multicastBlock = (
  trees: ReadonlyMap<number, ReadonlyMap<FoundNode, ReadonlySet<number>>>,
  node: FoundNode,
  firstIndex: number,
  position: number,
): number[] =>
  Array.from({ length: MFT_BLOCK }, (_, i) => {
    let mask = 0
    for (const port of trees.get(firstIndex + i)?.get(node) ?? [])
      if (Math.floor(port / MFT_PORTS) === position) mask |= 1 << (port % MFT_PORTS)
    return mask
  })
