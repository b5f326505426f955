/*
 * The sockets by which a UDP port sends. A socket has one source port, so each source port of an address has an outlet
 * of its own: switches choose among equal paths by it. An address has at most MAX_SOURCE_PORTS beside port 4791. Flows
 * beyond them, and those whose port another program has, use the outlet of port 4791. What arrives at a source port is
 * not read; the kernel keeps little of it.
 */
import { SystemError } from '../../../host/errno.ts'
import { type Watch, watch } from '../../../host/event-loop/poll.ts'
import { closeUdpSocket, openUdpSocket, type UdpSocket } from '../../../host/net/udp.ts'
import { descriptorLimit } from '../../../host/process-status.ts'
import { ROCE_UDP_PORT } from '../../../spec/wire/headers.ts'

/** Sockets of one address beside that of port 4791. */
const MAX_SOURCE_PORTS = 64
/** Which part of the process's descriptors the sockets of all addresses may be among: programs need the others. */
const DESCRIPTOR_SHARE = 1 / 4

interface Outlet {
  readonly address: Uint8Array
  readonly port: number
  /** Opened and reopened flows that were not closed. */
  users: number
  watch: Watch | undefined
}

interface Outlets {
  /** By number of the outlet. Undefined: the port has lost the address. */
  readonly sockets: readonly (UdpSocket | undefined)[]
  /** The number of the outlet for one more flow from `address`, which the port has. */
  take(address: Uint8Array, sourcePort: number): number
  retain(outlet: number): void
  release(outlet: number): void
  sourcePortOf(outlet: number): number
  /** The port has got the address. `watch`: of the socket, while it is open. */
  setSocket(address: Uint8Array, socket: UdpSocket, watch: Watch): void
  /** The port loses the address. The caller closes the socket given to `setSocket`. */
  removeSockets(address: Uint8Array): void
  /** The buffer of this outlet's socket is full, and of no other one; -1: of none. */
  setBlocked(outlet: number): void
}

interface OutletOptions {
  readonly interfaceIndex: () => number
  /** Called before a socket is closed, and when a blocked one is writable. */
  readonly sendQueued: () => void
  /** Wakes the port's owner: it may reserve again. */
  readonly wake: () => void
}

export const createOutlets = ({ interfaceIndex, sendQueued, wake }: OutletOptions): Outlets => {
  const outlets: (Outlet | undefined)[] = []
  const sockets: (UdpSocket | undefined)[] = []

  const isOf = (outlet: Outlet | undefined, address: Uint8Array): outlet is Outlet =>
    outlet?.address.every((byte, i) => byte === address[i]) === true
  const find = (address: Uint8Array, port: number): number =>
    outlets.findIndex(outlet => outlet?.port === port && isOf(outlet, address))
  const add = (address: Uint8Array, port: number, socket: UdpSocket): number => {
    const free = outlets.indexOf(undefined)
    const number = free < 0 ? outlets.length : free
    outlets[number] = { address: address.slice(), port, users: 0, watch: undefined }
    sockets[number] = socket
    return number
  }
  /** Undefined: another program has the port, or there are too few descriptors. */
  const open = (address: Uint8Array, port: number, share = DESCRIPTOR_SHARE): UdpSocket | undefined => {
    try {
      const socket = openUdpSocket(address, port, interfaceIndex(), 'send')
      if (socket.fd < descriptorLimit() * share) return socket
      closeUdpSocket(socket)
      return undefined
    } catch (error) {
      if (error instanceof SystemError) return undefined
      throw error
    }
  }
  const numberFor = (address: Uint8Array, port: number): number => {
    const known = find(address, port)
    if (known >= 0) return known
    const isFull = outlets.filter(outlet => isOf(outlet, address)).length > MAX_SOURCE_PORTS
    const socket = isFull ? undefined : open(address, port)
    return socket === undefined ? find(address, ROCE_UDP_PORT) : add(address, port, socket)
  }
  const onWritable = (): void => {
    sendQueued()
    wake()
  }
  const closeSocket = (number: number): void => {
    const socket = sockets[number]
    outlets[number]!.watch?.stop()
    outlets[number]!.watch = undefined
    sockets[number] = undefined
    if (socket !== undefined && outlets[number]!.port !== ROCE_UDP_PORT) closeUdpSocket(socket)
  }

  return {
    sockets,
    take: (address, sourcePort) => {
      const number = numberFor(address, sourcePort)
      outlets[number]!.users++
      return number
    },
    retain: number => {
      outlets[number]!.users++
    },
    release: number => {
      const outlet = outlets[number]!
      if (--outlet.users > 0 || outlet.port === ROCE_UDP_PORT) return
      sendQueued()
      closeSocket(number)
      outlets[number] = undefined
    },
    sourcePortOf: number => outlets[number]!.port,
    setSocket: (address, socket, watcher) => {
      const known = find(address, ROCE_UDP_PORT)
      const number = known < 0 ? add(address, ROCE_UDP_PORT, socket) : known
      outlets[number]!.watch = watcher
      sockets[number] = socket
      outlets.forEach((outlet, i) => {
        if (isOf(outlet, address)) sockets[i] ??= open(address, outlet.port, 1)
      })
    },
    removeSockets: address => {
      outlets.forEach((outlet, i) => {
        if (isOf(outlet, address)) closeSocket(i)
      })
    },
    setBlocked: blocked => {
      outlets.forEach((outlet, i) => {
        if (outlet === undefined) return
        const isBlocked = i === blocked
        if (outlet.port === ROCE_UDP_PORT) outlet.watch?.update({ readable: true, writable: isBlocked })
        else {
          outlet.watch?.stop()
          outlet.watch = isBlocked ? watch(sockets[i]!.fd, { writable: true }, onWritable) : undefined
        }
      })
    },
  }
}
