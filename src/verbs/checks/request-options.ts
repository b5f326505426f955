/*
 * Options of requests, and the check that there are no others: a misspelt option would be silently ignored. The allowed
 * ones depend on the operation and on the service.
 *
 * Hot: a request without options costs nothing, each option one or two nanoseconds.
 */
import { invalidArgument } from '../error.ts'
import { checkRecord, type KnownOptions } from './options.ts'
import { checkId } from './request-checks.ts'

/** Options of every request to the send queue. */
export interface SendOptions {
  /** wr_id: returned in the completion; an integer up to 2^53, default 0. */
  readonly id?: number
  /** Requests a completion; default true. Failed requests always complete. */
  readonly signaled?: boolean
  /** Solicited event: wakes a peer that waits for solicited completions only. */
  readonly solicited?: boolean
  /** Fence: starts after earlier READs and atomics have completed. */
  readonly fence?: boolean
}

/** Options of messages with immediate data. */
export interface ImmediateOptions {
  /** Immediate data: a u32 in the peer's completion. */
  readonly immediate?: number
}
/** Options of messages that can invalidate an rkey of the peer. */
export interface InvalidateOptions {
  /** An rkey of the peer that the message invalidates; not together with `immediate`. */
  readonly invalidate?: number
}
/** Scope of a FLUSH. */
export interface FlushExtent {
  /** Makes the bytes persistent (safe from power loss), beyond global visibility. */
  readonly persistent?: boolean
  /** Flushes the whole region instead of the range. */
  readonly wholeRegion?: boolean
}
/** Options of SEND and WRITE. */
export interface MessageOptions extends SendOptions, ImmediateOptions {}
/** Options of a SEND on a reliable connection. */
export interface RcMessageOptions extends MessageOptions, InvalidateOptions {}
/** Options of a FLUSH. */
export interface FlushOptions extends SendOptions, FlushExtent {}

/** Requests that name the receiving SRQ by its `srqNumber`. */
export interface XrcOptions extends SendOptions {
  /** Number of the receiving SRQ, 24 bits. */
  readonly srqNumber: number
}

/** Options of requests as bits: of each operation, and of each queue pair type. */
export const RequestOptionBits = { ANY: 1, IMMEDIATE: 2, INVALIDATE: 4, FLUSH: 8, SRQ: 16 } as const
const { ANY, IMMEDIATE, INVALIDATE, FLUSH, SRQ } = RequestOptionBits

type RequestOptions = RcMessageOptions & FlushOptions & XrcOptions

/** Options of requests, by service. */
export const UC_WORDS = ANY | IMMEDIATE
export const RC_WORDS = UC_WORDS | INVALIDATE | FLUSH
export const XRC_WORDS = RC_WORDS | SRQ

/** A switch, because a table costs 5 ns per option; the compiler checks that it is complete. */
const bitOf = (word: keyof RequestOptions): number => {
  switch (word) {
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
const requestOptionNames: KnownOptions<RequestOptions> = {
  id: true,
  signaled: true,
  solicited: true,
  fence: true,
  immediate: true,
  invalidate: true,
  persistent: true,
  wholeRegion: true,
  srqNumber: true,
}

const refuseWord = (call: string, options: object, word: string, allowed: number): void => {
  if ((options as Readonly<Record<string, unknown>>)[word] === undefined) return
  const names = (Object.keys(requestOptionNames) as (keyof RequestOptions)[]).filter(
    one => (bitOf(one) & allowed) !== 0,
  )
  throw invalidArgument(call, `options: "${word}" is unknown`, `there are ${names.join(', ')}`)
}

/**
 * Checks that a request's options are an object with the properties in `allowed` only: a misspelt `signaled` would
 * silently change what completes. Throws RdmaError EINVAL.
 */
export const checkRequestOptions = (call: string, options: SendOptions, allowed: number): void => {
  if (typeof options !== 'object' || options === null)
    checkRecord(call, 'options', options, 'give { id: 1 }, or nothing')
  for (const word in options) {
    // An unknown property has no bit.
    if ((bitOf(word as keyof RequestOptions) & allowed) === 0) refuseWord(call, options, word, allowed)
  }
  if (options.id !== undefined) checkId(call, options.id)
}
