/*
 * Registered memory as the engines want it (transport/types.ts, Memory), on top of core's table of regions: checks are
 * core's, bytes move in the address space of the process that registered them. Keys that may be invalidated from afar
 * (memory windows, fast registration) do not exist in this driver, so `invalidate` refuses every key.
 */
import { type MemoryTable, placeHi, placeLo, resolve } from '../../core/memory.ts'
import { Errno } from '../../spec/errno.ts'
import type { Memory } from '../../transport/types.ts'

export const regionMemory = (table: MemoryTable): Memory => {
  const spaceOf = (region: number) => table.spaces[table.space[region]]
  return {
    resolve: (pd, key, hi, lo, length, access) => resolve(table, pd, key, hi, lo, length, access),
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
    invalidate: () => false,
  }
}
