/*
 * Handles of one context, which share one number space. The lowest free number is assigned, from 0, as Linux does
 * (docs/decisions/one-way-in.md, R23): programs print handles, and recorded calls contain them. Freed numbers are in a
 * binary heap, so taking and freeing cost O(log n).
 */
import { popFromHeap, pushToHeap } from './heap.ts'

export interface HandleTable<T> {
  readonly slots: (T | undefined)[]
  /** Freed numbers below slots.length, a min-heap. */
  readonly free: number[]
  count: number
}

export const createHandles = <T>(): HandleTable<T> => ({ slots: [], free: [], count: 0 })

/** Assigns the lowest free number to `value` and returns it. */
export const takeHandle = <T>(table: HandleTable<T>, value: T): number => {
  table.count++
  if (table.free.length === 0) return table.slots.push(value) - 1
  const handle = popFromHeap(table.free)
  table.slots[handle] = value
  return handle
}

/** Frees `handle`, which must be assigned. */
export const freeHandle = <T>(table: HandleTable<T>, handle: number): void => {
  if (table.slots[handle] === undefined) throw new Error(`handle ${handle} is freed, but is free already`)
  table.slots[handle] = undefined
  table.count--
  if (table.count > 0) pushToHeap(table.free, handle)
  else {
    // Frees the memory of a table that was large.
    table.slots.length = 0
    table.free.length = 0
  }
}

/** The object of `handle`; undefined for an unused number, including negative and fractional ones. */
export const findHandle = <T>(table: HandleTable<T>, handle: number): T | undefined => table.slots[handle]
