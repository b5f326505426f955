/*
 * The sockets of one interface: UDP ports, ICMP echo identifiers, and the multicast groups of each socket.
 */
import { IpProtocolNumber } from '../wire/ip-packet.ts'
import { IpError } from './error.ts'

/** The other end. For an ICMP echo `port` is the sequence number. */
export interface IpEnd {
  /** 16 bytes. */
  readonly address: Uint8Array
  readonly port: number
}

/** Called with each received datagram; the receiver owns both arguments. */
export type IpReceiver = (from: IpEnd, payload: Uint8Array) => void

export type SocketProtocol = typeof IpProtocolNumber.UDP | typeof IpProtocolNumber.ICMP

export interface IpSocket {
  readonly protocol: SocketProtocol
  readonly port: number
  readonly receiver: IpReceiver
  /** Addresses as text. */
  readonly groups: Set<string>
}

export const SocketLimits = { sockets: 1024, groupsEach: 20 } as const

/** RFC 6335, 6: the dynamic ports. */
const FIRST_DYNAMIC = 49152
const DYNAMIC = 65536 - FIRST_DYNAMIC

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

  find(protocol: SocketProtocol, port: number): IpSocket | undefined {
    return this.#byPort[protocol].get(port)
  }

  /** `port` 0: a free one. */
  open(protocol: SocketProtocol, port: number, receiver: IpReceiver): IpSocket {
    const sockets = this.#byPort[protocol]
    if (this.count >= SocketLimits.sockets)
      throw new IpError('ENOMEM', `the interface has ${SocketLimits.sockets} sockets already, the maximum`)
    if (sockets.has(port)) throw new IpError('EADDRINUSE', `port ${port} is in use; omit it to get a free one`)
    const socket = { protocol, port: port || this.#freePort(sockets), receiver, groups: new Set<string>() }
    sockets.set(socket.port, socket)
    return socket
  }

  close({ protocol, port }: IpSocket): void {
    this.#byPort[protocol].delete(port)
  }

  /** There are fewer sockets than dynamic ports, so one is free. */
  #freePort(sockets: ReadonlyMap<number, IpSocket>): number {
    let port = FIRST_DYNAMIC + (this.#random() % DYNAMIC)
    while (sockets.has(port)) port = port === 65535 ? FIRST_DYNAMIC : port + 1
    return port
  }
}
