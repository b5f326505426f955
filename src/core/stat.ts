/*
 * Counts of objects and waiting calls, for `userdma stat` and for tests that check for leaks. Contexts and objects of a
 * removed device are not counted.
 */
import type { Core } from './model.ts'

export interface DeviceCounts {
  readonly contexts: number
  /** Number of objects by class, without classes that have none. */
  readonly objects: Readonly<Record<string, number>>
  readonly regions: number
  readonly hooks: number
}

export interface CoreCounts {
  /** By name; also the system-wide device, unless another device has its name. */
  readonly devices: Readonly<Record<string, DeviceCounts>>
  readonly contexts: number
  readonly objects: number
  readonly descriptors: number
  /** Calls whose asynchronous handlers run. */
  readonly waiting: number
  /** Events posted since the start. */
  readonly events: number
  /** Exceptions that core has caught, since the start. */
  readonly faults: number
  /** Number of compiled tables in use: of classes, and of devices. Devices share equal tables. */
  readonly tables: { readonly classes: number; readonly devices: number }
}

export const stat = (core: Core): CoreCounts => {
  const devices: Record<string, DeviceCounts> = {}
  let contexts = 0
  let objects = 0
  // The system-wide device first, because a device may have the same name.
  for (const device of [...(core.system === undefined ? [] : [core.system]), ...core.devices.values()]) {
    const counts = Object.fromEntries(Object.entries(device.counts).filter(([, live]) => live > 0))
    devices[device.name] = {
      contexts: device.contexts.size,
      objects: counts,
      regions: device.memory.liveKeys - device.memory.windows,
      hooks: device.hooks.length,
    }
    contexts += device.contexts.size
    for (const live of Object.values(counts)) objects += live
  }
  return {
    devices,
    contexts,
    objects,
    descriptors: core.descriptors.size,
    waiting: core.waitingCalls,
    events: core.events,
    faults: core.faults,
    tables: { classes: core.tables.classes.size, devices: core.tables.devices.size },
  }
}
