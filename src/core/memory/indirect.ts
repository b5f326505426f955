/*
 * The memory of an indirect key: a list of ranges of other keys of the protection domain, one behind the other (mlx5:
 * KLM and KSM). The list may repeat, each time with its ranges a stride further. An address in it is the offset from
 * the key's first address. The other keys are looked up at each access, so one that has ended fails the access; and
 * they may be indirect, too, up to MAX_DEPTH. The key's own rights are checked as for any key; of the others only
 * LOCAL_WRITE counts, for writes.
 */
import { AccessFlags } from '../../spec/enums.ts'
import { Errno } from '../../spec/errno.ts'
import { TWO_32 } from '../../spec/memory.ts'
import type { AddressSpace, Bytes } from './address-space.ts'
import { addressHi, addressLo, findKey, type MemoryTable, resolve } from './region-table.ts'

/** A range of another key. `length`: bytes, from 1. `stride`: bytes by which a repetition is further; default 0. */
export interface IndirectEntry {
  readonly key: number
  readonly address: bigint
  readonly length: number
  readonly stride?: number
}

/** Of a key whose ranges work requests set: at most so many, and whether peers may invalidate it. */
export interface Configurable {
  readonly maxEntries: number
  readonly isRevocable: boolean
  /** Bytes of each range; undefined: each range has its own. */
  entityBytes?: number | undefined
}

/** Keys over keys over keys: a loop ends here. */
const MAX_DEPTH = 4
/** A key is scattered if PROBE_BYTES may reach more ranges than that: each costs a copy of its own. */
const MANY_RANGES = 1024
const PROBE_BYTES = 0x1_0000
const { LOCAL_WRITE } = AccessFlags.values
/** No queue pair: windows of type 2 are no ranges of an indirect key. */
const NO_QP = -1

/** An access to a part of a copy; the arguments are those of AddressSpace.read, without the buffer. */
type Access = (
  space: AddressSpace,
  hi: number,
  lo: number,
  at: number,
  chunk: number,
  stride: number,
  total: number,
) => number

/** Number of indirect keys of the access in progress. */
let depth = 0
/** Of the access in progress: ranges that it may still reach. */
let rangesLeft = Number.POSITIVE_INFINITY

export class IndirectSpace implements AddressSpace {
  readonly #table: MemoryTable
  readonly #pd: number
  /** Undefined: the ranges stay as they are. */
  readonly configurable: Configurable | undefined
  #keys!: Uint32Array
  #hi!: Uint32Array
  #lo!: Uint32Array
  #strides!: Uint32Array
  /** Offsets of the ranges, and at last the end of the list. */
  #starts!: Float64Array
  /** Bytes of all repetitions. */
  length = 0
  /** Ranges that an access may reach, those of inner keys too. */
  readonly maxRanges: number = Number.POSITIVE_INFINITY
  #hasManyRanges = false
  #isRestricted = false
  /** Counted in `MemoryTable.scattered`. */
  #isScattered = false

  /** Of protection domain `pd`. */
  constructor(
    table: MemoryTable,
    pd: number,
    entries: readonly IndirectEntry[],
    configurable?: Configurable,
    repeats = 1,
  ) {
    this.#table = table
    this.#pd = pd
    this.configurable = configurable
    this.configure(entries, repeats)
  }

  /** Sets the ranges, `repeats` times one behind the other. No ranges: no access succeeds. */
  configure(entries: readonly IndirectEntry[], repeats: number): void {
    this.#keys = Uint32Array.from(entries, ({ key }) => key)
    this.#hi = Uint32Array.from(entries, ({ address }) => Number(address >> 32n))
    this.#lo = Uint32Array.from(entries, ({ address }) => Number(address & 0xffff_ffffn))
    this.#strides = Uint32Array.from(entries, ({ stride = 0 }) => stride)
    this.#starts = new Float64Array(entries.length + 1)
    for (const [i, { length }] of entries.entries()) this.#starts[i + 1] = this.#starts[i]! + length
    this.length = this.#starts[entries.length]! * repeats
    const list = this.#starts[entries.length]!
    const reached = entries.length * (repeats === 1 ? 1 : 1 + Math.ceil(PROBE_BYTES / list))
    this.#hasManyRanges = Math.min(reached, this.length) > MANY_RANGES || entries.some(({ key }) => !this.#isPlain(key))
    this.#setScattered(this.#hasManyRanges || this.#isRestricted)
  }

  /** Whether accesses take long whatever the ranges are, so that other keys may have no ranges of this one. */
  protected restrict(isRestricted: boolean): void {
    this.#isRestricted = isRestricted
    this.#setScattered(this.#hasManyRanges || isRestricted)
  }

  /** The ranges, one behind the other, with their repetitions; at most `most`. */
  ranges(most: number): { readonly key: number; readonly address: number; readonly length: number }[] {
    const count = this.#keys.length
    const list = this.#starts[count]!
    const all = list === 0 ? 0 : Math.round(this.length / list) * count
    return Array.from({ length: Math.min(all, most) }, (_, i) => {
      const index = i % count
      const address = this.#hi[index]! * TWO_32 + this.#lo[index]! + Math.floor(i / count) * this.#strides[index]!
      return { key: this.#keys[index]!, address, length: this.#starts[index + 1]! - this.#starts[index]! }
    })
  }

  /** The key has ended. */
  end(): void {
    this.#setScattered(false)
  }

  /** Whether a key is one of memory. Others may be over short ranges, now or later. */
  #isPlain(key: number): boolean {
    const row = findKey(this.#table, key)
    return row >= 0 && !(this.#table.spaces[this.#table.space[row]!] instanceof IndirectSpace)
  }

  static #refuses(space: AddressSpace): boolean {
    return space instanceof IndirectSpace && space.#isRestricted
  }

  #setScattered(isScattered: boolean): void {
    if (this.#isScattered === isScattered) return
    this.#isScattered = isScattered
    const { scattered } = this.#table
    const count = (scattered.get(this.#pd) ?? 0) + (isScattered ? 1 : -1)
    if (count === 0) scattered.delete(this.#pd)
    else scattered.set(this.#pd, count)
  }

  /** Memory of the arrays. */
  static bytesFor(entries: number): number {
    return entries * 24 + 512
  }

  check(hi: number, lo: number, length: number): boolean {
    return hi * TWO_32 + lo + length <= this.length
  }

  read(hi: number, lo: number, to: Bytes, at: number, chunk: number, stride: number, total: number): number {
    return this.#copy(hi, lo, 0, at, chunk, stride, total, (space, rowHi, rowLo, offset, bytes, step, count) =>
      space.read(rowHi, rowLo, to, offset, bytes, step, count),
    )
  }

  write(hi: number, lo: number, from: Bytes, at: number, chunk: number, stride: number, total: number): number {
    return this.#copy(
      hi,
      lo,
      LOCAL_WRITE,
      at,
      chunk,
      stride,
      total,
      (space, rowHi, rowLo, offset, bytes, step, count) => space.write(rowHi, rowLo, from, offset, bytes, step, count),
    )
  }

  compareSwap(
    hi: number,
    lo: number,
    compareHi: number,
    compareLo: number,
    swapHi: number,
    swapLo: number,
    original: Uint32Array,
  ): number {
    return this.#copy(hi, lo, LOCAL_WRITE, 0, 8, 8, 8, (space, rowHi, rowLo, _offset, _bytes, _step, count) =>
      count < 8 ? Errno.EFAULT : space.compareSwap(rowHi, rowLo, compareHi, compareLo, swapHi, swapLo, original),
    )
  }

  fetchAdd(hi: number, lo: number, addHi: number, addLo: number, original: Uint32Array): number {
    return this.#copy(hi, lo, LOCAL_WRITE, 0, 8, 8, 8, (space, rowHi, rowLo, _offset, _bytes, _step, count) =>
      count < 8 ? Errno.EFAULT : space.fetchAdd(rowHi, rowLo, addHi, addLo, original),
    )
  }

  /** The last range that begins at or before an offset. */
  #indexOf(offset: number): number {
    let low = 0
    let high = this.#keys.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.#starts[middle]! <= offset) low = middle
      else high = middle - 1
    }
    return low
  }

  /**
   * Calls `access` for each part of the copy (AddressSpace.read) that is in one range and has equal chunks. Stops with
   * the first errno.
   */
  #copy(
    hi: number,
    lo: number,
    rights: number,
    at: number,
    chunk: number,
    stride: number,
    total: number,
    access: Access,
  ): number {
    const start = hi * TWO_32 + (lo >>> 0)
    if (depth === MAX_DEPTH || start + total > this.length) return Errno.EFAULT
    if (depth === 0) rangesLeft = this.maxRanges
    depth++
    try {
      const list = this.#starts[this.#keys.length]!
      for (let done = 0; done < total; ) {
        const repetition = Math.floor((start + done) / list)
        const offset = start + done - repetition * list
        const index = this.#indexOf(offset)
        const inChunk = done % chunk
        const inRange = Math.min(this.#starts[index + 1]! - offset, total - done)
        // to the end of a chunk that was begun, otherwise whole chunks
        const count =
          inChunk > 0 || inRange < chunk
            ? Math.min(inRange, chunk - inChunk)
            : inRange === total - done
              ? inRange
              : inRange - (inRange % chunk)
        const errno = this.#accessRange(
          index,
          offset - this.#starts[index]! + repetition * this.#strides[index]!,
          rights,
          count,
          at + Math.floor(done / chunk) * stride + inChunk,
          Math.min(chunk, count),
          stride,
          access,
        )
        if (errno !== 0) return errno
        done += count
      }
      return 0
    } finally {
      depth--
    }
  }

  #accessRange(
    index: number,
    offset: number,
    rights: number,
    count: number,
    at: number,
    chunk: number,
    stride: number,
    access: Access,
  ): number {
    const table = this.#table
    table.rangeAccesses++
    const low = this.#lo[index]! + offset
    const rangeLo = low % TWO_32
    const rangeHi = (this.#hi[index]! + Math.floor(low / TWO_32)) >>> 0
    const row = resolve(table, this.#pd, this.#keys[index]!, rangeHi, rangeLo, count, rights, NO_QP)
    const space = row < 0 ? undefined : table.spaces[table.space[row]!]
    if (space === undefined || rangesLeft-- <= 0 || IndirectSpace.#refuses(space)) return Errno.EFAULT
    const { watched, qpn } = table.accessor
    const hi = addressHi(table, row, rangeHi, rangeLo)
    const lo = addressLo(table, row, rangeLo)
    if (watched !== 0) {
      table.accessWatch?.(this.#keys[index]!, rangeHi, rangeLo, count, watched, qpn)
      space.peerAccesses?.(hi, lo, count, watched, qpn)
    }
    return access(space, hi, lo, at, chunk, stride, count)
  }
}
