/*
 * Checks of the operands of work requests, before the request is posted. Without the checks the device would access
 * wrong bytes, or complete the request in error and move the queue pair to ERR.
 *
 * Hot: a valid request costs a few type comparisons.
 */
import { ATOMIC_BYTES, MAX_MESSAGE_BYTES } from '../../../spec/work.ts'
import { formatValue, invalidArgument, type RdmaError } from '../error.ts'
import { isForeignSlice, type Slice } from '../mr/region.ts'
import type { RemoteMemory, RemoteMemoryData } from '../mr/remote-memory.ts'
import type { DeviceContext } from '../plan.ts'
import { totalOf } from '../qp/requests.ts'

/** Whether `value` is a slice. All its numbers have 32 bits, as in a scatter/gather element. */
const isSlice = (value: Slice): boolean =>
  typeof value === 'object' &&
  value !== null &&
  value.lo >>> 0 === value.lo &&
  value.hi >>> 0 === value.hi &&
  value.length >>> 0 === value.length &&
  value.lkey >>> 0 === value.lkey

/** Whether `local` is a slice or a list of slices. Copies of slices count as slices. */
const areSlices = (local: Slice | readonly Slice[]): boolean => {
  if (!Array.isArray(local)) return isSlice(local as Slice)
  for (let i = 0; i < local.length; i++) if (!isSlice(local[i])) return false
  return true
}

const notSlice = (call: string, local: unknown): RdmaError =>
  invalidArgument(
    call,
    `the bytes: ${formatValue(local)} is not a slice of registered memory`,
    'register a buffer with pd.register() and pass mr.slice(), or a list of slices',
  )

const foreignSlice = (call: string): RdmaError =>
  invalidArgument(
    call,
    'the bytes: the slice is of another device',
    'register the buffer at the device of the queue pair',
  )

/** Checks that `local` is a slice or a list of slices, and not of another device. Throws RdmaError EINVAL. */
export const checkLocal = (call: string, context: DeviceContext, local: Slice | readonly Slice[]): void => {
  if (!areSlices(local)) throw notSlice(call, local)
  const isForeign = Array.isArray(local)
    ? local.some(slice => isForeignSlice(slice, context))
    : isForeignSlice(local, context)
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

/** Throws RdmaError EINVAL if the destination of a READ is a Uint8Array: inline data, not registered memory. */
export const checkTarget = (call: string, local: Slice | readonly Slice[]): void => {
  if (local instanceof Uint8Array) throw notSlice(call, local)
}

/** Throws RdmaError EINVAL if the bytes of a WRITE or READ do not fit the remote memory. */
export const checkExtent = (call: string, bytes: number, { length }: RemoteMemoryData): void => {
  if (bytes > length)
    throw invalidArgument(
      call,
      `${bytes} bytes do not fit the peer's memory of ${length} bytes`,
      'pass a shorter slice: mr.slice(offset, length)',
    )
}

/**
 * The length of a FLUSH of remote memory. Of a whole region the peer ignores it, but rxe refuses more than
 * MAX_MESSAGE_BYTES. Throws RdmaError EINVAL if the memory is too long.
 */
export const flushLength = ({ length }: RemoteMemory, isWholeRegion: boolean): number => {
  if (length <= MAX_MESSAGE_BYTES || isWholeRegion) return Math.min(length, MAX_MESSAGE_BYTES)
  throw invalidArgument(
    'qp.flush',
    `${length} bytes of remote memory, a FLUSH has at most ${MAX_MESSAGE_BYTES}`,
    'pass a part of it, remote.slice(offset, length), or flush the whole region',
  )
}

const MIN_WORD = -(2n ** 63n)
const MAX_WORD = 2n ** 64n - 1n

/** Throws RdmaError EINVAL unless `word` is a bigint of 64 bits, signed or unsigned. */
export const checkWord = (call: string, name: string, word: bigint): void => {
  if (typeof word !== 'bigint') throw invalidArgument(call, `${name} ${formatValue(word)} is not a bigint`, 'write 5n')
  if (word < MIN_WORD || word > MAX_WORD)
    throw invalidArgument(call, `${name} ${formatValue(word)} is not in -2^63 to 2^64 - 1`)
}

/** Throws RdmaError EINVAL unless `local` has exactly the 8 bytes of an atomic's result. */
export const checkOriginal = (call: string, local: Slice | readonly Slice[]): void => {
  if (!areSlices(local)) throw notSlice(call, local)
  const length = totalOf(local)
  if (length !== ATOMIC_BYTES)
    throw invalidArgument(call, `${length} bytes for the old value, which has ${ATOMIC_BYTES}`)
}

/** Throws RdmaError EINVAL unless remote memory begins with an aligned 64-bit word. */
export const checkAligned = (call: string, { address, length }: RemoteMemory): void => {
  if (address % BigInt(ATOMIC_BYTES) !== 0n)
    throw invalidArgument(call, `remote address 0x${address.toString(16)} is not a multiple of ${ATOMIC_BYTES}`)
  if (length < ATOMIC_BYTES) throw invalidArgument(call, `${length} bytes of remote memory, a word has ${ATOMIC_BYTES}`)
}
