/*
 * Lines of the log about programs. A guest can start programs without end, so about those of one guest a line of a kind
 * comes once per minute; the next one says how many were left out.
 */
import { printable } from '../spec/printable.ts'

/** Microseconds. */
const MINUTE = 60_000_000
/** Maximum number of kept kinds of lines, of all users; the oldest is forgotten. */
const MAX_KINDS = 4096

interface Kind {
  /** When a line was written last, microseconds. */
  writtenAt: number
  /** Number of lines since then. */
  leftOut: number
}

export class ProgramLines {
  readonly #log: (line: string) => void
  readonly #now: () => number
  /** By user and kind, in the order of their last lines. */
  readonly #kinds = new Map<string, Kind>()

  /** `now`: microseconds. */
  constructor(log: (line: string) => void, now: () => number) {
    this.#log = log
    this.#now = now
  }

  /**
   * Whether a line of this kind about a program of `guest` is due now; if not, it is counted. `guest`: the uid whose
   * share the program uses (`Account.payer`); undefined: of the daemon's own user, whose lines are always due.
   */
  isDue(guest: number | undefined, kind: string): boolean {
    const known = guest === undefined ? undefined : this.#kinds.get(`${guest} ${kind}`)
    if (known === undefined || this.#now() - known.writtenAt >= MINUTE) return true
    known.leftOut++
    return false
  }

  /**
   * Writes a line that is due, with how many of its kind were left out. `text`: may have names that a program chooses.
   */
  writeDue(guest: number | undefined, kind: string, text: string): void {
    const key = `${guest} ${kind}`
    const leftOut = this.#kinds.get(key)?.leftOut ?? 0
    const more = leftOut === 0 ? '' : ` (${leftOut} more such lines about programs of user ${guest} were left out)`
    this.#log(`userdma daemon: ${printable(text)}${more}`)
    if (guest === undefined) return
    this.#kinds.delete(key)
    this.#kinds.set(key, { writtenAt: this.#now(), leftOut: 0 })
    const [oldest] = this.#kinds.keys()
    if (this.#kinds.size > MAX_KINDS) this.#kinds.delete(oldest!)
  }

  /** Writes a line if it is due. */
  write(guest: number | undefined, kind: string, text: string): void {
    if (this.isDue(guest, kind)) this.writeDue(guest, kind, text)
  }
}
