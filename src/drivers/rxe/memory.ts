/*
 * Registered memory as the engines want it (transport/types.ts, Memory), on top of core's table of regions: checks are
 * core's, bytes move in the address space of the process that registered them.
 */
import { findGrant, type MemoryTable, placeHi, placeLo, resolve } from '../../core/memory.ts'
import { type Bind, bindWindow, invalidateWindow } from '../../core/windows.ts'
import { Errno } from '../../spec/errno.ts'
import { BindMw, type Memory } from '../../transport/types.ts'

export const regionMemory = (table: MemoryTable): Memory => {
  const spaceOf = (region: number) => table.spaces[table.space[region]]
  const bind: Bind = { window: 0, key: 0, lkey: 0, hi: 0, lo: 0, lengthHi: 0, lengthLo: 0, access: 0 }
  return {
    resolve: (pd, key, hi, lo, length, access, qp) => resolve(table, pd, key, hi, lo, length, access, qp),
    grants: (pd, key, access, qp) => findGrant(table, pd, key, access, qp) >= 0,
    read: (region, hi, lo, to, at, chunk, stride, total) =>
      spaceOf(region)?.read(placeHi(table, region, hi, lo), placeLo(table, region, lo), to, at, chunk, stride, total) ??
      Errno.EFAULT,
    write: (region, hi, lo, from, at, chunk, stride, total) =>
      spaceOf(region)?.write(
        placeHi(table, region, hi, lo),
        placeLo(table, region, lo),
        from,
        at,
        chunk,
        stride,
        total,
      ) ?? Errno.EFAULT,
    compareSwap: (region, hi, lo, compareHi, compareLo, swapHi, swapLo, original) =>
      spaceOf(region)?.compareSwap(
        placeHi(table, region, hi, lo),
        placeLo(table, region, lo),
        compareHi,
        compareLo,
        swapHi,
        swapLo,
        original,
      ) ?? Errno.EFAULT,
    fetchAdd: (region, hi, lo, addHi, addLo, original) =>
      spaceOf(region)?.fetchAdd(placeHi(table, region, hi, lo), placeLo(table, region, lo), addHi, addLo, original) ??
      Errno.EFAULT,
    bindWindow: (pd, qp, words, at) => {
      bind.window = words[at + BindMw.WINDOW]
      bind.key = words[at + BindMw.KEY]
      bind.lkey = words[at + BindMw.LKEY]
      bind.hi = words[at + BindMw.HI]
      bind.lo = words[at + BindMw.LO]
      bind.lengthHi = words[at + BindMw.LENGTH_HI]
      bind.lengthLo = words[at + BindMw.LENGTH_LO]
      bind.access = words[at + BindMw.ACCESS]
      return bindWindow(table, pd, qp, bind)
    },
    invalidate: (pd, qp, key) => invalidateWindow(table, pd, qp, key),
  }
}
