/*
 * What request packets tell of their flow: the order of PSNs, what is missing and sent again, messages, and what is
 * outstanding.
 */
import { headers, ICRC_BYTES } from '../../../spec/wire/headers.ts'
import { headerAt, transportBits } from '../../../spec/wire/opcodes.ts'
import { psnDifference } from '../../../transport/wire/bth.ts'
import type { RawPacket } from '../file.ts'
import type { Located } from '../located.ts'
import type { Repeats, RequestPacket } from './bursts.ts'
import {
  ENTRY,
  endsMessage,
  type Flow,
  hasReth,
  kindOf,
  MAX_GAP,
  markMalformed,
  messageKinds,
  RING,
  startsMessage,
} from './flow.ts'
import type { IncastTable } from './incast.ts'
import type { PairTable } from './pairs.ts'
import { type RecentPackets, Sent } from './recent.ts'
import { requestWith, UNKNOWN_LENGTH } from './refused.ts'
import { countDouble, RepeatTracker } from './repeats.ts'

/** Kinds of messages (`messageKinds`); READs and the kinds after them are answered with data. */
const WRITE = 1
const READ = 2
const ATOMIC = 3
/** A READ whose responses have one PSN whatever the path MTU. */
const SHORT_READ = 256
const RETH_BYTES = 16
/** Bytes that an atomic changes. */
const ATOMIC_BYTES = 8
/** More than Linux makes of a frame. */
const MAX_SEGMENTS = 129
/** Offset of the message's length in a RETH. */
const LENGTH_AT = 12

export class RequestTracker {
  readonly #recent: RecentPackets
  readonly #pairs: PairTable
  readonly #repeats: RepeatTracker
  readonly #packet: RequestPacket = {
    opcode: 0,
    kind: 0,
    psn: 0,
    end: 0,
    bytes: 0,
    payload: 0,
    length: -1,
    identification: 0,
    identity: 0,
    content: 0,
    time: 0,
    frame: 0,
    since: -1,
    isKnown: false,
    isSame: false,
    isChanged: false,
  }

  constructor(recent: RecentPackets, incast: IncastTable, pairs: PairTable, timeoutOf: (flow: Flow) => number) {
    this.#recent = recent
    this.#pairs = pairs
    this.#repeats = new RepeatTracker(incast, timeoutOf, this.#onFilled)
  }

  /** A request packet. False: it is the double of another one. */
  add(
    flow: Flow,
    { arena: { view }, frame }: RawPacket,
    located: Located,
    opcode: number,
    psn: number,
    payload: number,
    time: number,
  ): boolean {
    const kind = kindOf[opcode]
    const isRead = kind === READ
    const reth = hasReth[opcode]
    const hasLength = reth !== 0 && located.captured >= reth + RETH_BYTES
    const length = hasLength ? view.getUint32(located.at + reth + LENGTH_AT) : -1
    const mtu = flow.mtu || flow.peer?.mtu || 0
    const isSpanUnknown = isRead && (length < 0 || (mtu === 0 && length > SHORT_READ))
    const span = isRead && length > 0 && !isSpanUnknown ? Math.ceil(length / mtuOf(mtu, length)) : 1
    const end = (psn + span) & 0xff_ffff
    // The word of the PSN has the AckReq bit. Linux numbers the datagrams of a segmented frame from 0 on.
    const identification = located.identification < MAX_SEGMENTS ? 0 : located.identification
    const identity =
      (Math.imul(view.getUint32(located.at + 8), 0x9e37_79b1) ^
        Math.imul(identification + (opcode << 16), 0x85eb_ca6b) ^
        Math.imul(located.length, 0xc2b2_ae35) ^
        length) |
      0

    const isDatagram = flow.service === transportBits.UD
    if (isDatagram && this.#isDoubledDatagram(flow, psn, identity, time, frame)) return false
    if (flow.requests++ === 0) {
      flow.requestFrame = frame
      flow.firstPsn = psn
      flow.earliestPsn = psn
      flow.nextPsn = psn
    }
    if (isDatagram) {
      // Datagrams of one queue pair to many destinations share its PSNs.
      flow.nextPsn = psn
    }
    const ahead = psnDifference(psn, flow.nextPsn)
    const isExpected = ahead === 0 || (ahead > 0 && flow.isNextUncertain && ahead < MAX_GAP)
    const isJump = !isExpected && (ahead >= MAX_GAP || -ahead > MAX_GAP)
    // One that goes back to where the PSNs were before is a packet of the earlier connection.
    if (isJump && flow.formerPsn >= 0 && Math.abs(psnDifference(psn, flow.formerPsn)) < MAX_GAP) {
      if (flow.ghosts++ === 0) flow.ghostFrame = frame
      return true
    }
    const isNew = isExpected || ahead > 0 || isJump
    const packet = this.#packet
    packet.opcode = opcode
    packet.kind = kind
    packet.psn = psn
    packet.end = end
    packet.bytes = located.length
    packet.payload = payload
    packet.length = length
    packet.identification = located.identification
    packet.identity = identity
    packet.content = kind < READ ? contentOf(view, located, opcode) : 0
    packet.time = time
    packet.frame = frame
    this.#compare(flow, packet, isNew)
    if (flow.repeats?.isWaiting) this.#decide(flow, flow.repeats, packet, isNew)
    if (flow.former !== undefined) flow.former.lastPsn = psn
    if (isJump) {
      if (flow.jumps++ === 0) flow.jumpFrame = frame
      flow.formerPsn = flow.nextPsn
      flow.tries = 0
      flow.headPsn = -1
      flow.earliestPsn = psn
      this.#leave(flow)
    } else if (!isExpected && ahead > 0) {
      if (flow.holes === 0) flow.holeFrame = frame
      flow.holes += ahead
      flow.holePsn = flow.nextPsn
      flow.holeLength = ahead
      this.#leave(flow)
    }
    if (isNew) {
      if (flow.repeats !== undefined && ahead === 0) this.#repeats.onNew(flow, flow.repeats, psn)
      // What may be missing after a READ of unknown length cannot be seen.
      const isInOrder = ahead === 0 && !flow.isNextUncertain
      if (!isInOrder && !isJump && flow.openMessage > 0) this.#leave(flow)
      flow.nextPsn = end
      flow.isNextUncertain = isSpanUnknown || located.hasMore
      if (startsMessage[opcode] === 1) flow.startPsn = psn
      this.#countMessage(flow, packet, located.isInferred, isInOrder)
      const isAnswered = kind >= READ
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
        this.#outstanding(flow, psn, time, isRead ? Math.max(0, length) : flow.partBytes)
      if (located.length > flow.sentLength) flow.sentLength = located.length
      this.#remember(flow, packet, flow.startPsn, view, located)
    } else {
      this.#noteFormer(flow, packet)
      const start = this.#startOf(flow, opcode, psn)
      const isMissing = this.#isMissing(flow, packet)
      if (isMissing) this.#remember(flow, packet, start, view, located)
      if (!this.#repeats.add(flow, packet, isMissing)) return true
      this.#remember(flow, packet, start, view, located)
    }
    flow.lastPsn = (end - 1) & 0xff_ffff
    flow.lastRequestFrame = frame
    flow.lastRequestTime = time
    if (flow.peer === undefined && !isDatagram && flow.service !== transportBits.UC) this.#pairs.remember(flow, psn)
    return true
  }

  /** Decides what the packet of a flow is that waits for the next one. */
  #decide(flow: Flow, repeats: Repeats, packet: RequestPacket | undefined, isNew: boolean): void {
    if (!this.#repeats.decide(flow, repeats, packet, isNew)) return
    const { psn, time } = repeats.waiting!
    const slot = this.#recent.find(flow.number, Sent.REQUEST, psn)
    if (slot >= 0) this.#recent.setTime(slot, time)
  }

  /** The capture has no more packets. */
  finish(flow: Flow): void {
    if (flow.repeats?.isWaiting) this.#decide(flow, flow.repeats, undefined, true)
  }

  /** Compares a packet with the one before of its PSN, if it is not new. */
  #compare(flow: Flow, packet: RequestPacket, isNew: boolean): void {
    packet.since = -1
    packet.isKnown = false
    packet.isSame = false
    packet.isChanged = false
    if (isNew) return
    const recent = this.#recent
    const before = recent.find(flow.number, Sent.REQUEST, packet.psn)
    packet.isKnown = before >= 0
    packet.isSame = before >= 0 && recent.identityOf(before) === packet.identity
    packet.isChanged =
      before >= 0 && (recent.opcodeOf(before) !== packet.opcode || recent.contentOf(before) !== packet.content)
    // A READ may be repeated from any of its responses on.
    const sent = before < 0 && packet.kind === READ ? requestWith(recent, flow.number, packet.psn) : before
    if (sent >= 0) packet.since = packet.time - recent.timeOf(sent)
  }

  /** A SEND or WRITE with other data than an acknowledged packet of its PSN. */
  #noteFormer(flow: Flow, { psn, kind, frame, isChanged }: RequestPacket): void {
    const acked = flow.peer?.ackedPsn ?? -1
    if (!isChanged || kind >= READ || acked < 0 || psnDifference(acked, psn) < 0) return
    if (flow.service !== transportBits.RC && flow.service !== transportBits.XRC) return
    flow.former ??= { count: 0, frame, psn, lastPsn: psn, answers: 0, answerFrame: 0, answerPsn: -1 }
    flow.former.count++
  }

  #isDoubledDatagram(flow: Flow, psn: number, identity: number, time: number, frame: number): boolean {
    const recent = this.#recent
    const before = recent.find(flow.number, Sent.REQUEST, psn)
    if (before < 0 || recent.identityOf(before) !== identity) return false
    const since = time - recent.timeOf(before)
    if (since >= DOUBLED_DATAGRAM) return false
    countDouble(flow, { frame, since })
    return true
  }

  /** Whether the capture has no packet with this PSN, which is below the next one. */
  #isMissing(flow: Flow, { psn, kind, isKnown }: RequestPacket): boolean {
    const early = psnDifference(flow.earliestPsn, psn)
    if (early > 0) {
      // The capture began with a later one.
      flow.holes += early
      flow.earliestPsn = psn
      if (flow.jumps === 0) flow.firstPsn = psn
      return true
    }
    if (isKnown || flow.holes === flow.filled) return false
    // Within a READ, no packet is missing.
    return kind !== READ || ((psn - flow.holePsn) & 0xff_ffff) < flow.holeLength
  }

  /** The first PSN of the message of a packet that comes again or late; -1: not known. */
  #startOf(flow: Flow, opcode: number, psn: number): number {
    if (startsMessage[opcode] === 1) return psn
    const previous = this.#recent.find(flow.number, Sent.REQUEST, (psn - 1) & 0xff_ffff)
    return previous < 0 ? -1 : this.#recent.startOf(previous)
  }

  /** `start`: the first PSN of its message. */
  #remember(
    flow: Flow,
    { opcode, psn, identity, content, payload, length, time, frame }: RequestPacket,
    start: number,
    view: DataView,
    { at, captured, isInferred }: Located,
  ): void {
    const recent = this.#recent
    const slot = recent.add(flow.number, Sent.REQUEST, psn, time, identity, opcode, start, frame)
    recent.setContent(slot, content)
    if (start !== psn) return
    const remote = hasReth[opcode] || headerAt.AtomicETH[opcode]
    if (remote === 0)
      recent.setRemote(slot, 0, 0, 0, endsMessage[opcode] === 1 && !isInferred ? payload : UNKNOWN_LENGTH)
    else if (captured >= remote + RETH_BYTES)
      recent.setRemote(
        slot,
        view.getUint32(at + remote),
        view.getUint32(at + remote + 4),
        view.getUint32(at + remote + 8),
        length < 0 ? ATOMIC_BYTES : length,
      )
    else recent.setNoRemote(slot)
  }

  /** The message that is open is not whole: some of its packets are missing. */
  #leave(flow: Flow): void {
    flow.openMessage = 0
    flow.startPsn = -1
    flow.messageLength = -1
    flow.isPartial = true
  }

  #countMessage(
    flow: Flow,
    { opcode, kind, psn, length, payload, frame }: RequestPacket,
    isInferred: boolean,
    inOrder: boolean,
  ): void {
    const isStart = startsMessage[opcode] === 1
    if (inOrder && flow.requests > 1 && flow.openMessage !== (isStart ? 0 : kind + 1)) {
      if (isStart && flow.isOpenUncertain) this.#message(flow, flow.openMessage - 1, flow.partBytes)
      else if (flow.openMessage !== 0 || flow.holes === 0)
        markMalformed(
          flow,
          frame,
          isStart ? 'a message begins within another one' : 'a message without its first packet',
        )
    }
    if (isStart) {
      flow.messageLength = length
      flow.isPartial = false
    }
    flow.partBytes = isStart ? payload : flow.partBytes + payload
    flow.isOpenUncertain = isInferred
    const isWhole = isInferred && flow.messageLength >= 0 && flow.partBytes >= flow.messageLength
    if (endsMessage[opcode] === 1 || isWhole)
      this.#message(flow, kind, this.#bytesOf(flow, kind, psn, length, flow.partBytes))
    else flow.openMessage = kind + 1
  }

  /** Bytes of the message that ends with a packet; `seen`: of those packets that are there. */
  #bytesOf(flow: Flow, kind: number, psn: number, length: number, seen: number): number {
    if (length >= 0) return length
    if (kind === ATOMIC) return ATOMIC_BYTES
    if (kind !== WRITE) return seen
    if (flow.messageLength >= 0) return flow.messageLength
    const slot = this.#recent.find(flow.number, Sent.REQUEST, (psn - 1) & 0xff_ffff)
    const start = slot < 0 ? -1 : this.#recent.startOf(slot)
    const first = start < 0 ? -1 : this.#recent.find(flow.number, Sent.REQUEST, start)
    const bytes = first < 0 ? UNKNOWN_LENGTH : this.#recent.remoteOf(first, 3)
    if (bytes === UNKNOWN_LENGTH) return seen
    flow.isPartial = false
    return bytes
  }

  #message(flow: Flow, kind: number, bytes: number): void {
    flow.openMessage = 0
    flow.messages ??= new Uint32Array(messageKinds.length)
    flow.messages[kind]++
    flow.messageBytes += bytes
    if (flow.isPartial) return
    if (bytes > flow.largestMessage) flow.largestMessage = bytes
    if (bytes < flow.smallestMessage) flow.smallestMessage = bytes
  }

  /** A packet that was missing, and whose message may end with it. */
  readonly #onFilled = (flow: Flow, { opcode, kind, psn, length, payload }: RequestPacket): void => {
    if (endsMessage[opcode] === 0) return
    const { openMessage, messageLength, isPartial } = flow
    flow.messageLength = -1
    flow.isPartial = startsMessage[opcode] === 0
    this.#message(flow, kind, this.#bytesOf(flow, kind, psn, length, payload))
    flow.openMessage = openMessage
    flow.messageLength = messageLength
    flow.isPartial = isPartial
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
}

/** Words behind the headers by which packets are compared. */
const CONTENT_WORDS = 4

/** Of the length and the first captured bytes behind a BTH and a RETH; ICRCs differ from repeat to repeat. */
const contentOf = (view: DataView, { at, captured, length }: Located, opcode: number): number => {
  const reth = hasReth[opcode]
  const from = reth === 0 ? headers.BTH.bytes : reth + RETH_BYTES
  const end = Math.min(captured, length - ICRC_BYTES, from + 4 * CONTENT_WORDS)
  let content = length
  for (let place = from; place + 4 <= end; place += 4)
    content = Math.imul(content ^ view.getUint32(at + place), 0x9e37_79b1)
  return content | 0
}

/** A datagram that comes again within this time was doubled. */
const DOUBLED_DATAGRAM = 1e6

/**
 * The path MTU if a FIRST or MIDDLE packet has `payload` bytes; for an unknown one, what makes READs of `length` one
 * packet.
 */
const mtuOf = (payload: number, length: number): number => (payload > 0 ? payload : Math.max(length, 1))
