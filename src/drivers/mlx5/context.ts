/*
 * What a context of an mlx5 device has.
 */
import type { AddressSpace } from '../../core/memory/address-space.ts'
import type { LocalSpace } from '../../core/memory/local-space.ts'
import type { ClockPage, MappedChunk } from '../../core/memory/mappable-memory.ts'
import type { Range, RangeList } from '../../core/memory/range-list.ts'
import type { Context, CoreObject } from '../../core/model.ts'

/** Pages that the device shares. */
export interface Extent extends Range {
  /** Those of the same context and process. */
  readonly others: Extents
  readonly context: Context
  readonly chunk: MappedChunk
  /** Number of parts. */
  uses: number
}
export type Extents = RangeList<Extent>

/** The device memory of a context. */
export interface DeviceMemoryStore {
  /** By number of the page: whether it is in use. */
  readonly used: Uint8Array
  readonly local: LocalSpace
  /** `local` without `locate`: its bytes have no address for native copies. */
  readonly space: AddressSpace
}

/** Each is made when it is needed. */
interface Mlx5Context {
  /** By kind and number (numbers.ts). */
  readonly numbers: Map<string, Map<number, CoreObject>>
  /** The number of the context in firmware commands; undefined: it may give none. */
  uid?: number
  /**
   * Pages of the program that the device shares, by process: another one may have opened the context before a fork,
   * with other memory at the address.
   */
  extents?: Map<number | undefined, Extents>
  clock?: ClockPage
  deviceMemory?: DeviceMemoryStore
}

export const contextOf = (context: Context): Mlx5Context => {
  context.state ??= { numbers: new Map() } satisfies Mlx5Context
  return context.state as Mlx5Context
}
