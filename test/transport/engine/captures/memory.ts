/*
 * Derives a side's memory from a capture: addresses, keys, rights and initial contents. Captured addresses lie far
 * apart; `Space` packs them into one array.
 */
import { nakCode, syndromeKind } from '../../../../src/spec/wire/headers.ts'
import { OP_ATOMIC, OP_ATOMIC_WRITE, OP_READ, OP_WRITE } from '../../../../src/spec/wire/opcodes.ts'
import { psnDistance } from '../../../../src/transport/engine/psn.ts'
import { Access as AccessRight } from '../../../../src/transport/engine/types.ts'
import { ALL_ACCESS, type Region } from '../node.ts'
import {
  type Conversation,
  type Entry,
  headersOf,
  isPositive,
  isResponse,
  type Side,
  syndromeKindOf,
  syndromeValueOf,
} from './conversation.ts'
import type { Facts } from './facts.ts'
import { BUFFER_BYTES, readLog } from './log.ts'
import { type Message, messagesOf } from './messages.ts'
import type { Pair } from './pairs.ts'

const PAGE = 4096n

interface Space {
  /** Total bytes. */
  readonly bytes: number
  /** Offset of an address; -1 outside the packed pages. */
  locate(address: bigint): number
}

/** Addresses from `start` to `end` - 1. */
interface Range {
  start: bigint
  end: bigint
}

/** Packs the whole pages that contain these address ranges. */
const packSpace = (ranges: readonly Range[]): Space => {
  const pages = ranges
    .map(({ start, end }) => ({ start: start - (start % PAGE), end: end + ((PAGE - (end % PAGE)) % PAGE) }))
    .sort((a, b) => (a.start < b.start ? -1 : 1))
  const packed: (Range & { offset: number })[] = []
  let bytes = 0
  for (const { start, end } of pages) {
    const last = packed.at(-1)
    if (last !== undefined && start <= last.end) {
      if (end > last.end) bytes += Number(end - last.end)
      last.end = end > last.end ? end : last.end
    } else {
      packed.push({ start, end, offset: bytes })
      bytes += Number(end - start)
    }
  }
  return {
    bytes,
    locate(address) {
      const range = packed.find(r => address >= r.start && address < r.end)
      return range === undefined ? -1 : range.offset + Number(address - range.start)
    },
  }
}

/** The remote address, key and length of a message, if its first packet names them. */
export const remoteOf = (message: Message): { address: bigint; key: number; length: number } | undefined => {
  const { RETH, AtomicETH } = headersOf(message.entry.packet)
  const header = RETH ?? AtomicETH
  if (header === undefined) return undefined
  return { address: BigInt(header.va), key: Number(header.rkey), length: Number(header.dmaLen ?? 8) }
}

/** The access right that a message with these OP_… bits needs; 0 for a FLUSH. */
const rightOf = (flags: number): number => {
  if ((flags & OP_READ) !== 0) return AccessRight.REMOTE_READ
  if ((flags & OP_ATOMIC) !== 0) return AccessRight.REMOTE_ATOMIC
  return (flags & (OP_WRITE | OP_ATOMIC_WRITE)) !== 0 ? AccessRight.REMOTE_WRITE : 0
}

/** Whether the responder answered with a NAK other than a PSN sequence error. */
const isRefused = ({ entries }: Conversation, pair: Pair, message: Message): boolean =>
  entries.some(
    e =>
      e.from !== pair.requester &&
      e.packet.BTH.destQp === pair.requesterQpn &&
      e.packet.name === 'RC_ACKNOWLEDGE' &&
      syndromeKindOf(e.packet) === syndromeKind.NAK &&
      syndromeValueOf(e.packet) !== nakCode.PSN_SEQUENCE &&
      psnDistance(message.psn, e.packet.BTH.psn) < message.psns,
  )

export interface SideMemory {
  readonly space: Space
  readonly regions: readonly Region[]
  /** Initial contents. */
  readonly content: Uint8Array
}

export const memoryOf = (conversation: Conversation, pairs: readonly Pair[], side: Side, facts: Facts): SideMemory => {
  const served = pairs.filter(pair => pair.requester !== side)
  const accesses = served.flatMap(pair =>
    messagesOf(conversation, pair).flatMap(message => {
      const remote = remoteOf(message)
      const wasRefused = isRefused(conversation, pair, message)
      return remote === undefined ? [] : [{ pair, message, wasRefused, ...remote }]
    }),
  )
  const ranges = accesses.map(a => ({ start: a.address, end: a.address + BigInt(a.length || 1) }))
  const log = facts.hasLog === true ? readLog(conversation.name, side) : undefined
  if (log !== undefined) ranges.push({ start: log.address, end: log.address + BigInt(BUFFER_BYTES) })
  const space = packSpace(ranges)
  const regions: Region[] = []
  if (log !== undefined)
    regions.push({
      key: log.rkey,
      pd: 1,
      offset: space.locate(log.address),
      length: BUFFER_BYTES,
      access: ALL_ACCESS | (facts.access ?? 0),
    })
  const windows = side === 1 ? (facts.windows ?? []) : []
  for (const { key, offset, length, access } of windows)
    regions.push({ key, pd: 1, offset: space.locate(log!.address) + offset, length, access })
  const knownKeys = regions.map(r => r.key)
  for (const { key, address, length, message, wasRefused } of accesses) {
    if (wasRefused || length === 0 || knownKeys.includes(key)) continue
    coverAccess(regions, key, space.locate(address), length, rightOf(message.flags))
  }
  return { space, regions, content: contentOf(conversation, accesses, space) }
}

/** Extends the region of a key, or adds one, so that it covers an access with the key. */
const coverAccess = (regions: Region[], key: number, offset: number, length: number, access: number): void => {
  const region = regions.find(r => r.key === key)
  if (region === undefined) {
    regions.push({ key, pd: 1, offset, length, access })
    return
  }
  const end = Math.max(region.offset + region.length, offset + length)
  region.offset = Math.min(region.offset, offset)
  region.length = end - region.offset
  region.access |= access
}

interface Access {
  readonly pair: Pair
  readonly message: Message
  readonly address: bigint
  readonly length: number
  readonly wasRefused: boolean
}

/** The initial contents: bytes that a READ or atomic returned before a WRITE changed them; zeros elsewhere. */
const contentOf = ({ entries }: Conversation, accesses: readonly Access[], space: Space): Uint8Array => {
  const content = new Uint8Array(space.bytes)
  /** 1 for a byte that an earlier packet returned or wrote. */
  const isKnown = new Uint8Array(space.bytes)
  const addInitial = (offset: number, bytes: Uint8Array): void => {
    for (let i = 0; i < bytes.length; i++) if (isKnown[offset + i] === 0) content[offset + i] = bytes[i]
    isKnown.fill(1, offset, offset + bytes.length)
  }
  for (const entry of entries) {
    for (const access of accesses) {
      const { message, pair } = access
      if (entry === message.entry && !access.wasRefused && (message.flags & (OP_WRITE | OP_ATOMIC_WRITE)) !== 0)
        isKnown.fill(1, space.locate(access.address), space.locate(access.address) + access.length)
      const index = responseIndex(entry, pair, message)
      if (index < 0) continue
      if ((message.flags & OP_READ) !== 0)
        addInitial(space.locate(access.address) + index * pair.mtu, entry.packet.payload)
      else if ((message.flags & OP_ATOMIC) !== 0) {
        const word = new Uint8Array(8)
        const { AtomicAckETH } = headersOf(entry.packet)
        if (AtomicAckETH === undefined) continue
        new DataView(word.buffer).setBigUint64(0, BigInt(AtomicAckETH.origRemDt), true)
        addInitial(space.locate(access.address), word)
      }
    }
  }
  return content
}

/** The index of a packet among the READ or atomic responses to a message; -1 for other packets. */
export const responseIndex = (entry: Entry, pair: Pair, message: Message): number => {
  if (entry.from === pair.requester || entry.packet.BTH.destQp !== pair.requesterQpn) return -1
  if (!isResponse(entry.packet) || !isPositive(entry.packet) || entry.packet.name === 'RC_ACKNOWLEDGE') return -1
  const index = psnDistance(message.psn, entry.packet.BTH.psn)
  return index < message.psns ? index : -1
}
