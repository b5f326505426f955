/*
 * Clients of the subsystem (R31, R32, R40): parts that use every device, as in Linux' ib_client.
 *
 * `add` and `remove` notify a client of each device: registering a client calls `add` for the existing devices,
 * unregistering calls `remove` for the remaining ones, both before they return. A new device calls `add` in the order
 * in which clients registered, a removed one calls `remove` in the reverse order, so that a client that builds on
 * another one is added after it and removed before it. Everything here is synchronous: once `unregister` has returned
 * no callback runs. Callbacks may register and remove devices and other clients. For a device's unaffiliated events a
 * client adds a handler.
 */
import { attempt } from '../attempt.ts'
import type { Client, ClientEntry, Core, Device, DeviceEventHandler } from '../model.ts'

const callBack = (entry: ClientEntry, run: () => void): void => {
  entry.running++
  try {
    run()
  } finally {
    entry.running--
  }
}

/** Adds a device to a client, unless `add` throws or returns false. */
const add = (entry: ClientEntry, device: Device): void =>
  callBack(entry, () => {
    // before the callback, which may call this function again
    entry.devices.add(device)
    let wanted: boolean | undefined = false
    try {
      wanted = entry.client.add(device)
    } finally {
      if (wanted === false) entry.devices.delete(device)
    }
  })

const remove = (entry: ClientEntry, device: Device): void => {
  if (entry.devices.delete(device)) callBack(entry, () => entry.client.remove(device))
}

/**
 * Registers a client and adds all devices to it, in order of their registration. The returned function unregisters it.
 * If a call of `add` throws, the client is unregistered again and the error is rethrown. Both throw an Error if they
 * are called in a callback of the same client.
 */
export const registerClient = (core: Core, client: Client): (() => void) => {
  const entry: ClientEntry = { client, devices: new Set(), running: 0 }
  const unregister = (): void => {
    if (entry.running > 0) throw new Error(`client ${client.name} unregisters in its own callback`)
    const at = core.clients.indexOf(entry)
    if (at < 0) return
    core.clients.splice(at, 1)
    for (const device of [...entry.devices].reverse()) attempt(core, () => remove(entry, device))
  }
  core.clients.push(entry)
  try {
    // a callback may have removed one of them
    for (const device of [...core.devices.values()]) if (device.alive) add(entry, device)
  } catch (error) {
    unregister()
    throw error
  }
  return unregister
}

/** A device was registered. A client that throws is counted, does not use it, and does not stop the others. */
export const announce = (core: Core, device: Device): void => {
  for (const entry of [...core.clients])
    if (device.alive && core.clients.includes(entry)) attempt(core, () => add(entry, device))
}

/** A device is being removed. A client that throws is counted and does not stop the others. */
export const withdraw = (core: Core, device: Device): void => {
  for (const entry of [...core.clients].reverse()) attempt(core, () => remove(entry, device))
}

/** Calls `handler` for each unaffiliated event of the device until the returned function is called. */
export const addEventHandler = (device: Device, handler: DeviceEventHandler): (() => void) => {
  // each registration is separate, also of the same function
  const own: DeviceEventHandler = event => handler(event)
  device.eventHandlers.add(own)
  return () => {
    device.eventHandlers.delete(own)
  }
}
