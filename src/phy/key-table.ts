/*
 * Numbers for keys of a few 32-bit words, such as addresses (4 words) and flows (11). Equal keys get the same number,
 * which has a reference count; a number is reused for another key once its count is 0. The table is a hash table with
 * open addressing over typed arrays, so that a look-up per run creates no string and allocates nothing
 * (docs/decisions/engines-without-io.md).
 */

export interface KeyTable {
  /** The words of key number n begin at n × words. The array is replaced when the table grows, so do not keep it. */
  readonly keys: Uint32Array
  /** The number of the key at `at` in `words`; -1 if there is none. */
  find(words: Uint32Array, at: number): number
  /** As `find`, but adds the key if necessary, and increments the count of its number. */
  take(words: Uint32Array, at: number): number
  /** Increments the count of a number. */
  hold(number: number): void
  /** Decrements the count of a number; true if it is 0 now, and the number is free. Throws if it was 0. */
  drop(number: number): boolean
  /** The count of a number; 0 if it is free. */
  holders(number: number): number
  /** Keys in the table. */
  readonly size: number
  /** Increases whenever a key is added or removed; until then results may be cached. */
  readonly version: number
}

/** A table of keys of `words` words. */
export const createKeyTable = (words: number): KeyTable => {
  let holders = new Int32Array(16)
  /**
   * By slot of the hash table: number + 1; 0 if it is empty. At least half of the slots are empty, so a search ends.
   */
  let slots = new Int32Array(32)
  let used = 0
  let free: number[] = []

  const hash = (from: Uint32Array, at: number): number => {
    let h = 0x9e3779b9
    for (let i = 0; i < words; i++) h = Math.imul(h ^ from[at + i], 0x85ebca6b) ^ (h >>> 13)
    return h ^ (h >>> 16)
  }
  const isAt = (number: number, from: Uint32Array, at: number): boolean => {
    for (let i = 0; i < words; i++) if (table.keys[number * words + i] !== from[at + i]) return false
    return true
  }
  const slotOf = (from: Uint32Array, at: number): number => {
    const mask = slots.length - 1
    let slot = hash(from, at) & mask
    while (slots[slot] !== 0 && !isAt(slots[slot] - 1, from, at)) slot = (slot + 1) & mask
    return slot
  }
  const grow = (): void => {
    const oldKeys = table.keys
    const oldHolders = holders
    table.keys = new Uint32Array(oldKeys.length * 2)
    table.keys.set(oldKeys)
    holders = new Int32Array(oldHolders.length * 2)
    holders.set(oldHolders)
    slots = new Int32Array(holders.length * 2)
    for (let number = 0; number < used; number++)
      if (holders[number] > 0) slots[slotOf(table.keys, number * words)] = number + 1
  }
  /** Empties a slot, and moves later keys of the same probe sequence up, so that no tombstone is needed. */
  const vacate = (slot: number): void => {
    const mask = slots.length - 1
    let hole = slot
    for (let next = (hole + 1) & mask; slots[next] !== 0; next = (next + 1) & mask) {
      const home = hash(table.keys, (slots[next] - 1) * words) & mask
      if (((next - home) & mask) >= ((next - hole) & mask)) {
        slots[hole] = slots[next]
        hole = next
      }
    }
    slots[hole] = 0
  }

  const table: { -readonly [K in keyof KeyTable]: KeyTable[K] } = {
    // Plain properties: one accessor would make the whole object slow, and `version` is read for every run.
    keys: new Uint32Array(16 * words),
    size: 0,
    version: 0,
    find: (from, at) => slots[slotOf(from, at)] - 1,
    take: (from, at) => {
      let slot = slotOf(from, at)
      if (slots[slot] === 0) {
        if (free.length === 0 && used === holders.length) {
          grow()
          slot = slotOf(from, at)
        }
        const number = free.pop() ?? used++
        for (let i = 0; i < words; i++) table.keys[number * words + i] = from[at + i]
        slots[slot] = number + 1
        table.size++
        table.version++
      }
      const number = slots[slot] - 1
      holders[number]++
      return number
    },
    hold: number => {
      holders[number]++
    },
    drop: number => {
      if (number < 0 || number >= used || holders[number] === 0) throw new Error(`key ${number} has no holder`)
      if (--holders[number] > 0) return false
      table.version++
      vacate(slotOf(table.keys, number * words))
      free.push(number)
      if (--table.size === 0) {
        free = []
        used = 0
      }
      return true
    },
    holders: number => (number >= 0 && number < used ? holders[number] : 0),
  }
  return table
}

/**
 * Writes the 16 bytes of an address as 4 big-endian words to `into` at `at`. Throws a RangeError for another length.
 */
export const addressWords = (address: Uint8Array, into: Uint32Array, at: number): void => {
  if (address.length !== 16) throw new RangeError(`an address has 16 bytes, not ${address.length}`)
  for (let i = 0; i < 4; i++)
    into[at + i] = (address[4 * i] << 24) | (address[4 * i + 1] << 16) | (address[4 * i + 2] << 8) | address[4 * i + 3]
}
