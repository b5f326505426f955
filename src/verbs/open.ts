/*
 * `open`: a device for a TypeScript program. In this process by default: a soft device of its own, on a network of its
 * own or on one that several share.
 */

import type { Link } from '../uapi/tool.ts'
import { parseAddress } from '../wire/address.ts'
import { createDevice, type Device } from './device.ts'
import { localCarrier } from './local.ts'
import { createNetwork, type LocalNetwork, type Network } from './network.ts'

export interface OpenOptions {
  /** Devices that are opened on the same network reach each other; default: a new one. */
  readonly network?: Network
  /** Of a new network: what it is made of, see `NetworkOptions.link`. Needs `address`, unless it is memory. */
  readonly link?: Link
  /** Default: rxe0, rxe1, … */
  readonly name?: string
  /** Default: 127.0.0.1, 127.0.0.2, … */
  readonly address?: string
}

const GID_OF_ADDRESS = 1

/** Opens a device. Throws RdmaError, EEXIST for a name that the network has already. */
export const open = async (options: OpenOptions = {}): Promise<Device> => {
  const network = (options.network ?? createNetwork({ ...(options.link && { link: options.link }) })) as LocalNetwork
  const { address = `127.0.0.${network.added + 1}`, name = `rxe${network.added}` } = options
  const carrier = localCarrier(network, name, address)
  const gid = parseAddress(address) as Uint8Array
  const { pathMtu } = carrier.rxe.state.port
  return createDevice(carrier, name, address, { gid, gidIndex: GID_OF_ADDRESS, pathMtu })
}
