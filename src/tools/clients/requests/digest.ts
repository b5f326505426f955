/*
 * A hash of the bytes that a send reads, for `userdma check`. Of a long message it hashes samples: at the beginning, at
 * the end, and at an offset between, which differs from request to request.
 */
import type { RequestReader } from '../../../core/driver-contract.ts'
import { addressHi, addressLo, type MemoryTable, resolve, rowAt } from '../../../core/memory/region-table.ts'
import type { RequestElement, WorkRequest } from '../../../spec/check/requests.ts'
import { HashLog } from '../../../spec/context-logs.ts'
import { TWO_32 } from '../../../spec/memory.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import { crcOfArena } from '../../../transport/wire/crc.ts'

/** The preload library hashes the same bytes at the post. */
const { wholeBytes: WHOLE_BYTES, sampleBytes: SAMPLE_BYTES, sampleStep: SAMPLE_STEP } = HashLog
type HashedRequest = Pick<WorkRequest, 'index' | 'postIndex' | 'number' | 'elements' | 'length'>

const WORD_BYTES = 8

/** Bits of ibv_access_flags: every region grants local reads. */
const LOCAL_READ = 0

/**
 * Returns the function that copies `bytes` bytes of a message from offset `from` on to `scratch`; false if they cannot
 * be read.
 */
export const copyTo =
  (table: MemoryTable, scratch: Arena, reader: RequestReader | undefined) =>
  (pd: number, qpn: number, elements: readonly RequestElement[], from: number, bytes: number): boolean => {
    let toSkip = from
    let at = 0
    for (const { address, length, lkey } of elements) {
      const size = Math.min(length - toSkip, bytes - at)
      if (size > 0) {
        const start = address + toSkip
        const hi = Math.floor(start / TWO_32)
        const lo = start % TWO_32
        const key = reader?.tableKey?.(table, lkey) ?? lkey
        const row = resolve(table, pd, key, hi, lo, size, LOCAL_READ, qpn)
        if (row < 0) return false
        const space = table.spaces[table.space[row]!]
        const [spaceHi, spaceLo] = [addressHi(table, row, hi, lo), addressLo(table, row, lo)]
        if (space?.read(spaceHi, spaceLo, scratch, at, size, size, size) !== 0) return false
        at += size
      }
      toSkip = Math.max(0, toSkip - length)
    }
    return true
  }

/** The protection domain of the region of an lkey; undefined: there is no such region. */
const pdOf = (table: MemoryTable, reader: RequestReader | undefined, lkey: number): number | undefined => {
  const row = rowAt(table, (reader?.tableKey?.(table, lkey) ?? lkey) >>> 8)
  return row < 0 ? undefined : table.pd[row]
}

/**
 * A hash of bytes of the region of an lkey; undefined: they cannot be read. `scratch`, `reader`: see `createDigest`.
 */
export const hashRange = (
  table: MemoryTable,
  scratch: Arena,
  reader: RequestReader | undefined,
  { address, length, lkey }: RequestElement,
): number | undefined => {
  const pd = pdOf(table, reader, lkey)
  if (pd === undefined) return undefined
  const elements = [{ address, length, lkey }]
  return createDigest(table, scratch, reader)(pd, { index: 0, number: 0, elements, length }, true)
}

/**
 * The first 8 bytes of an element, as a number of the host; undefined: they cannot be read. Arguments: see `hashRange`.
 */
export const readWord = (
  table: MemoryTable,
  scratch: Arena,
  reader: RequestReader | undefined,
  element: RequestElement,
): bigint | undefined => {
  const pd = pdOf(table, reader, element.lkey)
  if (pd === undefined || !copyTo(table, scratch, reader)(pd, 0, [element], 0, WORD_BYTES)) return undefined
  return scratch.view.getBigUint64(0, true)
}

/**
 * Returns the function that hashes a request's bytes; its result is undefined if they cannot be read. `isWhole`:
 * hashes all bytes. `scratch`: at least SAMPLE_BYTES of memory, through which the bytes are read. `reader`: the
 * driver's.
 */
export const createDigest = (table: MemoryTable, scratch: Arena, reader?: RequestReader) => {
  const copy = copyTo(table, scratch, reader)
  return (pd: number, request: HashedRequest, isWhole: boolean): number | undefined => {
    const { index, postIndex = index, number: qpn, elements, length } = request
    let hash = 0
    /** Adds bytes of the message to the hash; false if they cannot be read. */
    const add = (from: number, bytes: number): boolean => {
      if (!copy(pd, qpn, elements, from, bytes)) return false
      hash = crcOfArena(scratch, 0, bytes, hash)
      return true
    }
    if (isWhole || length <= WHOLE_BYTES) {
      const step = scratch.bytes.length
      for (let from = 0; from < length; from += step) if (!add(from, Math.min(step, length - from))) return undefined
      return hash >>> 0
    }
    const middle = (postIndex * SAMPLE_STEP) % (length - SAMPLE_BYTES)
    for (const from of [0, middle, length - SAMPLE_BYTES]) if (!add(from, SAMPLE_BYTES)) return undefined
    return hash >>> 0
  }
}
