/*
 * Common parts of ports with sockets (phy/udp/port.ts, dgram.ts): numbers of addresses, space for layers that keep
 * packets, peers of flows.
 */
import type { FlowTable } from './flow-table.ts'
import { addressWords } from './key-table.ts'
import { noAddress, type Port } from './port.ts'
import { RUN_BYTES, requireRunBytes } from './runs/limits.ts'
import type { Senders } from './udp/senders.ts'

/** Bytes of the arena for layers that keep packets. */
const ROOMS = 8
export const ROOMS_BYTES = ROOMS * RUN_BYTES

export interface Addresses<S> {
  /** By number: an address, and its socket while the port has the address. The number of an address does not change. */
  readonly addresses: Uint8Array[]
  readonly sockets: (S | undefined)[]
  /** The number of an address; -1 if it has none. */
  numberOf(address: Uint8Array): number
  /** The number that the address has, or would get. */
  numberFor(address: Uint8Array): number
  /** Stores the socket of an address; assigns a number if the address has none. */
  put(address: Uint8Array, socket: S): number
  /** A group was left: its number is free again, since it is not the source of any flow. */
  forget(number: number): void
}

export const createAddresses = <S>(): Addresses<S> => {
  const addresses: Uint8Array[] = []
  const sockets: (S | undefined)[] = []
  const free: number[] = []
  const numberOf = (address: Uint8Array): number =>
    addresses.findIndex(known => known.every((byte, i) => byte === address[i]))
  const numberFor = (address: Uint8Array): number => {
    const known = numberOf(address)
    return known >= 0 ? known : (free.at(-1) ?? addresses.length)
  }
  return {
    addresses,
    sockets,
    numberOf,
    numberFor,
    put(address, socket) {
      const number = numberFor(address)
      if (free.at(-1) === number) free.pop()
      addresses[number] = address.slice()
      sockets[number] = socket
      return number
    },
    forget(number) {
      addresses[number] = noAddress.source
      free.push(number)
    },
  }
}

type Parts = 'holdFlow' | 'closeFlow' | 'peerOf' | 'takeRoom' | 'giveRoom' | 'nextTimeout' | 'onTimeout'

/** The parts for these flows and senders; space for layers is at `roomsAt` of the arena. */
export const socketPortParts = (flows: FlowTable, senders: Senders, roomsAt: number): Pick<Port, Parts> => {
  const freeRooms = Array.from({ length: ROOMS }, (_, i) => roomsAt + i * RUN_BYTES)
  const scratch = new Uint32Array(4)
  const peerOf = (address: Uint8Array): number => {
    addressWords(address, scratch, 0)
    return flows.peerOf(0, scratch, 0)
  }
  return {
    peerOf,
    holdFlow: flow => flows.reopen(0, flow),
    closeFlow: flow => {
      const { destination } = flows.recordOf(flow) ?? noAddress
      const peer = peerOf(destination)
      flows.close(0, flow)
      if (peer >= 0 && peerOf(destination) < 0) senders.forgetPeer(peer)
    },
    takeRoom: bytes => {
      requireRunBytes(bytes)
      return freeRooms.pop() ?? -1
    },
    giveRoom: offset => {
      freeRooms.push(offset)
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
    onTimeout: () => {},
  }
}
