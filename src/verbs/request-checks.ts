/*
 * Work requests of programs without types: what is no slice, no remote memory and no number is refused before anything
 * is posted. A device would find it too, or something else at the same place, but at the cost of the connection.
 *
 * Hot: what is right costs a few comparisons of types, and only what is wrong makes a sentence.
 */
import { invalid, type RdmaError, shown } from './error.ts'
import type { RemoteMemory, Slice } from './memory.ts'
import { totalOf } from './requests.ts'

const isSlice = (value: Slice): boolean =>
  typeof value === 'object' &&
  value !== null &&
  typeof value.lo === 'number' &&
  typeof value.hi === 'number' &&
  typeof value.length === 'number' &&
  typeof value.lkey === 'number'

const isLocal = (local: Slice | readonly Slice[]): boolean => {
  if (!Array.isArray(local)) return isSlice(local as Slice)
  for (let i = 0; i < local.length; i++) if (!isSlice(local[i])) return false
  return true
}

const noSlice = (call: string, local: unknown): RdmaError =>
  invalid(
    call,
    `the bytes: ${shown(local)} is no slice of registered memory`,
    'register a buffer with pd.register() and give a slice of it, or several in a list: mr.slice()',
  )

/** Throws RdmaError EINVAL unless `local` names registered bytes, or none, and `id` is a Number. */
export const checkRequest = (call: string, local: Slice | readonly Slice[] | undefined, id: number): void => {
  if (local !== undefined && !isLocal(local)) throw noSlice(call, local)
  if (typeof id !== 'number')
    throw invalid(call, `id ${shown(id)} is no Number`, 'a completion shows it: 0 to 2^53 - 1')
}

/** Of requests into which bytes come: they must be registered. */
export const checkTarget = (call: string, local: Slice | readonly Slice[]): void => {
  if (local instanceof Uint8Array) throw noSlice(call, local)
}

/** Throws RdmaError EINVAL unless `remote` is memory of a peer. */
export const checkRemote = (call: string, remote: RemoteMemory): void => {
  if (
    typeof remote !== 'object' ||
    remote === null ||
    typeof remote.address !== 'bigint' ||
    typeof remote.rkey !== 'number' ||
    typeof remote.length !== 'number'
  )
    throw invalid(
      call,
      remote === undefined ? 'remote memory is missing' : `remote memory: ${shown(remote)} is none`,
      'give { address, rkey, length } as the peer has it from mr.remote()',
    )
}

/** Of what goes into a request as it is: that it is a number of 32 bits. */
export const checkU32 = (call: string, option: string, value: number): void => {
  if (value >>> 0 !== value) throw invalid(call, `${option} ${shown(value)} is no number of 32 bits`)
}

const WORD = 8

/** That an operand of an atomic is one. */
export const checkWord = (call: string, name: string, word: bigint): void => {
  if (typeof word !== 'bigint') throw invalid(call, `${name} ${shown(word)} is no bigint`, 'write 5n')
}

/** That `local` has room for what a word was. */
export const checkOriginal = (call: string, local: Slice | readonly Slice[]): void => {
  if (local === undefined || local instanceof Uint8Array || !isLocal(local)) throw noSlice(call, local)
  const length = totalOf(local)
  if (length !== WORD) throw invalid(call, `${length} bytes for what the word was, it has ${WORD}`)
}

/** That the word at an address lies as words do; `low`: the lower half of the address. */
export const checkAligned = (call: string, low: number, { address, length }: RemoteMemory): void => {
  if ((low & (WORD - 1)) !== 0)
    throw invalid(call, `remote address 0x${address.toString(16)} is not a multiple of ${WORD}`)
  if (length < WORD) throw invalid(call, `${length} bytes of remote memory, a word has ${WORD}`)
}
