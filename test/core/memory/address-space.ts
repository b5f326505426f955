/*
 * Calls of `AddressSpace` with one address in place of its two halves, and with named lengths.
 */
import type { AddressSpace, Bytes } from '../../../src/core/index.ts'
import { halves } from '../../host/copy-arguments.ts'

/** `at`: offset in the buffer of this process. `chunk` and `stride`: as in `AddressSpace.read`; default: `total`. */
interface Lengths {
  readonly at?: number
  readonly chunk?: number
  readonly stride?: number
  readonly total: number
}

/** Reads from the space. Returns 0 or an errno. */
export const readSpace = (
  space: AddressSpace,
  address: number,
  to: Bytes,
  { at = 0, total, chunk = total, stride = total }: Lengths,
): number => space.read(...halves(address), to, at, chunk, stride, total)

/** Writes to the space. Returns 0 or an errno. */
export const writeSpace = (
  space: AddressSpace,
  address: number,
  from: Bytes,
  { at = 0, total, chunk = total, stride = total }: Lengths,
): number => space.write(...halves(address), from, at, chunk, stride, total)

const wordHalves = (word: bigint): [hi: number, lo: number] => [Number(word >> 32n), Number(word & 0xffff_ffffn)]

/** The word that an atomic has stored as the original one; if the atomic fails, its errno. */
const originalOf = (atomic: (original: Uint32Array) => number): number | bigint => {
  const unwritten = 0xdead_beef
  const original = new Uint32Array(2).fill(unwritten)
  const errno = atomic(original)
  return errno === 0 ? (BigInt(original[1]) << 32n) | BigInt(original[0]) : errno
}

/** Returns the word before the fetch and add, or an errno. */
export const fetchAdd = (space: AddressSpace, address: number, value: bigint): number | bigint =>
  originalOf(original => space.fetchAdd(...halves(address), ...wordHalves(value), original))

/** Returns the word before the compare and swap, or an errno. */
export const compareSwap = (space: AddressSpace, address: number, compare: bigint, value: bigint): number | bigint =>
  originalOf(original => space.compareSwap(...halves(address), ...wordHalves(compare), ...wordHalves(value), original))
