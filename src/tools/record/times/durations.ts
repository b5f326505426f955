/*
 * Percentiles of durations, from a histogram of fixed size.
 */

/** Bins per doubling: a percentile is at most 4.5 % off. */
const PER_DOUBLING = 8
const BINS = 40 * PER_DOUBLING

export class Durations {
  readonly #bins = new Uint32Array(BINS)
  count = 0
  /** Microseconds. */
  longest = 0

  /** Adds a duration in microseconds. */
  add(duration: number): void {
    this.count++
    this.longest = Math.max(this.longest, duration)
    const bin = Math.floor(PER_DOUBLING * Math.log2(Math.max(1, duration)))
    this.#bins[Math.min(bin, BINS - 1)]!++
  }

  /** The duration that the share `share` (0 to 1) of all does not exceed, in microseconds; 0: there are none. */
  percentile(share: number): number {
    if (share >= 1) return this.longest
    let rest = share * this.count
    for (let bin = 0; bin < BINS; bin++) {
      rest -= this.#bins[bin]!
      if (rest <= 0 && this.#bins[bin]! > 0) return Math.min(this.longest, 2 ** ((bin + 0.5) / PER_DOUBLING))
    }
    return this.longest
  }
}
