/*
 * Where the runs of a memory link's flows arrive: addresses and multicast groups of its ports, and what the fabric of
 * an InfiniBand port says about LIDs. A flow's route is kept until an address, a group, a flow or a fabric changes.
 */
import { FIRST_MULTICAST_LID, PERMISSIVE_LID } from '../../../spec/wire/subnet.ts'
import { addressText, isLinkLocal } from '../../wire/address.ts'
import type { FlowTable } from '../flow-table.ts'
import { addressWords, createKeyTable } from '../key-table.ts'
import type { PortFabric } from '../port.ts'

/** A route is a port number, NOWHERE if no port has the address, or GROUP minus the number of a multicast group. */
export const NOWHERE = -1
export const GROUP = -2

/** A port that is not ACTIVE has no LID (IBA 7.2.7). */
const hasLid = ({ lid }: PortFabric, wanted: number): boolean => lid === PERMISSIVE_LID || (lid !== 0 && lid === wanted)

export class MemoryRoutes {
  readonly #flows: FlowTable
  readonly #addresses = createKeyTable(4)
  /** By number in `#addresses`. */
  readonly #portOfAddress: number[] = []
  readonly #vlanOfAddress: (number | undefined)[] = []
  /** Multicast groups, and their member ports by group number. */
  readonly #groups = createKeyTable(4)
  readonly #membersOf: number[][] = []
  /** By flow: route, peer number of the source at the destination, and the version for which these two are valid. */
  readonly #routeOf: number[] = []
  readonly #peerOf: number[] = []
  readonly #routeVersion: number[] = []
  /** By flow to a multicast LID: the ports that it reaches. Undefined: all members of the group. */
  readonly #reachedOf: (ReadonlySet<number> | undefined)[] = []
  /** InfiniBand ports: their fabrics by port number, and their numbers by fabric. */
  readonly #fabrics: (PortFabric | undefined)[] = []
  readonly #portOfFabric = new Map<object, number>()
  /** Increases when an answer of a fabric may have changed. */
  #fabricVersion = 0
  readonly #key = new Uint32Array(4)

  constructor(flows: FlowTable) {
    this.#flows = flows
  }

  /** The route of a flow. */
  route(flow: number): number {
    const flows = this.#flows
    const version = this.#addresses.version + flows.version() + this.#groups.version + this.#fabricVersion
    if (this.#routeVersion[flow] !== version) {
      this.#reachedOf[flow] = undefined
      const destination = flows.hasLids(flow) ? this.#routeByLid(flow) : this.#routeByAddress(flow)
      this.#routeOf[flow] = destination
      this.#peerOf[flow] = destination < 0 ? -1 : this.#peerAtPort(flow, destination)
      this.#routeVersion[flow] = version
    }
    return this.#routeOf[flow]
  }

  /** `ReceivedRun.peer` of the flow's runs at its destination. */
  peerOf(flow: number): number {
    this.route(flow)
    return this.#peerOf[flow]
  }

  /** `ReceivedRun.peer` of the flow's runs at a port, which may be none to which its route leads now. */
  peerAt(flow: number, portNumber: number): number {
    return this.route(flow) === portNumber ? this.#peerOf[flow] : this.#peerAtPort(flow, portNumber)
  }

  #peerAtPort(flow: number, portNumber: number): number {
    const flows = this.#flows
    return flows.peerOf(portNumber, flows.words(), flows.sourceAt(flow), flows.isRoceV1(flow))
  }

  /** The members of a group that a run with the route of this group reaches. */
  membersOf(destination: number, flow: number): readonly number[] {
    const members = this.#membersOf[GROUP - destination]
    const reached = this.#reachedOf[flow]
    return reached === undefined ? members : members.filter(member => reached.has(member))
  }

  /** So many packets of a flow have reached no port. */
  lost(flow: number, packets: number): void {
    if (this.#flows.hasLids(flow)) this.#fabricOf(flow)?.lost(this.#lidAt(this.#flows.destinationAt(flow)), packets)
  }

  /** As `Port.addAddress`. `vlan`: that of the address. */
  addAddress(portNumber: number, address: Uint8Array, vlan?: number): void {
    addressWords(address, this.#key, 0)
    const existing = this.#addresses.find(this.#key, 0)
    if (existing < 0) {
      const number = this.#addresses.acquire(this.#key, 0)
      this.#portOfAddress[number] = portNumber
      this.#vlanOfAddress[number] = vlan
      return
    }
    // Several devices may have the same link-local address: the first device gets it.
    if (this.#portOfAddress[existing] === portNumber || isLinkLocal(address)) return
    throw new Error(`the memory link has a port with the address ${addressText(address)} already`)
  }

  /** The port with an address; -1: none. */
  portAt(address: Uint8Array): number {
    addressWords(address, this.#key, 0)
    const number = this.#addresses.find(this.#key, 0)
    return number < 0 ? -1 : this.#portOfAddress[number]
  }

  /** The VLAN of an address; undefined: none. */
  vlanOf(address: Uint8Array): number | undefined {
    addressWords(address, this.#key, 0)
    return this.#vlanAt(this.#key, 0)
  }

  #vlanAt(words: Uint32Array, at: number): number | undefined {
    const number = this.#addresses.find(words, at)
    return number < 0 ? undefined : this.#vlanOfAddress[number]
  }

  removeAddress(portNumber: number, address: Uint8Array): void {
    addressWords(address, this.#key, 0)
    const number = this.#addresses.find(this.#key, 0)
    if (number >= 0 && this.#portOfAddress[number] === portNumber) this.#addresses.release(number)
  }

  joinGroup(portNumber: number, group: Uint8Array): void {
    addressWords(group, this.#key, 0)
    this.#join(portNumber, this.#key, 0)
  }

  leaveGroup(portNumber: number, group: Uint8Array): void {
    addressWords(group, this.#key, 0)
    this.#leave(portNumber, this.#groups.find(this.#key, 0))
  }

  setFabric(portNumber: number, fabric: PortFabric): void {
    this.#fabrics[portNumber] = fabric
    this.#portOfFabric.set(fabric, portNumber)
    this.#fabricVersion++
  }

  /** Removes all addresses and memberships of a port, and its fabric. */
  removePort(portNumber: number): void {
    for (let number = 0; number < this.#portOfAddress.length; number++)
      if (this.#portOfAddress[number] === portNumber && this.#addresses.refCount(number) > 0)
        this.#addresses.release(number)
    for (let group = 0; group < this.#membersOf.length; group++) this.#leave(portNumber, group)
    const fabric = this.#fabrics[portNumber]
    if (fabric === undefined) return
    this.#portOfFabric.delete(fabric)
    this.#fabrics[portNumber] = undefined
    this.#fabricVersion++
  }

  #routeByAddress(flow: number): number {
    const words = this.#flows.words()
    const at = this.#flows.destinationAt(flow)
    const address = this.#addresses.find(words, at)
    if (address >= 0) {
      const isInVlan = this.#vlanAt(words, this.#flows.sourceAt(flow)) === this.#vlanOfAddress[address]
      return isInVlan ? this.#portOfAddress[address] : NOWHERE
    }
    const group = this.#groups.find(words, at)
    return group < 0 ? NOWHERE : GROUP - group
  }

  /** The route of a flow by LID: what the tables of the fabric say. */
  #routeByLid(flow: number): number {
    const fabric = this.#fabricOf(flow)
    if (fabric === undefined) return NOWHERE
    const at = this.#flows.destinationAt(flow)
    const dlid = this.#lidAt(at)
    const isGroup = dlid >= FIRST_MULTICAST_LID
    // A port that is not ACTIVE takes no packets.
    const numbers = fabric
      .reached(dlid)
      .flatMap(reached => this.#portOfFabric.get(reached) ?? [])
      .filter(number => (isGroup ? this.#fabrics[number]!.lid !== 0 : hasLid(this.#fabrics[number]!, dlid)))
    if (!isGroup) return numbers[0] ?? NOWHERE
    for (const number of numbers) if (this.#fabrics[number]!.isTrunk) this.#join(number, this.#flows.words(), at)
    const group = this.#groups.find(this.#flows.words(), at)
    // An adapter passes packets to a group to its own members too.
    this.#reachedOf[flow] = new Set(fabric.isTrunk ? numbers : [...numbers, this.#flows.portOf(flow)])
    return group < 0 ? NOWHERE : GROUP - group
  }

  /** The LID of a flow's address at this index. */
  #lidAt(at: number): number {
    return this.#flows.words()[at + 3]
  }

  /** The fabric of a flow's port, if the port may send it. */
  #fabricOf(flow: number): PortFabric | undefined {
    const fabric = this.#fabrics[this.#flows.portOf(flow)]
    const isOwn = fabric !== undefined && hasLid(fabric, this.#lidAt(this.#flows.sourceAt(flow)))
    return isOwn ? fabric : undefined
  }

  /** Makes a port a member of a group: four words from index `at` on. */
  #join(portNumber: number, words: Uint32Array, at: number): void {
    const existing = this.#groups.find(words, at)
    if (existing >= 0 && this.#membersOf[existing].includes(portNumber)) return
    const number = this.#groups.acquire(words, at)
    this.#membersOf[number] = existing < 0 ? [portNumber] : [...this.#membersOf[existing], portNumber]
  }

  /** `group`: a number in `#groups`. No effect if the port is not a member. */
  #leave(portNumber: number, group: number): void {
    if (group < 0 || !this.#membersOf[group].includes(portNumber)) return
    this.#membersOf[group] = this.#membersOf[group].filter(member => member !== portNumber)
    this.#groups.release(group)
  }
}
