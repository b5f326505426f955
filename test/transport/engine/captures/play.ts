/*
 * Replays a capture in virtual time, with our engine in place of one side. Our engine sends a request packet only where
 * the recording has one, so that a loss hits the same packets in flight as in the recording.
 */
import { OP_END, OP_IMM, OP_SEND, OP_START } from '../../../../src/spec/wire/opcodes.ts'
import { Service } from '../../../../src/spec/wire/services.ts'
import { SendFlags, WrOpcode } from '../../../../src/spec/work.ts'
import { Access } from '../../../../src/transport/engine/types.ts'
import { GRH_BYTES } from '../../../../src/transport/wire/ip.ts'
import { parsePacket, type WellFormedPacket } from '../../../../src/transport/wire/packet.ts'
import {
  createNode,
  LOCAL_KEY,
  MEMORY_BASE,
  REMOTE_ACCESS,
  type SendSpec,
  type SgeSpec,
  type TestNode,
} from '../node.ts'
import { createBurst } from './burst.ts'
import {
  type Conversation,
  type Entry,
  field,
  flagsOf,
  headersOf,
  isRead,
  isRequest,
  isRnrNak,
  rnrSince,
  type Side,
  syndromeValueOf,
} from './conversation.ts'
import type { Facts } from './facts.ts'
import { memoryOf, remoteOf, responseIndex, type SideMemory } from './memory.ts'
import { type Message, messagesOf, takesReceive, workOpcode } from './messages.ts'
import { type Pair, peerQpnOf, qpnOn } from './pairs.ts'

export type Timing = 'immediate' | 'after the RNR timer' | 'after the ACK timeout'

export interface Sent {
  readonly packet: WellFormedPacket
  readonly timing: Timing
  /** µs of virtual time that the engine's timer took. */
  readonly waited: number
}

/** Packets that one queue pair sent. */
interface Stream {
  readonly qpn: number
  readonly answers: Sent[]
  readonly requests: Sent[]
}

/** A queue pair. IDs of work requests are indexes of `posted` and `receives`. */
export interface PlayedQp {
  readonly row: number
  readonly qpn: number
  readonly stream: Stream
  readonly asRequester: Pair | undefined
  readonly asResponder: Pair | undefined
  readonly posted: readonly Posted[]
  /** Offsets and lengths of the receive buffers in the node's memory. */
  readonly receives: readonly { readonly at: number; readonly length: number }[]
  /** The peer's messages, in order. */
  readonly incoming: readonly Message[]
}

export interface PlayResult {
  readonly node: TestNode
  readonly memory: SideMemory
  readonly ends: readonly PlayedQp[]
  /** Sentences about requests that our engine sent too early; only if `postedAtOnce`. */
  readonly unexpected: readonly string[]
}

const { FENCE, SIGNALED, SOLICITED } = SendFlags.values
const { ATOMIC_FETCH_AND_ADD } = WrOpcode.values
/** More than a GRH and the alignment of a buffer. */
const BUFFER_OVERHEAD = 128
/** More than a size in `facts.receives`. */
const MAX_RECEIVE_BYTES = 0x1_0000
// Codes of the ACK timeout and the RNR timer, and the number of READs and atomics in flight.
const DEFAULT_TIMEOUT = 14
const DEFAULT_RNR_TIMER = 12
const DEFAULT_RD_ATOMIC = 16

interface Posted {
  readonly message: Message
  /** Offset of the request's data in the node's memory. */
  readonly dataAt: number
  readonly signaled: boolean
}

interface End extends PlayedQp {
  readonly toPost: Message[]
  readonly posted: Posted[]
  /** Request packets of our engine that come later in the recording. */
  readonly pending: Sent[]
  readonly receives: { readonly at: number; readonly length: number }[]
  /** Sizes of the next receive buffers, from `facts`. */
  readonly receiveSizes: number[]
}

/** The Q_Key of a pair's datagrams; 0 for a connection. */
const qkeyOf = ({ entries }: Conversation, { requesterQpn, responderQpn, requester }: Pair): number => {
  const datagram = entries.find(
    ({ from, packet }) =>
      from === requester &&
      packet.BTH.destQp === responderQpn &&
      Number(headersOf(packet).DETH?.srcQp ?? -1) === requesterQpn,
  )
  return datagram === undefined ? 0 : field(datagram.packet, 'DETH', 'qkey')
}

/** The RNR timer code of a side. */
const rnrTimerOf = (conversation: Conversation, side: Side): number => {
  const nak = conversation.entries.find(e => e.from === side && isRnrNak(e.packet))
  return nak === undefined ? DEFAULT_RNR_TIMER : syndromeValueOf(nak.packet)
}

/** The bytes that our engine receives for a recorded packet; undefined if the packet is withheld. */
export type PacketToDeliver = (entry: Entry) => Uint8Array | undefined

interface PlayOptions {
  /** By default the recorded packets are delivered. */
  readonly deliver?: PacketToDeliver
  /** Packets between two packets of `side` are delivered as one burst. */
  readonly inBursts?: boolean
}

/** Our engine replaces `side`. */
export const play = (
  conversation: Conversation,
  pairs: readonly Pair[],
  side: Side,
  facts: Facts,
  { deliver = entry => entry.bytes, inBursts = false }: PlayOptions = {},
): PlayResult => {
  const { entries } = conversation
  const memory = memoryOf(conversation, pairs, side, facts)
  const { space, regions, content } = memory
  const messages = pairs.flatMap(p => messagesOf(conversation, p))
  /** Buffers of work requests lie behind the memory that the peer accesses. */
  const bufferBytes =
    messages.reduce((sum, m) => sum + m.length + BUFFER_OVERHEAD, 0) + (facts.receives ?? []).length * MAX_RECEIVE_BYTES
  const memoryBytes = space.bytes + bufferBytes
  const node = createNode({
    memoryBytes,
    maxPackets: 1,
    locate: address => {
      // Buffers of work requests are at MEMORY_BASE + offset; other addresses are recorded.
      const local = address - MEMORY_BASE
      const isBuffer = local >= space.bytes && local < memoryBytes
      return isBuffer ? Number(local) : space.locate(address)
    },
  })
  node.memory.set(content)
  node.regions.length = 0
  node.regions.push(...regions, {
    key: LOCAL_KEY,
    pd: 1,
    offset: 0,
    length: node.memory.length,
    access: Access.LOCAL_WRITE,
  })
  let nextFree = space.bytes
  /** Allocates a buffer; returns its offset. */
  const allocate = (bytes: number): number => {
    const at = nextFree
    nextFree += (bytes + 7) & ~7
    return at
  }
  const ends = connectEnds(conversation, pairs, side, facts, node)
  const endOf = (qpn: number): End | undefined => ends.find(end => end.qpn === qpn)
  const endWithPeer = (qpn: number): End | undefined =>
    ends.find(({ asRequester, asResponder }) => peerQpnOf((asRequester ?? asResponder)!, side) === qpn)
  let now = 0
  /** Number of the current recorded packet. */
  let packetNumber = 0
  let takenPackets = 0
  /** Lets the engine send one packet. */
  const sendOne = (timing: Timing, waited: number): { end: End; sent: Sent } | undefined => {
    node.port.freeRuns = 1
    node.transmit(now)
    node.port.freeRuns = 0
    const next = node.sent[takenPackets]
    if (next === undefined) return undefined
    takenPackets++
    const packet = parsePacket(next.bytes)
    if (packet.kind === 'opaque') throw new Error(`our engine sent an invalid packet: ${packet.reason}`)
    const end = endWithPeer(packet.BTH.destQp)
    if (end === undefined) throw new Error(`our engine sent to QP ${packet.BTH.destQp}`)
    return { end, sent: { packet, timing, waited } }
  }
  /** Lets the engine send responses. Stops at a request: adds the request to `pending`, and returns true. */
  const sendResponses = (timing: Timing, waited: number): boolean => {
    for (let next = sendOne(timing, waited); next !== undefined; next = sendOne(timing, waited)) {
      const { end, sent } = next
      if (isRequest(sent.packet)) {
        end.pending.push(sent)
        return true
      }
      end.stream.answers.push(sent)
    }
    return false
  }
  /** Takes the engine's next request. If the engine has none to send, time passes until its timer expires. */
  const takeRequest = (end: End): void => {
    if (end.pending.length === 0) sendResponses('immediate', 0)
    if (end.pending.length === 0) {
      const due = node.engine.nextTimeout()
      if (due !== Number.POSITIVE_INFINITY) {
        const waited = due - now
        const timing =
          rnrSince(entries, packetNumber, side) !== undefined ? 'after the RNR timer' : 'after the ACK timeout'
        now = due
        node.engine.onTimeout(now)
        sendResponses(timing, waited)
      }
    }
    const sent = end.pending.shift()
    if (sent !== undefined) end.stream.requests.push(sent)
  }
  /** Writes the data of the recorded responses to memory, as the recorded program did before the READ. */
  const writeReadData = (entry: Entry, end: End): void => {
    const message = end.incoming.find(m => m.entry === entry)!
    const offset = space.locate(remoteOf(message)!.address)
    for (const response of entries) {
      const index = responseIndex(response, end.asResponder!, message)
      if (index >= 0) node.memory.set(response.packet.payload, offset + index * end.asResponder!.mtu)
    }
  }
  const unexpected: string[] = []
  const burst = createBurst(node)
  const finishBurst = (): void => {
    if (burst.finish(now)) sendResponses('immediate', 0)
  }
  for (const [i, entry] of entries.entries()) {
    packetNumber = entry.number
    if (entry.from === side) {
      finishBurst()
      const end = endWithPeer(entry.packet.BTH.destQp)
      if (end === undefined || !isRequest(entry.packet)) continue
      post(node, end, i, facts, allocate)
      takeRequest(end)
    } else if (!entry.isLost && !isDestroyed(facts, side, entry)) {
      const end = endOf(entry.packet.BTH.destQp)
      const bytes = deliver(entry)
      if (end === undefined || bytes === undefined) continue
      // Earlier packets consume their receive WQEs before the next WQE is posted.
      if (takesReceiveWqe(entry)) burst.endRun(now)
      if (isRequest(entry.packet) && takesReceiveWqe(entry) && !getsRnrNak(entries, i, end))
        postReceive(node, end, allocate)
      if (facts.programWrites === true && isRead(entry.packet)) writeReadData(entry, end)
      if (facts.postedAtOnce === true && sendResponses('immediate', 0))
        unexpected.push(`before packet ${packetNumber} a request was sent that the recording has later`)
      if (inBursts) burst.add(end.row, bytes, now)
      else {
        node.inject(end.row, bytes, now)
        node.endBurst()
        sendResponses('immediate', 0)
      }
    }
  }
  finishBurst()
  while (sendResponses('immediate', 0)) {}
  // Side 0 is the client.
  if (facts.exhaustsRetries === true && side === 0) {
    now = node.engine.nextTimeout()
    node.engine.onTimeout(now)
    while (sendResponses('after the ACK timeout', 0)) {}
  }
  for (const end of ends) end.stream.requests.push(...end.pending)
  return { node, memory, ends, unexpected }
}

/** Whether the destination QP was already destroyed. Datagrams go to QP 1, which is never destroyed. */
const isDestroyed = ({ destroyed }: Facts, side: Side, { number, packet }: Entry): boolean =>
  destroyed !== undefined && destroyed.side === side && number >= destroyed.from && headersOf(packet).DETH === undefined

const connectEnds = (
  conversation: Conversation,
  pairs: readonly Pair[],
  side: Side,
  facts: Facts,
  node: TestNode,
): End[] => {
  const qpns = [...new Set(pairs.map(pair => qpnOn(pair, side)))]
  return qpns.map(qpn => {
    const asRequester = pairs.find(p => p.requester === side && qpnOn(p, side) === qpn)
    const asResponder = pairs.find(p => p.requester !== side && qpnOn(p, side) === qpn)
    const pair = (asRequester ?? asResponder)!
    const row = node.createQp(qpn, { service: pair.service, maxSge: 1 })
    node.connect(row, {
      destQpn: peerQpnOf(pair, side),
      access: REMOTE_ACCESS | (facts.access ?? 0),
      pathMtu: pair.mtu,
      sqPsn: asRequester?.firstPsn ?? 0,
      rqPsn: asResponder?.firstPsn ?? 0,
      timeout: facts.timeout ?? DEFAULT_TIMEOUT,
      retryCnt: facts.retryCnt ?? 7,
      rnrRetry: facts.rnrRetry ?? 7,
      minRnrTimer: rnrTimerOf(conversation, side),
      maxRdAtomic: facts.rdAtomic ?? DEFAULT_RD_ATOMIC,
      maxDestRdAtomic: facts.rdAtomic ?? DEFAULT_RD_ATOMIC,
      qkey: qkeyOf(conversation, pair),
    })
    return {
      row,
      qpn,
      stream: { qpn, answers: [], requests: [] },
      asRequester,
      asResponder,
      toPost: asRequester === undefined ? [] : messagesOf(conversation, asRequester),
      incoming: asResponder === undefined ? [] : messagesOf(conversation, asResponder),
      posted: [],
      pending: [],
      receives: [],
      receiveSizes: side === 1 ? [...(facts.receives ?? [])] : [],
    }
  })
}

/** Posts the requests that the recorded program had posted when it sent packet `i` of the conversation. */
const post = (node: TestNode, end: End, i: number, facts: Facts, allocate: (bytes: number) => number): void => {
  const specs: SendSpec[] = []
  for (;;) {
    const message = end.toPost[0]
    if (message === undefined || (message.postedAt > i && facts.postedAtOnce !== true)) break
    end.toPost.shift()
    const dataAt = allocate(message.length)
    node.memory.set(message.payload, dataAt)
    const fence = facts.fences?.includes(end.posted.length) === true ? FENCE : 0
    const signaled = facts.signaled?.includes(end.posted.length) === false ? 0 : SIGNALED
    const remote = remoteOf(message)
    const sges: SgeSpec[] = message.length === 0 ? [] : [{ at: dataAt, length: message.length }]
    // In a SendSpec, `compare` is also the operand of a fetch and add, and the length of a FLUSH.
    const { AtomicETH, FETH, RETH, DETH } = headersOf(message.entry.packet)
    const swap = BigInt(AtomicETH?.swapDt ?? 0)
    const compare = BigInt(AtomicETH?.cmpDt ?? 0)
    const opcode = workOpcode(message)
    specs.push({
      id: end.posted.length,
      opcode,
      flags: signaled | fence | (message.solicited ? SOLICITED : 0),
      sges,
      imm: message.imm,
      ...(DETH !== undefined && { to: { qpn: message.entry.packet.BTH.destQp, qkey: Number(DETH.qkey), flow: 0 } }),
      ...(remote !== undefined && { remote: Number(remote.address - MEMORY_BASE), rkey: remote.key }),
      ...(AtomicETH !== undefined && (opcode === ATOMIC_FETCH_AND_ADD ? { compare: swap } : { compare, swap })),
      ...(FETH !== undefined && {
        compare: BigInt(RETH!.dmaLen),
        swap: BigInt(FETH.plt) | (BigInt(FETH.sel) << 32n),
      }),
    })
    end.posted.push({ message, dataAt, signaled: signaled !== 0 })
  }
  if (specs.length > 0) node.post(end.row, ...specs)
}

/** Whether a packet consumes a receive WQE. */
const takesReceiveWqe = ({ packet }: Entry): boolean => {
  const flags = flagsOf(packet)
  if ((flags & OP_SEND) !== 0) return (flags & OP_START) !== 0
  return (flags & OP_IMM) !== 0 && (flags & OP_END) !== 0
}

/** Whether the recorded side answered packet `i` with an RNR NAK. */
const getsRnrNak = (entries: readonly Entry[], i: number, end: End): boolean => {
  const response = entries
    .slice(i + 1)
    .find(
      e => e.from !== entries[i].from && !isRequest(e.packet) && e.packet.BTH.destQp === end.asResponder!.requesterQpn,
    )
  return response !== undefined && isRnrNak(response.packet) && response.packet.BTH.psn === entries[i].packet.BTH.psn
}

/** Bytes before a message in a receive buffer. */
export const grhBytes = (pair: Pair): number => (pair.service === Service.UD ? GRH_BYTES : 0)

/** Posts a receive WQE if none is posted. Its size is that in `facts`, or that of the next message. */
const postReceive = (node: TestNode, end: End, allocate: (bytes: number) => number): void => {
  if (node.queues[end.row].receives.length > 0) return
  const next = end.incoming.filter(takesReceive)[end.receives.length]
  const length = end.receiveSizes.shift() ?? (next?.length ?? 0) + grhBytes(end.asResponder!)
  const at = allocate(length)
  node.postReceive(end.row, { id: end.receives.length, sges: [{ at, length }] })
  end.receives.push({ at, length })
}
