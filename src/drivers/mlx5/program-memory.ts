/*
 * The program's own pages that a context's device shares: queues, and doorbell records. libmlx5 puts many records into
 * one page, and allocators of programs may put queues anywhere, so whole pages are shared from the first thing in them
 * to the last one. A queue that begins in the last page of another one, say, has a view of its own, in which that page
 * and its others are neighbours as in the program.
 */
import type { AddressSpace } from '../../core/memory/address-space.ts'
import { type MappedChunk, PagesTakenError, type PageWriter } from '../../core/memory/mappable-memory.ts'
import { RangeList } from '../../core/memory/range-list.ts'
import type { CallContext } from '../../core/model.ts'
import { type Arena, mapArena } from '../../host/memory/mapping.ts'
import { BLOCK_BYTES, DoorbellRecord } from '../../spec/drivers/mlx5-queues.ts'
import { callError } from '../../spec/errno.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'
import { contextOf, type Extent, type Extents } from './context.ts'

/** Largest pages that are replaced: a copy of larger ones would make other programs wait. */
const MAX_PAGE_BYTES = 2 ** 21

/** A part of shared pages. */
export interface SharedPart extends MappedChunk {
  /** In the order of their addresses. */
  readonly extents: readonly Extent[]
  /** Of several extents. */
  readonly joined?: MappedChunk
}

const knownExtents = ({ context, caller }: CallContext): Extents => {
  const state = contextOf(context)
  state.extents ??= new Map()
  const pid = caller.process?.pid
  const known: Extents = state.extents.get(pid) ?? new RangeList()
  state.extents.set(pid, known)
  return known
}

/** Shares new pages. Throws CallError as `share`. */
const adopt = ({ context }: CallContext, others: Extents, start: number, end: number, writer?: PageWriter): Extent => {
  const { mapped } = context
  if (mapped?.adopt === undefined)
    throw callError.EOPNOTSUPP`the device cannot share pages of this program: start it with userdma run`
  const chunk = mapped.adopt(BigInt(start), end - start, writer)
  const extent = { others, context, start, end, chunk, uses: 0 }
  others.add(extent)
  return extent
}

/** Of the memory at an address, bytes. Throws CallError EINVAL if they are too large. */
const pageBytesAt = ({ caller }: CallContext, address: bigint): number => {
  // of memory with huge pages only whole ones can be replaced
  const bytes = caller.memory.pageBytes?.(Number(address >> 32n), Number(address & 0xffff_ffffn)) ?? PAGE_BYTES
  if (bytes > MAX_PAGE_BYTES)
    throw callError.EINVAL`the memory at 0x${address.toString(16)} has pages of ${bytes} bytes; at most ${MAX_PAGE_BYTES} can be shared`
  return bytes
}

const release = (extents: readonly Extent[]): void => {
  for (const extent of extents)
    if (--extent.uses === 0) {
      extent.others.remove(extent)
      extent.context.mapped?.free(extent.chunk)
    }
}

/**
 * One view of pages from `start` to `end`, of which `known` are shared already, by address. Throws CallError as
 * `share`.
 */
const join = (call: CallContext, start: number, end: number, known: readonly Extent[]): SharedPart => {
  const others = knownExtents(call)
  const extents: Extent[] = []
  const use = (extent: Extent): void => {
    extent.uses++
    extents.push(extent)
  }
  try {
    let at = start
    for (const extent of known) {
      if (at < extent.start) use(adopt(call, others, at, extent.start))
      use(extent)
      at = extent.end
    }
    if (at < end) {
      const page = pageBytesAt(call, BigInt(at))
      use(adopt(call, others, at, Math.ceil(end / page) * page))
    }
    const joined = call.context.mapped!.join!(
      extents.map(({ start: from, end: to, chunk }) => {
        const first = Math.max(from, start)
        return { offset: chunk.offset + first - from, length: Math.min(to, end) - first }
      }),
    )
    return { ...joined, extents, joined }
  } catch (error) {
    release(extents)
    throw error
  }
}

/**
 * Shares `bytes` bytes of the calling program, and what else is in their pages. `alignment` of the address, bytes;
 * `writer`: as of `MappedMemory.adopt`, of `device` only whole pages of which none is shared by others. Throws
 * CallError EOPNOTSUPP, EINVAL, EFAULT, ENOMEM.
 */
export const share = (
  call: CallContext,
  address: bigint,
  bytes: number,
  { alignment = BLOCK_BYTES, writer }: { readonly alignment?: number; readonly writer?: PageWriter } = {},
): SharedPart => {
  const range = `${bytes} bytes at 0x${address.toString(16)}`
  if (address % BigInt(alignment) !== 0n) throw callError.EINVAL`${range} are not aligned to ${alignment} bytes`
  const page = BigInt(pageBytesAt(call, address))
  const first = Number(address - (address % page))
  const behind = address + BigInt(bytes) + page - 1n
  const last = Number(behind - (behind % page))
  const extents = knownExtents(call)
  const within = Number(address) - first
  const known = extents.overlapping(first, last)
  const covering = known.length === 1 && known[0]!.start <= first && last <= known[0]!.end ? known[0] : undefined
  if (covering === undefined && writer === 'device' && last - first !== bytes)
    throw callError.EINVAL`${range} are not whole pages of ${page}`
  if (covering === undefined && known.length > 0) {
    if (writer === 'device') throw callError.EINVAL`a part of ${range} is shared with the device already`
    const part = join(call, first, last, known)
    return { ...part, at: part.at + within }
  }
  const extent = covering ?? adopt(call, extents, first, last, writer)
  extent.uses++
  return { ...extent.chunk, at: extent.chunk.at + Number(address - BigInt(extent.start)), extents: [extent] }
}

/** Ends a `share`. To be called once. */
export const unshare = ({ extents, joined }: SharedPart): void => {
  if (joined !== undefined) extents[0]!.context.mapped?.free(joined)
  release(extents)
}

/** The other end of its bytes: records are big-endian. */
const swap = (word: number): number =>
  ((word & 0xff) << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)

/**
 * A record in a page that another context of the same process shares with its device, as programs' own allocators may
 * put it: each load is a copy from the program. Only firmware commands place records so; libmlx5 has pages for each
 * context.
 */
class DistantRecord {
  readonly #memory: AddressSpace
  readonly #hi: number
  readonly #lo: number
  /** The last counters, if the program has unmapped the record. */
  readonly #last = new Int32Array(DoorbellRecord.BYTES / 4)
  /** A word that was replaced, and what stands for it: a store to the program's memory could overwrite a new one. */
  #replaced: number | undefined
  #word = 0

  constructor({ caller }: CallContext, address: bigint, counters: Uint8Array) {
    this.#memory = caller.memory
    this.#hi = Number(address >> 32n)
    this.#lo = Number(address & 0xffff_ffffn)
    caller.copyOut(address, counters)
  }

  load(at: number): number {
    const words = scratch()
    const index = at >> 2
    if (this.#memory.read(this.#hi, this.#lo + at, words, 0, 4, 4, 4) === 0) this.#last[index] = words.view.getInt32(0)
    const word = this.#last[index]!
    return at === DoorbellRecord.ARM && word === this.#replaced ? this.#word : word
  }

  replace(seen: number, word: number): void {
    this.#replaced = seen | 0
    this.#word = word | 0
  }

  clear(at: number): void {
    const words = scratch()
    words.view.setInt32(0, 0)
    this.#memory.write(this.#hi, this.#lo + at, words, 0, 4, 4, 4)
    this.#last[at >> 2] = 0
  }
}

let scratchArena: Arena | undefined
const scratch = (): Arena => {
  scratchArena ??= mapArena(PAGE_BYTES)
  return scratchArena
}

/** The doorbell record of a queue: two counters that the program stores, big-endian. */
export class ProgramRecord {
  readonly #part: SharedPart | undefined
  readonly #distant: DistantRecord | undefined
  readonly #words: Int32Array
  readonly #at: number

  /**
   * Shares the record at this address of the program, with the counters 0 and `second`, all of whose bytes are equal.
   * Throws CallError as `share`.
   */
  constructor(call: CallContext, address: bigint, second = 0) {
    const counters = new Uint8Array(DoorbellRecord.BYTES).fill(second, DoorbellRecord.ARM)
    const part = shareRecord(call, address)
    this.#part = part
    this.#words = part?.words ?? noWords
    this.#at = (part?.at ?? 0) >> 2
    if (part === undefined) {
      this.#distant = new DistantRecord(call, address, counters)
      return
    }
    part.bytes.set(counters, part.at)
    try {
      // to the program, too, since its page is copied again when it is mapped; only now is it known to be writable
      call.caller.copyOut(address, counters)
    } catch (error) {
      unshare(part)
      throw error
    }
  }

  /** The counter at byte 0 or 4. */
  load(at: number): number {
    if (this.#distant !== undefined) return this.#distant.load(at)
    return swap(Atomics.load(this.#words, this.#at + (at >> 2)))
  }

  /** Stores `word`, all of whose bytes are equal, unless the program has stored something else than `seen`. */
  replace(at: number, seen: number, word: number): void {
    if (this.#distant !== undefined) this.#distant.replace(seen, word)
    else Atomics.compareExchange(this.#words, this.#at + (at >> 2), swap(seen), word)
  }

  /** Stores 0, while the program waits for a call that ends with this counter at 0. */
  clear(at: number): void {
    if (this.#distant !== undefined) this.#distant.clear(at)
    else Atomics.store(this.#words, this.#at + (at >> 2), 0)
  }

  /** The queue is destroyed. */
  end(): void {
    if (this.#part !== undefined) unshare(this.#part)
  }
}

const noWords = new Int32Array(0)

/** Undefined: its page is shared by another context. Throws CallError as `share`. */
const shareRecord = (call: CallContext, address: bigint): SharedPart | undefined => {
  try {
    return share(call, address, DoorbellRecord.BYTES, { alignment: DoorbellRecord.BYTES })
  } catch (error) {
    if (error instanceof PagesTakenError) return undefined
    throw error
  }
}
