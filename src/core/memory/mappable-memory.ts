/*
 * Memory that a context's client can map (R28): rings, queues, and other memory that a driver shares. For another
 * process it is a memory file whose descriptor the client has, in this process ordinary memory.
 */
import { CallError } from '../../spec/errno.ts'
import { wholePages } from '../../spec/memory.ts'

/** A range of mapped memory: `length` bytes from byte `at` of `bytes`, `view` and `words`. */
export interface MappedChunk {
  /** The offset at which the client maps the range. */
  readonly offset: number
  /** Number of bytes that may be mapped, a multiple of the page size. */
  readonly length: number
  readonly at: number
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: Int32Array
}

/**
 * What the client does with a range. doorbells: it stores to the range without a call afterwards, and the store must
 * wake a sleeping device.
 */
export type RangeUse = 'rings' | 'doorbells'

/**
 * A page from which the client reads a clock without a call, in units of the driver. While the device is awake, the
 * owner of the memory calls `tick` at each turn; a read while the device sleeps wakes it.
 */
export interface ClockPage {
  /** Stores the time. */
  readonly tick: () => void
  /** Whether the client can read the page: otherwise a read waits for `tick`. */
  isReadable: boolean
}

/** A 32-bit word of memory that a client shares. */
export interface SharedWord {
  readonly words: Int32Array
  /** Index in `words`. */
  readonly at: number
}

/** See `MappedMemory.adopt`. */
export type PageWriter = 'program' | 'device'

/** `MappedMemory.adopt` refuses pages that another context of the caller's process shares. */
export class PagesTakenError extends CallError {}

export interface MappedMemory {
  /**
   * Defined if the client can map part of a range. A driver may then put many rings into one range, and sets `count` to
   * the number of all its rings in this memory.
   */
  readonly packed?: { count: number } | undefined
  /** Zeroed memory, rounded up to pages. `use`: default rings. Throws CallError ENOMEM if the context has no more. */
  allocate(bytes: number, use?: RangeUse): MappedChunk
  free(chunk: MappedChunk): void
  /**
   * How often the client maps this range of doorbells, each time at another address; before, once. A store at any of
   * these addresses wakes the device. Absent: the memory need not know.
   */
  expectMappings?(doorbells: MappedChunk, count: number): void
  /**
   * Zeroed memory that the client maps at an offset of its provider's making: number `page`, in pages. The driver keeps
   * the numbers apart, from 1 on. Throws CallError ENOMEM, also beyond the numbers. Absent: not for clients of this
   * memory.
   */
  allocateAt?(page: number, bytes: number): MappedChunk
  /** The client reads a clock from this page of `allocateAt`. At most one of a context. */
  readClock?(chunk: MappedChunk, tick: () => void): ClockPage
  /**
   * Shares pages of the program that makes the present call: queues and doorbell records that its provider has
   * allocated itself. When the call returns, the program has the chunk mapped over its pages, with their content, until
   * `free`: then the pages are ordinary memory of the program again, with the content of the chunk. Only during a call,
   * before the handler waits. If the call fails, the driver frees the chunk, and the program learns nothing.
   *
   * `writer`: who may store to the pages before the program has mapped the chunk. With `program`, other threads of it
   * may, and the device writes to the chunk only when the call has ended: then it has the content, and one of at most 1
   * MiB before. With `device`, the device may, and the chunk is zero: what the program has stored there is lost.
   * Default program.
   *
   * `address`, `bytes`: whole pages. Throws CallError: EINVAL for other ranges, those that overlap shared pages, and
   * more than SessionLimits.mappings in one call; EFAULT if the pages are not private writable memory of the program;
   * ENOMEM beyond the account; EOPNOTSUPP if the program cannot share them. Absent: no client of this memory can.
   */
  adopt?(address: bigint, bytes: number, writer?: PageWriter): MappedChunk
  /**
   * A second view of ranges of `adopt` or parts of them, whole pages, one behind the other: of pages that are
   * neighbours in the program. To be freed before them. Throws CallError ENOMEM. Present with `adopt`.
   */
  join?(parts: readonly Pick<MappedChunk, 'offset' | 'length'>[]): MappedChunk
  /** Whether the present call has adopted memory that the program does not map yet. */
  readonly isAdopting?: boolean
  /**
   * The word by which the client arms the CQ with this handle (ArmWords in spec/context-logs.ts). Undefined, also if
   * absent: only calls arm it.
   */
  armWord?(handle: number): SharedWord | undefined
  /** The device is being removed: memory freed later stays mapped for the client until the context closes. */
  keepMapped?(): void
  /**
   * For `userdma check`: the number, modulo 2^32, of completions that polls have returned to the client, by the handle
   * of the CQ (TakenCounts in spec/session.ts). Absent: unknown.
   */
  takenCompletions?(handle: number): number
  /**
   * For `userdma check`: the program's wr_id of the request at `index` of a queue, as PositionLog in
   * spec/context-logs.ts. Undefined, also if absent: unknown.
   */
  postedWrId?(queue: number, number: number, index: number): bigint | undefined
}

const createChunk = (bytes: number, offset: number): MappedChunk => {
  const length = wholePages(bytes)
  const buffer = new ArrayBuffer(length)
  return {
    offset,
    length,
    at: 0,
    bytes: new Uint8Array(buffer),
    view: new DataView(buffer),
    words: new Int32Array(buffer),
  }
}

/** Memory of callers in this process: one buffer per range, always at offset 0. */
export const bufferMemory = (): MappedMemory => ({
  allocate: bytes => createChunk(bytes, 0),
  free() {},
})

/** As `bufferMemory`, but with different offsets, for callers that find their rings by offset. */
export interface FindableMemory extends MappedMemory {
  /** Throws an Error if there is no range at the offset. */
  at(offset: bigint): MappedChunk
}

export const findableMemory = (): FindableMemory => {
  const chunks = new Map<number, MappedChunk>()
  let nextOffset = 0
  return {
    allocate(bytes) {
      const chunk = createChunk(bytes, nextOffset)
      chunks.set(nextOffset, chunk)
      nextOffset += chunk.length
      return chunk
    },
    free({ offset }) {
      chunks.delete(offset)
    },
    at(offset) {
      const chunk = chunks.get(Number(offset))
      if (chunk === undefined) throw new Error(`there is no ring at offset ${offset}`)
      return chunk
    },
  }
}

const processMemory = bufferMemory()

/** The memory that the context's client can map; ordinary memory if `mapped` is undefined. */
export const mappedMemoryOf = (context: { readonly mapped: MappedMemory | undefined }): MappedMemory =>
  context.mapped ?? processMemory
