/*
 * The timers of a virtual clock: a binary heap in the order of due times. Timers of the same time fire in the order in
 * which they were set, so that a run repeats. A stopped timer stays in the heap until it is at the top, or until the
 * heap has more stopped timers than others.
 */
import type { TimerKind } from '../../../host/event-loop/clock.ts'

export interface VirtualTimer {
  /** Microseconds. */
  readonly due: number
  readonly sequence: number
  readonly kind: TimerKind
  /** Undefined once the timer has fired or was stopped. */
  callback: (() => void) | undefined
}

/** Stopped timers that the heap may always have. */
const MAX_STOPPED = 1024

const isBefore = (a: VirtualTimer, b: VirtualTimer): boolean =>
  a.due < b.due || (a.due === b.due && a.sequence < b.sequence)

export class VirtualTimers {
  #heap: VirtualTimer[] = []
  #stopped = 0
  #sequence = 0
  /** Timers that are set, by kind. */
  readonly counts: Record<TimerKind, number> = { program: 0, device: 0, background: 0, passive: 0 }

  /** Timers in the heap, with stopped ones. */
  get size(): number {
    return this.#heap.length
  }

  set(due: number, kind: TimerKind, callback: () => void): VirtualTimer {
    const timer = { due, sequence: this.#sequence++, kind, callback }
    this.counts[kind]++
    this.#heap.push(timer)
    this.#rise(this.#heap.length - 1)
    return timer
  }

  /** Stops a timer; does nothing if it has fired or was stopped. */
  stop(timer: VirtualTimer): void {
    if (timer.callback === undefined) return
    timer.callback = undefined
    this.counts[timer.kind]--
    this.#stopped++
    if (this.#stopped <= MAX_STOPPED || this.#stopped * 2 < this.#heap.length) return
    // A sorted list is a heap.
    this.#heap = this.#heap.filter(({ callback }) => callback !== undefined).sort((a, b) => (isBefore(a, b) ? -1 : 1))
    this.#stopped = 0
  }

  /** The earliest timer; undefined if none is set. */
  get first(): VirtualTimer | undefined {
    while (this.#heap[0] !== undefined && this.#heap[0].callback === undefined) {
      this.#removeTop()
      this.#stopped--
    }
    return this.#heap[0]
  }

  /** Removes the earliest timer, which `first` has returned, and returns what it calls. */
  take(timer: VirtualTimer): () => void {
    const callback = timer.callback as () => void
    timer.callback = undefined
    this.counts[timer.kind]--
    this.#removeTop()
    return callback
  }

  #rise(from: number): void {
    const heap = this.#heap
    const timer = heap[from]!
    let at = from
    for (let parent = (at - 1) >> 1; at > 0 && isBefore(timer, heap[parent]!); parent = (at - 1) >> 1) {
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = timer
  }

  #removeTop(): void {
    const heap = this.#heap
    const timer = heap.pop()!
    if (heap.length === 0) return
    let at = 0
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, timer)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = timer
  }
}
