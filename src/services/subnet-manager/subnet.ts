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

  portOfGuid(guid: bigint): FoundPort | undefined {
    const node = this.nodes.get(guid)
    return node && endPort(node)
  }

  portOfLid(lid: number): FoundPort | undefined {
    return this.#byLid.get(lid)
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
