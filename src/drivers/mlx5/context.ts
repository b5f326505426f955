/*
 * What a context of an mlx5 device has.
 */
import type { AddressSpace } from '../../core/memory/address-space.ts'
import type { LocalSpace } from '../../core/memory/local-space.ts'
import type { ClockPage, MappedChunk } from '../../core/memory/mappable-memory.ts'
import type { Context } from '../../core/model.ts'

/** Pages that the device shares. */
export interface Extent {
  readonly context: Context
  /** The program's process: another one may have opened the context before a fork, with other memory at the address. */
  readonly pid: number | undefined
  /** The address of the first page, and of the first one behind them. */
  readonly start: bigint
  readonly end: bigint
  readonly chunk: MappedChunk
  /** Number of parts. */
  uses: number
}

/** The device memory of a context. */
export interface DeviceMemoryStore {
  /** By number of the page: whether it is in use. */
  readonly used: Uint8Array
  readonly local: LocalSpace
  /** `local` without `locate`: its bytes have no address for native copies. */
  readonly space: AddressSpace
}

/** Each is made when it is needed. */
export interface Mlx5Context {
  /** Pages of the program that the device shares. */
  extents?: Set<Extent>
  clock?: ClockPage
  deviceMemory?: DeviceMemoryStore
}

export const contextOf = (context: Context): Mlx5Context => {
  context.state ??= {} satisfies Mlx5Context
  return context.state as Mlx5Context
}
