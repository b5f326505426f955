/*
 * Fuzz targets for parsers of untrusted bytes and text. A parsed packet or frame must be emitted as the same bytes;
 * invalid input must be refused by an Error with a message, not by a TypeError or RangeError.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { formatFaults, parseFaults } from '../../../src/faults/rules.ts'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { opcodeNumber } from '../../../src/spec/wire/opcodes.ts'
import { createPcapng, packetJson, packetLine } from '../../../src/tools/trace/index.ts'
import { SHORTEST_PACKET } from '../../../src/transport/phy/runs/limits.ts'
import {
  arenaOver,
  checkPacket,
  emitFrame,
  emitPacket,
  findIdentification,
  makeFlow,
  parseFrame,
  parsePacket,
  sealIcrc,
  verifyIcrc,
} from '../../../src/transport/wire/index.ts'
import { packetFaults } from '../../../src/transport/wire/packet.ts'
import { readCapture } from '../../captures.ts'
import { fixture } from '../../paths.ts'
import type { Target } from './fuzzer.ts'

const capturesFolder = fixture('wire')
export const captureNames = readdirSync(capturesFolder).filter(name => name.endsWith('.pcap'))
const readFile = (name: string): Uint8Array => new Uint8Array(readFileSync(`${capturesFolder}/${name}`))

/** The RoCE packets of a capture. */
export const recordedPackets = (name: string): Uint8Array[] =>
  readCapture(readFile(name))
    .map(({ bytes }) => parseFrame(bytes))
    .flatMap(frame => (frame.kind !== 'opaque' && frame.destinationPort === ROCE_UDP_PORT ? [frame.payload] : []))

/** Runs a parser, which may throw an Error with a message, but no TypeError or RangeError. */
const runParser = (call: () => void): void => {
  try {
    call()
  } catch (error) {
    assert.ok(error instanceof Error && error.constructor === Error && error.message.length > 10, String(error))
  }
}

const ports = { sourcePort: 49152, destinationPort: ROCE_UDP_PORT }
const ipv4Flow = makeFlow({ source: Uint8Array.of(10, 0, 0, 1), destination: Uint8Array.of(10, 0, 0, 2), ...ports })
const ipv6Flow = makeFlow({ source: new Uint8Array(16).fill(1), destination: new Uint8Array(16).fill(2), ...ports })

/** IPv4 identifications: the expected one, and another with which a packet is sealed. */
const EXPECTED = 7
const SEALED = 0x1234

const packets: Target = {
  name: 'packet',
  seeds: () => {
    const seen = new Set<number>() // opcodes
    return captureNames.flatMap(recordedPackets).filter(bytes => {
      const isNewOpcode = !seen.has(bytes[0])
      seen.add(bytes[0])
      return isNewOpcode && bytes.length < 1000
    })
  },
  run(bytes, feature) {
    const packet = parsePacket(bytes)
    assert.deepEqual(emitPacket(packet), bytes)
    const view = new DataView(bytes.buffer)
    const fault = checkPacket(view, 0, bytes.length)
    assert.equal(fault !== 0, packet.kind === 'opaque')
    assert.ok(packetFaults[fault] !== undefined)
    feature((fault << 8) | (bytes[0] ?? 0))
    assert.ok(packetLine(packet).length > 0)
    JSON.stringify(packetJson(packet))
    const arena = arenaOver(bytes)
    for (const flow of [ipv4Flow, ipv6Flow]) {
      // The ICRC covers the IPv4 identification, which a receiver may have to guess, EXPECTED first.
      const isRight = verifyIcrc(arena, 0, bytes.length, flow, EXPECTED)
      const identification = findIdentification(arena, 0, bytes.length, flow, EXPECTED)
      if (isRight) assert.equal(identification, EXPECTED)
      else if (identification >= 0) assert.ok(verifyIcrc(arena, 0, bytes.length, flow, identification))
      if (bytes.length < SHORTEST_PACKET) continue
      sealIcrc(arena, 0, bytes.length, flow, SEALED)
      assert.ok(verifyIcrc(arena, 0, bytes.length, flow, SEALED))
      // IPv6 packets have no identification: the expected one counts as found
      const found = findIdentification(arena, 0, bytes.length, flow, EXPECTED)
      // With rdma_rxe's ICRC of a FLUSH, which covers the headers twice, several identifications may fit.
      if (flow === ipv4Flow && bytes[0] === opcodeNumber.RC_FLUSH)
        assert.ok(verifyIcrc(arena, 0, bytes.length, flow, found))
      else assert.equal(found, flow === ipv4Flow ? SEALED : EXPECTED)
    }
  },
}

/** Offsets in a frame. */
const IP_HEADER = 14
const IP_CHECKSUM = IP_HEADER + 10

/**
 * Corrects the IPv4 header checksum, because random bytes rarely have a correct one. A checksum of 0 is written as
 * `zeroForm`, 0 or 0xffff.
 */
const withChecksum = (bytes: Uint8Array, zeroForm: number): Uint8Array => {
  if (bytes.length < IP_HEADER + 20) return bytes
  const fixed = bytes.slice()
  const view = new DataView(fixed.buffer)
  let sum = 0
  for (let i = IP_HEADER; i < IP_HEADER + 20; i += 2) if (i !== IP_CHECKSUM) sum += view.getUint16(i)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  view.setUint16(IP_CHECKSUM, sum === 0xffff ? zeroForm : ~sum)
  return fixed
}

/** Features of parsed frames. The feature of an opaque frame is the length of its reason, which is below 1001. */
const IP_FEATURES = { ipv4: 1001, ipv6: 1002 } as const

const frames: Target = {
  name: 'frame',
  seeds: () =>
    ['atomics_ipv6.pcap', 'send_pad.pcap', 'ud_multicast.pcap'].flatMap(name =>
      readCapture(readFile(name))
        .filter(({ bytes }) => bytes.length < 200)
        .slice(0, 4)
        .map(({ bytes }) => bytes),
    ),
  run(bytes, feature) {
    for (const one of [bytes, withChecksum(bytes, 0), withChecksum(bytes, 0xffff)]) {
      const frame = parseFrame(one)
      assert.deepEqual(emitFrame(frame), one)
      if (frame.kind === 'opaque') assert.ok(frame.reason.length > 0)
      feature(frame.kind === 'opaque' ? frame.reason.length : IP_FEATURES[frame.kind])
    }
  },
}

/** A capture as our tracer writes it. */
const tracedCapture = (): Uint8Array => {
  const blocks: Uint8Array[] = []
  const write = createPcapng(bytes => blocks.push(bytes), { interfaces: ['rxe0'] })
  const address = Uint8Array.from([...new Array(10).fill(0), 255, 255, 10, 0, 0, 1])
  const flow = { source: address, destination: address, sourcePort: 1, trafficClass: 0, hopLimit: 1, flowLabel: 0 }
  for (const comment of ['dropped', ''])
    write({ interface: 0, time: 1, flow, identification: 0, payload: new Uint8Array(20), comment, direction: 'sent' })
  return new Uint8Array(Buffer.concat(blocks))
}

/** Bytes of the shortest pcapng block. */
const MIN_BLOCK_BYTES = 12

const captures: Target = {
  name: 'capture',
  seeds: () => [...captureNames.map(readFile).filter(bytes => bytes.length < 700), tracedCapture()],
  run(bytes, feature) {
    runParser(() => {
      const found = readCapture(bytes)
      assert.ok(found.length * MIN_BLOCK_BYTES <= bytes.length, 'more packets than the bytes can hold')
      for (const packet of found) assert.ok(packet.bytes.length <= bytes.length)
      feature(found.length > 3 ? 3 : found.length)
    })
  },
}

const faultRules: Target = {
  name: 'fault-spec',
  seeds: () =>
    ['', 'drop=0.01,seed=7', 'drop=.5,dup=1.,reorder=0.1,corrupt=1,delay=10,jitter=3.5,seed=4294967295'].map(text =>
      new TextEncoder().encode(text),
    ),
  run(bytes) {
    const text = new TextDecoder().decode(bytes)
    runParser(() => {
      const spec = parseFaults(text)
      assert.deepEqual(parseFaults(formatFaults(spec)), spec)
      for (const value of spec.flatMap(rule => Object.values(rule))) assert.ok(typeof value !== 'number' || value >= 0)
    })
  },
}

export const codecTargets: readonly Target[] = [packets, frames, captures, faultRules]
