/*
 * Packets as one line of text and as plain JSON: `SEND_FIRST qp 0x11 psn 0x3f2a1c A 1024 B`. Opcodes, headers and
 * fields have the names of spec/wire/opcodes.ts and spec/wire/headers.ts, so a new opcode appears without a change
 * here; this file adds the meaning of numbers (syndromes, timers, which fields are counts). RC is the default service
 * and is omitted.
 *
 * A line has: operation, destination QP, PSN, A if AckReq is set, S for a solicited event, the fields of further
 * headers, bytes of payload.
 */
import {
  CREDITS_NONE,
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
} from '../spec/wire/headers.ts'
import { GSI_QPN } from '../spec/wire/mad.ts'
import { opcodeByNumber, opcodeNumber } from '../spec/wire/opcodes.ts'
import { type Packet, parsePacket, type WellFormedPacket } from '../wire/packet.ts'
import { bytesText } from './bytes.ts'
import { cmJson, cmText } from './mad.ts'

type Value = number | bigint | boolean

/** Fields that are counts; others are shown in hexadecimal. */
const COUNTS = new Set(['dmaLen', 'msn'])

const hex = (value: Value): string =>
  `0x${Number.isInteger(value) || typeof value === 'bigint' ? value.toString(16) : value}`
const nameOf = (table: Readonly<Record<string, number>>, value: number): string | undefined =>
  Object.keys(table).find(name => table[name] === value)

const microseconds = (value: number): string => (value < 1000 ? `${value} µs` : `${value / 1000} ms`)

/** An AETH's syndrome (IBA 9.7.5.1): ACK with its credits, RNR NAK with its wait, NAK with its reason. */
export const syndromeText = (syndrome: number): string => {
  const kind = syndrome & SYNDROME_KIND_MASK
  const value = syndrome & SYNDROME_VALUE_MASK
  if (kind === syndromeKind.ACK) return value === CREDITS_NONE ? 'ACK' : `ACK credits ${creditCounts[value]}`
  const name = nameOf(syndromeKind, kind)
  if (kind === syndromeKind.RNR_NAK) return `${name} ${microseconds(rnrTimerMicroseconds[value]!)}`
  if (kind === syndromeKind.NAK) return `${name} ${nameOf(nakCode, value) ?? value}`
  return `${name} ${hex(syndrome)}`
}

const flags = (table: Readonly<Record<string, number>>, value: number): string => {
  const names = Object.keys(table).filter(name => (value & table[name]!) !== 0)
  const rest = Object.values(table).reduce((bits, bit) => bits & ~bit, value)
  return [...names, ...(rest !== 0 || names.length === 0 ? [hex(rest)] : [])].join('|')
}

/** Fields with named values. */
const named: Readonly<Record<string, (value: number) => string>> = {
  'AETH.syndrome': syndromeText,
  'FETH.sel': value => nameOf(flushSelectivity, value) ?? hex(value),
  'FETH.plt': value => flags(flushPlacement, value),
}

const recordOf = (packet: WellFormedPacket, header: HeaderName): Readonly<Record<string, Value>> =>
  (packet as Partial<Record<HeaderName, Record<string, Value>>>)[header] ?? {}

/** The relevant fields of one further header. */
const headerText = (packet: WellFormedPacket, header: HeaderName): string =>
  Object.keys(headers[header].fields)
    // Fetch-and-add has no compare data; reserved bits are shown only if they are set.
    .filter(field => !(field === 'cmpDt' && packet.name.endsWith('FETCH_ADD')))
    .map(field => [field, recordOf(packet, header)[field]] as const)
    .filter(([field, value]) => !(/^resv/.test(field) && Number(value) === 0))
    .map(([field, value]) => {
      const text = named[`${header}.${field}`]
      if (text !== undefined) return text(Number(value))
      return `${field} ${COUNTS.has(field) ? value : hex(value!)}`
    })
    .join(' ')

/** Unusual fields of a BTH; the usual values are 0 and the default P_Key. */
const oddities = ({ BTH }: WellFormedPacket): string[] => [
  ...(BTH.se ? ['S'] : []),
  ...(BTH.migReq ? ['M'] : []),
  ...(BTH.fecn ? ['FECN'] : []),
  ...(BTH.becn ? ['BECN'] : []),
  ...(BTH.tver !== 0 ? [`tver ${BTH.tver}`] : []),
  ...(BTH.pkey !== DEFAULT_PKEY ? [`pkey ${hex(BTH.pkey)}`] : []),
  ...(BTH.resv6 !== 0 ? [`resv6 ${hex(BTH.resv6)}`] : []),
  ...(BTH.resv7 !== 0 ? [`resv7 ${hex(BTH.resv7)}`] : []),
]

/** The management datagram in a datagram to queue pair 1. */
const madOf = ({ name, BTH, payload }: WellFormedPacket): Uint8Array | undefined =>
  BTH.destQp === GSI_QPN && name === 'UD_SEND_ONLY' ? payload : undefined

/** One line for a packet, without address and time. */
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
    ...oddities(packet),
    ...opcode.headers.map(header => headerText(packet, header)),
    ...(opcode.payload ? [`${payload.length} B`] : []),
    ...(message === undefined ? [] : [message]),
    ...(pad === undefined ? [] : [`pad ${bytesText(pad)}`]),
  ].join(' ')
}

/** One line for the bytes of a packet, BTH to ICRC. */
export const packetText = (bytes: Uint8Array): string => packetLine(parsePacket(bytes))

/**
 * A packet for `JSON.stringify`: 64-bit fields in hexadecimal, payload and opaque bytes as their number, a CM message
 * as `cm`.
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
