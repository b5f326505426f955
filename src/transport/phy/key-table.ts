/*
 * Numbers for keys of a few 32-bit words, such as addresses (4 words) and flows (11). Equal keys get the same number.
 * Numbers have reference counts; a number is reused when its count is 0. The table is a hash table with open addressing
 * over typed arrays, so that a look-up per run allocates nothing (docs/decisions/engines-without-io.md).
 */

interface KeyTable {
  /** The keys, in the order of their numbers. The array is replaced when the table grows, so do not keep it. */
  readonly keys: Uint32Array
  /** The number of the key at `at` in `words`; -1 if there is none. */
  find(words: Uint32Array, at: number): number
  /** As `find`, but adds the key if necessary, and increments the reference count of its number. */
  acquire(words: Uint32Array, at: number): number
  /** Increments the reference count of a number. */
  retain(number: number): void
  /** Decrements the reference count of a number; true if the number is now free. Throws an Error if it was free. */
  release(number: number): boolean
  /** The reference count of a number; 0 if it is free. */
  refCount(number: number): number
  /** Number of keys in the table. */
  readonly size: number
  /** Increases when a key is added or removed. Until then, results of `find` may be cached. */
  readonly version: number
}

/** A table of keys of `words` words. */
export const createKeyTable = (words: number): KeyTable => {
  /** By number. */
  let refCounts = new Int32Array(16)
  /** By slot of the hash table: number + 1; 0: empty. At least half of the slots are empty, so a search ends. */
  let slots = new Int32Array(32)
  /** Numbers from 0 to `usedNumbers` - 1 have been used; `freeNumbers` has those that are free now. */
  let usedNumbers = 0
  let freeNumbers: number[] = []

  // In the functions below, a key is the words of `source` from `at` on.
  const hash = (source: Uint32Array, at: number): number => {
    let hashValue = 0x9e3779b9
    for (let i = 0; i < words; i++) hashValue = Math.imul(hashValue ^ source[at + i], 0x85ebca6b) ^ (hashValue >>> 13)
    return hashValue ^ (hashValue >>> 16)
  }
  const isAt = (number: number, source: Uint32Array, at: number): boolean => {
    for (let i = 0; i < words; i++) if (table.keys[number * words + i] !== source[at + i]) return false
    return true
  }
  const slotOf = (source: Uint32Array, at: number): number => {
    const mask = slots.length - 1
    let slot = hash(source, at) & mask
    while (slots[slot] !== 0 && !isAt(slots[slot] - 1, source, at)) slot = (slot + 1) & mask
    return slot
  }
  const grow = (): void => {
    const oldKeys = table.keys
    const oldRefCounts = refCounts
    table.keys = new Uint32Array(oldKeys.length * 2)
    table.keys.set(oldKeys)
    refCounts = new Int32Array(oldRefCounts.length * 2)
    refCounts.set(oldRefCounts)
    slots = new Int32Array(refCounts.length * 2)
    for (let number = 0; number < usedNumbers; number++)
      if (refCounts[number] > 0) slots[slotOf(table.keys, number * words)] = number + 1
  }
  /** Empties a slot, and moves later keys of the same probe sequence up, so that no tombstone is needed. */
  const vacate = (slot: number): void => {
    const mask = slots.length - 1
    let hole = slot
    for (let next = (hole + 1) & mask; slots[next] !== 0; next = (next + 1) & mask) {
      const home = hash(table.keys, (slots[next] - 1) * words) & mask
      const distanceToHome = (next - home) & mask
      const distanceToHole = (next - hole) & mask
      if (distanceToHole <= distanceToHome) {
        slots[hole] = slots[next]
        hole = next
      }
    }
    slots[hole] = 0
  }

  const table: { -readonly [K in keyof KeyTable]: KeyTable[K] } = {
    // No accessors: a single one would make the whole object slow, and `version` is read for every run.
    keys: new Uint32Array(16 * words),
    size: 0,
    version: 0,
    find: (source, at) => slots[slotOf(source, at)] - 1,
    acquire: (source, at) => {
      let slot = slotOf(source, at)
      if (slots[slot] === 0) {
        if (freeNumbers.length === 0 && usedNumbers === refCounts.length) {
          grow()
          slot = slotOf(source, at)
        }
        const number = freeNumbers.pop() ?? usedNumbers++
        for (let i = 0; i < words; i++) table.keys[number * words + i] = source[at + i]
        slots[slot] = number + 1
        table.size++
        table.version++
      }
      const number = slots[slot] - 1
      refCounts[number]++
      return number
    },
    retain: number => {
      refCounts[number]++
    },
    release: number => {
      if (number < 0 || number >= usedNumbers || refCounts[number] === 0)
        throw new Error(`key ${number} has no reference`)
      if (--refCounts[number] > 0) return false
      table.version++
      vacate(slotOf(table.keys, number * words))
      freeNumbers.push(number)
      if (--table.size === 0) {
        freeNumbers = []
        usedNumbers = 0
      }
      return true
    },
    refCount: number => (number >= 0 && number < usedNumbers ? refCounts[number] : 0),
  }
  return table
}

/** Writes an address as 4 words to `target`, from index `at` on. Throws a RangeError if it does not have 16 bytes. */
export const addressWords = (address: Uint8Array, target: Uint32Array, at: number): void => {
  if (address.length !== 16) throw new RangeError(`an address has 16 bytes, not ${address.length}`)
  for (let i = 0; i < 4; i++)
    target[at + i] =
      (address[4 * i] << 24) | (address[4 * i + 1] << 16) | (address[4 * i + 2] << 8) | address[4 * i + 3]
}
