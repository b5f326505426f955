/*
 * One pass over a capture: packets of its file become flows, connections and counts. What they mean is `problemsOf`.
 */
import { opcodeByNumber } from '../../spec/wire/opcodes.ts'
import { makeFlow, verifyIcrc } from '../../transport/wire/icrc.ts'
import { AddressTable } from './addresses.ts'
import { type CaptureConnection, ConnectionTable } from './connections.ts'
import { CaptureReader, type RawPacket } from './file.ts'
import { type CaptureFilter, matchesFilter } from './filter.ts'
import type { Flow } from './flows/flow.ts'
import { FlowTable } from './flows/table.ts'
import { FragmentTable } from './fragments.ts'
import { type IcmpError, Kind, Locator, packetKinds } from './locate.ts'
import type { Located } from './located.ts'
import type { OtherPackets } from './others.ts'

export interface AnalysisOptions {
  /** The UDP port of RoCEv2; default 4791. */
  readonly port?: number
  readonly filter?: CaptureFilter
  /** Of several captures, so that their numbers of addresses are the same. */
  readonly addresses?: AddressTable
  /** Sees each transport packet that the filter accepts. */
  readonly onPacket?: (packet: RawPacket, located: Located, kind: number, time: number) => void
}

/** Fewer queue pairs than this are joined by trying each with each. */
const MAX_PAIRS = 64

/** Different ICMP errors that are kept: a hostile file may have any number. */
const MAX_ERRORS = 1000
/** Ports that are named. */
const MAX_PORTS = 8

/** ICMP errors of one kind about one path. */
interface SeenError extends IcmpError {
  count: number
  readonly frame: number
}

export class CaptureAnalysis {
  readonly reader: CaptureReader
  readonly addresses: AddressTable
  readonly connectionTable = new ConnectionTable()
  readonly table: FlowTable
  /** Packets by number of `packetKinds`. */
  readonly kinds = new Float64Array(packetKinds.length)
  readonly fragments = new FragmentTable()
  /** Seconds since 1970 of the first packet, and nanoseconds. */
  startSeconds = 0
  startNanoseconds = 0
  /** Nanoseconds since the start. */
  end = 0
  /** ICMP errors about RoCEv2 packets, by kind and path. */
  readonly errors = new Map<string, SeenError>()
  /** UDP ports, other than that of RoCEv2, with packets that have a right ICRC: frames of the first. */
  readonly otherPorts = new Map<number, number>()
  /** Steps back of the clock by more than a millisecond. */
  backwards = 0

  readonly #locator: Locator
  readonly #filter: CaptureFilter | undefined
  readonly #onPacket: AnalysisOptions['onPacket']
  #hasStart = false
  #time = 0

  constructor({ port, filter, addresses = new AddressTable(), onPacket }: AnalysisOptions = {}) {
    this.addresses = addresses
    this.reader = new CaptureReader(this.#add)
    this.#locator = new Locator(this.addresses, port)
    this.table = new FlowTable(this.addresses, this.connectionTable.peerOf, this.connectionTable.timeoutOf)
    this.#filter = filter
    this.#onPacket = onPacket
  }

  /** What is no RoCE packet. */
  get others(): OtherPackets {
    return this.#locator.others
  }

  /** Frames with several packets, and how many these have. */
  get joined(): { readonly frames: number; readonly packets: number } {
    return this.#locator.joined
  }

  /** There are packets of InfiniBand. */
  get hasLids(): boolean {
    return this.kinds[Kind.INFINIBAND]! > 0
  }

  get flows(): readonly Flow[] {
    return this.table.flows
  }

  get connections(): readonly CaptureConnection[] {
    return this.connectionTable.connections
  }

  /** Nanoseconds since the first packet. */
  #timeOf({ seconds, nanoseconds, hasTime }: RawPacket): number {
    if (!hasTime) return this.#time
    if (!this.#hasStart) {
      this.#hasStart = true
      this.startSeconds = seconds
      this.startNanoseconds = nanoseconds
    }
    const time = (seconds - this.startSeconds) * 1e9 + (nanoseconds - this.startNanoseconds)
    if (time < this.#time - 1e6) this.backwards++
    this.#time = time
    if (time > this.end) this.end = time
    return time
  }

  readonly #add = (packet: RawPacket): void => {
    const time = this.#timeOf(packet)
    const kind = this.#locator.locate(packet)
    this.kinds[kind]++
    const { located, fragment } = this.#locator
    if (fragment !== undefined) this.fragments.add(fragment, kind <= Kind.INFINIBAND, packet.frame)
    if (kind > Kind.INFINIBAND) {
      if (kind === Kind.ICMP && this.#locator.icmp !== undefined) this.#addError(this.#locator.icmp, packet.frame)
      else if (kind === Kind.OTHER_UDP && this.#locator.isCandidate) this.#tryPort(packet, located)
      return
    }
    const { parts } = located
    if (parts === 1) {
      this.#addTransport(packet, located, kind, time)
      return
    }
    for (let part = 0; part < parts; part++) {
      this.#locator.select(packet, part)
      this.#addTransport(packet, located, kind, time)
    }
    this.#locator.select(packet, 0)
  }

  /** A transport packet of a frame. */
  #addTransport(packet: RawPacket, located: Located, kind: number, time: number): void {
    const qpn = packet.arena.view.getUint32(located.at + 4) & 0xff_ffff
    if (this.#filter !== undefined && !matchesFilter(this.#filter, this.addresses, located, qpn, time)) return
    this.#onPacket?.(packet, located, kind, time)
    this.table.add(packet, located, time)
    if (this.table.isCopy) return
    const connection = this.connectionTable.add(packet, located, qpn, time)
    if (connection === undefined) return
    const { DREP } = connection.messages
    if (DREP === undefined) this.#connected(connection)
    else this.#closed(connection, DREP.frame)
  }

  /** The flows of both directions; undefined: not seen yet, or their queue pairs are unknown. */
  #flowsOf({ client, server, clientQpn, serverQpn }: CaptureConnection): (Flow | undefined)[] {
    if (clientQpn === undefined || serverQpn === undefined) return []
    return [this.table.find(client, server, serverQpn, 0, 0), this.table.find(server, client, clientQpn, 0, 0)]
  }

  #closed(connection: CaptureConnection, frame: number): void {
    for (const flow of this.#flowsOf(connection)) if (flow !== undefined) flow.closedFrame = frame
  }

  #addError(error: IcmpError, frame: number): void {
    const { type, code, reporter, source, destination, qpn } = error
    const key = `${type}/${code}/${reporter}/${source}/${destination}/${qpn}`
    const seen = this.errors.get(key)
    if (seen !== undefined) seen.count++
    else if (this.errors.size < MAX_ERRORS) this.errors.set(key, { ...error, count: 1, frame })
  }

  /** Whether a datagram at another port is a RoCEv2 packet: its ICRC is right. */
  #tryPort(packet: RawPacket, located: Located): void {
    const { at, length, source, destination, sourcePort, destinationPort, dontFragment, identification } = located
    if (this.otherPorts.size >= MAX_PORTS || this.otherPorts.has(destinationPort)) return
    if (source === 0 || destination === 0) return
    const [from, to] = [source, destination].map(number => this.addresses.bytes(number))
    const flow = makeFlow({ source: from, destination: to, sourcePort, destinationPort, dontFragment })
    if (verifyIcrc(packet.arena, at, length, flow, identification)) this.otherPorts.set(destinationPort, packet.frame)
  }

  /** Joins flows whose packets came before the REP. */
  #connected(connection: CaptureConnection): void {
    const [toServer, toClient] = this.#flowsOf(connection)
    for (const flow of [toServer, toClient]) if (flow !== undefined) flow.closedFrame = 0
    if (toServer !== undefined) this.table.pairByConnection(toServer)
  }

  /** The file has no more bytes. */
  finish(): void {
    this.reader.end()
    this.fragments.finish()
    this.table.finish()
    this.#pairTheOnlyOnes()
    this.table.findRefused()
  }

  /**
   * Joins flows without a peer, if between two addresses there is only one in each direction.
   */
  #pairTheOnlyOnes(): void {
    const groups = new Map<string, Flow[]>()
    for (const flow of this.flows) {
      if (flow.peer !== undefined || flow.sourceQpn !== 0 || flow.service === UD) continue
      const { source, destination, service } = flow
      const key = `${Math.min(source, destination)}/${Math.max(source, destination)}/${service}`
      const group = groups.get(key)
      if (group === undefined) groups.set(key, [flow])
      else if (group.length < MAX_PAIRS) group.push(flow)
    }
    for (const group of groups.values()) {
      if (group.length !== 2) continue
      const [flow, other] = group
      if (flow.source === other.destination && flow.destination === other.source)
        this.table.pairs.pair(flow, other, 'only')
    }
  }

  /** Packets by opcode name. */
  get opcodes(): Readonly<Record<string, number>> {
    const counts: Record<string, number> = {}
    for (const [number, count] of this.table.opcodes.entries())
      if (count > 0) counts[opcodeByNumber[number]?.name ?? `0x${number.toString(16).padStart(2, '0')}`] = count
    return counts
  }
}

const UD = 0x60
