/*
 * The program's own pages that a context's device shares: queues, and doorbell records. libmlx5 puts many records into
 * one page, so a page is shared from its first record to its last one.
 */
import type { MappedChunk, PageWriter } from '../../core/memory/mappable-memory.ts'
import type { CallContext, Context } from '../../core/model.ts'
import { DoorbellRecord } from '../../spec/drivers/mlx5-queues.ts'
import { CallError } from '../../spec/errno.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'

/** Shares whole pages of the program. `writer`: as of `adopt`. Throws CallError EOPNOTSUPP, EINVAL, EFAULT, ENOMEM. */
export const share = ({ mapped }: Context, address: bigint, bytes: number, writer?: PageWriter): MappedChunk => {
  if (mapped?.adopt === undefined)
    throw new CallError('EOPNOTSUPP', 'the device cannot share pages of this program: start it with userdma run')
  return mapped.adopt(address, bytes, writer)
}

export const unshare = ({ mapped }: Context, chunk: MappedChunk): void => mapped?.free(chunk)

interface Page {
  readonly chunk: MappedChunk
  records: number
}

/** Shared pages with records, by address. */
const pagesOf = new WeakMap<Context, Map<bigint, Page>>()

/** The doorbell record of a queue: two counters that the program stores, big-endian. */
export class ProgramRecord {
  readonly #words: Int32Array
  readonly #at: number
  readonly #end: () => void

  /**
   * Shares the record at this address of the program, with the counters 0 and `second`, all of whose bytes are equal.
   * Throws CallError as `share`.
   */
  constructor({ caller, context }: CallContext, address: bigint, second = 0) {
    if (address % BigInt(DoorbellRecord.BYTES) !== 0n)
      throw new CallError('EINVAL', `the doorbell record at 0x${address.toString(16)} is not aligned to 8 bytes`)
    const offset = Number(address % BigInt(PAGE_BYTES))
    const start = address - BigInt(offset)
    // to the program, since its page is copied again when it is mapped
    caller.copyOut(address, new Uint8Array(DoorbellRecord.BYTES).fill(second, DoorbellRecord.ARM))
    const pages = pagesOf.get(context) ?? new Map<bigint, Page>()
    pagesOf.set(context, pages)
    const page = pages.get(start) ?? { chunk: share(context, start, PAGE_BYTES), records: 0 }
    page.records++
    pages.set(start, page)
    this.#words = page.chunk.words
    this.#at = (page.chunk.at + offset) >> 2
    this.#end = () => {
      if (--page.records > 0) return
      pages.delete(start)
      unshare(context, page.chunk)
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
    this.#end()
  }
}
