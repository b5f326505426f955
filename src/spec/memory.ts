/*
 * Arithmetic of pages and of 64-bit addresses in two 32-bit words, and copies of bytes.
 */

/** Bytes of a device page, as in rxe. The system's page size is `pageSize` of src/host/memory/mapping.ts. */
export const PAGE_BYTES = 4096

/** 2^32, the factor of the high word of an address. */
export const TWO_32 = 2 ** 32

/** The u64 of a high and a low word, each an i32 or a u32. */
export const joinWords = (hi: number, lo: number): bigint =>
  // Without a high word this allocates only one BigInt.
  hi === 0 ? BigInt(lo >>> 0) : (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)

/** `bytes` rounded up to whole pages. */
export const wholePages = (bytes: number, pageBytes = PAGE_BYTES): number => Math.ceil(bytes / pageBytes) * pageBytes

/** An address rounded down or up to a page boundary. */
export const pageBelow = (address: number, pageBytes = PAGE_BYTES): number => address - (address % pageBytes)
export const pageAbove = (address: number, pageBytes = PAGE_BYTES): number =>
  pageBelow(address + pageBytes - 1, pageBytes)

/** A u32 with its bytes reversed, for big-endian words in little-endian structs. */
export const swap32 = (word: number): number =>
  ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0

/** Bytes of the buffer that `smallBytes` divides. */
const SLAB_BYTES = 16384
let slab = new Uint8Array(0)
let slabUsed = 0

/**
 * Zeroed bytes for messages inside this process, at most SLAB_BYTES / 4. Many share a buffer: one of their own takes 1
 * µs and work of the garbage collector. So they must not get into the hands of a program.
 */
export const smallBytes = (length: number): Uint8Array<ArrayBuffer> => {
  if (slabUsed + length > slab.length) {
    slab = new Uint8Array(SLAB_BYTES)
    slabUsed = 0
  }
  const start = slabUsed
  slabUsed += (length + 7) & ~7
  return slab.subarray(start, start + length)
}

/**
 * A copy of bytes that a program or driver has passed. They may be a Buffer of Node.js, whose `slice` does not copy.
 */
export const copyOfBytes = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array(bytes)
