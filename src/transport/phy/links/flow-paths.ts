/*
 * Which flow has taken which path: counted for each run, without allocation once the flow and its path are known. A
 * path is looked up again after each change of the routes.
 */
import type { PacketFlow } from '../../../spec/wire/flow.ts'
import { addressKey } from '../../wire/address.ts'
import type { Links, LossReason } from './links.ts'

/** Flows that are counted. */
const MAX_FLOWS = 65_536

/** Packets that were lost at a place, for one reason. */
export interface LostOnPath {
  /** Name of the node that did not forward them, or that sent them to `to`. */
  readonly from: string
  /** Name of the node at the other end of the link; undefined: they were lost at the node. */
  readonly to: string | undefined
  readonly reason: LossReason
  packets: number
}

/** Packets of a flow that were sent while its path was this. */
export interface CarriedPath {
  /** Names of its switches and routers; undefined: there was no path. */
  readonly through: readonly string[] | undefined
  packets: number
  readonly lost: LostOnPath[]
}

export interface CarriedFlow {
  /** Numbers of the hosts. */
  readonly from: number
  readonly to: number
  /** 16 bytes. */
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly sourcePort: number
  readonly dscp: number
  /** The last one is the newest. */
  readonly paths: CarriedPath[]
  /** That of its packets now. */
  path: CarriedPath | undefined
}

const dscpOf = ({ trafficClass }: PacketFlow): number => trafficClass >> 2

const keyOf = (flow: PacketFlow, from: number, to: number): string =>
  `${addressKey(flow.source)}${addressKey(flow.destination)}${flow.sourcePort} ${from} ${to} ${dscpOf(flow)}`

export class FlowPaths {
  readonly #links: Links
  readonly #names: readonly string[]
  readonly #flows = new Map<string, CarriedFlow>()
  /** By record of the flow table. */
  #known = new WeakMap<PacketFlow, CarriedFlow>()

  /** `names`: of the nodes. */
  constructor(links: Links, names: readonly string[]) {
    this.#links = links
    this.#names = names
  }

  /** Packets leave a host: their path, which they count for. Undefined: there are too many flows. */
  count(flow: PacketFlow, from: number, to: number, hash: number, packets: number): CarriedPath | undefined {
    const known = this.#known.get(flow)
    // A flow to a group has several hosts.
    const found = known?.to === to && known.from === from ? known : this.#find(flow, from, to)
    if (found === undefined) return undefined
    found.path ??= this.#pathOf(found, hash)
    found.path.packets += packets
    return found.path
  }

  /** A packet was lost on its path, as `LostOnPath` has it. */
  lost(path: CarriedPath | undefined, reason: LossReason, from: string, to?: string): void {
    if (path === undefined) return
    const place = path.lost.find(one => one.from === from && one.to === to && one.reason === reason)
    if (place === undefined) path.lost.push({ from, to, reason, packets: 1 })
    else place.packets++
  }

  /** The path that the flow has taken last; undefined: it has sent nothing. */
  lastOf(flow: PacketFlow, from: number, to: number): CarriedPath | undefined {
    return this.#flows.get(keyOf(flow, from, to))?.paths.at(-1)
  }

  rerouted(): void {
    for (const flow of this.#flows.values()) flow.path = undefined
  }

  flows(): readonly CarriedFlow[] {
    return [...this.#flows.values()]
  }

  #find(flow: PacketFlow, from: number, to: number): CarriedFlow | undefined {
    const { source, destination, sourcePort } = flow
    const key = keyOf(flow, from, to)
    let found = this.#flows.get(key)
    if (found === undefined) {
      if (this.#flows.size === MAX_FLOWS) return undefined
      found = { from, to, source, destination, sourcePort, dscp: dscpOf(flow), paths: [], path: undefined }
      this.#flows.set(key, found)
    }
    this.#known.set(flow, found)
    return found
  }

  #pathOf({ from, to, paths }: CarriedFlow, hash: number): CarriedPath {
    const through = this.#links.pathOf(from, to, hash)?.map(node => this.#names[node])
    const known = paths.findIndex(path => path.through?.join('\n') === through?.join('\n'))
    const path = known < 0 ? { through, packets: 0, lost: [] } : paths.splice(known, 1)[0]
    paths.push(path)
    return path
  }
}
