/*
 * Fabrics with subnet managers, in virtual time, and clients of subnet administration.
 */

import { MadAgentEngine } from '../../../src/services/mad-engine/agent.ts'
import type { MadPath } from '../../../src/services/mad-engine/path.ts'
import type { FabricPort } from '../../../src/services/subnet-engine/fabric.ts'
import type { SubnetNode } from '../../../src/services/subnet-engine/node.ts'
import type { SubnetPacket } from '../../../src/services/subnet-engine/packet.ts'
import { SubnetManager } from '../../../src/services/subnet-manager/manager.ts'
import { GSI_QKEY } from '../../../src/spec/wire/mad.ts'
import { MadMethod } from '../../../src/spec/wire/management.ts'
import { PortState, SaMethod, saRecords } from '../../../src/spec/wire/subnet.ts'
import {
  type SaMad,
  type SaRecord,
  type SaRecordName,
  saCodec,
  saCodecs,
} from '../../../src/transport/wire/mad/subnet.ts'
import { Lab, SECOND } from '../subnet-engine/lab.ts'

interface ManagerSettings {
  readonly priority?: number
  readonly yields?: boolean
  readonly pkeysOf?: (guid: bigint) => readonly number[] | undefined
}

/** A manager at a port: of an adapter, or the management port of a switch. */
class Managed {
  readonly manager: SubnetManager
  /** Requests that it sends. */
  sent = 0
  readonly #lab: ManagedLab
  readonly at: FabricPort

  constructor(lab: ManagedLab, at: FabricPort, settings: ManagerSettings) {
    this.#lab = lab
    this.at = at
    const owner = {
      send: (packet: SubnetPacket) => {
        this.sent++
        lab.outgoing.push(() => lab.fabric.send(at, packet, lab.now))
      },
      setIsSm: (isSm: boolean) => at.node.setIsSm(at.port, isSm),
      wakeAt: () => {},
    }
    const guid = at.port.guids[0]!
    this.manager = new SubnetManager({ guid, priority: 0, random: guid * 0x1_0000_0001n, ...settings }, owner)
    lab.fabric.setConsumer(at, packet => this.manager.onPacket(packet, lab.now))
  }

  start(): void {
    this.manager.start(this.#lab.now)
  }

  /** Its program is killed: it answers nothing, and its port says that no manager is there. */
  kill(): void {
    this.#lab.fabric.setConsumer(this.at, undefined)
    this.manager.stop()
    this.#lab.managers.splice(this.#lab.managers.indexOf(this), 1)
  }
}

/** The answer to a query. */
interface Answered<N extends SaRecordName> {
  readonly status: number
  readonly records: readonly SaRecord<N>[]
}

export class ManagedLab extends Lab {
  readonly managers: Managed[] = []
  /** Packets that managers and clients have sent in this turn. */
  readonly outgoing: (() => void)[] = []
  readonly clients: MadAgentEngine<MadPath & { lid: number }, undefined>[] = []

  manage(at: FabricPort, settings: ManagerSettings = {}): Managed {
    const managed = new Managed(this, at, settings)
    this.managers.push(managed)
    return managed
  }

  override run(time = 0): void {
    const end = this.now + time
    for (;;) {
      for (const send of this.outgoing.splice(0)) send()
      const engines = [this.fabric, ...this.managers.map(({ manager }) => manager), ...this.clients]
      const next = Math.min(...engines.map(engine => engine.nextTimeout()))
      if (this.outgoing.length > 0) continue
      if (next > end) break
      this.now = Math.max(this.now, next)
      for (const engine of engines) engine.onTimeout(this.now)
    }
    this.now = end
  }

  /** Runs until all ports of the fabric that have a link are ACTIVE. Returns how long it took, µs. */
  untilActive(limit = 10 * SECOND): number {
    const begin = this.now
    while (this.now - begin < limit) {
      this.run(SECOND / 100)
      if (this.managers.some(({ manager }) => manager.isSettled) && this.areActive()) return this.now - begin
    }
    throw new Error('the subnet has not come up')
  }

  areActive(): boolean {
    return this.fabric.nodes.every(({ ports }) =>
      ports.every(({ info }) => info.portState === PortState.ACTIVE || info.portState === PortState.DOWN),
    )
  }

  /** End ports that packets from a host to another one reach. */
  reaches(from: FabricPort, to: FabricPort): boolean {
    const [found, ...more] = this.fabric.reached(from, to.port.info.lid)
    return more.length === 0 && found?.port === to.port
  }
}

/** A client of subnet administration at a port, and the datagrams that it gets without having asked. */
export class SaClient {
  readonly at: FabricPort
  readonly #lab: ManagedLab
  readonly #engine: MadAgentEngine<MadPath & { lid: number }, undefined>
  readonly answers: SaMad[] = []
  readonly reports: SaRecord<'Notice'>[] = []
  #message: Uint8Array | undefined
  #tid = 0n

  constructor(lab: ManagedLab, at: FabricPort) {
    this.#lab = lab
    this.at = at
    this.#engine = new MadAgentEngine(
      { highTid: Number(at.port.guids[0]! & 0xffffn), engineDoesRmpp: true },
      {
        transmit: (mad, { lid }) => lab.outgoing.push(() => this.#send(mad, lid)),
        wakeAt: () => {},
        deliver: (message, from) => this.#deliver(message, from),
        ended: () => {},
      },
    )
    lab.clients.push(this.#engine)
    lab.fabric.setConsumer(at, packet => {
      if (packet.destQp !== 1) return false
      this.#engine.onMad(packet.mad, this.#path(packet.slid), lab.now)
      return true
    })
  }

  #path(lid: number): MadPath & { lid: number } {
    const remoteGid = new Uint8Array(16)
    remoteGid.set([lid >> 8, lid & 0xff])
    return { lid, localGid: new Uint8Array(16), remoteGid, qpn: 1 }
  }

  #send(mad: Uint8Array, dlid: number): void {
    const header = { slid: this.at.port.info.lid, dlid, sl: 0, sourceQp: 1, destQp: 1, pkey: 0xffff, qkey: GSI_QKEY }
    this.#lab.fabric.send(this.at, { ...header, mad, hops: 0 }, this.#lab.now)
  }

  #deliver(message: Uint8Array, from: MadPath & { lid: number }): void {
    const header = new Uint8Array(256)
    header.set(message.subarray(0, 256))
    const mad = saCodec.parse(header)
    if (mad.method !== MadMethod.REPORT) {
      this.#message = message
      return
    }
    this.reports.push(saCodecs.Notice.parse(mad.data))
    const answer = saCodec.emit({ ...mad, method: MadMethod.REPORT | MadMethod.RESPONSE })
    this.#engine.send(answer, from, { timeout: 0, retries: 0, tag: undefined }, this.#lab.now)
  }

  /** The records of the answer to a query; undefined: none came. */
  ask<N extends SaRecordName>(
    name: N,
    method: number,
    record: Partial<SaRecord<N>>,
    options: { readonly smKey?: bigint; readonly without?: readonly (keyof SaRecord<N>)[] } = {},
  ): Answered<N> | undefined {
    const codec = saCodecs[name] as unknown as {
      readonly bytes: number
      emit(record: Partial<SaRecord<N>>, bytes: Uint8Array): Uint8Array
      parse(bytes: Uint8Array, at?: number): SaRecord<N>
      mask(...names: (keyof SaRecord<N>)[]): bigint
    }
    const data = codec.emit(record, new Uint8Array(200))
    const names = (Object.keys(record) as (keyof SaRecord<N>)[]).filter(each => !options.without?.includes(each))
    const mad = saCodec.emit({
      baseVersion: 1,
      mgmtClass: 3,
      classVersion: 2,
      method,
      tid: ++this.#tid,
      attribute: saRecords[name].id,
      smKey: options.smKey ?? 0n,
      componentMask: codec.mask(...names),
      data,
    })
    this.#message = undefined
    this.#engine.send(
      mad,
      this.#path(this.at.port.info.smLid),
      { timeout: SECOND, retries: 3, tag: undefined },
      this.#lab.now,
    )
    for (let turns = 0; turns < 100 && this.#message === undefined; turns++)
      this.#lab.run(turns === 0 ? 0 : SECOND / 10)
    const message = this.#message as Uint8Array | undefined
    if (message === undefined) return undefined
    const header = new Uint8Array(256)
    header.set(message.subarray(0, 256))
    const { status, attributeOffset } = saCodec.parse(header)
    if (status !== 0) return { status, records: [] }
    if (attributeOffset === 0) return { status, records: [codec.parse(message, 56)] }
    const count = Math.floor((message.length - 56) / (attributeOffset * 8))
    return {
      status,
      records: Array.from({ length: count }, (_, i) => codec.parse(message, 56 + i * attributeOffset * 8)),
    }
  }

  get<N extends SaRecordName>(name: N, record: Partial<SaRecord<N>> = {}): SaRecord<N> | undefined {
    return this.ask(name, MadMethod.GET, record)?.records[0]
  }

  table<N extends SaRecordName>(name: N, record: Partial<SaRecord<N>> = {}, smKey = 0n): readonly SaRecord<N>[] {
    return this.ask(name, MadMethod.GET_TABLE, record, { smKey })?.records ?? []
  }

  set<N extends SaRecordName>(name: N, record: Partial<SaRecord<N>>): Answered<N> | undefined {
    return this.ask(name, MadMethod.SET, record)
  }

  remove<N extends SaRecordName>(name: N, record: Partial<SaRecord<N>>): Answered<N> | undefined {
    return this.ask(name, SaMethod.DELETE, record)
  }
}

/** Two layers of switches, each leaf with a link to each spine, and `hosts` hosts at each leaf. */
export const fatTree = (leaves: number, spines: number, hosts: number) => {
  const lab = new ManagedLab()
  const at = (node: SubnetNode, number: number): FabricPort => ({ node, port: node.port(number)! })
  const tops = Array.from({ length: spines }, (_, i) => lab.addSwitch(`spine${i + 1}`, leaves))
  const bottoms = Array.from({ length: leaves }, (_, i) => lab.addSwitch(`leaf${i + 1}`, hosts + spines))
  const adapters = bottoms.flatMap((leaf, i) => {
    for (const [j, top] of tops.entries()) lab.connect(at(leaf, hosts + j + 1), at(top, i + 1))
    return Array.from({ length: hosts }, (_, j) => {
      const host = lab.addAdapter(`h${i * hosts + j + 1}`)
      lab.connect(host, at(leaf, j + 1))
      return host
    })
  })
  return { lab, tops, bottoms, adapters, at }
}
