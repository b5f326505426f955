/*
 * Finds devices by index (`Device.index`), for the checker.
 */
import type { Core, Device } from '../../core/model.ts'

/** The returned look-up caches devices. */
export const deviceByIndex = (core: Core): ((index: number) => Device | undefined) => {
  const found = new Map<number, Device>()
  return index => {
    const known = found.get(index)
    if (known?.isAlive) return known
    for (const device of core.devices.values()) {
      if (device.index !== index) continue
      found.set(index, device)
      return device
    }
    return undefined
  }
}
