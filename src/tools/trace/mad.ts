/*
 * CM messages (REQ, REP, …) in packets to queue pair 1, as text with some fields and as JSON with all fields:
 *
 *   REQ localId 0x5c01 serviceId 0x1061b58 qpn 0x11 startingPsn 0x3f2a1c
 */
import { hexBytes } from '../../base/text.ts'
import { aprStatus, type CmMessageName, cmAnswered, rejReason, sidrStatus } from '../../spec/wire/mad.ts'
import { type CmMessage, parseCm } from '../../transport/wire/mad/mad.ts'

const shownFields: Readonly<Record<CmMessageName, readonly string[]>> = {
  REQ: ['localId', 'serviceId', 'qpn', 'startingPsn'],
  MRA: ['localId', 'remoteId', 'message', 'serviceTimeout'],
  REJ: ['localId', 'remoteId', 'message', 'reason'],
  REP: ['localId', 'remoteId', 'qpn', 'startingPsn'],
  RTU: ['localId', 'remoteId'],
  DREQ: ['localId', 'remoteId', 'remoteQpn'],
  DREP: ['localId', 'remoteId'],
  SIDR_REQ: ['requestId', 'serviceId'],
  SIDR_REP: ['requestId', 'status', 'qpn', 'qkey'],
  LAP: ['localId', 'remoteId', 'remoteQpn'],
  APR: ['localId', 'remoteId', 'status'],
}

/** Names of values, by message and field. */
const valueNames: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  'REJ.reason': rejReason,
  'REJ.message': cmAnswered,
  'MRA.message': cmAnswered,
  'SIDR_REP.status': sidrStatus,
  'APR.status': aprStatus,
}

const valueText = (message: CmMessageName, field: string, value: number | bigint): string => {
  const table = valueNames[`${message}.${field}`] ?? {}
  return Object.keys(table).find(key => table[key] === value) ?? `0x${value.toString(16)}`
}

/** One of `shownFields`. */
const fieldOf = (message: CmMessage, field: string): number | bigint =>
  (message as object as Readonly<Record<string, number | bigint>>)[field]!

/** The text of a MAD; undefined: not a CM message. */
export const cmText = (mad: Uint8Array): string | undefined => {
  const message = parseCm(mad)
  if (message === undefined) return undefined
  const { name } = message
  return [name, ...shownFields[name].map(field => `${field} ${valueText(name, field, fieldOf(message, field))}`)].join(
    ' ',
  )
}

/**
 * All fields for `JSON.stringify`; undefined: not a CM message. Numbers of 64 bits and byte arrays, GIDs too, are
 * hexadecimal text; that of byte arrays lacks trailing zero bytes.
 */
export const cmJson = (mad: Uint8Array): Record<string, unknown> | undefined => {
  const message = parseCm(mad)
  if (message === undefined) return undefined
  return Object.fromEntries(
    Object.entries(message).map(([field, value]) => {
      if (typeof value === 'bigint') return [field, `0x${value.toString(16)}`]
      if (!(value instanceof Uint8Array)) return [field, value]
      return [field, hexBytes(value).replace(/(00)+$/, '')]
    }),
  )
}
