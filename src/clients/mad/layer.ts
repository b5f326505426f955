/*
 * The MAD layer (R40; IBA 13): takes queue pair 1 of every device that has one, and hands what comes there to the
 * agents of its management class. It is the first client of the subsystem, so that whoever builds on it comes after it
 * and goes before it.
 */
import { registerClient } from '../../core/devices/clients.ts'
import type { Core, Device, MadAddress, ManagementPort } from '../../core/model.ts'
import { CallError } from '../../spec/errno.ts'

/** Who handles the datagrams of one management class. */
export interface MadAgent {
  readonly mgmtClass: number
  receive(device: Device, mad: Uint8Array, from: MadAddress): void
}

export interface MadLayer {
  /** One agent for a class; the function returned takes it away. Throws CallError EBUSY for a class that has one. */
  register(agent: MadAgent): () => void
  /** Sends a datagram from queue pair 1 of a device; false if it is lost here already. */
  send(device: Device, mad: Uint8Array, to: MadAddress): boolean
  /** Whether the layer has queue pair 1 of the device. */
  has(device: Device): boolean
  close(): void
}

/** Byte of the management class in a MAD. */
const CLASS_AT = 1

export const createMadLayer = (core: Core): MadLayer => {
  const agents = new Map<number, MadAgent>()
  const ports = new Map<Device, ManagementPort>()
  const unregister = registerClient(core, {
    name: 'mad',
    add(device) {
      const port = device.driver.openManagement?.(device, (mad, from) => {
        const agent = agents.get(mad[CLASS_AT]!)
        agent?.receive(device, mad, from)
      })
      if (port === undefined) return false
      ports.set(device, port)
      return true
    },
    remove(device) {
      ports.get(device)?.close()
      ports.delete(device)
    },
  })
  return {
    register(agent) {
      const { mgmtClass } = agent
      if (agents.has(mgmtClass)) throw new CallError('EBUSY', `management class ${mgmtClass} has an agent`)
      agents.set(mgmtClass, agent)
      return () => {
        if (agents.get(mgmtClass) === agent) agents.delete(mgmtClass)
      }
    },
    send: (device, mad, to) => ports.get(device)?.send(mad, to) ?? false,
    has: device => ports.has(device),
    close: unregister,
  }
}
