/*
 * Memory in which programs allow races (USERDMA_CHECK_BENIGN_RACE of userdma_check.h).
 */
import type { NoteOmission } from '../../../spec/check/omissions.ts'

/** Maximum ranges of a process. */
export const MAX_BENIGN_RANGES = 4096
/** Maximum processes with ranges. The ranges of the oldest process are forgotten. */
const MAX_BENIGN_PROCESSES = 1024

interface ProcessRanges {
  /** Another session of this pid is another process. */
  readonly session: number
  readonly ranges: { readonly start: number; readonly end: number }[]
}

export class BenignRaces {
  /** By pid. */
  readonly #processes = new Map<number, ProcessRanges>()
  readonly #omit: NoteOmission

  constructor(omit: NoteOmission) {
    this.#omit = omit
  }

  /** Whether a process may allow races in another range. */
  hasSpace(session: number, pid: number): boolean {
    const known = this.#processes.get(pid)
    return known?.session !== session || known.ranges.length < MAX_BENIGN_RANGES
  }

  /** Allows races in the bytes from `start` to before `end` of a process, unless it has too many ranges. */
  allow(session: number, pid: number, start: number, end: number): void {
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
      return
    }
    known.ranges.push({ start, end })
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
