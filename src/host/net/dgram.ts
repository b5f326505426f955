/*
 * UDP sockets of Node (node:dgram), for systems without native code. Opening is synchronous: since the address needs no
 * lookup, the socket is bound, or an exception thrown, immediately. Limits of Node: datagrams may be fragmented, their
 * IPv4 identification cannot be chosen, and those without a UDP checksum are not received over IPv6.
 */
import { createSocket, type Socket } from 'node:dgram'
import { SystemError } from '../errno.ts'

export interface DgramSocket {
  /** Size of its receive buffer in bytes, as the kernel counts: with the memory around the payloads. */
  readonly receiveBuffer: number
  /**
   * Sends a datagram: `length` bytes at `offset`, which must not change until `done` is called, with 0 or an error
   * number: ECANCELED if the socket is closed before; and `length`.
   */
  send(
    bytes: Uint8Array,
    offset: number,
    length: number,
    port: number,
    address: string,
    done: (errno: number, length: number) => void,
  ): void
  /** Closes the socket. `done` is called afterwards for datagrams for which it was not called yet. */
  close(): void
}

/** Requested size of the socket buffers in bytes; the system may grant less. */
const WANTED_BUFFER = 4 << 20

/** Hop limit of datagrams to groups. */
const MULTICAST_HOPS = 64

const errnoOf = (error: unknown): number => Math.abs((error as { errno?: number }).errno ?? 0)

type Lookup = (host: string, family: unknown, done: (error: null, address: string) => void) => void

/** Resolves nothing: addresses are numeric. Node calls it with or without the family. */
const lookup: Lookup = (host, family, done) => (typeof family === 'function' ? family : done)(null, host)

/**
 * A socket bound to `address` (text, without the brackets of IPv6; link-local with %interface) and `port`. `onMessage`
 * gets each datagram, the sender's address and port; it owns the bytes. `multicast.sendThrough`: the interface through
 * which datagrams to groups are sent, if possible. `multicast.memberOn`: `address` is a group, and the socket joins it
 * on that interface; any number of sockets may. An interface is given by one of its addresses, for IPv6 by
 * ::%interface.
 * Throws SystemError: EADDRNOTAVAIL, EADDRINUSE, EACCES, ENODEV.
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
  let bindError: unknown
  // later errors are about datagrams that were sent (ICMP)
  socket.on('error', error => {
    bindError = error
  })
  socket.bind({ address, port, exclusive: true })
  try {
    if (bindError === undefined && multicast.memberOn !== undefined) socket.addMembership(address, multicast.memberOn)
  } catch (error) {
    bindError = error
  }
  if (bindError !== undefined) {
    socket.close()
    throw new SystemError('bind', errnoOf(bindError), address)
  }
  const { sendThrough } = multicast
  for (const set of [
    () => socket.setRecvBufferSize(WANTED_BUFFER),
    () => socket.setSendBufferSize(WANTED_BUFFER),
    () => sendThrough && socket.setMulticastInterface(sendThrough),
    () => sendThrough && socket.setMulticastTTL(MULTICAST_HOPS),
  ])
    try {
      set()
    } catch {
      // refused by a limit, or by an interface without multicast: the default stays
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
