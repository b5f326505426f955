/*
 * Core's own memory regions (IBA 10.6.3, R22): checks of a registration, and keys.
 *
 * Refused, in Linux' order (test/fixtures/abi/raw.out): address and iova with different page offsets, unknown access
 * bits, remote write or atomic without local write, a range that wraps around (EINVAL), pages that do not exist or do
 * not permit the access (EFAULT). Bits of the optional range are ignored. A length of 0 is allowed inside a page. The
 * rkey is the lkey if there is any remote access, else 0. A region with ZERO_BASED is addressed from 0 on, as
 * ibv_reg_mr's manual says; Linux' soft device ignores the flag. While windows are bound to a region it cannot be
 * deregistered (10.6.7.2.6).
 */
import { Mr } from '../../spec/classes/mr.ts'
import { AccessFlags, MrKind } from '../../spec/enums.ts'
import { CallError } from '../../spec/errno.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'
import type { In } from '../../spec/schema/schema.ts'
import { driverClass } from '../devices/driver.ts'
import { type AddressSpace, nullMemory } from '../memory/address-space.ts'
import { addRegion, type MemoryTable, REMOTE_RIGHTS, relocateRegion } from '../memory/region-table.ts'
import { loseRegion, removeRegion } from '../memory/windows.ts'
import { type CallContext, type CoreObject, type Device, type FileMemory, Lifecycle } from '../model.ts'
import { addParent, dropParent } from '../objects/lifetime.ts'

export interface MrState {
  /** Row of the device's MemoryTable. */
  readonly row: number
  /** As given; work requests do not use it for a zero-based region. */
  readonly iova: bigint
  /** Kind other than the caller's memory. */
  readonly other?: { readonly kind: number; readonly file?: FileMemory }
  /** Ends the registration in its address space. */
  readonly release?: () => void
}

/** The registered memory, as `Translation` of the class. */
interface Place {
  readonly start: bigint
  readonly length: bigint
  readonly iova: bigint
}

const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_ATOMIC, MW_BIND, ON_DEMAND, ZERO_BASED, FLUSH_PERSISTENT } =
  AccessFlags.values
const WRITES = LOCAL_WRITE | REMOTE_WRITE | REMOTE_ATOMIC | MW_BIND
const KNOWN = Object.values(AccessFlags.values).reduce((all, bit) => all | bit, 0)

const { MEMORY, FILE, NULL, IMPLICIT } = MrKind.values

const PAGE_OFFSET = BigInt(PAGE_BYTES - 1)
const TOP = 1n << 64n

const hex = (value: bigint | number): string => `0x${(typeof value === 'number' ? value >>> 0 : value).toString(16)}`
const refuse = (method: string, reason: string): never => {
  throw new CallError('EINVAL', `mr.${method}: ${reason}`)
}

const checkAccess = (method: string, device: Device, access: number): void => {
  if (access & ~KNOWN) refuse(method, `access has unknown bits ${hex(access & ~KNOWN)}, known are ${hex(KNOWN)}`)
  if (access & (REMOTE_WRITE | REMOTE_ATOMIC) && !(access & LOCAL_WRITE))
    refuse(method, `access ${hex(access)} lets a peer write what may not be written locally: add LOCAL_WRITE`)
  if (access & ON_DEMAND && device.extended.odpGeneralCaps === 0n)
    throw new CallError(
      'EOPNOTSUPP',
      `mr.${method}: access ${hex(access)}: device ${device.name} has no on-demand paging`,
    )
  if (access & FLUSH_PERSISTENT)
    refuse(method, `access ${hex(access)}: memory of a process is not persistent, leave FLUSH_PERSISTENT out`)
}

const checkOffsets = (method: string, { start, iova }: Place): void => {
  if ((start & PAGE_OFFSET) !== (iova & PAGE_OFFSET))
    refuse(method, `iova ${hex(iova)} must have the same offset in its page as address ${hex(start)}`)
}

const checkRange = (method: string, { start, length, iova }: Place): void => {
  // zero bytes at the start of a page are no page on Linux; inside a page they are one page (test/fixtures/abi shows
  // both)
  if (length === 0n && (iova & PAGE_OFFSET) === 0n)
    refuse(method, `length is 0 at iova ${hex(iova)}, the start of a page`)
  if (start + length >= TOP) refuse(method, `${hex(start)} and ${length} bytes reach beyond the last address`)
  if (iova + length >= TOP) refuse(method, `iova ${hex(iova)} and ${length} bytes reach beyond the last address`)
}

/** Checks that the pages exist and permit the access; the length as a Number. */
const checkPages = (method: string, memory: AddressSpace, { start, length }: Place, access: number): number => {
  const bytes = Number(length)
  const writes = (access & WRITES) !== 0
  if (!Number.isSafeInteger(bytes) || !memory.check(Number(start >> 32n), Number(start & 0xffffffffn), bytes, writes))
    throw new CallError(
      'EFAULT',
      `mr.${method}: the ${length} bytes from ${hex(start)} are not all mapped, or may not be ${writes ? 'written' : 'read'}`,
    )
  return bytes
}

/** The address of the first byte, as work requests use it. */
const baseOf = ({ iova }: Place, access: number): bigint => (access & ZERO_BASED ? 0n : iova)

/** Registers a region in its address space; an on-demand region uses whatever is mapped at access. */
const hold = (
  memory: AddressSpace,
  { start }: Place,
  bytes: number,
  access: number,
  { memory: table }: Device,
  object: CoreObject<MrState>,
): (() => void) | undefined =>
  access & ON_DEMAND
    ? undefined
    : memory.hold?.(
        Number(start >> 32n),
        Number(start & 0xffffffffn),
        bytes,
        (access & (REMOTE_WRITE | REMOTE_ATOMIC | MW_BIND)) !== 0,
        () => loseRegion(table, object.state.row),
      )

const requireNoWindows = (method: string, table: MemoryTable, row: number): void => {
  const windows = table.bound[row]
  if (windows > 0)
    throw new CallError('EBUSY', `mr.${method}: ${windows} memory windows are bound to it: unbind them first`)
}

const placeOf = (table: MemoryTable, row: number, iova: bigint): Place => ({
  start: (BigInt(table.startHi[row]) << 32n) | BigInt(table.startLo[row]),
  length: BigInt(table.length[row]),
  iova,
})

/** The two keys of a row. */
export const keysOf = (table: MemoryTable, row: number): { lkey: number; rkey: number } => {
  const lkey = table.key[row]
  return { lkey, rkey: table.access[row] & REMOTE_RIGHTS ? lkey : 0 }
}

/** Above all addresses of a process; an exact Number. */
const EVERYTHING = BigInt(Number.MAX_SAFE_INTEGER)

type Wanted = In<typeof Mr.methods.create, CoreObject>

/** The range of a region of each kind. Refuses attributes that the kind does not have. */
const sourceOf = (
  { caller, device }: CallContext,
  { start, length, iova, kind = MEMORY, file }: Wanted,
): { place: Place; memory: AddressSpace; other?: NonNullable<MrState['other']> } => {
  const place = { start, length, iova }
  if (file !== undefined && kind !== FILE) refuse('create', 'attribute file belongs to regions of kind FILE')
  switch (kind) {
    case MEMORY:
      return { place, memory: caller.memory }
    case FILE: {
      if (file === undefined) return refuse('create', 'attribute file is missing: a region of kind FILE needs it')
      if (caller.openFile === undefined)
        throw new CallError('EOPNOTSUPP', 'mr.create: files of a caller in this process: register a buffer instead')
      const opened = caller.openFile(file)
      return { place, memory: opened.space, other: { kind, file: opened } }
    }
    case NULL:
      return { place: { ...place, start: iova }, memory: nullMemory, other: { kind } }
    case IMPLICIT:
      return { place: { start: 0n, length: EVERYTHING, iova: 0n }, memory: caller.memory, other: { kind } }
    default:
      throw new CallError('EOPNOTSUPP', `mr.create: device ${device.name} has no memory of its own`)
  }
}

const register = (
  call: CallContext,
  object: CoreObject<MrState>,
  args: Wanted,
  source: ReturnType<typeof sourceOf>,
) => {
  const { device } = call
  const { place, memory, other } = source
  const { access, pd } = args
  // pages of an implicit region are checked at each access
  const isImplicit = other?.kind === IMPLICIT
  checkOffsets('create', place)
  checkAccess('create', device, access)
  if (!isImplicit) checkRange('create', place)
  const bytes = isImplicit ? Number(place.length) : checkPages('create', memory, place, access)
  const release = other === undefined ? hold(memory, place, bytes, access, device, object) : undefined
  let row: number
  try {
    row = addRegion(device.memory, pd.id, place.start, baseOf(place, access), bytes, access >>> 0, memory)
  } catch (error) {
    release?.()
    throw error
  }
  object.state = { row, iova: place.iova, ...(other !== undefined && { other }), ...(release && { release }) }
  return keysOf(device.memory, row)
}

/** Awaited before the pages are checked. */
const prepareCheck = (
  { prepareCheck: look }: AddressSpace,
  { start, length }: Place,
  access: number,
): Promise<unknown> | undefined => {
  const bytes = Number(length)
  if (look === undefined || !Number.isSafeInteger(bytes)) return undefined
  return look(Number(start >> 32n), Number(start & 0xffffffffn), bytes, (access & WRITES) !== 0)
}

export const mrClass = driverClass<typeof Mr, MrState>(Mr, {
  create(call, object, args) {
    const source = sourceOf(call, args)
    const finish = (): ReturnType<typeof register> => {
      try {
        // context or device may have been closed meanwhile
        if (object.life !== Lifecycle.MAKING) throw new CallError('EIO', 'mr.create: the context was closed')
        return register(call, object, args, source)
      } catch (error) {
        source.other?.file?.close()
        throw error
      }
    }
    const looking = source.other === undefined ? prepareCheck(source.memory, source.place, args.access) : undefined
    return looking === undefined ? finish() : looking.then(finish)
  },

  modify({ caller, device }, object, { translation, pd, access }) {
    const table = device.memory
    const { row, other } = object.state
    if (other !== undefined && translation !== undefined)
      refuse('modify', 'attribute translation: only regions of kind MEMORY can get another translation')
    if (translation === undefined && pd === undefined && access === undefined)
      refuse('modify', 'there is nothing to change: give translation, pd or access')
    requireNoWindows('modify', table, row)
    const rights = access ?? table.access[row]
    const place = translation ?? placeOf(table, row, object.state.iova)
    const memory = translation ? caller.memory : (table.spaces[table.space[row]] as AddressSpace)
    checkOffsets('modify', place)
    checkAccess('modify', device, rights)
    const isImplicit = other?.kind === IMPLICIT
    if (!isImplicit) checkRange('modify', place)
    // unchanged pages were checked at registration, by a program that may have ended (while its child still uses them)
    const isNew = translation !== undefined || ((rights & WRITES) !== 0 && (table.access[row] & WRITES) === 0)
    const bytes = isImplicit || !isNew ? Number(place.length) : checkPages('modify', memory, place, rights)
    const release = translation && hold(memory, place, bytes, rights, device, object)
    // nothing fails after this line
    if (translation) object.state.release?.()
    relocateRegion(table, row, place.start, baseOf(place, rights), bytes, memory)
    table.access[row] = rights >>> 0
    object.state = { ...object.state, iova: place.iova, ...(release && { release }) }
    if (pd !== undefined) {
      addParent(object, pd)
      dropParent(object, object.parents[0])
      table.pd[row] = pd.id
    }
    return keysOf(table, row)
  },

  query({ device: { memory } }, { state: { row, other } }) {
    const iova = (BigInt(memory.iovaHi[row]) << 32n) | BigInt(memory.iovaLo[row])
    return { ...keysOf(memory, row), length: BigInt(memory.length[row]), iova, kind: other?.kind ?? MEMORY }
  },

  destroy({ device, why }, { state: { row, other, release } }) {
    if (why === 'call') requireNoWindows('destroy', device.memory, row)
    removeRegion(device.memory, row)
    release?.()
    other?.file?.close()
    return {}
  },
})
