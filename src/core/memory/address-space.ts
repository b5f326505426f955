/*
 * Memory that calls and work requests name, of another process or of this one (docs/decisions/client-memory.md).
 *
 * A carrier brings one AddressSpace per calling process; registration checks pages with it, the data path copies with
 * it. Addresses are pairs of u32 (hi, lo), so that hot code needs no BigInt. Data is copied in strides, as in `Memory`
 * of transport/types.ts: `total` consecutive bytes of the space, and chunks of `chunk` bytes every `stride` bytes in
 * `to` or `from`.
 */

/** The local side of a copy; an Arena of wire/arena.ts is one. `address` is 0 if native code cannot reach it. */
export interface Bytes {
  readonly address: number
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** Copies within this process by address, in native code: many chunks with one call. */
export interface Copier {
  /** The address of a buffer, until it is transferred. */
  addressOf(bytes: Uint8Array): number
  /**
   * `total` bytes in pieces of `chunk`, the last one shorter if need be: those at `from` lie `fromStride` bytes apart,
   * those at `to` `toStride`.
   */
  copy(to: number, toStride: number, from: number, fromStride: number, chunk: number, total: number): void
}

export interface AddressSpace {
  /**
   * Whether `length` bytes from hi:lo on (an exact Number below 2^53) exist and can be read, and written if `writable`.
   * Called at registration; pages may be unmapped later, then `read` and `write` return EFAULT. Length 0 is always
   * true.
   */
  check(hi: number, lo: number, length: number, writable: boolean): boolean
  /** Awaited before a slow `check` of the same bytes; undefined: no need to wait. */
  prepareCheck?(hi: number, lo: number, length: number, writable: boolean): Promise<unknown> | undefined
  /**
   * Registers checked bytes; the returned function ends the registration. `isShared`: peers may write to it at any
   * time. `lost` is called once if the owner unmaps some of it: later accesses must not reach what is mapped there
   * afterwards. Throws CallError if the owner may not register so much.
   */
  hold?(hi: number, lo: number, length: number, isShared: boolean, lost: () => void): () => void
  /** Space → `to`. 0, or an errno, and the bytes are undefined: EFAULT, ESRCH if the owner has ended. */
  read(hi: number, lo: number, to: Bytes, at: number, chunk: number, stride: number, total: number): number
  /** `from` → space, ascending. Returns as `read`. */
  write(hi: number, lo: number, from: Bytes, at: number, chunk: number, stride: number, total: number): number
  /**
   * Memory that is a buffer of this process: the buffer with `length` bytes of it, and in `place[0]` their offset.
   * Undefined if they do not exist; absent: there is no such memory.
   */
  locate?(hi: number, lo: number, length: number, place: Float64Array): Bytes | undefined
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

/** A space where every address faults, for calls that core makes itself (destruction). */
export const noMemory: AddressSpace = {
  check: (_hi, _lo, length) => length === 0,
  read: () => 14,
  write: () => 14,
  compareSwap: () => 14,
  fetchAdd: () => 14,
}

/** Memory without storage: writes are lost, reads return zeros. */
export const nullMemory: AddressSpace = {
  check: () => true,
  read(_hi, _lo, { bytes }, at, chunk, stride, total) {
    for (let left = total, place = at; left > 0; left -= chunk, place += stride)
      bytes.fill(0, place, place + Math.min(chunk, left))
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
