/*
 * Doubly linked lists of rows: the windows bound to each region, and the windows of type 2 bound to each queue pair. So
 * the windows of a destroyed region or queue pair are found without a scan of all rows, of which a program may have a
 * million.
 */
import type { MemoryTable } from './region-table.ts'

type Links = MemoryTable['nextOfQp']

/**
 * Inserts a window at the front of a list that begins with link `first`. Returns the new first link. Links are row + 1;
 * 0 ends the list.
 */
const link = (next: Links, previous: Links, window: number, first: number): number => {
  next[window] = first
  previous[window] = 0
  if (first !== 0) previous[first - 1] = window + 1
  return window + 1
}

/** Removes a window from the list that begins with link `first`. Returns the new first link. */
const unlink = (next: Links, previous: Links, window: number, first: number): number => {
  const after = next[window]!
  const before = previous[window]!
  if (after !== 0) previous[after - 1] = before
  if (before !== 0) next[before - 1] = after
  return before === 0 ? after : first
}

export const linkToRegion = (table: MemoryTable, window: number, region: number): void => {
  const { firstOfRegion, nextOfRegion, previousOfRegion } = table
  firstOfRegion[region] = link(nextOfRegion, previousOfRegion, window, firstOfRegion[region]!)
}

export const unlinkFromRegion = (table: MemoryTable, window: number, region: number): void => {
  const { firstOfRegion, nextOfRegion, previousOfRegion } = table
  firstOfRegion[region] = unlink(nextOfRegion, previousOfRegion, window, firstOfRegion[region]!)
}

export const linkToQp = ({ firstOfQp, nextOfQp, previousOfQp }: MemoryTable, window: number, qp: number): void => {
  firstOfQp.set(qp, link(nextOfQp, previousOfQp, window, firstOfQp.get(qp) ?? 0))
}

export const unlinkFromQp = ({ firstOfQp, nextOfQp, previousOfQp }: MemoryTable, window: number, qp: number): void => {
  const first = unlink(nextOfQp, previousOfQp, window, firstOfQp.get(qp) ?? 0)
  if (first !== 0) firstOfQp.set(qp, first)
  else firstOfQp.delete(qp)
}
