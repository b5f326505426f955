/*
 * The invariant CRC at the end of every packet (InfiniBand Architecture Specification, clause 7.8.1; annex A17). Of
 * RoCEv2: CRC-32 over eight bytes of ones, the IP header, the UDP header and the UDP payload up to the ICRC. Fields
 * that may change in flight count as ones: TOS, TTL and header checksum (IPv4) or traffic class, flow label and hop
 * limit (IPv6), UDP checksum, and the byte of the BTH with FECN and BECN. On InfiniBand it covers the LRH with ones as
 * VL; or, if there is a GRH, ones in place of the LRH, and the GRH with ones as traffic class, flow label and hop
 * limit. RoCE v1 has the latter. The ICRC is stored little-endian.
 *
 * Only the UDP payload is read for each packet. A CRC is linear: if a byte at a known offset changes, the CRC changes
 * by a known value (exclusive or). A `Flow` therefore stores the CRC of its IP and UDP headers with lengths and
 * identification 0. Tables have the changes for the actual lengths and identification, and for the masked BTH byte.
 */

import type { PacketFlow } from '../../spec/wire/flow.ts'
import { ICRC_BYTES } from '../../spec/wire/headers.ts'
import { opcodeNumber } from '../../spec/wire/opcodes.ts'
import { isMappedIpv4, lidOf } from './address.ts'
import type { Arena } from './arena.ts'
import { BTH_BYTES } from './bth.ts'
import { batchCrcFor, crc32, crcBackward, crcForward, crcOfArena } from './crc.ts'
import { IPV4_BYTES, IPV6_BYTES, PROTOCOL_UDP, UDP_BYTES } from './ip.ts'
import { fabricHeaders, hasLids, LOCAL_AND_GLOBAL_BYTES, LRH_BYTES } from './lrh.ts'

/** The fields before the BTH that the ICRC covers and that all packets of a flow share. */
export interface FlowAddresses extends Pick<PacketFlow, 'sl' | 'grh'> {
  /** 4 bytes, or 16 bytes: IPv6, or IPv4 as ::ffff:a.b.c.d; or LIDs (address.ts), whose packets have no ports. */
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly sourcePort: number
  readonly destinationPort: number
  /** IPv4's DF bit; the default is true, as RoCEv2 senders set it. */
  readonly dontFragment?: boolean
}

export interface Flow {
  /** Of IP; LOCAL or GLOBAL on InfiniBand: LRH alone, or with GRH. */
  readonly version: 4 | 6 | typeof LOCAL | typeof GLOBAL
  /** CRC over eight bytes of ones and the masked headers, with lengths and identification 0. */
  readonly base: number
}

const LOCAL = 0
const GLOBAL = 1

/** Bytes of ones before the IP header. */
const ONES = 8
const { RC_FLUSH } = opcodeNumber

/**
 * By i: how the CRC of `size` bytes changes if the byte at `offset` changes by i (exclusive or of the changes by its
 * bits).
 */
const changeTable = (size: number, offset: number): Int32Array => {
  const table = new Int32Array(256)
  for (let bit = 1; bit < 256; bit *= 2) {
    let register = crcForward(bit)
    for (let at = offset + 1; at < size; at++) register = crcForward(register)
    for (let lower = 0; lower < bit; lower++) table[bit + lower] = register ^ table[lower]
  }
  return table
}

/** Bytes before the BTH that the ICRC covers: the ones, the IP header and the UDP header. */
const PREFIX4 = ONES + IPV4_BYTES + UDP_BYTES
const PREFIX6 = ONES + IPV6_BYTES + UDP_BYTES
// High and low byte of IPv4's total length and identification, and of the UDP length.
const total4Hi = changeTable(PREFIX4, ONES + 2)
const total4Lo = changeTable(PREFIX4, ONES + 3)
const id4Hi = changeTable(PREFIX4, ONES + 4)
const id4Lo = changeTable(PREFIX4, ONES + 5)
const udp4Hi = changeTable(PREFIX4, ONES + IPV4_BYTES + 4)
const udp4Lo = changeTable(PREFIX4, ONES + IPV4_BYTES + 5)
/** In IPv6, payload length and UDP length are the same number: one table per byte has the changes of both. */
const lengths6 = (byte: number): Int32Array => {
  const udpLength = changeTable(PREFIX6, ONES + IPV6_BYTES + byte)
  return changeTable(PREFIX6, ONES + byte).map((change, i) => change ^ udpLength[i])
}
const lengths6Hi = lengths6(4)
const lengths6Lo = lengths6(5)

// LRH.pktLen and GRH.PayLen.
const lrhHi = changeTable(LRH_BYTES, 4)
const lrhLo = changeTable(LRH_BYTES, 5)
const grhHi = changeTable(LOCAL_AND_GLOBAL_BYTES, LRH_BYTES + 4)
const grhLo = changeTable(LOCAL_AND_GLOBAL_BYTES, LRH_BYTES + 5)

/** By value of byte 4 of the BTH: the change of the CRC before the BTH that makes this byte count as ones. */
const maskBth = Int32Array.from({ length: 256 }, (_, byte) => {
  let register = crcForward(byte ^ 0xff)
  for (let at = 4; at >= 0; at--) register = crcBackward(register)
  return register
})

/** The 4 bytes of an IPv4 address; undefined for other addresses. */
const ipv4Of = (address: Uint8Array): Uint8Array | undefined => {
  if (address.length === 4) return address
  return isMappedIpv4(address) ? address.subarray(12) : undefined
}

/** Of a flow with LIDs, or of RoCE v1: the CRC with a GRH is the same, as ones stand for the LRH. */
const makeFabricFlow = ({ source, destination, sl, grh }: FlowAddresses): Flow => {
  const prefix = fabricHeaders(
    { source, destination, sourcePort: 0, trafficClass: 0xff, hopLimit: 0xff, flowLabel: 0xfffff, sl, grh },
    0,
  )
  if (grh === undefined) {
    prefix[0] |= 0xf0
    prefix[4] = prefix[5] = 0
  } else prefix.fill(0xff, 0, LRH_BYTES)
  return { version: grh === undefined ? LOCAL : GLOBAL, base: crc32(prefix) | 0 }
}

/** Throws a RangeError if the addresses are not both IPv4, both IPv6 or both LIDs, or a port is not from 0 to 65535. */
export const makeFlow = (addresses: FlowAddresses): Flow => {
  const { source, destination, sourcePort, destinationPort, dontFragment = true } = addresses
  for (const port of [sourcePort, destinationPort]) {
    if (!Number.isInteger(port) || port < 0 || port > 0xffff) {
      throw new RangeError(`a UDP port is an integer from 0 to 65535, not ${port}`)
    }
  }
  if (hasLids(addresses)) return makeFabricFlow(addresses)
  const source4 = ipv4Of(source)
  const destination4 = ipv4Of(destination)
  const isIpv4 = source4 !== undefined && destination4 !== undefined
  const isIpv6 = [source, destination].every(
    address => address.length === 16 && ipv4Of(address) === undefined && lidOf(address) < 0,
  )
  if (!isIpv4 && !isIpv6) {
    throw new RangeError(
      `a flow has two IPv4 addresses (4 bytes, or 16 as ::ffff:a.b.c.d) or two IPv6 addresses (16 bytes), or two LIDs, not [${source}] and [${destination}]`,
    )
  }
  if (addresses.grh !== undefined) return makeFabricFlow(addresses)
  const ip = ONES + (isIpv4 ? IPV4_BYTES : IPV6_BYTES)
  const prefix = new Uint8Array(isIpv4 ? PREFIX4 : PREFIX6).fill(0xff, 0, ONES)
  // Masked fields are ones; lengths and identification are 0.
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

/** The CRC before the BTH, for a UDP payload of `length` bytes. Includes the change that masks byte 4 of the BTH. */
const seedOf = (arena: Arena, offset: number, length: number, flow: Flow, identification: number): number => {
  const udp = length + UDP_BYTES
  const seed = flow.base ^ maskBth[arena.bytes[offset + 4]]
  if (flow.version === 6) return seed ^ lengths6Hi[udp >> 8] ^ lengths6Lo[udp & 255]
  if (flow.version === LOCAL) {
    const words = (length + LRH_BYTES) >> 2
    return seed ^ lrhHi[words >> 8] ^ lrhLo[words & 255]
  }
  if (flow.version === GLOBAL) return seed ^ grhHi[length >> 8] ^ grhLo[length & 255]
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
 * The ICRC of a packet at `offset` of an arena, as a signed 32-bit integer. `length`: bytes including the ICRC, 16 to
 * 65,507. `identification`: of the IPv4 header, modulo 65,536; ignored for IPv6.
 */
export const icrcOf = (arena: Arena, offset: number, length: number, flow: Flow, identification: number): number =>
  crcOfArena(arena, offset, length - ICRC_BYTES, seedOf(arena, offset, length, flow, identification))

/**
 * The ICRC of a FLUSH as Linux writes and expects it (rdma_rxe of 6.12): the CRC continues over BTH, FETH and RETH a
 * second time, unmasked. Arguments as for `icrcOf`.
 */
export const icrcOfFlush = (arena: Arena, offset: number, length: number, flow: Flow, identification: number): number =>
  crcOfArena(arena, offset, length - ICRC_BYTES, icrcOf(arena, offset, length, flow, identification))

const storeIcrc = (bytes: Uint8Array, at: number, icrc: number): void => {
  bytes[at] = icrc
  bytes[at + 1] = icrc >>> 8
  bytes[at + 2] = icrc >>> 16
  bytes[at + 3] = icrc >>> 24
}

const loadIcrc = (bytes: Uint8Array, at: number): number =>
  bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)

/**
 * Writes the ICRC into the last four bytes of the packet. A FLUSH gets rdma_rxe's ICRC, because rdma_rxe drops any
 * other (docs/reference/conformance.md). Arguments as for `icrcOf`.
 */
export const sealIcrc = (arena: Arena, offset: number, length: number, flow: Flow, identification: number): void => {
  const compute = arena.bytes[offset] === RC_FLUSH ? icrcOfFlush : icrcOf
  storeIcrc(arena.bytes, offset + length - ICRC_BYTES, compute(arena, offset, length, flow, identification))
}

/**
 * Writes the ICRCs of `count` contiguous packets of `length` bytes each, with consecutive identifications from
 * `identification` on. Other arguments as for `sealIcrc`.
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
  const batch = batchCrcFor(arena, covered, count)
  if (batch === undefined) {
    for (let i = 0, at = offset; i < count; i++, at += length) sealIcrc(arena, at, length, flow, identification + i)
    return
  }
  const { bytes } = arena
  const { registers } = batch
  for (let done = 0; done < count; done += registers.length) {
    const from = offset + done * length
    const packets = Math.min(registers.length, count - done)
    for (let i = 0, at = from; i < packets; i++, at += length)
      registers[i] = seedOf(arena, at, length, flow, identification + done + i)
    batch.crc(arena.address + from, covered, length, packets)
    for (let i = 0, at = from; i < packets; i++, at += length) {
      const icrc = registers[i]
      storeIcrc(bytes, at + covered, bytes[at] === RC_FLUSH ? crcOfArena(arena, at, covered, icrc) : icrc)
    }
  }
}

/**
 * The number of packets before the first one with a wrong ICRC; `count` if all are right. rdma_rxe's ICRC of a FLUSH
 * counts as wrong here. 0 if `length` is too short for a packet. Arguments as for `sealIcrcs`.
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
  const batch = batchCrcFor(arena, covered, count)
  const step = batch === undefined ? 1 : batch.registers.length
  for (let done = 0; done < count; done += step) {
    const from = offset + done * length
    const packets = Math.min(step, count - done)
    if (batch !== undefined) {
      for (let i = 0, at = from; i < packets; i++, at += length)
        batch.registers[i] = seedOf(arena, at, length, flow, identification + done + i)
      batch.crc(arena.address + from, covered, length, packets)
    }
    for (let i = 0, at = from + covered; i < packets; i++, at += length) {
      const icrc =
        batch === undefined ? icrcOf(arena, at - covered, length, flow, identification + done + i) : batch.registers[i]
      if (loadIcrc(bytes, at) !== icrc) return done + i
    }
  }
  return count
}

/**
 * Whether the packet has the right ICRC; a FLUSH may have rdma_rxe's. False if the packet is too short. Arguments as
 * for `icrcOf`.
 */
export const verifyIcrc = (
  arena: Arena,
  offset: number,
  length: number,
  flow: Flow,
  identification: number,
): boolean => {
  if (length < BTH_BYTES + ICRC_BYTES) return false
  const { bytes } = arena
  const found = loadIcrc(bytes, offset + length - ICRC_BYTES)
  const icrc = icrcOf(arena, offset, length, flow, identification)
  if (found === icrc) return true
  if (bytes[offset] !== RC_FLUSH) return false
  return found === crcOfArena(arena, offset, length - ICRC_BYTES, icrc)
}

/**
 * Table k undoes the effect of 2^k equal bytes on the difference of two CRC registers: entry 256 p + v is the earlier
 * difference for value v in byte p (0: lowest) of the later difference. Built on first use (68 KiB).
 */
let undoTables: Int32Array[] | undefined
/** Enough for 2^17 - 1 bytes. */
const UNDO_TABLES = 17

const applyUndo = (table: Int32Array, difference: number): number =>
  table[difference & 255] ^
  table[256 + ((difference >>> 8) & 255)] ^
  table[512 + ((difference >>> 16) & 255)] ^
  table[768 + (difference >>> 24)]

const makeUndoTables = (): Int32Array[] => {
  const singleByte = (i: number): number => (i & 255) << (8 * (i >> 8))
  const tables = [Int32Array.from({ length: 1024 }, (_, i) => crcBackward(singleByte(i)) ^ crcBackward(0))]
  while (tables.length < UNDO_TABLES) {
    const previous = tables[tables.length - 1]
    tables.push(previous.map(difference => applyUndo(previous, difference)))
  }
  return tables
}

/** The difference of two CRC registers before `count` equal bytes, if it is `difference` after them. */
const earlierDifference = (difference: number, count: number): number => {
  undoTables ??= makeUndoTables()
  let result = difference
  for (let k = 0, bits = count; bits > 0; k++, bits >>>= 1)
    if ((bits & 1) !== 0) result = applyUndo(undoTables[k], result)
  return result
}

/** Bytes from the start of the IPv4 identification to the BTH. */
const ID_TO_BTH = PREFIX4 - ONES - 4

/**
 * If two CRCs, `count` bytes after the start of the BTH, differ by `difference` only because their identifications
 * differ, returns the exclusive or of the identifications; otherwise -1.
 */
const identificationChange = (difference: number, count: number): number => {
  const change = earlierDifference(difference, count + ID_TO_BTH)
  return change >>> 16 === 0 ? ((change & 255) << 8) | (change >>> 8) : -1
}

/**
 * The IPv4 identification for which the packet's ICRC is right, for receivers that cannot see the IP header; -1: none.
 * `expected` is tried first. If it is wrong, the linearity of the CRC gives the only identification that can be right.
 * A corrupted packet therefore passes with probability 1 in 65,536 instead of 1 in 2^32. A FLUSH may have rdma_rxe's
 * ICRC. IPv6 has no identification: the result is `expected` or -1. Other arguments as for `verifyIcrc`.
 */
export const findIdentification = (
  arena: Arena,
  offset: number,
  length: number,
  flow: Flow,
  expected: number,
): number => {
  if (length < BTH_BYTES + ICRC_BYTES) return -1
  const covered = length - ICRC_BYTES
  const found = loadIcrc(arena.bytes, offset + covered)
  const icrc = icrcOf(arena, offset, length, flow, expected)
  if (found === icrc) return expected
  const isIpv4 = flow.version === 4
  const change = isIpv4 ? identificationChange(found ^ icrc, covered) : -1
  if (change >= 0) return expected ^ change
  if (arena.bytes[offset] !== RC_FLUSH) return -1
  const flushIcrc = crcOfArena(arena, offset, covered, icrc)
  if (found === flushIcrc) return expected
  const flushChange = isIpv4 ? identificationChange(found ^ flushIcrc, 2 * covered) : -1
  return flushChange < 0 ? -1 : expected ^ flushChange
}
