/*
 * The invariant CRC that ends every RoCEv2 packet (InfiniBand Architecture Specification, clause 7.8.1; annex A17):
 * CRC-32 over eight bytes of ones, the IP header, the UDP header and the UDP payload up to the ICRC, in which
 * everything that may change on the way counts as ones: TOS, TTL and header checksum (IPv4) or traffic class, flow
 * label and hop limit (IPv6), UDP checksum, and the byte of the BTH with FECN and BECN. It is stored little-endian.
 *
 * One pass over the payload and a few table look-ups make it: a CRC is linear, so a changed byte at a known place
 * changes the register by a known amount, whatever the other bytes are. A flow keeps the register after its headers
 * with lengths and identification zero; what these add comes from tables, and so does the mask of the BTH, moved back
 * to the register at the payload's start. Nothing here knows sockets or queue pairs.
 */

import { ICRC_BYTES } from '../spec/wire/headers.ts'
import { opcodeNumber } from '../spec/wire/opcodes.ts'
import { isMappedIpv4 } from './address.ts'
import type { Arena } from './arena.ts'
import { BTH_BYTES } from './bth.ts'
import { crc32, crcBackward, crcForward, crcOfArena, eachCrcFor } from './crc.ts'

/** What the ICRC covers of the headers before the BTH. */
export interface FlowAddresses {
  /** 4 bytes, or 16: IPv6, or IPv4 as ::ffff:a.b.c.d, as in a GID. */
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly sourcePort: number
  readonly destinationPort: number
  /** IPv4's DF bit; RoCEv2 senders set it, and so does a flow that says nothing. */
  readonly dontFragment?: boolean
}

/** The headers of a flow as the ICRC sees them. Made by `makeFlow`; the fields are for this file. */
export interface Flow {
  readonly version: 4 | 6
  /** CRC over the masked headers with lengths and identification 0. */
  readonly base: number
}

const IPV4_BYTES = 20
const IPV6_BYTES = 40
const UDP_BYTES = 8
const PROTOCOL_UDP = 17
const ONES = 8
const { RC_FLUSH } = opcodeNumber

/** What a byte at `place` of a prefix of `size` bytes, changed by `i`, does to the register after the prefix. */
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
/** IPv6 has the same number in both places: payload length, UDP length. */
const both6Hi = effectOf(PREFIX6, ONES + 4).map((effect, i) => effect ^ effectOf(PREFIX6, ONES + IPV6_BYTES + 4)[i])
const both6Lo = effectOf(PREFIX6, ONES + 5).map((effect, i) => effect ^ effectOf(PREFIX6, ONES + IPV6_BYTES + 5)[i])

/** By byte 4 of the BTH: what, at the start of the BTH, makes that byte count as ones. */
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

/** CRC after all headers before the BTH, for a UDP payload of `length` bytes, with the mask of the BTH in it. */
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
 * The ICRC of the packet of `length` bytes, room for the ICRC included (16 to 65,507), at `offset` of an arena, as a
 * signed 32-bit integer. `identification`: that of the IPv4 header, modulo 65536; IPv6 has none.
 */
export const icrcOf = (arena: Arena, offset: number, length: number, flow: Flow, identification: number): number =>
  crcOfArena(arena, offset, length - ICRC_BYTES, seedOf(arena, offset, length, flow, identification))

/**
 * The ICRC that Linux's rdma_rxe (6.12) puts into a FLUSH and wants there: over BTH, FETH and RETH once more,
 * unmasked, so that even FECN is covered. Arguments as `icrcOf`.
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
 * Writes the ICRC into the last four of the packet's `length` bytes. A FLUSH gets that of rdma_rxe, which drops any
 * other, and which is the one implementation over Ethernet that we know (docs/reference/conformance.md). Arguments as
 * `icrcOf`.
 */
export const sealIcrc = (arena: Arena, offset: number, length: number, flow: Flow, identification: number): void => {
  const make = arena.bytes[offset] === RC_FLUSH ? icrcOfRxeFlush : icrcOf
  put(arena.bytes, offset + length - ICRC_BYTES, make(arena, offset, length, flow, identification))
}

/**
 * Seals `count` packets of `length` bytes each that lie back to back from `offset` on; their identifications count up
 * from `identification`. Other arguments as `sealIcrc`.
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
 * How many of `count` packets of `length` bytes each, back to back from `offset` on, have the right ICRC, up to the
 * first that has not: all of them if it is right with identifications that count up from `identification`. A FLUSH
 * counts as wrong if its ICRC is that of rdma_rxe. Other arguments as `verifyIcrc`.
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
 * Whether the packet of `length` bytes at `offset` ends with the right ICRC; a FLUSH may have that of rdma_rxe. False
 * for what is too short to have one. `identification` as in `icrcOf`.
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
 * By k and byte place: what each byte of the register was 2^k zero bytes before. Built when first needed (68 KiB): only
 * who cannot see IPv4 identifications needs it.
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

/** The difference of registers `count` bytes before. */
const goBackwards = (difference: number, count: number): number => {
  backwards ??= makeBackwards()
  let register = difference
  for (let power = 0, left = count; left > 0; power++, left >>>= 1)
    if ((left & 1) !== 0) register = applyBackwards(backwards[power], register)
  return register
}

/** Bytes of the prefix from the identification on. */
const ID_TO_END = PREFIX4 - ONES - 4

/**
 * What must be added (exclusive or) to an identification to explain a difference of CRCs `count` bytes later; -1 if
 * nothing does.
 */
const explain = (difference: number, count: number): number => {
  const before = goBackwards(difference, count + ID_TO_END)
  return before >>> 16 === 0 ? ((before & 255) << 8) | (before >>> 8) : -1
}

/**
 * The IPv4 identification with which the packet's ICRC is right, for who cannot see the IP header: `expected` is tried
 * first, then the CRC's linearity gives the one of 65,536 that fits; -1 if none does. Of packets that bits changed in,
 * one in 65,536 therefore passes here, not one in 2^32; their UDP checksum still stands. A FLUSH may have the ICRC of
 * rdma_rxe. Over IPv6 there is no identification: `expected` or -1. Other arguments as `verifyIcrc`.
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
