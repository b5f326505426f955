/*
 * Common parts of ports with sockets (transport/phy/udp/port.ts, dgram.ts): addresses, buffers for layers that keep
 * packets, peers of flows.
 */
import { type FlowTable, ONLY_PORT } from './flow-table.ts'
import { addressWords } from './key-table.ts'
import { noAddress, type Port } from './port.ts'
import { RUN_BYTES, requireRunBytes } from './runs/limits.ts'
import type { Senders } from './udp/senders.ts'

/** Number of buffers for `Port.takeLayerBuffer`, and their bytes in the arena. */
const LAYER_BUFFERS = 8
export const LAYER_BUFFERS_BYTES = LAYER_BUFFERS * RUN_BYTES

interface Addresses<S> {
  /** By number: an address, and its socket while the port has the address. Numbers do not change until `freeNumber`. */
  readonly addresses: Uint8Array[]
  readonly sockets: (S | undefined)[]
  /** The number of an address; -1 if it has none. */
  numberOf(address: Uint8Array): number
  /** The number that `setSocket` would return. */
  numberIfAdded(address: Uint8Array): number
  /** Stores the socket of an address. Assigns a number if the address has none. Returns the number. */
  setSocket(address: Uint8Array, socket: S): number
  /** Frees the number of an address that has no socket any more and is no flow's source (a group that was left). */
  freeNumber(number: number): void
}

export const createAddresses = <S>(): Addresses<S> => {
  const addresses: Uint8Array[] = []
  const sockets: (S | undefined)[] = []
  const freeNumbers: number[] = []
  const numberOf = (address: Uint8Array): number =>
    addresses.findIndex(existing => existing.every((byte, i) => byte === address[i]))
  const numberIfAdded = (address: Uint8Array): number => {
    const existing = numberOf(address)
    return existing >= 0 ? existing : (freeNumbers.at(-1) ?? addresses.length)
  }
  return {
    addresses,
    sockets,
    numberOf,
    numberIfAdded,
    setSocket(address, socket) {
      const number = numberIfAdded(address)
      if (freeNumbers.at(-1) === number) freeNumbers.pop()
      addresses[number] = address.slice()
      sockets[number] = socket
      return number
    },
    freeNumber(number) {
      addresses[number] = noAddress.source
      freeNumbers.push(number)
    },
  }
}

type CommonFunctions =
  | 'reopenFlow'
  | 'closeFlow'
  | 'recordOf'
  | 'peerOf'
  | 'takeLayerBuffer'
  | 'releaseLayerBuffer'
  | 'nextTimeout'
  | 'onTimeout'

/** `layerBuffersAt`: offset of LAYER_BUFFERS_BYTES bytes in the arena. */
export const socketPortParts = (
  flows: FlowTable,
  senders: Senders,
  layerBuffersAt: number,
): Pick<Port, CommonFunctions> => {
  const freeBuffers = Array.from({ length: LAYER_BUFFERS }, (_, i) => layerBuffersAt + i * RUN_BYTES)
  const addressKey = new Uint32Array(4)
  const peerOf = (address: Uint8Array): number => {
    addressWords(address, addressKey, 0)
    return flows.peerOf(ONLY_PORT, addressKey, 0)
  }
  return {
    peerOf,
    recordOf: flows.recordOf,
    reopenFlow: flow => flows.reopen(ONLY_PORT, flow),
    closeFlow: flow => {
      const { destination } = flows.recordOf(flow) ?? noAddress
      const peer = peerOf(destination)
      // Flows to the same peer may remain.
      flows.close(ONLY_PORT, flow)
      if (peer >= 0 && peerOf(destination) < 0) senders.forgetPeer(peer)
    },
    takeLayerBuffer: bytes => {
      requireRunBytes(bytes)
      return freeBuffers.pop() ?? -1
    },
    releaseLayerBuffer: offset => {
      freeBuffers.push(offset)
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
    onTimeout: () => {},
  }
}
