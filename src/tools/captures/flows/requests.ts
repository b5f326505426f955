/*
 * What request packets tell of their flow: the order of PSNs, what is missing and sent again, messages, and what is
 * outstanding.
 */
import { transportBits } from '../../../spec/wire/opcodes.ts'
import { psnDifference } from '../../../transport/wire/bth.ts'
import type { RawPacket } from '../file.ts'
import type { Located } from '../locate.ts'
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

/** A packet that comes again within this time without an answer between, in nanoseconds, was doubled on the path: no timer is so short. */
const DOUBLED_WITHIN = 20_000
/** Packets after a hole within which its packet comes by another path, and is not sent again. */
const REORDER_WINDOW = 16

export class RequestTracker {
  readonly #incast: IncastTable
  readonly #pairs: PairTable

  constructor(incast: IncastTable, pairs: PairTable) {
    this.#incast = incast
    this.#pairs = pairs
  }

  add(
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
      this.#pairs.remember(flow, psn)
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
        markMalformed(
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
    this.#incast.trouble(flow.destination)
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
}

/** The path MTU if a FIRST or MIDDLE packet has `payload` bytes; for an unknown one, what makes READs of `length` one packet. */
const mtuOf = (payload: number, length: number): number => (payload > 0 ? payload : Math.max(length, 1))
