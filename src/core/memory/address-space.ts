/*
 * Memory to which calls and work requests refer, of another process or of this one (docs/decisions/client-memory.md).
 *
 * A carrier provides one AddressSpace per calling process, and one per registered file; registration checks pages with
 * it, the data path copies with it. Addresses are pairs of u32 (hi, lo), so that hot code needs no BigInt. A copy is
 * strided on the local side, as in `Memory` of transport/types.ts: `total` consecutive bytes of the space correspond to
 * chunks of `chunk` bytes that lie `stride` bytes apart in `to` or `from`, the first at offset `at`.
 */
import { Errno } from '../../spec/errno.ts'

/** The local side of a copy, for example an Arena of wire/arena.ts. */
export interface Bytes {
  /** Address of the first byte in this process, for native code; 0 if it cannot access the bytes. */
  readonly address: number
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** Copies within this process by address, in native code: many chunks with one call. */
export interface Copier {
  /** The address of a buffer in this process, valid until the buffer is transferred. */
  addressOf(bytes: Uint8Array): number
  /**
   * Copies `total` bytes in chunks of `chunk`, of which the last may be shorter; they are `fromStride` bytes apart at
   * `from`, and `toStride` at `to`.
   */
  copy(to: number, toStride: number, from: number, fromStride: number, chunk: number, total: number): void
}

export interface AddressSpace {
  /**
   * Whether the `length` bytes at hi:lo (`length` below 2^53) exist and are readable, and writable if `needsWrite`.
   * Called at registration; pages may be unmapped later, and then `read` and `write` return EFAULT. Length 0 is always
   * true.
   */
  check(hi: number, lo: number, length: number, needsWrite: boolean): boolean
  /** A promise to await before `check` of the same bytes, if `check` would block for long; undefined otherwise. */
  prepareCheck?(hi: number, lo: number, length: number, needsWrite: boolean): Promise<unknown> | undefined
  /**
   * Registers checked bytes; the returned function ends the registration. `onUnmapped` is called, at most once, if the
   * space learns that its owner has unmapped some of them: later accesses must not reach memory that is mapped there
   * afterwards. Throws CallError if the owner may not register so many bytes.
   */
  register?(hi: number, lo: number, length: number, onUnmapped: () => void): () => void
  /** From now on peers may write to these bytes at any time. */
  share?(hi: number, lo: number, length: number): void
  /**
   * Copies from the space to `to`. Returns 0 or an errno: EFAULT, ESRCH if the owner of the space has ended, ETIMEDOUT
   * if its memory blocks for too long. After an error the bytes in `to` are undefined.
   */
  read(hi: number, lo: number, to: Bytes, at: number, chunk: number, stride: number, total: number): number
  /** Copies from `from` to the space, in ascending order. Returns as `read`. */
  write(hi: number, lo: number, from: Bytes, at: number, chunk: number, stride: number, total: number): number
  /**
   * For spaces that consist of buffers of this process: returns the buffer of these bytes, and stores their offset
   * there in `location[0]`; undefined if they do not exist.
   */
  locate?(hi: number, lo: number, length: number, location: Float64Array): Bytes | undefined
  /**
   * Compare and swap of 8 bytes in host byte order, atomic among users of this interface; `original` gets (lo, hi).
   * Returns as `read`.
   */
  compareSwap(
    hi: number,
    lo: number,
    compareHi: number,
    compareLo: number,
    swapHi: number,
    swapLo: number,
    original: Uint32Array,
  ): number
  /** Fetch and add of 8 bytes, modulo 2^64; otherwise as compareSwap. */
  fetchAdd(hi: number, lo: number, addHi: number, addLo: number, original: Uint32Array): number
}

/** A space in which every access faults: for callers without memory, and for regions that the program has unmapped. */
export const noMemory: AddressSpace = {
  check: (_hi, _lo, length) => length === 0,
  read: () => Errno.EFAULT,
  write: () => Errno.EFAULT,
  compareSwap: () => Errno.EFAULT,
  fetchAdd: () => Errno.EFAULT,
}

/** Memory without storage: writes are dropped, reads return zeros. */
export const nullMemory: AddressSpace = {
  check: () => true,
  read(_hi, _lo, { bytes }, at, chunk, stride, total) {
    for (let remaining = total, offset = at; remaining > 0; remaining -= chunk, offset += stride)
      bytes.fill(0, offset, offset + Math.min(chunk, remaining))
    return 0
  },
  write: () => 0,
  compareSwap: (_hi, _lo, _compareHi, _compareLo, _swapHi, _swapLo, original) => {
    original.fill(0, 0, 2)
    return 0
  },
  fetchAdd: (_hi, _lo, _addHi, _addLo, original) => {
    original.fill(0, 0, 2)
    return 0
  },
}
