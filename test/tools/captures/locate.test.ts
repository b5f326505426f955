/*
 * Transport packets are found in all link types and tunnels, and other packets are counted by kind. A capture of
 * Linux (test/fixtures/wire) is wrapped in each of them; the causes and queue pairs must stay those of the plain
 * capture.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LinkType } from '../../../src/spec/wire/captures.ts'
import { type CapturedPacket, packetsOf } from '../../../src/tools/captures/file.ts'
import { packetKinds } from '../../../src/tools/captures/locate.ts'
import { analyse, causesIn, knownCapture, packetsOfFixture, pcapOf, randomOf } from './build.ts'

const bytesOf = (...values: number[]): Uint8Array => Uint8Array.from(values)
const join = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts))
const u16 = (value: number): Uint8Array => bytesOf(value >> 8, value & 255)
const MACS = 12

type Wrap = (frame: Uint8Array) => Uint8Array
const payloadOf: Wrap = frame => frame.subarray(14)
const typeOf: Wrap = frame => frame.subarray(12, 14)
const outerIp = (protocol: number, payload: Uint8Array): Uint8Array => {
  const header = bytesOf(0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
  new DataView(header.buffer).setUint16(2, 20 + payload.length)
  return join(new Uint8Array(MACS), bytesOf(8, 0), header, payload)
}
const ethernet = (type: number, payload: Uint8Array): Uint8Array => join(new Uint8Array(MACS), u16(type), payload)
const udp = (port: number, payload: Uint8Array): Uint8Array =>
  join(u16(50_000), u16(port), u16(8 + payload.length), u16(0), payload)
const gre = (flags: number, type: number, ...rest: Uint8Array[]): Uint8Array =>
  outerIp(47, join(u16(flags), u16(type), ...rest))
const tag = (type: number, id: number, frame: Uint8Array): Uint8Array =>
  join(frame.subarray(0, MACS), u16(type), u16(id), frame.subarray(MACS))
const SEQUENCE = bytesOf(0, 0, 0, 9)
/** An ERF record of type Ethernet with an extension header. */
const erf: Wrap = frame => {
  const record = join(new Uint8Array(16), new Uint8Array(8), bytesOf(0, 0), frame, new Uint8Array(4))
  const view = new DataView(record.buffer)
  view.setUint32(4, 1_700_000_000, true)
  view.setUint8(8, 0x82)
  view.setUint16(10, record.length)
  view.setUint16(14, frame.length + 4)
  return record
}

const wraps: Readonly<Record<string, readonly [linkType: number, wrap: Wrap]>> = {
  VLAN: [LinkType.ETHERNET, frame => tag(0x8100, 5, frame)],
  QinQ: [LinkType.ETHERNET, frame => tag(0x88a8, 7, tag(0x8100, 5, frame))],
  'Linux cooked': [LinkType.LINUX_COOKED, frame => join(new Uint8Array(14), typeOf(frame), payloadOf(frame))],
  'Linux cooked v2': [LinkType.LINUX_COOKED_V2, frame => join(typeOf(frame), new Uint8Array(18), payloadOf(frame))],
  'raw IP': [LinkType.RAW, payloadOf],
  VXLAN: [LinkType.ETHERNET, frame => outerIp(17, udp(4789, join(bytesOf(8, 0, 0, 0, 0, 0, 42, 0), frame)))],
  'VXLAN at 8472, Linux’s own port': [
    LinkType.ETHERNET,
    frame => outerIp(17, udp(8472, join(bytesOf(8, 0, 0, 0, 0, 0, 42, 0), frame))),
  ],
  GENEVE: [LinkType.ETHERNET, frame => outerIp(17, udp(6081, join(bytesOf(0, 0, 0x65, 0x58, 0, 0, 42, 0), frame)))],
  'GENEVE with options and IP': [
    LinkType.ETHERNET,
    frame =>
      outerIp(
        17,
        udp(6081, join(bytesOf(2, 0), typeOf(frame), bytesOf(0, 0, 42, 0), new Uint8Array(8), payloadOf(frame))),
      ),
  ],
  MPLS: [LinkType.ETHERNET, frame => ethernet(0x8847, join(bytesOf(0, 1, 0, 64, 0, 2, 1, 64), payloadOf(frame)))],
  'MPLS with Ethernet and a control word': [
    LinkType.ETHERNET,
    frame => ethernet(0x8847, join(bytesOf(0, 2, 1, 64, 0, 0, 0, 0), frame)),
  ],
  'MPLS with Ethernet': [LinkType.ETHERNET, frame => ethernet(0x8848, join(bytesOf(0, 2, 1, 64), frame))],
  'MPLS in UDP': [LinkType.ETHERNET, frame => outerIp(17, udp(6635, join(bytesOf(0, 2, 1, 64), payloadOf(frame))))],
  'IP in IP': [LinkType.ETHERNET, frame => outerIp(frame[12] === 8 ? 4 : 41, payloadOf(frame))],
  'IP in IPv6': [
    LinkType.ETHERNET,
    frame => {
      const header = new Uint8Array(40)
      const view = new DataView(header.buffer)
      view.setUint32(0, 0x6000_0000)
      view.setUint16(4, payloadOf(frame).length)
      header.set([frame[12] === 8 ? 4 : 41, 64, 0xfd], 6)
      header[24] = 0xfd
      return ethernet(0x86dd, join(header, payloadOf(frame)))
    },
  ],
  'GRE with IP': [LinkType.ETHERNET, frame => gre(0, 0x0800, payloadOf(frame))],
  'GRE with a key and Ethernet': [LinkType.ETHERNET, frame => gre(0x2000, 0x6558, bytesOf(0, 0, 0, 1), frame)],
  'ERSPAN I': [LinkType.ETHERNET, frame => gre(0, 0x88be, frame)],
  'ERSPAN II': [LinkType.ETHERNET, frame => gre(0x1000, 0x88be, SEQUENCE, bytesOf(0x10, 5, 0, 9, 0, 0, 0, 1), frame)],
  'ERSPAN III': [LinkType.ETHERNET, frame => gre(0x1000, 0x22eb, SEQUENCE, new Uint8Array(12), frame)],
  'ERSPAN III with a platform header': [
    LinkType.ETHERNET,
    frame => gre(0x1000, 0x22eb, SEQUENCE, new Uint8Array(11), bytesOf(1), new Uint8Array(8), frame),
  ],
}

for (const [name, [linkType, wrap]] of Object.entries(wraps)) {
  test(`${name}: packets are those of the plain capture`, () => {
    for (const capture of ['nak_access_write', 'atomics_ipv6', 'rping_reject', 'healthy-udp-gso']) {
      const all = capture === 'healthy-udp-gso' ? packetsOf(knownCapture(capture)).packets : packetsOfFixture(capture)
      // Only IP can be within IP.
      const packets = all.filter(({ bytes }) => {
        if (/GRE with IP$/.test(name)) return bytes[12] === 8 && bytes[13] === 0
        return !/IP$|^MPLS$|MPLS in UDP|^IP in|raw IP/.test(name) || bytes[13] !== 6
      })
      const wrapped = packets.map((packet): CapturedPacket => {
        const bytes = wrap(packet.bytes)
        return { ...packet, bytes, length: bytes.length }
      })
      const plain = analyse(pcapOf(packets))
      const found = analyse(pcapOf(wrapped, { linkType }), 777)
      assert.deepEqual([...found.kinds], [...plain.kinds], capture)
      assert.deepEqual(
        found.flows.map(({ qpn, packets: count, icrcWrong, messageBytes }) => [qpn, count, icrcWrong, messageBytes]),
        plain.flows.map(({ qpn, packets: count, messageBytes }) => [qpn, count, 0, messageBytes]),
      )
      assert.deepEqual(causesIn(pcapOf(wrapped, { linkType })), causesIn(pcapOf(packets)))
    }
  })
}

test('ERF: a file of records, and records as a link type of pcap', () => {
  const packets = packetsOfFixture('nak_access_write')
  const file = join(...packets.map(({ bytes }) => erf(bytes)))
  const analysis = analyse(file, 100)
  assert.equal(analysis.reader.format, 'ERF')
  assert.equal(analysis.reader.damage, undefined)
  assert.equal(analysis.kinds[0], packets.length)
  assert.deepEqual(causesIn(file), ['remote-access'])
  const inPcap = packets.map(packet => {
    const bytes = erf(packet.bytes)
    return { ...packet, bytes, length: bytes.length }
  })
  assert.deepEqual(causesIn(pcapOf(inPcap, { linkType: LinkType.ERF })), ['remote-access'])
})

/** The packet behind the UDP header, with the global route header of its addresses. */
const withGrh: Wrap = frame => {
  const transport = frame.subarray(42, 14 + new DataView(frame.buffer, frame.byteOffset).getUint16(16))
  const header = new Uint8Array(40)
  const view = new DataView(header.buffer)
  view.setUint32(0, 0x6000_0000)
  view.setUint16(4, transport.length)
  header[6] = 0x1b
  header.set([0xfe, 0x80], 8)
  header.set(frame.subarray(26, 30), 20)
  header.set([0xfe, 0x80], 24)
  header.set(frame.subarray(30, 34), 36)
  return join(header, transport)
}

test('RoCEv1, and InfiniBand with and without a global route header', () => {
  const packets = packetsOfFixture('nak_access_write').filter(({ bytes }) => bytes[12] === 8 && bytes[13] === 0)
  const withBytes = (wrap: Wrap): CapturedPacket[] =>
    packets.map(packet => {
      const bytes = wrap(packet.bytes)
      return { ...packet, bytes, length: bytes.length }
    })
  const roce1 = pcapOf(withBytes(frame => join(frame.subarray(0, MACS), u16(0x8915), withGrh(frame))))
  assert.equal(analyse(roce1).kinds[1], packets.length)
  assert.deepEqual(causesIn(roce1), ['remote-access'])
  const lrh = (next: number, frame: Uint8Array, length: number): Uint8Array =>
    join(bytesOf(0, next), frame.subarray(32, 34), u16((8 + length) / 4), frame.subarray(28, 30))
  const routed = pcapOf(
    withBytes(frame => join(lrh(3, frame, withGrh(frame).length), withGrh(frame), bytesOf(0, 0))),
    { linkType: LinkType.INFINIBAND },
  )
  assert.deepEqual(causesIn(routed), ['remote-access'])
  const local = pcapOf(
    withBytes(frame => join(lrh(2, frame, withGrh(frame).length - 40), withGrh(frame).subarray(40), bytesOf(0, 0))),
    { linkType: LinkType.INFINIBAND },
  )
  const analysis = analyse(local)
  assert.deepEqual(causesIn(local), ['remote-access'])
  assert.match(analysis.addresses.text(analysis.flows[0].source), /^LID \d+$/)
})

test('other packets are counted by kind', () => {
  const frame = packetsOfFixture('send_bw').find(({ bytes }) => bytes[12] === 8)!.bytes
  const changed = (at: number, ...values: number[]): Uint8Array => {
    const bytes = Uint8Array.from(frame)
    bytes.set(values, at)
    return bytes
  }
  const others: Readonly<Record<string, Uint8Array>> = {
    ARP: changed(12, 8, 6),
    'another EtherType': changed(12, 0x88, 0xcc),
    TCP: changed(23, 6),
    'UDP at other ports': changed(36, 0, 53),
    ICMP: changed(23, 1),
    'another IP protocol': changed(23, 89),
    'IP fragments after the first': changed(20, 0, 5),
    'malformed IP': changed(14, 0x42),
    'cut off before the transport header': frame.subarray(0, 40),
  }
  for (const [kind, bytes] of Object.entries(others)) {
    const { kinds } = analyse(pcapOf([{ time: 0n, linkType: 1, bytes, length: bytes.length }]))
    assert.equal(kinds[packetKinds.indexOf(kind as (typeof packetKinds)[number])], 1, kind)
  }
  const unknown = analyse(pcapOf([{ time: 0n, linkType: 1, bytes: frame, length: frame.length }], { linkType: 105 }))
  assert.equal(unknown.kinds[packetKinds.indexOf('an unknown link type')], 1)
})

test('frames within frames without end are told, and end nothing', () => {
  const [{ bytes: frame }] = packetsOfFixture('nak_access_write')
  const ethernets = new Uint8Array(14 * 100_000 + frame.length)
  for (let at = 12; at < 14 * 100_000; at += 14) ethernets.set([0x65, 0x58], at)
  ethernets.set(frame, 14 * 100_000)
  const headers = new Uint8Array(14 + 20 * 100_000)
  headers.set([8, 0], 12)
  for (let at = 14; at < headers.length; at += 20) {
    headers[at] = 0x45
    headers[at + 9] = 4
  }
  for (const bytes of [ethernets, headers]) {
    const packet: CapturedPacket = { time: 0n, linkType: 1, bytes, length: bytes.length }
    const { kinds } = analyse(pcapOf([packet], { snap: 1 << 24 }))
    assert.equal(kinds[packetKinds.indexOf('tunnels within tunnels')], 1)
  }
})

test('2,000 damaged captures are read without an exception, and end', () => {
  const seeds = ['inject', 'rping', 'atomics_ipv6', 'loss_read_responses', 'cm_loss_at_server'].map(name =>
    pcapOf(packetsOfFixture(name)),
  )
  const wrapped = Object.values(wraps).map(([linkType, wrap]) =>
    pcapOf(
      packetsOfFixture('cm_connect').map(packet => ({ ...packet, bytes: wrap(packet.bytes) })),
      { linkType },
    ),
  )
  const all = [...seeds, ...wrapped, join(...packetsOfFixture('rping').map(({ bytes }) => erf(bytes)))]
  const random = randomOf(69)
  for (let i = 0; i < 2000; i++) {
    const file = Uint8Array.from(all[i % all.length])
    for (let changes = 1 + Math.floor(random() * 12); changes > 0; changes--)
      file[Math.floor(random() * file.length)] = Math.floor(random() * 256)
    causesIn(file.subarray(0, Math.ceil(random() * file.length)))
  }
})
