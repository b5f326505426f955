/*
 * Clients of the subsystem (R31, R32, R40), as Linux' ib_client.
 *
 * Core calls a client's `add` for each device, and its `remove` for each device that it uses. Devices are added to
 * clients in the order in which the clients registered, and removed in reverse order. So a client may use clients that
 * registered before: it gets a device after them, and loses the device before them. Everything is synchronous: after a
 * client is unregistered, no callback of it runs. Callbacks may register and remove devices and other clients. A client
 * that a callback registers immediately gets all devices, perhaps before clients that registered earlier.
 */
import { attempt } from '../attempt.ts'
import type { Client, ClientEntry, Context, Core, Device, DeviceEventHandler } from '../model.ts'

const runCallback = (entry: ClientEntry, run: () => void): void => {
  entry.runningCallbacks++
  try {
    run()
  } finally {
    entry.runningCallbacks--
  }
}

/** Rethrows what `add` throws. */
const add = (entry: ClientEntry, device: Device): void =>
  runCallback(entry, () => {
    // Before the callback, because the callback may remove the device, or register another.
    entry.devices.add(device)
    // Stays false if `add` throws.
    let wanted: boolean | undefined = false
    try {
      wanted = entry.client.add(device)
    } finally {
      if (wanted === false) entry.devices.delete(device)
    }
  })

const remove = (entry: ClientEntry, device: Device): void => {
  if (entry.devices.delete(device)) runCallback(entry, () => entry.client.remove(device))
}

/**
 * Registers a client and adds all devices to it. The returned function unregisters the client and calls `remove` for
 * its devices; it throws an Error in a callback of this client. If `add` throws, the client is unregistered and the
 * error is rethrown.
 */
export const registerClient = (core: Core, client: Client): (() => void) => {
  const entry: ClientEntry = { client, devices: new Set(), runningCallbacks: 0 }
  const unregister = (): void => {
    if (entry.runningCallbacks > 0) throw new Error(`client ${client.name} was unregistered in its own callback`)
    const index = core.clients.indexOf(entry)
    if (index < 0) return
    core.clients.splice(index, 1)
    for (const device of [...entry.devices].reverse()) attempt(core, () => remove(entry, device))
  }
  core.clients.push(entry)
  try {
    // A callback may have removed a device.
    for (const device of [...core.devices.values()]) if (device.isAlive) add(entry, device)
  } catch (error) {
    unregister()
    throw error
  }
  return unregister
}

/** Adds a device to all clients. If a client throws, it does not use the device, and the other clients continue. */
export const announce = (core: Core, device: Device): void => {
  // A callback may remove the device, or unregister a client.
  for (const entry of [...core.clients])
    if (device.isAlive && core.clients.includes(entry)) attempt(core, () => add(entry, device))
}

/** Removes a device from all clients. If a client throws, the other clients continue. */
export const withdraw = (core: Core, device: Device): void => {
  for (const entry of [...core.clients].reverse()) attempt(core, () => remove(entry, device))
}

/**
 * Calls `handler` for each unaffiliated event of the device, until the returned function is called. `context`: also for
 * events that only this context gets (`raiseInContext`).
 */
export const addEventHandler = (device: Device, handler: DeviceEventHandler, context?: Context): (() => void) => {
  // A new function, so that the same handler can be added several times.
  const registration: DeviceEventHandler = event => handler(event)
  device.eventHandlers.set(registration, context)
  return () => {
    device.eventHandlers.delete(registration)
  }
}
