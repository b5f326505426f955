/*
 * Management datagrams of any class (tables in spec/wire/mad.ts and spec/wire/management.ts): the fields that determine
 * the agent of a datagram, and the header of the reliable multi-packet protocol (RMPP).
 */
import { MAD_BYTES, madHeader } from '../../../spec/wire/mad.ts'
import {
  BASEBOARD_RESPONSE,
  dataOffset,
  isVendorClass,
  MadClass,
  MadMethod,
  RMPP_HEADER_END,
  RMPP_VERSION,
  RmppFlag,
  rmppHeader,
  VENDOR_OUI_OFFSET,
} from '../../../spec/wire/management.ts'
import { type FieldValue, getBits, putBits } from '../bits.ts'

const viewOf = (mad: Uint8Array): DataView => new DataView(mad.buffer, mad.byteOffset, mad.byteLength)

export interface MadFields {
  readonly baseVersion: number
  readonly mgmtClass: number
  readonly classVersion: number
  /** The method, including MadMethod.RESPONSE. */
  readonly method: number
  readonly attribute: number
  readonly tid: bigint
  /** 0 for classes without an OUI, and if the datagram ends before the OUI. */
  readonly oui: number
  /** Whether the datagram is a response to a datagram of its receiver. */
  readonly isResponse: boolean
}

/** `mad` must have at least the common header. */
export const madFields = (mad: Uint8Array): MadFields => {
  const view = viewOf(mad)
  const field = (name: Exclude<keyof typeof madHeader, 'tid'>): number => Number(getBits(view, 0, madHeader[name]))
  const [mgmtClass, method] = [field('mgmtClass'), field('method')]
  const hasOui = isVendorClass(mgmtClass) && mad.length >= VENDOR_OUI_OFFSET + 3
  const isBaseboardResponse = mgmtClass === MadClass.BASEBOARD && (field('modifier') & BASEBOARD_RESPONSE) !== 0
  return {
    baseVersion: field('baseVersion'),
    mgmtClass,
    classVersion: field('classVersion'),
    method,
    attribute: field('attribute'),
    tid: getBits(view, 0, madHeader.tid) as bigint,
    oui: hasOui ? view.getUint32(VENDOR_OUI_OFFSET - 1) & 0xff_ffff : 0,
    isResponse: (method & MadMethod.RESPONSE) !== 0 || method === MadMethod.TRAP_REPRESS || isBaseboardResponse,
  }
}

const [METHOD_AT, STATUS_AT, TID_AT] = [madHeader.method[0] >> 3, madHeader.status[0] >> 3, madHeader.tid[0] >> 3]

/** The upper half of the transaction id, which identifies the requesting agent. */
export const tidHigh = (tid: bigint): number => Number(tid >> 32n)

export const setTidHigh = (mad: Uint8Array, high: number): void => viewOf(mad).setUint32(TID_AT, high)

/** The response to `mad`: the same datagram with method GetResp and `status`. */
export const respond = (mad: Uint8Array, status: number): Uint8Array => {
  const response = mad.slice()
  response[METHOD_AT] = MadMethod.GET | MadMethod.RESPONSE
  viewOf(response).setUint16(STATUS_AT, status)
  return response
}

// ---- reliable multi-packet protocol ----

export type RmppFields = { readonly [F in keyof typeof rmppHeader]: FieldValue<(typeof rmppHeader)[F]> }

const rmppNames = Object.keys(rmppHeader) as (keyof typeof rmppHeader)[]

/** `mad` must have MAD_BYTES bytes. */
export const parseRmpp = (mad: Uint8Array): RmppFields => {
  const view = viewOf(mad)
  return Object.fromEntries(rmppNames.map(name => [name, getBits(view, 0, rmppHeader[name])])) as RmppFields
}

const RMPP_AT = rmppHeader.version[0] >> 3

/**
 * A datagram of MAD_BYTES bytes. `header`: the bytes before the data (common header, RMPP header, class header). `rmpp`
 * replaces the RMPP header of `header`; absent fields are 0.
 */
export const emitRmpp = (
  header: Uint8Array,
  rmpp: Partial<RmppFields>,
  data: Uint8Array = new Uint8Array(0),
): Uint8Array => {
  const mad = new Uint8Array(MAD_BYTES)
  mad.set(header)
  mad.fill(0, RMPP_AT, RMPP_HEADER_END)
  mad.set(data, header.length)
  const view = viewOf(mad)
  for (const name of rmppNames) putBits(view, 0, rmppHeader[name], rmpp[name] ?? 0)
  return mad
}

/** An ACK, STOP or ABORT for the sender of `mad`: a response if `mad` is a request, a request if it is a response. */
export const answerRmpp = (mad: Uint8Array, rmpp: Partial<RmppFields>): Uint8Array => {
  const header = mad.slice(0, dataOffset(madFields(mad).mgmtClass))
  header[METHOD_AT] = header[METHOD_AT]! ^ MadMethod.RESPONSE
  return emitRmpp(header, { version: RMPP_VERSION, flags: RmppFlag.ACTIVE, ...rmpp })
}
