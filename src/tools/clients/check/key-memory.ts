/*
 * Finds the memory of a key, for the checker: the key of a region, or of a window bound to a region.
 */

import { nullMemory } from '../../../core/memory/address-space.ts'
import { IndirectSpace } from '../../../core/memory/indirect.ts'
import { isWindow, rowAt } from '../../../core/memory/region-table.ts'
import type { Device } from '../../../core/model.ts'
import type { KeyedMemory } from '../../../spec/check/probes.ts'
import { TWO_32 } from '../../../spec/memory.ts'

/** Maximum ranges of a key over other keys. */
const MAX_PARTS = 256

/**
 * Returns a look-up by device index and key; undefined if the key is unknown, of a region of kind NULL or an unbound
 * window, or if its iova is 2^53 or more. `findDevice`: the device by index.
 */
export const keyMemory = (
  findDevice: (index: number) => Device | undefined,
): ((device: number, key: number) => KeyedMemory | undefined) => {
  const spaceNumbers = new WeakMap<object, number>()
  let lastNumber = 0
  return (index, key) => {
    const device = findDevice(index)
    if (device === undefined) return undefined
    const { memory, driver } = device
    const whole = driver.requests?.tableKey?.(memory, key) ?? key
    const row = rowAt(memory, whole >>> 8)
    if (row < 0 || memory.key[row] !== whole) return undefined
    const space = memory.spaces[memory.space[row]!]
    const iova = memory.iovaHi[row]! * TWO_32 + memory.iovaLo[row]!
    // Requests to larger addresses have rounded addresses, so different bytes would look like the same.
    if (space === undefined || space === nullMemory || !Number.isSafeInteger(iova)) return undefined
    let number = spaceNumbers.get(space)
    if (number === undefined) {
      number = ++lastNumber
      spaceNumbers.set(space, number)
    }
    const start = memory.startHi[row]! * TWO_32 + memory.startLo[row]!
    const region = isWindow(memory, row) ? memory.key[memory.windowRegion[row]!]! : key
    const parts = space instanceof IndirectSpace ? { parts: space.ranges(MAX_PARTS) } : {}
    return { space: number, shift: start - iova, region, ...parts }
  }
}
