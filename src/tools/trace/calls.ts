/*
 * Calls of the ABI as text in the style of strace, and as JSON:
 *
 *   [pid 123 ibv_rc_pingpong] fd 3 rc_qp.modify(object 3, state RTR, address {…}, pathMtu MTU_1024, …) = 0 <0.000034>
 *   [pid 123 a.out] fd 3 cq.create(cqe 0, …) = -1 EINVAL (cq.create: attribute cqe: 0 is below 1) <0.000011>
 *
 * Calls of every dialect have the names of spec/: the record (spec/records.ts) has all calls in the object dialect.
 * Outputs and new descriptors are in braces after the return value. Parts that cannot be decoded are shown as bytes.
 */

import type { TormentHeld } from '../../spec/check/torment.ts'
import { errnoName } from '../../spec/errno.ts'
import { printable } from '../../spec/printable.ts'
import type { FailureRecord, TormentRecord, TraceRecord } from '../../spec/records.ts'
import type { AnyRecord } from '../../spec/schema/schema.ts'
import { classText } from '../../spec/wire/flow.ts'
import { rawJson, rawLines } from './abi/raw.ts'
import { bytesText } from './bytes.ts'
import { chainCallText, chainJson, chainResultText, decodeChain, objectText, plainArgs, plainResult } from './chain.ts'
import { createdOf, type DecodedCall, decodeRecord, fromBase64, objectOf } from './decode.ts'
import { reasonOf } from './failed.ts'
import { ABRIDGED, attributesJson, attributesText, type Style, WHOLE } from './values.ts'

/** A text that a program has chosen, safe for terminals. */
const safeText = (text: string): string => printable(text).trim()

const descriptorsText = ({ descriptors = [] }: TraceRecord): string[] =>
  descriptors.map(({ attribute, fd }) => `${attribute} fd ${fd ?? '?'}`)

/** The call before the `=`. */
const callText = (record: TraceRecord, decoded: DecodedCall | undefined, style: Style): string => {
  if (decoded === undefined) {
    const { call, dialect } = record
    return call === undefined
      ? `${dialect}(${[record.attempt ?? '?', ...(record.detail ? [record.detail] : [])].map(safeText).join(', ')})`
      : `${dialect}(class ${call.classId}, call ${call.call}, ${bytesText(fromBase64(call.message), style.bytes)})`
  }
  const { args } = decoded
  const chain = decodeChain(decoded, style.bytes, record)
  const parts = [
    ...objectText(objectOf(decoded)),
    ...attributesText(decoded.in, chain === undefined ? args : plainArgs(decoded), style),
    ...(chain === undefined ? [] : [chainCallText(chain, style)]),
    ...args.unreadable,
  ]
  return `${decoded.class.name}.${decoded.name}(${parts.join(', ')})`
}

/** The return value and the outputs. */
const answerText = (record: TraceRecord, decoded: DecodedCall | undefined, style: Style): string => {
  const { ret } = record
  const reason = reasonOf(record)
  if (ret < 0) return `-1 ${errnoName(-ret)}${reason === undefined ? '' : ` (${safeText(reason)})`}`
  if (decoded === undefined) return String(ret)
  const { result } = decoded
  const chain = decodeChain(decoded, style.bytes, record)
  const parts = [
    ...objectText(createdOf(decoded)),
    ...descriptorsText(record),
    ...attributesText(decoded.out, chain === undefined ? result : plainResult(decoded), style),
    ...(chain === undefined ? [] : chainResultText(chain, style).map(safeText)),
    ...result.unreadable,
  ]
  return `${ret}${parts.length === 0 ? '' : ` {${parts.join(', ')}}`}${packetsText(decoded)}`
}

/**
 * DSCP and TTL of the packets to the call's address on RoCE, where they are not the default. Only libraries that get
 * the next hop for their address handles (libmlx5) send the hop limit as given.
 */
const packetsText = ({ args, result }: DecodedCall): string => {
  const address = args.values.address as AnyRecord | undefined
  if (address === undefined) return ''
  const hopLimit = result.values.nextHop === undefined ? undefined : Number(address.hopLimit)
  const text = classText({ dscp: Number(address.trafficClass) >> 2, hopLimit })
  return text === '' ? '' : `: packets have${text.slice(1)}`
}

/**
 * `verbose`: all fields of records, including zeros, all records of lists and all bytes. `abi`: lines with dialect and
 * bytes below the call, if the record has them.
 */
interface LineOptions {
  readonly verbose?: boolean
  readonly abi?: boolean
}

/** The line of a failure: the process, or the device if there is none, and the text. */
export const failureLine = ({ pid, command, device, failure: { text } }: FailureRecord): string =>
  pid === 0 ? `[${device}] ${text}` : `[pid ${pid} ${safeText(command)}] ${text}`

export const tormentLine = ({ device, torment: { number, id, text, held } }: TormentRecord): string =>
  `[${device} torment ${number}, ${safeText(id)}] ${held === undefined ? text : heldText(held)}`

const heldText = ({ microseconds, passed, passedCount, isEarly }: TormentHeld): string => {
  const named = [
    ...passed.map(safeText),
    ...(passedCount > passed.length ? [`${passedCount - passed.length} others`] : []),
  ]
  const passedText = passedCount === 0 ? 'no completion has passed' : `passed by ${named.join(', ')}`
  return `goes on after ${microseconds} µs${isEarly ? ', early because of a call' : ''}; ${passedText}`
}

export const lostLine = (lost: number): string => `[${lost} records were lost: the reader was too slow]`

const summaryText = (record: TraceRecord, decoded: DecodedCall | undefined, style: Style): string =>
  `${callText(record, decoded, style)} = ${answerText(record, decoded, style)}`

/** `rc_qp.modify(object 3, state RTR) = 0`: the line of a call without process, descriptor and duration. */
export const callSummary = (record: TraceRecord): string =>
  summaryText(record, decodeRecord(record, ABRIDGED.bytes), ABRIDGED)

/**
 * The line of a call. The bytes follow with `abi`. For an undecoded
 * call the bytes also follow with `verbose`, or if the call has no name. Never throws, whatever bytes the call has.
 */
export const callLine = (record: TraceRecord, { verbose = false, abi = false }: LineOptions = {}): string => {
  const style = verbose ? WHOLE : ABRIDGED
  const { pid, tid, fd, command, duration } = record
  const thread = tid === pid ? '' : ` tid ${tid}`
  const descriptor = fd < 0 ? '' : `fd ${fd} `
  const seconds = (duration / 1e6).toFixed(6)
  const decoded = decodeRecord(record, style.bytes)
  const text = summaryText(record, decoded, style)
  const showsBytes = abi || (decoded === undefined && (verbose || record.attempt === undefined))
  const bytes = showsBytes ? rawLines(record, style) : []
  return [`[pid ${pid}${thread} ${safeText(command)}] ${descriptor}${text} <${seconds}>`, ...bytes].join('\n')
}

/** The record with decoded messages, for `JSON.stringify`. docs/reference/cli.md lists the keys. */
export const callJson = (record: TraceRecord): Record<string, unknown> => {
  const { call, ret, reason: _reason, descriptors = [], raw, request: _request, ...fields } = record
  const reason = reasonOf(record)
  const decoded = decodeRecord(record, WHOLE.bytes)
  const newDescriptors = Object.fromEntries(descriptors.map(({ attribute, fd }) => [attribute, fd ?? null]))
  const error = ret < 0 ? { error: errnoName(-ret), ...(reason !== undefined && { reason }) } : {}
  const abi = raw === undefined ? {} : { abi: rawJson(record) }
  if (decoded === undefined) return { ...fields, ...(call !== undefined && { undecoded: call }), ret, ...error, ...abi }
  const { args, result } = decoded
  const undecoded = [...args.unreadable, ...result.unreadable]
  const object = objectOf(decoded) ?? (ret >= 0 ? createdOf(decoded) : undefined)
  const chain = decodeChain(decoded, WHOLE.bytes, record)
  return {
    ...fields,
    class: decoded.class.name,
    method: decoded.name,
    ...(object !== undefined && { object }),
    args: attributesJson(decoded.in, chain === undefined ? args : plainArgs(decoded)),
    ...(chain !== undefined && { chain: chainJson(chain) }),
    ret,
    ...error,
    ...(ret >= 0 && {
      out: { ...newDescriptors, ...attributesJson(decoded.out, chain === undefined ? result : plainResult(decoded)) },
    }),
    ...(undecoded.length > 0 && { undecoded }),
    ...abi,
  }
}
