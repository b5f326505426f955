/*
 * Memory that calls and work requests point into, behind one interface (docs/decisions/client-memory.md): another
 * process's memory, or buffers of this process.
 *
 * A carrier brings one AddressSpace per calling process; registration asks it whether pages exist and permit the
 * access, the data path moves bytes with it. Addresses are pairs of u32 (hi, lo), so that hot code needs no BigInt.
 * Data moves in strided pieces, as `Memory` of transport/types.ts has it: `total` consecutive bytes of the space
 * against pieces of `chunk` bytes that start every `stride` bytes in `to` or `from`. Which regions are registered is
 * region-table.ts' business, not known here.
 */

/** Bytes on this side of a move; an Arena of wire/arena.ts is one. `address` is 0 if native code cannot reach them. */
export interface Bytes {
  readonly address: number
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** Moves bytes of this process by address, as native code does: many pieces with one call. */
export interface Copier {
  /** Where the bytes of a buffer lie, until it is transferred elsewhere. */
  addressOf(bytes: Uint8Array): number
  /**
   * `total` bytes in pieces of `chunk`, the last one shorter if need be: those at `from` lie `fromStride` bytes apart,
   * those at `to` `toStride`.
   */
  copy(to: number, toStride: number, from: number, fromStride: number, chunk: number, total: number): void
}

export interface AddressSpace {
  /**
   * Whether `length` bytes from hi:lo on (an exact Number below 2^53) exist, may be read, and written too if
   * `writable`. Called when memory is registered; pages may still go away later, then `read` and `write` answer EFAULT.
   * Length 0 is always true.
   */
  check(hi: number, lo: number, length: number, writable: boolean): boolean
  /** What to wait for before `check` of the same bytes, which is long work otherwise; undefined: nothing. */
  survey?(hi: number, lo: number, length: number, writable: boolean): Promise<unknown> | undefined
  /**
   * A region of these bytes, which were checked, begins; the answer is called when it ends. `isShared`: peers may write
   * to it at any time. `lost` is called once if its owner unmaps some of it before: then no access may reach what lies
   * there later. Throws CallError if the owner may not register so much.
   */
  hold?(hi: number, lo: number, length: number, isShared: boolean, lost: () => void): () => void
  /** Space → `to`. 0, or an errno after which nothing is known of the bytes moved: EFAULT, ESRCH if the owner ended. */
  read(hi: number, lo: number, to: Bytes, at: number, chunk: number, stride: number, total: number): number
  /** `from` → space, ascending. Returns as `read`. */
  write(hi: number, lo: number, from: Bytes, at: number, chunk: number, stride: number, total: number): number
  /**
   * Memory of this process that is an ordinary buffer: what holds `length` bytes, and in `place[0]` where they begin in
   * it. Undefined if they are not there; no such method: none is of that kind.
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

/** The memory of nobody: every address faults. Calls that core makes itself (destruction) have it. */
export const noMemory: AddressSpace = {
  check: (_hi, _lo, length) => length === 0,
  read: () => 14,
  write: () => 14,
  compareSwap: () => 14,
  fetchAdd: () => 14,
}

/** Memory that is not there: what is written is lost, what is read is zero. */
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
