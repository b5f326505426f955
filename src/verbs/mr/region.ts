/*
 * Registered memory in the library: regions of buffers, and slices of them, with which work requests name bytes.
 */
import { Mr } from '../../spec/classes/mr.ts'
import { AccessFlags, MrKind } from '../../spec/enums.ts'
import type { In, Out } from '../../spec/schema/schema.ts'
import { checkOptions, type KnownOptions } from '../checks/options.ts'
import { checkBytes, formatValue, invalidArgument } from '../error.ts'
import { addressHex, inspectAs } from '../objects/show.ts'
import { defineVerbsClass, RELEASED, SHOWN, VerbsObject } from '../objects/verbs-object.ts'
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
import { createRemoteMemory, lengthOfPart, type RemoteMemory } from './remote-memory.ts'

/** Access rights of a region beside local read. */
export interface Access {
  /** Local write, needed by receives and READs; default true. */
  readonly localWrite?: boolean
  /** Peers may READ. */
  readonly remoteRead?: boolean
  /** Peers may WRITE. */
  readonly remoteWrite?: boolean
  /** Peers may execute atomics. */
  readonly remoteAtomic?: boolean
  /** A peer's FLUSH may request global visibility. */
  readonly flushGlobal?: boolean
  /** A peer's FLUSH may request persistence. */
  readonly flushPersistent?: boolean
  /** Memory windows may be bound to it. */
  readonly window?: boolean
  /** Zero-based: for a type 2 window, the address of its first byte is 0. */
  readonly zeroBased?: boolean
}

/** A slice: bytes of a registered region. Create it once and post it any number of times. */
export interface Slice {
  /** Lower 32 bits of the address. */
  readonly lo: number
  /** Upper 32 bits of the address. */
  readonly hi: number
  /** Length in bytes. */
  readonly length: number
  /** lkey of its region. */
  readonly lkey: number
}

/** Registered memory of any kind. */
export interface Region extends Disposable {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Length in bytes. */
  readonly length: number
  /** Local key, 32 bits. */
  readonly lkey: number
  /** Remote key, 32 bits. */
  readonly rkey: number
  /** Address of its first byte in work requests and for peers. */
  readonly address: bigint
  /** `length` bytes from `offset`; without arguments the whole region. Throws RdmaError EINVAL outside the region. */
  slice(offset?: number, length?: number): Slice
  /** The data with which a peer can read or write the region, or a part of it (as for `slice`). */
  remote(offset?: number, length?: number): RemoteMemory
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<typeof Mr.methods.query>
  /** Deregisters it. Throws RdmaError EBUSY while a window is bound to it. */
  close(): void
}

interface Changes {
  readonly access?: Access
  readonly pd?: Reference<'pd'>
}

/** A region of a buffer. */
export interface MemoryRegion extends Region {
  /** The registered buffer. */
  readonly buffer: Uint8Array
  /**
   * Re-registers it with other rights or in another protection domain. Keys may change, so earlier slices become
   * invalid. Throws RdmaError EBUSY while a window is bound to it.
   */
  reregister(changes: Changes): void
}

/** A region of the program's whole memory: it covers every buffer, without further registration. */
export interface WholeRegion extends Disposable {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Local key, 32 bits. */
  readonly lkey: number
  /** Remote key, 32 bits. */
  readonly rkey: number
  /** A slice of a buffer, like `MemoryRegion.slice`. The buffer must not be resized or transferred afterwards. */
  slice(buffer: Uint8Array, offset?: number, length?: number): Slice
  /** Bytes of a buffer for a peer, like `MemoryRegion.remote`. */
  remote(buffer: Uint8Array, offset?: number, length?: number): RemoteMemory
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<typeof Mr.methods.query>
  /** Deregisters it; later calls do nothing. Throws RdmaError EBUSY while it is in use. */
  close(): void
}

/** Options of `pd.registerFile`. */
export interface FileRegionOptions {
  /** Offset in the file in bytes; default 0. */
  readonly offset?: number
  /** Length in bytes. */
  readonly length: number
  /** Access rights; default: local write. */
  readonly access?: Access
}

const flags = AccessFlags.values

export const accessOptionNames: KnownOptions<Access> = {
  localWrite: true,
  remoteRead: true,
  remoteWrite: true,
  remoteAtomic: true,
  flushGlobal: true,
  flushPersistent: true,
  window: true,
  zeroBased: true,
}
const fileOptionNames: KnownOptions<FileRegionOptions> = { offset: true, length: true, access: true }
const changeOptionNames: KnownOptions<Changes> = { access: true, pd: true }

/** ibv_access_flags of the rights. */
export const accessFlags = (call: string, access: Access, localWrite: boolean): number => {
  checkOptions(call, 'access', access, accessOptionNames)
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

/** Slices of a closed region would fail later with a key error, which breaks the connection. */
const checkOpen = (call: string, { isOpen }: HeldObject): void => {
  if (!isOpen) throw isClosed(call)
}

/** A slice that records its device and is immutable, so that requests need not check it. */
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

  /** Whether it is a slice of this device. Hot. */
  static isOf(value: unknown, kit: DeviceContext): value is DeviceSlice {
    return value instanceof DeviceSlice && value.#kit === kit
  }

  /** Whether it is a slice of another device; unknown for a copy of a slice. */
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
    checkOptions('mr.reregister', 'changes', changes, changeOptionNames)
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
  checkBytes('pd.register', 'buffer', buffer)
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

/** A region of another kind, with addresses from `start`. */
const otherPlan = (
  kit: DeviceContext,
  pd: Named,
  access: Access,
  length: number,
  more: Pick<In<typeof Mr.methods.create>, 'kind' | 'start' | 'file'>,
): Plan<Region> => {
  checkOwn(kit, 'mr.create', 'pd', pd)
  if (!Number.isSafeInteger(length) || length < 0)
    throw invalidArgument('mr.create', `length ${formatValue(length)} is not a number of bytes`)
  const iova = more.start
  const rights = accessFlags('mr.create', access, true)
  const args = { pd: pd.handle, iova, length: BigInt(length), access: rights, ...more }
  return plan(
    Mr,
    args,
    ({ object: handle, out: { lkey, rkey } }) => new AnyRegion(kit, handle, length, iova, lkey, rkey),
  )
}

/** Reads return zeros, writes are discarded. */
export const nullRegionPlan = (kit: DeviceContext, pd: Named, length: number, access: Access = {}): Plan<Region> =>
  otherPlan(kit, pd, access, length, { kind: NULL, start: 0n })

const checkOffset = (offset: number): void => {
  if (!Number.isSafeInteger(offset) || offset < 0)
    throw invalidArgument('mr.create', `offset ${formatValue(offset)} is not a number of bytes`)
}

/** Part of a file; `file`: a descriptor of this process. */
export const fileRegionPlan = (
  kit: DeviceContext,
  pd: Named,
  file: number,
  options: FileRegionOptions,
): Plan<Region> => {
  checkOptions('mr.create', 'options', options, fileOptionNames)
  const { offset = 0, length, access = {} } = options
  checkOffset(offset)
  return otherPlan(kit, pd, access, length, { kind: FILE, start: BigInt(offset), file })
}

class AllMemory extends VerbsObject implements WholeRegion {
  readonly lkey: number
  readonly rkey: number
  /** Addresses of the buffers used so far. */
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
