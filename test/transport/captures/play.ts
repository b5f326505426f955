/*
 * Our engine in place of one side of a capture, in virtual time: the other side's recorded packets are handed in, in
 * order, except lost ones; requests are posted when the recorded program posted them. Requests are sent one by one,
 * each where the recording has one, so that the same packets are in flight at a loss; if our engine has nothing to
 * send, time passes until its timer expires. The result is two streams per queue pair, responses and requests, for
 * compare.ts, which judges them.
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
import { answerTo, memoryOf, remoteOf, type SideMemory } from './memory.ts'
import { type Message, messagesOf, takesReceive, workOpcode } from './messages.ts'
import { type Pair, peerOf, qpnOn } from './pairs.ts'

/** Whether a packet was sent immediately or after a wait. */
export type Timing = 'immediate' | 'after the RNR timer' | 'after the ACK timeout'

export interface Sent {
  readonly packet: WellFormedPacket
  readonly timing: Timing
  /** µs of virtual time before it was sent. */
  readonly waited: number
  /** Capture index of the packet that was handed in, or expected, last. */
  readonly at: number
}

/** Packets that one queue pair sent. */
export interface Stream {
  readonly qpn: number
  readonly answers: Sent[]
  readonly requests: Sent[]
}

/** Work of one queue pair; work request ids are indexes here. */
export interface Work {
  readonly row: number
  readonly qpn: number
  readonly stream: Stream
  /** The direction in which this side is the requester, and the one in which it is the responder. */
  readonly asRequester: Pair | undefined
  readonly asResponder: Pair | undefined
  readonly posted: readonly Posted[]
  /** Addresses of receive buffers. */
  readonly receives: readonly { readonly at: number; readonly length: number }[]
  /** Payloads of the peer's messages, in order. */
  readonly incoming: readonly Message[]
}

export interface PlayResult {
  readonly node: TestNode
  readonly memory: SideMemory
  readonly ends: readonly Work[]
  /** Packets that our engine sent too early, as sentences. */
  readonly early: readonly string[]
}

const { FENCE, SIGNALED, SOLICITED } = SendFlags.values
const { ATOMIC_FETCH_AND_ADD } = WrOpcode.values
/** Length of the GRH before a datagram in its receive buffer. */
const GRH_BYTES = 40
const DEFAULT_TIMEOUT = 14
const DEFAULT_RNR_TIMER = 12
const DEFAULT_RD_ATOMIC = 16

export interface Posted {
  readonly message: Message
  readonly resultAt: number
  readonly signaled: boolean
}

interface End extends Work {
  readonly toPost: Message[]
  readonly posted: Posted[]
  /** Requests that our engine sent before the recording did. */
  readonly early: Sent[]
  readonly receives: { readonly at: number; readonly length: number }[]
  readonly toReceive: number[]
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
  /** For send and receive buffers, behind the memory that the peer accesses. */
  const bufferBytes = messages.reduce((sum, m) => sum + m.length + 128, 0) + (facts.receives ?? []).length * 0x1_0000
  const node = createNode({
    memoryBytes: space.bytes + bufferBytes,
    maxPackets: 1,
    locate: address => {
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
  const ends = joinEnds(conversation, pairs, side, facts, node)
  const endOf = (qpn: number): End | undefined => ends.find(end => end.qpn === qpn)
  let now = 0
  let at = 0
  let seen = 0
  /** Lets the engine send one packet; undefined if it has none to send. */
  const sendOne = (timing: Timing, waited: number): { end: End; sent: Sent } | undefined => {
    node.port.room = 1
    node.transmit(now)
    node.port.room = 0
    const fresh = node.sent[seen]
    if (fresh === undefined) return undefined
    seen++
    const packet = parsePacket(fresh.bytes)
    if (packet.kind === 'opaque') throw new Error(`our engine sent an invalid packet: ${packet.reason}`)
    const end = ends.find(e => peerOf((e.asRequester ?? e.asResponder)!, side) === packet.BTH.destQp)
    if (end === undefined) throw new Error(`our engine sent to QP ${packet.BTH.destQp}`)
    return { end, sent: { packet, timing, waited, at } }
  }
  /**
   * Lets the engine send all due responses. Returns true if it sends a request, which is kept until the recording has
   * it.
   */
  const drain = (timing: Timing, waited: number): boolean => {
    for (let next = sendOne(timing, waited); next !== undefined; next = sendOne(timing, waited)) {
      const { end, sent } = next
      if (isRequest(sent.packet)) {
        end.early.push(sent)
        return true
      }
      end.stream.answers.push(sent)
    }
    return false
  }
  const request = (end: End): void => {
    if (end.early.length === 0) drain('immediate', 0)
    if (end.early.length === 0) {
      const due = node.engine.nextTimeout()
      if (due !== Number.POSITIVE_INFINITY) {
        const waited = due - now
        const timing = wasNotReady(entries, at, side) ? 'after the RNR timer' : 'after the ACK timeout'
        now = due
        node.engine.onTimeout(now)
        drain(timing, waited)
      }
    }
    const sent = end.early.shift()
    if (sent !== undefined) end.stream.requests.push(sent)
  }
  /** The data that the recorded program wrote before a READ, from its responses. */
  const refresh = (entry: Entry, end: End): void => {
    const message = end.incoming.find(m => m.entry === entry)!
    const resultAt = space.locate(remoteOf(message)!.address)
    for (const answer of entries) {
      const index = answerTo(answer, end.asResponder!, message)
      if (index >= 0) node.memory.set(answer.packet.payload, resultAt + index * end.asResponder!.mtu)
    }
  }
  const early: string[] = []
  const burst = createBurst(node)
  const finishBurst = (): void => {
    if (burst.finish(now)) drain('immediate', 0)
  }
  for (const [i, entry] of entries.entries()) {
    at = entry.number
    if (entry.from === side) {
      finishBurst()
      const end = ends.find(e => peerOf((e.asRequester ?? e.asResponder)!, side) === entry.packet.BTH.destQp)
      if (end === undefined || !isRequest(entry.packet)) continue
      post(node, end, i, facts, allocate)
      request(end)
    } else if (!entry.lost && !isDestroyed(facts, side, entry)) {
      const end = endOf(entry.packet.BTH.destQp)
      const bytes = deliver(entry)
      if (end === undefined || bytes === undefined) continue
      // a receive WQE is posted once the earlier ones are consumed
      if (mayReceive(entry)) burst.cut(now)
      if (isRequest(entry.packet) && mayReceive(entry) && !isRefusedForNow(entries, i, end))
        receive(node, end, allocate)
      if (facts.programWrites === true && isRead(entry.packet)) refresh(entry, end)
      if (facts.postedAtOnce === true && drain('immediate', 0)) early.push(`packet ${at} was not expected`)
      if (inBursts) burst.add(end.row, bytes, now)
      else {
        node.inject(end.row, bytes, now)
        node.endBurst(now)
        drain('immediate', 0)
      }
    }
  }
  finishBurst()
  while (drain('immediate', 0)) {}
  if (facts.exhaustsRetries === true && side === 0) {
    now = node.engine.nextTimeout()
    node.engine.onTimeout(now)
    while (drain('after the ACK timeout', 0)) {}
  }
  for (const end of ends) end.stream.requests.push(...end.early)
  return { node, memory, ends, early }
}

/** Whether the packet's destination queue pair was already destroyed. */
const isDestroyed = ({ destroyed }: Facts, side: Side, { number, packet }: Entry): boolean =>
  destroyed !== undefined && destroyed.side === side && number >= destroyed.from && headersOf(packet).DETH === undefined

/** The queue pairs of `side`, connected. */
const joinEnds = (
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
      early: [],
      receives: [],
      toReceive: side === 1 ? [...(facts.receives ?? [])] : [],
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
    const resultAt = allocate(message.length)
    node.memory.set(message.payload, resultAt)
    const fence = facts.fences?.includes(end.posted.length) === true ? FENCE : 0
    const signaled = facts.signaled?.includes(end.posted.length) === false ? 0 : SIGNALED
    const remote = remoteOf(message)
    const sges: SgeSpec[] = message.length === 0 ? [] : [{ at: resultAt, length: message.length }]
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
    end.posted.push({ message, resultAt, signaled: signaled !== 0 })
  }
  if (specs.length > 0) node.post(end.row, ...specs)
}

/** Whether a request consumes a receive WQE. */
const mayReceive = ({ packet }: Entry): boolean => {
  const flags = flagsOf(packet)
  if ((flags & OP_SEND) !== 0) return (flags & OP_START) !== 0
  return (flags & OP_IMM) !== 0 && (flags & OP_END) !== 0
}

/** Whether the recorded side had no receive WQE for the packet: its next response is an RNR NAK. */
const isRefusedForNow = (entries: readonly Entry[], i: number, end: End): boolean => {
  const answer = entries
    .slice(i + 1)
    .find(
      e =>
        e.from !== entries[i].from &&
        !isRequest(e.packet) &&
        e.packet.BTH.destQp === peerOf(end.asResponder!, otherSide(end.asResponder!.requester)),
    )
  return answer !== undefined && isRnrNak(answer.packet) && answer.packet.BTH.psn === entries[i].packet.BTH.psn
}

/** Bytes before a message in a receive buffer. */
export const grhBytes = (pair: Pair): number => (pair.service === Service.UD ? GRH_BYTES : 0)

/** A receive WQE of the recorded size, or of the next message's. */
const receive = (node: TestNode, end: End, allocate: (bytes: number) => number): void => {
  if (node.queues[end.row].receives.length > 0) return
  const next = end.incoming.filter(takesReceive)[end.receives.length]
  const length = end.toReceive.shift() ?? (next?.length ?? 0) + grhBytes(end.asResponder!)
  const at = allocate(length)
  node.postReceive(end.row, { id: end.receives.length, sges: [{ at, length }] })
  end.receives.push({ at, length })
}

/** Whether `side` received an RNR NAK between its previous packet and packet `number`. */
const wasNotReady = (entries: readonly Entry[], number: number, side: Side): boolean =>
  rnrSince(entries, number, side) !== undefined
