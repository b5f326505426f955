/*
 * The receive queues of one context (`ctx_context`), in memory that the client maps and may corrupt
 * (spec/drivers/ctx.ts has the layout): headers, one for each message; eager buffers, for short messages; expected
 * buffers, for long messages. The client announces an expected buffer with `expect`.
 *
 * The device keeps its own counts and sizes. If a count of the client is impossible, the queue counts as full and
 * messages as unread. The bytes of a message are written before HEADER_PRODUCER, which publishes them.
 */
import type { MappedChunk, MappedMemory } from '../../core/index.ts'
import { CTX_HEADER_BYTES, CtxHeader, type CtxInfo, CtxKind, CtxWord } from '../../spec/drivers/ctx.ts'
import { callError } from '../../spec/errno.ts'
import { PAGE_BYTES, wholePages } from '../../spec/memory.ts'
import { the } from '../../spec/reason.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'

export interface QueueSizes {
  readonly eagerCount: number
  readonly eagerBytes: number
  readonly expectedCount: number
  readonly expectedBytes: number
}

export interface Queues {
  readonly sizes: QueueSizes
  readonly chunk: MappedChunk
  readonly headerCount: number
  /** Offsets of the three queues from the start of `chunk`. */
  readonly headersAt: number
  readonly eagerAt: number
  readonly expectedAt: number
  /** Number of messages since creation or reset, modulo 2^32. */
  produced: number
  /** Number of eager messages since creation or reset, modulo 2^32. */
  producedEager: number
  /** By expected buffer: the length of the announced message; 0: none. */
  readonly announcedBytes: Uint32Array
  /** By expected buffer: the sum of the lengths of the fragments that have arrived, also if they overlap. */
  readonly arrivedBytes: Uint32Array
}

const isPowerOfTwo = (n: number): boolean => n > 0 && (n & (n - 1)) === 0

/**
 * Allocates the queues of a context. Throws CallError EINVAL if `eagerCount` is not a power of two, ENOMEM if there is
 * no memory.
 */
export const createQueues = (memory: MappedMemory, sizes: QueueSizes): Queues => {
  const { eagerCount, eagerBytes, expectedCount, expectedBytes } = sizes
  if (!isPowerOfTwo(eagerCount))
    throw callError.EINVAL`${the.method('ctx_context.create')}: eagerCount ${eagerCount} is not a power of two`
  const headerCount = 2 ** Math.ceil(Math.log2(eagerCount + expectedCount))
  const headersAt = PAGE_BYTES
  const eagerAt = headersAt + wholePages(headerCount * CTX_HEADER_BYTES)
  const expectedAt = eagerAt + wholePages(eagerCount * eagerBytes)
  return {
    sizes,
    chunk: memory.allocate(expectedAt + wholePages(expectedCount * expectedBytes)),
    headerCount,
    headersAt,
    eagerAt,
    expectedAt,
    produced: 0,
    producedEager: 0,
    announcedBytes: new Uint32Array(expectedCount),
    arrivedBytes: new Uint32Array(expectedCount),
  }
}

/** Sizes and offsets with which the client maps and finds the queues. */
export const offsetsOf = (
  queues: Queues,
): Omit<RecordOf<typeof CtxInfo>, 'number' | 'jobKey' | 'isReceiving' | keyof QueueSizes> => {
  const { chunk, headerCount, headersAt, eagerAt, expectedAt } = queues
  return { headerCount, headersAt, eagerAt, expectedAt, bytes: chunk.length, offset: BigInt(chunk.offset) }
}

/** Index in `chunk.words` of a word of the first page (`CtxWord`). */
const wordIndex = ({ chunk }: Queues, word: number): number => (chunk.at >> 2) + word
const countOf = (queues: Queues, word: number): number =>
  Atomics.load(queues.chunk.words, wordIndex(queues, word)) >>> 0

/** Number of free entries of a queue of `length` entries; 0 if the client's count `consumed` is impossible. */
const freeEntries = (length: number, produced: number, consumed: number): number => {
  const used = (produced - consumed) >>> 0
  return used > length ? 0 : length - used
}

/** Whether the client has unread messages; true if the client's count is impossible. */
export const hasUnread = (queues: Queues): boolean => countOf(queues, CtxWord.HEADER_CONSUMER) !== queues.produced

/** Empties all queues: sets the counts of device and client to 0, and forgets the announced buffers. */
export const resetQueues = (queues: Queues): void => {
  queues.produced = 0
  queues.producedEager = 0
  queues.announcedBytes.fill(0)
  for (const word of Object.values(CtxWord)) Atomics.store(queues.chunk.words, wordIndex(queues, word), 0)
}

const refuseFull = (reason: string): never => {
  throw callError.EAGAIN`${the.method('ctx_context.send')}: ${reason}`
}

const requireHeader = (queues: Queues): void => {
  if (freeEntries(queues.headerCount, queues.produced, countOf(queues, CtxWord.HEADER_CONSUMER)) === 0)
    refuseFull('the receiver has no free header')
}

const putHeader = (queues: Queues, kind: number, source: number, length: number, slot: number, tag: bigint): void => {
  const { chunk, headersAt, headerCount } = queues
  const { view } = chunk
  const at = chunk.at + headersAt + (queues.produced & (headerCount - 1)) * CTX_HEADER_BYTES
  view.setUint32(at + CtxHeader.kind.offset, kind, true)
  view.setUint32(at + CtxHeader.source.offset, source, true)
  view.setUint32(at + CtxHeader.length.offset, length, true)
  view.setUint32(at + CtxHeader.slot.offset, slot, true)
  view.setBigUint64(at + CtxHeader.tag.offset, tag, true)
  view.setUint32(at + CtxHeader.sequence.offset, queues.produced, true)
  queues.produced = (queues.produced + 1) >>> 0
  Atomics.store(chunk.words, wordIndex(queues, CtxWord.HEADER_PRODUCER), queues.produced)
}

/** Writes a message into the next eager buffer. */
export const putEager = (queues: Queues, source: number, tag: bigint, data: Uint8Array): void => {
  const { sizes, chunk, eagerAt, producedEager } = queues
  if (data.length > sizes.eagerBytes)
    throw callError.EMSGSIZE`${the.method('ctx_context.send')}: ${data.length} bytes, an eager buffer has ${sizes.eagerBytes}`
  requireHeader(queues)
  if (freeEntries(sizes.eagerCount, producedEager, countOf(queues, CtxWord.EAGER_CONSUMER)) === 0)
    refuseFull('all eager buffers of the receiver are full')
  const slot = producedEager & (sizes.eagerCount - 1)
  chunk.bytes.set(data, chunk.at + eagerAt + slot * sizes.eagerBytes)
  queues.producedEager = (producedEager + 1) >>> 0
  putHeader(queues, CtxKind.values.EAGER, source, data.length, slot, tag)
}

/** The client announces the expected buffer `slot` for a message of `length` bytes. */
export const announce = (queues: Queues, slot: number, length: number): void => {
  const { sizes, announcedBytes, arrivedBytes } = queues
  const method = 'ctx_context.expect:'
  if (slot >= sizes.expectedCount)
    throw callError.EINVAL`${method} slot ${slot}: there are ${sizes.expectedCount} expected buffers`
  if (length > sizes.expectedBytes)
    throw callError.EMSGSIZE`${method} ${length} bytes, an expected buffer has ${sizes.expectedBytes}`
  if (announcedBytes[slot] !== 0) throw callError.EBUSY`${method} slot ${slot} waits for its message`
  announcedBytes[slot] = length
  arrivedBytes[slot] = 0
}

/** Writes a fragment of an expected message; the last one adds a header. True if the message is complete. */
export const putExpected = (
  queues: Queues,
  source: number,
  tag: bigint,
  slot: number,
  offset: number,
  data: Uint8Array,
): boolean => {
  const { sizes, chunk, expectedAt, announcedBytes, arrivedBytes } = queues
  const length = slot < sizes.expectedCount ? announcedBytes[slot] : 0
  if (length === 0)
    throw callError.EINVAL`${the.method('ctx_context.send')}: the receiver has announced no buffer in slot ${slot}`
  if (offset + data.length > length)
    throw callError.EINVAL`${the.method('ctx_context.send')}: bytes ${offset} to ${offset + data.length} of ${length}`
  const isLast = arrivedBytes[slot] + data.length >= length
  if (isLast) requireHeader(queues)
  chunk.bytes.set(data, chunk.at + expectedAt + slot * sizes.expectedBytes + offset)
  arrivedBytes[slot] += data.length
  if (!isLast) return false
  announcedBytes[slot] = 0
  putHeader(queues, CtxKind.values.EXPECTED, source, length, slot, tag)
  return true
}
