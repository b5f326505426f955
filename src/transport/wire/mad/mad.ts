/*
 * Messages of communication management as records, by the tables of spec/wire/mad.ts. `parseCm` and `emitCm` are
 * inverses for messages that are zero outside the fields of the tables. Also rdma_cm's header at the start of the
 * private data, and its service ids (annex A11).
 */
import { smallBytes } from '../../../spec/memory.ts'
import type { BitField } from '../../../spec/wire/headers.ts'
import {
  type ByteField,
  CM_CLASS,
  CM_CLASS_VERSION,
  type CmMessageName,
  cmMessages,
  GSI_QPN,
  MAD_BASE_VERSION,
  MAD_BYTES,
  MAD_METHOD_SEND,
  type MessageLayout,
  madHeader,
  rdmaCmHeader,
} from '../../../spec/wire/mad.ts'
import { opcodeNumber } from '../../../spec/wire/opcodes.ts'
import { type BitValue, type FieldValue, getBits, misfit, putBits } from '../bits.ts'
import { BTH_BYTES, bthDestQp, bthOpcode } from '../bth.ts'

/** The record of a layout: its bit fields and byte arrays. */
export type LayoutRecord<L extends MessageLayout> = {
  readonly [F in keyof L['fields']]: FieldValue<L['fields'][F]>
} & { readonly [B in keyof L['blobs']]: Uint8Array }

export type CmMessage<N extends CmMessageName = CmMessageName> = {
  [M in N]: { readonly name: M; readonly tid: bigint } & LayoutRecord<(typeof cmMessages)[M]>
}[N]

/** A message to emit: absent bit fields are 0; absent or short byte arrays are padded with zeros. */
export type CmDraft<N extends CmMessageName = CmMessageName> = {
  [M in N]: { readonly name: M; readonly tid: bigint } & Partial<LayoutRecord<(typeof cmMessages)[M]>>
}[N]

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** The entries of a layout's objects, computed once. */
interface LayoutEntries {
  readonly fields: readonly (readonly [name: string, bits: BitField])[]
  readonly blobs: readonly (readonly [name: string, field: ByteField])[]
}
const entriesByLayout = new WeakMap<MessageLayout, LayoutEntries>()
const entriesOf = (layout: MessageLayout): LayoutEntries => {
  let entries = entriesByLayout.get(layout)
  if (entries === undefined) {
    entries = { fields: Object.entries(layout.fields), blobs: Object.entries(layout.blobs) }
    entriesByLayout.set(layout, entries)
  }
  return entries
}

const readLayout = (bytes: Uint8Array, at: number, layout: MessageLayout): Record<string, BitValue | Uint8Array> => {
  const view = viewOf(bytes)
  const record: Record<string, BitValue | Uint8Array> = {}
  const { fields, blobs } = entriesOf(layout)
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
  const { fields, blobs } = entriesOf(layout)
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
      const actual = value instanceof Uint8Array ? `${value.length} bytes` : typeof value
      throw new RangeError(`${name}: ${field} is ${actual}, allowed is a Uint8Array of at most ${length} bytes`)
    }
    bytes.set(value, at + offset)
  }
}

/** The first four bytes of every message: base version, class, class version, method. */
const FIRST_WORD = (MAD_BASE_VERSION << 24) | (CM_CLASS << 16) | (CM_CLASS_VERSION << 8) | MAD_METHOD_SEND
const TID_AT = madHeader.tid[0] >> 3
const ATTRIBUTE_AT = madHeader.attribute[0] >> 3

/** A message whose fields are decoded when they are read, by accessors that `viewClass` adds. */
class MessageView {
  readonly bytes: Uint8Array
  readonly view: DataView

  constructor(bytes: Uint8Array, view: DataView) {
    this.bytes = bytes
    this.view = view
  }
}

const viewClass = (name: CmMessageName): typeof MessageView => {
  class View extends MessageView {}
  const { fields, blobs } = entriesOf(cmMessages[name])
  const define = (field: string, get: (this: MessageView) => unknown): void => {
    Object.defineProperty(View.prototype, field, { get })
  }
  define('name', () => name)
  for (const [field, bits] of [['tid', madHeader.tid] as const, ...fields])
    define(field, function () {
      return getBits(this.view, 0, bits)
    })
  for (const [field, { offset, bytes: length }] of blobs)
    define(field, function () {
      return this.bytes.subarray(offset, offset + length)
    })
  return View
}

const names = Object.keys(cmMessages) as CmMessageName[]
const namesByAttribute = new Map<number, CmMessageName>(names.map(name => [cmMessages[name].attribute, name]))
const viewsByAttribute = new Map(names.map(name => [cmMessages[name].attribute as number, viewClass(name)]))

/**
 * The message in `bytes`, the payload of a packet to queue pair 1. Undefined if size, class, versions, method or
 * attribute are not those of a CM message. The result decodes fields when they are read: `bytes` must not change
 * meanwhile. Its byte arrays are views of `bytes`.
 */
export const viewCm = (bytes: Uint8Array): CmMessage | undefined => {
  if (bytes.length !== MAD_BYTES) return undefined
  const view = viewOf(bytes)
  if (view.getInt32(0) !== FIRST_WORD) return undefined
  const View = viewsByAttribute.get(view.getUint16(ATTRIBUTE_AT))
  return View && (new View(bytes, view) as object as CmMessage)
}

/** Where a MAD begins in its packet: behind BTH and DETH. */
const MAD_AT = BTH_BYTES + 8

/** The name of the CM message in a packet of `bytes` bytes; undefined for any other packet. Allocates nothing. */
export const cmNameIn = (view: DataView, packet: number, bytes: number): CmMessageName | undefined => {
  if (bytes < MAD_AT + MAD_BYTES || bthOpcode(view, packet) !== opcodeNumber.UD_SEND_ONLY) return undefined
  if (bthDestQp(view, packet) !== GSI_QPN || view.getInt32(packet + MAD_AT) !== FIRST_WORD) return undefined
  return namesByAttribute.get(view.getUint16(packet + MAD_AT + ATTRIBUTE_AT))
}

/** As `viewCm`, but the result is a plain record. */
export const parseCm = (bytes: Uint8Array): CmMessage | undefined => {
  const message = viewCm(bytes)
  if (message === undefined) return undefined
  const { name, tid } = message
  return { name, tid, ...readLayout(bytes, 0, cmMessages[name]) } as CmMessage
}

/** The 256 bytes of a message. Throws a RangeError that names the field if a value does not fit. */
export const emitCm = (message: CmDraft): Uint8Array => {
  const bytes = smallBytes(MAD_BYTES)
  const view = viewOf(bytes)
  const { name, tid } = message
  const wrong = misfit(madHeader.tid[1], tid)
  if (wrong !== undefined) throw new RangeError(`MAD: tid ${wrong}`)
  view.setInt32(0, FIRST_WORD)
  view.setBigUint64(TID_AT, tid)
  view.setUint16(ATTRIBUTE_AT, cmMessages[name].attribute)
  writeLayout(bytes, 0, name, cmMessages[name], message)
  return bytes
}

/** rdma_cm's header (annex A11). */
export interface RdmaCmHeader {
  /** 4 or 6. */
  readonly ipVersion: number
  readonly port: number
  /** 16 bytes; an IPv4 address is in the last 4, after 12 zeros. */
  readonly source: Uint8Array
  readonly destination: Uint8Array
}

/** The header at the start of private data. Undefined if the data are too short, or a version is unknown. */
export const parseRdmaCmHeader = (privateData: Uint8Array): RdmaCmHeader | undefined => {
  if (privateData.length < rdmaCmHeader.bytes) return undefined
  const view = viewOf(privateData)
  const { fields, blobs } = rdmaCmHeader
  const ipVersion = getBits(view, 0, fields.ipVersion) as number
  if (getBits(view, 0, fields.version) !== 0 || (ipVersion !== 4 && ipVersion !== 6)) return undefined
  const bytesOf = ({ offset, bytes }: ByteField): Uint8Array => privateData.subarray(offset, offset + bytes)
  const port = getBits(view, 0, fields.port) as number
  return { ipVersion, port, source: bytesOf(blobs.source), destination: bytesOf(blobs.destination) }
}

/** The header with the application's private data after it. */
export const emitRdmaCmHeader = (header: RdmaCmHeader, applicationData: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(rdmaCmHeader.bytes + applicationData.length)
  writeLayout(bytes, 0, 'rdma_cm header', rdmaCmHeader, { version: 0, ...header })
  bytes.set(applicationData, rdmaCmHeader.bytes)
  return bytes
}

/** The service id of a port in a port space of rdma_cm (RDMA_PS_TCP 0x106, RDMA_PS_UDP 0x111, …). */
export const rdmaCmServiceId = (portSpace: number, port: number): bigint => (BigInt(portSpace) << 16n) | BigInt(port)
