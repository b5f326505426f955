/*
 * Captures that tests make: files from packets, and packets from Linux's captures (test/fixtures/wire).
 */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { type OpcodeName, opcodeNumber } from '../../../src/spec/wire/opcodes.ts'
import type { AddressTable } from '../../../src/tools/captures/addresses.ts'
import { CaptureAnalysis } from '../../../src/tools/captures/analysis.ts'
import type { CapturedPacket } from '../../../src/tools/captures/file.ts'
import { type CaptureProblem, problemsOf } from '../../../src/tools/captures/problems.ts'
import { PacketSample, packetNumber } from '../../../src/tools/captures/samples.ts'
import type { Point } from '../../../src/tools/captures/together.ts'
import { parseAddress } from '../../../src/transport/wire/address.ts'
import { arenaOver } from '../../../src/transport/wire/arena.ts'
import { emitFrame } from '../../../src/transport/wire/frame.ts'
import { makeFlow, sealIcrc } from '../../../src/transport/wire/icrc.ts'
import { readCapture } from '../../captures.ts'
import { fixture } from '../../paths.ts'

/** A pcap file with nanoseconds. `snap`: bytes of each packet that are kept. */
export const pcapOf = (packets: readonly CapturedPacket[], { linkType = 1, snap = 262_144 } = {}): Uint8Array => {
  const head = Buffer.alloc(24)
  head.writeUInt32LE(0xa1b2_3c4d, 0)
  head.writeUInt16LE(2, 4)
  head.writeUInt16LE(4, 6)
  head.writeUInt32LE(snap, 16)
  head.writeUInt32LE(linkType, 20)
  const parts: Uint8Array[] = [head]
  for (const { time = 0n, bytes, length } of packets) {
    const record = Buffer.alloc(16)
    const kept = bytes.subarray(0, snap)
    record.writeUInt32LE(Number(time / 1_000_000_000n), 0)
    record.writeUInt32LE(Number(time % 1_000_000_000n), 4)
    record.writeUInt32LE(kept.length, 8)
    record.writeUInt32LE(length, 12)
    parts.push(record, kept)
  }
  return new Uint8Array(Buffer.concat(parts))
}

export const packetsOfFixture = (name: string): CapturedPacket[] =>
  readCapture(readFileSync(fixture('wire', `${name}.pcap`)))

/** A capture of test/fixtures/captures. */
export const knownCapture = (name: string): Uint8Array =>
  new Uint8Array(gunzipSync(readFileSync(fixture('captures', `${name}.pcap.gz`))))

/** Analyses a file that is in memory, in chunks of `chunk` bytes. */
export const analyse = (file: Uint8Array, chunk = file.length): CaptureAnalysis => {
  const analysis = new CaptureAnalysis()
  for (let at = 0; at < file.length; at += chunk) analysis.reader.push(file.subarray(at, at + chunk))
  analysis.finish()
  return analysis
}

export const problemsIn = (file: Uint8Array): readonly CaptureProblem[] => problemsOf(analyse(file)).problems

export const causesIn = (file: Uint8Array): string[] => problemsIn(file).map(({ cause }) => cause)

/** The same number for the same seed, from 0 to 1. */
export const randomOf = (seed: number): (() => number) => {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

interface RoceFields {
  /** Last byte of 10.0.0.x. */
  readonly from: number
  readonly to: number
  readonly opcode: OpcodeName
  readonly qpn: number
  readonly psn: number
  readonly ackReq?: boolean
  /** Bytes between BTH and ICRC: further headers and payload. */
  readonly rest?: Uint8Array
  /** Nanoseconds. */
  readonly time: number
  readonly identification?: number
  readonly trafficClass?: number
  readonly port?: number
  /** fd00::x instead of 10.0.0.x; a text: with another prefix. */
  readonly isIpv6?: boolean | 'fe80'
  readonly hopLimit?: number
  readonly sourcePort?: number
}

const BTH_BYTES = 12
const ICRC_BYTES = 4

/** A RoCEv2 packet with its right ICRC, as an Ethernet frame. */
export const roce = ({
  from,
  to,
  opcode,
  qpn,
  psn,
  ackReq = true,
  rest = new Uint8Array(0),
  time,
  identification = 0,
  trafficClass = 0,
  port = 4791,
  isIpv6 = false,
  hopLimit = 64,
  sourcePort = 0xc000,
}: RoceFields): CapturedPacket => {
  const payload = new Uint8Array(BTH_BYTES + rest.length + ICRC_BYTES)
  const view = new DataView(payload.buffer)
  payload[0] = opcodeNumber[opcode]
  view.setUint16(2, 0xffff)
  view.setUint32(4, qpn)
  view.setUint32(8, ((ackReq ? 0x8000_0000 : 0) | (psn & 0xff_ffff)) >>> 0)
  payload.set(rest, BTH_BYTES)
  const [source, destination] = [from, to].map(
    last => parseAddress(isIpv6 ? `${isIpv6 === 'fe80' ? 'fe80' : 'fd00'}::${last}` : `10.0.0.${last}`)!,
  )
  const flow = makeFlow({ source, destination, sourcePort, destinationPort: port, dontFragment: true })
  sealIcrc(arenaOver(payload), 0, payload.length, flow, identification)
  const fields = {
    destinationMac: Uint8Array.of(2, 0, 0, 0, 0, to),
    sourceMac: Uint8Array.of(2, 0, 0, 0, 0, from),
    source,
    destination,
    sourcePort,
    destinationPort: port,
    trafficClass,
    hopLimit,
    payload,
  }
  const bytes = emitFrame(
    isIpv6
      ? { kind: 'ipv6', ...fields, flowLabel: 0 }
      : { kind: 'ipv4', ...fields, identification, dontFragment: true },
  )
  return { time: START + BigInt(Math.round(time)), linkType: 1, bytes, length: bytes.length }
}

/**
 * One frame with the transport packets of several, as before segmentation: of equal size, but the last may be shorter.
 */
export const joined = (packets: readonly CapturedPacket[]): CapturedPacket => {
  const [first] = packets
  const isIpv6 = first!.bytes[12] === 0x86
  const from = isIpv6 ? 62 : 42
  const bytes = new Uint8Array(
    Buffer.concat([first!.bytes.subarray(0, from), ...packets.map(packet => packet.bytes.subarray(from))]),
  )
  const view = new DataView(bytes.buffer)
  if (isIpv6) view.setUint16(18, bytes.length - 54)
  else view.setUint16(16, bytes.length - 14)
  view.setUint16(from - 4, bytes.length - from + 8)
  view.setUint16(from - 2, 0x1234)
  return { ...first!, bytes, length: bytes.length }
}

/** An AETH: an acknowledgement unless `syndrome` says otherwise. */
export const aeth = (syndrome = 0x1f): Uint8Array => Uint8Array.of(syndrome, 0, 0, 1)

/** A RETH of `length` bytes. */
export const reth = (length: number): Uint8Array => {
  const bytes = new Uint8Array(16)
  new DataView(bytes.buffer).setUint32(12, length)
  return bytes
}

/** Nanoseconds since 1970 of the packets that tests make. */
export const START = 1_700_000_000_000_000_000n

/** A file in memory as one of several captures, which share `addresses`. */
export const pointOf = (name: string, file: Uint8Array, addresses: AddressTable): Point => {
  const sample = new PacketSample()
  const analysis = new CaptureAnalysis({
    addresses,
    onPacket: (packet, located, _kind, time) => sample.add(packetNumber(packet, located), time, located),
  })
  analysis.reader.push(file)
  analysis.finish()
  const origin = (analysis.startSeconds - Number(START / 1_000_000_000n)) * 1e9 + analysis.startNanoseconds
  const chunks = async function* () {
    for (let at = 0; at < file.length; at += 5000) yield file.subarray(at, at + 5000)
  }
  return { name, sample, origin, end: analysis.end, open: async () => chunks() }
}
