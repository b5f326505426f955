/*
 * Statistics of a simulation: distributions in logarithmic classes, and the fairness of shares.
 */

/** Classes per doubling: a percentile is exact to 1/32. */
const CLASSES = 32
/** Values from 2^-10 to 2^40 have classes of their own. */
const MIN_LOG = -10
const MAX_LOG = 40

/** Counts values in classes; nothing is allocated per value. */
export class Distribution {
  readonly #counts = new Float64Array((MAX_LOG - MIN_LOG) * CLASSES + 1)
  #total = 0
  #sum = 0
  #max = 0

  add(value: number): void {
    const position = value > 0 ? Math.round((Math.log2(value) - MIN_LOG) * CLASSES) : 0
    this.#counts[Math.min(Math.max(position, 0), this.#counts.length - 1)]!++
    this.#total++
    this.#sum += value
    if (value > this.#max) this.#max = value
  }
  clear(): void {
    this.#counts.fill(0)
    this.#total = 0
    this.#sum = 0
    this.#max = 0
  }
  get total(): number {
    return this.#total
  }
  get max(): number {
    return this.#max
  }
  get mean(): number {
    return this.#total === 0 ? 0 : this.#sum / this.#total
  }
  /** The value below which a share of the values lies, 0 to 1; 0 without values. */
  percentile(share: number): number {
    let left = Math.ceil(share * this.#total)
    if (left === 0) return 0
    let position = 0
    while (position < this.#counts.length - 1 && left > this.#counts[position]!) left -= this.#counts[position++]!
    return Math.min(position === 0 ? 0 : 2 ** (position / CLASSES + MIN_LOG), this.#max)
  }
}

/** Jain's index of fairness: 1 if all shares are equal, 1/n if one has everything; 1 without shares. */
export const fairness = (shares: ArrayLike<number>): number => {
  let sum = 0
  let squares = 0
  for (let i = 0; i < shares.length; i++) {
    sum += shares[i]!
    squares += shares[i]! ** 2
  }
  return squares === 0 ? 1 : sum ** 2 / (shares.length * squares)
}
