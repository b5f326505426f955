/*
 * How much the memory files of guests' contexts hold (docs/why/threat-model.md). A guest can fill its file, which is as
 * long as a terabyte, and no account is charged for that. Looked at in rotation, a few files in a turn: fstat(2) of a
 * file in memory takes some microseconds, and no lock that a guest may hold (but see there for a few kernels).
 */
import type { Containment } from '../containment.ts'
import type { Contexts, OpenContext } from './contexts.ts'

/** What a file may hold beyond what the daemon has handed out. */
const MAX_SURPLUS = 2 ** 26
/** Milliseconds between looks, and how many files each has. */
const LOOK_INTERVAL = 100
const LOOK_FILES = 16

interface Watched {
  readonly open: OpenContext
  readonly tell: (surplus: number) => void
  readonly isWanted: () => boolean
}

export class FileSizes {
  readonly #contexts: Pick<Contexts, 'byNumber'>
  readonly #guard: Containment['guard']
  /** The next one is first. */
  readonly #watched: Watched[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(contexts: Pick<Contexts, 'byNumber'>, { guard }: Pick<Containment, 'guard'>) {
    this.#contexts = contexts
    this.#guard = guard
  }

  /** Calls `tell` once, with the bytes, when the file holds MAX_SURPLUS more than was handed out, while `isWanted`. */
  watch(open: OpenContext, isWanted: () => boolean, tell: (surplus: number) => void): void {
    this.#watched.push({ open, tell, isWanted })
    this.#timer ??= this.#lookLater()
  }

  #lookLater(): NodeJS.Timeout {
    return setTimeout(
      this.#guard('the sizes of memory files', () => {
        this.#timer = this.#look() ? this.#lookLater() : undefined
      }),
      LOOK_INTERVAL,
    ).unref()
  }

  /** Whether files are left to look at. */
  #look(): boolean {
    for (const watched of this.#watched.splice(0, LOOK_FILES)) {
      const { open, tell, isWanted } = watched
      // The descriptor of an ended context may be another file's.
      if (!isWanted() || this.#contexts.byNumber(open.number) !== open) continue
      const surplus = open.memory.surplusBytes
      if (surplus > MAX_SURPLUS) tell(surplus)
      else this.#watched.push(watched)
    }
    return this.#watched.length > 0
  }
}
