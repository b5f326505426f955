/*
 * The program's own pages that a context's device shares: queues, and doorbell records. libmlx5 puts many records into one
 * page, and allocators of programs may put queues anywhere, so whole pages are shared from the first thing in them to the
 * last one.
 */
import type { MappedChunk, PageWriter } from '../../core/memory/mappable-memory.ts'
import { RangeList } from '../../core/memory/range-list.ts'
import type { CallContext } from '../../core/model.ts'
import { BLOCK_BYTES, DoorbellRecord } from '../../spec/drivers/mlx5-queues.ts'
import { CallError } from '../../spec/errno.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'
import { contextOf, type Extent, type Extents } from './context.ts'

/** Largest pages that are replaced: a copy of larger ones would make other programs wait. */
const MAX_PAGE_BYTES = 2 ** 21

/** A part of shared pages. */
export interface SharedPart extends MappedChunk {
  readonly extent: Extent
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
    throw new CallError('EOPNOTSUPP', 'the device cannot share pages of this program: start it with userdma run')
  const chunk = mapped.adopt(BigInt(start), end - start, writer)
  const extent = { others, context, start, end, chunk, uses: 0 }
  others.add(extent)
  return extent
}

/**
 * Shares `bytes` bytes of the calling program, and what else is in their pages. `alignment` of the address, bytes; `writer`: as
 * of `MappedMemory.adopt`, of `device` only whole pages. Throws CallError EOPNOTSUPP, EINVAL (also if only a part of the pages is
 * shared already), EFAULT, ENOMEM.
 */
export const share = (
  call: CallContext,
  address: bigint,
  bytes: number,
  { alignment = BLOCK_BYTES, writer }: { readonly alignment?: number; readonly writer?: PageWriter } = {},
): SharedPart => {
  const { caller } = call
  const range = `${bytes} bytes at 0x${address.toString(16)}`
  if (address % BigInt(alignment) !== 0n)
    throw new CallError('EINVAL', `${range} are not aligned to ${alignment} bytes`)
  // of memory with huge pages only whole ones can be replaced
  const pageBytes = caller.memory.pageBytes?.(Number(address >> 32n), Number(address & 0xffff_ffffn)) ?? PAGE_BYTES
  if (pageBytes > MAX_PAGE_BYTES)
    throw new CallError('EINVAL', `${range} have pages of ${pageBytes} bytes; at most ${MAX_PAGE_BYTES} can be shared`)
  const page = BigInt(pageBytes)
  const first = Number(address - (address % page))
  const behind = address + BigInt(bytes) + page - 1n
  const last = Number(behind - (behind % page))
  const extents = knownExtents(call)
  const found = extents.at(first)
  const known = found !== undefined && last <= found.end ? found : undefined
  if (known === undefined && writer === 'device' && last - first !== bytes)
    throw new CallError('EINVAL', `${range} are not whole pages of ${page}`)
  const extent = known ?? adopt(call, extents, first, last, writer)
  extent.uses++
  return { ...extent.chunk, at: extent.chunk.at + Number(address - BigInt(extent.start)), extent }
}

/** Ends a `share`. To be called once. */
export const unshare = ({ extent }: SharedPart): void => {
  if (--extent.uses > 0) return
  extent.others.remove(extent)
  extent.context.mapped?.free(extent.chunk)
}

/** The doorbell record of a queue: two counters that the program stores, big-endian. */
export class ProgramRecord {
  readonly #part: SharedPart
  readonly #words: Int32Array
  readonly #at: number

  /**
   * Shares the record at this address of the program, with the counters 0 and `second`, all of whose bytes are equal.
   * Throws CallError as `share`.
   */
  constructor(call: CallContext, address: bigint, second = 0) {
    this.#part = share(call, address, DoorbellRecord.BYTES, { alignment: DoorbellRecord.BYTES })
    this.#words = this.#part.words
    this.#at = this.#part.at >> 2
    const counters = new Uint8Array(DoorbellRecord.BYTES).fill(second, DoorbellRecord.ARM)
    this.#part.bytes.set(counters, this.#part.at)
    try {
      // to the program, too, since its page is copied again when it is mapped; only now is it known to be writable
      call.caller.copyOut(address, counters)
    } catch (error) {
      unshare(this.#part)
      throw error
    }
  }

  /** The counter at byte 0 or 4. */
  load(at: number): number {
    const word = Atomics.load(this.#words, this.#at + (at >> 2))
    return ((word & 0xff) << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)
  }

  /** Stores `word`, all of whose bytes are equal, unless the program has stored something else than `seen`. */
  replace(at: number, seen: number, word: number): void {
    const swapped = ((seen & 0xff) << 24) | ((seen & 0xff00) << 8) | ((seen >>> 8) & 0xff00) | (seen >>> 24)
    Atomics.compareExchange(this.#words, this.#at + (at >> 2), swapped, word)
  }

  /** The queue is destroyed. */
  end(): void {
    unshare(this.#part)
  }
}
