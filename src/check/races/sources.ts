/*
 * Facts from the daemon or library that serves the calls: the memory of keys, stacks, and the event logs of programs.
 */
import type { Stack } from '../../spec/check/findings.ts'
import type { LoggedEvent } from './feed.ts'

/** The memory that a key grants access to. */
export interface KeyedMemory {
  /** The number of the address space, such as the memory of a process. */
  readonly space: number
  /** Address in `space` minus address in requests. */
  readonly shift: number
  /** The lkey of the region. */
  readonly region: number
}

export interface RaceSources {
  /**
   * The memory of a key of the device with index `device`. Undefined: an unknown key, the key of an unbound window or
   * of a region without memory (kind NULL), or one whose addresses are not exact numbers.
   */
  memoryOf(device: number, key: number): KeyedMemory | undefined
  /** The stack with this number (`LoggedEvent.stack`) of a process. */
  stackOf(process: number, stack: number): Stack
  /** The entries since the previous call. `lost`: numbers of contexts with lost entries. */
  read(): { readonly entries: readonly LoggedEvent[]; readonly lost: readonly number[] }
}
