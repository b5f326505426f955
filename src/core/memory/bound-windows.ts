/*
 * The bound windows of a region, and those of type 2 of a queue pair, as lists through the rows of the table: a region
 * or queue pair that goes finds its own without a look at all rows, of which a program may have a million. Linking and
 * unlinking allocate nothing but the entry of a queue pair's first window.
 */
import type { MemoryTable } from './region-table.ts'

/** Adds a window to the list of its region. */
export const linkToRegion = (
  { firstOfRegion, nextOfRegion, previousOfRegion }: MemoryTable,
  window: number,
  region: number,
): void => {
  const next = firstOfRegion[region]
  nextOfRegion[window] = next
  previousOfRegion[window] = 0
  if (next !== 0) previousOfRegion[next - 1] = window + 1
  firstOfRegion[region] = window + 1
}

export const unlinkFromRegion = (
  { firstOfRegion, nextOfRegion, previousOfRegion }: MemoryTable,
  window: number,
  region: number,
): void => {
  const next = nextOfRegion[window]
  const previous = previousOfRegion[window]
  if (next !== 0) previousOfRegion[next - 1] = previous
  if (previous !== 0) nextOfRegion[previous - 1] = next
  else firstOfRegion[region] = next
}

/** Adds a window to the list of its queue pair. */
export const linkToQp = ({ firstOfQp, nextOfQp, previousOfQp }: MemoryTable, window: number, qp: number): void => {
  const next = firstOfQp.get(qp) ?? 0
  nextOfQp[window] = next
  previousOfQp[window] = 0
  if (next !== 0) previousOfQp[next - 1] = window + 1
  firstOfQp.set(qp, window + 1)
}

export const unlinkFromQp = ({ firstOfQp, nextOfQp, previousOfQp }: MemoryTable, window: number, qp: number): void => {
  const next = nextOfQp[window]
  const previous = previousOfQp[window]
  if (next !== 0) previousOfQp[next - 1] = previous
  if (previous !== 0) nextOfQp[previous - 1] = next
  else if (next !== 0) firstOfQp.set(qp, next)
  else firstOfQp.delete(qp)
}
