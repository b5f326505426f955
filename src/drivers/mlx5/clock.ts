/*
 * The clock of a device as programs read it: the page of the core clock (ibv_query_rt_values_ex), and the page that
 * says how its counts become nanoseconds since 1970 (mlx5dv_get_clock_info), both mapped by libmlx5 when it opens a
 * device. The core clock counts the nanoseconds of the device's clock, as the time stamps of completions do, so that
 * the second page never changes (docs/decisions/clock-pages.md).
 */
import type { ClockPage, MappedChunk } from '../../core/memory/mappable-memory.ts'
import type { Context } from '../../core/model.ts'
import { ClockInfo, Mlx5Page, TIMESTAMP_MASK } from '../../spec/drivers/mlx5.ts'
import { PAGE_BYTES, swap32, TWO_32 } from '../../spec/memory.ts'
import { contextOf } from './context.ts'

/** Nanoseconds of the device's clock. `now`: microseconds. */
export const clockCount = (now: () => number): number => Math.floor(now() * 1000)

/**
 * A function that stores the time big-endian at the beginning of the page. A program may read at any moment, 32 bits at
 * a time. So the halves change together, or only the lower one does.
 */
const storeTo = ({ words, at }: MappedChunk, now: () => number): (() => void) => {
  const both = new BigInt64Array(words.buffer, words.byteOffset + at, 1)
  return () => {
    const count = clockCount(now)
    const low = swap32(count >>> 0) | 0
    const high = swap32(Math.floor(count / TWO_32)) | 0
    // a BigInt is allocated every 4 s, and when the page was taken from the program
    if (high === words[at >> 2]) Atomics.store(words, (at >> 2) + 1, low)
    else Atomics.store(both, 0, (BigInt(low) << 32n) | BigInt(high >>> 0))
  }
}

/** `start`: nanoseconds since 1970 when the device's clock was 0. */
const writeInfo = ({ view, at }: MappedChunk, start: number): void => {
  view.setBigUint64(at + ClockInfo.NANOSECONDS, BigInt(Math.round(start)), true)
  view.setBigUint64(at + ClockInfo.MASK, TIMESTAMP_MASK, true)
  view.setUint32(at + ClockInfo.MULTIPLIER, 1, true)
  view.setBigUint64(at + ClockInfo.OVERFLOW_PERIOD, TIMESTAMP_MASK, true)
}

/** The clock that the program of the context reads; undefined: none. */
export const clockOf = (context: Context | undefined): ClockPage | undefined => context && contextOf(context).clock

/**
 * Offers the clock to the program of a new context; false if it cannot map these pages. `start`: see `writeInfo`.
 * Throws CallError ENOMEM.
 */
export const openClock = (context: Context, now: () => number, start: number): boolean => {
  const state = contextOf(context)
  if (state.clock !== undefined) return true
  const { mapped } = context
  if (mapped?.allocateAt === undefined || mapped.readClock === undefined) return false
  writeInfo(mapped.allocateAt(Mlx5Page.CLOCK_INFO, PAGE_BYTES), start)
  const page = mapped.allocateAt(Mlx5Page.CORE_CLOCK, PAGE_BYTES)
  state.clock = mapped.readClock(page, storeTo(page, now))
  return true
}
