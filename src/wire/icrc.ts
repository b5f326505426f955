/*
 * The invariant CRC at the end of every RoCEv2 packet (InfiniBand Architecture Specification, clause 7.8.1; annex A17):
 * CRC-32 over eight bytes of ones, the IP header, the UDP header and the UDP payload up to the ICRC. Fields that may
 * change in flight count as ones: TOS, TTL and header checksum (IPv4) or traffic class, flow label and hop limit
 * (IPv6), UDP checksum, and the byte of the BTH with FECN and BECN. It is stored little-endian.
 *
 * It takes one pass over the payload and a few table look-ups: a CRC is linear, so a changed byte at a known place
 * changes the register by a known amount, whatever the other bytes are. A flow keeps the register after its headers
 * with lengths and identification zero; tables give the contribution of these, and of the BTH's mask, moved back to the
 * register at the payload's start.
 */

import { ICRC_BYTES } from '../spec/wire/headers.ts'
import { opcodeNumber } from '../spec/wire/opcodes.ts'
import { isMappedIpv4 } from './address.ts'
import type { Arena } from './arena.ts'
import { BTH_BYTES } from './bth.ts'
import { crc32, crcBackward, crcForward, crcOfArena, eachCrcFor } from './crc.ts'
import { IPV4_BYTES, IPV6_BYTES, PROTOCOL_UDP } from './ip.ts'

/** The header fields before the BTH that the ICRC covers. */
export interface FlowAddresses {
  /** 4 bytes, or 16: IPv6, or IPv4 as ::ffff:a.b.c.d, as in a GID. */
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly sourcePort: number
  readonly destinationPort: number
  /** IPv4's DF bit; the default is true, as RoCEv2 senders set it. */
  readonly dontFragment?: boolean
}

/** The headers of a flow as the ICRC covers them. Made by `makeFlow`; the fields are private to this file. */
export interface Flow {
  readonly version: 4 | 6
  /** CRC over the masked headers with lengths and identification 0. */
  readonly base: number
}

const UDP_BYTES = 8
const ONES = 8
const { RC_FLUSH } = opcodeNumber

/** The effect on the register after a prefix of `size` bytes if its byte at `place` changes by `i` (exclusive or). */
const effectOf = (size: number, place: number): Int32Array =>
  Int32Array.from({ length: 256 }, (_, i) => {
    let register = crcForward(i)
    for (let at = place + 1; at < size; at++) register = crcForward(register)
    return register
  })

const PREFIX4 = ONES + IPV4_BYTES + UDP_BYTES
const PREFIX6 = ONES + IPV6_BYTES + UDP_BYTES
const total4Hi = effectOf(PREFIX4, ONES + 2)
const total4Lo = effectOf(PREFIX4, ONES + 3)
const id4Hi = effectOf(PREFIX4, ONES + 4)
const id4Lo = effectOf(PREFIX4, ONES + 5)
const udp4Hi = effectOf(PREFIX4, ONES + IPV4_BYTES + 4)
const udp4Lo = effectOf(PREFIX4, ONES + IPV4_BYTES + 5)
/** IPv6 has the same number in two places: payload length and UDP length. */
const both6Hi = effectOf(PREFIX6, ONES + 4).map((effect, i) => effect ^ effectOf(PREFIX6, ONES + IPV6_BYTES + 4)[i])
const both6Lo = effectOf(PREFIX6, ONES + 5).map((effect, i) => effect ^ effectOf(PREFIX6, ONES + IPV6_BYTES + 5)[i])

/** By byte 4 of the BTH: the change of the register at the start of the BTH that makes the byte count as ones. */
const maskBth = Int32Array.from({ length: 256 }, (_, byte) => {
  let register = crcForward(byte ^ 0xff)
  for (let at = 4; at >= 0; at--) register = crcBackward(register)
  return register
})

const ipv4Of = (address: Uint8Array): Uint8Array | undefined =>
  address.length === 4 ? address : isMappedIpv4(address) ? address.subarray(12) : undefined

/**
 * A flow of packets between two UDP ports. Throws a RangeError for addresses that are neither both IPv4 nor both IPv6,
 * and for ports outside 0 to 65535.
 */
export const makeFlow = (addresses: FlowAddresses): Flow => {
  const { source, destination, sourcePort, destinationPort, dontFragment = true } = addresses
  for (const port of [sourcePort, destinationPort]) {
    if (!Number.isInteger(port) || port < 0 || port > 0xffff) {
      throw new RangeError(`a UDP port is an integer from 0 to 65535, not ${port}`)
    }
  }
  const source4 = ipv4Of(source)
  const destination4 = ipv4Of(destination)
  const isIpv4 = source4 !== undefined && destination4 !== undefined
  if (
    !isIpv4 &&
    (source4 !== undefined || destination4 !== undefined || source.length !== 16 || destination.length !== 16)
  ) {
    throw new RangeError(
      `a flow has two IPv4 addresses (4 bytes, or 16 as ::ffff:a.b.c.d) or two IPv6 addresses (16 bytes), not [${source}] and [${destination}]`,
    )
  }
  const ip = ONES + (isIpv4 ? IPV4_BYTES : IPV6_BYTES)
  const prefix = new Uint8Array(isIpv4 ? PREFIX4 : PREFIX6).fill(0xff, 0, ONES)
  if (isIpv4) {
    prefix.set([0x45, 0xff, 0, 0, 0, 0, dontFragment ? 0x40 : 0, 0, 0xff, PROTOCOL_UDP, 0xff, 0xff], ONES)
    prefix.set(source4, ONES + 12)
    prefix.set(destination4, ONES + 16)
  } else {
    prefix.set([0x6f, 0xff, 0xff, 0xff, 0, 0, PROTOCOL_UDP, 0xff], ONES)
    prefix.set(source, ONES + 8)
    prefix.set(destination, ONES + 24)
  }
  prefix.set([sourcePort >> 8, sourcePort, destinationPort >> 8, destinationPort, 0, 0, 0xff, 0xff], ip)
  return { version: isIpv4 ? 4 : 6, base: crc32(prefix) | 0 }
}

/** CRC after all headers before the BTH, for a UDP payload of `length` bytes, including the mask of the BTH. */
const seedOf = (arena: Arena, offset: number, length: number, flow: Flow, identification: number): number => {
  const udp = length + UDP_BYTES
  const seed = flow.base ^ maskBth[arena.bytes[offset + 4]]
  if (flow.version === 6) return seed ^ both6Hi[udp >> 8] ^ both6Lo[udp & 255]
  const total = udp + IPV4_BYTES
  return (
    seed ^
    total4Hi[total >> 8] ^
    total4Lo[total & 255] ^
    udp4Hi[udp >> 8] ^
    udp4Lo[udp & 255] ^
    id4Hi[(identification >> 8) & 255] ^
    id4Lo[identification & 255]
  )
}

/**
 * The ICRC of the packet of `length` bytes, ICRC included (16 to 65,507), at `offset` of an arena, as a signed 32-bit
 * integer. `identification`: that of the IPv4 header, modulo 65536; ignored for IPv6.
 */
export const icrcOf = (arena: Arena, offset: number, length: number, flow: Flow, identification: number): number =>
  crcOfArena(arena, offset, length - ICRC_BYTES, seedOf(arena, offset, length, flow, identification))

/**
 * The ICRC that Linux's rdma_rxe (6.12) writes and expects in a FLUSH: over BTH, FETH and RETH once more, unmasked, so
 * that it covers even FECN. Arguments as for `icrcOf`.
 */
export const icrcOfRxeFlush = (
  arena: Arena,
  offset: number,
  length: number,
  flow: Flow,
  identification: number,
): number => crcOfArena(arena, offset, length - ICRC_BYTES, icrcOf(arena, offset, length, flow, identification))

const put = (bytes: Uint8Array, at: number, icrc: number): void => {
  bytes[at] = icrc
  bytes[at + 1] = icrc >>> 8
  bytes[at + 2] = icrc >>> 16
  bytes[at + 3] = icrc >>> 24
}

/**
 * Writes the ICRC into the last four of the packet's `length` bytes. A FLUSH gets rdma_rxe's, because rdma_rxe drops
 * any other and is the only other implementation over Ethernet that we know (docs/reference/conformance.md). Arguments
 * as for `icrcOf`.
 */
export const sealIcrc = (arena: Arena, offset: number, length: number, flow: Flow, identification: number): void => {
  const make = arena.bytes[offset] === RC_FLUSH ? icrcOfRxeFlush : icrcOf
  put(arena.bytes, offset + length - ICRC_BYTES, make(arena, offset, length, flow, identification))
}

/**
 * Seals `count` packets of `length` bytes each, back to back from `offset`; their identifications count up from
 * `identification`. Other arguments as for `sealIcrc`.
 */
export const sealIcrcs = (
  arena: Arena,
  offset: number,
  length: number,
  count: number,
  flow: Flow,
  identification: number,
): void => {
  const covered = length - ICRC_BYTES
  const each = eachCrcFor(arena, covered, count)
  if (each === undefined) {
    for (let i = 0, at = offset; i < count; i++, at += length) sealIcrc(arena, at, length, flow, identification + i)
    return
  }
  const { bytes } = arena
  const { registers } = each
  for (let done = 0; done < count; done += registers.length) {
    const from = offset + done * length
    const many = Math.min(registers.length, count - done)
    for (let i = 0, at = from; i < many; i++, at += length)
      registers[i] = seedOf(arena, at, length, flow, identification + done + i)
    each.crc(arena.address + from, covered, length, many)
    for (let i = 0, at = from; i < many; i++, at += length) {
      const icrc = registers[i]
      put(bytes, at + covered, bytes[at] === RC_FLUSH ? crcOfArena(arena, at, covered, icrc) : icrc)
    }
  }
}

/**
 * The number of packets before the first wrong ICRC among `count` packets of `length` bytes each, back to back from
 * `offset`, whose identifications count up from `identification`; `count` if all are right. rdma_rxe's ICRC of a FLUSH
 * counts as wrong. Other arguments as for `verifyIcrc`.
 */
export const countRightIcrcs = (
  arena: Arena,
  offset: number,
  length: number,
  count: number,
  flow: Flow,
  identification: number,
): number => {
  if (length < BTH_BYTES + ICRC_BYTES) return 0
  const { bytes } = arena
  const covered = length - ICRC_BYTES
  const each = eachCrcFor(arena, covered, count)
  const step = each === undefined ? 1 : each.registers.length
  for (let done = 0; done < count; done += step) {
    const from = offset + done * length
    const many = Math.min(step, count - done)
    if (each !== undefined) {
      for (let i = 0, at = from; i < many; i++, at += length)
        each.registers[i] = seedOf(arena, at, length, flow, identification + done + i)
      each.crc(arena.address + from, covered, length, many)
    }
    for (let i = 0, at = from + covered; i < many; i++, at += length) {
      const icrc = each === undefined ? icrcOf(arena, from, length, flow, identification + done) : each.registers[i]
      const found = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)
      if (found !== icrc) return done + i
    }
  }
  return count
}

/**
 * Whether the packet of `length` bytes at `offset` has the right ICRC; a FLUSH may have rdma_rxe's. False if it is too
 * short. `identification` as for `icrcOf`.
 */
export const verifyIcrc = (
  arena: Arena,
  offset: number,
  length: number,
  flow: Flow,
  identification: number,
): boolean => {
  if (length < BTH_BYTES + ICRC_BYTES) return false
  const bytes = arena.bytes
  const at = offset + length - ICRC_BYTES
  const found = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)
  const icrc = icrcOf(arena, offset, length, flow, identification)
  if (found === icrc) return true
  if (bytes[offset] !== RC_FLUSH) return false
  return found === crcOfArena(arena, offset, length - ICRC_BYTES, icrc)
}

/**
 * By k and byte place: the value of each byte of the register 2^k zero bytes earlier. Built on first use (68 KiB): only
 * receivers that cannot see the IPv4 identification need it.
 */
let backwards: Int32Array[] | undefined
const POWERS = 17

const applyBackwards = (table: Int32Array, register: number): number =>
  table[register & 255] ^
  table[256 + ((register >>> 8) & 255)] ^
  table[512 + ((register >>> 16) & 255)] ^
  table[768 + (register >>> 24)]

const makeBackwards = (): Int32Array[] => {
  const at = (i: number): number => (i & 255) << (8 * (i >> 8))
  const tables = [Int32Array.from({ length: 1024 }, (_, i) => crcBackward(at(i)) ^ crcBackward(0))]
  while (tables.length < POWERS) {
    const half = tables[tables.length - 1]
    tables.push(half.map(register => applyBackwards(half, register)))
  }
  return tables
}

/** The difference of two registers `count` bytes earlier. */
const goBackwards = (difference: number, count: number): number => {
  backwards ??= makeBackwards()
  let register = difference
  for (let power = 0, left = count; left > 0; power++, left >>>= 1)
    if ((left & 1) !== 0) register = applyBackwards(backwards[power], register)
  return register
}

/** Bytes of the prefix after the start of the identification. */
const ID_TO_END = PREFIX4 - ONES - 4

/**
 * The exclusive or of two identifications that explains a difference of CRCs `count` bytes later; -1 if there is none.
 */
const explain = (difference: number, count: number): number => {
  const before = goBackwards(difference, count + ID_TO_END)
  return before >>> 16 === 0 ? ((before & 255) << 8) | (before >>> 8) : -1
}

/**
 * The IPv4 identification for which the packet's ICRC is right, for receivers that cannot see the IP header: tries
 * `expected` first; then the CRC's linearity gives the one of 65,536 that fits; -1 if none does. A corrupted packet
 * therefore passes with probability 1 in 65,536, not 1 in 2^32; its UDP checksum still protects it. A FLUSH may have
 * rdma_rxe's ICRC. Over IPv6, which has no identification: `expected` or -1. Other arguments as for `verifyIcrc`.
 */
export const findIdentification = (
  arena: Arena,
  offset: number,
  length: number,
  flow: Flow,
  expected: number,
): number => {
  if (length < BTH_BYTES + ICRC_BYTES) return -1
  const bytes = arena.bytes
  const at = offset + length - ICRC_BYTES
  const found = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)
  const icrc = icrcOf(arena, offset, length, flow, expected)
  if (found === icrc) return expected
  const is4 = flow.version === 4
  const covered = length - ICRC_BYTES
  const change = is4 ? explain(found ^ icrc, covered) : -1
  if (change >= 0) return expected ^ change
  if (bytes[offset] !== RC_FLUSH) return -1
  const flush = crcOfArena(arena, offset, covered, icrc)
  if (found === flush) return expected
  const flushChange = is4 ? explain(found ^ flush, 2 * covered) : -1
  return flushChange < 0 ? -1 : expected ^ flushChange
}
