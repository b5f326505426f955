/*
 * Memory windows in the table of keys (IBA 10.6.7). A window is allocated without rights. A work request binds the
 * window to part of a region. Type 1 is unbound by another bind, type 2 by an invalidation or the end of its queue
 * pair, and both by their deallocation.
 *
 * The row of a bound window has its own address range, so `resolve` (region-table.ts) needs no second look-up. A
 * program cannot deregister a region with bound windows. When a context closes, such windows are unbound.
 */
import { AccessFlags, MwType, REMOTE_RIGHTS } from '../../spec/enums.ts'
import { TWO_32 } from '../../spec/memory.ts'
import { noMemory } from './address-space.ts'
import { linkToQp, linkToRegion, unlinkFromQp, unlinkFromRegion } from './bound-windows.ts'
import { IndirectSpace } from './indirect.ts'
import {
  acquireSpace,
  addressHi,
  addressLo,
  allocateKeyRow,
  copyToRemote,
  findKey,
  findRegion,
  freeKeyRow,
  INVALIDATED,
  isWindow,
  joinKeys,
  KeyKind,
  type MemoryTable,
  releaseSpace,
  rowAt,
} from './region-table.ts'

const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_ATOMIC, MW_BIND, ZERO_BASED, FLUSH_PERSISTENT } = AccessFlags.values
/**
 * Rights that a window can grant. FLUSH_PERSISTENT is not one: the memory of a process is not persistent. ZERO_BASED is
 * one of type 2 only (o10-36.2.2).
 */
export const windowRights = (isType1: boolean): number =>
  (REMOTE_RIGHTS & ~FLUSH_PERSISTENT) | (isType1 ? 0 : ZERO_BASED)

const KEY_BYTE_MASK = 0xff

/** The row of the window that a bind names; -1: none. The key byte does not count: only remote accesses need it. */
export const findWindow = (table: MemoryTable, key: number): number => {
  const row = rowAt(table, key >>> 8)
  return row >= 0 && isWindow(table, row) ? row : -1
}

/**
 * Adds a window of protection domain `pd`; `type`: MwType. Returns its row. The key byte of type 2 is 0 until a bind
 * sets the byte that the program has chosen. Throws ENOMEM if no key is free.
 */
export const addWindow = (table: MemoryTable, pd: number, type: number): number => {
  const row = allocateKeyRow(table)
  const isType1 = type === MwType.values.TYPE_1
  table.kind[row] = isType1 ? KeyKind.WINDOW_1 : KeyKind.WINDOW_2
  if (!isType1) table.key[row] = (table.key[row]! & ~KEY_BYTE_MASK) >>> 0
  table.pd[row] = pd
  table.space[row] = -1
  table.windowRegion[row] = -1
  table.boundWindows[row] = 0
  clear(table, row)
  table.windows++
  return row
}

const clear = (table: MemoryTable, row: number): void => {
  table.access[row] = 0
  table.startHi[row] = 0
  table.startLo[row] = 0
  table.iovaHi[row] = 0
  table.iovaLo[row] = 0
  table.length[row] = 0
  table.qp[row] = 0
}

/** Unbinds a window. Its key stays valid. No effect on an unbound window. */
const unbindWindow = (table: MemoryTable, row: number): void => {
  const region = table.windowRegion[row]!
  if (region >= 0) {
    table.boundWindows[region]!--
    unlinkFromRegion(table, row, region)
    if (table.kind[row] === KeyKind.WINDOW_2) unlinkFromQp(table, row, table.qp[row]!)
  }
  releaseSpace(table, table.space[row]!)
  table.windowRegion[row] = -1
  table.space[row] = -1
  clear(table, row)
  if (region >= 0) table.windowWatch?.(row)
}

export const removeWindow = (table: MemoryTable, row: number): void => {
  unbindWindow(table, row)
  table.windows--
  freeKeyRow(table, row)
}

/** Removes a region and its keys, and unbinds its windows. */
export const removeRegion = (table: MemoryTable, row: number): void => {
  // Links are row + 1.
  while (table.firstOfRegion[row] !== 0) unbindWindow(table, table.firstOfRegion[row]! - 1)
  joinKeys(table, row)
  freeKeyRow(table, row)
}

/** The program has unmapped the region's memory: later accesses fault, also through bound windows. */
export const unmapRegion = (table: MemoryTable, region: number): void => {
  unmapRow(table, region)
  copyToRemote(table, region)
  // Links are row + 1.
  for (let link = table.firstOfRegion[region]!; link !== 0; link = table.nextOfRegion[link - 1]!)
    unmapRow(table, link - 1)
}

const unmapRow = (table: MemoryTable, row: number): void => {
  const before = table.space[row]!
  table.space[row] = acquireSpace(table, noMemory)
  releaseSpace(table, before)
}

/** Unbinds the windows of type 2 of a destroyed queue pair. */
export const unbindWindowsOf = (table: MemoryTable, qp: number): void => {
  // Links are row + 1.
  for (let link = table.firstOfQp.get(qp); link !== undefined; link = table.firstOfQp.get(qp))
    unbindWindow(table, link - 1)
}

/** Arguments of a bind work request (BIND_MW): 32 bits each, signed or not. Address and length are pairs (hi, lo). */
export interface Bind {
  /** An rkey of the window, current or not. */
  window: number
  /** The new rkey. Only the low byte is used. */
  key: number
  /** The region's lkey. */
  lkey: number
  hi: number
  lo: number
  lengthHi: number
  lengthLo: number
  /** ibv_access_flags. */
  access: number
}

/**
 * Binds a window for queue pair `qp` of protection domain `pd`. Returns false, and changes nothing, if a rule forbids
 * the bind.
 * - Type 1: length 0 unbinds; an existing binding is replaced (o10-36).
 * - Type 2: the window must be unbound (o10-37.2.30), the length not 0 (o10-37.2.40).
 */
export const bindWindow = (table: MemoryTable, pd: number, qp: number, bind: Bind): boolean => {
  const row = findWindow(table, bind.window)
  if (row < 0 || table.pd[row] !== pd) return false
  // A window grants only remote access: LOCAL_WRITE, which programs pass as for a region, is ignored.
  const access = bind.access & ~LOCAL_WRITE
  const isType1 = table.kind[row] === KeyKind.WINDOW_1
  if ((access & ~windowRights(isType1)) !== 0) return false
  const length = (bind.lengthHi >>> 0) * TWO_32 + (bind.lengthLo >>> 0)
  if (isType1 && length === 0) {
    unbindAndSetKey(table, row, bind.key)
    return true
  }
  if (length === 0 || (!isType1 && table.windowRegion[row]! >= 0)) return false
  const region = findRegion(table, bind.lkey)
  if (region < 0 || table.pd[region] !== pd) return false
  const regionAccess = table.access[region]!
  // C10-73, C10-74: the region must permit windows, and local write if the window permits remote write or atomics.
  if (
    (regionAccess & MW_BIND) === 0 ||
    ((access & (REMOTE_WRITE | REMOTE_ATOMIC)) !== 0 && (regionAccess & LOCAL_WRITE) === 0)
  )
    return false
  // C10-75: the window must be inside the region.
  const offset = ((bind.hi >>> 0) - table.iovaHi[region]!) * TWO_32 + ((bind.lo >>> 0) - table.iovaLo[region]!)
  if (offset < 0 || offset + length > table.length[region]!) return false
  unbindAndSetKey(table, row, bind.key)
  const isZeroBased = (access & ZERO_BASED) !== 0
  table.access[row] = access
  table.startHi[row] = addressHi(table, region, bind.hi, bind.lo)
  table.startLo[row] = addressLo(table, region, bind.lo)
  table.iovaHi[row] = isZeroBased ? 0 : bind.hi
  table.iovaLo[row] = isZeroBased ? 0 : bind.lo
  table.length[row] = length
  // The region uses this space, so it exists.
  table.space[row] = acquireSpace(table, table.spaces[table.space[region]!]!)
  table.windowRegion[row] = region
  table.boundWindows[region]!++
  linkToRegion(table, row, region)
  if (!isType1) {
    table.qp[row] = qp
    linkToQp(table, row, qp)
  }
  table.windowWatch?.(row)
  return true
}

/** Ends the old binding, if any, and sets the new key byte. */
const unbindAndSetKey = (table: MemoryTable, row: number, key: number): void => {
  unbindWindow(table, row)
  table.key[row] = ((table.key[row]! & ~KEY_BYTE_MASK) | (key & KEY_BYTE_MASK)) >>> 0
}

/**
 * NOT_BOUND: the protection domain has no bound window of type 2 with this key. OTHER_QP: the window is bound to
 * another queue pair.
 */
export const Invalidated = { DONE: 0, NOT_BOUND: 1, OTHER_QP: 2 } as const
export type Invalidated = (typeof Invalidated)[keyof typeof Invalidated]

/** Of regions only those over other keys can be invalidated that were made for it. */
const revokeRegion = (table: MemoryTable, row: number): Invalidated => {
  const space = table.spaces[table.space[row]!]
  if (!(space instanceof IndirectSpace) || space.configurable?.isRevocable !== true) return Invalidated.NOT_BOUND
  space.configure([], 1)
  table.length[row] = 0
  return Invalidated.DONE
}

/**
 * Invalidates `key` for queue pair `qp` of protection domain `pd`, by a LOCAL_INV request or a peer's SEND with
 * invalidate. Only a window of type 2 that is bound to this queue pair can be invalidated: not type 1 (o10-37.2.26),
 * and of regions only those that `revokeRegion` knows, because others are created by registration calls (10.6.5).
 */
export const invalidateWindow = (table: MemoryTable, pd: number, qp: number, key: number): Invalidated => {
  const row = findKey(table, key)
  if (row < 0 || table.pd[row] !== pd) return Invalidated.NOT_BOUND
  if (table.kind[row] === KeyKind.REGION) return revokeRegion(table, row)
  if (table.kind[row] !== KeyKind.WINDOW_2) return Invalidated.NOT_BOUND
  if (table.windowRegion[row]! < 0) return Invalidated.NOT_BOUND
  if (table.qp[row] !== qp) return Invalidated.OTHER_QP
  unbindWindow(table, row)
  table.windowRegion[row] = INVALIDATED
  return Invalidated.DONE
}
