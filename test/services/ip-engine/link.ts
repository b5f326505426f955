/*
 * IP interfaces on a link in virtual time. Packets wait in `wire` until the test delivers, loses or changes them.
 */

import { createRandom } from '../../../src/base/random.ts'
import { IpInterface } from '../../../src/services/ip-engine/interface.ts'
import type { IpEnd, SocketProtocol } from '../../../src/services/ip-engine/sockets.ts'
import { MULTICAST_QPN } from '../../../src/spec/wire/headers.ts'
import { addressText, parseAddress } from '../../../src/transport/wire/address.ts'
import type { LinkAddress } from '../../../src/transport/wire/ipoib.ts'

export const PKEY = 0xffff
/** Maximum bytes of an IP packet. */
export const MTU = 2044

export const address = (text: string): Uint8Array => {
  const bytes = parseAddress(text)
  if (bytes === undefined) throw new Error(`${text} is not an IP address`)
  return bytes
}

interface WireFrame {
  readonly from: Host
  readonly bytes: Uint8Array
  readonly to: LinkAddress
}

/** A host with one IP interface; `number` determines its queue pair and GID. */
export class Host {
  readonly ip: IpInterface
  readonly link: LinkAddress
  /** Bytes that the interface has reserved, and may reserve. */
  reserved = 0
  maxReserved = Number.POSITIVE_INFINITY
  /** GIDs of groups, as text. */
  readonly groups = new Set<string>()

  constructor(text: string, number: number, prefixLength = text.includes(':') ? 64 : 24) {
    this.link = { qpn: 0x100 + number, gid: address(`fe80::${number.toString(16)}`) }
    this.ip = new IpInterface({
      address: address(text),
      prefixLength,
      link: this.link,
      mtu: MTU,
      pkey: PKEY,
      random: createRandom(number),
      join: ({ gid }) => this.groups.add(addressText(gid)),
      leave: ({ gid }) => this.groups.delete(addressText(gid)),
      reserve: bytes => {
        if (this.reserved + bytes > this.maxReserved) return false
        this.reserved += bytes
        return true
      },
      release: bytes => {
        this.reserved -= bytes
      },
    })
  }

  /** A socket that keeps received datagrams. */
  socket(protocol: SocketProtocol, port = 0) {
    const received: { readonly from: IpEnd; readonly payload: Uint8Array }[] = []
    return {
      socket: this.ip.open(protocol, port, (from, payload) => received.push({ from, payload })),
      received,
    }
  }
}

export class Link {
  now = 1
  #hostCount = 0
  readonly hosts: Host[] = []
  readonly wire: WireFrame[] = []

  add(text: string, prefixLength?: number): Host {
    const host = new Host(text, ++this.#hostCount, prefixLength)
    this.hosts.push(host)
    return host
  }

  /** Moves the packets that the hosts send to `wire`, and returns `wire`. */
  collect(): WireFrame[] {
    for (const from of this.hosts)
      for (let frame = from.ip.pollTransmit(); frame !== undefined; frame = from.ip.pollTransmit())
        this.wire.push({ from, ...frame })
    return this.wire
  }

  /** Removes all packets from the link, and returns them. */
  lose(): WireFrame[] {
    return this.collect().splice(0)
  }

  /** Passes a packet to the destination queue pair, or to the members of the group. */
  deliver({ bytes, to: { qpn, gid } }: WireFrame): void {
    const text = addressText(gid)
    for (const host of this.hosts)
      if (qpn === MULTICAST_QPN ? host.groups.has(text) : qpn === host.link.qpn && text === addressText(host.link.gid))
        host.ip.receive(bytes, this.now)
  }

  /** Delivers until the wire is empty; time does not advance. */
  settle(): void {
    for (let sent = this.collect().shift(); sent !== undefined; sent = this.collect().shift()) this.deliver(sent)
  }

  /** Advances time to the next timer, and delivers what the hosts then send. Returns false if there is no timer. */
  tick(): boolean {
    const due = Math.min(...this.hosts.map(({ ip }) => ip.nextTimeout()))
    if (due === Number.POSITIVE_INFINITY) return false
    this.now = Math.max(this.now, due)
    for (const { ip } of this.hosts) ip.onTimeout(this.now)
    this.settle()
    return true
  }
}
