/*
 * What is known of a flow: all packets from one address to one queue pair at another. A flow has a fixed number of
 * counters, so memory depends on the queue pairs, not on the packets; what few flows need is a record that others lack.
 * Beside it, by opcode, what the analysis asks of a packet, as numbers.
 */
import { Mtu } from '../../../spec/enums.ts'
import { mtuBytes } from '../../../spec/mtu.ts'
import { type HeaderName, headers } from '../../../spec/wire/headers.ts'
import { CNP, opcodeByNumber } from '../../../spec/wire/opcodes.ts'
import type { Flow as IcrcFlow } from '../../../transport/wire/icrc.ts'
import type { Repeats } from './bursts.ts'
import type { Refused } from './refused.ts'

/** Outstanding requests of a flow whose times are kept. */
export const RING = 8
/** Numbers of a ring entry: PSN of the last packet, time, bytes of the message. */
export const ENTRY = 3
/** Largest messages of the groups by size; a last group has all others. */
export const SIZE_GROUPS: readonly number[] = [64, 4096, 65_536, 1 << 20]
/** Numbers of a group: count, sum and longest of the nanoseconds. */
export const GROUP = 3
/** Width of a flow's slices at first, in nanoseconds. */
const FIRST_SLICE = 1e6
/**
 * A PSN further away than this belongs to another connection, or much is missing (IBA 9.7.1: half of the PSNs is the
 * limit).
 */
export const MAX_GAP = 1 << 16

/** Kinds of messages, for counts. */
export const messageKinds = ['SEND', 'WRITE', 'READ', 'atomic', 'FLUSH', 'ATOMIC WRITE'] as const
const kindIndex: Readonly<Record<string, number>> = { send: 0, write: 1, read: 2, atomic: 3, flush: 4, atomic_write: 5 }

/** By opcode, what the analysis asks, as numbers: request, answer; position; kind. */
export const REQUEST = 1
const ANSWER = 2
export const roleOf = new Uint8Array(256)
export const startsMessage = new Uint8Array(256)
export const endsMessage = new Uint8Array(256)
export const kindOf = new Uint8Array(256)
export const hasReth = new Uint8Array(256)
export const hasAeth = new Uint8Array(256)
/** Responses of READs. */
export const isReadResponse = new Uint8Array(256)
/** Responses that end a READ or an atomic. */
export const isLastOfRead = new Uint8Array(256)
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
  isReadResponse[number] = opcode.role !== 'request' && opcode.kind === 'read' ? 1 : 0
  isLastOfRead[number] = opcode.role !== 'request' && opcode.kind !== 'ack' ? endsMessage[number] : 0
}

/** What the last answer to a requester was. */
export type Answer = 'none' | 'ack' | 'sequence' | 'rnr' | 'fatal'

/** Packets that were acknowledged, and are sent again with other data: their sender has begun anew. */
interface FormerPackets {
  count: number
  /** Of the first. */
  readonly frame: number
  readonly psn: number
  /** The PSN of the last request packet since. */
  lastPsn: number
  /** Acknowledgements since of what was not sent again yet, and the last of them: the responder has not begun anew. */
  answers: number
  answerFrame: number
  answerPsn: number
}

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
  /** Of the first packet; `hopLimit` 0: not known. */
  dscp = 0
  hopLimit = 0
  isRoceV1 = false
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
  /** The lowest PSN since the last jump. */
  earliestPsn = -1
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
  smallestMessage = Number.POSITIVE_INFINITY
  largestMessage = 0
  partBytes = 0
  /** The kind of the message that is not complete, plus one; 0: none. */
  openMessage = 0
  /** Its first PSN; -1: missing. */
  startPsn = -1
  /** Its bytes, as its RETH says; -1: not known. */
  messageLength = -1
  /** Some of its packets are missing; also before the first message begins. */
  isPartial = true
  /** Its last packet may have been in a frame that was cut. */
  isOpenUncertain = false
  /** Packets that came again or late; undefined: none. */
  repeats: Repeats | undefined
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
  /** Packets of a hole that came later: lost before the capture point, or by another path. */
  filled = 0
  reordered = 0
  reorderFrame = 0
  jumps = 0
  jumpFrame = 0
  /** Where the PSNs were before the last jump; packets from there are of an earlier connection. */
  formerPsn = -1
  /** Undefined: none. */
  former: FormerPackets | undefined
  ghosts = 0
  ghostFrame = 0
  /** Packets that the path, or the capture, doubled. */
  doubled = 0
  doubledFrame = 0
  /** Nanoseconds from a packet to its double. */
  leastDoubled = Number.POSITIVE_INFINITY
  mostDoubled = 0
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
  lastAnswerIdentity = 0
  duplicateAcks = 0
  /** Answers that the capture has twice. */
  answerCopies = 0
  /** The highest PSN of any answer; -1: none. */
  answerPsn = -1
  /** Acknowledgements whose syndrome was not captured: they may be NAKs. */
  cutSyndromes = 0
  /** By reserved syndrome: how often, and the frame of the first. */
  reserved: Map<number, { count: number; readonly frame: number }> | undefined
  /** A response to a READ began, and has not ended. */
  isResponseOpen = false
  /** What follows the last answer in its frame was not captured. */
  isAnswerUncertain = false
  /** Responses that are missing in the capture before a later one. */
  missingResponses = 0
  missingFrame = 0
  /** The first PSN that was missing last, and when that was seen. */
  missingPsn = -1
  missingTime = 0
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
  /** The request that the NAK refused; undefined: not captured. */
  refused: Refused | undefined
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

const mtus = Object.values(Mtu.values).map(mtuBytes)

/** Whether a payload of a FIRST or MIDDLE packet is a path MTU. */
export const isMtu = (bytes: number): boolean => mtus.includes(bytes)

/** Counts a packet that breaks the rules of its opcode. */
export const markMalformed = (flow: Flow, frame: number, reason: string): void => {
  if (flow.malformed++ > 0) return
  flow.malformedFrame = frame
  flow.malformedReason = reason
}
