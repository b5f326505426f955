/*
 * Finds devices by their index (`Device.index`), by which the checker names them.
 */
import type { Core, Device } from '../../core/model.ts'

/** A look-up of the core's devices by index; devices that were found before are found at once. */
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
