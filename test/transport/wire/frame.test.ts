/*
 * parseFrame and emitFrame are inverse.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { emitFrame, type Frame, type Ipv4Frame, type Ipv6Frame, parseFrame } from '../../../src/transport/wire/frame.ts'

const ipv4Frame: Ipv4Frame = {
  kind: 'ipv4',
  destinationMac: Uint8Array.of(2, 0, 0, 0, 0, 2),
  sourceMac: Uint8Array.of(2, 0, 0, 0, 0, 1),
  source: Uint8Array.of(10, 77, 0, 2),
  destination: Uint8Array.of(10, 77, 0, 3),
  sourcePort: 0xc000,
  destinationPort: 4791,
  trafficClass: 0x68,
  hopLimit: 64,
  identification: 0x1234,
  dontFragment: true,
  udpChecksum: 0,
  payload: Uint8Array.of(1, 2, 3, 4),
}
const { kind: _4, identification: _id, dontFragment: _df, ...shared } = ipv4Frame
const ipv6Frame: Ipv6Frame = {
  ...shared,
  kind: 'ipv6',
  source: Uint8Array.from({ length: 16 }, (_, i) => i),
  destination: Uint8Array.from({ length: 16 }, (_, i) => i + 16),
  flowLabel: 0xabcde,
}

test('the bytes of an IPv4 frame', () => {
  assert.equal(
    Buffer.from(emitFrame(ipv4Frame)).toString('hex'),
    '020000000002' + // destination MAC
      '020000000001' + // source MAC
      '0800' + // Ethernet type
      '4568002012344000' + // version and IHL, TOS, length, identification, DF
      '401113930a4d00020a4d0003' + // TTL, UDP, header checksum, source, destination
      'c00012b7000c0000' + // UDP: source port, destination port, length, checksum
      '01020304', // payload
  )
})

test('the bytes of an IPv6 frame', () => {
  assert.equal(
    Buffer.from(emitFrame(ipv6Frame)).toString('hex'),
    '020000000002' + // destination MAC
      '020000000001' + // source MAC
      '86dd' + // Ethernet type
      '668abcde000c1140' + // version, traffic class, flow label; length, UDP, hop limit
      '000102030405060708090a0b0c0d0e0f' + // source
      '101112131415161718191a1b1c1d1e1f' + // destination
      'c00012b7000c0000' + // UDP: source port, destination port, length, checksum
      '01020304', // payload
  )
})

const trailer = fc.option(fc.uint8Array({ minLength: 1, maxLength: 20, size: 'max' }), { nil: undefined })
const variations = fc.record({
  payload: fc.uint8Array({ maxLength: 100, size: 'max' }),
  trafficClass: fc.integer({ min: 0, max: 255 }),
  hopLimit: fc.integer({ min: 0, max: 255 }),
  udpChecksum: fc.integer({ min: 0, max: 0xffff }),
  sourcePort: fc.integer({ min: 0, max: 0xffff }),
})

test('record → bytes → record', () => {
  fc.assert(
    fc.property(variations, trailer, fc.boolean(), fc.nat({ max: 0xfffff }), (changes, after, isIpv4, number) => {
      const frame: Frame = {
        ...(isIpv4
          ? { ...ipv4Frame, identification: number & 0xffff, dontFragment: number % 2 === 0 }
          : { ...ipv6Frame, flowLabel: number }),
        ...changes,
        ...(after !== undefined && { trailer: after }),
      }
      assert.deepEqual(parseFrame(emitFrame(frame)), frame)
    }),
  )
})

test('bytes → record → bytes, for frames with a byte changed or the end cut off', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(ipv4Frame, ipv6Frame),
      fc.nat(),
      fc.nat({ max: 255 }),
      fc.nat({ max: 70 }),
      (frame, at, value, cut) => {
        const bytes = emitFrame(frame)
        bytes[at % bytes.length] = value
        assert.deepEqual(emitFrame(parseFrame(bytes)), bytes)
        const shorter = bytes.slice(0, Math.max(0, bytes.length - cut))
        assert.deepEqual(emitFrame(parseFrame(shorter)), shorter)
      },
    ),
  )
})

test('an IPv4 address may be written as ::ffff:a.b.c.d', () => {
  const mapped = (address: Uint8Array) => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...address)
  const { source, destination } = ipv4Frame
  const frame = { ...ipv4Frame, source: mapped(source), destination: mapped(destination) }
  assert.deepEqual(emitFrame(frame), emitFrame(ipv4Frame))
})

test('an opaque frame has the reason', () => {
  const reasonOf = (frame: Frame, change: (bytes: Uint8Array) => Uint8Array): string => {
    const parsed = parseFrame(change(emitFrame(frame)))
    assert.ok(parsed.kind === 'opaque')
    return parsed.reason
  }
  const set =
    (at: number, ...values: number[]) =>
    (bytes: Uint8Array): Uint8Array => {
      bytes.set(values, at)
      return bytes
    }
  const [ETHERNET_TYPE, IPV4_FLAGS, IPV6_LENGTH, IPV6_NEXT_HEADER, IPV6_UDP_LENGTH] = [12, 20, 18, 20, 58]
  const [IP_VERSION, TOS] = [14, 15]
  assert.equal(
    reasonOf(ipv4Frame, bytes => bytes.slice(0, 13)),
    'shorter than an Ethernet header',
  )
  assert.equal(
    reasonOf(ipv4Frame, bytes => bytes.slice(0, 33)),
    'shorter than its IP header',
  )
  assert.equal(
    reasonOf(ipv4Frame, bytes => bytes.slice(0, 45)),
    'shorter than its IP length',
  )
  assert.equal(reasonOf(ipv4Frame, set(ETHERNET_TYPE, 0x08, 0x06)), 'Ethernet type 0x0806')
  assert.equal(reasonOf(ipv4Frame, set(IP_VERSION, 0x46)), 'IPv4 options')
  assert.equal(reasonOf(ipv4Frame, set(IP_VERSION, 0x65)), 'IP version 6')
  assert.equal(reasonOf(ipv4Frame, set(TOS, 0x69)), 'IPv4 header checksum')
  // DF and MF, TTL, UDP and the right header checksum
  assert.equal(reasonOf(ipv4Frame, set(IPV4_FLAGS, 0x60, 0x00, 0x40, 0x11, 0xf3, 0x92)), 'IPv4 fragment')
  assert.equal(reasonOf(ipv6Frame, set(IPV6_NEXT_HEADER, 6)), 'IP protocol 6')
  assert.equal(reasonOf(ipv6Frame, set(IPV6_UDP_LENGTH, 0, 11)), 'UDP length')
  // Both lengths are 7: less than a UDP header.
  assert.equal(
    reasonOf(ipv6Frame, bytes => set(IPV6_LENGTH, 0, 7)(set(IPV6_UDP_LENGTH, 0, 7)(bytes))),
    'UDP length',
  )
})

test('a header checksum of 0xffff, which no sender emits, counts as wrong', () => {
  const bytes = emitFrame({ ...ipv4Frame, identification: 0 })
  const view = new DataView(bytes.buffer)
  const [IDENTIFICATION, HEADER_CHECKSUM] = [18, 24]
  // with this identification the sum of all other words is 0xffff, so the correct checksum is 0
  view.setUint16(IDENTIFICATION, view.getUint16(HEADER_CHECKSUM))
  view.setUint16(HEADER_CHECKSUM, 0)
  assert.equal(parseFrame(bytes).kind, 'ipv4')
  view.setUint16(HEADER_CHECKSUM, 0xffff)
  assert.equal(parseFrame(bytes).kind, 'opaque')
  assert.deepEqual(emitFrame(parseFrame(bytes)), bytes)
})

test('a record that does not fit is refused with field, value and range', () => {
  assert.throws(
    () => emitFrame({ ...ipv4Frame, hopLimit: 256 }),
    /hopLimit is 256, allowed is an integer from 0 to 255/,
  )
  assert.throws(() => emitFrame({ ...ipv4Frame, trafficClass: 256 }), /trafficClass is 256/)
  assert.throws(() => emitFrame({ ...ipv4Frame, destination: new Uint8Array(5) }), /destination has 5 bytes/)
  assert.throws(() => emitFrame({ ...ipv4Frame, sourceMac: new Uint8Array(5) }), /sourceMac has 5 bytes, allowed is 6/)
  assert.throws(() => emitFrame({ ...ipv6Frame, source: new Uint8Array(4) }), /source has 4 bytes, allowed is 16/)
  assert.throws(
    () => emitFrame({ ...ipv4Frame, source: ipv6Frame.source }),
    /source has 16 bytes, allowed is 4/,
    'an address that is not ::ffff:a.b.c.d',
  )
  assert.throws(() => emitFrame({ ...ipv6Frame, flowLabel: 1 << 20 }), /flowLabel is 1048576/)
  assert.throws(() => emitFrame({ ...ipv4Frame, identification: -1 }), /identification is -1/)
  assert.throws(() => emitFrame({ ...ipv4Frame, identification: 1 << 16 }), /identification is 65536/)
  assert.throws(() => emitFrame({ ...ipv4Frame, payload: new Uint8Array(65_508) }), /length field is 65536/)
})
