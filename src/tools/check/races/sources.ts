/*
 * What the search for races asks the daemon, or the library, whose devices are checked: which memory a key names, stacks
 * of calls, and the event logs of programs.
 */
import type { Stack } from '../../../spec/check/finding.ts'
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
   * of a region without memory (kind NULL), or a key of memory with addresses above 2^53.
   */
  memoryOf(device: number, key: number): KeyedMemory | undefined
  /** The stack with this number (`LoggedEvent.stack`) of a process. */
  stackOf(process: number, stack: number): Stack
  /** The entries since the previous call. `lost`: ids of the contexts that have lost entries. */
  read(): { readonly entries: readonly LoggedEvent[]; readonly lost: readonly number[] }
}
