/*
 * What a request may say beside its operands, and that it says nothing else: a misspelt word would be ignored, and what
 * it was to change would not happen. Which words there are depends on the operation and on the service.
 *
 * Hot: a request without options costs nothing, each word of one a nanosecond or two.
 */
import { invalidArgument } from '../error.ts'
import { checkRecord, type Words } from './options.ts'
import { checkId } from './request-checks.ts'

/** Options of every request to the send queue. */
export interface SendOptions {
  /** Comes back in the completion; an exact Number, default 0. */
  readonly id?: number
  /** Makes a completion; default true. Failed requests always do. */
  readonly signaled?: boolean
  /** Wakes a peer who waits for solicited completions only. */
  readonly solicited?: boolean
  /** Starts after earlier READs and atomics are complete. */
  readonly fence?: boolean
}

/** A message may carry immediate data. */
export interface ImmediateOptions {
  /** A u32 that the peer's completion shows. */
  readonly immediate?: number
}
/** A message may invalidate a key of the peer's. */
export interface InvalidateOptions {
  /** A key of the peer's that the message invalidates; not together with `immediate`. */
  readonly invalidate?: number
}
/** What a FLUSH covers. */
export interface FlushExtent {
  /** The bytes survive a loss of power, beyond being visible to all. */
  readonly persistent?: boolean
  /** All of the region, and not the range alone. */
  readonly wholeRegion?: boolean
}
/** Options of SEND and WRITE. */
export interface MessageOptions extends SendOptions, ImmediateOptions {}
/** Options of a SEND on a reliable connection. */
export interface RcMessageOptions extends MessageOptions, InvalidateOptions {}
/** Options of a FLUSH. */
export interface FlushOptions extends SendOptions, FlushExtent {}

/** Requests name the shared queue that takes the message: its `srqNumber`. */
export interface XrcOptions extends SendOptions {
  /** Number of the receiver's shared queue, 24 bits. */
  readonly srqNumber: number
}

/** Words of a request's options, as bits: which an operation takes, and which a type of queue pair. */
export const RequestWords = { ANY: 1, IMMEDIATE: 2, INVALIDATE: 4, FLUSH: 8, SRQ: 16 } as const
const { ANY, IMMEDIATE, INVALIDATE, FLUSH, SRQ } = RequestWords

type RequestOptions = RcMessageOptions & FlushOptions & XrcOptions

/** What requests of each service may say. */
export const UC_WORDS = ANY | IMMEDIATE
export const RC_WORDS = UC_WORDS | INVALIDATE | FLUSH
export const XRC_WORDS = RC_WORDS | SRQ

/** A switch, since a table costs 5 ns for each word; the compiler sees to it that none is missing. */
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
const requestWords: Words<RequestOptions> = {
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
  const names = (Object.keys(requestWords) as (keyof RequestOptions)[]).filter(one => (bitOf(one) & allowed) !== 0)
  throw invalidArgument(call, `options: "${word}" is unknown`, `there are ${names.join(', ')}`)
}

/**
 * That the options of a request are an object and say nothing but what is `allowed`: a misspelt `signaled` would change
 * what completes, without a word. Throws RdmaError EINVAL.
 */
export const checkRequestOptions = (call: string, options: SendOptions, allowed: number): void => {
  if (typeof options !== 'object' || options === null)
    checkRecord(call, 'options', options, 'give { id: 1 }, or nothing')
  for (const word in options) {
    // What is no word at all has no bit.
    if ((bitOf(word as keyof RequestOptions) & allowed) === 0) refuseWord(call, options, word, allowed)
  }
  if (options.id !== undefined) checkId(call, options.id)
}
