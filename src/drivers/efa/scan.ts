/*
 * Finds the queues whose programs have stored to a doorbell. A process may have ten thousand queues, of which few are
 * in use: each page of doorbells is compared with what was seen in it last, which costs a microsecond. Must not know
 * what a doorbell says.
 */
import { ScanScope } from '../../core/driver-contract.ts'
import type { MappedChunk } from '../../core/memory/mappable-memory.ts'

/** Words from one doorbell to the next. */
const STRIDE = 2

/** A page of doorbells. */
export interface DoorbellPage {
  readonly chunk: MappedChunk
  /** By number of the doorbell: its value when it was read last. */
  readonly seen: Int32Array
  /** The queues that are told of stores. */
  readonly owners: (Scanned | undefined)[]
}

/** A queue of the device. */
export interface Scanned {
  readonly state: {
    /** False when the queue is destroyed: its memory must not be read any more. */
    isScanned: boolean
    /** Rounds since it had work; NOT_RECENT: it is not among the recently used ones. */
    idleRounds: number
  }
}

const NOT_RECENT = Number.POSITIVE_INFINITY
export const NOT_SCANNED: Readonly<Scanned['state']> = { isScanned: false, idleRounds: NOT_RECENT }

export interface Doorbell {
  readonly page: DoorbellPage
  /** Number in the page. */
  readonly number: number
}

/** So many pages are read at each poll: they have the doorbells of a thousand queue pairs. */
export const FEW_PAGES = 4
/** After more rounds than this without work, a queue is not recently used any more. */
const USED_ROUNDS = 16

/** `read`: reads the doorbells of a queue; true if it had work. */
export class QueueScan<Queue extends Scanned> {
  readonly #read: (queue: Queue) => boolean
  readonly pages = new Set<DoorbellPage>()
  /** Queues that are read at each poll of an awake loop: they may have more work than one poll does. */
  readonly #recent: Queue[] = []
  /** Queues to read at the next poll. */
  readonly #changed: Queue[] = []

  constructor(read: (queue: Queue) => boolean) {
    this.#read = read
  }

  /** The queue is told of stores to these doorbells. */
  add(queue: Queue, doorbells: Iterable<Doorbell | undefined>): void {
    queue.state.isScanned = true
    for (const doorbell of doorbells) if (doorbell !== undefined) doorbell.page.owners[doorbell.number] = queue
  }

  /** The queue is destroyed. */
  remove(queue: Queue): void {
    queue.state.isScanned = false
  }

  /** A call has changed what the queue's doorbells mean. */
  recheck(queue: Queue): void {
    this.#changed.push(queue)
  }

  /** True if any queue had work. */
  scan(scope: ScanScope): boolean {
    let found = false
    for (let queue = this.#changed.pop(); queue !== undefined; queue = this.#changed.pop())
      found = this.#visit(queue) || found
    const isRound = scope !== ScanScope.CHANGED && scope !== ScanScope.USED
    if (isRound) this.#beginRound()
    if (scope !== ScanScope.CHANGED)
      for (let i = 0; i < this.#recent.length; i++) found = this.#visit(this.#recent[i]!) || found
    if (isRound || this.pages.size <= FEW_PAGES) for (const page of this.pages) found = this.#compare(page) || found
    return found
  }

  #compare({ chunk: { words, at }, seen, owners }: DoorbellPage): boolean {
    const first = at >> 2
    let found = false
    for (let i = 0; i < owners.length; i++) {
      const value = words[first + STRIDE * i]!
      if (value === seen[i]) continue
      seen[i] = value
      const queue = owners[i]
      if (queue !== undefined) found = this.#visit(queue as Queue) || found
    }
    return found
  }

  #beginRound(): void {
    let kept = 0
    for (const queue of this.#recent) {
      const { state } = queue
      if (state.isScanned && ++state.idleRounds <= USED_ROUNDS) this.#recent[kept++] = queue
      else state.idleRounds = NOT_RECENT
    }
    this.#recent.length = kept
  }

  #visit(queue: Queue): boolean {
    const { state } = queue
    if (!state.isScanned || !this.#read(queue)) return false
    if (state.idleRounds === NOT_RECENT) this.#recent.push(queue)
    state.idleRounds = 0
    return true
  }
}
