/*
 * Messages of NETLINK_RDMA sockets as text, by the tables of the device interface (spec/linux/nldev.ts). Other clients'
 * messages and unknown attributes are left out or shown as bytes. Nothing throws.
 */
import { errnoName } from '../../spec/errno.ts'
import { NldevCommands, NlmsgFlags, NlmsgType, nldevType } from '../../spec/linux/nldev.ts'
import { decodeAttributes, type Entries, type EntryValue } from '../../uapi/nldev/attributes.ts'
import { MESSAGE_HEADER, type Message, readMessages } from '../../uapi/nldev/messages.ts'
import { viewOf } from '../../uapi/scalar.ts'
import { bytesText } from './bytes.ts'

const MAX_BYTES = 32
/** Maximum characters of `detail`. */
const MAX_DETAIL = 2000

const commandNames = new Map(Object.entries(NldevCommands).map(([name, { number }]) => [nldevType(number), name]))

const isEntries = (value: EntryValue): value is Entries => Array.isArray(value)

const valueText = (value: EntryValue): string => {
  if (typeof value === 'string') return JSON.stringify(value)
  if (value instanceof Uint8Array) return bytesText(value, MAX_BYTES)
  if (isEntries(value)) return `{${entriesText(value)}}`
  return typeof value === 'object' ? `{${entriesText(value.flagged)}}` : String(value)
}

const entriesText = (entries: Entries): string =>
  entries.map(([name, value]) => `${name} ${valueText(value)}`).join(', ')

const nameOf = ({ type, flags }: Message): string => {
  if (type === NlmsgType.DONE) return 'DONE'
  if (type === NlmsgType.OVERRUN) return 'OVERRUN'
  if (type === NlmsgType.ERROR) return 'ACK'
  const name = commandNames.get(type) ?? `client ${type >> 10} operation ${type & 0x3ff}`
  const isList = (flags & NlmsgFlags.REQUEST) !== 0 && (flags & NlmsgFlags.DUMP) !== 0
  return isList ? `${name} list` : name
}

/** The result in the body of ERROR or DONE; empty: success, or no result. */
const resultText = (body: Uint8Array): string => {
  const result = body.length < 4 ? 0 : viewOf(body).getInt32(0, true)
  return result < 0 ? errnoName(-result) : ''
}

const bodyText = ({ type, body }: Message): string => {
  if (type === NlmsgType.ERROR || type === NlmsgType.DONE) return resultText(body)
  return commandNames.has(type) ? entriesText(decodeAttributes(body)) : bytesText(body, MAX_BYTES)
}

/** The name of a datagram's first message, with the number of the others, and the contents of all. */
export const netlinkText = (datagram: Uint8Array): { readonly name: string; readonly detail: string } => {
  const messages = readMessages(datagram)
  const [first, ...others] = messages
  if (first === undefined)
    return { name: 'no message', detail: bytesText(datagram.subarray(0, MESSAGE_HEADER), MAX_BYTES) }
  const name = others.length === 0 ? nameOf(first) : `${nameOf(first)} and ${others.length} more`
  const detail = messages.map(bodyText).filter(Boolean).join('; ')
  return { name, detail: detail.length > MAX_DETAIL ? `${detail.slice(0, MAX_DETAIL)}…` : detail }
}
