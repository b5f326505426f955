/*
 * Registered memory in the library: a region of a buffer, and slices of it, which is how work requests name bytes.
 */
import { Mr } from '../../spec/classes/mr.ts'
import { AccessFlags, MrKind } from '../../spec/enums.ts'
import type { In, Out } from '../../spec/schema/schema.ts'
import { checkOptions, type Words } from '../checks/options.ts'
import { checkBytes, formatValue, invalidArgument } from '../error.ts'
import {
  checkOwn,
  type DeviceContext,
  type HeldObject,
  isClosed,
  type Named,
  type Plan,
  plan,
  type Reference,
} from '../plan.ts'
import { addressHex, inspectAs } from '../show.ts'
import { defineVerbsClass, RELEASED, SHOWN, VerbsObject } from '../verbs-object.ts'
import { createRemoteMemory, lengthOfPart, type RemoteMemory } from './remote-memory.ts'

/** What others may do with a region beside reading it locally. */
export interface Access {
  /** Default true: a receive request or a READ may write here. */
  readonly localWrite?: boolean
  /** A peer may READ. */
  readonly remoteRead?: boolean
  /** A peer may WRITE. */
  readonly remoteWrite?: boolean
  /** A peer may do atomics. */
  readonly remoteAtomic?: boolean
  /** A peer's FLUSH may ask that bytes are visible to all, or that they survive a loss of power. */
  readonly flushGlobal?: boolean
  /** A peer's FLUSH may ask that bytes survive a loss of power. */
  readonly flushPersistent?: boolean
  /** Memory windows may be bound to it. */
  readonly window?: boolean
  /** Of a window of type 2: the peer names its first byte 0. */
  readonly zeroBased?: boolean
}

/** Bytes of a registered region. Make it once and post it as often as wanted. */
export interface Slice {
  /** Lower 32 bits of the address. */
  readonly lo: number
  /** Upper 32 bits of the address. */
  readonly hi: number
  /** Bytes. */
  readonly length: number
  /** Local key of its region. */
  readonly lkey: number
}

/** Registered memory of any kind. */
export interface Region extends Disposable {
  /** Handle of the object, as calls and `device.handles` name it. */
  readonly handle: number
  /** Bytes. */
  readonly length: number
  /** Local key, 32 bits. */
  readonly lkey: number
  /** Remote key, 32 bits. */
  readonly rkey: number
  /** How work requests and peers name its first byte. */
  readonly address: bigint
  /** `length` bytes from `offset` on; all of it without arguments. Throws RdmaError EINVAL outside of the region. */
  slice(offset?: number, length?: number): Slice
  /** What a peer must know to read or write it; a part of it as `slice`. */
  remote(offset?: number, length?: number): RemoteMemory
  /** All attributes, as the class declares them. Throws RdmaError. */
  query(): Out<typeof Mr.methods.query>
  /** Throws RdmaError EBUSY while a window is bound to it. */
  close(): void
}

interface Changes {
  readonly access?: Access
  readonly pd?: Reference<'pd'>
}

/** A region of a buffer. */
export interface MemoryRegion extends Region {
  /** The buffer that was registered. */
  readonly buffer: Uint8Array
  /**
   * Registers it anew, with other rights or in another domain: keys may change, so slices that were made before are
   * worth nothing. Throws RdmaError EBUSY while a window is bound to it.
   */
  reregister(changes: Changes): void
}

/** A region of all memory of the program: any buffer is named by it, with no registration of its own. */
export interface WholeRegion extends Disposable {
  /** Handle of the object, as calls and `device.handles` name it. */
  readonly handle: number
  /** Local key, 32 bits. */
  readonly lkey: number
  /** Remote key, 32 bits. */
  readonly rkey: number
  /** Bytes of a buffer, as `MemoryRegion.slice`. The buffer must not be resized or transferred from then on. */
  slice(buffer: Uint8Array, offset?: number, length?: number): Slice
  /** Bytes of a buffer as peers name them, as `MemoryRegion.remote`. */
  remote(buffer: Uint8Array, offset?: number, length?: number): RemoteMemory
  /** All attributes, as the class declares them. Throws RdmaError. */
  query(): Out<typeof Mr.methods.query>
  /** Destroys it; again it does nothing. Throws RdmaError EBUSY while it is used. */
  close(): void
}

/** Options of `pd.registerFile`. */
export interface FileRegionOptions {
  /** Where in the file it begins, bytes; default 0. */
  readonly offset?: number
  /** Bytes. */
  readonly length: number
  /** Rights; default: local writing. */
  readonly access?: Access
}

const flags = AccessFlags.values

export const accessWords: Words<Access> = {
  localWrite: true,
  remoteRead: true,
  remoteWrite: true,
  remoteAtomic: true,
  flushGlobal: true,
  flushPersistent: true,
  window: true,
  zeroBased: true,
}
const fileWords: Words<FileRegionOptions> = { offset: true, length: true, access: true }
const changeWords: Words<Changes> = { access: true, pd: true }

/** ibv_access_flags of the rights. */
export const accessFlags = (call: string, access: Access, localWrite: boolean): number => {
  checkOptions(call, 'access', access, accessWords)
  return (
    ((access.localWrite ?? localWrite) ? flags.LOCAL_WRITE : 0) |
    (access.remoteRead ? flags.REMOTE_READ : 0) |
    (access.remoteWrite ? flags.REMOTE_WRITE : 0) |
    (access.remoteAtomic ? flags.REMOTE_ATOMIC : 0) |
    (access.flushGlobal ? flags.FLUSH_GLOBAL : 0) |
    (access.flushPersistent ? flags.FLUSH_PERSISTENT : 0) |
    (access.window ? flags.MW_BIND : 0) |
    (access.zeroBased ? flags.ZERO_BASED : 0)
  )
}

/** What is made of a closed region would fail later, at its key, and take the connection along. */
const checkOpen = (call: string, { isOpen }: HeldObject): void => {
  if (!isOpen) throw isClosed(call)
}

/** A slice that knows its device, and never changes: requests need not check it. */
class DeviceSlice implements Slice {
  readonly lo: number
  readonly hi: number
  readonly length: number
  readonly lkey: number
  readonly #kit: DeviceContext

  constructor(kit: DeviceContext, start: bigint, length: number, lkey: number) {
    this.lo = Number(start & 0xffffffffn)
    this.hi = Number(start >> 32n)
    this.length = length
    this.lkey = lkey
    this.#kit = kit
    Object.freeze(this)
  }

  /** Whether it is a slice of the device of `kit`. Hot. */
  static isOf(value: unknown, kit: DeviceContext): value is DeviceSlice {
    return value instanceof DeviceSlice && value.#kit === kit
  }

  /** Whether it is one of another device; a copy of a slice does not know. */
  static isForeign(value: unknown, kit: DeviceContext): boolean {
    return value instanceof DeviceSlice && value.#kit !== kit
  }
}

inspectAs<DeviceSlice>(
  DeviceSlice.prototype,
  'Slice',
  ({ lo, hi, length, lkey }) => ({ address: addressHex((BigInt(hi) << 32n) | BigInt(lo)), length, lkey }),
  ({ length }) => length !== undefined,
)

export const isSliceOf = DeviceSlice.isOf
export const isForeignSlice = DeviceSlice.isForeign

class AnyRegion extends VerbsObject implements Region {
  readonly length: number
  readonly address: bigint
  lkey: number
  rkey: number

  constructor(kit: DeviceContext, handle: number, length: number, address: bigint, lkey: number, rkey: number) {
    super(kit, handle)
    this.length = length
    this.address = address
    this.lkey = lkey
    this.rkey = rkey
  }

  get cls(): typeof Mr {
    return Mr
  }

  slice(offset = 0, length?: number): Slice {
    checkOpen('mr.slice', this)
    const bytes = lengthOfPart('mr.slice', this.length, offset, length)
    return new DeviceSlice(this.kit, this.address + BigInt(offset), bytes, this.lkey)
  }

  remote(offset = 0, length?: number): RemoteMemory {
    checkOpen('mr.remote', this)
    const bytes = lengthOfPart('mr.remote', this.length, offset, length)
    return createRemoteMemory(this.address + BigInt(offset), this.rkey, bytes)
  }

  query() {
    return this.kit.carrier.call(Mr, 'query', this.handle, {}).out
  }

  override [SHOWN]() {
    const { handle, address, length, lkey, rkey } = this
    return { handle, address: addressHex(address), length, lkey, rkey }
  }
}

class BufferRegion extends AnyRegion implements MemoryRegion {
  readonly buffer: Uint8Array

  constructor(kit: DeviceContext, handle: number, buffer: Uint8Array, address: bigint, lkey: number, rkey: number) {
    super(kit, handle, buffer.length, address, lkey, rkey)
    this.buffer = buffer
  }

  reregister(changes: Changes): void {
    checkOptions('mr.reregister', 'changes', changes, changeWords)
    const { access, pd } = changes
    if (pd !== undefined) checkOwn(this.kit, 'mr.reregister', 'pd', pd)
    const { out } = this.kit.carrier.call(Mr, 'modify', this.handle, {
      ...(access !== undefined && { access: accessFlags('mr.reregister', access, true) }),
      ...(pd !== undefined && { pd: pd.handle }),
    })
    this.lkey = out.lkey
    this.rkey = out.rkey
  }

  protected override [RELEASED](): void {
    this.kit.carrier.forget(this.buffer)
  }
}
defineVerbsClass(BufferRegion, 'mr', 'MemoryRegion')
defineVerbsClass(AnyRegion, 'mr', 'Region')

/** A region of `buffer` in protection domain `pd`. */
export const regionPlan = (kit: DeviceContext, pd: Named, buffer: Uint8Array, access: Access): Plan<MemoryRegion> => {
  const { carrier } = kit
  checkOwn(kit, 'pd.register', 'pd', pd)
  checkBytes('pd.register', 'what is registered', buffer)
  const rights = accessFlags('pd.register', access, true)
  const address = carrier.addressOf(buffer)
  const wanted = {
    pd: pd.handle,
    start: address,
    iova: address,
    length: BigInt(buffer.length),
    access: rights,
  }
  return plan(
    Mr,
    wanted,
    ({ object: handle, out: { lkey, rkey } }) => new BufferRegion(kit, handle, buffer, address, lkey, rkey),
    () => carrier.forget(buffer),
  )
}

const { FILE, NULL, IMPLICIT } = MrKind.values

/** A region of another kind, whose bytes have addresses from `start` on. */
const otherPlan = (
  kit: DeviceContext,
  pd: Named,
  access: Access,
  length: number,
  more: Pick<In<typeof Mr.methods.create>, 'kind' | 'start' | 'file'>,
): Plan<Region> => {
  checkOwn(kit, 'mr.create', 'pd', pd)
  if (!Number.isSafeInteger(length) || length < 0)
    throw invalidArgument('mr.create', `length ${formatValue(length)} is no number of bytes`)
  const iova = more.start
  const rights = accessFlags('mr.create', access, true)
  const args = { pd: pd.handle, iova, length: BigInt(length), access: rights, ...more }
  return plan(
    Mr,
    args,
    ({ object: handle, out: { lkey, rkey } }) => new AnyRegion(kit, handle, length, iova, lkey, rkey),
  )
}

/** Reads as zeros, and takes what is written without keeping it. */
export const nullRegionPlan = (kit: DeviceContext, pd: Named, length: number, access: Access = {}): Plan<Region> =>
  otherPlan(kit, pd, access, length, { kind: NULL, start: 0n })

const checkOffset = (offset: number): void => {
  if (!Number.isSafeInteger(offset) || offset < 0)
    throw invalidArgument('mr.create', `offset ${formatValue(offset)} is no number of bytes`)
}

/** Part of a file; `file`: a descriptor of this process. */
export const fileRegionPlan = (
  kit: DeviceContext,
  pd: Named,
  file: number,
  options: FileRegionOptions,
): Plan<Region> => {
  checkOptions('mr.create', 'options', options, fileWords)
  const { offset = 0, length, access = {} } = options
  checkOffset(offset)
  return otherPlan(kit, pd, access, length, { kind: FILE, start: BigInt(offset), file })
}

class AllMemory extends VerbsObject implements WholeRegion {
  readonly lkey: number
  readonly rkey: number
  /** Addresses of the buffers that were named. */
  readonly #addresses = new Map<Uint8Array, bigint>()

  constructor(kit: DeviceContext, handle: number, lkey: number, rkey: number) {
    super(kit, handle)
    this.lkey = lkey
    this.rkey = rkey
  }

  get cls(): typeof Mr {
    return Mr
  }

  slice(buffer: Uint8Array, offset = 0, length?: number): Slice {
    checkOpen('mr.slice', this)
    checkBytes('mr.slice', 'the buffer', buffer)
    const bytes = lengthOfPart('mr.slice', buffer.length, offset, length)
    return new DeviceSlice(this.kit, this.#addressIn(buffer, offset), bytes, this.lkey)
  }

  remote(buffer: Uint8Array, offset = 0, length?: number): RemoteMemory {
    checkOpen('mr.remote', this)
    checkBytes('mr.remote', 'the buffer', buffer)
    const bytes = lengthOfPart('mr.remote', buffer.length, offset, length)
    return createRemoteMemory(this.#addressIn(buffer, offset), this.rkey, bytes)
  }

  query() {
    return this.kit.carrier.call(Mr, 'query', this.handle, {}).out
  }

  override [SHOWN]() {
    return { handle: this.handle, lkey: this.lkey, rkey: this.rkey }
  }

  #addressIn(buffer: Uint8Array, offset: number): bigint {
    let address = this.#addresses.get(buffer)
    if (address === undefined) {
      address = this.kit.carrier.addressOf(buffer)
      this.#addresses.set(buffer, address)
    }
    return address + BigInt(offset)
  }

  protected override [RELEASED](): void {
    for (const buffer of this.#addresses.keys()) this.kit.carrier.forget(buffer)
    this.#addresses.clear()
  }
}
defineVerbsClass(AllMemory, 'mr', 'WholeRegion')

export const wholeRegionPlan = (kit: DeviceContext, pd: Named, access: Access = {}): Plan<WholeRegion> => {
  checkOwn(kit, 'mr.create', 'pd', pd)
  const rights = accessFlags('mr.create', access, true)
  return plan(
    Mr,
    { pd: pd.handle, start: 0n, iova: 0n, length: 0n, access: rights, kind: IMPLICIT },
    ({ object: handle, out: { lkey, rkey } }) => new AllMemory(kit, handle, lkey, rkey),
  )
}
