/*
 * Options of work requests. Options that the operation or the service does not have are refused, because a misspelt
 * option would be ignored.
 *
 * Hot: the check takes one or two nanoseconds per option.
 */
import { checkInteger, invalidArgument } from '../error.ts'
import { checkFlag, checkRecord, type KnownOptions } from './options.ts'
import { checkId } from './request-checks.ts'

/** Options of every request to the send queue. */
export interface SendOptions {
  /** wr_id, which the completion returns: an integer from 0 to 2^53 - 1; default 0. */
  readonly id?: number | undefined
  /** Requests a completion; default true. Failed requests always complete. */
  readonly signaled?: boolean | undefined
  /** Solicited event: wakes a peer that waits for solicited completions only; default false. */
  readonly solicited?: boolean | undefined
  /** Fence: the request starts after earlier READs and atomics of the queue pair have completed; default false. */
  readonly fence?: boolean | undefined
}

/** Options of messages with immediate data. */
export interface ImmediateOptions {
  /** Immediate data: a u32 in the peer's completion. */
  readonly immediate?: number | undefined
}
/** Options of messages that can invalidate an rkey of the peer. */
export interface InvalidateOptions {
  /** An rkey of the peer that the message invalidates; not together with `immediate`. */
  readonly invalidate?: number | undefined
}
/** Placement type and selectivity level of a FLUSH (IBA annex A19). */
export interface FlushExtent {
  /** Placement type PERSISTENT: the bytes survive a power loss. Default: GLOBAL, the bytes are globally visible. */
  readonly persistent?: boolean | undefined
  /** Selectivity level REGION: flushes the whole region. Default: RANGE, flushes the given bytes, at most 2 GiB. */
  readonly wholeRegion?: boolean | undefined
}
/** Options of SEND and WRITE. */
export interface MessageOptions extends SendOptions, ImmediateOptions {}
/** Options of a SEND on a reliable connection. */
export interface RcMessageOptions extends MessageOptions, InvalidateOptions {}
/** Options of a FLUSH. */
export interface FlushOptions extends SendOptions, FlushExtent {}

/** Options of an XRC initiator's requests to its peer. */
export interface XrcOptions extends SendOptions {
  /** Number of the receiving SRQ, 24 bits. */
  readonly srqNumber: number
}

/** Groups of options as bits. ANY: the options in `SendOptions`, which every request has. */
export const RequestOptionBits = { ANY: 1, IMMEDIATE: 2, INVALIDATE: 4, FLUSH: 8, SRQ: 16 } as const
const { ANY, IMMEDIATE, INVALIDATE, FLUSH, SRQ } = RequestOptionBits

type RequestOptions = RcMessageOptions & FlushOptions & XrcOptions

/** The options of each service. UD has UC's options. */
export const UC_OPTIONS = ANY | IMMEDIATE
export const RC_OPTIONS = UC_OPTIONS | INVALIDATE | FLUSH
export const XRC_OPTIONS = RC_OPTIONS | SRQ

/** The bit of an option. A switch, because a table costs 5 ns per option. */
const bitOf = (name: keyof RequestOptions): number => {
  switch (name) {
    case 'id':
    case 'signaled':
    case 'solicited':
    case 'fence':
      return ANY
    case 'immediate':
      return IMMEDIATE
    case 'invalidate':
      return INVALIDATE
    case 'persistent':
    case 'wholeRegion':
      return FLUSH
    case 'srqNumber':
      return SRQ
  }
}
/** The names for error messages. */
const requestOptionNames: KnownOptions<RequestOptions> = {
  id: true,
  signaled: 'flag',
  solicited: 'flag',
  fence: 'flag',
  immediate: true,
  invalidate: true,
  persistent: 'flag',
  wholeRegion: 'flag',
  srqNumber: true,
}

/** Throws RdmaError EINVAL for an option that is not allowed, unless its value is undefined. */
const refuseOption = (call: string, options: object, name: string, allowed: number): void => {
  if ((options as Readonly<Record<string, unknown>>)[name] === undefined) return
  const names = (Object.keys(requestOptionNames) as (keyof RequestOptions)[]).filter(
    known => (bitOf(known) & allowed) !== 0,
  )
  throw invalidArgument(call, `options: "${name}" is unknown`, `there are ${names.join(', ')}`)
}

const MAX_SRQ_NUMBER = 0xffffff

/**
 * Checks that all options belong to groups in `allowed` (`RequestOptionBits`), and checks the values of `SendOptions`
 * and `srqNumber`. The operations check the values of the others. Throws RdmaError EINVAL.
 */
export const checkRequestOptions = (call: string, options: SendOptions, allowed: number): void => {
  if (typeof options !== 'object' || options === null)
    checkRecord(call, 'options', options, 'give { id: 1 }, or nothing')
  for (const name in options) {
    // The bit of an unknown property is undefined, and `undefined & allowed` is 0.
    if ((bitOf(name as keyof RequestOptions) & allowed) === 0) refuseOption(call, options, name, allowed)
  }
  const { signaled, solicited, fence } = options
  if (signaled !== undefined) checkFlag(call, 'signaled', signaled)
  if (solicited !== undefined) checkFlag(call, 'solicited', solicited)
  if (fence !== undefined) checkFlag(call, 'fence', fence)
  if (options.id !== undefined) checkId(call, options.id)
  if ((allowed & SRQ) !== 0)
    checkInteger(call, 'srqNumber', (options as Partial<XrcOptions>).srqNumber, 0, MAX_SRQ_NUMBER)
}
