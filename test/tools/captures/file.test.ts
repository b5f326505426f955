/*
 * CaptureReader, with capture files made by hand.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { packetsOf } from '../../../src/tools/captures/file.ts'
import { readCapture } from '../../captures.ts'

type Order = 'LE' | 'BE'
const u32 = (order: Order, ...values: number[]): Buffer => {
  const buffer = Buffer.alloc(values.length * 4)
  for (const [i, value] of values.entries()) buffer[`writeUInt32${order}`](value, i * 4)
  return buffer
}
const u16 = (order: Order, ...values: number[]): Buffer => {
  const buffer = Buffer.alloc(values.length * 2)
  for (const [i, value] of values.entries()) buffer[`writeUInt16${order}`](value, i * 2)
  return buffer
}
const block = (order: Order, type: number, ...parts: Buffer[]): Buffer => {
  const body = Buffer.concat(parts)
  const padded = Buffer.concat([body, Buffer.alloc(-body.length & 3)])
  return Buffer.concat([u32(order, type, padded.length + 12), padded, u32(order, padded.length + 12)])
}
const data = Buffer.from('hello')
/** Types of pcapng blocks. */
const [SECTION_HEADER, INTERFACE, SIMPLE_PACKET, ENHANCED_PACKET] = [0x0a0d_0d0a, 1, 3, 6]
/** The options with the time unit of an interface, and with the seconds that are added to its times. */
const [IF_TSRESOL, IF_TSOFFSET] = [9, 14]
/** Other options: the end, a comment, and the bits per second of an interface. */
const [END_OF_OPTIONS, COMMENT, IF_SPEED] = [0, 1, 8]
const sectionHeader = (order: Order): Buffer =>
  block(order, SECTION_HEADER, u32(order, 0x1a2b_3c4d), u16(order, 1, 0), u32(order, 0xffff_ffff, 0xffff_ffff))

for (const order of ['LE', 'BE'] as const) {
  test(`pcap, ${order}: times in microseconds or nanoseconds; truncated files are refused`, () => {
    for (const [magic, unit] of [
      [0xa1b2_c3d4, 1000n],
      [0xa1b2_3c4d, 1n],
    ] as const) {
      const head = Buffer.concat([u32(order, magic), u16(order, 2, 4), u32(order, 0, 0, 65_535, 1)])
      const record = Buffer.concat([u32(order, 1_700_000_000, 25, 5, 9), data])
      const file = Buffer.concat([head, record, record])
      const wanted = {
        time: 1_700_000_000_000_000_000n + 25n * unit,
        linkType: 1,
        bytes: new Uint8Array(data),
        length: 9,
      }
      assert.deepEqual(readCapture(file), [wanted, wanted])
      // at the second record
      assert.throws(() => readCapture(file.subarray(0, -1)), /damaged at byte 45/)
      // in the header
      assert.throws(() => readCapture(file.subarray(0, 20)), /damaged at byte 0/)
      assert.throws(() => readCapture(file.subarray(0, 34)), /damaged at byte 24/)
      assert.deepEqual(readCapture(head), [], 'no packets')
      assert.equal(readCapture(Buffer.concat([head, u32(order, 0, 0, 0, 9)])).length, 1, 'a packet without bytes')
    }
  })

  test(`pcapng, ${order}: the shortest blocks`, () => {
    const section = sectionHeader(order)
    const plain = block(order, INTERFACE, u16(order, 1, 0), u32(order, 0))
    assert.deepEqual(readCapture(section), [])
    assert.deepEqual(readCapture(Buffer.concat([section, plain])), [])
    const packets = [
      block(order, ENHANCED_PACKET, u32(order, 0, 0, 0, 0, 9)),
      block(order, SIMPLE_PACKET, u32(order, 0)),
      block(order, 0xbad),
    ]
    assert.deepEqual(
      readCapture(Buffer.concat([section, plain, ...packets])).map(({ bytes, length }) => [bytes.length, length]),
      [
        [0, 9],
        [0, 0],
      ],
    )
    assert.throws(() => readCapture(Buffer.concat([section, Buffer.alloc(4)])), /damaged at byte 28/)
    assert.throws(() => readCapture(Buffer.concat([section, packets[1]!])), /damaged at byte 28/, 'no interface')
  })

  test(`pcapng, ${order}: options that do not set times, and options after the end, are skipped`, () => {
    const resolution = (exponent: number): Buffer =>
      Buffer.concat([u16(order, IF_TSRESOL, 1), Buffer.of(exponent, 0, 0, 0)])
    const timeOf = (...options: Buffer[]): bigint | undefined => {
      const described = block(order, INTERFACE, u16(order, 1, 0), u32(order, 0), ...options)
      const packet = block(order, ENHANCED_PACKET, u32(order, 0, 0, 1000, 0, 0))
      return readCapture(Buffer.concat([sectionHeader(order), described, packet]))[0]!.time
    }
    const seven = order === 'LE' ? u32(order, 7, 0) : u32(order, 0, 7)
    assert.equal(timeOf(u16(order, COMMENT, 3), Buffer.from('abc\0'), resolution(9)), 1000n)
    assert.equal(timeOf(u16(order, IF_SPEED, 8), seven), 1_000_000n)
    assert.equal(timeOf(u16(order, IF_TSOFFSET, 8), seven), 7_001_000_000n)
    assert.equal(timeOf(resolution(9), u16(order, END_OF_OPTIONS, 0), resolution(3)), 1000n)
    assert.equal(timeOf(u16(order, IF_TSOFFSET, 8), Buffer.alloc(4, 1)), 1_000_000n, 'longer than its block')
  })

  test(`pcapng, ${order}: sections, interfaces with time units, packets with and without time; damaged blocks are refused`, () => {
    const section = sectionHeader(order)
    // A snaplen of 4: a SIMPLE_PACKET of this interface has at most 4 bytes.
    const plain = block(order, INTERFACE, u16(order, 1, 0), u32(order, 4))
    const nano = block(
      order,
      INTERFACE,
      u16(order, 113, 0),
      u32(order, 0),
      u16(order, IF_TSRESOL, 1),
      Buffer.of(9, 0, 0, 0),
      u32(order, 0),
    )
    const binary = block(
      order,
      INTERFACE,
      u16(order, 1, 0),
      u32(order, 0),
      u16(order, IF_TSRESOL, 1),
      Buffer.of(0x8a, 0, 0, 0),
    )
    const later = block(
      order,
      INTERFACE,
      u16(order, 1, 0),
      u32(order, 0),
      u16(order, IF_TSOFFSET, 8),
      order === 'LE' ? u32(order, 7, 0) : u32(order, 0, 7),
      // A resolution without a value, and the end.
      u16(order, IF_TSRESOL, 0, 0, 0),
    )
    const packet = (from: number): Buffer => block(order, ENHANCED_PACKET, u32(order, from, 1, 1024, 5, 5), data)
    const simple = block(order, SIMPLE_PACKET, u32(order, 5), data.subarray(0, 4))
    const unknown = block(order, 0xbad, u32(order, 1, 2, 3))
    const file = Buffer.concat([
      section,
      plain,
      nano,
      unknown,
      binary,
      later,
      packet(0),
      packet(1),
      packet(2),
      packet(3),
      simple,
      section,
    ])
    const ticks = (1n << 32n) + 1024n
    assert.deepEqual(readCapture(file), [
      { time: ticks * 1000n, linkType: 1, bytes: new Uint8Array(data), length: 5 },
      { time: ticks, linkType: 113, bytes: new Uint8Array(data), length: 5 },
      { time: (ticks * 1_000_000_000n) / 1024n, linkType: 1, bytes: new Uint8Array(data), length: 5 },
      { time: ticks * 1000n + 7_000_000_000n, linkType: 1, bytes: new Uint8Array(data), length: 5 },
      { linkType: 1, bytes: new Uint8Array(data.subarray(0, 4)), length: 5 },
    ])
    // The section, of 28 bytes, has no interface 0.
    assert.throws(() => readCapture(Buffer.concat([section, packet(0)])), /damaged at byte 28/)
    assert.throws(() => readCapture(file.subarray(0, file.length - 4)), /damaged/)
    // A section has its own interfaces.
    assert.throws(() => readCapture(Buffer.concat([section, plain, section, packet(0)])), /damaged/)
    const damagedBlocks = {
      'a length below 12': Buffer.concat([u32(order, 5, 8), Buffer.alloc(8)]),
      'a length that is no multiple of 4': Buffer.concat([u32(order, 5, 14), Buffer.alloc(6)]),
      'an interface without a link type': block(order, INTERFACE, Buffer.alloc(0)),
      'a packet without a length': block(order, ENHANCED_PACKET, u32(order, 0, 0)),
      'a packet longer than its block': block(order, ENHANCED_PACKET, u32(order, 0, 0, 0, 9, 9), data),
      'a simple packet without a length': block(order, SIMPLE_PACKET, Buffer.alloc(0)),
      'a simple packet longer than its block': block(order, SIMPLE_PACKET, u32(order, 9)),
    }
    for (const [mistake, damagedBlock] of Object.entries(damagedBlocks))
      assert.throws(() => readCapture(Buffer.concat([section, plain, damagedBlock])), /damaged at byte 48/, mistake)
  })
}

test('pcapng: a time beyond those that doubles have is still whole nanoseconds', () => {
  const file = Buffer.concat([
    sectionHeader('LE'),
    block('LE', INTERFACE, u16('LE', 1, 0), u32('LE', 0)),
    ...[0x4f49_4591, 0xffff_ffff].map(high =>
      block('LE', ENHANCED_PACKET, u32('LE', 0, high, 0x89ab_cdef, data.length, data.length), data),
    ),
  ])
  assert.deepEqual(
    readCapture(file).map(({ time }) => time),
    [0x4f49_4591n, 0xffff_ffffn].map(high => 1000n * ((high << 32n) | 0x89ab_cdefn)),
  )
})

test('a file of another format is refused', () => {
  assert.throws(
    () => readCapture(Buffer.from('#!/bin/sh\necho hello')),
    /neither a pcap, a pcapng nor an ERF file: it begins with 0x23212f62/,
  )
  assert.throws(() => readCapture(new Uint8Array(16)), /neither a pcap, a pcapng nor an ERF file/)
  assert.throws(() => readCapture(new Uint8Array(11)), /not a capture file: it has 11 bytes/)
  assert.throws(() => readCapture(new Uint8Array(3)), /not a capture file: it has 3 bytes/)
  assert.throws(() => readCapture(new Uint8Array(0)), /the file is empty/)
})

test('ERF has no mark: text, random bytes and a first record that is not whole are no ERF', () => {
  const isNone = (file: Uint8Array): boolean => {
    const { packets, damage } = packetsOf(file)
    return packets.length === 0 && /neither a pcap, a pcapng nor an ERF file/.test(damage?.reason ?? '')
  }
  const repeated = (text: string): Uint8Array => Buffer.from(text.repeat(300_000 / text.length))
  for (const text of [
    '0',
    'time (s) 0 rate 0\n',
    '\t0',
    'a,b,c,d,0,0\n0,0,0\n',
    '中文说明，没有捕获',
    'для\u00a0чтения ',
  ])
    for (const file of [repeated(text), repeated(text).subarray(0, 1024), repeated(text).subarray(0, 16)])
      assert.ok(isNone(file), text)
  // From a generator, so that each run has the same bytes.
  let state = 1
  for (let file = 0; file < 5000; file++) {
    const bytes = new Uint8Array(1024)
    for (let i = 0; i < bytes.length; i++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      bytes[i] = state >>> 24
    }
    assert.ok(isNone(bytes), `${file}`)
  }
  const record = (size: number, type = 2): Buffer => {
    const bytes = Buffer.alloc(size)
    bytes.writeUInt32LE(1_700_000_000, 4)
    bytes.writeUInt8(type, 8)
    bytes.writeUInt16BE(size, 10)
    bytes.writeUInt16BE(size - 14, 14)
    return bytes
  }
  assert.ok(isNone(record(80).subarray(0, 79)))
  const [one, padding] = [record(80), record(32, 48)]
  const count = (file: Uint8Array) => packetsOf(file).packets.length
  assert.deepEqual([count(one), count(Buffer.concat([one, padding, one, one]))], [1, 3])
  assert.match(packetsOf(Buffer.concat([one, one.subarray(0, 79)])).damage?.reason ?? '', /ends within a record/)
})

test('a pcapng file without its byte order, and a pcap file without its header, are no captures', () => {
  const text = Buffer.from('\n\r\r\n and further lines of a text')
  assert.throws(() => readCapture(text), /neither a pcap, a pcapng nor an ERF file: it begins with 0x0a0d0d0a/)
  assert.throws(() => readCapture(u32('LE', 0xa1b2_c3d4, 4, 0, 0, 65_535)), /ends within its header, after 20 bytes/)
})
