/*
 * The daemon's turn: what runs now, for those whose checks are valid only meanwhile.
 */
import type { ProcessHandle } from '../host/memory/process.ts'

export interface Turn {
  /**
   * Grows with each message, slice of long work and turn of the loop (loop.ts). A check of a process is valid until the
   * next change.
   */
  count: number
  /** The process whose call runs; undefined between calls. */
  callingProcess: ProcessHandle | undefined
}
