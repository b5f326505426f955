/*
 * Queue pairs as a capture shows them, one packet at a time. A flow is all packets from one address to one queue pair at
 * another: requests to it, and answers to the requests that it sent. The flow in the other direction is its peer; a packet
 * does not name it, so it is found by connection management, or by an answer whose PSN only one flow has sent.
 *
 * A flow has a fixed number of counters, so memory depends on the queue pairs, not on the packets. Nothing here knows the
 * state of a device: `conclude` (problems.ts) judges at the end.
 */
import { Mtu } from '../../spec/enums.ts'
import { mtuBytes } from '../../spec/mtu.ts'
import {
  type HeaderName,
  headers,
  ICRC_BYTES,
  nakCode,
  rnrTimerMicroseconds,
  SYNDROME_KIND_MASK,
  SYNDROME_VALUE_MASK,
  syndromeKind,
} from '../../spec/wire/headers.ts'
import { CNP, opcodeByNumber, opcodeHeaderBytes, TRANSPORT_MASK, transportBits } from '../../spec/wire/opcodes.ts'
import { bthPadCount, bthPkey, psnDifference } from '../../transport/wire/bth.ts'
import { type Flow as IcrcFlow, makeFlow, verifyIcrc } from '../../transport/wire/icrc.ts'
import { checkPacket, packetFaults } from '../../transport/wire/packet.ts'
import type { AddressTable } from './addresses.ts'
import type { RawPacket } from './file.ts'
import type { Located } from './locate.ts'

/** Flows beyond are counted, and not followed: 130,000 queue pairs. */
export const MAX_FLOWS = 1 << 18
/** Outstanding requests of a flow whose times are kept. */
const RING = 8
/** Numbers of a ring entry: PSN of the last packet, time, bytes of the message. */
const ENTRY = 3
/** Largest messages of the groups by size; a last group has all others. */
export const SIZE_GROUPS: readonly number[] = [64, 4096, 65_536, 1 << 20]
/** Numbers of a group: count, sum and longest of the nanoseconds. */
export const GROUP = 3
/** A flow's bytes over time: so many slices, whose width doubles when the capture is longer. */
const SLICES = 16
const FIRST_SLICE = 1e6
/** Packets from which on a flow has slices, and answers from which on they are grouped: a capture may have 100,000 flows. */
const SLICES_FROM = 512
const GROUPS_FROM = 64
/** A packet that comes again within this time without an answer between, in nanoseconds, was doubled on the path: no timer is so short. */
const DOUBLED_WITHIN = 20_000
/** Nanoseconds of a slice in which the senders to one host are counted. */
const INCAST_SLICE = 1e6
/** A PSN further away than this belongs to another connection, or much is missing (IBA 9.7.1: half of the PSNs is the limit). */
const MAX_GAP = 1 << 16
/** Packets after a hole within which its packet comes by another path, and is not sent again. */
const REORDER_WINDOW = 16
/** The first packets of a flow have their ICRC checked, and later one in so many: a middlebox rewrites them all. */
const ICRC_FIRST = 8
const ICRC_EVERY = 16
/** Packets beyond the flow's PSN at another point before that point becomes the flow's. */
const POINT_SWITCH = 8

/** Kinds of messages, for counts. */
export const messageKinds = ['SEND', 'WRITE', 'READ', 'atomic', 'FLUSH', 'ATOMIC WRITE'] as const
const kindIndex: Readonly<Record<string, number>> = { send: 0, write: 1, read: 2, atomic: 3, flush: 4, atomic_write: 5 }

/** By opcode, what the analysis asks, as numbers: request, answer; position; kind. */
const REQUEST = 1
const ANSWER = 2
const roleOf = new Uint8Array(256)
const startsMessage = new Uint8Array(256)
const endsMessage = new Uint8Array(256)
const kindOf = new Uint8Array(256)
const hasReth = new Uint8Array(256)
const hasAeth = new Uint8Array(256)
/** Responses that end a READ or an atomic. */
const isLastOfRead = new Uint8Array(256)
for (let number = 0; number < 256; number++) {
  const opcode = opcodeByNumber[number]
  if (opcode === undefined || number === CNP) continue
  roleOf[number] = opcode.role === 'request' ? REQUEST : ANSWER
  startsMessage[number] = opcode.position === 'first' || opcode.position === 'only' ? 1 : 0
  endsMessage[number] = opcode.position === 'last' || opcode.position === 'only' ? 1 : 0
  kindOf[number] = kindIndex[opcode.kind] ?? 0
  const at = opcode.headers.indexOf('RETH')
  const before: readonly HeaderName[] = at < 0 ? [] : opcode.headers.slice(0, at)
  hasReth[number] = at < 0 ? 0 : before.reduce<number>((sum, name) => sum + headers[name].bytes, headers.BTH.bytes)
  hasAeth[number] = opcode.headers[0] === 'AETH' ? 1 : 0
  isLastOfRead[number] = opcode.role !== 'request' && opcode.kind !== 'ack' ? endsMessage[number] : 0
}

/** What the last answer to a requester was. */
export type Answer = 'none' | 'ack' | 'sequence' | 'rnr' | 'fatal'

/** How the queue pair at the other end was found. */
export type PeerSource = 'connection' | 'PSN' | 'only'

/** Frames and times are of the capture: frames from 1, nanoseconds since the first packet. */
export class Flow {
  /** In the table, from 0. */
  readonly number: number
  readonly source: number
  readonly destination: number
  readonly qpn: number
  /** Bits of the opcode: `transportBits`. */
  readonly service: number
  /** The source queue pair of datagrams; 0: not in the packets. */
  readonly sourceQpn: number
  peer: Flow | undefined
  peerSource: PeerSource | undefined

  packets = 0
  bytes = 0
  firstFrame = 0
  lastFrame = 0
  firstTime = 0
  lastTime = 0
  sourcePort = 0
  point: number
  /** Packets that another point saw too. */
  copies = 0
  newElsewhere = 0
  pkey = -1
  marked = 0
  firstMarkedFrame = 0
  cnps = 0
  firstCnpFrame = 0
  icrcWrong = 0
  icrcFrame = 0
  icrcChecked = 0
  malformed = 0
  malformedFrame = 0
  malformedReason = ''
  zeroQkeys = 0
  zeroQkeyFrame = 0
  /** The payload of FIRST and MIDDLE packets; 0: none seen. */
  mtu = 0
  icrcFlow: IcrcFlow | undefined

  // Requests.
  requests = 0
  firstPsn = -1
  /** One after the highest PSN that was sent. */
  nextPsn = -1
  lastPsn = -1
  requestFrame = 0
  lastRequestFrame = 0
  lastRequestTime = 0
  /** A READ whose number of PSNs is not known, because the MTU is not. */
  isNextUncertain = false
  /** Messages by kind; undefined: none. */
  messages: Uint32Array | undefined
  messageBytes = 0
  largestMessage = 0
  partBytes = 0
  /** The kind of the message that is not complete, plus one; 0: none. */
  openMessage = 0
  repeated = 0
  repeatedBytes = 0
  repeatFrame = 0
  lastRepeatFrame = 0
  /** Bursts of repeated packets. */
  bursts = 0
  /** How often in a row the packets from `headPsn` on were sent again. */
  headPsn = -1
  tries = 0
  firstTryFrame = 0
  mostTries = 0
  holes = 0
  holeFrame = 0
  holePsn = -1
  holeLength = 0
  sinceHole = 0
  /** Packets of a hole that came later: lost before the capture point, or by another path. */
  filled = 0
  reordered = 0
  reorderFrame = 0
  jumps = 0
  jumpFrame = 0
  /** Where the PSNs were before the last jump; packets from there are of an earlier connection. */
  formerPsn = -1
  ghosts = 0
  ghostFrame = 0
  /** Packets that the path doubled. */
  doubled = 0
  doubledFrame = 0
  /** Identification of the last request packet's IP header. */
  lastIdentification = 0
  /** Bytes of the first packets of bursts: what was lost, at least. */
  headBytes = 0
  /** Bytes of the packet that is sent again now. */
  headLength = 0
  /** The longest packet with an acknowledgement. */
  ackedLength = 0
  sentLength = 0
  /** READs and atomics without their last response. */
  reads = 0
  readRequests = 0
  mostReads = 0
  /** Requests that made `reads` equal to `mostReads`. */
  readsAtMost = 0
  /** The longest time without a packet while nothing was outstanding. */
  idle = 0
  idleFrame = 0
  ring: Float64Array | undefined
  ringFrom = 0
  ringCount = 0
  mostOutstanding = 0

  // Answers in this flow, to requests of its peer.
  answers = 0
  ackedPsn = -1
  firstAckedPsn = -1
  firstAnswerFrame = 0
  lastAnswer: Answer = 'none'
  lastAnswerFrame = 0
  lastAnswerTime = 0
  duplicateAcks = 0
  /** Packets after the connection's end, by its DREP; `closedFrame`: of the DREP, 0: not ended. */
  closedFrame = 0
  afterClose = 0
  afterCloseFrame = 0
  /** NAKs for a PSN out of sequence, and all others. */
  sequenceNaks = 0
  fatalNaks = 0
  nakFrame = 0
  nakPsn = -1
  /** How often in a row NAKs asked for `nakPsn`. */
  nakRow = 0
  fatalCode = -1
  fatalFrame = 0
  fatalPsn = -1
  rnrs = 0
  rnrRow = 0
  mostRnrRow = 0
  rnrFrame = 0
  lastRnrFrame = 0
  rnrPsn = -1
  /** Microseconds that the NAKs asked to wait. */
  rnrWait = 0
  /** Nanoseconds from the end of a request to its answer. */
  delays = 0
  delaySum = 0
  delayMax = 0
  delayFrame = 0
  /** GROUP numbers for each of SIZE_GROUPS and one more. */
  delayBySize: Float64Array | undefined
  /** Slice of INCAST_SLICE in which its sender was counted last. */
  slice = Number.NaN
  /** Bytes in slices of `sliceWidth` nanoseconds since the start of the capture. */
  slices: Float64Array | undefined
  sliceWidth = FIRST_SLICE
  /** Earlier packets are not in the slices. */
  slicesFrom = 0

  constructor(
    number: number,
    source: number,
    destination: number,
    qpn: number,
    service: number,
    sourceQpn: number,
    point: number,
  ) {
    this.number = number
    this.source = source
    this.destination = destination
    this.qpn = qpn
    this.service = service
    this.sourceQpn = sourceQpn
    this.point = point
  }
}

const hashOf = (a: number, b: number, c: number, d: number): number => {
  let hash =
    Math.imul(a, 0x9e37_79b1) ^ Math.imul(b, 0x85eb_ca6b) ^ Math.imul(c, 0xc2b2_ae35) ^ Math.imul(d, 0x27d4_eb2f)
  hash ^= hash >>> 15
  hash = Math.imul(hash, 0x2c1b_3c6d)
  return hash ^ (hash >>> 13)
}

/** PSNs of requests that were sent last, for finding the peer of a flow of answers. */
const RECENT = 1 << 17

/** A host to which several others sent at once. */
export interface Incast {
  readonly destination: number
  /** The most senders in one slice of INCAST_SLICE, their bytes, and the time of the slice. */
  readonly senders: number
  readonly bytes: number
  readonly time: number
  /** Marks, CNPs and packets that were sent again, and those of slices with several senders. */
  readonly trouble: number
  readonly troubleOfMany: number
}

/** Senders at once from which on it is an incast. */
const INCAST_SENDERS = 3

/** Counts, for each host, how many others send to it at once. Numbers of addresses are its indices. */
class IncastTable {
  readonly #slice: number[] = []
  readonly #senders: (Set<number> | undefined)[] = []
  readonly #bytes: number[] = []
  readonly #found = new Map<number, { -readonly [key in keyof Incast]: Incast[key] }>()

  add(flow: Flow, { length, destination, source }: Located, time: number): void {
    const slice = Math.floor(time / INCAST_SLICE)
    if (this.#slice[destination] !== slice) {
      this.#slice[destination] = slice
      this.#bytes[destination] = 0
      this.#senders[destination]?.clear()
    }
    this.#bytes[destination] += length
    if (flow.slice === slice) {
      this.#most(destination, time)
      return
    }
    flow.slice = slice
    const senders = this.#senders[destination] ?? new Set()
    this.#senders[destination] = senders
    senders.add(source)
    this.#most(destination, time)
  }

  #most(destination: number, time: number): void {
    const senders = this.#senders[destination]!.size
    if (senders < INCAST_SENDERS) return
    let found = this.#found.get(destination)
    if (found === undefined) {
      found = { destination, senders: 0, bytes: 0, time: 0, trouble: 0, troubleOfMany: 0 }
      this.#found.set(destination, found)
    }
    if (senders < found.senders) return
    if (senders > found.senders || this.#bytes[destination] > found.bytes) {
      found.senders = senders
      found.bytes = this.#bytes[destination]
      found.time = time
    }
  }

  /** Something that congestion causes happened to packets to this host. */
  trouble(destination: number): void {
    const found = this.#found.get(destination)
    if (found === undefined) return
    found.trouble++
    if (this.#senders[destination]!.size >= INCAST_SENDERS) found.troubleOfMany++
  }

  get list(): readonly Incast[] {
    return [...this.#found.values()]
  }
}

export class FlowTable {
  readonly flows: Flow[] = []
  readonly incast = new IncastTable()
  /** Packets of flows beyond MAX_FLOWS. */
  leftOut = 0
  opcodes = new Float64Array(256)
  unknownOpcodes = 0

  readonly #addresses: AddressTable
  /** Number of a flow plus one; 0: free. */
  #slots = new Int32Array(1 << 12)
  /** By hash of both addresses and PSN: number of a flow plus one; negative: several. */
  #recent = new Int32Array(RECENT)
  readonly #peerOf: (flow: Flow) => { readonly address: number; readonly qpn: number } | undefined
  #last: Flow | undefined

  /** `peerOf`: where the peer's packets go, if connection management has said it. */
  constructor(
    addresses: AddressTable,
    peerOf: (flow: Flow) => { readonly address: number; readonly qpn: number } | undefined,
  ) {
    this.#addresses = addresses
    this.#peerOf = peerOf
  }

  find(source: number, destination: number, qpn: number, service: number, sourceQpn: number): Flow | undefined {
    const mask = this.#slots.length - 1
    let slot = hashOf(source, destination, qpn + service * 0x100_0000, sourceQpn) & mask
    for (;;) {
      const number = this.#slots[slot]
      if (number === 0) return undefined
      const flow = this.flows[number - 1]
      if (
        flow.qpn === qpn &&
        flow.source === source &&
        flow.destination === destination &&
        flow.service === service &&
        flow.sourceQpn === sourceQpn
      )
        return flow
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
    if (
      last !== undefined &&
      last.qpn === qpn &&
      last.source === source &&
      last.destination === destination &&
      last.service === service &&
      last.sourceQpn === sourceQpn
    )
      return last
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
    if (peer !== undefined && peer !== flow) this.pair(flow, peer, 'connection')
  }

  pair(flow: Flow, peer: Flow, source: PeerSource): void {
    flow.peer = peer
    flow.peerSource = source
    peer.peer = flow
    peer.peerSource = source
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
    if (flow === undefined) return undefined
    const psn = view.getUint32(at + 8) & 0xff_ffff
    if (!this.#isFirstSight(flow, located, roleOf[opcode], psn)) return flow

    const { frame } = packet
    if (flow.packets === 0) {
      flow.firstFrame = frame
      flow.firstTime = time
      flow.sourcePort = located.sourcePort
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
      this.#malformed(flow, frame, 'an opcode that is not defined')
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
    if (endsMessage[opcode] === 0 && payload > flow.mtu) flow.mtu = payload
    if (roleOf[opcode] === REQUEST) this.#request(flow, packet, located, opcode, psn, payload, time)
    else this.#answer(flow, packet, located, opcode, psn, time)
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
   * Whether the flow's own point of the capture saw the packet. Other points of the same file (an interface, a tag, a hop
   * further) see packets again, which are no repeats; the flow moves to another point if new PSNs come only there.
   */
  #isFirstSight(flow: Flow, located: Located, role: number, psn: number): boolean {
    if (located.point === flow.point) {
      flow.newElsewhere = 0
      return true
    }
    flow.copies++
    const isNew = role !== REQUEST || flow.nextPsn < 0 || psnDifference(psn, flow.nextPsn) >= 0
    if (!isNew || ++flow.newElsewhere < POINT_SWITCH) return false
    flow.point = located.point
    flow.newElsewhere = 0
    return true
  }

  #malformed(flow: Flow, frame: number, reason: string): void {
    if (flow.malformed++ > 0) return
    flow.malformedFrame = frame
    flow.malformedReason = reason
  }

  #isWellFormed(flow: Flow, packet: RawPacket, located: Located, opcode: number): boolean {
    const { at, length, captured } = located
    // A cut payload leaves the length, so the rules about it can be checked; InfiniBand's has no fault of its own.
    const fault = checkPacket(packet.arena.view, at, length)
    if (fault !== 0) {
      this.#malformed(flow, packet.frame, packetFaults[fault])
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

  #request(
    flow: Flow,
    packet: RawPacket,
    located: Located,
    opcode: number,
    psn: number,
    payload: number,
    time: number,
  ): void {
    const { frame } = packet
    const { view } = packet.arena
    const kind = kindOf[opcode]
    const isRead = kind === 2
    const reth = hasReth[opcode]
    const length = reth !== 0 && located.captured >= reth + 16 ? view.getUint32(located.at + reth + 12) : 0
    const mtu = flow.mtu || flow.peer?.mtu || 0
    const isSpanUnknown = isRead && mtu === 0 && length > 256
    const span = isRead && length > 0 && !isSpanUnknown ? Math.ceil(length / mtuOf(mtu, length)) : 1

    if (flow.requests++ === 0) {
      flow.requestFrame = frame
      flow.firstPsn = psn
      flow.nextPsn = psn
    }
    flow.sinceHole++
    if (flow.service === transportBits.UD) {
      // Datagrams of one queue pair to many destinations share its PSNs.
      flow.nextPsn = psn
    }
    const ahead = psnDifference(psn, flow.nextPsn)
    const isExpected = ahead === 0 || (ahead > 0 && flow.isNextUncertain && ahead < MAX_GAP)
    const isJump = !isExpected && (ahead >= MAX_GAP || -ahead > MAX_GAP)
    // One that goes back to where the PSNs were before is a packet of the earlier connection.
    if (isJump && flow.formerPsn >= 0 && Math.abs(psnDifference(psn, flow.formerPsn)) < MAX_GAP) {
      if (flow.ghosts++ === 0) flow.ghostFrame = frame
      return
    }
    const isNew = isExpected || ahead > 0 || isJump
    if (isJump) {
      if (flow.jumps++ === 0) flow.jumpFrame = frame
      flow.formerPsn = flow.nextPsn
      flow.tries = 0
      flow.headPsn = -1
      flow.openMessage = 0
    } else if (!isExpected && ahead > 0) {
      if (flow.holes === 0) flow.holeFrame = frame
      flow.holes += ahead
      flow.holePsn = flow.nextPsn
      flow.holeLength = ahead
      flow.sinceHole = 0
      flow.openMessage = 0
    }
    if (isNew) {
      // What may be missing after a READ of unknown length cannot be seen.
      const isInOrder = ahead === 0 && !flow.isNextUncertain
      if (!isInOrder) flow.openMessage = 0
      flow.nextPsn = (psn + span) & 0xff_ffff
      flow.isNextUncertain = isSpanUnknown
      this.#countMessage(flow, opcode, kind, length, payload, frame, isInOrder)
      const isAnswered = isRead || kind >= 3
      if (isAnswered) {
        flow.readRequests++
        flow.reads++
        if (flow.reads > flow.mostReads) {
          flow.mostReads = flow.reads
          flow.readsAtMost = 0
        }
        if (flow.reads === flow.mostReads) flow.readsAtMost++
      }
      const gap = time - flow.lastTime
      if (gap > flow.idle && flow.ringCount === 0 && flow.requests > 1 && !isJump) {
        flow.idle = gap
        flow.idleFrame = frame
      }
      if (view.getUint8(located.at + 8) >= 0x80 || isAnswered)
        this.#outstanding(flow, psn, time, isRead ? length : flow.partBytes)
      if (located.length > flow.sentLength) flow.sentLength = located.length
    } else if (this.#isDoubled(flow, located, psn, time)) {
      if (flow.doubled++ === 0) flow.doubledFrame = frame
      return
    } else this.#repeat(flow, psn, located.length, frame)
    flow.lastIdentification = located.identification
    flow.lastPsn = (psn + span - 1) & 0xff_ffff
    flow.lastRequestFrame = frame
    flow.lastRequestTime = time
    if (flow.peer === undefined && flow.service !== transportBits.UD && flow.service !== transportBits.UC)
      this.#remember(flow, psn)
  }

  #countMessage(
    flow: Flow,
    opcode: number,
    kind: number,
    length: number,
    payload: number,
    frame: number,
    inOrder: boolean,
  ): void {
    const isStart = startsMessage[opcode] === 1
    if (inOrder && flow.requests > 1 && flow.openMessage !== (isStart ? 0 : kind + 1))
      if (flow.openMessage !== 0 || flow.holes === 0)
        this.#malformed(
          flow,
          frame,
          isStart ? 'a message begins within another one' : 'a message without its first packet',
        )
    flow.partBytes = isStart ? payload : flow.partBytes + payload
    const bytes = kind === 2 ? length : flow.partBytes
    if (endsMessage[opcode] === 1) {
      flow.openMessage = 0
      flow.messages ??= new Uint32Array(messageKinds.length)
      flow.messages[kind]++
      flow.messageBytes += bytes
      if (bytes > flow.largestMessage) flow.largestMessage = bytes
    } else flow.openMessage = kind + 1
  }

  /** Whether the packet before comes once more, and nobody can have sent it again. */
  #isDoubled(flow: Flow, { identification }: Located, psn: number, time: number): boolean {
    if (psn !== flow.lastPsn || (flow.peer?.lastAnswerTime ?? -1) >= flow.lastRequestTime) return false
    if (identification !== flow.lastIdentification) return false
    return identification !== 0 || time - flow.lastRequestTime < DOUBLED_WITHIN
  }

  #outstanding(flow: Flow, psn: number, time: number, bytes: number): void {
    flow.ring ??= new Float64Array(RING * ENTRY)
    if (flow.ringCount === RING) {
      flow.ringFrom = (flow.ringFrom + 1) % RING
      flow.ringCount--
    }
    const at = ((flow.ringFrom + flow.ringCount) % RING) * ENTRY
    flow.ring[at] = psn
    flow.ring[at + 1] = time
    flow.ring[at + 2] = bytes
    flow.ringCount++
    if (flow.ringCount > flow.mostOutstanding) flow.mostOutstanding = flow.ringCount
  }

  #repeat(flow: Flow, psn: number, bytes: number, frame: number): void {
    const inHole = flow.holeLength > 0 && ((psn - flow.holePsn) & 0xff_ffff) < flow.holeLength
    const answer = flow.peer?.lastAnswer
    if (inHole) {
      flow.filled++
      if (flow.sinceHole <= REORDER_WINDOW && answer !== 'sequence') {
        if (flow.reordered++ === 0) flow.reorderFrame = frame
        return
      }
    }
    if (flow.repeated++ === 0) flow.repeatFrame = frame
    flow.repeatedBytes += bytes
    flow.lastRepeatFrame = frame
    // Times of a packet that was sent more than once say nothing.
    flow.ringCount = 0
    flow.reads = 0
    this.incast.trouble(flow.destination)
    const isNextOfBurst = psn === ((flow.lastPsn + 1) & 0xff_ffff) && flow.tries > 0
    if (isNextOfBurst) return
    flow.bursts++
    flow.headBytes += bytes
    const acked = flow.peer?.ackedPsn ?? -1
    const hasProgress = flow.headPsn < 0 || (acked >= 0 && psnDifference(acked, flow.headPsn) >= 0)
    if (!hasProgress && Math.abs(psnDifference(psn, flow.headPsn)) < REORDER_WINDOW) {
      flow.tries++
      if (psnDifference(psn, flow.headPsn) < 0) flow.headPsn = psn
      flow.headLength = bytes
    } else {
      flow.headPsn = psn
      flow.headLength = bytes
      flow.tries = 1
      flow.firstTryFrame = frame
    }
    if (flow.tries > flow.mostTries) flow.mostTries = flow.tries
  }

  #remember(flow: Flow, psn: number): void {
    const number = flow.number + 1
    const slot = hashOf(flow.source, flow.destination, psn, flow.service) & (RECENT - 1)
    const known = this.#recent[slot]
    const other = known === 0 ? undefined : this.flows[Math.abs(known) - 1]
    const isRival =
      other !== undefined &&
      other !== flow &&
      other.peer === undefined &&
      other.source === flow.source &&
      other.destination === flow.destination &&
      other.nextPsn >= 0 &&
      Math.abs(psnDifference(psn, other.nextPsn)) < RING * 4
    this.#recent[slot] = isRival ? -number : number
  }

  /** Finds the requester of an answer by its PSN, if only one can be it. */
  #pairByPsn(flow: Flow, psn: number): void {
    const slot = hashOf(flow.destination, flow.source, psn, flow.service) & (RECENT - 1)
    const number = this.#recent[slot]
    if (number <= 0) return
    const peer = this.flows[number - 1]
    // A queue pair that is connected to itself looks like two that the capture shows one half of each.
    if (
      peer === flow ||
      peer.peer !== undefined ||
      peer.source !== flow.destination ||
      peer.destination !== flow.source
    )
      return
    const behind = psnDifference(peer.nextPsn, psn)
    if (behind > 0 && behind < MAX_GAP) this.pair(flow, peer, 'PSN')
  }

  #answer(flow: Flow, packet: RawPacket, located: Located, opcode: number, psn: number, time: number): void {
    const { frame } = packet
    if (flow.peer === undefined) this.#pairByPsn(flow, psn)
    if (flow.answers++ === 0) flow.firstAnswerFrame = frame
    const isKnown = hasAeth[opcode] === 0 || located.captured >= headers.BTH.bytes + 1
    const syndrome = hasAeth[opcode] === 1 && isKnown ? packet.arena.view.getUint8(located.at + headers.BTH.bytes) : 0
    const kind = syndrome & SYNDROME_KIND_MASK
    const value = syndrome & SYNDROME_VALUE_MASK
    let answer: Answer = 'ack'
    if (isLastOfRead[opcode] === 1 && flow.peer !== undefined && flow.peer.reads > 0) flow.peer.reads--
    if (kind === syndromeKind.RNR_NAK) {
      answer = 'rnr'
      if (flow.rnrs++ === 0) flow.rnrFrame = frame
      flow.lastRnrFrame = frame
      flow.rnrRow = flow.rnrPsn === psn && flow.rnrRow > 0 ? flow.rnrRow + 1 : 1
      if (flow.rnrRow > flow.mostRnrRow) flow.mostRnrRow = flow.rnrRow
      flow.rnrPsn = psn
      flow.rnrWait += rnrTimerMicroseconds[value]
    } else if (kind === syndromeKind.NAK) {
      answer = value === nakCode.PSN_SEQUENCE ? 'sequence' : 'fatal'
      if (answer === 'fatal') {
        flow.fatalNaks++
        flow.fatalCode = value
        flow.fatalFrame = frame
        flow.fatalPsn = psn
      } else {
        flow.sequenceNaks++
        if (flow.nakFrame === 0) flow.nakFrame = frame
        flow.nakRow = flow.nakPsn === psn ? flow.nakRow + 1 : 1
        flow.nakPsn = psn
      }
    } else if (flow.ackedPsn < 0 || psnDifference(psn, flow.ackedPsn) > 0) {
      if (flow.ackedPsn < 0) flow.firstAckedPsn = psn
      flow.ackedPsn = psn
      flow.nakRow = 0
      flow.rnrRow = 0
    } else {
      flow.duplicateAcks++
      // A duplicate of an acknowledgement says nothing about what follows a NAK.
      if (flow.lastAnswer === 'rnr' || flow.lastAnswer === 'sequence') answer = flow.lastAnswer
    }
    // After a fatal NAK, only what has nothing to do with it follows.
    if (flow.lastAnswer !== 'fatal' || answer === 'ack') flow.lastAnswer = answer
    flow.lastAnswerFrame = frame
    flow.lastAnswerTime = time
    if (answer === 'ack' && flow.peer !== undefined) this.#acknowledge(flow, flow.peer, psn, time, frame)
  }

  #acknowledge(flow: Flow, requester: Flow, psn: number, time: number, frame: number): void {
    const { ring } = requester
    if (ring === undefined) return
    let delay = -1
    let bytes = 0
    if (requester.sentLength > requester.ackedLength && psnDifference(psn, requester.nextPsn) === -1)
      requester.ackedLength = requester.sentLength
    while (requester.ringCount > 0) {
      const at = requester.ringFrom * ENTRY
      if (psnDifference(ring[at], psn) > 0) break
      delay = time - ring[at + 1]
      bytes = ring[at + 2]
      requester.ringFrom = (requester.ringFrom + 1) % RING
      requester.ringCount--
    }
    if (delay < 0) return
    flow.delays++
    flow.delaySum += delay
    if (delay > flow.delayMax) {
      flow.delayMax = delay
      flow.delayFrame = frame
    }
    if (flow.delays <= GROUPS_FROM) return
    const group = SIZE_GROUPS.findIndex(most => bytes <= most)
    const at = GROUP * (group < 0 ? SIZE_GROUPS.length : group)
    flow.delayBySize ??= new Float64Array(GROUP * (SIZE_GROUPS.length + 1))
    flow.delayBySize[at]++
    flow.delayBySize[at + 1] += delay
    if (delay > flow.delayBySize[at + 2]) flow.delayBySize[at + 2] = delay
  }
}

/** The path MTU if a FIRST or MIDDLE packet has `payload` bytes; for an unknown one, what makes READs of `length` one packet. */
const mtuOf = (payload: number, length: number): number => (payload > 0 ? payload : Math.max(length, 1))

const mtus = Object.values(Mtu.values).map(mtuBytes)

/** Whether a payload of a FIRST or MIDDLE packet is a path MTU. */
export const isMtu = (bytes: number): boolean => mtus.includes(bytes)
