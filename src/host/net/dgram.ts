/*
 * UDP sockets of Node (node:dgram), for systems without native code. Opening is synchronous, since the address needs no
 * lookup: it binds or throws at once. Limits of Node: datagrams may be fragmented, their IPv4 identification cannot be
 * chosen, and those without a UDP checksum are not received over IPv6.
 */
import { createSocket, type Socket } from 'node:dgram'
import { SystemError } from '../errno.ts'

export interface DgramSocket {
  /** Size of its buffer, bytes as the kernel counts. */
  readonly receiveBuffer: number
  /**
   * Sends a datagram: `length` bytes at `offset`, which must stay until `done` is called, with 0 or an error number.
   */
  send(
    bytes: Uint8Array,
    offset: number,
    length: number,
    port: number,
    address: string,
    done: (errno: number) => void,
  ): void
  /** Closes the socket; `done` of unsent datagrams is not called. */
  close(): void
}

/** Requested size; the system may grant less. */
const WANTED_BUFFER = 4 << 20

/** Hop limit of datagrams. */
const DEFAULT_HOPS = 64

const errnoOf = (error: unknown): number => Math.abs((error as { errno?: number }).errno ?? 0)

type Lookup = (host: string, family: unknown, done: (error: null, address: string) => void) => void

/** Addresses are numeric already. */
const lookup: Lookup = (host, family, done) => (typeof family === 'function' ? family : done)(null, host)

/**
 * A socket bound to `address` (text, without the brackets of IPv6; link-local with %interface) and `port`. `onMessage`
 * gets each datagram, the sender's address and port; it owns the bytes. `multicast.by`: the interface through which
 * datagrams to groups are sent, if possible; `multicast.on`: `address` is a group, and the socket a member on that
 * interface, as any number of sockets may be. An interface is given by one of its addresses, for IPv6 by ::%interface.
 * Throws SystemError: EADDRNOTAVAIL, EADDRINUSE, EACCES, ENODEV.
 */
export const openDgramSocket = (
  address: string,
  port: number,
  onMessage: (bytes: Uint8Array, address: string, port: number) => void,
  multicast: { readonly by?: string; readonly on?: string } = {},
): DgramSocket => {
  const is6 = address.includes(':')
  const socket: Socket = createSocket({
    type: is6 ? 'udp6' : 'udp4',
    ipv6Only: is6,
    reuseAddr: multicast.on !== undefined,
    lookup: lookup as never,
  })
  let refused: unknown
  // later errors are about datagrams that were sent (ICMP)
  socket.on('error', error => {
    refused = error
  })
  socket.bind({ address, port, exclusive: true })
  try {
    if (refused === undefined && multicast.on !== undefined) socket.addMembership(address, multicast.on)
  } catch (error) {
    refused = error
  }
  if (refused !== undefined) {
    socket.close()
    throw new SystemError('bind', errnoOf(refused), address)
  }
  const { by } = multicast
  for (const set of [
    () => socket.setRecvBufferSize(WANTED_BUFFER),
    () => socket.setSendBufferSize(WANTED_BUFFER),
    () => by && socket.setMulticastInterface(by),
    () => by && socket.setMulticastTTL(DEFAULT_HOPS),
  ])
    try {
      set()
    } catch {
      // refused by a limit, or an interface without multicast: the default stays
    }
  socket.on('message', (bytes, from) => onMessage(bytes, from.address, from.port))
  let closed = false
  return {
    receiveBuffer: socket.getRecvBufferSize(),
    send: (bytes, offset, length, to, destination, done) =>
      socket.send(bytes, offset, length, to, destination, error => {
        if (!closed) done(error ? errnoOf(error) : 0)
      }),
    close: () => {
      closed = true
      socket.close()
    },
  }
}
