/*
 * Facts that the search for races gets from the server of the calls: the memory of keys, and the logs of programs.
 */
import type { Stack } from '../../spec/check/findings.ts'
import type { LoggedEvent } from './feed.ts'

/** The memory of a key: its address space, the number to add to addresses of requests, and the region's lkey. */
export interface KeyedMemory {
  readonly space: number
  readonly shift: number
  readonly region: number
}

/** Facts about keys and logs that only the server of the calls knows. */
export interface RaceSources {
  memoryOf(device: number, key: number): KeyedMemory | undefined
  stackOf(process: number, stack: number): Stack
  /** Reads the entries that programs have logged since the previous call. */
  read(): { readonly entries: readonly LoggedEvent[]; readonly lost: readonly number[] }
}
