/*
 * A map that remembers its newest entries. Entries cost no deletion of their own and no object, which a `Map` makes for
 * keys above 31 bits.
 */

/** A hash table of a fixed size, with linear probing. */
class Table<V> {
  size = 0
  /** -1: free. */
  readonly #keys: Float64Array
  readonly #values: (V | undefined)[]

  /** `places`: a power of two; half of them are used at most. */
  constructor(places: number) {
    this.#keys = new Float64Array(places).fill(-1)
    this.#values = new Array(places).fill(undefined)
  }

  /** The place of a key, or the free one where it would be. */
  #placeOf(key: number): number {
    const keys = this.#keys
    const mask = keys.length - 1
    // Keys have up to 53 bits; the product's upper bits depend on all lower bits of the key.
    const product = Math.imul(key ^ (key / 2 ** 32), 0x9e37_79b1)
    let place = (product >>> 15) & mask
    while (keys[place] !== key && keys[place] !== -1) place = (place + 1) & mask
    return place
  }

  get(key: number): V | undefined {
    return this.size === 0 ? undefined : this.#values[this.#placeOf(key)]
  }

  set(key: number, value: V): void {
    const place = this.#placeOf(key)
    if (this.#keys[place] === -1) {
      this.#keys[place] = key
      this.size++
    }
    this.#values[place] = value
  }

  clear(): void {
    this.size = 0
    this.#keys.fill(-1)
    this.#values.fill(undefined)
  }
}

export class Recent<V> {
  readonly #least: number
  #newer: Table<V>
  #older: Table<V>

  /** Remembers at least the `least` newest entries, a power of two, and at most twice as many. */
  constructor(least: number) {
    this.#least = least
    this.#newer = new Table(2 * least)
    this.#older = new Table(2 * least)
  }

  /** `key`: a whole number from 0 on. */
  get(key: number): V | undefined {
    return this.#newer.get(key) ?? this.#older.get(key)
  }

  set(key: number, value: V): void {
    this.#newer.set(key, value)
    if (this.#newer.size < this.#least) return
    const emptied = this.#older
    emptied.clear()
    this.#older = this.#newer
    this.#newer = emptied
  }
}
