/*
 * Clients of the subsystem (R31, R32, R40): parts that use every device there is, as it comes and until it goes.
 *
 * A client is told of each device by `add` and `remove`, and these two calls are all that its state needs: registering
 * calls `add` for the devices that exist, unregistering calls `remove` for those that remain, both before they return;
 * a new device calls `add` in the order in which clients registered, a removed one `remove` in the opposite order, so
 * that whoever builds on another client comes after it and goes before it. Everything here is synchronous: once
 * `unregister` has returned no callback runs. Callbacks may register and remove devices and other clients. Who wants to
 * know about a device's unaffiliated events adds a handler.
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

/** Tells a client of a device, which is one of its own unless it throws or answers false. */
const add = (entry: ClientEntry, device: Device): void =>
  callBack(entry, () => {
    // Before the callback: what it does may lead back here.
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
 * Makes a client known and tells it of all devices, in order of their registration. The function returned unregisters
 * it. If a call of `add` throws, the client is unregistered again and the error goes on. Both throw an Error for a
 * client that does it in a callback of its own.
 */
export const registerClient = (core: Core, client: Client): (() => void) => {
  const entry: ClientEntry = { client, devices: new Set(), running: 0 }
  const unregister = (): void => {
    if (entry.running > 0) throw new Error(`client ${client.name} unregisters in a callback of its own`)
    const at = core.clients.indexOf(entry)
    if (at < 0) return
    core.clients.splice(at, 1)
    for (const device of [...entry.devices].reverse()) attempt(core, () => remove(entry, device))
  }
  core.clients.push(entry)
  try {
    // A callback may have removed one of them.
    for (const device of [...core.devices.values()]) if (device.alive) add(entry, device)
  } catch (error) {
    unregister()
    throw error
  }
  return unregister
}

/** A device has been registered. A client that throws is counted, has no use for it, and does not stop the others. */
export const announce = (core: Core, device: Device): void => {
  for (const entry of [...core.clients])
    if (device.alive && core.clients.includes(entry)) attempt(core, () => add(entry, device))
}

/** A device is being removed. A client that throws is counted and does not stop the others. */
export const withdraw = (core: Core, device: Device): void => {
  for (const entry of [...core.clients].reverse()) attempt(core, () => remove(entry, device))
}

/** Calls `handler` for each unaffiliated event of the device until the function returned is called. */
export const addEventHandler = (device: Device, handler: DeviceEventHandler): (() => void) => {
  // Each registration is one of its own, also of the same function.
  const own: DeviceEventHandler = event => handler(event)
  device.eventHandlers.add(own)
  return () => {
    device.eventHandlers.delete(own)
  }
}
