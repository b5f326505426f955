/*
 * CRC-32 of Ethernet and zlib (polynomial 0x04C11DB7, reflected), the arithmetic under the ICRC of RoCEv2: the fastest
 * way for each length. Short buffers go through a table, sixteen bytes a step, where a call out of JavaScript would
 * cost more than the work; longer ones to zlib; and from an engine's own least length on to that engine, if one was put
 * in with `useCrcEngine` and the arena has an address (docs/decisions/native-code.md). Whoever has native code puts it
 * in: this file knows none.
 */
import { crc32 as zlibCrc32 } from 'node:zlib'
import { type Arena, arenaOver } from './arena.ts'

/** A way to compute CRCs by address, as native code does. */
export interface CrcEngine {
  /** For statistics and benchmarks. */
  readonly name: string
  /** The shortest buffer, in bytes, for which a call of `crc` beats the table; 96 where it says nothing. */
  readonly minLength?: number
  /** CRC of `length` bytes at `address`, going on from `seed` as zlib's crc32 does (0 to begin): 0 to 2^32-1. */
  crc(address: number, length: number, seed: number): number
  /** The same for many buffers with one call; absent if there is nothing to gain. */
  readonly each?: EachCrc
}

export interface EachCrc {
  /** What the CRC of buffer i goes on from when `crc` is called, and afterwards that CRC. At least 64. */
  readonly registers: Int32Array
  /** Of `count` buffers, at most as many as there are registers, of `length` bytes each, `stride` bytes apart. */
  crc(address: number, length: number, stride: number, count: number): void
}

/** Below this many bytes the table beats zlib, a view included. A browser has no zlib. */
const TABLE_BELOW = typeof zlibCrc32 === 'function' ? 256 : Number.POSITIVE_INFINITY
const ENGINE_FROM = 96

/** Row t: what a byte does to the register when t more bytes come after it. */
const table = new Int32Array(16 * 256)
for (let byte = 0; byte < 256; byte++) {
  let r = byte
  for (let bit = 0; bit < 8; bit++) r = (r >>> 1) ^ (r & 1 ? 0xedb8_8320 : 0)
  table[byte] = r
}
for (let i = 256; i < table.length; i++) table[i] = table[table[i - 256] & 255] ^ (table[i - 256] >>> 8)

/** By table alone; same arguments and, as a signed 32-bit integer, same answer as `crcOfArena`. */
export const crcByTable = (bytes: Uint8Array, offset: number, length: number, seed: number): number => {
  const t = table
  const end = offset + length
  let at = offset
  let r = ~seed
  for (; at + 16 <= end; at += 16) {
    r =
      t[3840 + ((r ^ bytes[at]) & 255)] ^
      t[3584 + (((r >>> 8) ^ bytes[at + 1]) & 255)] ^
      t[3328 + (((r >>> 16) ^ bytes[at + 2]) & 255)] ^
      t[3072 + ((r >>> 24) ^ bytes[at + 3])] ^
      t[2816 + bytes[at + 4]] ^
      t[2560 + bytes[at + 5]] ^
      t[2304 + bytes[at + 6]] ^
      t[2048 + bytes[at + 7]] ^
      t[1792 + bytes[at + 8]] ^
      t[1536 + bytes[at + 9]] ^
      t[1280 + bytes[at + 10]] ^
      t[1024 + bytes[at + 11]] ^
      t[768 + bytes[at + 12]] ^
      t[512 + bytes[at + 13]] ^
      t[256 + bytes[at + 14]] ^
      t[bytes[at + 15]]
  }
  for (; at + 4 <= end; at += 4) {
    r =
      t[768 + ((r ^ bytes[at]) & 255)] ^
      t[512 + (((r >>> 8) ^ bytes[at + 1]) & 255)] ^
      t[256 + (((r >>> 16) ^ bytes[at + 2]) & 255)] ^
      t[(r >>> 24) ^ bytes[at + 3]]
  }
  for (; at < end; at++) r = t[(r ^ bytes[at]) & 255] ^ (r >>> 8)
  return ~r
}

let engine: CrcEngine | undefined
let engineFrom = Number.POSITIVE_INFINITY

/**
 * CRC of `length` bytes at `offset` of an arena, going on from `seed` (any 32-bit integer; 0 to begin), as a signed
 * 32-bit integer: `>>> 0` gives the number that others print. Signed, because a larger number would be an allocation.
 */
export const crcOfArena = (arena: Arena, offset: number, length: number, seed: number): number => {
  if (length >= engineFrom && arena.address !== 0) return engine!.crc(arena.address + offset, length, seed >>> 0) | 0
  if (length < TABLE_BELOW) return crcByTable(arena.bytes, offset, length, seed)
  return zlibCrc32(arena.bytes.subarray(offset, offset + length), seed >>> 0) | 0
}

/**
 * What makes the CRCs of `count` buffers of `length` bytes in this arena with one call, if that is there and worth it:
 * together they may be as short as one that is.
 */
export const eachCrcFor = (arena: Arena, length: number, count: number): EachCrc | undefined =>
  count > 1 && length * count >= engineFrom && arena.address !== 0 ? engine!.each : undefined

/** CRC-32 of bytes as zlib has it, 0 to 2^32-1, going on from `seed`. */
export const crc32 = (bytes: Uint8Array, seed = 0): number => crcOfArena(arenaOver(bytes), 0, bytes.length, seed) >>> 0

/** One step of the register for a byte of zero, and the same backwards: the ICRC's short cuts are made of these. */
export const crcForward = (register: number): number => (register >>> 8) ^ table[register & 255]

const byTopByte = new Uint8Array(256)
for (let byte = 0; byte < 256; byte++) byTopByte[table[byte] >>> 24] = byte

export const crcBackward = (register: number): number => {
  const byte = byTopByte[register >>> 24]
  return ((register ^ table[byte]) << 8) | byte
}

/** The name of what serves long buffers of arenas with an address: an engine's, or "zlib". */
export const crcEngineName = (): string => engine?.name ?? 'zlib'

/**
 * Puts an engine in, or with undefined takes it out. `scratch` is an arena with an address, of at least 1 KiB, whose
 * bytes are overwritten: the engine must give known answers there first. Throws an Error, and changes nothing, if it
 * does not.
 */
export const useCrcEngine = (next: CrcEngine | undefined, scratch?: Arena): void => {
  if (next !== undefined) {
    if (scratch === undefined || scratch.address === 0 || scratch.bytes.length < 1024) {
      throw new Error(`CRC engine ${next.name}: its check needs an arena of at least 1024 bytes that has an address`)
    }
    checkEngine(next, scratch)
  }
  engine = next
  engineFrom = next === undefined ? Number.POSITIVE_INFINITY : (next.minLength ?? ENGINE_FROM)
}

/**
 * Compares with the check value of CRC-32 (that of the digits 1 to 9), then with the table at all lengths and
 * alignments that matter.
 */
const checkEngine = (next: CrcEngine, { address, bytes }: Arena): void => {
  const expect = (offset: number, length: number, seed: number, wanted: number): void => {
    const got = next.crc(address + offset, length, seed)
    if (got !== wanted) {
      const hex = (value: number): string => `0x${value.toString(16)}`
      throw new Error(
        `CRC engine ${next.name} is wrong: ${length} bytes from seed ${hex(seed)} gave ${hex(got)}, not ${hex(wanted)}`,
      )
    }
  }
  for (let i = 0; i < 9; i++) bytes[i] = 0x31 + i
  expect(0, 9, 0, 0xcbf4_3926)
  let r = 1
  for (let i = 0; i < 1024; i++) {
    r = Math.imul(r, 1_664_525) + 1_013_904_223
    bytes[i] = r >>> 24
  }
  for (let length = 0; length <= 1000; length = length < 300 ? length + 1 : length + 100) {
    const offset = length % 17
    const seed = Math.imul(length, 0x9e37_79b1) >>> 0
    expect(offset, length, seed, crcByTable(bytes, offset, length, seed) >>> 0)
  }
  checkEach(next, address)
}

/** The many at once must be what they are one by one. */
const checkEach = (next: CrcEngine, address: number): void => {
  const { name, each } = next
  if (each === undefined) return
  const [length, stride, count] = [300, 10, 64]
  for (let i = 0; i < count; i++) each.registers[i] = i * 0x0101_0101
  each.crc(address, length, stride, count)
  for (let i = 0; i < count; i++)
    if (each.registers[i] >>> 0 !== next.crc(address + i * stride, length, (i * 0x0101_0101) >>> 0))
      throw new Error(
        `CRC engine ${name} is wrong: of ${count} buffers with one call number ${i} is not what it is alone`,
      )
}
