/*
 * Remote memory: address, rkey and length of a region or window for a peer's requests. Requests accept plain data and
 * check the data each time. `remoteMemory` checks plain data once.
 */
import { TWO_32 } from '../../../spec/memory.ts'
import { checkRecord } from '../arguments/options.ts'
import { formatValue, invalidArgument, type RdmaError, withoutObject, wrongField } from '../error.ts'
import { addressHex, inspectAs } from '../objects/show.ts'

/** Remote memory as plain data, for example parsed from JSON. */
export interface RemoteMemoryData {
  /** Address of the first byte, 64 bits: a bigint, or text, decimal or '0x…' (as `toJSON` writes it). */
  readonly address: bigint | string
  /** rkey of the region or window, 32 bits. */
  readonly rkey: number
  /** Length in bytes; longer requests are refused. */
  readonly length: number
}

/** Remote memory, as returned by `mr.remote()` and `qp.bind()`. */
export interface RemoteMemory extends RemoteMemoryData {
  /** Address of the first byte, 64 bits. */
  readonly address: bigint
  /** `length` bytes from `offset`, by default up to the end. Throws RdmaError EINVAL beyond the end. */
  slice(offset?: number, length?: number): RemoteMemory
  /** Plain data for `JSON.stringify`; requests and `remoteMemory` accept the result of `JSON.parse`. */
  toJSON(): RemoteMemoryData & { readonly address: string }
}

/**
 * The length of a part of a region of `whole` bytes: `wanted`, or from `offset` to the region's end. Throws RdmaError
 * EINVAL if the part is not inside the region.
 */
export const lengthOfPart = (call: string, whole: number, offset: number, wanted: number | undefined): number => {
  const length = wanted === undefined ? whole - (typeof offset === 'number' ? offset : Number.NaN) : wanted
  if (!Number.isInteger(offset) || !Number.isInteger(length) || offset < 0 || length < 0 || offset + length > whole)
    throw invalidArgument(
      call,
      wanted === undefined
        ? `offset ${formatValue(offset)} does not lie in a region of ${whole} bytes`
        : `${formatValue(wanted)} bytes from offset ${formatValue(offset)} do not lie in a region of ${whole} bytes`,
    )
  return length
}

/** Remote memory with checked fields. */
export class RemoteRange implements RemoteMemory {
  readonly address: bigint
  readonly rkey: number
  readonly length: number
  /** The address as two 32-bit words. */
  readonly #lo: number
  readonly #hi: number

  constructor(address: bigint, rkey: number, length: number) {
    this.address = address
    this.rkey = rkey
    this.length = length
    this.#lo = Number(address % BigInt(TWO_32)) | 0
    this.#hi = Number(address / BigInt(TWO_32)) | 0
    Object.freeze(this)
  }

  slice(offset = 0, length?: number): RemoteMemory {
    if (!(this instanceof RemoteRange)) throw withoutObject('remote.slice')
    const bytes = lengthOfPart('remote.slice', this.length, offset, length)
    return new RemoteRange(this.address + BigInt(offset), this.rkey, bytes)
  }

  toJSON() {
    if (!(this instanceof RemoteRange)) throw withoutObject('remote.toJSON')
    return { address: `0x${this.address.toString(16)}`, rkey: this.rkey, length: this.length }
  }

  /** Writes address and rkey of a range into a request, at these byte offsets in `words`. Hot. */
  static put(range: RemoteRange, words: Int32Array, addressAt: number, rkeyAt: number): void {
    words[addressAt >> 2] = range.#lo
    words[(addressAt >> 2) + 1] = range.#hi
    words[rkeyAt >> 2] = range.rkey
  }
}

const ADDRESS_LIMIT = 2n ** 64n

/** The address in remote memory; undefined if it is neither a bigint nor the text of one. */
const parseRemoteAddress = (address: unknown): bigint | undefined => {
  if (typeof address === 'bigint') return address
  return typeof address === 'string' && /^(0x[\da-f]{1,16}|\d{1,20})$/i.test(address) ? BigInt(address) : undefined
}

inspectAs<RemoteRange>(
  RemoteRange.prototype,
  'RemoteMemory',
  ({ address, rkey, length }) => ({ address: addressHex(address), rkey, length }),
  // false for the prototype
  ({ length }) => length !== undefined,
)

const HINT = 'give { address, rkey, length } as the peer has it from mr.remote()'

const wrongRemote = (call: string, field: keyof RemoteMemoryData, value: unknown, expected: string): RdmaError =>
  wrongField(call, 'remote memory', field, value, expected, HINT)

/** Remote memory from plain data. Throws RdmaError EINVAL. */
const checkedRange = (call: string, remote: RemoteMemoryData): RemoteRange => {
  checkRecord(call, 'remote memory', remote, HINT)
  const address = parseRemoteAddress(remote.address)
  const { rkey, length } = remote
  if (address === undefined || address < 0n || address >= ADDRESS_LIMIT)
    throw wrongRemote(call, 'address', remote.address, "a bigint or text of 64 bits: 4096n, '0x1000'")
  if (rkey >>> 0 !== rkey) throw wrongRemote(call, 'rkey', rkey, 'a number of 32 bits')
  if (!Number.isSafeInteger(length) || length < 0) throw wrongRemote(call, 'length', length, 'a number of bytes')
  if (address + BigInt(length) > ADDRESS_LIMIT)
    throw invalidArgument(
      call,
      `remote memory: ${length} bytes at ${addressHex(address)} exceed the address space of 64 bits`,
      HINT,
    )
  return new RemoteRange(address, rkey, length)
}

/** The remote memory of a request. Throws RdmaError EINVAL. Hot: a `RemoteRange` costs one comparison. */
export const rangeOf = (call: string, remote: RemoteMemoryData): RemoteRange =>
  remote instanceof RemoteRange ? remote : checkedRange(call, remote)

/** Remote memory from plain data, for example from parsed JSON. Throws RdmaError EINVAL. */
export const remoteMemory = (data: RemoteMemoryData): RemoteMemory => checkedRange('remoteMemory', data)

/** The remote memory that describes a local region or window. */
export const createRemoteMemory = (address: bigint, rkey: number, length: number): RemoteMemory =>
  new RemoteRange(address, rkey, length)
