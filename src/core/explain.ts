/*
 * Explains why `resolve` (core/memory/region-table.ts) refused an access by a memory key, or `bindWindow`
 * (core/memory/windows.ts) a bind. Makes the same checks. Slow: called only for failures.
 */
import { type Cause, createCause } from '../spec/check/causes.ts'
import { AccessFlags, REMOTE_RIGHTS } from '../spec/enums.ts'
import { joinWords, TWO_32 } from '../spec/memory.ts'
import {
  findKey,
  findRegion,
  findRemovedKey,
  INVALIDATED,
  isWindow,
  KeyKind,
  type MemoryTable,
  rowAt,
} from './memory/region-table.ts'
import { type Bind, findWindow, windowRights } from './memory/windows.ts'

const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_ATOMIC, MW_BIND } = AccessFlags.values

/** The first address of a row, and the address after its end. */
const boundsOf = (table: MemoryTable, row: number) => {
  const rangeStart = joinWords(table.iovaHi[row]!, table.iovaLo[row]!)
  return { rangeStart, rangeEnd: rangeStart + BigInt(table.length[row]!) }
}

/** An lkey of a peer, or an rkey of the own request, of a region whose keys differ. */
const isOtherKey = ({ kind }: MemoryTable, row: number, isRemote: boolean): boolean =>
  kind[row] === (isRemote ? KeyKind.LOCAL : KeyKind.REMOTE)

/** The most rows that are looked at for an address: peers can make a request with rkey 0 fail again and again. */
const MAX_ROWS = 4096

/**
 * Whether regions of the protection domain have the address, and all of them lack remote rights, so that they have no
 * rkey.
 */
const isInLocalRegion = (table: MemoryTable, pd: number, address: bigint): boolean => {
  let isFound = false
  for (let row = 0; row < Math.min(table.rows, MAX_ROWS); row++) {
    if (table.key[row] === 0 || table.pd[row] !== pd || isWindow(table, row)) continue
    const { rangeStart, rangeEnd } = boundsOf(table, row)
    if (address < rangeStart || address >= rangeEnd) continue
    if ((table.access[row]! & REMOTE_RIGHTS) !== 0) return false
    isFound = true
  }
  return isFound
}

/** The cause for a key that is not live. `access`: the rights that the request needs. */
const explainUnknown = (table: MemoryTable, pd: number, key: number, accessStart: bigint, access: number): Cause => {
  const isRemote = (access & REMOTE_RIGHTS) !== 0
  const removed = findRemovedKey(table, key)
  if (removed?.isWindow) return createCause(isRemote ? 'WINDOW_DEALLOCATED' : 'LKEY_WINDOW', { key })
  if (removed !== undefined) {
    const rangeStart = joinWords(removed.iovaHi, removed.iovaLo)
    const args = { key, rangeStart, rangeEnd: rangeStart + BigInt(removed.length) }
    return isRemote ? createCause('RKEY_DEREGISTERED', args) : createCause('LKEY_DEREGISTERED', args)
  }
  const row = rowAt(table, key >>> 8)
  if (isRemote && row >= 0 && isWindow(table, row)) return createCause('RKEY_OLD', { key, currentKey: table.key[row]! })
  if (isRemote && key === 0 && isInLocalRegion(table, pd, accessStart))
    return createCause('RKEY_NONE', { right: access, accessStart })
  // The address is not in the text, but `userdma check` names the region that has it.
  return { id: isRemote ? 'RKEY_UNKNOWN' : 'LKEY_UNKNOWN', args: { key, accessStart } }
}

/** Arguments: see `resolve`; undefined if the access is permitted. */
export const explainKey = (
  table: MemoryTable,
  pd: number,
  key: number,
  hi: number,
  lo: number,
  length: number,
  access: number,
  qp: number,
): Cause | undefined => {
  const isRemote = (access & REMOTE_RIGHTS) !== 0
  const unsignedKey = key >>> 0
  const row = findKey(table, unsignedKey)
  if (row < 0 || isOtherKey(table, row, isRemote))
    return explainUnknown(table, pd, unsignedKey, joinWords(hi, lo), access)
  if (table.pd[row] !== pd) return createCause(isRemote ? 'RKEY_OTHER_PD' : 'LKEY_OTHER_PD', { key: unsignedKey })
  if (isWindow(table, row)) {
    if (!isRemote) return createCause('LKEY_WINDOW', { key: unsignedKey })
    const region = table.windowRegion[row]!
    if (region < 0)
      return createCause(region === INVALIDATED ? 'WINDOW_INVALIDATED' : 'WINDOW_UNBOUND', { key: unsignedKey })
    if (table.kind[row] === KeyKind.WINDOW_2 && table.qp[row] !== qp)
      return createCause('WINDOW_OTHER_QP', { key: unsignedKey, qpn: table.qp[row]! })
  }
  const missing = access & ~table.access[row]!
  if (missing !== 0)
    return createCause(isRemote ? 'RKEY_NO_RIGHT' : 'LKEY_NO_RIGHT', { key: unsignedKey, right: missing })
  const accessStart = joinWords(hi, lo)
  const accessEnd = accessStart + BigInt(length)
  const bounds = boundsOf(table, row)
  if (accessStart >= bounds.rangeStart && accessEnd <= bounds.rangeEnd) return undefined
  return createCause(isRemote ? 'RKEY_RANGE' : 'LKEY_RANGE', { key: unsignedKey, accessStart, accessEnd, ...bounds })
}

/** Why `bindWindow` refuses `bind`. Must be called only if it does. */
export const explainBind = (table: MemoryTable, pd: number, bind: Bind): Cause => {
  const key = bind.window >>> 0
  const lkey = bind.lkey >>> 0
  const row = findWindow(table, key)
  if (row < 0 || table.pd[row] !== pd) return createCause('BIND_WINDOW', { key })
  const isType1 = table.kind[row] === KeyKind.WINDOW_1
  const forbidden = bind.access & ~LOCAL_WRITE & ~windowRights(isType1)
  if (forbidden !== 0) return createCause('BIND_RIGHTS', { right: forbidden })
  if (!isType1 && table.windowRegion[row]! >= 0) return createCause('BIND_BOUND', { key })
  const length = (bind.lengthHi >>> 0) * TWO_32 + (bind.lengthLo >>> 0)
  if (length === 0) return createCause('BIND_LENGTH', {})
  const region = findRegion(table, lkey)
  if (region < 0 || table.pd[region] !== pd) return createCause('BIND_REGION', { key: lkey })
  const required = MW_BIND | ((bind.access & (REMOTE_WRITE | REMOTE_ATOMIC)) !== 0 ? LOCAL_WRITE : 0)
  const missing = required & ~table.access[region]!
  if (missing !== 0) return createCause('BIND_NO_RIGHT', { key: lkey, right: missing })
  const accessStart = joinWords(bind.hi, bind.lo)
  const accessEnd = accessStart + BigInt(length)
  return createCause('BIND_RANGE', { key: lkey, accessStart, accessEnd, ...boundsOf(table, region) })
}
