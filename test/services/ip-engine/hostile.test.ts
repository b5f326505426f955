/*
 * Malformed and forged packets are dropped, counted, and have no effect. Floods of valid packets use bounded memory.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { IpCounters } from '../../../src/services/ip-engine/interface.ts'
import { NeighbourLimits } from '../../../src/services/ip-engine/neighbours.ts'
import { MULTICAST_QPN } from '../../../src/spec/wire/headers.ts'
import { emitIp, IpProtocolNumber, icmpPacket, udpPacket } from '../../../src/transport/wire/ip-packet.ts'
import {
  ArpOperation,
  ENCAPSULATION_BYTES,
  EtherType,
  emitArp,
  emitDiscovery,
  NeighbourMessage,
  unspecifiedLink,
} from '../../../src/transport/wire/ipoib.ts'
import { address, type Host, Link } from './link.ts'

const { UDP } = IpProtocolNumber
const PORT = 7
/** Types of echo messages: ICMP and ICMPv6. */
const echoRequestType = { 4: 8, 6: 128 } as const
const echoReplyType = { 4: 0, 6: 129 } as const
const MORE_FRAGMENTS = 0x2000
const FRAGMENT_OFFSET_1 = 1
const IPV6_FRAGMENT = 44
/** Offset of the option's length in the body of a solicitation. */
const OPTION_LENGTH = 21
const TCP = 6
const ETHERTYPE_RARP = 0x8035
const peerLink = { qpn: 0x999, gid: address('fe80::99') }

const encapsulated = (type: number, packet: Uint8Array): Uint8Array =>
  Uint8Array.of(type >> 8, type & 255, 0, 0, ...packet)

/** A host with a socket, and packets that a neighbour could send to it. */
const createVictim = (family: 4 | 6) => {
  const link = new Link()
  const base = family === 4 ? '10.9.0.' : 'fd00:9::'
  const host = link.add(`${base}1`)
  const { received } = host.socket(UDP, PORT)
  const addresses = { source: address(`${base}9`), destination: address(`${base}1`), hopLimit: 64 }
  const datagram = { sourcePort: 1, destinationPort: PORT, payload: Uint8Array.of(1, 2, 3) }
  const wrap = (packet: Parameters<typeof emitIp>[0]): Uint8Array =>
    encapsulated(family === 4 ? EtherType.IPV4 : EtherType.IPV6, emitIp(packet, 0))
  const udp = wrap(udpPacket(addresses, datagram))
  const echo = wrap(icmpPacket(addresses, { type: echoRequestType[family], code: 0, body: new Uint8Array(20) }))
  return { link, host, base, received, addresses, datagram, wrap, udp, echo }
}

/** The counters, except `received`, that a packet increments. */
const dropReasons = (host: Host, bytes: Uint8Array): string[] => {
  const before = { ...host.ip.counters }
  host.ip.receive(bytes, 1)
  return (Object.keys(before) as (keyof IpCounters)[]).filter(
    name => name !== 'received' && host.ip.counters[name] > before[name],
  )
}

/** Asserts that no packet had an effect. */
const assertUntouched = ({ link, host, received }: ReturnType<typeof createVictim>): void => {
  assert.deepEqual(link.collect(), [])
  assert.deepEqual([received.length, host.ip.counts.neighbours, host.ip.counts.waiting], [0, 0, 0])
}

const changed = (bytes: Uint8Array, at: number, value: number): Uint8Array => {
  const copy = bytes.slice()
  copy[at] = value
  return copy
}

const arp = (fields: Partial<Parameters<typeof emitArp>[0]> = {}): Uint8Array =>
  emitArp({
    operation: ArpOperation.REQUEST,
    senderLink: peerLink,
    sender: address('10.9.0.9'),
    targetLink: unspecifiedLink,
    target: address('10.9.0.1'),
    ...fields,
  })

for (const family of [4, 6] as const)
  describe(`IPv${family}`, () => {
    it('drops truncated packets', () => {
      const self = createVictim(family)
      for (const whole of [self.udp, self.echo])
        for (let length = 0; length < whole.length; length++)
          assert.deepEqual(dropReasons(self.host, whole.subarray(0, length)), ['malformed'], `${length} bytes`)
      assertUntouched(self)
    })

    it('delivers no packet in which one bit is flipped', () => {
      const self = createVictim(family)
      for (const whole of [self.udp, self.echo])
        for (let bit = 0; bit < whole.length * 8; bit++) {
          const at = bit >> 3
          const isReserved = at === 2 || at === 3
          // IPv6 protects neither traffic class, flow label nor hop limit.
          const isUnprotected = family === 6 && ((at >= 4 && at < 8) || at === 11)
          if (isReserved || isUnprotected) continue
          const [reason] = dropReasons(self.host, changed(whole, at, whole[at]! ^ (1 << (bit & 7))))
          assert.ok(reason !== undefined && reason !== 'delivered', `byte ${at}, bit ${bit & 7}: ${reason}`)
        }
      assertUntouched(self)
    })

    it('drops fragments', () => {
      const self = createVictim(family)
      const ip = self.udp.subarray(ENCAPSULATION_BYTES)
      if (family === 4)
        for (const flagsAndOffset of [MORE_FRAGMENTS, FRAGMENT_OFFSET_1]) {
          const copy = ip.slice()
          const view = new DataView(copy.buffer)
          view.setUint16(6, flagsAndOffset)
          // Corrects the header checksum, at offset 10.
          view.setUint16(10, 0)
          let sum = 0
          for (let i = 0; i < 20; i += 2) sum += view.getUint16(i)
          view.setUint16(10, ~((sum & 0xffff) + (sum >>> 16)))
          assert.deepEqual(dropReasons(self.host, encapsulated(EtherType.IPV4, copy)), ['fragment'])
        }
      else
        assert.deepEqual(dropReasons(self.host, encapsulated(EtherType.IPV6, changed(ip, 6, IPV6_FRAGMENT))), [
          'fragment',
        ])
      assertUntouched(self)
    })

    it('drops impossible source addresses', () => {
      const self = createVictim(family)
      const sources =
        family === 4
          ? ['0.0.0.0', '255.255.255.255', '10.9.0.255', '224.0.0.1', '127.0.0.1', '10.8.0.1']
          : ['::', '::1', 'ff02::1', 'fd00:8::1']
      for (const source of sources) {
        const from = { ...self.addresses, source: address(source) }
        const [reason] = dropReasons(self.host, self.wrap(udpPacket(from, self.datagram)))
        assert.ok(reason === 'foreign' || reason === 'malformed', `${source}: ${reason}`)
        const body = new Uint8Array(8)
        dropReasons(self.host, self.wrap(icmpPacket(from, { type: echoRequestType[family], code: 0, body })))
      }
      // A broadcast from the host's own address may be a looped packet of the host.
      const fromItself = { ...self.addresses, source: self.addresses.destination }
      const toAll = { ...fromItself, destination: address('10.9.0.255') }
      if (family === 4) assert.deepEqual(dropReasons(self.host, self.wrap(udpPacket(toAll, self.datagram))), [])
      assert.deepEqual(dropReasons(self.host, self.wrap(udpPacket(fromItself, self.datagram))), ['foreign'])
      const echo = { type: echoRequestType[family], code: 0, body: new Uint8Array(8) }
      assert.deepEqual(dropReasons(self.host, self.wrap(icmpPacket(fromItself, echo))), ['foreign'])
      assertUntouched(self)
    })

    it('drops unsupported protocols, and unsolicited replies', () => {
      const self = createVictim(family)
      const packet = { ...self.addresses, protocol: TCP, payload: new Uint8Array(40) }
      assert.deepEqual(dropReasons(self.host, self.wrap(packet)), ['foreign'])
      const reply = { type: echoReplyType[family], code: 0, body: new Uint8Array(8) }
      assert.deepEqual(dropReasons(self.host, self.wrap(icmpPacket(self.addresses, reply))), ['unclaimed'])
      assert.deepEqual(dropReasons(self.host, encapsulated(ETHERTYPE_RARP, new Uint8Array(60))), ['foreign'])
      assertUntouched(self)
    })

    it('uses bounded memory for echo requests from nonexistent hosts', () => {
      const self = createVictim(family)
      for (let i = 2; i < 250; i++)
        for (let n = 0; n < 40; n++) {
          const from = { ...self.addresses, source: address(`${self.base}${family === 4 ? i : i.toString(16)}`) }
          const body = new Uint8Array(1000)
          self.host.ip.receive(self.wrap(icmpPacket(from, { type: echoRequestType[family], code: 0, body })), 1)
          self.link.collect()
        }
      assert.ok(self.host.ip.counts.waiting <= NeighbourLimits.waiting, `${self.host.ip.counts.waiting} answers wait`)
      while (self.link.tick());
      assert.deepEqual([self.host.ip.counts.waiting, self.host.ip.counts.neighbours], [0, 0])
    })
  })

describe('ARP', () => {
  it('drops truncated messages, messages of another link or protocol, and messages without a queue pair', () => {
    const self = createVictim(4)
    const whole = arp()
    for (let length = 0; length < whole.length; length++)
      assert.deepEqual(dropReasons(self.host, whole.subarray(0, length)), ['malformed'])
    // Bytes of hardware type, protocol, address lengths.
    for (const at of [4, 5, 6, 7, 8, 9]) assert.deepEqual(dropReasons(self.host, changed(whole, at, 99)), ['malformed'])
    for (const senderLink of [
      { ...peerLink, qpn: 0 },
      { ...peerLink, qpn: MULTICAST_QPN },
      { ...peerLink, gid: address('ff12::1') },
    ])
      assert.deepEqual(dropReasons(self.host, arp({ senderLink })), ['malformed'])
    assertUntouched(self)
  })

  it('drops impossible source addresses, and the host’s own address', () => {
    const self = createVictim(4)
    for (const sender of ['10.9.0.1', '10.9.0.255', '255.255.255.255', '224.0.0.1', '10.8.0.9'])
      assert.deepEqual(dropReasons(self.host, arp({ sender: address(sender) })), ['foreign'], sender)
    assertUntouched(self)
  })

  it('adds no neighbour for unsolicited replies, requests to other hosts, and unknown operations', () => {
    const self = createVictim(4)
    dropReasons(self.host, arp({ operation: ArpOperation.REPLY }))
    dropReasons(self.host, arp({ target: address('10.9.0.2') }))
    dropReasons(self.host, arp({ operation: 77 }))
    assertUntouched(self)
  })

  it('answers requests from very many hosts, and caches few hosts', () => {
    const link = new Link()
    const host = link.add('10.0.0.1', 8)
    let answers = 0
    for (let i = 0; i < 5000; i++) {
      host.ip.receive(arp({ sender: address(`10.1.${i >> 8}.${i & 255}`), target: address('10.0.0.1') }), 1)
      answers += link.lose().length
    }
    assert.deepEqual([answers, host.ip.counts.neighbours], [5000, NeighbourLimits.entries])
  })

  it('answers a host without an address, and does not cache it', () => {
    const self = createVictim(4)
    assert.deepEqual(dropReasons(self.host, arp({ sender: address('0.0.0.0') })), [])
    assert.equal(self.link.collect().length, 1)
    assert.equal(self.host.ip.counts.neighbours, 0)
  })
})

describe('a flood that fills the neighbour cache', () => {
  const unknownHost = (i: number): Uint8Array => address(`10.1.${i >> 8}.${i & 255}`)
  const target = address('10.0.0.1')
  const arpRequest = (i: number): Uint8Array => arp({ sender: unknownHost(i), target })
  const echoRequest = (i: number): Uint8Array => {
    const addresses = { source: unknownHost(i), destination: target, hopLimit: 64 }
    return encapsulated(
      EtherType.IPV4,
      emitIp(icmpPacket(addresses, { type: echoRequestType[4], code: 0, body: new Uint8Array(8) }), 0),
    )
  }

  for (const [name, filling, during] of [
    ['of ARP requests', arpRequest, arpRequest],
    ['of ARP requests, then of echo requests from absent hosts', arpRequest, echoRequest],
    ['of echo requests from absent hosts', echoRequest, echoRequest],
  ] as const)
    it(`${name} does not prevent the discovery of a neighbour`, () => {
      const link = new Link()
      const [victim, other] = [link.add('10.0.0.1', 8), link.add('10.0.0.2', 8)]
      let sent = 0
      const flood = (packet: (i: number) => Uint8Array, count: number): void => {
        for (const end = sent + count; sent < end; sent++) victim.ip.receive(packet(sent), link.now)
      }
      flood(filling, 5000)
      link.lose()
      const { received } = other.socket(UDP, PORT)
      const { socket } = victim.socket(UDP)
      // The first datagram may be dropped while it waits for the address.
      for (let tries = 0; tries < 2; tries++) {
        victim.ip.send(socket, { address: address('10.0.0.2'), port: PORT }, Uint8Array.of(5), link.now)
        const solicitations = link.lose()
        flood(during, 200)
        link.lose()
        for (const solicitation of solicitations) link.deliver(solicitation)
        link.settle()
      }
      assert.ok(received.length > 0)
      assert.ok(victim.ip.counts.neighbours <= NeighbourLimits.entries)
    })
})

describe('neighbour discovery', () => {
  const solicitation = (
    self: ReturnType<typeof createVictim>,
    body: Uint8Array,
    hopLimit = 255,
    code = 0,
  ): Uint8Array =>
    self.wrap(icmpPacket({ ...self.addresses, hopLimit }, { type: NeighbourMessage.SOLICITATION, code, body }))
  const body = (fields: object = {}): Uint8Array =>
    emitDiscovery({
      type: NeighbourMessage.SOLICITATION,
      flags: 0,
      target: address('fd00:9::1'),
      link: peerLink,
      ...fields,
    })

  /** A solicitation of a host that has no address yet. */
  const withoutSource = (destination: Uint8Array, link: object | undefined) =>
    icmpPacket(
      { source: new Uint8Array(16), destination, hopLimit: 255 },
      { type: NeighbourMessage.SOLICITATION, code: 0, body: body({ link }) },
    )

  it('drops what a host without an address must not send, and answers to a group', () => {
    const self = createVictim(6)
    const type = NeighbourMessage.ADVERTISEMENT
    const advertisement = emitDiscovery({ type, flags: 0x60, target: address('fd00:9::9'), link: peerLink })
    const toAllNodes = { ...self.addresses, destination: address('ff02::1'), hopLimit: 255 }
    const wrong = [
      withoutSource(address('fd00:9::1'), undefined),
      withoutSource(address('ff02::1'), undefined),
      withoutSource(address('ff02::1:ff00:1'), peerLink),
      icmpPacket(toAllNodes, { type, code: 0, body: advertisement }),
    ]
    for (const packet of wrong) assert.deepEqual(dropReasons(self.host, self.wrap(packet)), ['malformed'])
    assertUntouched(self)
  })

  it('drops forwarded messages, wrong codes, invalid option lengths, and messages without a queue pair', () => {
    const self = createVictim(6)
    const wrong = [
      solicitation(self, body(), 254),
      solicitation(self, body(), 255, 1),
      solicitation(self, body().subarray(0, 19)),
      solicitation(self, body().subarray(0, 30)),
      solicitation(self, changed(body(), OPTION_LENGTH, 0)),
      solicitation(self, changed(body(), OPTION_LENGTH, 200)),
      solicitation(self, body({ link: { ...peerLink, qpn: MULTICAST_QPN } })),
    ]
    for (const packet of wrong) assert.deepEqual(dropReasons(self.host, packet), ['malformed'])
    assertUntouched(self)
  })

  it('adds no neighbour for unsolicited advertisements', () => {
    const self = createVictim(6)
    const type = NeighbourMessage.ADVERTISEMENT
    const message = emitDiscovery({ type, flags: 0x60, target: address('fd00:9::9'), link: peerLink })
    dropReasons(
      self.host,
      self.wrap(icmpPacket({ ...self.addresses, hopLimit: 255 }, { type, code: 0, body: message })),
    )
    assertUntouched(self)
  })

  it('answers a host without an address, and does not cache it', () => {
    const self = createVictim(6)
    const packet = withoutSource(address('ff02::1:ff00:1'), undefined)
    assert.equal(packet.protocol, IpProtocolNumber.ICMPV6)
    assert.deepEqual(dropReasons(self.host, self.wrap(packet)), [])
    const [answer] = self.link.collect()
    assert.equal(answer?.to.qpn, MULTICAST_QPN, 'to all nodes')
    assert.equal(self.host.ip.counts.neighbours, 0)
  })
})
