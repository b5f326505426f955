/*
 * Facts that the search for races gets from the daemon or library that serves the calls: the memory of keys, stacks,
 * and the event logs of programs.
 */
import type { Stack } from '../../spec/check/findings.ts'
import type { LoggedEvent } from './feed.ts'

/** The memory that a key grants access to. */
export interface KeyedMemory {
  /** The number of the address space, such as the memory of a process. */
  readonly space: number
  /** Added to an address of a request, it gives the address in that space. */
  readonly shift: number
  /** The lkey of the region. */
  readonly region: number
}

export interface RaceSources {
  /** Undefined: the key is unknown, or that of a window that is not bound. */
  memoryOf(device: number, key: number): KeyedMemory | undefined
  /** The stack with this number (`LoggedEvent.stack`) of a process. */
  stackOf(process: number, stack: number): Stack
  /** Reads the entries since the previous call. `lost`: numbers of contexts of which entries were lost. */
  read(): { readonly entries: readonly LoggedEvent[]; readonly lost: readonly number[] }
}
