/*
 * What a sweep has found: nodes, ports and links, and who is where. An adapter is a node of its own for each port that
 * was reached, because a route ends at a port.
 */
import { NodeType, PortState } from '../../spec/wire/subnet.ts'
import type { SmAttribute } from '../../transport/wire/mad/subnet.ts'
import type { Path } from './requests.ts'

export interface FoundPort {
  readonly node: FoundNode
  readonly number: number
  info: SmAttribute<'PortInfo'>
  /** Of end ports. */
  pkeys: readonly number[]
  /** The other end of the link. */
  peer: FoundPort | undefined
}

export interface FoundNode {
  readonly info: SmAttribute<'NodeInfo'>
  readonly path: Path
  description: Uint8Array
  switchInfo: SmAttribute<'SwitchInfo'> | undefined
  readonly ports: Map<number, FoundPort>
  /** Of a node with a subnet manager that is not this one. */
  smInfo: SmAttribute<'SMInfo'> | undefined
}

export const isSwitch = ({ info }: FoundNode): boolean => info.nodeType === NodeType.SWITCH

/** The port with the LID: of a switch, its management port. Undefined: it has not answered. */
export const endPort = (node: FoundNode): FoundPort | undefined =>
  isSwitch(node) ? node.ports.get(0) : node.ports.get(node.info.localPort)

/** Adapters that came and went, as a look at some switches has found. */
export interface Change {
  /** Ports of the switches, as they are now, with their peers; `FoundPort.node` is the subnet's own. */
  readonly ports: readonly FoundPort[]
  readonly added: readonly FoundNode[]
  readonly removed: readonly FoundNode[]
}

export const isUp = ({ info }: FoundPort): boolean => info.portState !== PortState.DOWN

/** The nodes of a sweep, by the GUID of their end port. */
export class Subnet {
  readonly nodes = new Map<bigint, FoundNode>()
  /** A node or a port has not answered. */
  hasGaps = false
  readonly #byLid = new Map<number, FoundPort>()

  get switches(): FoundNode[] {
    return [...this.nodes.values()].filter(isSwitch)
  }

  /** All ports with LIDs. */
  get endPorts(): FoundPort[] {
    return [...this.nodes.values()].flatMap(node => endPort(node) ?? [])
  }

  ports(): FoundPort[] {
    return [...this.nodes.values()].flatMap(({ ports }) => [...ports.values()])
  }

  /** Those that a change is about. */
  portsOf({ ports, added }: Change): FoundPort[] {
    const own = ports.map(({ node, number }) => node.ports.get(number)!)
    return [...own, ...added.flatMap(node => [...node.ports.values()])]
  }

  portOfGuid(guid: bigint): FoundPort | undefined {
    const node = this.nodes.get(guid)
    return node && endPort(node)
  }

  portOfLid(lid: number): FoundPort | undefined {
    return this.#byLid.get(lid)
  }

  /** `removed` adapters may be among those that were added: then they have been read again. */
  apply({ ports, added, removed }: Change): void {
    for (const node of removed) {
      this.#byLid.delete(endPort(node)?.info.lid ?? 0)
      this.nodes.delete(node.info.portGuid)
    }
    for (const { node, number, info, peer } of ports) {
      const port = node.ports.get(number)!
      port.info = info
      port.peer = peer
      if (peer !== undefined) peer.peer = port
    }
    for (const node of added) this.nodes.set(node.info.portGuid, node)
  }

  indexLid(port: FoundPort): void {
    this.#byLid.set(port.info.lid, port)
  }

  /** After LIDs have changed. */
  indexLids(): void {
    this.#byLid.clear()
    for (const port of this.endPorts) this.#byLid.set(port.info.lid, port)
  }
}

/** The switch of an end port, and the number of the switch's port that leads to it; undefined: there is no switch. */
export const attachment = (port: FoundPort): { readonly node: FoundNode; readonly port: number } | undefined => {
  if (isSwitch(port.node)) return { node: port.node, port: 0 }
  const { peer } = port
  return peer !== undefined && isSwitch(peer.node) ? { node: peer.node, port: peer.number } : undefined
}
