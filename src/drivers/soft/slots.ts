/*
 * Slots: small integers that identify objects in hot code. The last freed slot is used first.
 */
export interface Slots<T> {
  add(value: T): number
  remove(slot: number): void
  /** `slot` must be in use. */
  get(slot: number): T
  values(): T[]
  size(): number
}

/** `first`: the lowest slot. */
export const createSlots = <T>(first = 0): Slots<T> => {
  const values: (T | undefined)[] = new Array(first).fill(undefined)
  const free: number[] = []
  return {
    add(value) {
      const slot = free.pop() ?? values.length
      values[slot] = value
      return slot
    },
    remove(slot) {
      if (values[slot] === undefined) throw new Error(`remove of slot ${slot}, which is free`)
      values[slot] = undefined
      free.push(slot)
    },
    get: slot => values[slot] as T,
    values: () => values.filter(value => value !== undefined),
    size() {
      return values.length - first - free.length
    },
  }
}
