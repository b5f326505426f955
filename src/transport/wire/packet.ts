/*
 * RoCEv2 packets (UDP payloads: BTH, further headers, payload, pad, ICRC) as plain records, for tests and tools.
 * `parsePacket` and `emitPacket` are exact inverses. Malformed packets and packets with unknown opcodes become opaque
 * records with their bytes and the reason. The ICRC is not checked here, because it covers the IP header (icrc.ts).
 *
 * Hot code calls only `checkPacket`. After it, the functions of bth.ts and extensions.ts stay inside the packet.
 */
import { type BitField, type HeaderName, headers, ICRC_BYTES } from '../../spec/wire/headers.ts'
import {
  type HeadersOf,
  OP_PAYLOAD,
  type OpcodeName,
  opcodeByNumber,
  opcodeFlags,
  opcodeHeaderBytes,
  opcodeNumber,
} from '../../spec/wire/opcodes.ts'
import { type BitValue, type FieldValue, getBits, misfit, putBits } from './bits.ts'

/** A header as a record. */
export type HeaderRecord<H extends HeaderName> = {
  -readonly [F in keyof (typeof headers)[H]['fields']]: FieldValue<(typeof headers)[H]['fields'][F]>
}

/** The BTH without opcode and pad count, which follow from the rest of the record. */
export type BthRecord = Omit<HeaderRecord<'BTH'>, 'opcode' | 'padCnt'>

/** A well-formed packet. Each of its headers is a property: `packet.RETH.rkey`. */
export type PacketOf<N extends OpcodeName> = {
  readonly kind: 'packet'
  readonly name: N
  readonly BTH: BthRecord
  readonly payload: Uint8Array
  /** The 1 to 3 bytes between payload and ICRC, if they are not all zero. */
  readonly pad?: Uint8Array
  /** Little-endian in the packet. */
  readonly icrc: number
} & { readonly [H in HeadersOf<N>]: HeaderRecord<H> }

/** Bytes that are not a well-formed packet. */
export interface OpaquePacket {
  readonly kind: 'opaque'
  readonly reason: string
  readonly bytes: Uint8Array
}

export type WellFormedPacket = { [N in OpcodeName]: PacketOf<N> }[OpcodeName]
export type Packet = WellFormedPacket | OpaquePacket

/** By result of `checkPacket`: what is wrong. */
export const packetFaults = [
  'none',
  'shorter than a BTH and an ICRC',
  'unknown opcode',
  'length is not a multiple of four bytes',
  "shorter than its opcode's headers, pad and ICRC",
  'an opcode without payload has more bytes than its headers and ICRC',
] as const

/** Indices of `packetFaults`. */
const WELL_FORMED = 0
const TOO_SHORT = 1
const UNKNOWN_OPCODE = 2
const UNALIGNED_LENGTH = 3
const HEADERS_TOO_SHORT = 4
const HAS_PAYLOAD = 5

/**
 * Checks that `length` bytes at `at` are a packet with a defined opcode and room for its headers, pad and ICRC. Returns
 * 0, or an index into `packetFaults`.
 */
export const checkPacket = (view: DataView, at: number, length: number): number => {
  if (length < headers.BTH.bytes + ICRC_BYTES) return TOO_SHORT
  const opcode = view.getUint8(at)
  const flags = opcodeFlags[opcode]
  if (flags === 0) return UNKNOWN_OPCODE
  if ((length & 3) !== 0) return UNALIGNED_LENGTH
  const payloadBytes = length - opcodeHeaderBytes[opcode] - ICRC_BYTES - ((view.getUint8(at + 1) >> 4) & 3)
  if (payloadBytes < 0) return HEADERS_TOO_SHORT
  if ((flags & OP_PAYLOAD) === 0 && length !== opcodeHeaderBytes[opcode] + ICRC_BYTES) return HAS_PAYLOAD
  return WELL_FORMED
}

const fieldsOf = (header: HeaderName) => Object.entries<BitField>(headers[header].fields)

const readHeader = (view: DataView, at: number, header: HeaderName): Record<string, BitValue> =>
  Object.fromEntries(fieldsOf(header).map(([field, bits]) => [field, getBits(view, at, bits)]))

/** A copy as a plain Uint8Array. (The slice of a Buffer would share memory.) */
const copy = (bytes: Uint8Array, from: number, to?: number): Uint8Array => new Uint8Array(bytes.subarray(from, to))

/** Parses exactly one UDP payload. The byte arrays of the record are copies. */
export const parsePacket = (bytes: Uint8Array): Packet => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const fault = checkPacket(view, 0, bytes.length)
  if (fault !== WELL_FORMED) {
    const reason =
      fault === UNKNOWN_OPCODE
        ? `${packetFaults[fault]} 0x${bytes[0].toString(16).padStart(2, '0')}`
        : packetFaults[fault]
    return { kind: 'opaque', reason, bytes: new Uint8Array(bytes) }
  }
  const opcode = opcodeByNumber[bytes[0]]!
  const { opcode: _, padCnt, ...bth } = readHeader(view, 0, 'BTH')
  const record: Record<string, unknown> = { kind: 'packet', name: opcode.name, BTH: bth }
  let at: number = headers.BTH.bytes
  for (const header of opcode.headers) {
    record[header] = readHeader(view, at, header)
    at += headers[header].bytes
  }
  const end = bytes.length - ICRC_BYTES
  const pad = copy(bytes, end - Number(padCnt), end)
  record.payload = copy(bytes, at, end - pad.length)
  if (pad.some(byte => byte !== 0)) record.pad = pad
  record.icrc = view.getUint32(end, true)
  return record as object as WellFormedPacket
}

/** Writes a header into zeroed bytes. Throws a RangeError that names the field if a value does not fit. */
const writeHeader = (
  view: DataView,
  at: number,
  name: string,
  header: HeaderName,
  record: Record<string, BitValue>,
): void => {
  for (const [field, bits] of fieldsOf(header)) {
    const value = record[field]
    const wrong = misfit(bits[1], value)
    if (wrong !== undefined) throw new RangeError(`${name}: ${header}.${field} ${wrong}`)
    putBits(view, at, bits, value)
  }
}

/**
 * The bytes of a packet, BTH to ICRC. The pad is zeros unless the record has one. Throws a RangeError that names the
 * field if a value does not fit.
 */
export const emitPacket = (packet: Packet): Uint8Array => {
  if (packet.kind === 'opaque') return new Uint8Array(packet.bytes)
  const { name, payload, pad, icrc } = packet
  const number = opcodeNumber[name]
  const opcode = opcodeByNumber[number]
  if (opcode === undefined) throw new RangeError(`${name} is not an opcode; spec/wire/opcodes.ts lists the opcodes`)
  if (!opcode.hasPayload && payload.length > 0) {
    throw new RangeError(`${name} has no payload, but the record has one of ${payload.length} bytes`)
  }
  const padCnt = -payload.length & 3
  if (pad !== undefined && pad.length !== padCnt) {
    throw new RangeError(`${name}: a payload of ${payload.length} bytes has ${padCnt} pad bytes, not ${pad.length}`)
  }
  if (!Number.isInteger(icrc) || icrc < 0 || icrc > 0xffff_ffff) {
    throw new RangeError(`${name}: icrc is ${icrc}, allowed is an integer from 0 to 4294967295`)
  }
  const bytes = new Uint8Array(opcode.headerBytes + payload.length + padCnt + ICRC_BYTES)
  const view = new DataView(bytes.buffer)
  writeHeader(view, 0, name, 'BTH', { ...packet.BTH, opcode: number, padCnt })
  let at: number = headers.BTH.bytes
  const records = packet as Partial<Record<HeaderName, Record<string, BitValue>>>
  for (const header of opcode.headers) {
    const record = records[header]
    if (record === undefined) throw new RangeError(`${name} needs a ${header}, which the record lacks`)
    writeHeader(view, at, name, header, record)
    at += headers[header].bytes
  }
  bytes.set(payload, at)
  if (pad !== undefined) bytes.set(pad, at + payload.length)
  view.setUint32(bytes.length - ICRC_BYTES, icrc, true)
  return bytes
}
