/*
 * rtnetlink's messages about interfaces, and the table that they fill.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { describe, it } from 'node:test'
import { gunzipSync } from 'node:zlib'
import fc from 'fast-check'
import { EAGAIN, ENOBUFS, ENOMEM, EPERM } from '../../../src/host/errno.ts'
import { hasNative } from '../../../src/host/native.ts'
import { createInterfaceTable, createTableReader, openInterfaces } from '../../../src/host/net/interfaces.ts'
import {
  dumpRequest,
  parseRouteMessages,
  RTM_GETADDR,
  RTM_GETLINK,
  RTM_GETNEIGH,
} from '../../../src/host/net/route-messages.ts'
import { AF_INET, AF_INET6 } from '../../../src/host/net/socket-constants.ts'
import { fixture } from '../../paths.ts'

const recorded = gunzipSync(readFileSync(fixture('netlink', 'interfaces.txt.gz')))
  .toString()
  .trimEnd()
  .split('\n')
  .map(line => {
    const [label, hex] = line.split(' ')
    return { label, datagram: new Uint8Array(Buffer.from(hex, 'hex')) }
  })

const hexOf = (address: Uint8Array): string => Buffer.from(address).toString('hex')
/** ::ffff:a.b.c.d in hexadecimal. */
const mappedHex = (...ip: number[]): string => hexOf(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, ...ip))

/** An attribute of netlink, padded to a multiple of 4 bytes. */
const attribute = (kind: number, value: Uint8Array): number[] => [
  ...new Uint8Array(Uint16Array.of(4 + value.length, kind).buffer),
  ...value,
  ...new Uint8Array(-value.length & 3),
]

const [RTM_NEWADDR, RTM_NEWNEIGH, RTM_DELNEIGH] = [20, 28, 29]
const [NDA_DST, NDA_LLADDR] = [1, 2]
/** A message of `type` RTM_NEWNEIGH or RTM_DELNEIGH: struct nlmsghdr, struct ndmsg at byte 16, attributes. */
const neighbourMessage = (type: number, index: number, address: Uint8Array, mac?: Uint8Array): Uint8Array => {
  const body = [...new Uint8Array(12), ...attribute(NDA_DST, address), ...(mac ? attribute(NDA_LLADDR, mac) : [])]
  const bytes = Uint8Array.of(...new Uint8Array(16), ...body)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, bytes.length, true)
  view.setUint16(4, type, true)
  view.setUint8(16, address.length === 4 ? AF_INET : AF_INET6)
  view.setInt32(20, index, true)
  return bytes
}

/** A table filled by the recorded dumps. `changes` has later notifications. */
const startTable = () => {
  const table = createInterfaceTable()
  table.begin()
  const ends = recorded.flatMap(({ label, datagram }) =>
    label.startsWith('dump') ? [table.apply(datagram).ended].filter(end => end !== undefined) : [],
  )
  table.end()
  const changes: string[] = []
  const [v0] = [...table.links.values()].filter(link => link.name === 'v0')
  table.listen({
    link: (index, now) => changes.push(now ? `${now.name} ${now.mtu} ${now.isUp} ${now.hasCarrier}` : `${index} gone`),
    address: (index, address, isPresent) => {
      if (index === v0.index) changes.push(`${isPresent ? '+' : '-'}${hexOf(address)}`)
    },
    neighbour: (index, address, mac) => changes.push(`${index} ${hexOf(address)} at ${mac}`),
  })
  /** The notifications about v0 that messages with label `wanted` cause. */
  const change = (wanted: string): string[] => {
    changes.length = 0
    for (const { label, datagram } of recorded) if (label === wanted) table.apply(datagram)
    return changes.filter(line => !/^v1|^br0/.test(line))
  }
  return { table, ends, change, v0, changes }
}

/** RTM_NEWADDR for an IPv6 address: struct nlmsghdr, struct ifaddrmsg at byte 16, attributes. */
const addressMessage = (shortFlags: number, attributes: readonly number[]): Uint8Array => {
  const bytes = Uint8Array.of(...new Uint8Array(24), ...attributes)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, bytes.length, true)
  view.setUint16(4, RTM_NEWADDR, true)
  view.setUint8(16, AF_INET6)
  view.setUint8(18, shortFlags)
  return bytes
}
const [IFA_ADDRESS, IFA_FLAGS] = [1, 8]
const [OPTIMISTIC, DADFAILED, TENTATIVE] = [4, 8, 0x40]

it('addresses are absent during duplicate address detection, except optimistic ones, and after it has failed', () => {
  const address = attribute(IFA_ADDRESS, new Uint8Array(16).fill(0xfd))
  for (const [flags, isPresent] of [
    [0, true],
    [TENTATIVE, false],
    [TENTATIVE | OPTIMISTIC, true],
    [DADFAILED, false],
    [DADFAILED | OPTIMISTIC, false],
  ] as const) {
    const long = attribute(IFA_FLAGS, new Uint8Array(Uint32Array.of(flags).buffer))
    // IFA_FLAGS takes precedence. Linux before 3.14 has only the flags of struct ifaddrmsg.
    for (const message of [addressMessage(flags, address), addressMessage(0xff, [...address, ...long])]) {
      const [parsed] = parseRouteMessages(message)
      assert.ok(parsed?.kind === 'address')
      assert.equal(parsed.isPresent, isPresent, `flags ${flags}`)
    }
  }
})

it('attributes end at the first of invalid length', () => {
  const address = attribute(IFA_ADDRESS, new Uint8Array(16).fill(0xfd))
  for (const length of [0, 3, 0xffff]) {
    const invalid = [length & 255, length >> 8, IFA_FLAGS, 0, TENTATIVE, 0, 0, 0]
    assert.deepEqual(
      parseRouteMessages(addressMessage(0, [...address, ...invalid])),
      parseRouteMessages(addressMessage(0, address)),
      `${length}`,
    )
    assert.deepEqual(parseRouteMessages(addressMessage(0, [...invalid, ...address])), [])
  }
})

/** NLMSG_ERROR (2) or NLMSG_DONE (3) with an error number. */
const endMessage = (type: number, errno: number): Uint8Array => {
  const bytes = new Uint8Array(20)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, 20, true)
  view.setUint16(4, type, true)
  view.setInt32(16, -errno, true)
  return bytes
}
const [NLMSG_ERROR, NLMSG_DONE] = [2, 3]

/**
 * A table on a simulated socket. `waiting` is the receive buffer; a number in it is the result of a recv without a
 * message. `answers` has the kernel's answers to the next dump requests; without one, the answer is the recorded dump.
 * `read` returns whether the table is complete.
 */
const simulatedTable = () => {
  const table = createInterfaceTable()
  const waiting: (Uint8Array | number)[] = []
  const recordedAs = (wanted: string) => recorded.flatMap(({ label, datagram }) => (label === wanted ? datagram : []))
  const lists = { links: recordedAs('dump-links'), addresses: recordedAs('dump-addresses') }
  const dumps: Readonly<Record<number, readonly Uint8Array[]>> = {
    [RTM_GETLINK]: lists.links,
    [RTM_GETADDR]: lists.addresses,
    [RTM_GETNEIGH]: [endMessage(NLMSG_DONE, 0)],
  }
  const answers: (readonly (Uint8Array | number)[])[] = []
  const requests: number[] = []
  const read = createTableReader(table, {
    request: type => {
      requests.push(type)
      waiting.push(...(answers.shift() ?? dumps[type]))
    },
    receive: () => waiting.shift() ?? -EAGAIN,
  })
  const added = recordedAs('add-ipv4')
  const addedAddress = mappedHex(10, 99, 0, 7)
  const has = (address: string): boolean => table.withAddress(Buffer.from(address, 'hex')) !== undefined
  return { table, waiting, lists, answers, requests, read, added, addedAddress, has }
}

it('all three lists are dumped at the start; later changes are applied without a dump', () => {
  const { table, waiting, answers, lists, requests, read, added, addedAddress, has } = simulatedTable()
  const neighbour = Uint8Array.of(10, 99, 0, 9)
  const INTERFACE = 3
  const listed = neighbourMessage(RTM_NEWNEIGH, INTERFACE, neighbour, Uint8Array.of(2, 0, 0, 0, 0, 1))
  answers.push(lists.links, lists.addresses, [listed, endMessage(NLMSG_DONE, 0)])
  assert.equal(read(), true)
  assert.equal(table.neighbourOf(INTERFACE, Buffer.from(mappedHex(...neighbour), 'hex')), '020000000001')
  assert.equal(has(addedAddress), false)
  waiting.push(...added)
  assert.equal(read(), true)
  assert.equal(has(addedAddress), true)
  assert.deepEqual(requests, [RTM_GETLINK, RTM_GETADDR, RTM_GETNEIGH])
})

it('an error of the socket throws, between dumps and within a dump', () => {
  const between = simulatedTable()
  assert.equal(between.read(), true)
  between.waiting.push(-EPERM)
  assert.throws(between.read, { code: 'EPERM' })
  const within = simulatedTable()
  within.answers.push([-EPERM])
  assert.throws(within.read, { code: 'EPERM' })
})

describe('messages dropped by the kernel (ENOBUFS)', () => {
  it('an address that was added before the dumps, and is not in them, is removed', () => {
    const { read, waiting, added, addedAddress, has } = simulatedTable()
    assert.equal(read(), true)
    waiting.push(-ENOBUFS, ...added) // the kernel dropped the message of the removal
    assert.equal(read(), true)
    assert.equal(has(addedAddress), false)
  })

  it('a dump during which changes were dropped is repeated', () => {
    const { read, answers, lists, added, addedAddress, has, waiting } = simulatedTable()
    answers.push(lists.links, [...added, -ENOBUFS, ...lists.addresses])
    assert.equal(read(), false)
    assert.deepEqual(waiting, [], 'the dump was read to its end')
    assert.equal(read(), true)
    assert.equal(has(addedAddress), false)
  })

  it('nothing is removed after an incomplete dump', () => {
    const { read, answers, lists, table, waiting } = simulatedTable()
    assert.equal(read(), true)
    const known = table.links.size
    const interrupted = endMessage(NLMSG_DONE, 0)
    interrupted[6] = 0x10 // NLM_F_DUMP_INTR
    for (const incomplete of [[interrupted], [-ENOBUFS, endMessage(NLMSG_DONE, 0)]]) {
      waiting.push(-ENOBUFS)
      answers.push(incomplete, lists.addresses)
      assert.equal(read(), false)
      assert.equal(table.links.size, known)
    }
    assert.equal(read(), true)
  })

  it('a dump that starts with a full buffer is read to its end', () => {
    const { read, answers, lists, table } = simulatedTable()
    answers.push([endMessage(NLMSG_ERROR, ENOBUFS), ...lists.links])
    assert.equal(read(), false)
    assert.equal(read(), true)
    assert.equal(table.links.size, 3)
  })

  it('a refused dump of interfaces throws, a refused dump of neighbours does not', () => {
    const refused = [endMessage(NLMSG_ERROR, EPERM)]
    const links = simulatedTable()
    links.answers.push(refused)
    assert.throws(links.read, /list of interfaces/)
    const neighbours = simulatedTable()
    neighbours.answers.push(neighbours.lists.links, neighbours.lists.addresses, refused)
    assert.equal(neighbours.read(), true)
  })
})

describe('interfaces', () => {
  it('an aborted list ends with its errno', () => {
    assert.equal(createInterfaceTable().apply(endMessage(NLMSG_DONE, ENOMEM)).ended, ENOMEM)
  })

  it('parses links and addresses from the dumps', () => {
    const { table, ends, v0 } = startTable()
    assert.deepEqual(ends, [0, 0], 'each list ends with NLMSG_DONE')
    assert.deepEqual(
      [...table.links.values()].map(({ name, mtu, isUp, hasCarrier, isLoopback }) => [
        name,
        mtu,
        isUp,
        hasCarrier,
        isLoopback,
      ]),
      [
        ['lo', 65536, false, false, true],
        ['v1', 1500, true, true, false],
        ['v0', 1500, true, true, false],
      ],
    )
    assert.equal(v0.mac.length, 6)
    const addresses = table.addresses(v0.index).map(hexOf)
    assert.equal(addresses[0], mappedHex(10, 99, 0, 1))
    assert.match(addresses[1], /^fe80000000000000/)
    assert.equal(table.withAddress(Buffer.from(mappedHex(10, 99, 0, 1), 'hex'))?.name, 'v0')
    assert.equal(table.withAddress(new Uint8Array(16)), undefined)
  })

  it('reports a new MAC of a bond', () => {
    const { table, changes, v0 } = startTable()
    const [{ datagram }] = recorded.filter(({ label }) => label === 'mtu')
    const bond = datagram.slice()
    const view = new DataView(bond.buffer)
    const IFI_FLAGS = 16 + 8 // struct nlmsghdr, then an offset in struct ifinfomsg
    const IFF_MASTER = 0x400
    view.setUint32(IFI_FLAGS, view.getUint32(IFI_FLAGS, true) | IFF_MASTER, true)
    table.apply(bond)
    assert.equal(table.links.get(v0.index)?.isBond, true)
    changes.length = 0
    const macAt = Buffer.from(bond).indexOf(Buffer.from(v0.mac))
    bond[macAt + 5] ^= 1
    table.apply(bond)
    assert.deepEqual(changes, ['v0 9000 true true'])
  })

  it('reports MACs of neighbours when they become known or change', () => {
    const { table, changes } = startTable()
    const INTERFACE = 3
    const [ip4, ip6] = [Uint8Array.of(10, 99, 0, 9), Uint8Array.of(0xfe, 0x80, ...new Uint8Array(13), 9)]
    const notify = (type: number, address: Uint8Array, mac?: Uint8Array): void =>
      void table.apply(neighbourMessage(type, INTERFACE, address, mac))
    const mac = (last: number): Uint8Array => Uint8Array.of(2, 0, 0, 0, 0, last)
    const key = Uint8Array.from(Buffer.from(mappedHex(...ip4), 'hex'))
    notify(RTM_NEWNEIGH, ip4)
    assert.deepEqual([changes, table.neighbourOf(INTERFACE, key)], [[], undefined], 'the entry is incomplete')
    for (const last of [1, 1, 2]) notify(RTM_NEWNEIGH, ip4, mac(last))
    notify(RTM_NEWNEIGH, ip4) // without a MAC: the known one stays
    assert.equal(table.neighbourOf(INTERFACE, key), hexOf(mac(2)))
    notify(RTM_NEWNEIGH, ip6, mac(3))
    assert.deepEqual(changes, [
      `${INTERFACE} ${hexOf(key)} at ${hexOf(mac(1))}`,
      `${INTERFACE} ${hexOf(key)} at ${hexOf(mac(2))}`,
      `${INTERFACE} ${hexOf(ip6)} at ${hexOf(mac(3))}`,
    ])
    notify(RTM_DELNEIGH, ip4, mac(2))
    assert.deepEqual([table.neighbourOf(INTERFACE, key), table.neighbourOf(INTERFACE, ip6)], [undefined, hexOf(mac(3))])
    table.begin()
    notify(RTM_NEWNEIGH, ip6, mac(3))
    table.end()
    assert.equal(table.neighbourOf(INTERFACE, ip6), hexOf(mac(3)), 'the dump lists the neighbour')
    table.begin()
    table.end()
    assert.equal(table.neighbourOf(INTERFACE, ip6), undefined, 'the dump does not list the neighbour')
  })

  it('reports each change once, in order', () => {
    const { change, table, v0 } = startTable()
    const linkLocal = hexOf(table.addresses(v0.index)[1])
    assert.deepEqual(change('add-ipv4'), [`+${mappedHex(10, 99, 0, 7)}`])
    assert.deepEqual(change('add-ipv4'), [], 'the address is known')
    assert.deepEqual(change('add-ipv6'), ['+fd990000000000000000000000000007'])
    assert.deepEqual(change('mtu'), ['v0 9000 true true'])
    assert.deepEqual(change('delete-ipv4'), [`-${mappedHex(10, 99, 0, 7)}`])
    assert.deepEqual(change('peer-down'), ['v0 9000 true false'])
    assert.deepEqual(change('peer-up'), ['v0 9000 true true'])
    const down = change('down')
    assert.deepEqual(down.slice().sort(), [`-fd990000000000000000000000000007`, `-${linkLocal}`, 'v0 9000 false false'])
    // The new link-local address is absent until duplicate address detection has finished.
    assert.deepEqual(change('up').at(-1), 'v0 9000 true true')
    assert.deepEqual(change('point-to-point'), [`+${mappedHex(10, 1, 1, 1)}`])
    // Now duplicate address detection has finished.
    assert.deepEqual(change('bridge'), [`+${linkLocal}`])
    assert.deepEqual(change('unbridge'), [], 'leaving a bridge is not the removal of an interface')
    const changesOfRemoval = change('gone')
    assert.ok(
      changesOfRemoval.includes(`${v0.index} gone`) && changesOfRemoval.includes(`-${mappedHex(10, 99, 0, 1)}`),
      changesOfRemoval.join(', '),
    )
    assert.equal(table.links.has(v0.index), false)
    assert.deepEqual(table.addresses(v0.index), [])
  })

  it('an IPv4 address with two prefixes is present until both are removed', () => {
    const { table, changes } = startTable()
    const address = mappedHex(10, 99, 0, 7)
    const [added] = recorded.filter(({ label }) => label === 'add-ipv4')
    const [removed] = recorded.filter(({ label }) => label === 'delete-ipv4')
    /** The prefix length is byte 1 of struct ifaddrmsg, which is behind struct nlmsghdr. */
    const withPrefix = (datagram: Uint8Array, length: number): Uint8Array => {
      const bytes = datagram.slice()
      bytes[16 + 1] = length
      return bytes
    }
    table.apply(added.datagram)
    table.apply(withPrefix(added.datagram, 16))
    table.apply(removed.datagram)
    assert.deepEqual(changes, [`+${address}`])
    assert.equal(table.withAddress(Buffer.from(address, 'hex'))?.name, 'v0')
    table.apply(added.datagram)
    table.apply(withPrefix(removed.datagram, 16))
    assert.deepEqual(changes, [`+${address}`])
    table.apply(withPrefix(added.datagram, 16))
    table.apply(withPrefix(removed.datagram, 16))
    assert.deepEqual(changes, [`+${address}`], 'the prefix that was added first is left')
    table.begin()
    for (const { label, datagram } of recorded) if (label.startsWith('dump')) table.apply(datagram)
    table.end()
    assert.deepEqual(changes, [`+${address}`, `-${address}`], 'the dump does not list the address')
  })

  it('a wireless event changes neither MAC nor MTU', () => {
    const { table, changes, v0 } = startTable()
    const [IFLA_IFNAME, IFLA_WIRELESS] = [3, 11]
    const [{ datagram }] = recorded.filter(({ label }) => label === 'mtu')
    // Struct nlmsghdr and struct ifinfomsg of a link message, and other attributes.
    const event = Uint8Array.of(
      ...datagram.subarray(0, 32),
      ...attribute(IFLA_IFNAME, Buffer.from('v0\0')),
      ...attribute(IFLA_WIRELESS, new Uint8Array(16)),
    )
    new DataView(event.buffer).setUint32(0, event.length, true)
    table.apply(event)
    assert.deepEqual(changes, [])
    assert.deepEqual(table.links.get(v0.index), v0)
  })

  it('a VLAN interface has its number and the interface below', () => {
    const { table, v0 } = startTable()
    const [IFLA_IFNAME, IFLA_LINK, IFLA_LINKINFO] = [3, 5, 18]
    const [IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_VLAN_ID] = [1, 2, 1]
    const [{ datagram }] = recorded.filter(({ label }) => label === 'mtu')
    const linkOf = (kind: string) => {
      const data = Uint8Array.from(attribute(IFLA_VLAN_ID, new Uint8Array(Uint16Array.of(100).buffer)))
      const info = [...attribute(IFLA_INFO_KIND, Buffer.from(`${kind}\0`)), ...attribute(IFLA_INFO_DATA, data)]
      const message = Uint8Array.of(
        ...datagram.subarray(0, 32),
        ...attribute(IFLA_IFNAME, Buffer.from('v0.100\0')),
        ...attribute(IFLA_LINK, new Uint8Array(Uint32Array.of(v0.index).buffer)),
        ...attribute(IFLA_LINKINFO, Uint8Array.from(info)),
      )
      const view = new DataView(message.buffer)
      view.setUint32(0, message.length, true)
      view.setInt32(20, 77, true)
      table.apply(message)
      return table.links.get(77)
    }
    assert.equal(linkOf('macvlan')?.vlan, undefined)
    assert.deepEqual(linkOf('vlan')?.vlan, { id: 100, lower: v0.index })
  })

  it('finds missed changes in a new dump', () => {
    const { table, v0, changes, change } = startTable()
    change('add-ipv4')
    changes.length = 0
    const dumpOnly = (list: string): void => {
      table.begin()
      for (const { label, datagram } of recorded) if (label === list) table.apply(datagram)
      table.end()
    }
    dumpOnly('dump-links')
    assert.equal(changes.length, 3, 'the three addresses of v0 are gone')
    dumpOnly('dump-addresses')
    assert.equal(table.links.has(v0.index), false)
    assert.deepEqual(table.addresses(v0.index), [], 'an interface that is gone has no addresses')
  })

  it('accepts any bytes without an exception', () => {
    const whole = recorded.map(({ datagram }) => datagram)
    const mutated = fc
      .record({
        index: fc.nat(whole.length - 1),
        at: fc.array(fc.tuple(fc.nat(2000), fc.nat(255)), { maxLength: 8 }),
        length: fc.nat(5000),
      })
      .map(({ index, at, length }) => {
        const bytes = whole[index].slice(0, length)
        for (const [offset, value] of at) if (offset < bytes.length) bytes[offset] = value
        return bytes
      })
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 200, size: 'max' }), mutated), bytes => {
        for (const message of parseRouteMessages(bytes))
          if (message.kind === 'address') assert.equal(message.address.length, 16)
      }),
    )
  })

  it('requests dumps as rtnetlink expects', () => {
    // Length 20, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP; the family 0 is all families.
    assert.equal(Buffer.from(dumpRequest(RTM_GETADDR)).toString('hex'), '1400000016000103000000000000000000000000')
  })

  it('lists the interfaces of this system', { skip: !hasNative() && 'koffi is missing' }, t => {
    const interfaces = openInterfaces()
    if (interfaces === undefined) return t.skip('netlink is not available')
    try {
      const names = [...interfaces.links().values()].map(({ name }) => name)
      for (const name of Object.keys(networkInterfaces())) assert.ok(names.includes(name), name)
      const loopback = interfaces.withAddress(Buffer.from(mappedHex(127, 0, 0, 1), 'hex'))
      assert.ok(loopback?.isLoopback && loopback.isUp)
    } finally {
      interfaces.close()
    }
  })
})
