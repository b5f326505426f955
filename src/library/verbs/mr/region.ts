/*
 * Registered memory: memory regions, and slices of regions, which are the scatter/gather elements of work requests.
 */
import { Mr } from '../../../spec/classes/mr.ts'
import { AccessFlags, MrKind } from '../../../spec/enums.ts'
import type { In, Out } from '../../../spec/schema/schema.ts'
import { checkOptions, type KnownOptions } from '../arguments/options.ts'
import { checkByteCount, checkBytes, closedError, invalidArgument, refused } from '../error.ts'
import { addressHex, inspectAs } from '../objects/show.ts'
import { defineVerbsClass, RELEASED, SHOWN, VerbsObject } from '../objects/verbs-object.ts'
import {
  checkObject,
  type DeviceContext,
  type LibraryObject,
  type ObjectReference,
  type Plan,
  plan,
  type Reference,
} from '../plan.ts'
import { type Lend, type LendOptions, lendPart } from './lend.ts'
import { createRemoteMemory, lengthOfPart, type RemoteMemory } from './remote-memory.ts'

/** Access rights of a region beside local read; the default is false except for `localWrite`. */
export interface Access {
  /** Local write, needed by receives, READs and atomics; default true. */
  readonly localWrite?: boolean | undefined
  /** Peers may READ. */
  readonly remoteRead?: boolean | undefined
  /** Peers may WRITE. */
  readonly remoteWrite?: boolean | undefined
  /** Peers may execute atomics. */
  readonly remoteAtomic?: boolean | undefined
  /** A peer's FLUSH may request global visibility. */
  readonly flushGlobal?: boolean | undefined
  /** A peer's FLUSH may request persistence. */
  readonly flushPersistent?: boolean | undefined
  /** Memory windows may be bound to the region. */
  readonly mwBind?: boolean | undefined
  /** Zero-based: the address of the first byte of the region, or of a type 2 window, is 0. */
  readonly zeroBased?: boolean | undefined
  /** WRITEs may pass each other until one completes; by default they do only with torment of kind `relaxed`. */
  readonly relaxedOrdering?: boolean | undefined
}

/** A scatter/gather element: bytes of a registered region. Can be posted any number of times. */
export interface Slice {
  /** Lower 32 bits of the address. */
  readonly lo: number
  /** Upper 32 bits of the address. */
  readonly hi: number
  /** Length in bytes. */
  readonly length: number
  /** lkey of the region. */
  readonly lkey: number
}

/** Registered memory of any kind except the program's whole memory (`WholeRegion`). */
export interface Region extends Disposable {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Length in bytes. */
  readonly length: number
  /** Local key, 32 bits. */
  readonly lkey: number
  /** Remote key, 32 bits; 0 without remote rights. */
  readonly rkey: number
  /** Address of the first byte in work requests and for peers. */
  readonly address: bigint
  /** `length` bytes from `offset`; without arguments the whole region. Throws RdmaError EINVAL outside the region. */
  slice(offset?: number, length?: number): Slice
  /**
   * Address, rkey and length for a peer's requests; arguments as for `slice`. Throws RdmaError EACCES for a region
   * without rights for peers.
   */
  remote(offset?: number, length?: number): RemoteMemory
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<typeof Mr.methods.query>
  /** Deregisters the region. Throws RdmaError EBUSY while a window is bound to the region. */
  close(): void
}

/** Changes of `MemoryRegion.reregister`. */
export interface RegionChanges {
  /** New rights; default: unchanged. */
  readonly access?: Access | undefined
  /** New protection domain; default: unchanged. */
  readonly pd?: Reference<'pd'> | undefined
}

/** A region of a buffer. */
export interface MemoryRegion<B extends Uint8Array = Uint8Array> extends Region {
  /** The registered buffer. */
  readonly buffer: B
  /**
   * Re-registers the region with other rights or in another protection domain. `rkey` and `address` may change: do not
   * use earlier slices and remote memory. Throws RdmaError EBUSY while a window is bound to the region.
   */
  reregister(changes: RegionChanges): void
  /**
   * Says that peers may access bytes of the region from now on, before a peer is told of them. Once bytes of a region
   * were lent, an access of a peer to others of it is the finding `not-lent` of a checked device (`open({ check })`); a
   * device without a check does nothing. Throws RdmaError EINVAL.
   */
  lend(options: LendOptions): Lend
}

/** A region of the program's whole memory: it covers every buffer. */
export interface WholeRegion extends Disposable {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Local key, 32 bits. */
  readonly lkey: number
  /** Remote key, 32 bits; 0 without remote rights. */
  readonly rkey: number
  /**
   * As `MemoryRegion.slice`, of any buffer. The buffer must not be resized or transferred afterwards. The region keeps
   * the buffer in memory until the region is closed.
   */
  slice(buffer: Uint8Array, offset?: number, length?: number): Slice
  /** As `MemoryRegion.remote`, of any buffer. */
  remote(buffer: Uint8Array, offset?: number, length?: number): RemoteMemory
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<typeof Mr.methods.query>
  /** Deregisters the region. Throws RdmaError EBUSY while a window is bound to the region. */
  close(): void
}

/** Options of `pd.registerFile`. */
export interface FileRegionOptions {
  /** Offset in the file in bytes; default 0. */
  readonly offset?: number | undefined
  /** Length in bytes. */
  readonly length: number
  /** Access rights; default: local write. */
  readonly access?: Access | undefined
}

const flags = AccessFlags.values

/** The names of the rights of peers. */
export const peerAccessNames: KnownOptions<Omit<Access, 'localWrite' | 'mwBind' | 'zeroBased' | 'relaxedOrdering'>> = {
  remoteRead: 'flag',
  remoteWrite: 'flag',
  remoteAtomic: 'flag',
  flushGlobal: 'flag',
  flushPersistent: 'flag',
}
const accessOptionNames: KnownOptions<Access> = {
  localWrite: 'flag',
  ...peerAccessNames,
  mwBind: 'flag',
  zeroBased: 'flag',
  relaxedOrdering: 'flag',
}
const fileOptionNames: KnownOptions<FileRegionOptions> = { offset: true, length: true, access: true }
const changeOptionNames: KnownOptions<RegionChanges> = { access: true, pd: true }

/** The rights as ibv_access_flags. `known`: the names of the rights that `call` grants. Throws RdmaError EINVAL. */
export const accessFlags = (
  call: string,
  access: Access,
  localWriteDefault: boolean,
  known: object = accessOptionNames,
): number => {
  checkOptions(call, 'access', access, known)
  return (
    ((access.localWrite ?? localWriteDefault) ? flags.LOCAL_WRITE : 0) |
    (access.remoteRead ? flags.REMOTE_READ : 0) |
    (access.remoteWrite ? flags.REMOTE_WRITE : 0) |
    (access.remoteAtomic ? flags.REMOTE_ATOMIC : 0) |
    (access.flushGlobal ? flags.FLUSH_GLOBAL : 0) |
    (access.flushPersistent ? flags.FLUSH_PERSISTENT : 0) |
    (access.mwBind ? flags.MW_BIND : 0) |
    (access.zeroBased ? flags.ZERO_BASED : 0) |
    (access.relaxedOrdering ? flags.RELAXED_ORDERING : 0)
  )
}

/** Throws RdmaError EINVAL for a closed region: a request with a slice of it would move the queue pair to ERR. */
const checkOpen = (call: string, { isOpen }: LibraryObject): void => {
  if (!isOpen) throw closedError(call)
}

/** Throws RdmaError EACCES for a region without rights for peers: it has rkey 0, which every peer refuses. */
const checkRemoteRights = ({ rkey }: { readonly rkey: number }): void => {
  if (rkey === 0)
    throw refused(
      'EACCES',
      'mr.remote',
      'the region was registered without rights for peers',
      'register it with { remoteRead: true }, remoteWrite or remoteAtomic',
    )
}

/** Maximum length of a slice: a scatter/gather element has a length of 32 bits. */
const MAX_SLICE_BYTES = 0xffff_ffff

/** The length of a slice. `length`: undefined for the rest of `bytes`. Throws RdmaError EINVAL. */
const sliceLength = (bytes: number, offset: number, length: number | undefined): number => {
  const sliceBytes = lengthOfPart('mr.slice', bytes, offset, length)
  if (sliceBytes > MAX_SLICE_BYTES)
    throw invalidArgument(
      'mr.slice',
      `${sliceBytes} bytes do not fit a scatter/gather element`,
      `give a length up to ${MAX_SLICE_BYTES}`,
    )
  return sliceBytes
}

/** A slice from `slice()`: immutable, so that requests check only the device. */
class DeviceSlice implements Slice {
  readonly lo: number
  readonly hi: number
  readonly length: number
  readonly lkey: number
  readonly #context: DeviceContext

  constructor(context: DeviceContext, start: bigint, length: number, lkey: number) {
    this.lo = Number(start & 0xffffffffn)
    this.hi = Number(start >> 32n)
    this.length = length
    this.lkey = lkey
    this.#context = context
    Object.freeze(this)
  }

  /** Whether `value` is a slice of this device. Hot. */
  static isOf(value: unknown, context: DeviceContext): value is DeviceSlice {
    return value instanceof DeviceSlice && value.#context === context
  }

  /** Whether `value` is a slice of another device. False for a copy of a slice, because its device is unknown. */
  static isForeign(value: unknown, context: DeviceContext): boolean {
    return value instanceof DeviceSlice && value.#context !== context
  }
}

inspectAs<DeviceSlice>(
  DeviceSlice.prototype,
  'Slice',
  ({ lo, hi, length, lkey }) => ({ address: addressHex((BigInt(hi) << 32n) | BigInt(lo)), length, lkey }),
  // false for the prototype
  ({ length }) => length !== undefined,
)

export const isSliceOf = DeviceSlice.isOf
export const isForeignSlice = DeviceSlice.isForeign

/** The address of a region's first byte. `iova`: as passed to `create`. */
const firstAddress = (iova: bigint, { zeroBased = false }: Access): bigint => (zeroBased ? 0n : iova)

/** A region of any kind but IMPLICIT. */
class RangeRegion extends VerbsObject implements Region {
  readonly length: number
  address: bigint
  lkey: number
  rkey: number

  constructor(context: DeviceContext, handle: number, length: number, address: bigint, lkey: number, rkey: number) {
    super(context, handle)
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
    const bytes = sliceLength(this.length, offset, length)
    return new DeviceSlice(this.context, this.address + BigInt(offset), bytes, this.lkey)
  }

  remote(offset = 0, length?: number): RemoteMemory {
    checkOpen('mr.remote', this)
    checkRemoteRights(this)
    const bytes = lengthOfPart('mr.remote', this.length, offset, length)
    return createRemoteMemory(this.address + BigInt(offset), this.rkey, bytes)
  }

  query() {
    return this.context.carrier.call(Mr, 'query', this.handle, {}).out
  }

  override [SHOWN]() {
    const { handle, address, length, lkey, rkey } = this
    return { handle, address: addressHex(address), length, lkey, rkey }
  }
}

class BufferRegion<B extends Uint8Array> extends RangeRegion implements MemoryRegion<B> {
  readonly buffer: B
  readonly #iova: bigint

  constructor(
    context: DeviceContext,
    handle: number,
    buffer: B,
    iova: bigint,
    address: bigint,
    lkey: number,
    rkey: number,
  ) {
    super(context, handle, buffer.length, address, lkey, rkey)
    this.buffer = buffer
    this.#iova = iova
  }

  reregister(changes: RegionChanges): void {
    checkOptions('mr.reregister', 'changes', changes, changeOptionNames)
    const { access, pd } = changes
    if (pd !== undefined) checkObject(this.context, 'mr.reregister', 'pd', pd)
    const { out } = this.context.carrier.call(Mr, 'modify', this.handle, {
      ...(access !== undefined && { access: accessFlags('mr.reregister', access, true) }),
      ...(pd !== undefined && { pd: pd.handle }),
    })
    if (access !== undefined) this.address = firstAddress(this.#iova, access)
    this.lkey = out.lkey
    this.rkey = out.rkey
  }

  lend(options: LendOptions): Lend {
    checkOpen('mr.lend', this)
    return lendPart(this.context, this.buffer, this.#iova, options)
  }

  protected override [RELEASED](): void {
    this.context.carrier.forget(this.buffer)
  }
}
defineVerbsClass(BufferRegion, 'mr', 'MemoryRegion')
defineVerbsClass(RangeRegion, 'mr', 'Region')

export const regionPlan = <B extends Uint8Array>(
  context: DeviceContext,
  pd: ObjectReference,
  buffer: B,
  access: Access,
): Plan<MemoryRegion<B>> => {
  const { carrier } = context
  checkObject(context, 'pd.register', 'pd', pd)
  checkBytes('pd.register', 'buffer', buffer)
  if (buffer.length === 0) throw invalidArgument('pd.register', 'buffer has no bytes', 'give at least 1 byte')
  const rights = accessFlags('pd.register', access, true)
  const iova = carrier.addressOf(buffer, 'pd.register')
  const address = firstAddress(iova, access)
  const args = {
    pd: pd.handle,
    start: iova,
    iova,
    length: BigInt(buffer.length),
    access: rights,
  }
  return plan(
    Mr,
    args,
    ({ object: handle, out: { lkey, rkey } }) => new BufferRegion(context, handle, buffer, iova, address, lkey, rkey),
    () => carrier.forget(buffer),
  )
}

const { FILE, NULL, IMPLICIT } = MrKind.values

/** A region of kind FILE or NULL. `kindArgs`: the arguments of the kind; the region's iova is `kindArgs.start`. */
const rangePlan = (
  context: DeviceContext,
  pd: ObjectReference,
  access: Access,
  length: number,
  kindArgs: Pick<In<typeof Mr.methods.create>, 'kind' | 'start' | 'file'>,
): Plan<Region> => {
  checkObject(context, 'mr.create', 'pd', pd)
  checkByteCount('mr.create', 'length', length)
  const iova = kindArgs.start
  const rights = accessFlags('mr.create', access, true)
  const args = { pd: pd.handle, iova, length: BigInt(length), access: rights, ...kindArgs }
  return plan(
    Mr,
    args,
    ({ object: handle, out: { lkey, rkey } }) =>
      new RangeRegion(context, handle, length, firstAddress(iova, access), lkey, rkey),
  )
}

/** A region of kind NULL: READs return zeros, WRITEs are discarded. */
export const nullRegionPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  length: number,
  access: Access = {},
): Plan<Region> => rangePlan(context, pd, access, length, { kind: NULL, start: 0n })

/** A region of kind FILE; `file`: a file descriptor of this process. */
export const fileRegionPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  file: number,
  options: FileRegionOptions,
): Plan<Region> => {
  checkOptions('mr.create', 'options', options, fileOptionNames)
  const { offset = 0, length, access = {} } = options
  checkByteCount('mr.create', 'offset', offset)
  return rangePlan(context, pd, access, length, { kind: FILE, start: BigInt(offset), file })
}

/** A region of kind IMPLICIT. */
class ImplicitRegion extends VerbsObject implements WholeRegion {
  readonly lkey: number
  readonly rkey: number
  /** The registrations of the buffers used so far. One for all views of an ArrayBuffer: programs make many views. */
  readonly #registrations = new Map<ArrayBufferLike, { readonly bytes: Uint8Array; readonly address: bigint }>()

  constructor(context: DeviceContext, handle: number, lkey: number, rkey: number) {
    super(context, handle)
    this.lkey = lkey
    this.rkey = rkey
  }

  get cls(): typeof Mr {
    return Mr
  }

  slice(buffer: Uint8Array, offset = 0, length?: number): Slice {
    checkOpen('mr.slice', this)
    checkBytes('mr.slice', 'the buffer', buffer)
    const bytes = sliceLength(buffer.length, offset, length)
    return new DeviceSlice(this.context, this.#addressIn('mr.slice', buffer, offset), bytes, this.lkey)
  }

  remote(buffer: Uint8Array, offset = 0, length?: number): RemoteMemory {
    checkOpen('mr.remote', this)
    checkRemoteRights(this)
    checkBytes('mr.remote', 'the buffer', buffer)
    const bytes = lengthOfPart('mr.remote', buffer.length, offset, length)
    return createRemoteMemory(this.#addressIn('mr.remote', buffer, offset), this.rkey, bytes)
  }

  query() {
    return this.context.carrier.call(Mr, 'query', this.handle, {}).out
  }

  override [SHOWN]() {
    return { handle: this.handle, lkey: this.lkey, rkey: this.rkey }
  }

  #addressIn(callName: string, view: Uint8Array, offset: number): bigint {
    const { buffer, byteOffset, byteLength } = view
    let registration = this.#registrations.get(buffer)
    if (registration === undefined) {
      // `addressOf` refuses a view whose buffer was transferred; a new view cannot be made.
      const bytes = byteLength === buffer.byteLength ? view : new Uint8Array(buffer)
      registration = { bytes, address: this.context.carrier.addressOf(bytes, callName) }
      this.#registrations.set(buffer, registration)
    }
    return registration.address + BigInt(byteOffset + offset)
  }

  protected override [RELEASED](): void {
    for (const { bytes } of this.#registrations.values()) this.context.carrier.forget(bytes)
    this.#registrations.clear()
  }
}
defineVerbsClass(ImplicitRegion, 'mr', 'WholeRegion')

export const wholeRegionPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  access: Access = {},
): Plan<WholeRegion> => {
  checkObject(context, 'mr.create', 'pd', pd)
  const rights = accessFlags('mr.create', access, true)
  return plan(
    Mr,
    { pd: pd.handle, start: 0n, iova: 0n, length: 0n, access: rights, kind: IMPLICIT },
    ({ object: handle, out: { lkey, rkey } }) => new ImplicitRegion(context, handle, lkey, rkey),
  )
}
