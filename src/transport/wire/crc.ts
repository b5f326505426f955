/*
 * The CRC-32 of Ethernet and zlib (polynomial 0x04C11DB7, reflected), the base of RoCEv2's ICRC. Short buffers use a
 * table, because a call out of JavaScript takes longer. Long buffers use zlib, or native code if `useCrcEngine` has
 * installed it and the arena has an address (docs/decisions/native-code.md). This file must not import native code.
 */
import { crc32 as zlibCrc32 } from 'node:zlib'
import { type Arena, arenaOver } from './arena.ts'

/** An implementation in native code. */
export interface CrcEngine {
  /** For error messages and benchmarks. */
  readonly name: string
  /** The shortest buffer, in bytes, for which `crc` is faster than the table; 96 if absent. */
  readonly minLength?: number
  /** CRC of `length` bytes at `address`, 0 to 2^32-1, continued from `seed` as by zlib's crc32 (0 to start). */
  crc(address: number, length: number, seed: number): number
  /** Computes the CRCs of many buffers with one call; absent if that is not faster. */
  readonly batch?: BatchCrc
}

interface BatchCrc {
  /** At least 64 entries. Before the call, entry i is the seed of buffer i; after the call, its CRC. */
  readonly registers: Int32Array
  /**
   * Computes the CRCs of `count` buffers of `length` bytes each, one every `stride` bytes from `address` on. `count` is
   * at most the number of registers.
   */
  crc(address: number, length: number, stride: number, count: number): void
}

/** Shorter buffers use the table: zlib needs a new view. */
const ZLIB_MIN_LENGTH = 256
/** Default of `CrcEngine.minLength`. */
const ENGINE_MIN_LENGTH = 96

/** 16 rows of 256 entries. Row n: the change of the register by a byte with n bytes after it. */
const table = new Int32Array(16 * 256)
for (let byte = 0; byte < 256; byte++) {
  let r = byte
  for (let bit = 0; bit < 8; bit++) r = (r >>> 1) ^ (r & 1 ? 0xedb8_8320 : 0)
  table[byte] = r
}
for (let i = 256; i < table.length; i++) table[i] = table[table[i - 256] & 255] ^ (table[i - 256] >>> 8)

/** `crcOfArena` with the table only. */
export const crcByTable = (bytes: Uint8Array, offset: number, length: number, seed: number): number => {
  const t = table
  const end = offset + length
  let at = offset
  let r = ~seed
  // Byte i of 16 has 15 - i bytes after it, so it uses row 15 - i (256 entries each).
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
let engineMinLength = Number.POSITIVE_INFINITY

/**
 * CRC of `length` bytes at `offset` of an arena, continued from `seed` (any 32-bit integer; 0 to start). The result is
 * a signed 32-bit integer, because V8 would allocate an object for a larger number.
 */
export const crcOfArena = (arena: Arena, offset: number, length: number, seed: number): number => {
  if (length >= engineMinLength && arena.address !== 0)
    return engine!.crc(arena.address + offset, length, seed >>> 0) | 0
  // Browsers have no zlib. It is not read while modules load: Node.js would load it with its streams.
  if (length < ZLIB_MIN_LENGTH || typeof zlibCrc32 !== 'function') return crcByTable(arena.bytes, offset, length, seed)
  return zlibCrc32(arena.bytes.subarray(offset, offset + length), seed >>> 0) | 0
}

/**
 * The installed engine's `batch` for `count` buffers of `length` bytes in this arena. Undefined if there is none, if
 * the arena has no address, or if single calls are faster.
 */
export const batchCrcFor = (arena: Arena, length: number, count: number): BatchCrc | undefined =>
  count > 1 && length * count >= engineMinLength && arena.address !== 0 ? engine!.batch : undefined

/** CRC-32 of bytes as zlib computes it, 0 to 2^32-1, continued from `seed`. */
export const crc32 = (bytes: Uint8Array, seed = 0): number => crcOfArena(arenaOver(bytes), 0, bytes.length, seed) >>> 0

/** One step of the CRC register for a zero byte; `crcBackward` is its inverse. */
export const crcForward = (register: number): number => (register >>> 8) ^ table[register & 255]

/** By top byte of an entry in the table's first row: the index of the entry. All these top bytes differ. */
const byteByTopByte = new Uint8Array(256)
for (let byte = 0; byte < 256; byte++) byteByTopByte[table[byte] >>> 24] = byte

export const crcBackward = (register: number): number => {
  const byte = byteByTopByte[register >>> 24]
  return ((register ^ table[byte]) << 8) | byte
}

/** The implementation for long buffers of arenas with an address: the engine's name, or "zlib". */
export const crcEngineName = (): string => engine?.name ?? 'zlib'

/**
 * Installs an engine; undefined removes it. The engine is first checked with known CRCs of bytes in `scratch`, an arena
 * with an address and at least 1 KiB, which is overwritten. Throws an Error, and installs nothing, if a CRC is wrong or
 * `scratch` is unsuitable.
 */
export const useCrcEngine = (next: CrcEngine | undefined, scratch?: Arena): void => {
  if (next !== undefined) {
    if (scratch === undefined || scratch.address === 0 || scratch.bytes.length < 1024) {
      throw new Error(`CRC engine ${next.name}: its check needs an arena of at least 1024 bytes that has an address`)
    }
    checkEngine(next, scratch)
  }
  engine = next
  engineMinLength = next === undefined ? Number.POSITIVE_INFINITY : (next.minLength ?? ENGINE_MIN_LENGTH)
}

/**
 * Compares an engine with the check value of CRC-32 (the CRC of the text 123456789), then with the table at many
 * lengths and alignments.
 */
const checkEngine = (next: CrcEngine, { address, bytes }: Arena): void => {
  const check = (offset: number, length: number, seed: number, expected: number): void => {
    const crc = next.crc(address + offset, length, seed)
    if (crc !== expected) {
      const hex = (value: number): string => `0x${value.toString(16)}`
      throw new Error(
        `CRC engine ${next.name} is wrong: ${length} bytes from seed ${hex(seed)} gave ${hex(crc)}, not ${hex(expected)}`,
      )
    }
  }
  for (let i = 0; i < 9; i++) bytes[i] = 0x31 + i
  check(0, 9, 0, 0xcbf4_3926)
  // Pseudo-random bytes by a linear congruential generator.
  let random = 1
  for (let i = 0; i < 1024; i++) {
    random = Math.imul(random, 1_664_525) + 1_013_904_223
    bytes[i] = random >>> 24
  }
  for (let length = 0; length <= 1000; length = length < 300 ? length + 1 : length + 100) {
    const offset = length % 17
    const seed = Math.imul(length, 0x9e37_79b1) >>> 0
    check(offset, length, seed, crcByTable(bytes, offset, length, seed) >>> 0)
  }
  checkBatch(next, address)
}

const checkBatch = (next: CrcEngine, address: number): void => {
  const { name, batch } = next
  if (batch === undefined) return
  const [length, stride, count] = [300, 10, 64]
  for (let i = 0; i < count; i++) batch.registers[i] = i * 0x0101_0101
  batch.crc(address, length, stride, count)
  for (let i = 0; i < count; i++)
    if (batch.registers[i] >>> 0 !== next.crc(address + i * stride, length, (i * 0x0101_0101) >>> 0))
      throw new Error(
        `CRC engine ${name} is wrong: in one call for ${count} buffers, buffer ${i} has another CRC than in a call of its own`,
      )
}
