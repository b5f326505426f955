/*
 * Messages of communication management as plain records: `parseCm` and `emitCm`, driven by spec/wire/mad.ts and
 * inverse to each other for every message whose reserved bits are zero. Also the header that rdma_cm puts in front of
 * the private data, and its service ids (annex A11). A MAD of another class, version or method, or of another size, is
 * no message:
 * `parseCm` answers undefined. This file knows the bytes only; which message is legal when is cm/'s business.
 */
import type { BitField } from '../spec/wire/headers.ts'
import {
  type ByteField,
  CM_CLASS,
  CM_CLASS_VERSION,
  type CmMessageName,
  cmMessages,
  MAD_BASE_VERSION,
  MAD_BYTES,
  MAD_METHOD_SEND,
  type MessageLayout,
  madHeader,
  rdmaCmHeader,
} from '../spec/wire/mad.ts'
import { type BitValue, type FieldValue, getBits, misfit, putBits } from './bits.ts'

/** The record of a layout: its bit fields, and a Uint8Array for each run of bytes. */
export type LayoutRecord<L extends MessageLayout> = {
  readonly [F in keyof L['fields']]: FieldValue<L['fields'][F]>
} & { readonly [B in keyof L['blobs']]: Uint8Array }

/** One message: its name, its transaction id, and the fields of its layout. */
export type CmMessage<N extends CmMessageName = CmMessageName> = {
  [M in N]: { readonly name: M; readonly tid: bigint } & LayoutRecord<(typeof cmMessages)[M]>
}[N]

/** A message to write: bits that are left out are zero, bytes that are left out or short end in zeros. */
export type CmDraft<N extends CmMessageName = CmMessageName> = {
  [M in N]: { readonly name: M; readonly tid: bigint } & Partial<LayoutRecord<(typeof cmMessages)[M]>>
}[N]

const nameByAttribute = new Map<number, CmMessageName>(
  (Object.keys(cmMessages) as CmMessageName[]).map(name => [cmMessages[name].attribute, name]),
)

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** A layout as lists, made once. */
interface Listed {
  readonly fields: readonly (readonly [name: string, bits: BitField])[]
  readonly blobs: readonly (readonly [name: string, field: ByteField])[]
}
const lists = new WeakMap<MessageLayout, Listed>()
const listed = (layout: MessageLayout): Listed => {
  let found = lists.get(layout)
  if (found === undefined) {
    found = { fields: Object.entries(layout.fields), blobs: Object.entries(layout.blobs) }
    lists.set(layout, found)
  }
  return found
}

const readLayout = (bytes: Uint8Array, at: number, layout: MessageLayout): Record<string, BitValue | Uint8Array> => {
  const view = viewOf(bytes)
  const record: Record<string, BitValue | Uint8Array> = {}
  const { fields, blobs } = listed(layout)
  for (const [field, bits] of fields) record[field] = getBits(view, at, bits)
  for (const [field, { offset, bytes: length }] of blobs)
    record[field] = bytes.subarray(at + offset, at + offset + length)
  return record
}

const writeLayout = (
  bytes: Uint8Array,
  at: number,
  name: string,
  layout: MessageLayout,
  record: Readonly<Record<string, unknown>>,
): void => {
  const view = viewOf(bytes)
  const { fields, blobs } = listed(layout)
  for (const [field, bits] of fields) {
    const value = record[field]
    if (value === undefined) continue
    const wrong = misfit(bits[1], value)
    if (wrong !== undefined) throw new RangeError(`${name}: ${field} ${wrong}`)
    putBits(view, at, bits, value as BitValue)
  }
  for (const [field, { offset, bytes: length }] of blobs) {
    const value = record[field]
    if (value === undefined) continue
    if (!(value instanceof Uint8Array) || value.length > length) {
      const what = value instanceof Uint8Array ? `${value.length} bytes` : typeof value
      throw new RangeError(`${name}: ${field} is ${what}, allowed is a Uint8Array of at most ${length} bytes`)
    }
    bytes.set(value, at + offset)
  }
}

const headerLayout: MessageLayout = { fields: madHeader, blobs: {} }

/** The message in `bytes`, the payload of a packet to queue pair 1; its byte fields are parts of it. Undefined: no CM. */
export const parseCm = (bytes: Uint8Array): CmMessage | undefined => {
  if (bytes.length !== MAD_BYTES) return undefined
  const view = viewOf(bytes)
  const field = (bits: BitField): number => Number(getBits(view, 0, bits))
  const isCm =
    field(madHeader.baseVersion) === MAD_BASE_VERSION &&
    field(madHeader.mgmtClass) === CM_CLASS &&
    field(madHeader.classVersion) === CM_CLASS_VERSION &&
    field(madHeader.method) === MAD_METHOD_SEND
  const name = isCm ? nameByAttribute.get(field(madHeader.attribute)) : undefined
  if (name === undefined) return undefined
  const record = readLayout(bytes, 0, cmMessages[name])
  return { name, tid: view.getBigUint64(madHeader.tid[0] >> 3), ...record } as CmMessage
}

/**
 * The 256 bytes of a message. Throws a RangeError that names the field for a value that does not fit, and for bytes
 * that are too many.
 */
export const emitCm = (message: CmDraft): Uint8Array => {
  const bytes = new Uint8Array(MAD_BYTES)
  const layout = cmMessages[message.name]
  const header = {
    baseVersion: MAD_BASE_VERSION,
    mgmtClass: CM_CLASS,
    classVersion: CM_CLASS_VERSION,
    method: MAD_METHOD_SEND,
    tid: message.tid,
    attribute: layout.attribute,
  }
  writeLayout(bytes, 0, 'MAD', headerLayout, header)
  writeLayout(bytes, 0, message.name, layout, message)
  return bytes
}

/** The header of rdma_cm (annex A11): who connects, from which port, to which address. */
export interface RdmaCmHeader {
  /** 4 or 6. */
  readonly ipVersion: number
  readonly port: number
  /** 16 bytes; an IPv4 address is the last 4, behind 12 zeros. */
  readonly source: Uint8Array
  readonly destination: Uint8Array
}

/** The header at the start of private data; undefined if there is none of version 0 with an IP version. */
export const parseRdmaCmHeader = (privateData: Uint8Array): RdmaCmHeader | undefined => {
  if (privateData.length < rdmaCmHeader.bytes) return undefined
  const { version, ...header } = readLayout(privateData, 0, rdmaCmHeader) as LayoutRecord<typeof rdmaCmHeader>
  return version === 0 && (header.ipVersion === 4 || header.ipVersion === 6) ? header : undefined
}

/** Private data that begins with the header; the application's own follows. */
export const emitRdmaCmHeader = (header: RdmaCmHeader, own: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(rdmaCmHeader.bytes + own.length)
  writeLayout(bytes, 0, 'rdma_cm header', rdmaCmHeader, { version: 0, ...header })
  bytes.set(own, rdmaCmHeader.bytes)
  return bytes
}

/** The service id of a port in a port space of rdma_cm (RDMA_PS_TCP 0x106, RDMA_PS_UDP 0x111, …). */
export const rdmaCmServiceId = (portSpace: number, port: number): bigint => (BigInt(portSpace) << 16n) | BigInt(port)
