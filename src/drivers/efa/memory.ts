/*
 * Programs' memory for the engine: gathers and scatters the elements of requests. Functions that return a boolean
 * return false for memory that is not registered with the rights, or is gone.
 */

import type { Bytes } from '../../core/memory/address-space.ts'
import { addressHi, addressLo, type MemoryTable, resolve } from '../../core/memory/region-table.ts'
import { EfaStatus } from '../../spec/drivers/efa-queues.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { NO_INLINE } from './requests.ts'
import type { Element, Request } from './state.ts'

const { LOCAL_WRITE } = AccessFlags.values
const TWO_32 = 2 ** 32

/** Copies between memory and `length` bytes at `at`, in chunks of `chunk` bytes every `stride` bytes. */
const copy = (
  table: MemoryTable,
  row: number,
  hi: number,
  lo: number,
  isRead: boolean,
  bytes: Bytes,
  at: number,
  chunk: number,
  stride: number,
  length: number,
): boolean => {
  const space = table.spaces[table.space[row]!]
  const spaceHi = addressHi(table, row, hi, lo)
  const spaceLo = addressLo(table, row, lo)
  const errno = isRead
    ? space?.read(spaceHi, spaceLo, bytes, at, chunk, stride, length)
    : space?.write(spaceHi, spaceLo, bytes, at, chunk, stride, length)
  return errno === 0
}

/** Copies a peer's range, `offset` bytes behind hi:lo. `access`: rights that the key must grant. */
export const copyRange = (
  table: MemoryTable,
  pd: number,
  key: number,
  access: number,
  hi: number,
  lo: number,
  offset: number,
  isRead: boolean,
  bytes: Bytes,
  at: number,
  chunk: number,
  stride: number,
  length: number,
): boolean => {
  if (length === 0) return true
  const low = lo + offset
  const high = (hi + Math.floor(low / TWO_32)) >>> 0
  const row = resolve(table, pd, key, high, low >>> 0, length, access, 0)
  return row >= 0 && copy(table, row, high, low >>> 0, isRead, bytes, at, chunk, stride, length)
}

/** Whether a key grants access to a whole range. */
export const isGranted = (
  table: MemoryTable,
  pd: number,
  key: number,
  access: number,
  hi: number,
  lo: number,
  length: number,
): boolean => length === 0 || resolve(table, pd, key, hi, lo, length, access, 0) >= 0

/** Whether all elements of a request are registered with `access`. */
export const elementsGranted = (
  table: MemoryTable,
  pd: number,
  elements: readonly Element[],
  count: number,
  access: number,
): boolean => {
  for (let i = 0; i < count; i++) {
    const { hi, lo, length, key } = elements[i]!
    if (!isGranted(table, pd, key, access, hi, lo, length)) return false
  }
  return true
}

/** Copies `length` bytes between the elements, from byte `offset` of their bytes on, and `bytes`. */
export const copyElements = (
  table: MemoryTable,
  pd: number,
  elements: readonly Element[],
  count: number,
  offset: number,
  isRead: boolean,
  bytes: Bytes,
  at: number,
  length: number,
): boolean => {
  const access = isRead ? 0 : LOCAL_WRITE
  let skipped = offset
  let left = length
  let to = at
  for (let i = 0; i < count && left > 0; i++) {
    const element = elements[i]!
    if (skipped >= element.length) {
      skipped -= element.length
      continue
    }
    const part = Math.min(element.length - skipped, left)
    const { key, hi, lo } = element
    if (!copyRange(table, pd, key, access, hi, lo, skipped, isRead, bytes, to, part, part, part)) return false
    to += part
    left -= part
    skipped = 0
  }
  return left === 0
}

/** Copies `length` bytes of a send's message, from byte `offset` on, to `bytes` in chunks. */
export const gather = (
  table: MemoryTable,
  request: Request,
  offset: number,
  bytes: Bytes,
  at: number,
  chunk: number,
  stride: number,
  length: number,
): EfaStatus => {
  const { qp, inlineLength, inline, elements, count } = request
  if (inlineLength !== NO_INLINE) {
    bytes.bytes.set(inline.subarray(offset, offset + length), at)
    return EfaStatus.OK
  }
  if (count === 1) {
    const { key, hi, lo } = elements[0]!
    return copyRange(table, qp.pd, key, 0, hi, lo, offset, true, bytes, at, chunk, stride, length)
      ? EfaStatus.OK
      : EfaStatus.INVALID_LKEY
  }
  // several elements only fit into one packet
  return copyElements(table, qp.pd, elements, count, offset, true, bytes, at, length)
    ? EfaStatus.OK
    : EfaStatus.INVALID_LKEY
}
