/*
 * The queues of one context, in memory that its client shares and may corrupt (spec/drivers/ctx.ts has the layout).
 *
 * The device keeps its own counts and sizes, reads the client's counts only to compute the free room, and treats an
 * impossible count as a full queue. Bytes of a message are written before the count that announces them.
 */
import type { MappedChunk, MappedMemory } from '../../core/index.ts'
import { CTX_HEADER_BYTES, CtxHeader, type CtxInfo, CtxKind, CtxWord } from '../../spec/drivers/ctx.ts'
import { CallError } from '../../spec/errno.ts'
import { PAGE_BYTES, wholePages } from '../../spec/memory.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'

export interface Shape {
  readonly eagerCount: number
  readonly eagerBytes: number
  readonly expectedCount: number
  readonly expectedBytes: number
}

export interface Queues {
  readonly shape: Shape
  readonly piece: MappedChunk
  readonly headerCount: number
  readonly headersAt: number
  readonly eagerAt: number
  readonly expectedAt: number
  /** Messages so far, and the eager ones among them, modulo 2^32. */
  produced: number
  eager: number
  /** By expected buffer: bytes announced (0: none), and how many of them were written. */
  readonly announced: Uint32Array
  readonly arrived: Uint32Array
}

const isPowerOfTwo = (n: number): boolean => n > 0 && (n & (n - 1)) === 0

export const createQueues = (memory: MappedMemory, shape: Shape): Queues => {
  const { eagerCount, eagerBytes, expectedCount, expectedBytes } = shape
  if (!isPowerOfTwo(eagerCount))
    throw new CallError('EINVAL', `ctx_context.create: eagerCount ${eagerCount} is not a power of two`)
  const headerCount = 2 ** Math.ceil(Math.log2(eagerCount + expectedCount))
  const headersAt = PAGE_BYTES
  const eagerAt = headersAt + wholePages(headerCount * CTX_HEADER_BYTES)
  const expectedAt = eagerAt + wholePages(eagerCount * eagerBytes)
  return {
    shape,
    piece: memory.allocate(expectedAt + wholePages(expectedCount * expectedBytes)),
    headerCount,
    headersAt,
    eagerAt,
    expectedAt,
    produced: 0,
    eager: 0,
    announced: new Uint32Array(expectedCount),
    arrived: new Uint32Array(expectedCount),
  }
}

/** The offsets at which the client finds the queues. */
export const placesOf = (
  queues: Queues,
): Omit<RecordOf<typeof CtxInfo>, 'number' | 'jobKey' | 'receives' | keyof Shape> => {
  const { piece, headerCount, headersAt, eagerAt, expectedAt } = queues
  return { headerCount, headersAt, eagerAt, expectedAt, bytes: piece.length, offset: BigInt(piece.offset) }
}

const word = ({ piece }: Queues, number: number): number => (piece.at >> 2) + number
const countOf = (queues: Queues, number: number): number => Atomics.load(queues.piece.words, word(queues, number)) >>> 0

/** Entries of `length` that are free, of which the device has filled `produced` and the client emptied `consumed`. */
const roomOf = (length: number, produced: number, consumed: number): number => {
  const used = (produced - consumed) >>> 0
  return used > length ? 0 : length - used
}

/** Whether the client has unread messages; true if its count is impossible. */
export const hasUnread = (queues: Queues): boolean => countOf(queues, CtxWord.HEADER_CONSUMER) !== queues.produced

/** Empties all queues, for the client too. */
export const resetQueues = (queues: Queues): void => {
  queues.produced = 0
  queues.eager = 0
  queues.announced.fill(0)
  queues.arrived.fill(0)
  for (const number of Object.values(CtxWord)) Atomics.store(queues.piece.words, word(queues, number), 0)
}

const noRoom = (what: string): never => {
  throw new CallError('EAGAIN', `ctx_context.send: ${what}`)
}

const requireHeader = (queues: Queues): void => {
  if (roomOf(queues.headerCount, queues.produced, countOf(queues, CtxWord.HEADER_CONSUMER)) === 0)
    noRoom('the receiver has no free header')
}

const putHeader = (queues: Queues, kind: number, source: number, length: number, slot: number, tag: bigint): void => {
  const { piece, headersAt, headerCount } = queues
  const { view } = piece
  const place = piece.at + headersAt + (queues.produced & (headerCount - 1)) * CTX_HEADER_BYTES
  view.setUint32(place + CtxHeader.kind.offset, kind, true)
  view.setUint32(place + CtxHeader.source.offset, source, true)
  view.setUint32(place + CtxHeader.length.offset, length, true)
  view.setUint32(place + CtxHeader.slot.offset, slot, true)
  view.setBigUint64(place + CtxHeader.tag.offset, tag, true)
  view.setUint32(place + CtxHeader.sequence.offset, queues.produced, true)
  queues.produced = (queues.produced + 1) >>> 0
  Atomics.store(piece.words, word(queues, CtxWord.HEADER_PRODUCER), queues.produced)
}

/** Writes a message into the next eager buffer. */
export const putEager = (queues: Queues, source: number, tag: bigint, data: Uint8Array): void => {
  const { shape, piece, eagerAt, eager } = queues
  if (data.length > shape.eagerBytes)
    throw new CallError('EMSGSIZE', `ctx_context.send: ${data.length} bytes, an eager buffer has ${shape.eagerBytes}`)
  requireHeader(queues)
  if (roomOf(shape.eagerCount, eager, countOf(queues, CtxWord.EAGER_CONSUMER)) === 0)
    noRoom('all eager buffers of the receiver are full')
  const slot = eager & (shape.eagerCount - 1)
  piece.bytes.set(data, piece.at + eagerAt + slot * shape.eagerBytes)
  queues.eager = (eager + 1) >>> 0
  putHeader(queues, CtxKind.values.EAGER, source, data.length, slot, tag)
}

/** Announces an expected buffer. */
export const announce = (queues: Queues, slot: number, length: number): void => {
  const { shape, announced, arrived } = queues
  const where = 'ctx_context.expect:'
  if (slot >= shape.expectedCount)
    throw new CallError('EINVAL', `${where} slot ${slot}: there are ${shape.expectedCount} expected buffers`)
  if (length > shape.expectedBytes)
    throw new CallError('EMSGSIZE', `${where} ${length} bytes, an expected buffer has ${shape.expectedBytes}`)
  if (announced[slot] !== 0) throw new CallError('EBUSY', `${where} slot ${slot} waits for its message`)
  announced[slot] = length
  arrived[slot] = 0
}

/** Writes a fragment of an expected message; true if it was the last one, which adds a header. */
export const putExpected = (
  queues: Queues,
  source: number,
  tag: bigint,
  slot: number,
  offset: number,
  data: Uint8Array,
): boolean => {
  const { shape, piece, expectedAt, announced, arrived } = queues
  const length = slot < shape.expectedCount ? announced[slot] : 0
  if (length === 0)
    throw new CallError('EINVAL', `ctx_context.send: the receiver has announced no buffer in slot ${slot}`)
  if (offset + data.length > length)
    throw new CallError('EINVAL', `ctx_context.send: bytes ${offset} to ${offset + data.length} of ${length}`)
  const isLast = arrived[slot] + data.length >= length
  if (isLast) requireHeader(queues)
  piece.bytes.set(data, piece.at + expectedAt + slot * shape.expectedBytes + offset)
  arrived[slot] += data.length
  if (!isLast) return false
  announced[slot] = 0
  putHeader(queues, CtxKind.values.EXPECTED, source, length, slot, tag)
  return true
}
