/*
 * The memory that calls and work requests refer to, of another process or of this one
 * (docs/decisions/client-memory.md).
 *
 * There is one AddressSpace per calling process, and one per region of kind FILE. Addresses are pairs of u32 (hi,
 * lo), so that hot code needs no BigInt. A copy is strided on the local side: `total` consecutive bytes of the space
 * correspond to chunks of `chunk` bytes that are `stride` bytes apart in `to` or `from`, the first at offset `at`.
 */
import { Errno } from '../../spec/errno.ts'

/** The local side of a copy. */
export interface Bytes {
  /** Address of the first byte in this process, for native code; 0: native code cannot access the bytes. */
  readonly address: number
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** Copies within this process by address, in native code. */
export interface Copier {
  /** The address of a buffer, valid until the buffer is transferred. */
  addressOf(bytes: Uint8Array): number
  /**
   * Copies `total` bytes in chunks of `chunk` bytes; the last chunk may be shorter. The chunks are `fromStride` bytes
   * apart at `from`, and `toStride` bytes apart at `to`.
   */
  copy(to: number, toStride: number, from: number, fromStride: number, chunk: number, total: number): void
}

export interface AddressSpace {
  /**
   * Whether the `length` bytes at hi:lo exist and are readable, and writable if `needsWrite`. `length`: below 2^53;
   * length 0 is always true. Called at registration. Pages may be unmapped later: then `read` and `write` return
   * EFAULT.
   */
  check(hi: number, lo: number, length: number, needsWrite: boolean): boolean
  /**
   * Does the long part of `check` of the same bytes in steps; to be awaited before `check`. Undefined: nothing to wait
   * for.
   */
  prepareCheck?(hi: number, lo: number, length: number, needsWrite: boolean): Promise<unknown> | undefined
  /**
   * Registers checked bytes; the returned function ends the registration. `onUnmapped` is called, at most once, if the
   * space learns that its owner has unmapped some of the bytes: later accesses must not reach memory that is mapped
   * there afterwards. Throws CallError if the owner may not register so many bytes.
   */
  register?(hi: number, lo: number, length: number, onUnmapped: () => void): () => void
  /**
   * Brings pages of checked bytes into memory, in steps. Undefined: nothing to wait for. Ends early if a page cannot be
   * read.
   */
  prefetch?(hi: number, lo: number, length: number): Promise<unknown> | undefined
  /** Number of pages that reads and writes have found missing so far; undefined: not counted. */
  readonly missingPages?: number | undefined
  /** Whether `read` and `write` also reach pages that are protected from the owner: only `check` finds out. */
  readonly ignoresProtection?: boolean
  /** Bytes of the pages of the mapping at an address: huge pages cannot be replaced in part. Undefined: unknown. */
  pageBytes?(hi: number, lo: number): number | undefined
  /** From now on peers may write to these bytes. Spaces of programs under Valgrind record it. */
  share?(hi: number, lo: number, length: number): void
  /** A peer will access these bytes at once. `access`: the REMOTE_… flag of the access; `qpn`: the responder's. */
  peerAccesses?(hi: number, lo: number, length: number, access: number, qpn: number): void
  /**
   * Copies from the space to `to`. Returns 0 or an errno: EFAULT, ESRCH if the owner of the space has ended, ETIMEDOUT
   * if the memory blocks for too long. After an error the bytes in `to` are undefined.
   */
  read(hi: number, lo: number, to: Bytes, at: number, chunk: number, stride: number, total: number): number
  /** Copies from `from` to the space, in ascending order if it is memory of another process. Returns as `read`. */
  write(hi: number, lo: number, from: Bytes, at: number, chunk: number, stride: number, total: number): number
  /**
   * For spaces of buffers of this process: returns the buffer of these bytes, and stores their offset there in
   * `location[0]`. Undefined: the bytes do not exist.
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

/** Every access faults: for callers without memory, and for regions whose memory was unmapped. */
export const noMemory: AddressSpace = {
  check: (_hi, _lo, length) => length === 0,
  read: () => Errno.EFAULT,
  write: () => Errno.EFAULT,
  compareSwap: () => Errno.EFAULT,
  fetchAdd: () => Errno.EFAULT,
}

/** Memory without storage, for regions of kind NULL: writes are dropped, reads return zeros. */
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
