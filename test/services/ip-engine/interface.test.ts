/*
 * IP interfaces on a link of RFC 4391.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { IpError, type IpErrorCode } from '../../../src/services/ip-engine/error.ts'
import { NeighbourLimits } from '../../../src/services/ip-engine/neighbours.ts'
import { IpSockets, SocketLimits } from '../../../src/services/ip-engine/sockets.ts'
import { MULTICAST_QPN } from '../../../src/spec/wire/headers.ts'
import { addressText } from '../../../src/transport/wire/address.ts'
import { emitIp, IpProtocolNumber, icmpPacket } from '../../../src/transport/wire/ip-packet.ts'
import {
  ADVERTISEMENT_OVERRIDE,
  ADVERTISEMENT_SOLICITED,
  broadcastLink,
  ENCAPSULATION_BYTES,
  EtherType,
  emitDiscovery,
  type LinkAddress,
  multicastLink,
  NeighbourMessage,
} from '../../../src/transport/wire/ipoib.ts'
import { address, Host, Link, MTU, PKEY } from './link.ts'

const { UDP, ICMP } = IpProtocolNumber
/** Microseconds. */
const SECOND = 1_000_000
const bytes = (...values: number[]) => Uint8Array.from(values)
const codeOf = (body: () => unknown): IpErrorCode | undefined => {
  try {
    body()
    return undefined
  } catch (error) {
    assert.ok(error instanceof IpError, String(error))
    return error.code
  }
}

/** Hosts 1 and 2 of a prefix of IPv4 or IPv6. */
const twoHosts = (family: 4 | 6) => {
  const link = new Link()
  const base = family === 4 ? '10.9.0.' : 'fd00:9::'
  return { link, a: link.add(`${base}1`), b: link.add(`${base}2`), base }
}

/** An advertisement of the neighbour `source`, encapsulated, with its link-layer address `link` if given. */
const advertisement = (source: Uint8Array, destination: Uint8Array, flags: number, link?: LinkAddress): Uint8Array => {
  const type = NeighbourMessage.ADVERTISEMENT
  const body = emitDiscovery({ type, flags, target: source, link })
  const packet = icmpPacket({ source, destination, hopLimit: 255 }, { type, code: 0, body })
  const frame = emitIp(packet, ENCAPSULATION_BYTES)
  new DataView(frame.buffer).setUint16(0, EtherType.IPV6)
  return frame
}

for (const family of [4, 6] as const) {
  describe(`IPv${family}`, () => {
    it('finds a neighbour with one solicitation, and pings it', () => {
      const { link, a, b } = twoHosts(family)
      const { socket, received } = a.socket(ICMP)
      // `port` of an echo message is its sequence number.
      a.ip.send(socket, { address: b.ip.prefix.address, port: 7 }, bytes(1, 2, 3), link.now)
      const [first, ...more] = link.collect()
      assert.equal(more.length, 0)
      assert.equal(first!.to.qpn, MULTICAST_QPN, 'the solicitation goes to a group')
      link.settle()
      assert.deepEqual(received, [{ from: { address: b.ip.prefix.address, port: 7 }, payload: bytes(1, 2, 3) }])
      a.ip.send(socket, { address: b.ip.prefix.address, port: 8 }, bytes(), link.now)
      assert.deepEqual(
        link.collect().map(({ to }) => to),
        [b.link],
        'the neighbour is known',
      )
      link.settle()
      assert.equal(received.length, 2)
      assert.deepEqual([a.ip.counts.neighbours, b.ip.counts.neighbours], [1, 1])
    })

    it('carries datagrams up to the MTU between ports, and refuses longer ones', () => {
      const { link, a, b } = twoHosts(family)
      const sender = a.socket(UDP, 1000)
      const receiver = b.socket(UDP, 2000)
      const maxBytes = MTU - (family === 4 ? 20 : 40) - 8
      const payload = new Uint8Array(maxBytes).fill(0xa5)
      const to = { address: b.ip.prefix.address, port: 2000 }
      for (const length of [0, 1, maxBytes]) a.ip.send(sender.socket, to, payload.subarray(0, length), link.now)
      link.settle()
      assert.deepEqual(
        receiver.received.map(({ from, payload: data }) => [addressText(from.address), from.port, data.length]),
        [0, 1, maxBytes].map(length => [addressText(a.ip.prefix.address), 1000, length]),
      )
      assert.equal(
        codeOf(() => a.ip.send(sender.socket, to, new Uint8Array(maxBytes + 1), link.now)),
        'EMSGSIZE',
      )
      a.ip.send(sender.socket, { ...to, port: 2001 }, payload, link.now)
      link.settle()
      assert.equal(b.ip.counters.unclaimed, 1)
    })

    it('solicits a silent neighbour three times, a second apart, and drops its queue', () => {
      const { link, a, base } = twoHosts(family)
      const { socket } = a.socket(UDP)
      const start = link.now
      for (let i = 0; i < 5; i++) a.ip.send(socket, { address: address(`${base}77`), port: 9 }, bytes(i), link.now)
      assert.equal(link.collect().length, 1, 'the first solicitation')
      link.settle()
      let ticks = 0
      while (link.tick()) ticks++
      assert.equal(ticks, 3, 'two more solicitations, then the neighbour fails')
      assert.equal(link.now - start, 3 * SECOND)
      assert.deepEqual([a.ip.counters.dropped, a.ip.counts.neighbours, a.ip.counts.waiting], [5, 0, 0])
    })

    it('keeps the newest 16 packets that wait for a neighbour', () => {
      const { link, a, b } = twoHosts(family)
      const { socket } = a.socket(UDP)
      const { received } = b.socket(UDP, 9)
      for (let i = 0; i < 20; i++) a.ip.send(socket, { address: b.ip.prefix.address, port: 9 }, bytes(i), link.now)
      link.settle()
      assert.deepEqual(
        received.map(({ payload }) => payload[0]),
        Array.from({ length: 16 }, (_, i) => i + 4),
      )
      assert.equal(a.ip.counters.dropped, 4)
    })

    it('solicits the address of the packet, also after the program has changed its array', () => {
      const { link, a, base } = twoHosts(family)
      const { socket } = a.socket(UDP)
      const to = Buffer.from(address(`${base}77`))
      a.ip.send(socket, { address: to, port: 9 }, bytes(), link.now)
      const first = link.lose()
      to.fill(0)
      link.now += SECOND
      a.ip.onTimeout(link.now)
      assert.deepEqual(
        link.collect().map(frame => frame.bytes),
        first.map(frame => frame.bytes),
      )
    })

    it('probes a stale neighbour, and finds its successor', () => {
      const { link, a, b, base } = twoHosts(family)
      const { socket, received } = a.socket(ICMP)
      const ping = (): number => {
        const before = received.length
        a.ip.send(socket, { address: b.ip.prefix.address, port: 0 }, bytes(), link.now)
        link.settle()
        return received.length - before
      }
      assert.equal(ping(), 1)
      link.hosts.splice(link.hosts.indexOf(b), 1)
      const successor = link.add(`${base}2`)
      assert.notEqual(successor.link.qpn, b.link.qpn)
      for (const seconds of [0, 29]) {
        link.now += seconds * SECOND
        assert.equal(ping(), 0, 'its old link-layer address is still used')
        assert.equal(a.ip.nextTimeout(), Number.POSITIVE_INFINITY, 'it is not solicited')
      }
      link.now += 2 * SECOND
      a.ip.send(socket, { address: b.ip.prefix.address, port: 0 }, bytes(), link.now)
      assert.deepEqual(
        link.lose().map(({ to }) => to),
        [b.link, b.link],
        'a unicast solicitation, and the packet',
      )
      assert.equal(ping(), 0)
      while (link.tick());
      assert.equal(ping(), 1)
    })

    it('receives only the groups of its sockets', () => {
      const { link, a, b } = twoHosts(family)
      const group = address(family === 4 ? '239.1.2.3' : 'ff02::123')
      const sender = a.socket(UDP)
      const member = b.socket(UDP, 5000)
      const bystander = b.socket(UDP, 5001)
      const before = b.groups.size
      const send = (port: number): void => {
        a.ip.send(sender.socket, { address: group, port }, bytes(9), link.now)
        link.settle()
      }
      send(5000)
      b.ip.join(member.socket, group)
      assert.ok(b.groups.has(addressText(multicastLink(group, PKEY).gid)))
      send(5000)
      send(5001)
      assert.deepEqual([member.received.length, bystander.received.length], [1, 0])
      assert.equal(
        codeOf(() => b.ip.join(member.socket, group)),
        'EADDRINUSE',
      )
      b.ip.leave(member.socket, group)
      assert.equal(
        codeOf(() => b.ip.leave(member.socket, group)),
        'EADDRNOTAVAIL',
      )
      assert.equal(b.groups.size, before)
      b.ip.join(member.socket, group)
      b.ip.close(member.socket)
      assert.equal(b.groups.size, before, 'a socket that is closed leaves its groups')
    })

    it('refuses more than 20 groups of a socket, and addresses that are no group', () => {
      const { a, b } = twoHosts(family)
      const { socket } = a.socket(UDP)
      const joinError = (text: string) => codeOf(() => a.ip.join(socket, address(text)))
      for (let i = 1; i <= SocketLimits.groupsEach; i++)
        assert.equal(joinError(family === 4 ? `239.1.2.${i}` : `ff02::1:${i}`), undefined)
      assert.equal(joinError(family === 4 ? '239.1.2.99' : 'ff02::1:99'), 'ENOMEM')
      assert.equal(joinError(addressText(b.ip.prefix.address)), 'EINVAL')
    })

    it('keeps at most 1024 packets that are not sent yet', () => {
      const { link, a, b } = twoHosts(family)
      const { socket } = a.socket(UDP)
      const send = (): void => a.ip.send(socket, { address: b.ip.prefix.address, port: 9 }, bytes(), link.now)
      send()
      link.settle()
      for (let i = 0; i < 1100; i++) send()
      assert.deepEqual([a.ip.counts.waiting, a.ip.counters.dropped], [1024, 76])
    })

    it('receives packets to its own address', () => {
      const { link, a } = twoHosts(family)
      const echo = a.socket(ICMP)
      const [sender, receiver] = [a.socket(UDP), a.socket(UDP, 53)]
      a.ip.send(echo.socket, { address: a.ip.prefix.address, port: 1 }, bytes(5), link.now)
      a.ip.send(sender.socket, { address: a.ip.prefix.address, port: 53 }, bytes(6), link.now)
      assert.deepEqual([echo.received.length, receiver.received.length, link.collect().length], [1, 1, 0])
    })

    it('leaves nothing after shutdown', () => {
      const { link, a, base } = twoHosts(family)
      const { socket } = a.socket(UDP, 1)
      a.ip.join(socket, address(family === 4 ? '239.1.2.3' : 'ff02::123'))
      a.ip.send(socket, { address: address(`${base}77`), port: 9 }, bytes(1), link.now)
      a.ip.shutDown()
      assert.deepEqual([a.groups.size, a.ip.counts.neighbours, a.ip.counts.waiting], [0, 0, 0])
      assert.equal(a.ip.nextTimeout(), Number.POSITIVE_INFINITY)
    })
  })
}

describe('an interface', () => {
  it('joins the groups of RFC 4391, 4', () => {
    const [ipv4Host, ipv6Host] = [new Host('10.9.0.1', 1), new Host('fd00:9::abcd:1234', 2)]
    assert.deepEqual([...ipv4Host.groups].sort(), ['ff12:401b:ffff:0:0:0:0:1', 'ff12:401b:ffff:0:0:0:ffff:ffff'])
    assert.deepEqual([...ipv6Host.groups].sort(), [
      'ff12:401b:ffff:0:0:0:ffff:ffff',
      'ff12:601b:ffff:0:0:0:0:1',
      'ff12:601b:ffff:0:0:1:ffcd:1234',
    ])
    assert.equal(addressText(broadcastLink(0x8001).gid), 'ff12:401b:8001:0:0:0:ffff:ffff')
    assert.equal(addressText(multicastLink(address('239.1.2.3'), PKEY).gid), 'ff12:401b:ffff:0:0:0:f01:203')
  })

  it('sends to all hosts of its prefix; broadcast echo requests are not answered', () => {
    const link = new Link()
    const [a, b, c] = [link.add('10.9.0.1'), link.add('10.9.0.2'), link.add('10.9.0.3')]
    const sender = a.socket(UDP)
    const echo = a.socket(ICMP)
    const receivers = [b.socket(UDP, 67), c.socket(UDP, 67)]
    for (const text of ['255.255.255.255', '10.9.0.255']) {
      a.ip.send(sender.socket, { address: address(text), port: 67 }, bytes(1), link.now)
      a.ip.send(echo.socket, { address: address(text), port: 1 }, bytes(1), link.now)
      link.settle()
    }
    assert.deepEqual([...receivers.map(({ received }) => received.length), echo.received.length], [2, 2, 0])
  })

  it('refuses an address that no host can have', () => {
    const wrong: readonly (readonly [string, number])[] = [
      ['0.0.0.0', 24],
      ['127.0.0.1', 8],
      ['224.0.0.5', 24],
      ['10.9.0.255', 24],
      ['255.255.255.255', 32],
      ['10.9.0.1', 0],
      ['10.9.0.1', 33],
      ['::', 64],
      ['::1', 64],
      ['ff02::1', 64],
      ['fd00::1', 129],
    ]
    for (const [text, length] of wrong)
      assert.equal(
        codeOf(() => new Host(text, 1, length)),
        'EINVAL',
        `${text}/${length}`,
      )
    // RFC 3021
    for (const text of ['10.9.0.0', '10.9.0.1']) new Host(text, 1, 31)
  })

  it('refuses destinations off its link, or of another family', () => {
    const link = new Link()
    const a = link.add('10.9.0.1')
    const { socket } = a.socket(UDP)
    const codes = ['10.9.1.1', 'fd00::1', '0.0.0.0'].map(text =>
      codeOf(() => a.ip.send(socket, { address: address(text), port: 1 }, bytes(), 0)),
    )
    assert.deepEqual(codes, ['ENETUNREACH', 'EINVAL', 'EINVAL'])
    assert.equal(
      codeOf(() => a.ip.send(socket, { address: address('10.9.0.2'), port: 0 }, bytes(), 0)),
      'EINVAL',
    )
  })

  it('has a prefix of any number of bits', () => {
    for (const [own, length, inside, outside] of [
      ['10.9.17.1', 20, '10.9.31.1', '10.9.32.1'],
      ['fd00:9::1', 33, 'fd00:9:7fff::1', 'fd00:9:8000::1'],
    ] as const) {
      const { ip } = new Host(own, 1, length)
      const socket = ip.open(UDP, 0, () => {})
      const send = (text: string) => codeOf(() => ip.send(socket, { address: address(text), port: 1 }, bytes(), 0))
      assert.deepEqual([send(inside), send(outside)], [undefined, 'ENETUNREACH'])
    }
  })

  it('answers solicitations of its own address only; answers to one node have the flag "solicited"', () => {
    const link = new Link()
    const a = link.add('fd00:9::1')
    const flagsFor = (source: string, target: string): number[] => {
      const isFromUnspecified = source === '::'
      const body = emitDiscovery({
        type: NeighbourMessage.SOLICITATION,
        flags: 0,
        target: address(target),
        link: isFromUnspecified ? undefined : { qpn: 0x999, gid: address('fe80::99') },
      })
      const addresses = { source: address(source), destination: address('ff02::1:ff00:1'), hopLimit: 255 }
      const packet = icmpPacket(addresses, { type: NeighbourMessage.SOLICITATION, code: 0, body })
      const frame = emitIp(packet, ENCAPSULATION_BYTES)
      new DataView(frame.buffer).setUint16(0, EtherType.IPV6)
      a.ip.receive(frame, link.now)
      // After the encapsulation and the IPv6 header: type, code, checksum, flags.
      return link.lose().map(answer => answer.bytes[ENCAPSULATION_BYTES + 40 + 4]!)
    }
    assert.deepEqual(flagsFor('fd00:9::9', 'fd00:9::1'), [ADVERTISEMENT_OVERRIDE | ADVERTISEMENT_SOLICITED])
    assert.deepEqual(flagsFor('::', 'fd00:9::1'), [ADVERTISEMENT_OVERRIDE])
    // another address of the same solicited-node group
    assert.deepEqual(flagsFor('fd00:9::9', 'fd00:9::1:0:0:1'), [])
  })

  it('uses another link-layer address of a neighbour only if its advertisement has the flag "override"', () => {
    const { link, a, b } = twoHosts(6)
    const { socket } = a.socket(UDP)
    const [source, destination] = [b.ip.prefix.address, a.ip.prefix.address]
    const send = (): void => a.ip.send(socket, { address: source, port: 9 }, bytes(), link.now)
    /** Returns the destinations of the lost packets. */
    const sendAndLose = () => {
      send()
      return link.lose().map(({ to }) => to)
    }
    send()
    link.settle()
    assert.deepEqual(sendAndLose(), [b.link])
    const other = { ...b.link, qpn: 0x999 }
    for (const [flags, expected] of [
      [ADVERTISEMENT_SOLICITED, [b.link, b.link]],
      [ADVERTISEMENT_SOLICITED | ADVERTISEMENT_OVERRIDE, [other]],
    ] as const) {
      a.ip.receive(advertisement(source, destination, flags, other), link.now)
      assert.deepEqual(sendAndLose(), expected, 'the first of two is a solicitation')
    }
  })

  it('keeps a neighbour that answers a unicast solicitation without its link-layer address', () => {
    const { link, a, b } = twoHosts(6)
    const { socket } = a.socket(UDP)
    const [source, destination] = [b.ip.prefix.address, a.ip.prefix.address]
    const receiveAdvertisement = (flags: number): void =>
      a.ip.receive(advertisement(source, destination, flags), link.now)
    const send = (): void => a.ip.send(socket, { address: source, port: 9 }, bytes(), link.now)
    send()
    receiveAdvertisement(ADVERTISEMENT_SOLICITED)
    // An answer without the link-layer address does not resolve a neighbour.
    assert.equal(link.collect().length, 1, 'only the solicitation: the datagram waits')
    link.settle()
    link.now += 31 * SECOND
    send()
    assert.equal(link.lose().length, 2, 'a solicitation and the datagram')
    receiveAdvertisement(0)
    assert.equal(a.ip.nextTimeout(), link.now + SECOND, 'not an answer')
    receiveAdvertisement(ADVERTISEMENT_SOLICITED)
    assert.equal(a.ip.nextTimeout(), Number.POSITIVE_INFINITY)
    send()
    assert.deepEqual(
      link.collect().map(({ to }) => to),
      [b.link],
    )
  })

  it('has one socket per protocol and port, and a maximum number of sockets', () => {
    const { ip } = new Host('10.9.0.1', 1)
    const first = ip.open(UDP, 7, () => {})
    ip.open(ICMP, 7, () => {})
    assert.equal(
      codeOf(() => ip.open(UDP, 7, () => {})),
      'EADDRINUSE',
    )
    const ports = new Set<number>()
    while (ip.counts.sockets < SocketLimits.sockets) ports.add(ip.open(UDP, 0, () => {}).port)
    assert.equal(ports.size, SocketLimits.sockets - 2)
    assert.ok([...ports].every(port => port >= 49152))
    assert.equal(
      codeOf(() => ip.open(UDP, 0, () => {})),
      'ENOMEM',
    )
    ip.close(first)
    assert.equal(ip.open(UDP, 7, () => {}).port, 7)
    // Another socket has the port now: this close has no effect, and the number of sockets stays at the maximum.
    ip.close(first)
    assert.equal(
      codeOf(() => ip.open(UDP, 7, () => {})),
      'ENOMEM',
    )
  })

  it('after port 65535 continues the search for a free port at the first dynamic port', () => {
    const sockets = new IpSockets(() => 65_535 - 49_152)
    assert.deepEqual(
      Array.from({ length: 3 }, () => sockets.open(UDP, 0, () => {}).port),
      [65_535, 49_152, 49_153],
    )
  })

  it('keeps its neighbours despite solicitations for very many unused addresses', () => {
    const link = new Link()
    const [a, b] = [link.add('10.9.0.1', 8), link.add('10.9.0.2', 8)]
    const { socket, received } = a.socket(ICMP)
    const ping = (text: string): void => {
      a.ip.send(socket, { address: address(text), port: 0 }, bytes(), link.now)
      link.settle()
    }
    ping('10.9.0.2')
    for (let i = 0; i < 5000; i++) ping(`10.${(i >> 8) + 10}.${i & 255}.1`)
    const { neighbours, waiting } = a.ip.counts
    assert.equal(neighbours, NeighbourLimits.entries)
    assert.ok(waiting <= NeighbourLimits.waiting, `${waiting} packets wait`)
    ping('10.9.0.2')
    assert.equal(received.length, 2)
    assert.equal(b.ip.counts.neighbours, 1)
    while (link.tick());
    assert.deepEqual([a.ip.counts.neighbours, a.ip.counts.waiting], [1, 0])
  })
})
