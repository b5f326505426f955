/*
 * Queue pairs as a capture shows them, one packet at a time. A flow is all packets from one address to one queue pair
 * at another: requests to it, and answers to the requests that it sent. The flow in the other direction is its peer; a
 * packet does not name it, so it is found by connection management, or by an answer whose PSN only one flow has sent.
 *
 * Nothing here knows the state of a device: `problemsOf` (problems.ts) judges at the end.
 */
import { ICRC_BYTES } from '../../../spec/wire/headers.ts'
import { CNP, opcodeHeaderBytes, TRANSPORT_MASK, transportBits } from '../../../spec/wire/opcodes.ts'
import { bthPadCount, bthPkey, psnDifference } from '../../../transport/wire/bth.ts'
import { makeFlow, verifyIcrc } from '../../../transport/wire/icrc.ts'
import { checkPacket, packetFaults } from '../../../transport/wire/packet.ts'
import type { AddressTable } from '../addresses.ts'
import type { RawPacket } from '../file.ts'
import type { Located } from '../located.ts'
import { AnswerTracker } from './answers.ts'
import { endsMessage, Flow, isMtu, markMalformed, REQUEST, roleOf } from './flow.ts'
import { IncastTable } from './incast.ts'
import { hashOf, PairTable } from './pairs.ts'
import { RecentPackets } from './recent.ts'
import { RequestTracker } from './requests.ts'

/** Flows beyond are counted, and not followed: 130,000 queue pairs. */
const MAX_FLOWS = 1 << 18
/** A flow's bytes over time: so many slices, whose width doubles when the capture is longer. */
const SLICES = 16
/** Packets from which on a flow has slices: a capture may have 100,000 flows. */
const SLICES_FROM = 512
/** The first packets of a flow have their ICRC checked, and later one in so many: a middlebox rewrites them all. */
const ICRC_FIRST = 8
const ICRC_EVERY = 16
/** Packets beyond the flow's PSN at another point before that point becomes the flow's. */
const POINT_SWITCH = 8

const isOf = (
  flow: Flow,
  source: number,
  destination: number,
  qpn: number,
  service: number,
  sourceQpn: number,
): boolean =>
  flow.qpn === qpn &&
  flow.source === source &&
  flow.destination === destination &&
  flow.service === service &&
  flow.sourceQpn === sourceQpn

export class FlowTable {
  readonly flows: Flow[] = []
  readonly incast = new IncastTable()
  readonly pairs = new PairTable(this.flows)
  readonly #requests: RequestTracker
  readonly #answers: AnswerTracker
  /** Packets of flows beyond MAX_FLOWS. */
  leftOut = 0
  opcodes = new Float64Array(256)
  unknownOpcodes = 0

  readonly #addresses: AddressTable
  /** Number of a flow plus one; 0: free. */
  #slots = new Int32Array(1 << 12)
  readonly #peerOf: (flow: Flow) => { readonly address: number; readonly qpn: number } | undefined
  #last: Flow | undefined
  /** The packet that was added last is the copy of another one. */
  isCopy = false

  /**
   * What connection management has said of a flow's connection: `peerOf`, where the peer's packets go; `timeoutOf`, the
   * nanoseconds of the ACK timeout, 0 if not known.
   */
  constructor(
    addresses: AddressTable,
    peerOf: (flow: Flow) => { readonly address: number; readonly qpn: number } | undefined,
    timeoutOf: (flow: Flow) => number,
  ) {
    this.#addresses = addresses
    this.#peerOf = peerOf
    const recent = new RecentPackets()
    this.#requests = new RequestTracker(recent, this.incast, this.pairs, timeoutOf)
    this.#answers = new AnswerTracker(recent, this.pairs)
  }

  get cutSyndromes(): number {
    return this.#answers.cutSyndromes
  }

  get cutSyndromeFrame(): number {
    return this.#answers.cutSyndromeFrame
  }

  /** The capture has no more packets. */
  finish(): void {
    for (const flow of this.flows) this.#requests.finish(flow)
  }

  /** Looks for the refused requests of flows whose peers became known at the end. */
  findRefused(): void {
    for (const flow of this.flows)
      if (flow.fatalCode >= 0 && flow.refused === undefined) this.#answers.findRefused(flow)
  }

  find(source: number, destination: number, qpn: number, service: number, sourceQpn: number): Flow | undefined {
    const mask = this.#slots.length - 1
    let slot = hashOf(source, destination, qpn + service * 0x100_0000, sourceQpn) & mask
    for (;;) {
      const number = this.#slots[slot]
      if (number === 0) return undefined
      const flow = this.flows[number - 1]
      if (isOf(flow, source, destination, qpn, service, sourceQpn)) return flow
      slot = (slot + 1) & mask
    }
  }

  #insert(flow: Flow, number: number): void {
    const mask = this.#slots.length - 1
    let slot = hashOf(flow.source, flow.destination, flow.qpn + flow.service * 0x100_0000, flow.sourceQpn) & mask
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask
    this.#slots[slot] = number + 1
  }

  #flowOf(located: Located, qpn: number, service: number, sourceQpn: number): Flow | undefined {
    const { source, destination } = located
    const last = this.#last
    if (last !== undefined) {
      if (isOf(last, source, destination, qpn, service, sourceQpn)) return last
      const { peer } = last
      if (peer !== undefined && isOf(peer, source, destination, qpn, service, sourceQpn)) {
        this.#last = peer
        return peer
      }
    }
    const found = this.find(source, destination, qpn, service, sourceQpn)
    if (found !== undefined) {
      this.#last = found
      return found
    }
    if (this.flows.length === MAX_FLOWS) {
      this.leftOut++
      return undefined
    }
    const flow = new Flow(this.flows.length, source, destination, qpn, service, sourceQpn, located.point)
    if (2 * this.flows.length >= this.#slots.length) {
      this.#slots = new Int32Array(2 * this.#slots.length)
      for (const [number, one] of this.flows.entries()) this.#insert(one, number)
    }
    this.flows.push(flow)
    this.#insert(flow, this.flows.length - 1)
    this.#last = flow
    if (sourceQpn === 0) this.pairByConnection(flow)
    return flow
  }

  /** Joins a flow with its peer if connection management names it, and it exists. */
  pairByConnection(flow: Flow): void {
    const known = this.#peerOf(flow)
    if (known === undefined) return
    const peer = this.find(flow.destination, known.address, known.qpn, flow.service, 0)
    if (peer !== undefined && peer !== flow) this.pairs.pair(flow, peer, 'connection')
  }

  /** A transport packet. `time`: nanoseconds since the first packet of the capture. Returns its flow. */
  add(packet: RawPacket, located: Located, time: number): Flow | undefined {
    const { view } = packet.arena
    const { at } = located
    const opcode = view.getUint8(at)
    const word = view.getUint32(at + 4)
    this.opcodes[opcode]++
    const isCnp = opcode === CNP
    const service = isCnp ? 0 : opcode & TRANSPORT_MASK
    const header = opcodeHeaderBytes[opcode]
    const isDatagram = service === transportBits.UD
    const sourceQpn = isDatagram && located.captured >= 20 ? view.getUint32(at + 16) & 0xff_ffff : 0
    const flow = this.#flowOf(located, word & 0xff_ffff, service, sourceQpn)
    this.isCopy = false
    if (flow === undefined) return undefined
    const psn = view.getUint32(at + 8) & 0xff_ffff
    this.isCopy = !this.#isFirstSight(flow, located, roleOf[opcode], psn)
    if (this.isCopy) return flow

    const { frame } = packet
    if (flow.packets === 0) {
      flow.firstFrame = frame
      flow.firstTime = time
      flow.sourcePort = located.sourcePort
      flow.dscp = located.dscp
      flow.hopLimit = located.ipVersion === 0 ? 0 : located.hopLimit
      flow.isRoceV1 = located.ipVersion === 0 && located.isRoceV1
    }
    flow.packets++
    flow.bytes += located.length
    if (flow.packets > SLICES_FROM) this.#addToSlice(flow, located.length, time)
    this.incast.add(flow, located, time)
    if (flow.closedFrame > 0 && flow.afterClose++ === 0) flow.afterCloseFrame = frame
    if (flow.pkey < 0) flow.pkey = bthPkey(view, at)
    if (located.ecn === 3) {
      if (flow.marked++ === 0) flow.firstMarkedFrame = frame
      this.incast.trouble(flow.destination)
    }
    if (roleOf[opcode] === 0) {
      flow.lastFrame = frame
      flow.lastTime = time
      if (isCnp) {
        if (flow.cnps++ === 0) flow.firstCnpFrame = frame
        this.incast.trouble(flow.source)
        return flow
      }
      this.unknownOpcodes++
      markMalformed(flow, frame, 'an opcode that is not defined')
      return flow
    }
    if (!this.#isWellFormed(flow, packet, located, opcode)) {
      flow.lastFrame = frame
      flow.lastTime = time
      return flow
    }
    if (isDatagram) {
      if (located.captured >= 16 && view.getUint32(at + 12) === 0 && flow.qpn !== 0) {
        if (flow.zeroQkeys++ === 0) flow.zeroQkeyFrame = frame
      }
    }
    const payload = located.length - header - ICRC_BYTES - bthPadCount(view, at)
    if (endsMessage[opcode] === 0 && payload > flow.mtu && isMtu(payload)) flow.mtu = payload
    if (roleOf[opcode] === REQUEST) this.isCopy = !this.#requests.add(flow, packet, located, opcode, psn, payload, time)
    else this.#answers.add(flow, packet, located, opcode, psn, time)
    flow.lastFrame = frame
    flow.lastTime = time
    return flow
  }

  #addToSlice(flow: Flow, bytes: number, time: number): void {
    if (flow.slices === undefined) {
      flow.slices = new Float64Array(SLICES)
      flow.slicesFrom = time
    }
    const { slices } = flow
    while (time >= SLICES * flow.sliceWidth) {
      for (let i = 0; i < SLICES; i++) slices[i] = 2 * i < SLICES ? slices[2 * i] + slices[2 * i + 1] : 0
      flow.sliceWidth *= 2
    }
    if (time > 0) slices[Math.floor(time / flow.sliceWidth)] += bytes
  }

  /**
   * Whether the flow's own point of the capture saw the packet. Other points of the same file (an interface, a tag, a
   * hop further) see packets again, which are no repeats; the flow moves to another point if new PSNs come only there.
   */
  #isFirstSight(flow: Flow, located: Located, role: number, psn: number): boolean {
    if (located.point === flow.point) {
      flow.newElsewhere = 0
      return true
    }
    flow.copies++
    const isNew =
      role === REQUEST
        ? flow.nextPsn < 0 || psnDifference(psn, flow.nextPsn) >= 0
        : flow.answerPsn < 0 || psnDifference(psn, flow.answerPsn) > 0
    if (!isNew || ++flow.newElsewhere < POINT_SWITCH) return false
    flow.point = located.point
    flow.newElsewhere = 0
    return true
  }

  #isWellFormed(flow: Flow, packet: RawPacket, located: Located, opcode: number): boolean {
    const { at, length, captured } = located
    // A cut payload leaves the length, so the rules about it can be checked; InfiniBand's has no fault of its own.
    const fault = checkPacket(packet.arena.view, at, length)
    if (fault !== 0) {
      markMalformed(flow, packet.frame, packetFaults[fault])
      return false
    }
    if (captured < opcodeHeaderBytes[opcode]) return true
    if (located.ipVersion !== 0 && captured === length && !located.isFragment) {
      if (flow.icrcChecked < ICRC_FIRST || flow.packets % ICRC_EVERY === 0) this.#checkIcrc(flow, packet, located)
    }
    return true
  }

  #checkIcrc(flow: Flow, packet: RawPacket, located: Located): void {
    flow.icrcChecked++
    if (flow.icrcFlow === undefined || flow.sourcePort !== located.sourcePort) {
      flow.sourcePort = located.sourcePort
      const { destinationPort, sourcePort, dontFragment } = located
      const [source, destination] = [located.source, located.destination].map(one => this.#addresses.bytes(one))
      // Number 0 has no address of its own.
      if (located.source === 0 || located.destination === 0) return
      flow.icrcFlow = makeFlow({ source, destination, sourcePort, destinationPort, dontFragment })
    }
    if (verifyIcrc(packet.arena, located.at, located.length, flow.icrcFlow, located.identification)) return
    if (flow.icrcWrong++ === 0) flow.icrcFrame = packet.frame
  }
}
