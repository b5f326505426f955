/*
 * What the search for races asks of the carrier of calls: where the memory of keys is, and the logs of programs.
 */
import type { Stack } from '../../spec/check/findings.ts'
import type { LoggedEvent } from './feed.ts'

/** Where the memory of a key is: its address space, what to add to addresses of requests, and the region's lkey. */
export interface KeyedMemory {
  readonly space: number
  readonly shift: number
  readonly region: number
}

/** What only the carrier of calls knows about logs. */
export interface RaceSources {
  memoryOf(device: number, key: number): KeyedMemory | undefined
  stackOf(process: number, stack: number): Stack
  /** Reads what programs have logged since the last time. */
  read(): { readonly entries: readonly LoggedEvent[]; readonly lost: readonly number[] }
}
