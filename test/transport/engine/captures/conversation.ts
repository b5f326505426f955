/*
 * Reads a capture of two endpoints. Side 1 is the server (test/fixtures/wire/ORIGIN.md); in a capture without the
 * server's address, side 0 is the sender of the first packet.
 */
import { readFileSync } from 'node:fs'
import {
  ROCE_UDP_PORT,
  SYNDROME_KIND_MASK,
  SYNDROME_VALUE_MASK,
  syndromeKind,
} from '../../../../src/spec/wire/headers.ts'
import { OP_READ, OP_REQUEST, OP_RESPONSE, opcodeFlags, opcodeNumber } from '../../../../src/spec/wire/opcodes.ts'
import { parseFrame } from '../../../../src/transport/wire/frame.ts'
import { parsePacket, type WellFormedPacket } from '../../../../src/transport/wire/packet.ts'
import { readCapture } from '../../../captures.ts'
import { fixture } from '../../../paths.ts'

export type Side = 0 | 1
export const otherSide = (side: Side): Side => (side === 0 ? 1 : 0)

type Value = number | bigint | boolean

/** The headers of any packet, for lookups that do not depend on the opcode. */
type AnyHeaders = Readonly<Record<string, Readonly<Record<string, Value>> | undefined>>
export const headersOf = (packet: WellFormedPacket): AnyHeaders => packet as unknown as AnyHeaders
export const field = (packet: WellFormedPacket, header: string, name: string): number =>
  Number(headersOf(packet)[header]![name])

export interface Entry {
  /** Packet number in the capture file, from 1, as in Wireshark. */
  readonly number: number
  /** µs since the first packet of the file. */
  readonly time: number
  readonly from: Side
  readonly packet: WellFormedPacket
  /** The UDP payload. */
  readonly bytes: Uint8Array
  /** The packet was captured, but dropped before the receiver. */
  readonly isLost: boolean
}

export const flagsOf = (packet: WellFormedPacket): number => opcodeFlags[opcodeNumber[packet.name]]
export const isRequest = (packet: WellFormedPacket): boolean => (flagsOf(packet) & OP_REQUEST) !== 0
export const isResponse = (packet: WellFormedPacket): boolean => (flagsOf(packet) & OP_RESPONSE) !== 0
export const isRead = (packet: WellFormedPacket): boolean => isRequest(packet) && (flagsOf(packet) & OP_READ) !== 0
/** A `syndromeKind` value. */
export const syndromeKindOf = (packet: WellFormedPacket): number =>
  field(packet, 'AETH', 'syndrome') & SYNDROME_KIND_MASK
/** Credits, RNR timer code or NAK code. */
export const syndromeValueOf = (packet: WellFormedPacket): number =>
  field(packet, 'AETH', 'syndrome') & SYNDROME_VALUE_MASK
export const isRnrNak = (packet: WellFormedPacket): boolean =>
  packet.name === 'RC_ACKNOWLEDGE' && syndromeKindOf(packet) === syndromeKind.RNR_NAK
/** Whether a response is not a NAK. */
export const isPositive = (packet: WellFormedPacket): boolean =>
  headersOf(packet).AETH === undefined || syndromeKindOf(packet) === syndromeKind.ACK

export interface Conversation {
  readonly name: string
  readonly entries: readonly Entry[]
}

/** Every `interval`-th packet to side `to` was dropped. */
export interface Loss {
  readonly to: Side
  readonly interval: number
}

const IPV4_SERVER = '10.77.0.3'

/** The RoCE packets of test/fixtures/wire/NAME.pcap. */
export const readConversation = (name: string, loss?: Loss): Conversation => {
  const frames = readCapture(readFileSync(fixture('wire', `${name}.pcap`)))
  const entries: Entry[] = []
  const sides = new Map<string, Side>()
  const counts = [0, 0]
  const start = frames[0]?.time ?? 0n
  for (const [i, { bytes, time }] of frames.entries()) {
    const frame = parseFrame(bytes)
    if (frame.kind === 'opaque' || frame.destinationPort !== ROCE_UDP_PORT) continue
    const packet = parsePacket(frame.payload)
    if (packet.kind === 'opaque') throw new Error(`${name}: packet ${i + 1}: ${packet.reason}`)
    const source = Buffer.from(frame.source).toString('hex')
    if (!sides.has(source)) {
      const [knownSide] = sides.values()
      const firstSide = isServer(frame.source) ? 1 : 0
      sides.set(source, knownSide === undefined ? firstSide : otherSide(knownSide))
    }
    const from = sides.get(source)!
    const to = otherSide(from)
    counts[to]++
    const isLost = loss !== undefined && loss.to === to && counts[to] % loss.interval === 0
    const micros = Number((time ?? 0n) - start) / 1000
    entries.push({ number: i + 1, time: micros, from, packet, bytes: frame.payload, isLost })
  }
  return { name, entries }
}

/** The server's IPv6 address is fd77::3; no other recorded IPv6 address ends in 3. */
const isServer = (address: Uint8Array): boolean =>
  address.length === 4 ? address.join('.') === IPV4_SERVER : address[0] === 0xfd && address[15] === 3

/** The RNR NAK, if any, that `side` received between its previous packet and its packet `number`. */
export const rnrSince = (entries: readonly Entry[], number: number, side: Side): Entry | undefined => {
  const earlier = entries.filter(e => e.number < number)
  const lastSent = earlier.findLastIndex(e => e.from === side)
  return earlier.slice(lastSent + 1).find(e => !e.isLost && isRnrNak(e.packet))
}
