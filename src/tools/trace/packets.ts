/*
 * Packets as JSON and as one line of text: `SEND_FIRST qp 0x11 psn 0x3f2a1c A 1024 B`. A line has, in this order:
 * - the opcode without `RC_`, the destination QP, the PSN;
 * - A if AckReq is set, S for a solicited event, and unusual fields of the BTH;
 * - the fields of further headers, and the bytes of payload;
 * - the CM message in the payload, and pad bytes that are not zeros.
 *
 * Names are from spec/wire/opcodes.ts and spec/wire/headers.ts.
 */
import {
  CREDITS_UNLIMITED,
  creditCounts,
  DEFAULT_PKEY,
  flushPlacement,
  flushSelectivity,
  type HeaderName,
  headers,
  nakCode,
  rnrTimerMicroseconds,
  SYNDROME_KIND_MASK,
  SYNDROME_VALUE_MASK,
  syndromeKind,
} from '../../spec/wire/headers.ts'
import { GSI_QPN } from '../../spec/wire/mad.ts'
import { opcodeByNumber, opcodeNumber } from '../../spec/wire/opcodes.ts'
import { type Packet, parsePacket, type WellFormedPacket } from '../../transport/wire/packet.ts'
import { bytesText } from './bytes.ts'
import { cmJson, cmText } from './mad.ts'

type Value = number | bigint | boolean

/** Decimal fields. Other fields are hexadecimal. */
const COUNTS = new Set(['dmaLen', 'msn'])

const hex = (value: Value): string => `0x${value.toString(16)}`
const nameOf = (table: Readonly<Record<string, number>>, value: number): string | undefined =>
  Object.keys(table).find(name => table[name] === value)

const durationText = (microseconds: number): string =>
  microseconds < 1000 ? `${microseconds} µs` : `${microseconds / 1000} ms`

/**
 * The syndrome of an AETH (IBA 9.7.5.1): ACK with credits, RNR NAK with the RNR timer, NAK with its code; the reserved
 * bit if it is set.
 */
export const syndromeText = (syndrome: number): string => {
  const kind = syndrome & SYNDROME_KIND_MASK
  const value = syndrome & SYNDROME_VALUE_MASK
  const reserved = syndrome & ~(SYNDROME_KIND_MASK | SYNDROME_VALUE_MASK)
  if (reserved !== 0) return `${syndromeText(kind | value)} resv ${hex(reserved)}`
  if (kind === syndromeKind.ACK) return value === CREDITS_UNLIMITED ? 'ACK' : `ACK credits ${creditCounts[value]}`
  const name = nameOf(syndromeKind, kind)
  if (kind === syndromeKind.RNR_NAK) return `${name} ${durationText(rnrTimerMicroseconds[value]!)}`
  if (kind === syndromeKind.NAK) return `${name} ${nameOf(nakCode, value) ?? value}`
  return `${name} ${hex(syndrome)}`
}

/** Names of the set bits, and the unknown bits as a number. */
const flagsText = (table: Readonly<Record<string, number>>, value: number): string => {
  const names = Object.keys(table).filter(name => (value & table[name]!) !== 0)
  const unknownBits = Object.values(table).reduce((bits, bit) => bits & ~bit, value)
  return [...names, ...(unknownBits !== 0 || names.length === 0 ? [hex(unknownBits)] : [])].join('|')
}

/** Texts of fields whose values have names. */
const fieldTexts: Readonly<Record<string, (value: number) => string>> = {
  'AETH.syndrome': syndromeText,
  'FETH.sel': value => nameOf(flushSelectivity, value) ?? hex(value),
  'FETH.plt': value => flagsText(flushPlacement, value),
}

const recordOf = (packet: WellFormedPacket, header: HeaderName): Readonly<Record<string, Value>> =>
  (packet as Partial<Record<HeaderName, Record<string, Value>>>)[header] ?? {}

/** The fields of a header after the BTH. */
const headerText = (packet: WellFormedPacket, header: HeaderName): string =>
  Object.keys(headers[header].fields)
    // The compare data of a fetch-and-add means nothing. Reserved bits are shown only if they are set.
    .filter(field => !(field === 'cmpDt' && packet.name.endsWith('FETCH_ADD')))
    .map(field => [field, recordOf(packet, header)[field]] as const)
    .filter(([field, value]) => !(/^resv/.test(field) && Number(value) === 0))
    .map(([field, value]) => {
      const text = fieldTexts[`${header}.${field}`]
      if (text !== undefined) return text(Number(value))
      return `${field} ${COUNTS.has(field) ? value : hex(value!)}`
    })
    .join(' ')

/** Further fields of the BTH that are neither 0 nor the default P_Key. */
const unusualFields = ({ BTH }: WellFormedPacket): string[] => [
  ...(BTH.se ? ['S'] : []),
  ...(BTH.migReq ? ['M'] : []),
  ...(BTH.fecn ? ['FECN'] : []),
  ...(BTH.becn ? ['BECN'] : []),
  ...(BTH.tver !== 0 ? [`tver ${BTH.tver}`] : []),
  ...(BTH.pkey !== DEFAULT_PKEY ? [`pkey ${hex(BTH.pkey)}`] : []),
  ...(BTH.resv6 !== 0 ? [`resv6 ${hex(BTH.resv6)}`] : []),
  ...(BTH.resv7 !== 0 ? [`resv7 ${hex(BTH.resv7)}`] : []),
]

/** The management datagram in a packet. */
const madOf = ({ name, BTH, payload }: WellFormedPacket): Uint8Array | undefined =>
  BTH.destQp === GSI_QPN && name === 'UD_SEND_ONLY' ? payload : undefined

/** One line, without address and time. */
export const packetLine = (packet: Packet): string => {
  if (packet.kind === 'opaque') return `malformed (${packet.reason}): ${bytesText(packet.bytes)}`
  const { name, BTH, payload, pad } = packet
  const opcode = opcodeByNumber[opcodeNumber[name]]!
  const mad = madOf(packet)
  const message = mad && cmText(mad)
  return [
    name.replace(/^RC_/, ''),
    `qp ${hex(BTH.destQp)}`,
    `psn 0x${BTH.psn.toString(16).padStart(6, '0')}`,
    ...(BTH.ackReq ? ['A'] : []),
    ...unusualFields(packet),
    ...opcode.headers.map(header => headerText(packet, header)),
    ...(opcode.hasPayload ? [`${payload.length} B`] : []),
    ...(message === undefined ? [] : [message]),
    ...(pad === undefined ? [] : [`pad ${bytesText(pad)}`]),
  ].join(' ')
}

/** One line for the bytes of a packet, BTH to ICRC. */
export const packetText = (bytes: Uint8Array): string => packetLine(parsePacket(bytes))

/**
 * A packet for `JSON.stringify`: 64-bit fields in hexadecimal, the length of the payload, and a CM message as `cm`. A
 * malformed packet: reason and length.
 */
export const packetJson = (packet: Packet): Record<string, unknown> => {
  if (packet.kind === 'opaque') return { malformed: packet.reason, bytes: packet.bytes.length }
  const { kind: _, payload, pad, icrc, ...fields } = packet
  const mad = madOf(packet)
  const cm = mad && cmJson(mad)
  return JSON.parse(
    JSON.stringify({ ...fields, payload: payload.length, ...(cm && { cm }) }, (_key, value) =>
      typeof value === 'bigint' ? hex(value) : value,
    ),
  )
}
