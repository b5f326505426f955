/*
 * Checks the operands of work requests, for callers without types: values that are not slices, remote memory or numbers
 * are refused before anything is posted. The device would detect them too, or access something else, but at the cost of
 * the connection.
 *
 * Hot: a correct request costs a few type comparisons; only an error builds a sentence.
 */
import { formatValue, invalidArgument, type RdmaError } from '../error.ts'
import { isForeignSlice, type Slice } from '../mr/region.ts'
import type { RemoteMemory, RemoteMemoryData } from '../mr/remote-memory.ts'
import type { DeviceContext } from '../plan.ts'
import { totalOf } from '../qp/requests.ts'

const isLength = (length: number): boolean => Number.isSafeInteger(length) && length >= 0

const isSlice = (value: Slice): boolean =>
  typeof value === 'object' &&
  value !== null &&
  value.lo >>> 0 === value.lo &&
  value.hi >>> 0 === value.hi &&
  isLength(value.length) &&
  value.lkey >>> 0 === value.lkey

/** Whether `local` looks like a slice, or a list of slices. */
const isLocal = (local: Slice | readonly Slice[]): boolean => {
  if (!Array.isArray(local)) return isSlice(local as Slice)
  for (let i = 0; i < local.length; i++) if (!isSlice(local[i])) return false
  return true
}

const noSlice = (call: string, local: unknown): RdmaError =>
  invalidArgument(
    call,
    `the bytes: ${formatValue(local)} is not a slice of registered memory`,
    'register a buffer with pd.register() and give a slice of it, or several in a list: mr.slice()',
  )

const foreignSlice = (call: string): RdmaError =>
  invalidArgument(
    call,
    'the bytes: the slice is of another device',
    'register the buffer at the device of the queue pair',
  )

/** Throws RdmaError EINVAL unless `local` is memory registered at the device. */
export const checkLocal = (call: string, kit: DeviceContext, local: Slice | readonly Slice[]): void => {
  if (!isLocal(local)) throw noSlice(call, local)
  const isForeign = Array.isArray(local) ? local.some(one => isForeignSlice(one, kit)) : isForeignSlice(local, kit)
  if (isForeign) throw foreignSlice(call)
}

/** Throws RdmaError EINVAL unless `id` is a number that completions can carry. */
export const checkId = (call: string, id: number): void => {
  if (!Number.isSafeInteger(id) || id < 0)
    throw invalidArgument(
      call,
      `id ${formatValue(id)} is not a number that a completion can contain`,
      'give an integer from 0 to 2^53 - 1',
    )
}

/** For requests that write to `local`: it must be registered. */
export const checkTarget = (call: string, local: Slice | readonly Slice[]): void => {
  if (local instanceof Uint8Array) throw noSlice(call, local)
}

/** Checks that the bytes of a WRITE or READ fit the peer's remote memory. */
export const checkExtent = (call: string, bytes: number, { length }: RemoteMemoryData): void => {
  if (bytes > length)
    throw invalidArgument(
      call,
      `${bytes} bytes do not fit the peer's memory of ${length} bytes`,
      'ask for less, with mr.slice()',
    )
}

const WORD = 8

/** Checks an operand of an atomic. */
export const checkWord = (call: string, name: string, word: bigint): void => {
  if (typeof word !== 'bigint') throw invalidArgument(call, `${name} ${formatValue(word)} is not a bigint`, 'write 5n')
}

/** Checks that `local` has room for the 8 bytes of an atomic's result. */
export const checkOriginal = (call: string, local: Slice | readonly Slice[]): void => {
  if (local === undefined || local instanceof Uint8Array || !isLocal(local)) throw noSlice(call, local)
  const length = totalOf(local)
  if (length !== WORD) throw invalidArgument(call, `${length} bytes for the old value, which has ${WORD}`)
}

/** Checks that remote memory is an aligned 64-bit word. */
export const checkAligned = (call: string, { address, length }: RemoteMemory): void => {
  if (address % BigInt(WORD) !== 0n)
    throw invalidArgument(call, `remote address 0x${address.toString(16)} is not a multiple of ${WORD}`)
  if (length < WORD) throw invalidArgument(call, `${length} bytes of remote memory, a word has ${WORD}`)
}
