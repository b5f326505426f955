/*
 * Registered memory in the library: a region of a buffer, and slices of it, which is how work requests name bytes.
 */
import { Mr } from '../spec/classes/mr.ts'
import { AccessFlags } from '../spec/enums.ts'
import type { Out } from '../spec/schema.ts'
import { invalid } from './error.ts'
import { closer, type Kit, type Named, type Plan, plan } from './plan.ts'

/** What others may do with a region beside reading it locally. */
export interface Access {
  /** Default true: a receive request or a READ may write here. */
  readonly localWrite?: boolean
  readonly remoteRead?: boolean
  readonly remoteWrite?: boolean
  readonly remoteAtomic?: boolean
  /** A peer's FLUSH may ask that bytes are visible to all, or that they survive a loss of power. */
  readonly flushGlobal?: boolean
  readonly flushPersistent?: boolean
  /** Memory windows may be bound to it. */
  readonly window?: boolean
  /** Of a window of type 2: the peer names its first byte 0. */
  readonly zeroBased?: boolean
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
  query(): Out<typeof Mr.methods.query>
  /**
   * Registers it anew, with other rights or in another domain: keys may change, so slices that were made before are
   * worth nothing. Throws RdmaError EBUSY while a window is bound to it.
   */
  reregister(changes: { readonly access?: Access; readonly pd?: Named }): void
  /** Throws RdmaError EBUSY while a window is bound to it. */
  close(): void
}

const flags = AccessFlags.values

/** ibv_access_flags of the rights. */
export const accessFlags = (access: Access, localWrite: boolean): number =>
  ((access.localWrite ?? localWrite) ? flags.LOCAL_WRITE : 0) |
  (access.remoteRead ? flags.REMOTE_READ : 0) |
  (access.remoteWrite ? flags.REMOTE_WRITE : 0) |
  (access.remoteAtomic ? flags.REMOTE_ATOMIC : 0) |
  (access.flushGlobal ? flags.FLUSH_GLOBAL : 0) |
  (access.flushPersistent ? flags.FLUSH_PERSISTENT : 0) |
  (access.window ? flags.MW_BIND : 0) |
  (access.zeroBased ? flags.ZERO_BASED : 0)

/** Checks that `length` bytes from `offset` lie in `whole`. */
const within = (call: string, whole: number, offset: number, length: number): void => {
  if (!Number.isInteger(offset) || !Number.isInteger(length) || offset < 0 || length < 0 || offset + length > whole)
    throw invalid(call, `${length} bytes from offset ${offset} do not lie in a region of ${whole} bytes`)
}

/** A region of `buffer` in protection domain `pd`. */
export const regionPlan = ({ carrier }: Kit, pd: Named, buffer: Uint8Array, access: Access): Plan<MemoryRegion> => {
  const address = carrier.addressOf(buffer)
  const forget = (): void => carrier.forget(buffer)
  const wanted = {
    pd: pd.handle,
    start: address,
    iova: address,
    length: BigInt(buffer.length),
    access: accessFlags(access, true),
  }
  const from = (offset: number): bigint => address + BigInt(offset)
  return plan(
    Mr,
    wanted,
    ({ object: handle, out: keys }) => {
      let { lkey, rkey } = keys
      const close = closer(carrier, Mr, handle, forget)
      return {
        buffer,
        handle,
        get lkey() {
          return lkey
        },
        get rkey() {
          return rkey
        },
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
        query: () => carrier.call(Mr, 'query', handle, {}).out,
        reregister(changes) {
          const { out } = carrier.call(Mr, 'modify', handle, {
            ...(changes.access !== undefined && { access: accessFlags(changes.access, true) }),
            ...(changes.pd !== undefined && { pd: changes.pd.handle }),
          })
          lkey = out.lkey
          rkey = out.rkey
        },
        close,
        [Symbol.dispose]: close,
      }
    },
    forget,
  )
}
