/*
 * Memory in which programs allow races (USERDMA_CHECK_BENIGN_RACE of userdma_check.h).
 */
import type { NoteOmission } from '../../../spec/check/omissions.ts'

/** Maximum ranges of a process. */
export const MAX_BENIGN_RANGES = 4096
/** Maximum processes with ranges. The ranges of the oldest process are forgotten. */
export const MAX_BENIGN_PROCESSES = 1024

interface ProcessRanges {
  /** Another session of this pid is another process. */
  readonly session: object
  readonly ranges: { readonly start: number; readonly end: number }[]
}

export class BenignRaces {
  /** By pid. */
  readonly #processes = new Map<number, ProcessRanges>()
  readonly #omit: NoteOmission

  constructor(omit: NoteOmission) {
    this.#omit = omit
  }

  /** Allows races in the bytes from `start` to before `end` of a process. False: the process has too many ranges. */
  allow(session: object, pid: number, start: number, end: number): boolean {
    let known = this.#processes.get(pid)
    if (known?.session !== session) {
      known = { session, ranges: [] }
      this.#processes.delete(pid)
      this.#processes.set(pid, known)
      const [oldest] = this.#processes.keys()
      if (this.#processes.size > MAX_BENIGN_PROCESSES && oldest !== undefined) this.#forget(oldest)
    }
    if (known.ranges.length === MAX_BENIGN_RANGES) {
      this.#omit('race-benign', 1)
      return false
    }
    known.ranges.push({ start, end })
    return true
  }

  #forget(pid: number): void {
    this.#omit('race-benign', this.#processes.get(pid)?.ranges.length ?? 0)
    this.#processes.delete(pid)
  }

  /** Whether a process allows races in all these bytes. */
  allows(pid: number, start: number, end: number): boolean {
    return this.#processes.get(pid)?.ranges.some(range => range.start <= start && end <= range.end) ?? false
  }
}
