/*
 * Fuzz target of IP over the device (src/services/ip-engine/): packets arrive at an interface. State must be bounded,
 * and no timer or group may remain at the end.
 *
 * A record is {u8 flags, u8 0, u16 bytes, u16 0, u16 0} and a packet.
 */
import assert from 'node:assert/strict'
import { NeighbourLimits } from '../../../src/services/ip-engine/neighbours.ts'
import { internetChecksum } from '../../../src/transport/wire/ip.ts'
import {
  emitIp,
  type IpPacket,
  icmpPacket,
  isFault,
  parseIp,
  udpPacket,
} from '../../../src/transport/wire/ip-packet.ts'
import {
  ArpOperation,
  ENCAPSULATION_BYTES,
  EtherType,
  emitArp,
  emitDiscovery,
  NeighbourMessage,
  unspecifiedLink,
} from '../../../src/transport/wire/ipoib.ts'
import { address, Link, MTU } from '../../services/ip-engine/link.ts'
import { HEADER_BYTES, record, splitProgram } from './calls.ts'
import type { Target } from './fuzzer.ts'

/** Flag: the packet goes to the IPv6 interface. */
const IPV6 = 1
/** Flag: the checksums of the packet are corrected. */
const REPAIR = 2
/** Flag: an hour passes after the packet. */
const LATER = 4
/** An hour in µs. */
const HOUR = 3_600_000_000

/** The addresses of all hosts begin with this. */
const prefixOf = (family: 4 | 6): string => (family === 4 ? '10.9.0.' : 'fd00:9::')

const seeds = (): Uint8Array[] =>
  ([4, 6] as const).map(family => {
    const prefix = prefixOf(family)
    const flags = REPAIR | (family === 6 ? IPV6 : 0)
    const addresses = { source: address(`${prefix}9`), destination: address(`${prefix}1`), hopLimit: 255 }
    const link = { qpn: 0x999, gid: address('fe80::99') }
    const wrap = (packet: IpPacket): Uint8Array => {
      const bytes = emitIp(packet, ENCAPSULATION_BYTES)
      new DataView(bytes.buffer).setUint16(0, family === 4 ? EtherType.IPV4 : EtherType.IPV6)
      return bytes
    }
    const [echoRequest, echoReply] = family === 4 ? [8, 0] : [128, 129]
    const echo = { type: echoRequest, code: 0, body: new Uint8Array(20) }
    const discovery = (type: 135 | 136): Uint8Array =>
      wrap(
        icmpPacket(addresses, {
          type,
          code: 0,
          body: emitDiscovery({ type, flags: 0, target: addresses.destination, link }),
        }),
      )
    const arp = (operation: number): Uint8Array =>
      emitArp({
        operation,
        senderLink: link,
        sender: addresses.source,
        targetLink: unspecifiedLink,
        target: addresses.destination,
      })
    const resolution =
      family === 4
        ? [arp(ArpOperation.REQUEST), arp(ArpOperation.REPLY)]
        : [discovery(NeighbourMessage.SOLICITATION), discovery(NeighbourMessage.ADVERTISEMENT)]
    const udp = wrap(udpPacket(addresses, { sourcePort: 5, destinationPort: 7, payload: new Uint8Array(9) }))
    return new Uint8Array(
      Buffer.concat([
        ...resolution.map(bytes => record(flags, bytes)),
        record(flags, wrap(icmpPacket(addresses, echo))),
        record(flags | LATER, udp),
        record(flags, wrap(icmpPacket(addresses, { ...echo, type: echoReply }))),
      ]),
    )
  })

/** Numbers of IP protocols. */
const ICMP = 1
const UDP = 17
const ICMPV6 = 58
/** Without options. */
const IPV4_HEADER_BYTES = 20
/** The offset of the checksum in the payload, by IP protocol. */
const checksumOffsets: Readonly<Record<number, number>> = { [ICMP]: 2, [ICMPV6]: 2, [UDP]: 6 }

/** Corrects the checksums of an encapsulated IP packet. */
const repair = (frame: Uint8Array): void => {
  const ip = frame.subarray(ENCAPSULATION_BYTES)
  const view = new DataView(ip.buffer, ip.byteOffset, ip.byteLength)
  const isIpv4 = ip[0]! >> 4 === 4
  const headerBytes = (ip[0]! & 15) * 4
  if (isIpv4 && headerBytes >= IPV4_HEADER_BYTES && headerBytes <= ip.length) {
    view.setUint16(10, 0)
    view.setUint16(10, internetChecksum(view, 0, headerBytes))
  }
  const packet = parseIp(ip)
  if (isFault(packet)) return
  const offset = checksumOffsets[packet.protocol]
  const { payload } = packet
  if (offset === undefined || payload.length < offset + 2) return
  payload.fill(0, offset, offset + 2)
  // the sum of the pseudo-header, which ICMP of IPv4 lacks
  let sum = packet.protocol === ICMP ? 0 : packet.protocol + payload.length
  const first = isIpv4 ? 12 : 0 // an IPv4 address is the end of ::ffff:A.B.C.D
  for (const part of packet.protocol === ICMP ? [] : [packet.source, packet.destination])
    for (let i = first; i < 16; i += 2) sum += (part[i]! << 8) | part[i + 1]!
  const body = new DataView(payload.buffer, payload.byteOffset, payload.byteLength)
  body.setUint16(offset, internetChecksum(body, 0, payload.length, sum))
}

export const ipTarget: Target = {
  name: 'ip',
  split: splitProgram,
  seeds,
  run(bytes, feature) {
    const link = new Link()
    const hosts = [link.add('10.9.0.1'), link.add('fd00:9::1')]
    for (const host of hosts) {
      // a UDP socket on port 7, and an ICMP socket with identifier 0x101
      const { socket } = host.socket(UDP, 7)
      const echo = host.socket(ICMP, 0x101)
      const prefix = prefixOf(host === hosts[0] ? 4 : 6)
      // Both packets wait for the link-layer address of their destination. The seeds have answers of host 9.
      host.ip.send(socket, { address: address(`${prefix}9`), port: 5 }, new Uint8Array(3), link.now)
      host.ip.send(echo.socket, { address: address(`${prefix}8`), port: 5 }, new Uint8Array(3), link.now)
    }
    for (const one of splitProgram(bytes)) {
      if (one.length < HEADER_BYTES) continue
      const flags = one[0]!
      const packet = one.slice(HEADER_BYTES)
      if ((flags & REPAIR) !== 0 && packet.length > ENCAPSULATION_BYTES + IPV4_HEADER_BYTES) repair(packet)
      const { ip } = hosts[flags & IPV6]!
      const before = { ...ip.counters }
      ip.receive(packet, link.now)
      for (const { bytes: sent } of link.lose()) assert.ok(sent.length <= MTU + ENCAPSULATION_BYTES)
      // index of the counter that counted the packet's fate
      const outcome = Object.keys(before).findIndex(
        name => name !== 'received' && ip.counters[name as keyof typeof before] !== before[name as keyof typeof before],
      )
      const { neighbours, waiting } = ip.counts
      assert.ok(neighbours <= NeighbourLimits.entries && waiting <= NeighbourLimits.waiting)
      feature((outcome + 1) | (Math.min(neighbours, 15) << 4) | (Math.min(waiting, 15) << 8))
      if ((flags & LATER) !== 0) {
        link.now += HOUR
        ip.onTimeout(link.now)
      }
    }
    for (let turns = 0; link.tick(); turns++) assert.ok(turns < 1000, 'timers do not end')
    for (const { ip, groups } of hosts) {
      assert.equal(ip.counts.waiting, 0)
      ip.shutDown()
      assert.equal(groups.size, 0)
    }
  },
}
