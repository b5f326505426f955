/*
 * Finds the memory of a key, for the checker: regions, and windows bound to them.
 */
import type { KeyedMemory } from '../../check/races/sources.ts'
import { KeyKind, rowAt } from '../../core/memory/region-table.ts'
import type { Core, Device } from '../../core/model.ts'
import { TWO_32 } from '../../spec/memory.ts'

/** A look-up by the number of the device and a key; undefined for keys without memory. */
export const keyMemory = (core: Core): ((device: number, key: number) => KeyedMemory | undefined) => {
  const numbers = new WeakMap<object, number>()
  let last = 0
  const devices = new Map<number, Device>()
  const findDevice = (index: number): Device | undefined => {
    const known = devices.get(index)
    if (known?.alive) return known
    for (const device of core.devices.values()) {
      if (device.index !== index) continue
      devices.set(index, device)
      return device
    }
    return undefined
  }
  return (index, key) => {
    const memory = findDevice(index)?.memory
    if (memory === undefined) return undefined
    const row = rowAt(memory, key >>> 8)
    if (row < 0 || memory.key[row] !== key) return undefined
    const space = memory.spaces[memory.space[row]!]
    if (space === undefined) return undefined
    let number = numbers.get(space)
    if (number === undefined) {
      number = ++last
      numbers.set(space, number)
    }
    const start = memory.startHi[row]! * TWO_32 + memory.startLo[row]!
    const iova = memory.iovaHi[row]! * TWO_32 + memory.iovaLo[row]!
    const region = memory.kind[row] === KeyKind.REGION ? key : memory.key[memory.bound[row]!]!
    return { space: number, shift: start - iova, region }
  }
}
