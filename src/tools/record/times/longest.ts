/*
 * The longest of many sends.
 */
import type { RequestTimes } from './request-times.ts'

/** More than kept, before the shortest of them go. */
const SLACK = 64

export class LongestRequests {
  readonly #max: number
  #kept: RequestTimes[] = []

  /** `max`: at most so many are kept. */
  constructor(max: number) {
    this.#max = max
  }

  add(times: RequestTimes): void {
    this.#kept.push(times)
    if (this.#kept.length >= 2 * this.#max + SLACK) this.#sort()
  }

  #sort(): void {
    this.#kept = this.#kept.sort((a, b) => b.to - b.from - (a.to - a.from)).slice(0, this.#max)
  }

  /** The longest first. */
  get list(): readonly RequestTimes[] {
    this.#sort()
    return this.#kept
  }
}
