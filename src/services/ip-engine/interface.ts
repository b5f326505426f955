/*
 * An IP interface on a link of RFC 4391 (IP over InfiniBand), without I/O: the caller passes received packets and the
 * time, and sends the packets that `pollTransmit` returns. The interface has one IPv4 or IPv6 address, and reaches only
 * the addresses of its prefix: there are no routers. It answers ARP, neighbour solicitations and echo requests, and has
 * UDP and ICMP echo sockets. Fragments are neither sent nor accepted.
 *
 * Memory is bounded by NeighbourLimits, SocketLimits and MAX_FRAMES.
 */
import { addressText, isMappedIpv4, isMulticastGid, isSameAddress } from '../../transport/wire/address.ts'
import { UDP_BYTES } from '../../transport/wire/ip.ts'
import {
  emitIp,
  type IpFault,
  type IpPacket,
  IpProtocolNumber,
  icmpPacket,
  ipHeaderBytes,
  isFault,
  parseIcmp,
  parseIp,
  parseUdp,
  udpPacket,
} from '../../transport/wire/ip-packet.ts'
import {
  ADVERTISEMENT_OVERRIDE,
  ADVERTISEMENT_SOLICITED,
  ArpOperation,
  broadcastLink,
  type Discovery,
  ENCAPSULATION_BYTES,
  EtherType,
  emitArp,
  emitDiscovery,
  isUnicastLink,
  type LinkAddress,
  multicastLink,
  NeighbourMessage,
  parseArp,
  parseDiscovery,
  unspecifiedLink,
} from '../../transport/wire/ipoib.ts'
import { IpError } from './error.ts'
import { NeighbourCache, type NeighbourHost } from './neighbours.ts'
import { isUnspecified, Prefix } from './prefix.ts'
import { type IpEnd, type IpReceiver, type IpSocket, IpSockets, SocketLimits, type SocketProtocol } from './sockets.ts'

interface IpOptions {
  /** 16 bytes, IPv4 as ::ffff:a.b.c.d. */
  readonly address: Uint8Array
  /** Bits: 1 to 32 for IPv4, 1 to 128 for IPv6. */
  readonly prefixLength: number
  /** The link-layer address of the interface. */
  readonly link: LinkAddress
  /** Maximum bytes of an IP packet, without its encapsulation. */
  readonly mtu: number
  readonly pkey: number
  /** Returns a u32. */
  readonly random: () => number
  /** Join and leave a multicast group of the link. `join` may throw. */
  readonly join: (group: LinkAddress) => void
  readonly leave: (group: LinkAddress) => void
  /** Charge and release bytes of memory that neighbours and sockets' groups take; `reserve` false: there is none. */
  readonly reserve: (bytes: number) => boolean
  readonly release: (bytes: number) => void
}

/** The counter of a received packet: `delivered` to a socket, or the reason to drop it. */
type Verdict = IpFault | 'delivered' | 'foreign' | 'unclaimed'

/**
 * Numbers of packets. `malformed`, `checksum`, `fragment`: see IpFault. `foreign`: for another host, from a host that
 * is not on the link, or of an unsupported protocol. `unclaimed`: no socket receives the packet. `sent`: returned by
 * `pollTransmit`. `dropped`: could not be sent. A packet to the own address counts neither as `sent` nor as `received`.
 */
export type IpCounters = Record<Verdict | 'received' | 'sent' | 'dropped', number>

/** An encapsulated packet to send. */
interface Frame {
  readonly bytes: Uint8Array
  readonly to: LinkAddress
}

/** Maximum frames that wait for `pollTransmit`. */
const MAX_FRAMES = 1024
/** An estimate of the memory of a socket's membership in a group. */
const MEMBERSHIP_BYTES = 512
const HOP_LIMIT = 64
/** RFC 4861, 7.1: no router has forwarded the packet. */
const DISCOVERY_HOP_LIMIT = 255
/** Bytes after the checksum of an echo message: identifier and sequence number. */
const ECHO_BYTES = 4
/** Types of ICMP and ICMPv6 echo messages. */
const echoTypes = { ipv4: { request: 8, reply: 0 }, ipv6: { request: 128, reply: 129 } } as const

/** 224.0.0.1. */
const ALL_HOSTS = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 224, 0, 0, 1)
/** ff02::1. */
const ALL_NODES = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
/** The solicited-node multicast address (RFC 4291, 2.7.1): ff02::1:ff00:0/104 with the last 24 bits of the address. */
const solicitedNode = (address: Uint8Array): Uint8Array =>
  Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ...address.subarray(13))

export class IpInterface implements NeighbourHost {
  readonly prefix: Prefix
  readonly counters: IpCounters = {
    received: 0,
    sent: 0,
    delivered: 0,
    malformed: 0,
    checksum: 0,
    fragment: 0,
    foreign: 0,
    unclaimed: 0,
    dropped: 0,
  }
  readonly #options: IpOptions
  readonly #isIpv4: boolean
  readonly #echo: (typeof echoTypes)['ipv4' | 'ipv6']
  readonly #neighbours = new NeighbourCache(this)
  readonly #sockets: IpSockets
  readonly #frames: Frame[] = []
  /** Joined multicast groups by `addressText`, with the number of joins. */
  readonly #groups = new Map<string, { readonly link: LinkAddress; uses: number }>()

  /** Throws IpError EINVAL, or the error of `options.join`. */
  constructor(options: IpOptions) {
    const { address, prefixLength, pkey, random } = options
    this.prefix = new Prefix(address, prefixLength)
    this.#options = options
    this.#isIpv4 = this.prefix.isIpv4
    this.#echo = echoTypes[this.#isIpv4 ? 'ipv4' : 'ipv6']
    this.#sockets = new IpSockets(random)
    options.join(broadcastLink(pkey))
    for (const group of this.#isIpv4 ? [ALL_HOSTS] : [ALL_NODES, solicitedNode(address)]) this.#join(group)
  }

  /** Maximum bytes of an IP packet. */
  get mtu(): number {
    return this.#options.mtu
  }

  /** `waiting`: packets that wait for their neighbour or for `pollTransmit`. */
  get counts(): { readonly neighbours: number; readonly waiting: number; readonly sockets: number } {
    const { entries, waiting } = this.#neighbours.counts
    return { neighbours: entries, waiting: waiting + this.#frames.length, sockets: this.#sockets.count }
  }

  /** When `onTimeout` must be called next, µs; Infinity for never. */
  nextTimeout(): number {
    return this.#neighbours.nextTimeout()
  }

  onTimeout(now: number): void {
    this.#neighbours.onTimeout(now)
  }

  /** The next packet to send. */
  pollTransmit(): Frame | undefined {
    const frame = this.#frames.shift()
    if (frame !== undefined) this.counters.sent++
    return frame
  }

  // ---- sockets ----

  /** `port`: a UDP port or an ICMP echo identifier; 0: a free one. Throws IpError EADDRINUSE, ENOMEM. */
  open(protocol: SocketProtocol, port: number, receiver: IpReceiver): IpSocket {
    return this.#sockets.open(protocol, port, receiver)
  }

  /** Closes a socket. The socket leaves its groups. */
  close(socket: IpSocket): void {
    this.#sockets.close(socket)
    for (const group of socket.groups) this.#leave(group)
    this.release(socket.groups.size * MEMBERSHIP_BYTES)
    socket.groups.clear()
  }

  /**
   * Adds the socket to a multicast group. Throws IpError EINVAL, EADDRINUSE, ENOMEM, or the error of `options.join`.
   */
  join(socket: IpSocket, group: Uint8Array): void {
    const text = addressText(group)
    this.#requireFamily(group)
    if (!isMulticastGid(group)) throw new IpError('EINVAL', `${text} is not a multicast group`)
    if (socket.groups.has(text)) throw new IpError('EADDRINUSE', `the socket is in group ${text} already`)
    if (socket.groups.size >= SocketLimits.groupsEach)
      throw new IpError('ENOMEM', `the socket is in ${SocketLimits.groupsEach} groups already, the maximum`)
    if (!this.reserve(MEMBERSHIP_BYTES)) throw new IpError('ENOMEM', `group ${text}: the user has no memory left`)
    try {
      this.#join(group)
    } catch (error) {
      this.release(MEMBERSHIP_BYTES)
      throw error
    }
    socket.groups.add(text)
  }

  /** Removes the socket from a multicast group. Throws IpError EADDRNOTAVAIL if it is not in the group. */
  leave(socket: IpSocket, group: Uint8Array): void {
    const text = addressText(group)
    if (!socket.groups.delete(text)) throw new IpError('EADDRNOTAVAIL', `the socket is not in group ${text}`)
    this.#leave(text)
    this.release(MEMBERSHIP_BYTES)
  }

  /**
   * Sends a UDP datagram, or an echo request whose sequence number is `to.port`. Throws IpError EINVAL, ENETUNREACH,
   * EMSGSIZE.
   */
  send({ protocol, port }: IpSocket, to: IpEnd, payload: Uint8Array, now: number): void {
    const { address: destination } = to
    this.#requireFamily(destination)
    if (isUnspecified(destination))
      throw new IpError('EINVAL', `${addressText(destination)} is not the address of a host`)
    if (!isMulticastGid(destination) && !this.prefix.isBroadcast(destination) && !this.prefix.includes(destination))
      throw new IpError(
        'ENETUNREACH',
        `${addressText(destination)} is not in the prefix ${this.prefix.text} of the link`,
      )
    // An echo message has as many header bytes as UDP.
    const maxBytes = this.mtu - ipHeaderBytes(destination) - UDP_BYTES
    if (payload.length > maxBytes)
      throw new IpError(
        'EMSGSIZE',
        `${payload.length} bytes; a packet holds at most ${maxBytes}, and packets are not fragmented`,
      )
    if (protocol === IpProtocolNumber.UDP) {
      if (to.port === 0) throw new IpError('EINVAL', 'port 0 is not a destination')
      this.#sendIp(udpPacket(this.#headerTo(destination), { sourcePort: port, destinationPort: to.port, payload }), now)
      return
    }
    const body = new Uint8Array(ECHO_BYTES + payload.length)
    const view = new DataView(body.buffer)
    view.setUint16(0, port)
    view.setUint16(2, to.port)
    body.set(payload, ECHO_BYTES)
    this.#sendIp(icmpPacket(this.#headerTo(destination), { type: this.#echo.request, code: 0, body }), now)
  }

  /** Closes all sockets, leaves all groups, and drops waiting packets. */
  shutDown(): void {
    for (const socket of this.#sockets.all) this.close(socket)
    this.#neighbours.clear()
    this.#frames.length = 0
    for (const { link } of this.#groups.values()) this.#options.leave(link)
    this.#groups.clear()
    this.#options.leave(broadcastLink(this.#options.pkey))
  }

  // ---- reception ----

  /** Handles an encapsulated packet. */
  receive(bytes: Uint8Array, now: number): void {
    this.counters.received++
    const type = bytes.length < ENCAPSULATION_BYTES ? -1 : (bytes[0]! << 8) | bytes[1]!
    const packet = bytes.subarray(ENCAPSULATION_BYTES)
    if (type < 0) this.#count('malformed')
    else if (type === EtherType.ARP && this.#isIpv4) this.#count(this.#onArp(packet, now))
    else if (type === (this.#isIpv4 ? EtherType.IPV4 : EtherType.IPV6)) this.#count(this.#onIp(packet, now, false))
    else this.#count('foreign')
  }

  /** `verdict` undefined: only `received` counts the packet. */
  #count(verdict: Verdict | undefined): void {
    if (verdict !== undefined) this.counters[verdict]++
  }

  #onArp(bytes: Uint8Array, now: number): Verdict | undefined {
    const arp = parseArp(bytes)
    if (arp === undefined || !isUnicastLink(arp.senderLink)) return 'malformed'
    const { operation, sender, senderLink, target } = arp
    const isRequestForOwnAddress = operation === ArpOperation.REQUEST && this.prefix.isOwn(target)
    // RFC 5227: a host without an address probes with sender 0.
    if (!isUnspecified(sender)) {
      if (!this.prefix.isNeighbour(sender)) return 'foreign'
      // RFC 826: only the target of a request adds the sender; other hosts update an entry that exists.
      const canCreate = isRequestForOwnAddress
      this.#neighbours.learn(sender, senderLink, canCreate, now)
    }
    if (!isRequestForOwnAddress) return undefined
    const reply = { operation: ArpOperation.REPLY, senderLink: this.#options.link, sender: this.prefix.address }
    this.transmit(emitArp({ ...reply, targetLink: senderLink, target: sender }), senderLink)
    return undefined
  }

  /** `isLoop`: this interface sent the packet to itself. */
  #onIp(bytes: Uint8Array, now: number, isLoop: boolean): Verdict | undefined {
    const packet = parseIp(bytes)
    if (isFault(packet)) return packet
    const { source, destination, protocol } = packet
    const { prefix } = this
    if (isMappedIpv4(destination) !== this.#isIpv4) return 'malformed'
    const isToOwnAddress = prefix.isOwn(destination)
    // The link loops our multicast packets back; they are ignored. Packets from and to our own address do not use the
    // link, so a received one is forged.
    if (prefix.isOwn(source) && !isLoop) return isToOwnAddress ? 'foreign' : undefined
    // RFC 4862, 5.4: a host without an address detects duplicates of its future address.
    const isFromUnspecified = isUnspecified(source) && protocol === IpProtocolNumber.ICMPV6
    const isForThisHost =
      isToOwnAddress || prefix.isBroadcast(destination) || this.#groups.has(addressText(destination))
    const isFromLink = isFromUnspecified || prefix.isOwn(source) || prefix.isNeighbour(source)
    if (!isForThisHost || !isFromLink) return 'foreign'
    if (protocol === IpProtocolNumber.UDP) return this.#onUdp(packet)
    const isIcmp = protocol === (this.#isIpv4 ? IpProtocolNumber.ICMP : IpProtocolNumber.ICMPV6)
    return isIcmp ? this.#onIcmp(packet, isToOwnAddress, now) : 'foreign'
  }

  #onUdp(packet: IpPacket): Verdict {
    const datagram = parseUdp(packet)
    if (isFault(datagram)) return datagram
    const { source, destination } = packet
    const socket = this.#sockets.find(IpProtocolNumber.UDP, datagram.destinationPort)
    if (socket === undefined || (isMulticastGid(destination) && !socket.groups.has(addressText(destination))))
      return 'unclaimed'
    socket.receiver({ address: source, port: datagram.sourcePort }, datagram.payload.slice())
    return 'delivered'
  }

  #onIcmp(packet: IpPacket, isToOwnAddress: boolean, now: number): Verdict | undefined {
    const message = parseIcmp(packet)
    if (isFault(message)) return message
    const { type, code, body } = message
    if (!this.#isIpv4 && (type === NeighbourMessage.SOLICITATION || type === NeighbourMessage.ADVERTISEMENT)) {
      const discovery = parseDiscovery(type, body)
      if (discovery === undefined || code !== 0 || packet.hopLimit !== DISCOVERY_HOP_LIMIT) return 'malformed'
      return this.#onDiscovery(packet, discovery, now)
    }
    const { request, reply } = this.#echo
    if (type !== request && type !== reply) return 'foreign'
    if (body.length < ECHO_BYTES || isUnspecified(packet.source)) return 'malformed'
    if (type === reply) return this.#onEchoReply(packet, body)
    // RFC 1122, 3.2.2.6: requests to a group or a broadcast address are not answered, because all hosts would answer.
    if (isToOwnAddress) this.#sendIp(icmpPacket(this.#headerTo(packet.source), { type: reply, code: 0, body }), now)
    return undefined
  }

  #onEchoReply({ source }: IpPacket, body: Uint8Array): Verdict {
    const view = new DataView(body.buffer, body.byteOffset)
    const socket = this.#sockets.find(IpProtocolNumber.ICMP, view.getUint16(0))
    if (socket === undefined) return 'unclaimed'
    socket.receiver({ address: source, port: view.getUint16(2) }, body.slice(ECHO_BYTES))
    return 'delivered'
  }

  #onDiscovery(
    { source, destination }: IpPacket,
    { type, flags, target, link }: Discovery,
    now: number,
  ): Verdict | undefined {
    if (link !== undefined && !isUnicastLink(link)) return 'malformed'
    if (type === NeighbourMessage.ADVERTISEMENT) {
      const isAnswer = (flags & ADVERTISEMENT_SOLICITED) !== 0
      // RFC 4861, 7.1.2: an answer goes to the host that has asked, not to a group.
      if (isAnswer && isMulticastGid(destination)) return 'malformed'
      if (!this.prefix.isNeighbour(target)) return undefined
      const isOverride = (flags & ADVERTISEMENT_OVERRIDE) !== 0
      if (link !== undefined) this.#neighbours.learnAdvertised(target, link, isOverride, now)
      // RFC 4861, 7.2.4: the answer to a unicast solicitation may omit the link-layer address.
      else if (isAnswer) this.#neighbours.confirm(target, now)
      return undefined
    }
    if (!this.prefix.isOwn(target)) return undefined
    const isFromUnspecified = isUnspecified(source)
    // RFC 4861, 7.1.1: a host without an address solicits by multicast, and does not send its link-layer address.
    const isToGroup = isSameAddress(destination, solicitedNode(target))
    if (isFromUnspecified && (link !== undefined || !isToGroup)) return 'malformed'
    if (link !== undefined) this.#neighbours.learn(source, link, true, now)
    const answer = {
      type: NeighbourMessage.ADVERTISEMENT,
      flags: ADVERTISEMENT_OVERRIDE | (isFromUnspecified ? 0 : ADVERTISEMENT_SOLICITED),
      target,
      link: this.#options.link,
    }
    this.#sendIp(this.#discoveryPacket(answer, isFromUnspecified ? ALL_NODES : source), now)
    return undefined
  }

  // ---- transmission ----

  #headerTo(destination: Uint8Array): Omit<IpPacket, 'protocol' | 'payload'> {
    return { source: this.prefix.address, destination, hopLimit: HOP_LIMIT }
  }

  #discoveryPacket(message: Discovery, destination: Uint8Array): IpPacket {
    const addresses = { ...this.#headerTo(destination), hopLimit: DISCOVERY_HOP_LIMIT }
    return icmpPacket(addresses, { type: message.type, code: 0, body: emitDiscovery(message) })
  }

  #frameOf(packet: IpPacket): Uint8Array {
    const frame = emitIp(packet, ENCAPSULATION_BYTES)
    new DataView(frame.buffer).setUint16(0, this.#isIpv4 ? EtherType.IPV4 : EtherType.IPV6)
    return frame
  }

  #sendIp(packet: IpPacket, now: number): void {
    const { destination } = packet
    const { pkey } = this.#options
    const frame = this.#frameOf(packet)
    if (this.prefix.isOwn(destination)) this.#count(this.#onIp(frame.subarray(ENCAPSULATION_BYTES), now, true))
    else if (this.prefix.isBroadcast(destination)) this.transmit(frame, broadcastLink(pkey))
    else if (isMulticastGid(destination)) this.transmit(frame, multicastLink(destination, pkey))
    else this.#neighbours.send(destination, frame, now)
  }

  // ---- NeighbourHost ----

  transmit(bytes: Uint8Array, to: LinkAddress): void {
    if (this.#frames.length < MAX_FRAMES) this.#frames.push({ bytes, to })
    else this.counters.dropped++
  }

  reserve(bytes: number): boolean {
    return this.#options.reserve(bytes)
  }

  release(bytes: number): void {
    this.#options.release(bytes)
  }

  countDropped(packets: number): void {
    this.counters.dropped += packets
  }

  solicit(target: Uint8Array, targetLink: LinkAddress | undefined): void {
    const { link, pkey } = this.#options
    if (this.#isIpv4) {
      const request = { operation: ArpOperation.REQUEST, senderLink: link, sender: this.prefix.address, target }
      this.transmit(
        emitArp({ ...request, targetLink: targetLink ?? unspecifiedLink }),
        targetLink ?? broadcastLink(pkey),
      )
      return
    }
    const group = solicitedNode(target)
    const message = { type: NeighbourMessage.SOLICITATION, flags: 0, target, link }
    const packet = this.#discoveryPacket(message, targetLink === undefined ? group : target)
    this.transmit(this.#frameOf(packet), targetLink ?? multicastLink(group, pkey))
  }

  // ---- groups ----

  /** Throws IpError EINVAL for an address of the other IP version. */
  #requireFamily(address: Uint8Array): void {
    if (isMappedIpv4(address) !== this.#isIpv4)
      throw new IpError('EINVAL', `${addressText(address)} is not of the same family as ${this.prefix.text}`)
  }

  #join(group: Uint8Array): void {
    const key = addressText(group)
    const joined = this.#groups.get(key)
    if (joined !== undefined) {
      joined.uses++
      return
    }
    const link = multicastLink(group, this.#options.pkey)
    this.#options.join(link)
    this.#groups.set(key, { link, uses: 1 })
  }

  #leave(key: string): void {
    const joined = this.#groups.get(key)
    if (joined === undefined || --joined.uses > 0) return
    this.#groups.delete(key)
    this.#options.leave(joined.link)
  }
}
