/*
 * Joins the request packets of a capture into messages (InfiniBand Architecture Specification, volume 1, 9.4 and
 * 9.7.3), and derives when each message was posted and completed.
 */
import {
  OP_ATOMIC,
  OP_ATOMIC_WRITE,
  OP_END,
  OP_FLUSH,
  OP_IMM,
  OP_INV,
  OP_READ,
  OP_SEND,
  OP_START,
  OP_WRITE,
} from '../../../../src/spec/wire/opcodes.ts'
import { reliableService } from '../../../../src/spec/wire/services.ts'
import { WrOpcode } from '../../../../src/spec/work.ts'
import { psnDistance } from '../../../../src/transport/engine/psn.ts'
import {
  type Conversation,
  type Entry,
  field,
  flagsOf,
  headersOf,
  isPositive,
  isRequest,
  isResponse,
} from './conversation.ts'
import type { Pair } from './pairs.ts'

const { SEND, SEND_WITH_IMM, SEND_WITH_INV, RDMA_WRITE, RDMA_WRITE_WITH_IMM, RDMA_READ } = WrOpcode.values
const { ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, FLUSH, ATOMIC_WRITE } = WrOpcode.values

export interface Message {
  /** The first packet. */
  readonly entry: Entry
  /** OP_… bits of the first packet. */
  readonly flags: number
  /** OP_… bits of the last packet. */
  endFlags: number
  readonly psn: number
  /** Number of PSNs. */
  psns: number
  /** The payloads of the packets, one after the other; empty for a READ. */
  payload: Uint8Array
  /** Message length in bytes. */
  length: number
  solicited: boolean
  /** Immediate data, or the key to invalidate. */
  imm: number
  /** No packet was lost in its first transmission. */
  isLossless: boolean
  /** Index in the conversation of the packet that completes the message; Infinity if there is none. */
  completeAt: number
  /** Index in the conversation of the packet before which the message was posted. */
  postedAt: number
}

/** Offset of a packet's PSN from the requester's first PSN. */
const psnOffset = (pair: Pair, entry: Entry): number => psnDistance(pair.firstPsn, entry.packet.BTH.psn)

/** The number of PSNs of a request packet: for a READ, one for each response packet. */
const psnsOf = (entry: Entry, mtu: number): number => {
  if ((flagsOf(entry.packet) & OP_READ) === 0) return 1
  return Math.max(1, Math.ceil(field(entry.packet, 'RETH', 'dmaLen') / mtu))
}

export const messagesOf = ({ name, entries }: Conversation, pair: Pair): Message[] => {
  const messages: Message[] = []
  /** Offset of the next new PSN; earlier ones are retransmissions. */
  let nextOffset = 0
  /** The message whose last packet is still to come. */
  let open: Message | undefined
  for (const entry of entries) {
    if (entry.from !== pair.requester || entry.packet.BTH.destQp !== pair.responderQpn || !isRequest(entry.packet))
      continue
    const { packet } = entry
    if (psnOffset(pair, entry) !== nextOffset) continue
    const flags = flagsOf(packet)
    const begins = (flags & (OP_START | OP_READ | OP_ATOMIC)) !== 0
    if (begins !== (open === undefined))
      throw new Error(`${name}: packet ${entry.number} is out of place in its message`)
    const psns = psnsOf(entry, pair.mtu)
    if (open === undefined) {
      open = {
        entry,
        flags,
        endFlags: flags,
        psn: packet.BTH.psn,
        psns: 0,
        payload: new Uint8Array(),
        length: 0,
        solicited: false,
        imm: 0,
        isLossless: true,
        completeAt: Number.POSITIVE_INFINITY,
        postedAt: entries.indexOf(entry),
      }
      messages.push(open)
    }
    open.endFlags = flags
    open.isLossless &&= !entry.isLost
    // Messages of unreliable services complete when they are sent.
    if (reliableService[pair.service] === 0) open.completeAt = entries.indexOf(entry)
    open.psns += psns
    open.payload = Uint8Array.from([...open.payload, ...packet.payload])
    open.solicited ||= packet.BTH.se
    const { ImmDt, IETH } = headersOf(packet)
    open.imm = Number(ImmDt?.immDt ?? IETH?.rkey ?? 0)
    open.length = (flags & OP_READ) !== 0 ? field(packet, 'RETH', 'dmaLen') : open.payload.length
    if ((flags & OP_ATOMIC) !== 0) open.length = 8
    if ((flags & (OP_END | OP_READ | OP_ATOMIC)) !== 0) open = undefined
    nextOffset += psns
  }
  findCompletions(entries, pair, messages)
  return messages
}

/**
 * Sets `completeAt` to the first positive response for the message's last PSN or a later PSN. Sets `postedAt`: a
 * message that was sent before the previous message completed was posted together with the previous message.
 */
const findCompletions = (entries: readonly Entry[], pair: Pair, messages: readonly Message[]): void => {
  let done = 0
  for (const [i, entry] of entries.entries()) {
    if (entry.from === pair.requester || entry.isLost || entry.packet.BTH.destQp !== pair.requesterQpn) continue
    if (!isResponse(entry.packet) || !isPositive(entry.packet)) continue
    const acknowledged = psnOffset(pair, entry)
    for (; done < messages.length; done++) {
      const message = messages[done]
      if (psnDistance(pair.firstPsn, message.psn) + message.psns - 1 > acknowledged) break
      message.completeAt = i
    }
  }
  for (const [i, message] of messages.entries()) {
    const previous = messages[i - 1]
    if (previous !== undefined && previous.completeAt > message.postedAt) message.postedAt = previous.postedAt
  }
}

const KINDS = [OP_SEND, OP_WRITE, OP_READ, OP_ATOMIC, OP_FLUSH, OP_ATOMIC_WRITE] as const

/** Whether the message consumes a receive WQE. */
export const takesReceive = (message: Message): boolean =>
  (message.flags & OP_SEND) !== 0 || (message.endFlags & OP_IMM) !== 0

/** The message's ibv_wr_opcode. */
export const workOpcode = (message: Message): number => {
  const kind = KINDS.find(k => (message.flags & k) !== 0)
  const hasImm = (message.endFlags & OP_IMM) !== 0
  const hasInv = (message.endFlags & OP_INV) !== 0
  if (kind === OP_SEND && hasInv) return SEND_WITH_INV
  if (kind === OP_SEND) return hasImm ? SEND_WITH_IMM : SEND
  if (kind === OP_WRITE) return hasImm ? RDMA_WRITE_WITH_IMM : RDMA_WRITE
  if (kind === OP_READ) return RDMA_READ
  if (kind === OP_FLUSH) return FLUSH
  if (kind === OP_ATOMIC_WRITE) return ATOMIC_WRITE
  if (kind === OP_ATOMIC)
    return message.entry.packet.name.endsWith('COMPARE_SWAP') ? ATOMIC_CMP_AND_SWP : ATOMIC_FETCH_AND_ADD
  throw new Error(`no work request starts with a packet ${message.entry.packet.name}`)
}
