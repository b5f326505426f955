/*
 * Our engine in place of one side of a capture, in virtual time: the other side's recorded packets are handed in, in
 * order, except lost ones; requests are posted when the recorded program posted them. Request packets are sent one by
 * one, each where the recording has one, so that the same packets are in flight at a loss; if our engine has none to
 * send, time passes until its timer expires. The result is two streams per queue pair, responses and requests, which
 * compare.ts compares with the recording.
 */
import { OP_END, OP_IMM, OP_SEND, OP_START } from '../../../src/spec/wire/opcodes.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import { SendFlags, WrOpcode } from '../../../src/spec/work.ts'
import { Access } from '../../../src/transport/types.ts'
import { parsePacket, type WellFormedPacket } from '../../../src/wire/packet.ts'
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
  otherSide,
  rnrSince,
  type Side,
  syndromeValueOf,
} from './conversation.ts'
import type { Facts } from './facts.ts'
import { memoryOf, remoteOf, responseIndex, type SideMemory } from './memory.ts'
import { type Message, messagesOf, takesReceive, workOpcode } from './messages.ts'
import { type Pair, peerOf, qpnOn } from './pairs.ts'

/** Whether a packet was sent immediately or after a wait. */
export type Timing = 'immediate' | 'after the RNR timer' | 'after the ACK timeout'

export interface Sent {
  readonly packet: WellFormedPacket
  readonly timing: Timing
  /** µs of virtual time that passed before it was sent, for a timer to expire. */
  readonly waited: number
}

/** Packets that one queue pair sent. */
export interface Stream {
  readonly qpn: number
  readonly answers: Sent[]
  readonly requests: Sent[]
}

/** A queue pair, and its requests and receives; ids of work requests are indexes of `posted` and `receives`. */
export interface Work {
  readonly row: number
  readonly qpn: number
  readonly stream: Stream
  /** The direction in which this side is the requester, and the one in which it is the responder. */
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
  /** The queue pairs of the side. */
  readonly ends: readonly Work[]
  /** If `postedAtOnce`: sentences about requests sent before a packet for which the recorded side waited. */
  readonly unexpected: readonly string[]
}

const { FENCE, SIGNALED, SOLICITED } = SendFlags.values
const { ATOMIC_FETCH_AND_ADD } = WrOpcode.values
/** Length of the GRH before a datagram in its receive buffer. */
const GRH_BYTES = 40
/** Codes of the ACK timeout and RNR timer, and max_rd_atomic, of programs that do not set them. */
const DEFAULT_TIMEOUT = 14
const DEFAULT_RNR_TIMER = 12
const DEFAULT_RD_ATOMIC = 16

export interface Posted {
  readonly message: Message
  /** Offset of the request's data in the node's memory. */
  readonly dataAt: number
  readonly signaled: boolean
}

interface End extends Work {
  /** Messages that are not posted yet. */
  readonly toPost: Message[]
  readonly posted: Posted[]
  /** Request packets of our engine that the recording has later. */
  readonly pending: Sent[]
  readonly receives: { readonly at: number; readonly length: number }[]
  /** Sizes of the next receive buffers, if `facts` has them. */
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

/** The RNR timer code in a side's NAKs. */
const rnrTimerOf = (conversation: Conversation, side: Side): number => {
  const nak = conversation.entries.find(e => e.from === side && isRnrNak(e.packet))
  return nak === undefined ? DEFAULT_RNR_TIMER : syndromeValueOf(nak.packet)
}

/** The packet that our engine receives for a recorded one; undefined if withheld. */
export type PacketToDeliver = (entry: Entry) => Uint8Array | undefined

export interface PlayOptions {
  /** By default the recorded packets are delivered. */
  readonly deliver?: PacketToDeliver
  /** Recorded packets with no packet of `side` between them form one burst, with runs as long as possible. */
  readonly inBursts?: boolean
}

/** Plays `side` of the capture with our engine. */
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
  /** Bytes for send and receive buffers, behind the memory that the peer accesses. */
  const bufferBytes = messages.reduce((sum, m) => sum + m.length + 128, 0) + (facts.receives ?? []).length * 0x1_0000
  const node = createNode({
    memoryBytes: space.bytes + bufferBytes,
    maxPackets: 1,
    locate: address => {
      // Our own buffers are at MEMORY_BASE + offset; other addresses are recorded ones.
      const local = address - MEMORY_BASE
      return local >= space.bytes && local < 0x1000_0000n ? Number(local) : space.locate(address)
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
  let free = space.bytes
  /** Allocates a buffer; returns its offset. */
  const allocate = (bytes: number): number => {
    const at = free
    free += (bytes + 7) & ~7
    return at
  }
  const ends = connectEnds(conversation, pairs, side, facts, node)
  const endOf = (qpn: number): End | undefined => ends.find(end => end.qpn === qpn)
  let now = 0
  /** Number of the recorded packet that was reached. */
  let packetNumber = 0
  /** Number of packets of our engine that were taken from the port. */
  let taken = 0
  /** Lets the engine send one packet; undefined if it has none to send. */
  const sendOne = (timing: Timing, waited: number): { end: End; sent: Sent } | undefined => {
    node.port.freeRuns = 1
    node.transmit(now)
    node.port.freeRuns = 0
    const next = node.sent[taken]
    if (next === undefined) return undefined
    taken++
    const packet = parsePacket(next.bytes)
    if (packet.kind === 'opaque') throw new Error(`our engine sent an invalid packet: ${packet.reason}`)
    const end = ends.find(e => peerOf((e.asRequester ?? e.asResponder)!, side) === packet.BTH.destQp)
    if (end === undefined) throw new Error(`our engine sent to QP ${packet.BTH.destQp}`)
    return { end, sent: { packet, timing, waited } }
  }
  /**
   * Lets the engine send responses until it has none, or until it sends a request: then it returns true, and the
   * request is pending until the recording has it.
   */
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
  /** The recording has a request here: takes the engine's next one, for which a timer may have to expire. */
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
  /** Writes the data that the recorded program wrote before a READ; the recorded responses have it. */
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
      const end = ends.find(e => peerOf((e.asRequester ?? e.asResponder)!, side) === entry.packet.BTH.destQp)
      if (end === undefined || !isRequest(entry.packet)) continue
      post(node, end, i, facts, allocate)
      takeRequest(end)
    } else if (!entry.isLost && !isDestroyed(facts, side, entry)) {
      const end = endOf(entry.packet.BTH.destQp)
      const bytes = deliver(entry)
      if (end === undefined || bytes === undefined) continue
      // The packets so far consume their receive WQEs before the next one is posted.
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
  if (facts.exhaustsRetries === true && side === 0) {
    now = node.engine.nextTimeout()
    node.engine.onTimeout(now)
    while (sendResponses('after the ACK timeout', 0)) {}
  }
  for (const end of ends) end.stream.requests.push(...end.pending)
  return { node, memory, ends, unexpected }
}

/** Whether the packet's destination, a connected QP, was already destroyed. Datagrams go to QP 1, which stays. */
const isDestroyed = ({ destroyed }: Facts, side: Side, { number, packet }: Entry): boolean =>
  destroyed !== undefined && destroyed.side === side && number >= destroyed.from && headersOf(packet).DETH === undefined

/** The queue pairs of `side`, connected. */
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
      destQpn: peerOf(pair, side),
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

/** Whether a packet is the one of its message that takes a receive WQE. */
const takesReceiveWqe = ({ packet }: Entry): boolean => {
  const flags = flagsOf(packet)
  if ((flags & OP_SEND) !== 0) return (flags & OP_START) !== 0
  return (flags & OP_IMM) !== 0 && (flags & OP_END) !== 0
}

/** Whether the recorded side had no receive WQE for packet `i`: its next response is an RNR NAK of the packet. */
const getsRnrNak = (entries: readonly Entry[], i: number, end: End): boolean => {
  const response = entries
    .slice(i + 1)
    .find(
      e =>
        e.from !== entries[i].from &&
        !isRequest(e.packet) &&
        e.packet.BTH.destQp === peerOf(end.asResponder!, otherSide(end.asResponder!.requester)),
    )
  return response !== undefined && isRnrNak(response.packet) && response.packet.BTH.psn === entries[i].packet.BTH.psn
}

/** Bytes before a message in a receive buffer. */
export const grhBytes = (pair: Pair): number => (pair.service === Service.UD ? GRH_BYTES : 0)

/** Posts a receive WQE, of the size in `facts` or that of the next message, unless one is posted. */
const postReceive = (node: TestNode, end: End, allocate: (bytes: number) => number): void => {
  if (node.queues[end.row].receives.length > 0) return
  const next = end.incoming.filter(takesReceive)[end.receives.length]
  const length = end.receiveSizes.shift() ?? (next?.length ?? 0) + grhBytes(end.asResponder!)
  const at = allocate(length)
  node.postReceive(end.row, { id: end.receives.length, sges: [{ at, length }] })
  end.receives.push({ at, length })
}
