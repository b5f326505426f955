/*
 * UDP sockets of Node (node:dgram), for systems without native code. Limits: datagrams may be fragmented, their IPv4
 * identification cannot be chosen, and datagrams without a UDP checksum are not received over IPv6.
 */
import { createSocket, type Socket } from 'node:dgram'
import { SystemError } from '../errno.ts'

export interface DgramSocket {
  /** Bytes of the receive buffer as the kernel counts, with the memory around the payloads. */
  readonly receiveBuffer: number
  /**
   * Sends `length` bytes at `offset`. The bytes must not change until `done` is called. `errno`: 0 for success;
   * ECANCELED if the socket was closed.
   */
  send(
    bytes: Uint8Array,
    offset: number,
    length: number,
    port: number,
    address: string,
    done: (errno: number, length: number) => void,
  ): void
  /** Closes the socket. Then `done` is called for datagrams in flight. */
  close(): void
}

/** Requested bytes of the socket buffers. The system may grant less. */
const WANTED_BUFFER = 4 << 20

/** Hop limit of datagrams to groups. */
const MULTICAST_HOPS = 64

const errnoOf = (error: unknown): number => Math.abs((error as { errno?: number }).errno ?? 0)

type Lookup = (host: string, family: unknown, done: (error: null, address: string) => void) => void

/**
 * Addresses are numeric, so nothing is resolved. Node calls this function with or without the family. A synchronous
 * answer makes the bind synchronous.
 */
const lookup: Lookup = (host, family, done) => (typeof family === 'function' ? family : done)(null, host)

/**
 * A socket bound to `address` (text, without the brackets of IPv6; link-local with %interface) and `port`. `onMessage`
 * gets each datagram, the sender's address and port; it owns the bytes. Throws SystemError: EADDRNOTAVAIL, EADDRINUSE,
 * EACCES, ENODEV.
 *
 * `multicast`: an interface is given by one of its addresses, for IPv6 by ::%interface. `sendThrough`: datagrams to
 * groups are sent through this interface, if possible. `memberOn`: `address` is a group, which the socket joins on this
 * interface; any number of sockets may.
 */
export const openDgramSocket = (
  address: string,
  port: number,
  onMessage: (bytes: Uint8Array, address: string, port: number) => void,
  multicast: { readonly sendThrough?: string; readonly memberOn?: string } = {},
): DgramSocket => {
  const is6 = address.includes(':')
  const socket: Socket = createSocket({
    type: is6 ? 'udp6' : 'udp4',
    ipv6Only: is6,
    reuseAddr: multicast.memberOn !== undefined,
    lookup: lookup as never,
  })
  const { sendThrough, memberOn } = multicast
  let bindError: unknown
  // The listener stays: without one, an error of a sent datagram (ICMP) would end the process.
  socket.on('error', error => {
    bindError = error
  })
  socket.bind({ address, port, exclusive: true })
  if (bindError !== undefined) {
    socket.close()
    throw new SystemError('bind', errnoOf(bindError), address)
  }
  try {
    if (memberOn !== undefined) socket.addMembership(address, memberOn)
  } catch (error) {
    socket.close()
    throw new SystemError('setsockopt of the multicast membership', errnoOf(error), `${address} on ${memberOn}`)
  }
  for (const set of [
    () => socket.setRecvBufferSize(WANTED_BUFFER),
    () => socket.setSendBufferSize(WANTED_BUFFER),
    () => sendThrough && socket.setMulticastInterface(sendThrough),
    () => sendThrough && socket.setMulticastTTL(MULTICAST_HOPS),
  ])
    try {
      set()
    } catch {
      // Refused by a limit, or by an interface without multicast: the default stays.
    }
  socket.on('message', (bytes, from) => onMessage(bytes, from.address, from.port))
  return {
    receiveBuffer: socket.getRecvBufferSize(),
    send: (bytes, offset, length, destinationPort, destination, done) =>
      socket.send(bytes, offset, length, destinationPort, destination, error =>
        done(error ? errnoOf(error) : 0, length),
      ),
    close: () => void socket.close(),
  }
}
