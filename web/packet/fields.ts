/*
 * The fields of a packet with the bytes they are in, from the tables of spec/wire. Names of filters are Wireshark's
 * where it has the field.
 */
import { type BitField, type Header, type HeaderName, headers } from '../../src/spec/wire/headers.ts'
import { headerAt, opcodeByNumber } from '../../src/spec/wire/opcodes.ts'
import { syndromeText } from '../../src/tools/trace/packets.ts'
import { type BitValue, getBits } from '../../src/transport/wire/bits.ts'
import { countText, exactBytesText } from '../format.ts'

export interface PacketField {
  readonly name: string
  /** For filters: `infiniband.bth.psn`. */
  readonly filter: string
  readonly value: BitValue
  readonly text: string
  /** Bytes of the packet, from the BTH on: [start, end). */
  readonly start: number
  readonly end: number
  /** Bits of these bytes, if the field has not all: `bits 1–2`. */
  readonly bits: string
}

interface PacketHeader {
  readonly name: HeaderName
  readonly title: string
  readonly start: number
  readonly end: number
  readonly fields: readonly PacketField[]
}

const TITLES: Readonly<Record<HeaderName, string>> = {
  BTH: 'Base transport header',
  RETH: 'RDMA extended header',
  AETH: 'Acknowledge header',
  AtomicETH: 'Atomic header',
  AtomicAckETH: 'Atomic acknowledge header',
  DETH: 'Datagram header',
  ImmDt: 'Immediate data',
  IETH: 'Invalidate header',
  FETH: 'Flush header',
  XRCETH: 'XRC header',
  SRDETH: 'SRD header',
  SRDAETH: 'SRD acknowledge header',
  SRDNAK: 'SRD refusal header',
  DCETH: 'DC connection header',
  DCAETH: 'DC answer header',
}

const MEANINGS: Readonly<Record<string, string>> = {
  'BTH.opcode': 'Opcode',
  'BTH.se': 'Solicited event',
  'BTH.migReq': 'Path migration state',
  'BTH.padCnt': 'Pad bytes',
  'BTH.tver': 'Header version',
  'BTH.pkey': 'Partition key',
  'BTH.fecn': 'Congestion seen on the way (FECN)',
  'BTH.becn': 'Congestion reported back (BECN)',
  'BTH.resv6': 'Reserved',
  'BTH.destQp': 'Destination queue pair',
  'BTH.ackReq': 'Acknowledge requested',
  'BTH.resv7': 'Reserved',
  'BTH.psn': 'Packet sequence number',
  'RETH.va': 'Remote address',
  'RETH.rkey': 'Remote key',
  'RETH.dmaLen': 'Bytes of the message',
  'AETH.syndrome': 'Syndrome',
  'AETH.msn': 'Message sequence number',
  'AtomicETH.va': 'Remote address',
  'AtomicETH.rkey': 'Remote key',
  'AtomicETH.swapDt': 'Value to swap or add',
  'AtomicETH.cmpDt': 'Value to compare',
  'AtomicAckETH.origRemDt': 'Value before the operation',
  'DETH.qkey': 'Queue key',
  'DETH.resv8': 'Reserved',
  'DETH.srcQp': 'Source queue pair',
  'ImmDt.immDt': 'Immediate data',
  'IETH.rkey': 'Key to invalidate',
  'FETH.resv26': 'Reserved',
  'FETH.sel': 'Selectivity',
  'FETH.plt': 'Placement',
  'XRCETH.resv8': 'Reserved',
  'XRCETH.xrcSrq': 'Shared receive queue',
}

/** Wireshark's names. Those that it lacks are formed in the same way. */
const FILTERS: Readonly<Record<string, string>> = {
  'BTH.se': 'se',
  'BTH.migReq': 'm',
  'BTH.padCnt': 'padcnt',
  'BTH.pkey': 'p_key',
  'BTH.destQp': 'destqp',
  'BTH.ackReq': 'a',
  'RETH.rkey': 'r_key',
  'AtomicETH.rkey': 'r_key',
  'AtomicETH.swapDt': 'swapdt',
  'AtomicETH.cmpDt': 'cmpdt',
  'AtomicAckETH.origRemDt': 'origremdt',
  'DETH.qkey': 'q_key',
  'DETH.srcQp': 'srcqp',
}

const filterOf = (header: HeaderName, field: string): string =>
  // Wireshark shows these headers as their only field.
  header === 'ImmDt' || header === 'IETH'
    ? `infiniband.${header.toLowerCase()}`
    : `infiniband.${header.toLowerCase()}.${FILTERS[`${header}.${field}`] ?? field.toLowerCase()}`

const COUNTS = new Set(['tver', 'msn'])
const SIZES = new Set(['padCnt', 'dmaLen'])

const textOf = (header: HeaderName, field: string, value: BitValue, width: number): string => {
  if (typeof value === 'boolean') return value ? '1' : '0'
  if (COUNTS.has(field)) return countText(Number(value))
  if (SIZES.has(field)) return exactBytesText(Number(value))
  const hex = `0x${value.toString(16).padStart(Math.ceil(width / 4), '0')}`
  if (header === 'BTH' && field === 'opcode') return `${hex}  ${opcodeByNumber[Number(value)]?.name ?? 'undefined'}`
  if (header === 'AETH' && field === 'syndrome') return `${hex}  ${syndromeText(Number(value))}`
  if (field === 'destQp' || field === 'srcQp') return `${hex}  ${value}`
  return hex
}

const fieldOf = (view: DataView, at: number, header: HeaderName, name: string, bits: BitField): PacketField => {
  const [first, width] = bits
  const value = getBits(view, at, bits)
  const isWhole = first % 8 === 0 && width % 8 === 0
  const from = first % 8
  return {
    name: MEANINGS[`${header}.${name}`] ?? name,
    filter: filterOf(header, name),
    value,
    text: textOf(header, name, value, width),
    start: at + (first >> 3),
    end: at + ((first + width + 7) >> 3),
    bits: isWhole ? '' : width === 1 ? `bit ${from}` : `bits ${from}–${from + width - 1}`,
  }
}

const headerOf = (view: DataView, at: number, name: HeaderName): PacketHeader => {
  const { bytes, fields }: Header = headers[name]
  const list = Object.entries(fields).map(([field, bits]) => fieldOf(view, at, name, field, bits))
  return { name, title: TITLES[name], start: at, end: at + bytes, fields: list }
}

/** The headers that are whole in `bytes`, which begin with the BTH. */
export const packetHeaders = (bytes: Uint8Array): PacketHeader[] => {
  if (bytes.length < headers.BTH.bytes) return []
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const found = [headerOf(view, 0, 'BTH')]
  let at: number = headers.BTH.bytes
  for (const name of opcodeByNumber[bytes[0]!]?.headers ?? []) {
    const end = at + headers[name].bytes
    if (end > bytes.length) break
    found.push(headerOf(view, at, name))
    at = end
  }
  return found
}

/** Where each field is, by the name of its filter. */
const places = new Map(
  (Object.keys(headers) as HeaderName[]).flatMap(header =>
    Object.entries(headers[header].fields).map(
      ([field, bits]) => [filterOf(header, field), { header, bits: bits as BitField }] as const,
    ),
  ),
)

/** The value of a packet's field by the name of its filter; undefined: the packet lacks it. */
export const packetValue = (bytes: Uint8Array, name: string): BitValue | undefined => {
  const place = places.get(name)
  if (place === undefined || bytes.length < headers.BTH.bytes) return undefined
  const { header, bits } = place
  const at = header === 'BTH' ? 0 : headerAt[header][bytes[0]!]!
  if ((header !== 'BTH' && at === 0) || at + headers[header].bytes > bytes.length) return undefined
  return getBits(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), at, bits)
}

/** All names of fields, for help and completion. */
export const fieldNames: readonly string[] = [
  ...new Set(
    (Object.keys(headers) as HeaderName[]).flatMap(header =>
      Object.keys(headers[header].fields)
        .filter(field => !field.startsWith('resv'))
        .map(field => filterOf(header, field)),
    ),
  ),
]
