/*
 * Work requests of programs without types: what is no slice, no remote memory and no number is refused before anything
 * is posted. A device would find it too, or something else at the same place, but at the cost of the connection.
 *
 * Hot: what is right costs a few comparisons of types, and only what is wrong makes a sentence.
 */
import { formatValue, invalidArgument, type RdmaError } from '../error.ts'
import { isForeignSlice, type RemoteMemory, type Slice } from '../mr/region.ts'
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

const foreignSlice = (call: string): RdmaError =>
  invalidArgument(
    call,
    'the bytes: the slice is of another device',
    'register the buffer at the device of the queue pair',
  )

const checkDevice = (call: string, kit: DeviceContext, local: Slice | readonly Slice[]): void => {
  if (!Array.isArray(local)) {
    if (isForeignSlice(local as Slice, kit)) throw foreignSlice(call)
    return
  }
  for (let i = 0; i < local.length; i++) if (isForeignSlice(local[i], kit)) throw foreignSlice(call)
}

const isLocal = (local: Slice | readonly Slice[]): boolean => {
  if (!Array.isArray(local)) return isSlice(local as Slice)
  for (let i = 0; i < local.length; i++) if (!isSlice(local[i])) return false
  return true
}

const noSlice = (call: string, local: unknown): RdmaError =>
  invalidArgument(
    call,
    `the bytes: ${formatValue(local)} is no slice of registered memory`,
    'register a buffer with pd.register() and give a slice of it, or several in a list: mr.slice()',
  )

/** Throws RdmaError EINVAL unless `local` names bytes registered at the device, or none, and `id` fits a completion. */
export const checkRequest = (
  call: string,
  kit: DeviceContext,
  local: Slice | readonly Slice[] | undefined,
  id: number,
): void => {
  if (local !== undefined) {
    if (!isLocal(local)) throw noSlice(call, local)
    checkDevice(call, kit, local)
  }
  if (!Number.isSafeInteger(id) || id < 0)
    throw invalidArgument(
      call,
      `id ${formatValue(id)} is no number that a completion can show`,
      'give an integer from 0 to 2^53 - 1',
    )
}

/** Of requests into which bytes come: they must be registered. */
export const checkTarget = (call: string, local: Slice | readonly Slice[]): void => {
  if (local instanceof Uint8Array) throw noSlice(call, local)
}

const LAST_ADDRESS = 2n ** 64n - 1n

/** Throws RdmaError EINVAL unless `remote` is memory of a peer. */
export const checkRemote = (call: string, remote: RemoteMemory): void => {
  if (
    typeof remote !== 'object' ||
    remote === null ||
    typeof remote.address !== 'bigint' ||
    remote.address < 0n ||
    remote.address > LAST_ADDRESS ||
    remote.rkey >>> 0 !== remote.rkey ||
    !isLength(remote.length)
  )
    throw invalidArgument(
      call,
      remote === undefined ? 'remote memory is missing' : `remote memory: ${formatValue(remote)} is none`,
      'give { address, rkey, length } as the peer has it from mr.remote()',
    )
}

/** That the bytes of a WRITE or READ fit the remote memory that the peer has named. */
export const checkExtent = (
  call: string,
  local: Slice | readonly Slice[] | Uint8Array | undefined,
  { length }: RemoteMemory,
): void => {
  if (local === undefined) return
  const bytes = Array.isArray(local) ? totalOf(local) : (local as Slice | Uint8Array).length
  if (bytes > length)
    throw invalidArgument(
      call,
      `${bytes} bytes do not fit the peer's memory of ${length} bytes`,
      'ask for less, with mr.slice()',
    )
}

/** Of what goes into a request as it is: that it is a number of 32 bits. */
export const checkU32 = (call: string, option: string, value: number): void => {
  if (value >>> 0 !== value) throw invalidArgument(call, `${option} ${formatValue(value)} is no number of 32 bits`)
}

const WORD = 8

/** That an operand of an atomic is one. */
export const checkWord = (call: string, name: string, word: bigint): void => {
  if (typeof word !== 'bigint') throw invalidArgument(call, `${name} ${formatValue(word)} is no bigint`, 'write 5n')
}

/** That `local` has room for what a word was. */
export const checkOriginal = (call: string, local: Slice | readonly Slice[]): void => {
  if (local === undefined || local instanceof Uint8Array || !isLocal(local)) throw noSlice(call, local)
  const length = totalOf(local)
  if (length !== WORD) throw invalidArgument(call, `${length} bytes for what the word was, it has ${WORD}`)
}

/** That the word at an address lies as words do; `low`: the lower half of the address. */
export const checkAligned = (call: string, low: number, { address, length }: RemoteMemory): void => {
  if ((low & (WORD - 1)) !== 0)
    throw invalidArgument(call, `remote address 0x${address.toString(16)} is not a multiple of ${WORD}`)
  if (length < WORD) throw invalidArgument(call, `${length} bytes of remote memory, a word has ${WORD}`)
}
