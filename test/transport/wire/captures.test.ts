/*
 * Every frame of every capture (test/fixtures/wire/ORIGIN.md) is parsed and emitted as the same bytes. RoCE packets
 * agree with an independent decoder (packets.txt), and have correct ICRCs.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { type HeaderName, ICRC_BYTES, ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { opcodeByNumber, opcodeHeaderBytes, opcodeNumber } from '../../../src/spec/wire/opcodes.ts'
import { arenaOver } from '../../../src/transport/wire/arena.ts'
import { bthFlags, bthOpcode, bthPadCount } from '../../../src/transport/wire/bth.ts'
import { emitFrame, type Frame, type Ipv4Frame, type Ipv6Frame, parseFrame } from '../../../src/transport/wire/frame.ts'
import { icrcOf, icrcOfFlush, makeFlow, verifyIcrc } from '../../../src/transport/wire/icrc.ts'
import { emitPacket, type Packet, parsePacket } from '../../../src/transport/wire/packet.ts'
import { readCapture } from '../../captures.ts'
import { fixture } from '../../paths.ts'

const files = readdirSync(fixture('wire')).filter(name => name.endsWith('.pcap'))

/** Lines of packets.txt, by capture. */
const listing = new Map<string, string[]>()
for (const line of readFileSync(fixture('wire', 'packets.txt'), 'utf8').trimEnd().split('\n')) {
  if (line.startsWith('# ')) listing.set(line.slice(2), [])
  else [...listing.values()].at(-1)!.push(line)
}

const framesOf = (file: string): Uint8Array[] => readCapture(readFileSync(fixture('wire', file))).map(p => p.bytes)

const isRoce = (frame: Frame): frame is Ipv4Frame | Ipv6Frame =>
  frame.kind !== 'opaque' && frame.destinationPort === ROCE_UDP_PORT

const identificationOf = (frame: Ipv4Frame | Ipv6Frame): number => (frame.kind === 'ipv4' ? frame.identification : 0)

const verify = (frame: Ipv4Frame | Ipv6Frame, payload = frame.payload): boolean =>
  verifyIcrc(arenaOver(payload), 0, payload.length, makeFlow(frame), identificationOf(frame))

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** A line as in packets.txt. Header bytes are taken from the emitted record. */
const describePacket = (frame: Ipv4Frame | Ipv6Frame, packet: Packet): string => {
  if (packet.kind === 'opaque') return packet.reason
  const { BTH, name, payload } = packet
  const bytes = emitPacket(packet)
  const view = arenaOver(bytes).view
  const flags = (BTH.ackReq ? 'A' : '-') + (BTH.se ? 'S' : '-') + (BTH.migReq ? 'M' : '-')
  let at = sizes.BTH
  let headers = ''
  for (const header of opcodeByNumber[opcodeNumber[name]]!.headers) {
    const size = sizes[header]
    headers += ` ${header}=${hex(bytes.subarray(at, at + size))}`
    at += size
  }
  const hexDigits = (value: number, digits: number): string => value.toString(16).padStart(digits, '0')
  const flow = makeFlow(frame)
  const arena = arenaOver(frame.payload)
  const hasIcrcOf = (compute: typeof icrcOf): boolean =>
    packet.icrc === compute(arena, 0, frame.payload.length, flow, identificationOf(frame)) >>> 0
  const wrongKind = hasIcrcOf(icrcOfFlush) ? 'rxe' : 'wrong'
  const icrcKind = hasIcrcOf(icrcOf) ? 'right' : wrongKind
  const icrcAt = bytes.length - ICRC_BYTES
  const pad = hex(bytes.subarray(icrcAt - bthPadCount(view, 0), icrcAt)) || '-'
  const [qp, psn, pkey] = [hexDigits(BTH.destQp, 6), hexDigits(BTH.psn, 6), hexDigits(BTH.pkey, 4)]
  return `${name} qp=${qp} psn=${psn} pkey=${pkey} tver=${BTH.tver} ${flags}${headers} len=${payload.length} pad=${pad} icrc=${icrcKind}`
}

const sizes: Record<HeaderName, number> = {
  BTH: 12,
  RETH: 16,
  AETH: 4,
  AtomicETH: 28,
  AtomicAckETH: 8,
  DETH: 8,
  ImmDt: 4,
  IETH: 4,
  FETH: 4,
  XRCETH: 4,
  SRDETH: 24,
  SRDAETH: 24,
  SRDNAK: 12,
  DCETH: 20,
  DCAETH: 12,
}

test('packets.txt lists every capture', () => {
  assert.equal(files.length, 72)
  assert.deepEqual(files.toSorted(), [...listing.keys()].toSorted())
})

describe('captures', () => {
  for (const file of files) {
    test(file, () => {
      const lines = listing.get(file)!
      const frames = framesOf(file)
      assert.equal(frames.length, lines.length)
      for (const [i, bytes] of frames.entries()) {
        const description = `frame ${i + 1}: ${lines[i]}`
        const frame = parseFrame(bytes)
        assert.deepEqual(emitFrame(frame), new Uint8Array(bytes), description)
        if (!isRoce(frame)) {
          assert.equal(lines[i], '-', description)
          continue
        }
        assert.ok(verify(frame), description)
        const packet = parsePacket(frame.payload)
        assert.deepEqual(emitPacket(packet), frame.payload, description)
        const opcode = frame.payload[0]
        if (lines[i].startsWith('RC_RESERVED_15')) {
          assert.deepEqual(packet, { kind: 'opaque', reason: 'unknown opcode 0x15', bytes: frame.payload })
        } else if (lines[i].startsWith('XRC_')) {
          // forged packets without XRCETH; the independent decoder does not know that header
          assert.equal(opcodeByNumber[opcode]!.name, 'XRC_SEND_ONLY', description)
        } else {
          assert.equal(describePacket(frame, packet), lines[i])
        }
      }
    })
  }
})

describe('flipped bits', () => {
  /** One packet of each opcode and IP version in all captures. */
  const samples = new Map<string, Ipv4Frame | Ipv6Frame>()
  for (const file of files) {
    for (const frame of framesOf(file).map(parseFrame).filter(isRoce)) {
      samples.set(`${frame.kind} ${opcodeByNumber[frame.payload[0]]?.name ?? frame.payload[0]}`, frame)
    }
  }

  test('there are at least 50 samples', () => assert.ok(samples.size >= 50, `${samples.size} samples`))

  test('a flipped bit of a packet makes the ICRC wrong, except in the byte of FECN and BECN', () => {
    for (const [name, frame] of samples) {
      const { payload } = frame
      // the ICRC of rdma_rxe's FLUSH covers the byte of FECN and BECN (icrcOfFlush)
      const variableByte = name.endsWith(' RC_FLUSH') ? -1 : 4
      // every bit of the first 64 bytes, then a sample
      for (let bit = 0; bit < payload.length * 8; bit += bit < 64 * 8 ? 1 : 61) {
        const mutated = payload.slice()
        mutated[bit >> 3] ^= 0x80 >> (bit & 7)
        assert.equal(verify(frame, mutated), bit >> 3 === variableByte, `${name}, bit ${bit}`)
        const again = emitPacket(parsePacket(mutated))
        assert.deepEqual(again, mutated, `${name}, bit ${bit}`)
        assert.notDeepEqual(again, payload, `${name}, bit ${bit}`)
      }
    }
  })

  test('a flipped bit before the packet makes the frame opaque or the ICRC wrong, unless its field may change in flight', () => {
    /** Offset and length of the bytes that the ICRC does not cover. */
    const uncovered = {
      ipv4: [
        [0, 12], // MAC addresses
        [15, 1], // TOS
        [22, 1], // TTL
        [24, 2], // header checksum
        [40, 2], // UDP checksum
      ],
      ipv6: [
        [0, 12], // MAC addresses
        [15, 3], // second half of the traffic class, flow label
        [21, 1], // hop limit
        [60, 2], // UDP checksum
      ],
    } as const
    for (const [name, frame] of samples) {
      const bytes = emitFrame(frame)
      const headers = bytes.length - frame.payload.length - (frame.trailer?.length ?? 0)
      for (let bit = 0; bit < headers * 8; bit++) {
        const mutated = bytes.slice()
        mutated[bit >> 3] ^= 0x80 >> (bit & 7)
        const byte = bit >> 3
        const isInIpv4Header = frame.kind === 'ipv4' && byte >= 14 && byte < 34
        if (isInIpv4Header) fixHeaderChecksum(mutated)
        const parsed = parseFrame(mutated)
        assert.deepEqual(emitFrame(parsed), mutated, `${name}, bit ${bit}`)
        // the traffic class starts in the second half of byte 14
        const isInTrafficClass = frame.kind === 'ipv6' && byte === 14 && bit % 8 >= 4
        const mayChange =
          isInTrafficClass || uncovered[frame.kind].some(([from, length]) => byte >= from && byte < from + length)
        const accepted = parsed.kind !== 'opaque' && verify(parsed)
        // fixHeaderChecksum has corrected a flipped bit of the header checksum
        assert.equal(accepted, mayChange, `${name}, bit ${bit}`)
      }
    }
  })

  const fixHeaderChecksum = (bytes: Uint8Array): void => {
    bytes.fill(0, 24, 26)
    const view = arenaOver(bytes).view
    let sum = 0
    for (let at = 14; at < 34; at += 2) sum += view.getUint16(at)
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
    view.setUint16(24, ~sum & 0xffff)
  }
})

test('bthPadCount and bthFlags agree with the record', () => {
  for (const bytes of framesOf('send_pad.pcap')) {
    const frame = parseFrame(bytes)
    assert.ok(isRoce(frame))
    const { view } = arenaOver(frame.payload)
    const packet = parsePacket(frame.payload)
    assert.ok(packet.kind === 'packet')
    assert.equal(bthPadCount(view, 0), (4 - (packet.payload.length % 4)) % 4)
    assert.equal(bthFlags(view, 0) & 15, packet.BTH.tver)
    const end = frame.payload.length - ICRC_BYTES - bthPadCount(view, 0)
    assert.equal(packet.payload.length, end - opcodeHeaderBytes[bthOpcode(view, 0)])
  }
})
