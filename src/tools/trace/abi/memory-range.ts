/*
 * Ranges of the program's memory that a traced call has read or written (`userdma trace --abi`).
 */

import { hex } from '../../../base/text.ts'
import type { RawAccess } from '../../../spec/records.ts'
import { bytesText } from '../bytes.ts'
import { fromBase64 } from '../decode.ts'
import type { Style } from '../values.ts'

export interface MemoryRange {
  readonly address: bigint
  readonly bytes: Uint8Array
  /** The length of the range; the tracer may have kept fewer `bytes`. */
  readonly length: number
}

export const memoryRangeOf = ([address, bytes, length]: RawAccess): MemoryRange => ({
  address: BigInt(address),
  bytes: fromBase64(bytes),
  length,
})

/**
 * The first `length` bytes of a range. The range may be longer than the value at its address: if a call has read an
 * address several times, the tracer keeps the longest read; of several writes it keeps the last.
 */
export const limitedRange = ({ address, bytes, length: rangeLength }: MemoryRange, length: number): MemoryRange => ({
  address,
  bytes: bytes.subarray(0, length),
  length: Math.min(rangeLength, length),
})

/** Bytes as text, limited by `style`. `length`: the length of the range, as in `MemoryRange`. */
export const limitedBytes = (bytes: Uint8Array, length: number, style: Style): string => {
  if (bytes.length > style.bytes) return `${bytesText(bytes.subarray(0, style.bytes), style.bytes)}… (${length} bytes)`
  return `${bytesText(bytes, bytes.length)}${length > bytes.length ? '…' : ''}`
}

export const memoryText = ({ address, bytes, length }: MemoryRange, style: Style): string =>
  `at ${hex(address)}, ${length} bytes: ${limitedBytes(bytes, length, style)}`
