/*
 * The engine's `Memory` (transport/engine/types.ts) on core's table of regions. Core checks keys, ranges and rights.
 */

import { explainBind, explainKey } from '../../core/explain.ts'
import type { AddressSpace } from '../../core/memory/address-space.ts'
import { copyBytes } from '../../core/memory/local-space.ts'
import { OnDemandSpace } from '../../core/memory/on-demand.ts'
import {
  addressHi,
  addressLo,
  findBuffer,
  findKeyWithRights,
  type MemoryTable,
  resolve,
} from '../../core/memory/region-table.ts'
import { type Bind, bindWindow, Invalidated, invalidateWindow } from '../../core/memory/windows.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { Errno } from '../../spec/errno.ts'
import { ATOMIC_BYTES, WcStatus } from '../../spec/work.ts'
import { BindMw, type Memory } from '../../transport/engine/types.ts'

const { SUCCESS, LOC_QP_OP_ERR, MW_BIND_ERR } = WcStatus.values
const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values
const REMOTE = REMOTE_READ | REMOTE_WRITE | REMOTE_ATOMIC
const NOT_TO_SEND = REMOTE | LOCAL_WRITE
/** `freeKeyStatus`: the status with which a LOCAL_INV of a key that is not bound completes. */
export const regionMemory = (table: MemoryTable, freeKeyStatus: number = LOC_QP_OP_ERR): Memory => {
  const invalidationStatus = {
    [Invalidated.DONE]: SUCCESS,
    [Invalidated.NOT_BOUND]: freeKeyStatus,
    [Invalidated.OTHER_QP]: MW_BIND_ERR,
  }
  const spaceOf = (region: number) => table.spaces[table.space[region]]
  const bind: Bind = { window: 0, key: 0, lkey: 0, hi: 0, lo: 0, lengthHi: 0, lengthLo: 0, access: 0 }
  const bindOf = (words: Uint32Array, at: number): Bind => {
    bind.window = words[at + BindMw.WINDOW]
    bind.key = words[at + BindMw.KEY]
    bind.lkey = words[at + BindMw.LKEY]
    bind.hi = words[at + BindMw.HI]
    bind.lo = words[at + BindMw.LO]
    bind.lengthHi = words[at + BindMw.LENGTH_HI]
    bind.lengthLo = words[at + BindMw.LENGTH_LO]
    bind.access = words[at + BindMw.ACCESS]
    return bind
  }
  const { accessor } = table
  /** Error of the last copy or atomic; `resolve` sets it to 0. */
  let errno = 0
  /** The space of the last access, if that failed. */
  let failed: AddressSpace | undefined
  /** `Accessor.watched` and the key of the access that `resolve` was called for. */
  let watched = 0
  let watchedKey = 0
  /** The access begins: `resolve` alone only asks for a right. */
  const begin = (
    space: AddressSpace | undefined,
    spaceHi: number,
    spaceLo: number,
    hi: number,
    lo: number,
    length: number,
  ): void => {
    accessor.watched = watched
    if (watched === 0) return
    table.accessWatch?.(watchedKey, hi, lo, length, watched, accessor.qpn)
    space?.peerAccesses?.(spaceHi, spaceLo, length, watched, accessor.qpn)
  }
  const ended = (space: AddressSpace | undefined, result: number | undefined): number => {
    accessor.watched = 0
    errno = result ?? Errno.EFAULT
    failed = errno === 0 ? undefined : space
    return errno
  }
  return {
    resolve: (pd, key, hi, lo, length, access, qpn) => {
      errno = 0
      accessor.qpn = qpn
      accessor.isRequester = (access & NOT_TO_SEND) === 0
      const row = resolve(table, pd, key, hi, lo, length, access, qpn)
      watched = row < 0 ? 0 : access & REMOTE
      watchedKey = key
      return row
    },
    explain: (pd, key, hi, lo, length, access, qpn) => explainKey(table, pd, key, hi, lo, length, access, qpn),
    grants: (pd, key, access, qpn) => findKeyWithRights(table, pd, key, access, qpn) >= 0,
    read: (region, hi, lo, to, at, chunk, stride, total) => {
      const spaceHi = addressHi(table, region, hi, lo)
      const spaceLo = addressLo(table, region, lo)
      const space = spaceOf(region)
      begin(space, spaceHi, spaceLo, hi, lo, total)
      accessor.isActive = true
      const result = space?.read(spaceHi, spaceLo, to, at, chunk, stride, total)
      accessor.isActive = false
      return ended(space, result)
    },
    write: (region, hi, lo, from, at, chunk, stride, total, isOwn = false) => {
      accessor.isRequester = isOwn
      const spaceHi = addressHi(table, region, hi, lo)
      const spaceLo = addressLo(table, region, lo)
      const space = spaceOf(region)
      begin(space, spaceHi, spaceLo, hi, lo, total)
      accessor.isActive = true
      const result = space?.write(spaceHi, spaceLo, from, at, chunk, stride, total)
      accessor.isActive = false
      return ended(space, result)
    },
    locate: (region, hi, lo, length, offset) => {
      const space = spaceOf(region)
      const bytes = space?.locate?.(addressHi(table, region, hi, lo), addressLo(table, region, lo), length, offset)
      if (bytes !== undefined && watched !== 0) table.accessWatch?.(watchedKey, hi, lo, length, watched, accessor.qpn)
      return bytes
    },
    canLocate: () => table.locatableSpaces > 0,
    rangeAccesses: () => table.rangeAccesses,
    isScattered: pd => table.scattered.size > 0 && table.scattered.has(pd),
    resolveAndLocate: (pd, key, hi, lo, length, access, offset) =>
      (access & REMOTE) !== 0 && table.accessWatch !== undefined
        ? undefined
        : findBuffer(table, pd, key, hi, lo, length, access, offset),
    copyLocated: copyBytes,
    compareSwap: (region, hi, lo, compareHi, compareLo, swapHi, swapLo, original) => {
      const spaceHi = addressHi(table, region, hi, lo)
      const spaceLo = addressLo(table, region, lo)
      const space = spaceOf(region)
      begin(space, spaceHi, spaceLo, hi, lo, ATOMIC_BYTES)
      return ended(space, space?.compareSwap(spaceHi, spaceLo, compareHi, compareLo, swapHi, swapLo, original))
    },
    fetchAdd: (region, hi, lo, addHi, addLo, original) => {
      const spaceHi = addressHi(table, region, hi, lo)
      const spaceLo = addressLo(table, region, lo)
      const space = spaceOf(region)
      begin(space, spaceHi, spaceLo, hi, lo, ATOMIC_BYTES)
      return ended(space, space?.fetchAdd(spaceHi, spaceLo, addHi, addLo, original))
    },
    hasProcessEnded: () => errno === Errno.ESRCH,
    hasTimedOut: () => errno === Errno.ETIMEDOUT,
    injectedFault: () => (failed instanceof OnDemandSpace ? failed.injected : undefined),
    bindWindow: (pd, qpn, words, at) => bindWindow(table, pd, qpn, bindOf(words, at)),
    explainBind: (pd, words, at) => explainBind(table, pd, bindOf(words, at)),
    invalidate: (pd, qpn, key) => invalidationStatus[invalidateWindow(table, pd, qpn, key)],
  }
}
