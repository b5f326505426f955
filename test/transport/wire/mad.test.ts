/*
 * Messages of communication management are parsed and emitted.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { CmPortSpace } from '../../../src/spec/enums.ts'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import {
  type CmMessageName,
  cmMessages,
  GSI_QKEY,
  GSI_QPN,
  MAD_BYTES,
  rdmaCmHeader,
  rejReason,
} from '../../../src/spec/wire/mad.ts'
import { parseFrame } from '../../../src/transport/wire/frame.ts'
import {
  type CmDraft,
  type CmMessage,
  emitCm,
  emitRdmaCmHeader,
  parseCm,
  parseRdmaCmHeader,
  rdmaCmServiceId,
  viewCm,
} from '../../../src/transport/wire/mad/mad.ts'
import { parsePacket } from '../../../src/transport/wire/packet.ts'
import { readCapture } from '../../captures.ts'
import { fixture } from '../../paths.ts'

/** The Q_Key of rdma_cm's datagrams. */
const RDMA_UDP_QKEY = 0x0123_4567

/** The payloads of all packets to queue pair 1 of a capture. */
const madsOf = (file: string): Uint8Array[] =>
  readCapture(readFileSync(fixture('wire', file))).flatMap(({ bytes }) => {
    const frame = parseFrame(bytes)
    if (frame.kind === 'opaque' || frame.destinationPort !== ROCE_UDP_PORT) return []
    const packet = parsePacket(frame.payload)
    if (packet.kind === 'opaque' || packet.name !== 'UD_SEND_ONLY' || packet.BTH.destQp !== GSI_QPN) return []
    assert.equal(packet.DETH.qkey, GSI_QKEY)
    return [packet.payload]
  })

type Named<N> = Extract<CmMessage, { name: N }>
const only = <N extends CmMessageName>(messages: readonly CmMessage[], name: N): Named<N> => {
  const found = messages.filter((message): message is Named<N> => message.name === name)
  assert.equal(found.length, 1, name)
  return found[0]
}

const messagesOf = (file: string): CmMessage[] => madsOf(file).map(mad => parseCm(mad)!)
const names = Object.keys(cmMessages) as CmMessageName[]

describe('captures of Linux', () => {
  test('every MAD is a message, and is emitted as the same bytes', () => {
    const seen = new Set<string>()
    for (const file of readdirSync(fixture('wire')).filter(name => name.endsWith('.pcap'))) {
      for (const mad of madsOf(file)) {
        const message = parseCm(mad)
        assert.ok(message, file)
        seen.add(message.name)
        assert.deepEqual(emitCm(message), mad, `${file}: ${message.name}`)
      }
    }
    assert.deepEqual([...seen].sort(), ['DREP', 'DREQ', 'REJ', 'REP', 'REQ', 'RTU', 'SIDR_REP', 'SIDR_REQ'])
  })

  test('ucmatose: a connection from REQ to DREP', () => {
    const messages = messagesOf('ucmatose.pcap')
    assert.deepEqual(
      messages.map(({ name }) => name),
      ['REQ', 'REP', 'RTU', 'DREQ', 'DREP'],
    )
    const req = only(messages, 'REQ')
    const rep = only(messages, 'REP')
    assert.equal(req.pkey, 0xffff)
    assert.equal(req.hopLimit, 64)
    assert.equal(req.maxCmRetries, 15)
    assert.equal(req.remoteResponseTimeout, 20)
    assert.equal(rep.remoteId, req.localId)
    assert.equal(only(messages, 'DREQ').remoteQpn, req.qpn)
    const header = parseRdmaCmHeader(req.privateData)!
    assert.equal(header.ipVersion, 4)
    assert.deepEqual(header.destination, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 77, 0, 3))
    assert.deepEqual(emitRdmaCmHeader(header, req.privateData.subarray(rdmaCmHeader.bytes)), req.privateData)
    assert.equal(req.serviceId >> 16n, BigInt(CmPortSpace.values.TCP))
  })

  test('rping over IPv6, a rejected connection, and service id resolution', () => {
    const v6 = parseRdmaCmHeader(only(messagesOf('rping_ipv6.pcap'), 'REQ').privateData)!
    assert.equal(v6.ipVersion, 6)
    const rej = only(messagesOf('rping_reject.pcap'), 'REJ')
    assert.equal(rej.reason, rejReason.INVALID_SERVICE_ID)
    assert.equal(rej.localId, 0)
    const sidr = messagesOf('udaddy.pcap')
    assert.equal(only(sidr, 'SIDR_REQ').serviceId, rdmaCmServiceId(CmPortSpace.values.UDP, 7174))
    assert.equal(only(sidr, 'SIDR_REP').qkey, RDMA_UDP_QKEY)
  })
})

const valueOfWidth = (bits: number): fc.Arbitrary<unknown> => {
  if (bits === 1) return fc.boolean()
  return bits === 64 ? fc.bigInt(0n, (1n << 64n) - 1n) : fc.integer({ min: 0, max: 2 ** bits - 1 })
}

/** A random record of the message `name`, from its layout. */
const anyMessage = (name: CmMessageName): fc.Arbitrary<CmDraft> => {
  const { fields, blobs } = cmMessages[name]
  const parts: Record<string, fc.Arbitrary<unknown>> = { tid: fc.bigInt(0n, (1n << 64n) - 1n) }
  for (const [field, [, width]] of Object.entries(fields)) parts[field] = valueOfWidth(width)
  for (const [field, { bytes }] of Object.entries(blobs)) {
    parts[field] = fc.uint8Array({ minLength: bytes, maxLength: bytes })
  }
  return fc.record(parts).map(record => ({ name, ...record }) as CmDraft)
}

test('records survive encoding and decoding', () => {
  for (const name of names) {
    fc.assert(
      fc.property(anyMessage(name), message => {
        const bytes = emitCm(message)
        assert.equal(bytes.length, MAD_BYTES)
        assert.deepEqual(parseCm(bytes), message)
        const view = viewCm(bytes) as object as Readonly<Record<string, unknown>>
        for (const [field, value] of Object.entries(message)) assert.deepEqual(view[field], value, field)
      }),
      { numRuns: 50 },
    )
  }
})

test('no two fields of a message share a bit', () => {
  for (const name of names) {
    const owner = new Map<number, string>()
    const claim = (field: string, first: number, width: number): void => {
      for (let bit = first; bit < first + width; bit++) {
        assert.equal(owner.get(bit), undefined, `${name}: ${field} and ${owner.get(bit)} share bit ${bit}`)
        // Fields follow the MAD header of 24 bytes; one is in the header's attribute modifier.
        const isAllowed = bit >= 24 * 8 || field === 'eceAttrMod'
        assert.ok(isAllowed && bit < MAD_BYTES * 8, `${name}: ${field} lies at bit ${bit}`)
        owner.set(bit, field)
      }
    }
    for (const [field, [first, width]] of Object.entries(cmMessages[name].fields)) claim(field, first, width)
    for (const [field, { offset, bytes }] of Object.entries(cmMessages[name].blobs)) claim(field, offset * 8, bytes * 8)
  }
})

describe('invalid messages, and values that do not fit', () => {
  test('other classes, versions, methods, attributes and sizes are not messages', () => {
    const mad = emitCm({ name: 'RTU', tid: 1n, localId: 1, remoteId: 2 })
    const [BASE_VERSION, CLASS, CLASS_VERSION, METHOD, ATTRIBUTE_HIGH, ATTRIBUTE_LOW] = [0, 1, 2, 3, 16, 17]
    for (const [at, value] of [
      [BASE_VERSION, 2],
      [CLASS, 4],
      [CLASS_VERSION, 1],
      [METHOD, 0x81],
      [ATTRIBUTE_LOW, 0x0f],
      [ATTRIBUTE_LOW, 0x1b],
      [ATTRIBUTE_HIGH, 1],
    ]) {
      const other = Uint8Array.from(mad)
      other[at] = value
      assert.equal(parseCm(other), undefined, `byte ${at} is ${value}`)
    }
    assert.equal(parseCm(mad.subarray(0, 255)), undefined)
    assert.equal(parseCm(new Uint8Array(0)), undefined)
  })

  test('values are refused with the name of their field', () => {
    assert.throws(() => emitCm({ name: 'REQ', tid: 1n, qpn: 1 << 24 }), /REQ: qpn is number 16777216, allowed is/)
    assert.throws(
      () => emitCm({ name: 'REQ', tid: 1n, privateData: new Uint8Array(93) }),
      /93 bytes.* at most 92 bytes/,
    )
    assert.throws(() => emitCm({ name: 'RTU', tid: -1n }), /MAD: tid is bigint -1/)
  })

  test("a header of rdma_cm may be followed by the application's data, or by nothing", () => {
    const header = { ipVersion: 4, port: 7174, source: new Uint8Array(16), destination: new Uint8Array(16).fill(9) }
    for (const data of [new Uint8Array(0), Uint8Array.of(1, 2, 3)]) {
      const privateData = emitRdmaCmHeader(header, data)
      assert.deepEqual(privateData.slice(rdmaCmHeader.bytes), data)
      assert.deepEqual(parseRdmaCmHeader(privateData), header)
    }
  })

  test('private data without a header of rdma_cm is recognized', () => {
    const { bytes } = rdmaCmHeader
    assert.equal(parseRdmaCmHeader(new Uint8Array(bytes - 1)), undefined, 'too short')
    assert.equal(parseRdmaCmHeader(new Uint8Array(bytes)), undefined, 'IP version 0')
    const ofVersion1 = Uint8Array.of(1, 0x40, ...new Uint8Array(bytes - 2))
    assert.equal(parseRdmaCmHeader(ofVersion1), undefined, 'rdma_cm version 1, IPv4')
  })
})
