/*
 * The received runs of a port of a memory link, in the order of their arrival.
 */
import type { PacketCarrier } from '../links/packet-carrier.ts'
import type { MemoryRuns } from './runs.ts'

/** The time that packets take. Times are microseconds. */
export interface Transit {
  now(): number
  /** From port to port, whatever the bytes; with a carrier only from a port to itself. */
  readonly delay: number
  /** Carries packets between different ports, which then belong to hosts (`MemorySwitch.attach`). */
  readonly carrier?: PacketCarrier | undefined
}

export class RunQueue {
  /** First run with undelivered packets; -1: none. */
  head = -1
  /** First undelivered packet of the run at `head`. */
  cursor = 0
  readonly #runs: MemoryRuns
  readonly #transit: Transit | undefined
  /** First unreleased run and last run; -1: none. */
  #oldest = -1
  #tail = -1

  constructor(runs: MemoryRuns, transit: Transit | undefined) {
    this.#runs = runs
    this.#transit = transit
  }

  /** Appends a run that has arrived at `arrival`, with a transit. */
  append(run: number, arrival: number): void {
    const runs = this.#runs
    if (this.#transit !== undefined) runs.arrivals[run] = arrival
    if (this.#tail < 0) this.#oldest = run
    else runs.records.next[this.#tail] = run
    this.#tail = run
    if (this.head < 0) this.head = run
    runs.waiting++
  }

  /** Whether a run has arrived and was not delivered. */
  hasArrived(): boolean {
    const transit = this.#transit
    return this.head >= 0 && (transit === undefined || this.#runs.arrivals[this.head] <= transit.now())
  }

  /** With a transit: when the run at `head` arrives; Infinity: there is none. */
  nextArrival(): number {
    return this.head >= 0 ? this.#runs.arrivals[this.head] : Number.POSITIVE_INFINITY
  }

  /** Moves `head` to the next run. */
  advance(): void {
    this.head = this.#runs.records.next[this.head]
    this.cursor = 0
    this.#runs.waiting--
  }

  /** Releases the runs before `head`. */
  releaseDelivered(): void {
    const runs = this.#runs
    while (this.#oldest !== this.head) {
      const run = this.#oldest
      this.#oldest = runs.records.next[run]
      runs.flows.release(runs.records.flow[run])
      runs.release(run)
    }
    if (this.#oldest < 0) this.#tail = -1
  }
}
