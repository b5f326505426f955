/*
 * Packets as lines and as JSON. UPDATE_GOLDEN=1 rewrites the golden file.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { headers } from '../../../src/spec/wire/headers.ts'
import { opcodeByNumber, opcodes } from '../../../src/spec/wire/opcodes.ts'
import { packetJson, packetText, syndromeText } from '../../../src/tools/trace/packets.ts'
import { parsePacket } from '../../../src/transport/wire/packet.ts'
import { repoRoot } from '../../paths.ts'
import { capturedPackets } from './captures.ts'

const golden = join(repoRoot, 'test', 'tools', 'trace', 'packet-lines.golden')

/** A line without its numbers. */
const shapeOf = (line: string): string =>
  line.startsWith('malformed') ? line.slice(0, line.indexOf(':')) : line.replace(/0x[0-9a-f]+|\b\d+\b/g, '#')

/** A packet of zeros with the headers of an opcode, and P_Key 0xffff. */
const packetOfZeros = (opcode: number, headerBytes: number): Uint8Array => {
  const bytes = new Uint8Array(headerBytes + 4)
  bytes[0] = opcode
  bytes.set([0xff, 0xff], 2)
  return bytes
}

describe('packet lines', () => {
  it('equal the golden file, for the first packet of every shape in the captures', () => {
    const shapes = new Set<string>()
    const lines: string[] = []
    for (const { file, frame } of capturedPackets) {
      const line = packetText(frame.payload)
      const shape = shapeOf(line)
      if (!shapes.has(shape)) lines.push(`${file.replace('.pcap', '').padEnd(28)} ${line}`)
      shapes.add(shape)
    }
    if (process.env.UPDATE_GOLDEN) writeFileSync(golden, `${lines.join('\n')}\n`)
    assert.deepEqual(lines, readFileSync(golden, 'utf8').trimEnd().split('\n'))
  })

  it('name the opcode, the QP and the PSN, or say that the packet is malformed', () => {
    for (const { frame } of capturedPackets) {
      const bytes = frame.payload
      const opcode = opcodeByNumber[bytes[0]]
      const line = packetText(bytes)
      if (parsePacket(bytes).kind === 'opaque' || opcode === undefined) assert.match(line, /^malformed \(/)
      else {
        const psn = Buffer.from(bytes.subarray(9, 12)).toString('hex')
        const qp = ((bytes[5] << 16) | (bytes[6] << 8) | bytes[7]).toString(16)
        assert.ok(line.startsWith(`${opcode.name.replace(/^RC_/, '')} qp 0x${qp} psn 0x${psn}`), line)
      }
    }
  })

  it('have the fields of the headers of every opcode', () => {
    for (const { opcode, name, headerBytes, headers: further } of opcodes) {
      const line = packetText(packetOfZeros(opcode, headerBytes))
      assert.ok(line.startsWith(`${name.replace(/^RC_/, '')} qp 0x0 psn 0x000000`), line)
      // For syndrome, sel and plt the line has only the name of the value. Reserved zeros and cmpDt of a fetch-and-add
      // are omitted.
      const omitted = name.endsWith('FETCH_ADD') ? /^(resv\w+|syndrome|sel|plt|cmpDt)$/ : /^(resv\w+|syndrome|sel|plt)$/
      for (const header of further)
        for (const field of Object.keys(headers[header].fields))
          if (!omitted.test(field)) assert.ok(line.includes(` ${field} `), `${line}: ${field}`)
    }
  })

  it('show unusual fields', () => {
    const bytes = new Uint8Array(16)
    bytes.set([0x04, 0xc1, 0x12, 0x34, 0xc5, 0, 0, 0x11, 0x81, 0, 0, 1])
    assert.equal(
      packetText(bytes),
      'SEND_ONLY qp 0x11 psn 0x000001 A S M FECN BECN tver 1 pkey 0x1234 resv6 0x5 resv7 0x1 0 B',
    )
  })

  it('say why a packet is malformed', () => {
    assert.equal(packetText(new Uint8Array(3)), 'malformed (shorter than a BTH and an ICRC): 000000')
    assert.equal(
      packetText(new Uint8Array(100).fill(0xff)),
      `malformed (unknown opcode 0xff): ${'ff'.repeat(32)}… (100 bytes)`,
    )
    assert.equal(packetText(new Uint8Array(0)), 'malformed (shorter than a BTH and an ICRC): (no bytes)')
  })

  it('name every syndrome', () => {
    assert.equal(syndromeText(0x1f), 'ACK')
    assert.equal(syndromeText(0x05), 'ACK credits 6')
    assert.equal(syndromeText(0x3b), 'RNR_NAK 122.88 ms')
    assert.equal(syndromeText(0x21), 'RNR_NAK 10 µs')
    assert.equal(syndromeText(0x60), 'NAK PSN_SEQUENCE')
    assert.equal(syndromeText(0x6a), 'NAK 10')
    assert.equal(syndromeText(0x45), 'RESERVED 0x45')
    assert.equal(syndromeText(0x9f), 'ACK resv 0x80')
    assert.equal(syndromeText(0xe2), 'NAK REMOTE_ACCESS resv 0x80')
    for (let syndrome = 0; syndrome < 256; syndrome++) assert.doesNotMatch(syndromeText(syndrome), /undefined|NaN/)
  })

  it('JSON has every field of the headers that follow the BTH, for every opcode', () => {
    for (const { opcode, name, headerBytes, headers: further } of opcodes) {
      const json = packetJson(parsePacket(packetOfZeros(opcode, headerBytes))) as Record<string, object>
      for (const header of further)
        assert.deepEqual(Object.keys(json[header]), Object.keys(headers[header].fields), `${name}: ${header}`)
    }
  })

  it('JSON has the values of fields, or the reason why a packet is malformed', () => {
    const atomic = capturedPackets.find(({ frame }) => frame.payload[0] === 0x13)!
    assert.deepEqual(packetJson(parsePacket(atomic.frame.payload)), {
      name: 'RC_COMPARE_SWAP',
      BTH: {
        se: false,
        migReq: false,
        tver: 0,
        pkey: 0xffff,
        fecn: false,
        becn: false,
        resv6: 0,
        destQp: 0x7f,
        ackReq: true,
        resv7: 0,
        psn: 0xd37d41,
      },
      AtomicETH: { va: '0x560e1d430000', rkey: 0x98de, swapDt: '0x0', cmpDt: '0x0' },
      payload: 0,
    })
    assert.deepEqual(packetJson(parsePacket(new Uint8Array(7))), {
      malformed: 'shorter than a BTH and an ICRC',
      bytes: 7,
    })
  })
})
