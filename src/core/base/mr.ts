/*
 * Core's own memory regions (IBA 10.6.3, R22): checks of a registration, and keys.
 *
 * The checks, in Linux' order (test/fixtures/abi/raw.out):
 * - EINVAL: address and iova have different page offsets;
 * - EINVAL: unknown access bits; bits 20 to 29 are optional and ignored;
 * - EINVAL: remote write or atomic without local write;
 * - EINVAL: the range reaches the end of the address space, or is empty at a page boundary, or is not in the file;
 * - EFAULT: pages do not exist or do not permit the access.
 *
 * If a region has any remote access, its rkey equals its lkey, unless torment separates them; otherwise its rkey is 0.
 * Addresses of a region with ZERO_BASED start at 0, as ibv_reg_mr's manual says; the soft device of Linux 6.1 ignores
 * the flag, that of 6.12 refuses it. A region with bound windows can be neither deregistered (10.6.7.2.6) nor
 * reregistered.
 *
 * As on Linux, an on-demand region of 2^64 - 1 bytes at address 0 is of kind IMPLICIT, if the device permits that.
 */
import { Mr } from '../../spec/classes/mr.ts'
import { AccessFlags, MrKind, OdpCaps, REMOTE_RIGHTS } from '../../spec/enums.ts'
import { callError, gone } from '../../spec/errno.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'
import { because, coded, type Reason, the } from '../../spec/reason.ts'
import type { In } from '../../spec/schema/schema.ts'
import { driverClass } from '../devices/driver.ts'
import { type AddressSpace, nullMemory } from '../memory/address-space.ts'
import type { DeviceMemory } from '../memory/device-memory.ts'
import { OnDemandSpace } from '../memory/on-demand.ts'
import {
  addRegion,
  copyToRemote,
  type MemoryTable,
  relocateRegion,
  rkeyOf,
  separateKeys,
} from '../memory/region-table.ts'
import { reportUnmappedRegion } from '../memory/unmapped-regions.ts'
import { removeRegion, unmapRegion } from '../memory/windows.ts'
import { type CallContext, type CoreObject, type Device, type FileMemory, Lifecycle } from '../model.ts'
import { addParent, dropParent } from '../objects/lifetime.ts'
import { orRelease, take } from '../objects/limits.ts'
import { pdOf } from '../resources.ts'

export interface MrState {
  /** Row of the device's MemoryTable. */
  readonly row: number
  /** The region's first address in work requests, unless the region is zero-based. */
  readonly iova: bigint
  /** Undefined for kind MEMORY. */
  readonly special?: { readonly kind: number; readonly file?: FileMemory }
  readonly unregister?: () => void
}

interface Range {
  readonly start: bigint
  readonly length: bigint
  readonly iova: bigint
}

const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_ATOMIC, MW_BIND, ON_DEMAND, ZERO_BASED, FLUSH_PERSISTENT } =
  AccessFlags.values
/** Rights with which peers may write, or a window may permit them to. */
const SHARE_FLAGS = REMOTE_WRITE | REMOTE_ATOMIC | MW_BIND
/** Rights that require writable pages. */
const WRITE_FLAGS = LOCAL_WRITE | SHARE_FLAGS
const KNOWN_FLAGS = Object.values(AccessFlags.values).reduce((all, bit) => all | bit, 0)

const { MEMORY, FILE, NULL, IMPLICIT, DEVICE, INDIRECT } = MrKind.values

const PAGE_OFFSET_MASK = BigInt(PAGE_BYTES - 1)
const ADDRESS_LIMIT = 1n << 64n

const hex = (value: bigint | number): string => `0x${(typeof value === 'number' ? value >>> 0 : value).toString(16)}`
const right = (name: keyof typeof AccessFlags.values) => the.constant(AccessFlags.name, name)

const refuse = (method: string, reason: Reason | string): never => {
  throw callError.EINVAL`${the.method(`mr.${method}`)}: ${reason}`
}

const checkAccess = (method: string, device: Device, access: number): void => {
  if (access & ~KNOWN_FLAGS)
    refuse(
      method,
      coded('unknown-bits')`access has unknown bits ${hex(access & ~KNOWN_FLAGS)}, known are ${hex(KNOWN_FLAGS)}`,
    )
  if (access & (REMOTE_WRITE | REMOTE_ATOMIC) && !(access & LOCAL_WRITE))
    refuse(
      method,
      coded(
        'needs-local-write',
      )`access ${hex(access)} has remote write or atomic without ${right('LOCAL_WRITE')}: add ${right('LOCAL_WRITE')}`,
    )
  if (access & ON_DEMAND && device.extended.odpGeneralCaps === 0n)
    throw callError.EOPNOTSUPP`${the.method(`mr.${method}`)}: access ${hex(access)}: device ${device.name} has no on-demand paging`
  if (access & FLUSH_PERSISTENT)
    refuse(
      method,
      because`access ${hex(access)}: memory of a process is not persistent, omit ${right('FLUSH_PERSISTENT')}`,
    )
}

const checkOffsets = (method: string, { start, iova }: Range): void => {
  if ((start & PAGE_OFFSET_MASK) !== (iova & PAGE_OFFSET_MASK))
    refuse(method, `iova ${hex(iova)} must have the same offset in its page as address ${hex(start)}`)
}

const checkRange = (method: string, { start, length, iova }: Range): void => {
  // As on Linux (test/fixtures/abi): an empty range inside a page covers that page, at the start of a page it covers
  // none.
  if (length === 0n && (iova & PAGE_OFFSET_MASK) === 0n)
    refuse(method, `length is 0 at iova ${hex(iova)}, the start of a page`)
  // As ib_umem_get: the last page belongs to no region.
  if (start + length > ADDRESS_LIMIT - BigInt(PAGE_BYTES))
    refuse(method, `${length} bytes at address ${hex(start)} reach the end of the address space`)
  if (iova + length >= ADDRESS_LIMIT)
    refuse(method, `${length} bytes at iova ${hex(iova)} reach the end of the address space`)
}

/** Linux counts the pages of a registration in 32 bits (ib_umem_get). */
const MAX_PAGES = 0xffff_ffffn

const checkPageCount = (method: string, { start, length }: Range): void => {
  const pages = (start + length + PAGE_OFFSET_MASK) / BigInt(PAGE_BYTES) - start / BigInt(PAGE_BYTES)
  if (pages > MAX_PAGES) refuse(method, `${length} bytes have ${pages} pages; a region has at most ${MAX_PAGES}`)
}

/** What Linux checks before it looks at the descriptor (UVERBS_METHOD_REG_DMABUF_MR, ib_umem_dmabuf_get). */
const checkBeforeFile = (device: Device, range: Range, access: number): void => {
  checkOffsets('create', range)
  checkAccess('create', device, access)
  if (range.start + range.length >= ADDRESS_LIMIT)
    refuse('create', `${range.length} bytes at offset ${hex(range.start)} end above 2^64`)
}

/**
 * Checks range and access of a region; `kind` is undefined for kind MEMORY. The pages of an implicit region are checked
 * at each access. `partOf` has checked the range of one of device memory, which may be empty.
 */
const checkPlace = (method: string, device: Device, kind: number | undefined, range: Range, access: number): void => {
  if (kind !== DEVICE) checkOffsets(method, range)
  else if ((access & ON_DEMAND) !== 0)
    refuse(
      method,
      because`access ${hex(access)}: memory of the device has no on-demand paging, omit ${right('ON_DEMAND')}`,
    )
  checkAccess(method, device, access)
  if (kind !== IMPLICIT && kind !== DEVICE) checkRange(method, range)
  if (kind === undefined && (access & ON_DEMAND) === 0) checkPageCount(method, range)
}

const permits = (memory: AddressSpace, { start, length }: Range, needsWrite: boolean): boolean =>
  Number.isSafeInteger(Number(length)) &&
  memory.check(Number(start >> 32n), Number(start & 0xffffffffn), Number(length), needsWrite)

/** Checks that the pages exist and permit the access; returns the length as a Number. `kind`: see `checkPlace`. */
const checkPages = (
  method: string,
  memory: AddressSpace,
  range: Range,
  access: number,
  kind: number | undefined,
): number => {
  const { start, length } = range
  const needsWrite = (access & WRITE_FLAGS) !== 0
  if (permits(memory, range, needsWrite)) return Number(length)
  if (kind === FILE && !permits(memory, range, false))
    refuse(method, `${length} bytes at ${hex(start)} are not in the file`)
  throw callError.EFAULT`${the.method(`mr.${method}`)}: the ${length} bytes at ${hex(start)} are not all mapped, or not ${needsWrite ? 'writable' : 'readable'}`
}

const baseOf = ({ iova }: Range, access: number): bigint => (access & ZERO_BASED ? 0n : iova)

/** Bytes of the pages of a range. */
const pinnedBytes = (start: bigint, bytes: number): number => {
  const offset = Number(start & PAGE_OFFSET_MASK)
  return Math.ceil((offset + bytes) / PAGE_BYTES) * PAGE_BYTES
}

/**
 * Registers the range in its address space, and takes its pages from the device's budget. Returns the function that
 * ends the registration; undefined if the space needs none. The range of an on-demand region is not registered: each
 * access uses the pages that are mapped then.
 */
const registerRange = (
  memory: AddressSpace,
  { start }: Range,
  bytes: number,
  access: number,
  { name, memory: table, core, limits }: Device,
  object: CoreObject<MrState>,
): (() => void) | undefined => {
  if (access & ON_DEMAND) return undefined
  const budget = limits.get('max_pinned')
  const unpin =
    budget &&
    take(
      budget,
      object.context?.account,
      because`${the.method('mr.create')}: device ${name}`,
      pinnedBytes(start, bytes),
    )
  const register = () =>
    memory.register?.(Number(start >> 32n), Number(start & 0xffffffffn), bytes, () => {
      unmapRegion(table, object.state.row)
      reportUnmappedRegion(core, object)
    })
  if (unpin === undefined) return register()
  const unregister = orRelease(unpin, register)
  return () => {
    unpin()
    unregister?.()
  }
}

/** Tells the address space that peers may write to the range, if they may. */
const shareRange = (memory: AddressSpace, { start }: Range, bytes: number, access: number): void => {
  if ((access & SHARE_FLAGS) !== 0) memory.share?.(Number(start >> 32n), Number(start & 0xffffffffn), bytes)
}

const requireNoWindows = (method: string, table: MemoryTable, row: number): void => {
  const windows = table.boundWindows[row]!
  if (windows > 0)
    throw callError.EBUSY`${the.method(`mr.${method}`)}: ${windows} memory windows are bound to it: unbind them first`
}

/** What accesses to a region of `memory` use. */
const spaceOf = ({ device, context }: CallContext, memory: AddressSpace, access: number): AddressSpace =>
  access & ON_DEMAND ? new OnDemandSpace(memory, () => device.taps.decidePage?.(context)) : memory

/** The memory of a region. */
const memoryOf = (space: AddressSpace): AddressSpace => (space instanceof OnDemandSpace ? space.memory : space)

const rangeOf = (table: MemoryTable, row: number, iova: bigint): Range => ({
  start: (BigInt(table.startHi[row]!) << 32n) | BigInt(table.startLo[row]!),
  length: BigInt(table.length[row]!),
  iova,
})

export const keysOf = (table: MemoryTable, row: number): { lkey: number; rkey: number } => {
  const lkey = table.key[row]!
  return { lkey, rkey: table.access[row]! & REMOTE_RIGHTS ? rkeyOf(table, row) : 0 }
}

/** Length of an implicit region: the largest exact Number. The region starts at 0. */
const IMPLICIT_LENGTH = BigInt(Number.MAX_SAFE_INTEGER)

/** The kind of a region without attribute kind. Throws EINVAL for an implicit region that is not permitted. */
const kindOf = ({ name, extended }: Device, start: bigint, length: bigint, iova: bigint, access: number): number => {
  if ((access & ON_DEMAND) === 0 || extended.odpGeneralCaps === 0n || start !== 0n || length !== ADDRESS_LIMIT - 1n)
    return MEMORY
  if (iova !== 0n) refuse('create', `iova ${hex(iova)}: that of a region of the whole address space is 0`)
  if ((extended.odpGeneralCaps & BigInt(OdpCaps.values.SUPPORT_IMPLICIT)) === 0n)
    refuse('create', `device ${name} has no regions of the whole address space`)
  return IMPLICIT
}

type CreateArguments = In<typeof Mr.methods.create, CoreObject>

/** Throws CallError EINVAL. `start` of the range is an offset in the device memory. */
const partOf = (
  { space, start, length }: DeviceMemory,
  range: Range,
  access: number,
): { range: Range; memory: AddressSpace } => {
  if ((access & ZERO_BASED) === 0 || range.iova !== 0n)
    refuse(
      'create',
      because`access ${hex(access)}, iova ${hex(range.iova)}: regions of device memory are ${right('ZERO_BASED')}, at iova 0`,
    )
  if (range.start + range.length > BigInt(length))
    refuse('create', `${range.length} bytes at ${range.start} are not in the ${length} bytes of the device memory`)
  return { range: { ...range, start: BigInt(start) + range.start }, memory: space }
}

const absent = (device: Device): never => {
  throw callError.EOPNOTSUPP`${the.method('mr.create')}: device ${device.name} has no memory of its own`
}

/**
 * The range and memory of a new region. Throws EINVAL for `file` without kind FILE or the reverse, EOPNOTSUPP for a
 * kind that the device or caller does not support, and the errors of `openFile`.
 */
const sourceOf = (
  { caller, device }: CallContext,
  { start, length, iova, access, kind = kindOf(device, start, length, iova, access), file, dm }: CreateArguments,
): { range: Range; memory: AddressSpace; special?: NonNullable<MrState['special']> } => {
  const range = { start, length, iova }
  if (file !== undefined && kind !== FILE)
    refuse('create', because`${the.attribute('file')} belongs to regions of kind FILE`)
  switch (kind) {
    case MEMORY:
      return { range, memory: caller.memory }
    case FILE: {
      if (file === undefined)
        return refuse('create', because`${the.attribute('file')} is missing: a region of kind FILE needs it`)
      if (caller.openFile === undefined)
        throw callError.EOPNOTSUPP`${the.method('mr.create')}: ${the.attribute('file')}: not for a caller in this process; register a buffer`
      checkBeforeFile(device, range, access)
      const opened = caller.openFile(file)
      return { range, memory: opened.space, special: { kind, file: opened } }
    }
    case NULL:
      return { range: { ...range, start: iova }, memory: nullMemory, special: { kind } }
    case IMPLICIT:
      return { range: { start: 0n, length: IMPLICIT_LENGTH, iova: 0n }, memory: caller.memory, special: { kind } }
    case DEVICE:
      if (dm === undefined)
        return device.schema.classByName('dm') === undefined
          ? absent(device)
          : refuse('create', because`${the.attribute('dm')} is missing: a region of kind DEVICE needs it`)
      return { ...partOf(dm.state as DeviceMemory, range, access), special: { kind } }
    case INDIRECT:
      throw callError.EOPNOTSUPP`${the.method('mr.create')}: device ${device.name} has no regions over other keys`
    default:
      return absent(device)
  }
}

const createRegion = (
  call: CallContext,
  object: CoreObject<MrState>,
  args: CreateArguments,
  source: ReturnType<typeof sourceOf>,
) => {
  const { device } = call
  const { range, memory, special } = source
  const { access, pd } = args
  checkPlace('create', device, special?.kind, range, access)
  if (access & ON_DEMAND && args.dmah !== undefined)
    refuse(
      'create',
      because`access ${hex(access)}: an on-demand region has no DMA handle, omit ${right('ON_DEMAND')} or attribute dmah`,
    )
  const isImplicit = special?.kind === IMPLICIT
  const bytes = isImplicit ? Number(range.length) : checkPages('create', memory, range, access, special?.kind)
  const unregister = special === undefined ? registerRange(memory, range, bytes, access, device, object) : undefined
  let row: number
  try {
    const space = spaceOf(call, memory, access)
    row = addRegion(device.memory, pd.id, range.start, baseOf(range, access), bytes, access >>> 0, space)
    if (device.memory.separatesKeys?.(object)) separateKeys(device.memory, row)
  } catch (error) {
    unregister?.()
    throw error
  }
  if (special === undefined) shareRange(memory, range, bytes, access)
  object.state = { row, iova: range.iova, ...(special !== undefined && { special }), ...(unregister && { unregister }) }
  return keysOf(device.memory, row)
}

type ModifyArguments = In<typeof Mr.methods.modify, CoreObject>

/** The region's range, memory and rights after a modify call. Throws CallError if they are not allowed. */
const changeOf = (
  { caller, device }: CallContext,
  { state: { row, iova, special } }: CoreObject<MrState>,
  { translation, pd, access }: ModifyArguments,
): { range: Range; memory: AddressSpace; rights: number; needsCheck: boolean } => {
  const table = device.memory
  if (special !== undefined && translation !== undefined)
    refuse('modify', because`${the.attribute('translation')}: only regions of kind MEMORY can get another translation`)
  if (translation === undefined && pd === undefined && access === undefined)
    refuse('modify', 'translation, pd or access is required')
  requireNoWindows('modify', table, row)
  const oldRights = table.access[row]!
  const rights = access ?? oldRights
  const range = translation ?? rangeOf(table, row, iova)
  const memory = translation ? caller.memory : memoryOf(table.spaces[table.space[row]!]!)
  checkPlace('modify', device, special?.kind, range, rights)
  const isImplicit = special?.kind === IMPLICIT
  // A region that stops being on demand is checked and registered like a new one.
  const endsOnDemand = (oldRights & ~rights & ON_DEMAND) !== 0
  // Unchanged pages are checked only if the region becomes writable: the process that registered them may have ended
  // while its child uses the region.
  const becomesWritable = (rights & WRITE_FLAGS) !== 0 && (oldRights & WRITE_FLAGS) === 0
  return {
    range,
    memory,
    rights,
    needsCheck: !isImplicit && (translation !== undefined || endsOnDemand || becomesWritable),
  }
}

const modifyRegion = (
  call: CallContext,
  object: CoreObject<MrState>,
  { translation, pd }: ModifyArguments,
  { range, memory, rights, needsCheck }: ReturnType<typeof changeOf>,
) => {
  const { device } = call
  const table = device.memory
  const { row, special, unregister: endOld } = object.state
  const oldRights = table.access[row]!
  const bytes = needsCheck ? checkPages('modify', memory, range, rights, special?.kind) : Number(range.length)
  const needsRegistration =
    special === undefined && (translation !== undefined || ((oldRights ^ rights) & ON_DEMAND) !== 0)
  const unregister = needsRegistration ? registerRange(memory, range, bytes, rights, device, object) : endOld
  // Nothing fails after this line.
  if (needsRegistration) endOld?.()
  const isSharedAlready = translation === undefined && (oldRights & SHARE_FLAGS) !== 0
  if (special === undefined && !isSharedAlready) shareRange(memory, range, bytes, rights)
  const oldSpace = table.spaces[table.space[row]!]!
  const keepsSpace = memoryOf(oldSpace) === memory && ((oldRights ^ rights) & ON_DEMAND) === 0
  const space = keepsSpace ? oldSpace : spaceOf(call, memory, rights)
  relocateRegion(table, row, range.start, baseOf(range, rights), bytes, space)
  table.access[row] = rights >>> 0
  object.state = { row, iova: range.iova, ...(special && { special }), ...(unregister && { unregister }) }
  if (pd !== undefined) {
    const oldPd = pdOf(object)!
    addParent(object, pd)
    dropParent(object, oldPd)
    table.pd[row] = pd.id
  }
  copyToRemote(table, row)
  return keysOf(table, row)
}

/** What ends a region while its call waits: no other call destroys an object that a call uses. */
const CLOSED_MEANWHILE = 'the context was closed, or its device removed, during the call'

/** To be awaited before the pages are checked. Undefined: nothing to wait for. */
const preparePageCheck = (
  space: AddressSpace,
  { start, length }: Range,
  access: number,
): Promise<unknown> | undefined => {
  const bytes = Number(length)
  if (!Number.isSafeInteger(bytes)) return undefined
  return space.prepareCheck?.(Number(start >> 32n), Number(start & 0xffffffffn), bytes, (access & WRITE_FLAGS) !== 0)
}

export const mrClass = driverClass<typeof Mr, MrState>(Mr, {
  create(call, object, args) {
    const source = sourceOf(call, args)
    const finish = (): ReturnType<typeof createRegion> => {
      try {
        if (object.life !== Lifecycle.CREATING) throw gone`${the.method('mr.create')}: ${CLOSED_MEANWHILE}`
        return createRegion(call, object, args, source)
      } catch (error) {
        source.special?.file?.close()
        throw error
      }
    }
    const preparing =
      source.special === undefined ? preparePageCheck(source.memory, source.range, args.access) : undefined
    return preparing === undefined ? finish() : preparing.then(finish)
  },

  modify(call, object, args) {
    const change = changeOf(call, object, args)
    const preparing = change.needsCheck ? preparePageCheck(change.memory, change.range, change.rights) : undefined
    if (preparing === undefined) return modifyRegion(call, object, args, change)
    return preparing.then(() => {
      if (object.life !== Lifecycle.LIVE) throw gone`${the.method('mr.modify')}: ${CLOSED_MEANWHILE}`
      // Checked again: meanwhile other calls may have changed the region or bound windows.
      return modifyRegion(call, object, args, changeOf(call, object, args))
    })
  },

  query({ device: { memory: table } }, { state: { row, special } }) {
    const iova = (BigInt(table.iovaHi[row]!) << 32n) | BigInt(table.iovaLo[row]!)
    const space = table.spaces[table.space[row]!]
    return {
      ...keysOf(table, row),
      length: BigInt(table.length[row]!),
      iova,
      kind: special?.kind ?? MEMORY,
      ...(space instanceof OnDemandSpace && space.counters()),
    }
  },

  destroy({ device, why }, { state: { row, special, unregister } }) {
    if (why === 'call') requireNoWindows('destroy', device.memory, row)
    removeRegion(device.memory, row)
    unregister?.()
    special?.file?.close()
    return {}
  },
})
