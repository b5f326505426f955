/*
 * Arguments of functions that copy to and from other processes.
 */
import type { LocalMemory } from '../../src/host/memory/pieces.ts'
import { type ProcessHandle, writev } from '../../src/host/memory/process.ts'

/** The upper and the lower 32 bits of an address below 2^53. */
export const halves = (address: number): [high: number, low: number] => [
  Math.floor(address / 2 ** 32),
  address % 2 ** 32,
]

/** Offset, chunk, stride and total of a copy in one piece. */
export const onePiece = (bytes: number) => [0, bytes, bytes, bytes] as const

/** Writes `length` bytes of `local` from `offset` to an address below 2^53; returns as `writev`. */
export const writeAt = (handle: ProcessHandle, address: number, local: LocalMemory, offset: number, length: number) =>
  writev(handle, ...halves(address), local, offset, length, length, length)
