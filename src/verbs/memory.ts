/*
 * Registered memory in the library: a region of a buffer, and slices of it, which is how work requests name bytes.
 */
import { Mr } from '../spec/classes/mr.ts'
import { AccessFlags } from '../spec/enums.ts'
import type { Carrier } from './carrier.ts'
import { RdmaError } from './error.ts'

/** What others may do with a region beside reading it locally. */
export interface Access {
  /** Default true: a receive request or a READ may write here. */
  readonly localWrite?: boolean
  readonly remoteRead?: boolean
  readonly remoteWrite?: boolean
  readonly remoteAtomic?: boolean
  /** Memory windows may be bound to it. */
  readonly window?: boolean
}

/** Bytes of a registered region. Make it once and post it as often as wanted. */
export interface Slice {
  readonly lo: number
  readonly hi: number
  readonly length: number
  readonly lkey: number
}

/** Memory as a peer names it: plain data, to be sent to whoever shall use it. */
export interface RemoteMemory {
  readonly address: bigint
  readonly rkey: number
  readonly length: number
}

export interface MemoryRegion extends Disposable {
  readonly buffer: Uint8Array
  readonly handle: number
  readonly lkey: number
  readonly rkey: number
  /** How work requests and peers name its first byte. */
  readonly address: bigint
  /** `length` bytes from `offset` on; all of it without arguments. Throws RdmaError EINVAL outside of the region. */
  slice(offset?: number, length?: number): Slice
  /** What a peer must know to read or write it; a part of it as `slice`. */
  remote(offset?: number, length?: number): RemoteMemory
  close(): void
}

const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC, MW_BIND } = AccessFlags.values

const flagsOf = ({ localWrite = true, remoteRead, remoteWrite, remoteAtomic, window }: Access): number =>
  (localWrite ? LOCAL_WRITE : 0) |
  (remoteRead ? REMOTE_READ : 0) |
  (remoteWrite ? REMOTE_WRITE : 0) |
  (remoteAtomic ? REMOTE_ATOMIC : 0) |
  (window ? MW_BIND : 0)

const EINVAL = 22

/** Checks that `length` bytes from `offset` lie in `whole`; without `length` up to the end. */
const within = (call: string, whole: number, offset: number, length: number): number => {
  if (!Number.isInteger(offset) || !Number.isInteger(length) || offset < 0 || length < 0 || offset + length > whole)
    throw new RdmaError(
      'EINVAL',
      EINVAL,
      call,
      `${length} bytes from offset ${offset} do not lie in a region of ${whole} bytes`,
    )
  return length
}

/** Registers a buffer in protection domain `pd`. */
export const registerMemory = (carrier: Carrier, pd: number, buffer: Uint8Array, access: Access): MemoryRegion => {
  const address = carrier.addressOf(buffer)
  const region = { pd, start: address, iova: address, length: BigInt(buffer.length), access: flagsOf(access) }
  const { object, out } = carrier.call(Mr, 'create', 0, region)
  const { lkey, rkey } = out
  let open = true
  const close = (): void => {
    if (!open) return
    carrier.call(Mr, 'destroy', object, {})
    open = false
    carrier.forget(buffer)
  }
  const from = (offset: number): bigint => address + BigInt(offset)
  return {
    buffer,
    handle: object,
    lkey,
    rkey,
    address,
    slice(offset = 0, length = buffer.length - offset) {
      within('mr.slice', buffer.length, offset, length)
      const start = from(offset)
      return { lo: Number(start & 0xffffffffn), hi: Number(start >> 32n), length, lkey }
    },
    remote(offset = 0, length = buffer.length - offset) {
      within('mr.remote', buffer.length, offset, length)
      return { address: from(offset), rkey, length }
    },
    close,
    [Symbol.dispose]: close,
  }
}
