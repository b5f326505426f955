/*
 * The sockets of one interface: UDP ports, ICMP echo identifiers, and the multicast groups of each socket.
 */
import { IpProtocolNumber } from '../../transport/wire/ip-packet.ts'
import { IpError } from './error.ts'

/** The remote end of a datagram. */
export interface IpEnd {
  /** 16 bytes. */
  readonly address: Uint8Array
  /** UDP port, or sequence number of an ICMP echo message. */
  readonly port: number
}

/** Called with each received datagram. The receiver owns both arguments. */
export type IpReceiver = (from: IpEnd, payload: Uint8Array) => void

/** ICMP includes ICMPv6. */
export type SocketProtocol = typeof IpProtocolNumber.UDP | typeof IpProtocolNumber.ICMP

export interface IpSocket {
  readonly protocol: SocketProtocol
  /** UDP port, or ICMP echo identifier. */
  readonly port: number
  readonly receiver: IpReceiver
  /** Multicast groups by `addressText`. */
  readonly groups: Set<string>
}

/** Maximum sockets of an interface, and multicast groups of a socket. */
export const SocketLimits = { sockets: 1024, groupsEach: 20 } as const

/** The dynamic ports (RFC 6335, 6). */
const FIRST_DYNAMIC = 49152
const LAST_PORT = 65535
const DYNAMIC_PORTS = LAST_PORT - FIRST_DYNAMIC + 1

export class IpSockets {
  readonly #random: () => number
  readonly #byPort: Readonly<Record<SocketProtocol, Map<number, IpSocket>>> = {
    [IpProtocolNumber.UDP]: new Map(),
    [IpProtocolNumber.ICMP]: new Map(),
  }

  constructor(random: () => number) {
    this.#random = random
  }

  get count(): number {
    return Object.values(this.#byPort).reduce((sum, sockets) => sum + sockets.size, 0)
  }

  get all(): IpSocket[] {
    return Object.values(this.#byPort).flatMap(sockets => [...sockets.values()])
  }

  find(protocol: SocketProtocol, port: number): IpSocket | undefined {
    return this.#byPort[protocol].get(port)
  }

  /** `port` 0: a free port. Throws IpError EADDRINUSE, ENOMEM. */
  open(protocol: SocketProtocol, port: number, receiver: IpReceiver): IpSocket {
    const sockets = this.#byPort[protocol]
    if (this.count >= SocketLimits.sockets)
      throw new IpError('ENOMEM', `the interface has ${SocketLimits.sockets} sockets already, the maximum`)
    if (sockets.has(port)) throw new IpError('EADDRINUSE', `port ${port} is in use; omit it to get a free one`)
    const socket = { protocol, port: port || this.#freePort(sockets), receiver, groups: new Set<string>() }
    sockets.set(socket.port, socket)
    return socket
  }

  /** No effect for a socket that is closed already: another socket may have its port. */
  close(socket: IpSocket): void {
    const sockets = this.#byPort[socket.protocol]
    if (sockets.get(socket.port) === socket) sockets.delete(socket.port)
  }

  /** A free dynamic port. It exists: SocketLimits allows fewer sockets than there are dynamic ports. */
  #freePort(sockets: ReadonlyMap<number, IpSocket>): number {
    let port = FIRST_DYNAMIC + (this.#random() % DYNAMIC_PORTS)
    while (sockets.has(port)) port = port === LAST_PORT ? FIRST_DYNAMIC : port + 1
    return port
  }
}
