/*
 * UDP sockets of Node itself (node:dgram), for where no native code can be loaded. Set-up is made synchronous, with an
 * address that needs no look-up: binding succeeds or throws at once. What Node leaves as it is, and so cannot be
 * chosen here: datagrams may be fragmented, their IPv4 identification is any, and those without a UDP checksum are not
 * received over IPv6.
 */
import { createSocket, type Socket } from 'node:dgram'
import { SystemError } from '../errno.ts'

export interface DgramSocket {
  /** What may wait in it, in bytes as the kernel counts. */
  readonly receiveBuffer: number
  /**
   * Sends a datagram: `length` bytes at `offset`, which must stay until `done` is called: with 0, or with the error
   * number for which it was not sent.
   */
  send(
    bytes: Uint8Array,
    offset: number,
    length: number,
    port: number,
    address: string,
    done: (errno: number) => void,
  ): void
  /** `done` of what was not sent yet is not called. */
  close(): void
}

/** What is asked for; the system gives what it allows. */
const WANTED_BUFFER = 4 << 20

/** Hops that a datagram may go. */
const DEFAULT_HOPS = 64

const errnoOf = (error: unknown): number => Math.abs((error as { errno?: number }).errno ?? 0)

type Lookup = (host: string, family: unknown, done: (error: null, address: string) => void) => void

/** Addresses are numbers already. */
const lookup: Lookup = (host, family, done) => (typeof family === 'function' ? family : done)(null, host)

/**
 * A socket bound to `address` (text, without the brackets of IPv6; link-local with %interface) and `port`. `onMessage`
 * gets each datagram, the sender's address and port; the bytes are its own. `multicast.by`: the interface by which
 * datagrams to groups leave, if it can; `multicast.on`: `address` is a group, and the socket a member on that
 * interface, as any number of sockets may be. An interface is named by an address of its, of IPv6 ::%interface. Throws
 * SystemError: EADDRNOTAVAIL, EADDRINUSE, EACCES, ENODEV.
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
  // Later ones are what the network said about datagrams: nobody waits for that.
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
      // A limit, or an interface without groups: it stays as it was.
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
