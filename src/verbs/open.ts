/*
 * `open`: a device for a TypeScript program. In this process by default: a soft device of its own, on a network of its
 * own or on one that several share.
 */

import { parseAddress } from '../wire/address.ts'
import { createDevice, type Device } from './device.ts'
import { createNetwork, localCarrier, type Network } from './local.ts'

export interface OpenOptions {
  /** Devices that are opened on the same network reach each other; default: a new one. */
  readonly network?: Network
  /** Default: rxe0, rxe1, … */
  readonly name?: string
  /** Default: 127.0.0.1, 127.0.0.2, … */
  readonly address?: string
}

/** How many devices each network has given names to. */
const counts = new WeakMap<Network, number>()

const GID_OF_ADDRESS = 1

/** Opens a device. Throws RdmaError, EEXIST for a name that the network has already. */
export const open = async ({ network = createNetwork(), name, address }: OpenOptions = {}): Promise<Device> => {
  const count = counts.get(network) ?? 0
  counts.set(network, count + 1)
  const own = address ?? `127.0.0.${count + 1}`
  const called = name ?? `rxe${count}`
  const carrier = localCarrier(network, called, own)
  const gid = parseAddress(own) as Uint8Array
  return createDevice(carrier, called, own, { gid, gidIndex: GID_OF_ADDRESS, pathMtu: carrier.rxe.state.port.pathMtu })
}
