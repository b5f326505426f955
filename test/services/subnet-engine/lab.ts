/*
 * Fabrics in virtual time, and a program at a port that sends datagrams of subnet management.
 */
import { Fabric, type FabricPort, type Link } from '../../../src/services/subnet-engine/fabric.ts'
import type { SubnetNode } from '../../../src/services/subnet-engine/node.ts'
import type { SubnetPacket } from '../../../src/services/subnet-engine/packet.ts'
import type { PortOptions } from '../../../src/services/subnet-engine/port.ts'
import { MadClass, MadMethod } from '../../../src/spec/wire/management.ts'
import { PERMISSIVE_LID, SMI_QPN, smAttributes } from '../../../src/spec/wire/subnet.ts'
import {
  type SmAttribute,
  type SmAttributeName,
  type Smp,
  smCodecs,
  smpCodec,
} from '../../../src/transport/wire/mad/subnet.ts'

export const SECOND = 1_000_000

/** What a request is about. Without a LID, it has a directed route. */
interface Ask {
  readonly path?: readonly number[]
  readonly dlid?: number
  readonly modifier?: number
  readonly mKey?: bigint
}

/** Some fields of an attribute. */
type Fields<N extends SmAttributeName> = Partial<SmAttribute<N>>

export class Lab {
  now = 0
  /** How often what `reached` answers may have changed. */
  rerouted = 0
  /** When carried packets have arrived, µs. */
  readonly arrived: number[] = []
  /** When `received` were. */
  readonly receivedAt: number[] = []
  readonly fabric = new Fabric({ rerouted: () => this.rerouted++, arrived: () => void this.arrived.push(this.now) })
  /** Datagrams for the programs at the ports. */
  readonly received: { readonly at: FabricPort; readonly packet: SubnetPacket }[] = []
  #tid = 0n
  #guid = 0x100n

  addSwitch(description: string, ports: number): SubnetNode {
    const guid = this.#guid++
    const external = Array<PortOptions>(ports).fill({})
    return this.fabric.add({ kind: 'switch', guid, description, ports: [{ guid }, ...external] })
  }

  /** An adapter of one port, with a program that takes all its datagrams. */
  addAdapter(description: string, options: PortOptions = {}): FabricPort {
    const guid = this.#guid
    this.#guid += 2n
    const port = { guid: guid + 1n, pkeys: [0xffff], ...options }
    const node = this.fabric.add({ kind: 'adapter', guid, description, ports: [port] })
    const at = { node, port: node.ports[0]! }
    this.fabric.setConsumer(at, packet => {
      this.received.push({ at, packet })
      this.receivedAt.push(this.now)
      return true
    })
    return at
  }

  connect(a: FabricPort, b: FabricPort): Link {
    return this.fabric.connect(a, b)
  }

  /** Runs for `time` µs; 0: until no packet is in flight. */
  run(time = 0): void {
    const end = this.now + time
    for (let next = this.fabric.nextTimeout(); next <= end; next = this.fabric.nextTimeout()) {
      this.now = Math.max(this.now, next)
      this.fabric.onTimeout(this.now)
    }
    this.now = end
  }

  smp(method: number, attribute: number, { path = [], dlid, modifier = 0, mKey = 0n }: Ask, data?: Uint8Array): Smp {
    const isDirected = dlid === undefined
    const bytes = smpCodec.emit({
      baseVersion: 1,
      mgmtClass: isDirected ? MadClass.SUBNET_DIRECTED_ROUTE : MadClass.SUBNET_LID_ROUTED,
      classVersion: 1,
      method,
      tid: ++this.#tid,
      attribute,
      modifier,
      mKey,
      ...(data && { data }),
      ...(isDirected && {
        hopCount: path.length,
        drSlid: PERMISSIVE_LID,
        drDlid: PERMISSIVE_LID,
        initialPath: Uint8Array.from([0, ...path]),
      }),
    })
    return smpCodec.parse(bytes)
  }

  send(from: FabricPort, smp: Smp, dlid = PERMISSIVE_LID): void {
    const slid = dlid === PERMISSIVE_LID ? PERMISSIVE_LID : from.port.info.lid
    const header = { slid, dlid, sl: 0, sourceQp: SMI_QPN, destQp: SMI_QPN, pkey: 0, qkey: 0, hops: 0 }
    this.fabric.send(from, { ...header, mad: smpCodec.emit(smp) }, this.now)
  }

  /** The response to a request; undefined: none came. */
  ask(from: FabricPort, request: Smp, dlid?: number): Smp | undefined {
    this.received.length = 0
    this.send(from, request, dlid)
    this.run()
    return this.received.map(({ packet }) => smpCodec.parse(packet.mad)).find(({ tid }) => tid === request.tid)
  }

  /** The attribute; undefined: no response came, or one with another status. */
  get<N extends SmAttributeName>(from: FabricPort, name: N, ask: Ask = {}): SmAttribute<N> | undefined {
    const response = this.ask(from, this.smp(MadMethod.GET, smAttributes[name].id, ask), ask.dlid)
    return response?.status === 0 ? (smCodecs[name].parse(response.data) as unknown as SmAttribute<N>) : undefined
  }

  /** The status of a Set; undefined: no response came. */
  set<N extends SmAttributeName>(from: FabricPort, name: N, value: Fields<N>, ask: Ask = {}): number | undefined {
    const data = new Uint8Array(64)
    const codec = smCodecs[name] as unknown as { emit(record: Fields<N>, bytes: Uint8Array): void }
    codec.emit(value, data)
    return this.ask(from, this.smp(MadMethod.SET, smAttributes[name].id, ask, data), ask.dlid)?.status
  }
}

/** A chain of switches, each with the next one at port 2 and the one before at port 1, and a host at both ends. */
export const chainLab = (switches: number) => {
  const lab = new Lab()
  const [first, last] = [lab.addAdapter('first'), lab.addAdapter('last')]
  const chain = Array.from({ length: switches }, (_, i) => lab.addSwitch(`s${i}`, 4))
  const at = (index: number, number: number): FabricPort => ({ node: chain[index]!, port: chain[index]!.port(number)! })
  lab.connect(first, at(0, 1))
  for (const [i] of chain.entries()) lab.connect(at(i, 2), i + 1 < switches ? at(i + 1, 1) : last)
  return { lab, first, last, chain, at }
}
