/*
 * Clients of the subsystem (R31, R32, R40): parts that are told of every device, as Linux' ib_client.
 *
 * Core calls a client's `add` for each device, and its `remove` for each that it uses. Registering a client calls `add`
 * for the existing devices, unregistering it calls `remove` for the remaining ones, both before they return. A new
 * device is added to the clients in the order in which they registered, and a removed one is removed from them in
 * reverse order, so that a client that uses another client gets the device after it and loses it before it. Everything
 * here is synchronous: once the function that unregisters a client has returned, no callback of it runs. Callbacks may
 * register and remove devices and other clients. Clients receive a device's unaffiliated events with `addEventHandler`.
 */
import { attempt } from '../attempt.ts'
import type { Client, ClientEntry, Core, Device, DeviceEventHandler } from '../model.ts'

const runCallback = (entry: ClientEntry, run: () => void): void => {
  entry.runningCallbacks++
  try {
    run()
  } finally {
    entry.runningCallbacks--
  }
}

/** Adds a device to a client, unless `add` returns false or throws; what it throws is rethrown. */
const add = (entry: ClientEntry, device: Device): void =>
  runCallback(entry, () => {
    // Before the callback, which may remove this device, or register another, which is then added after it.
    entry.devices.add(device)
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
 * Registers a client and adds all devices to it. The returned function unregisters the client; it throws an Error in a
 * callback of this client. If `add` throws, the client is unregistered and the error is rethrown.
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

/** Adds a registered device to all clients. If a client throws, it does not use the device, and the others continue. */
export const announce = (core: Core, device: Device): void => {
  // A callback may remove the device, or unregister a client.
  for (const entry of [...core.clients])
    if (device.isAlive && core.clients.includes(entry)) attempt(core, () => add(entry, device))
}

/** Removes a device from all clients. If a client throws, the others continue. */
export const withdraw = (core: Core, device: Device): void => {
  for (const entry of [...core.clients].reverse()) attempt(core, () => remove(entry, device))
}

/** Calls `handler` for each unaffiliated event of the device, until the returned function is called. */
export const addEventHandler = (device: Device, handler: DeviceEventHandler): (() => void) => {
  // A function of its own, so that the same handler can be added several times.
  const registration: DeviceEventHandler = event => handler(event)
  device.eventHandlers.add(registration)
  return () => {
    device.eventHandlers.delete(registration)
  }
}
