/*
 * Records of the observation file (file-layout.ts) as values.
 */

import type { Stack } from '../../spec/check/finding.ts'
import type { Misorder, MistakenBatch } from '../../spec/check/program-events.ts'
import type { RequestElement } from '../../spec/check/requests.ts'
import { offsetsOf } from '../../spec/message-layout.ts'
import { Messages } from '../../spec/session.ts'
import { ObserveStructs, RecordKind } from './file-layout.ts'

/** A range of the program's memory, as the kernel read it (before the call) or left it (after the call). */
export interface MemoryRange {
  readonly address: bigint
  readonly bytes: Uint8Array
}

export interface ObservedPost {
  readonly wrId: bigint
  readonly remoteAddress: bigint
  /** ibv_wr_opcode; −1: a receive. */
  readonly opcode: number
  readonly flags: number
  readonly rkey: number
  readonly destQpn: number
  readonly elements: readonly RequestElement[]
}

export interface ObservedCompletion {
  readonly wrId: bigint
  readonly status: number
  readonly opcode: number
  readonly vendorErr: number
  readonly bytes: number
  readonly qpn: number
}

export interface ObservedCall {
  readonly fd: number
  /** CallEntry, FileKind. */
  readonly entry: number
  readonly fileKind: number
  /** The request of an ioctl, or the length of a write. */
  readonly request: bigint
  readonly argument: bigint
  readonly result: number
  /** Of READ and SEND: when they began, as `Common.time`. */
  readonly started: bigint
  /** Counts the calls of a thread. */
  readonly number: number
  readonly ranges: readonly MemoryRange[]
}

interface Common {
  readonly pid: number
  readonly tid: number
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly time: bigint
  readonly stack: number
}

/**
 * A record. `gone`: all of the process's records were read, and it has ended. `lost`: the process has dropped records
 * here.
 */
export type ObservedRecord = Common &
  (
    | { readonly kind: 'stack'; readonly frames: Stack }
    | { readonly kind: 'start'; readonly parent: number; readonly fork: number; readonly command: string }
    | { readonly kind: 'end' | 'gone' }
    | {
        readonly kind: 'open' | 'received' | 'kept'
        readonly fd: number
        readonly fileKind: number
        readonly path: string
      }
    | { readonly kind: 'close' | 'passed'; readonly fd: number }
    | { readonly kind: 'duplicate'; readonly fd: number; readonly from: number }
    | { readonly kind: 'fork'; readonly fork: number }
    | { readonly kind: 'lost'; readonly count: number }
    | { readonly kind: 'context'; readonly fd: number; readonly device: string }
    | { readonly kind: 'call' | 'return'; readonly call: ObservedCall }
    | {
        readonly kind: 'post'
        readonly fd: number
        readonly queue: number
        readonly number: number
        readonly requests: readonly ObservedPost[]
      }
    | {
        readonly kind: 'refused'
        readonly fd: number
        readonly queue: number
        readonly number: number
        readonly count: number
        readonly error: number
      }
    | {
        readonly kind: 'refusal'
        readonly fd: number
        readonly function: string
        readonly object: bigint
        readonly error: number
        readonly facts: readonly bigint[]
      }
    | {
        readonly kind: 'poll'
        readonly fd: number
        readonly cq: number
        readonly completions: readonly ObservedCompletion[]
      }
    | { readonly kind: 'notify'; readonly fd: number; readonly cq: number; readonly solicitedOnly: boolean }
    | ({ readonly kind: 'batch'; readonly fd: number; readonly since: number } & Pick<
        MistakenBatch,
        'number' | 'mistake' | 'called' | 'opcode' | 'wrId' | 'requests'
      >)
    | ({ readonly kind: 'order'; readonly fd: number; readonly since: number } & Pick<
        Misorder,
        'object' | 'number' | 'mistake' | 'called' | 'field' | 'isSingle'
      >)
    | { readonly kind: 'direct'; readonly function: string }
    | {
        readonly kind: 'use of gone'
        /** Nanoseconds since the object was destroyed. */
        readonly age: bigint
        readonly objectKind: number
        readonly number: number
        readonly use: number
        /** Number of a stack. */
        readonly destroyed: number
        readonly isOwner: boolean
        readonly function: string
      }
  )

/** A descriptor that the process did not have, or has kept. */
export type DescriptorRecord = Extract<ObservedRecord, { readonly path: string }>

const {
  record,
  openRecord,
  callRecord,
  rangeRecord,
  postRecord,
  refusalRecord,
  requestRecord,
  elementRecord,
  pollRecord,
  completionRecord,
  goneRecord,
} = ObserveStructs
const Header = offsetsOf(record)
const Open = offsetsOf(openRecord)
const Call = offsetsOf(callRecord)
const Range = offsetsOf(rangeRecord)
const Post = offsetsOf(postRecord)
const Refusal = offsetsOf(refusalRecord)
const Request = offsetsOf(requestRecord)
const Element = offsetsOf(elementRecord)
const Poll = offsetsOf(pollRecord)
const Completion = offsetsOf(completionRecord)
const Gone = offsetsOf(goneRecord)
const Batch = offsetsOf(Messages.batchMistaken)
const Order = offsetsOf(Messages.misordered)

const decoder = new TextDecoder()
const textAt = (bytes: Uint8Array, at: number): string => {
  const end = bytes.indexOf(0, at)
  return decoder.decode(bytes.subarray(at, end < 0 ? bytes.length : end))
}

const rangesOf = (view: DataView, bytes: Uint8Array, first: number, count: number): MemoryRange[] => {
  let at = first
  return Array.from({ length: count }, () => {
    const address = view.getBigUint64(at + Range.address, true)
    const length = view.getUint32(at + Range.length, true)
    const start = at + rangeRecord.size
    at = start + ((length + 7) & ~7)
    return { address, bytes: bytes.slice(start, start + length) }
  })
}

const callOf = (view: DataView, bytes: Uint8Array, at: number): ObservedCall => ({
  fd: view.getInt32(at + Call.fd, true),
  entry: view.getUint32(at + Call.entry, true),
  fileKind: view.getUint32(at + Call.fileKind, true),
  request: view.getBigUint64(at + Call.request, true),
  argument: view.getBigUint64(at + Call.argument, true),
  result: Number(view.getBigInt64(at + Call.result, true)),
  started: view.getBigUint64(at + Call.started, true),
  number: view.getUint32(at + Call.number, true),
  ranges: rangesOf(view, bytes, at + callRecord.size, view.getUint32(at + Call.ranges, true)),
})

const requestsOf = (view: DataView, first: number, count: number): ObservedPost[] => {
  let at = first
  return Array.from({ length: count }, () => {
    const start = at
    const elements = view.getUint32(start + Request.elements, true)
    at += requestRecord.size + elements * elementRecord.size
    return {
      wrId: view.getBigUint64(start + Request.wrId, true),
      remoteAddress: view.getBigUint64(start + Request.remoteAddress, true),
      opcode: view.getInt32(start + Request.opcode, true),
      flags: view.getUint32(start + Request.flags, true),
      rkey: view.getUint32(start + Request.rkey, true),
      destQpn: view.getUint32(start + Request.destQpn, true),
      elements: Array.from({ length: elements }, (_, i) => {
        const element = start + requestRecord.size + i * elementRecord.size
        return {
          address: Number(view.getBigUint64(element + Element.address, true)),
          length: view.getUint32(element + Element.length, true),
          lkey: view.getUint32(element + Element.lkey, true),
        }
      }),
    }
  })
}

const completionsOf = (view: DataView, first: number, count: number): ObservedCompletion[] =>
  Array.from({ length: count }, (_, i) => {
    const at = first + i * completionRecord.size
    return {
      wrId: view.getBigUint64(at + Completion.wrId, true),
      status: view.getUint32(at + Completion.status, true),
      opcode: view.getUint32(at + Completion.opcode, true),
      vendorErr: view.getUint32(at + Completion.vendorErr, true),
      bytes: view.getUint32(at + Completion.bytes, true),
      qpn: view.getUint32(at + Completion.qpn, true),
    }
  })

/** When a record was complete, nanoseconds. */
export const timeOf = (view: DataView, at: number): bigint => view.getBigUint64(at + Header.time, true)
export const sizeOf = (view: DataView, at: number): number => view.getUint32(at + Header.size, true)
export const isPadding = (view: DataView, at: number): boolean =>
  view.getUint32(at + Header.kind, true) === RecordKind.PAD

/** Decodes the record in `bytes`. Throws RangeError if its sizes do not fit. Undefined: an unknown kind. */
export const recordOf = (bytes: Uint8Array, pid: number): ObservedRecord | undefined => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const common: Common = {
    pid,
    tid: view.getUint32(Header.tid, true),
    time: timeOf(view, 0),
    stack: view.getUint32(Header.stack, true),
  }
  const at = record.size
  const fd = (): number => view.getInt32(at + Open.fd, true)
  const number = (): number => view.getUint32(at + Open.fileKind, true)
  const text = (): string => textAt(bytes, at + openRecord.size)
  const queue = () => ({
    fd: view.getInt32(at + Post.fd, true),
    queue: view.getUint32(at + Post.queue, true),
    number: view.getUint32(at + Post.number, true),
  })
  const count = (): number => view.getUint32(at + Post.count, true)
  const cq = () => ({ fd: view.getInt32(at + Poll.fd, true), cq: view.getUint32(at + Poll.cq, true) })
  switch (view.getUint32(Header.kind, true)) {
    case RecordKind.STACK:
      return { ...common, kind: 'stack', frames: textAt(bytes, at).split('\n').filter(Boolean) }
    case RecordKind.START:
      return { ...common, kind: 'start', parent: number(), fork: fd(), command: text() }
    case RecordKind.END:
      return { ...common, kind: 'end' }
    case RecordKind.OPEN:
      return { ...common, kind: 'open', fd: fd(), fileKind: number(), path: text() }
    case RecordKind.RECEIVED:
      return { ...common, kind: 'received', fd: fd(), fileKind: number(), path: text() }
    case RecordKind.KEPT:
      return { ...common, kind: 'kept', fd: fd(), fileKind: number(), path: text() }
    case RecordKind.DUPLICATE:
      return { ...common, kind: 'duplicate', fd: fd(), from: number() }
    case RecordKind.PASSED:
      return { ...common, kind: 'passed', fd: fd() }
    case RecordKind.FORK:
      return { ...common, kind: 'fork', fork: fd() }
    case RecordKind.CLOSE:
      return { ...common, kind: 'close', fd: fd() }
    case RecordKind.CONTEXT:
      return { ...common, kind: 'context', fd: fd(), device: text() }
    case RecordKind.CALL:
      return { ...common, kind: 'call', call: callOf(view, bytes, at) }
    case RecordKind.RETURN:
      return { ...common, kind: 'return', call: callOf(view, bytes, at) }
    case RecordKind.POST:
      return { ...common, kind: 'post', ...queue(), requests: requestsOf(view, at + postRecord.size, count()) }
    case RecordKind.REFUSED:
      return {
        ...common,
        kind: 'refused',
        ...queue(),
        count: count(),
        error: view.getInt32(at + Post.error, true),
      }
    case RecordKind.REFUSAL: {
      const { fact0, fact1, fact2, fact3 } = Refusal
      return {
        ...common,
        kind: 'refusal',
        fd: view.getInt32(at + Refusal.fd, true),
        function: textAt(bytes.subarray(0, at + refusalRecord.size), at + Refusal.function),
        object: view.getBigUint64(at + Refusal.object, true),
        error: view.getUint32(at + Refusal.error, true),
        facts: [fact0, fact1, fact2, fact3].map(fact => view.getBigUint64(at + fact, true)),
      }
    }
    case RecordKind.POLL: {
      const completions = view.getUint32(at + Poll.count, true)
      return { ...common, kind: 'poll', ...cq(), completions: completionsOf(view, at + pollRecord.size, completions) }
    }
    case RecordKind.NOTIFY:
      return { ...common, kind: 'notify', ...cq(), solicitedOnly: view.getUint32(at + Poll.solicitedOnly, true) !== 0 }
    case RecordKind.BATCH: {
      const batch = at + openRecord.size
      const field = (offset: number): number => view.getUint32(batch + offset, true)
      return {
        ...common,
        kind: 'batch',
        fd: fd(),
        wrId: view.getBigUint64(batch + Batch.wrId, true),
        number: field(Batch.number),
        mistake: field(Batch.mistake),
        called: field(Batch.called),
        opcode: view.getInt32(batch + Batch.opcode, true),
        requests: field(Batch.requests),
        since: field(Batch.since),
      }
    }
    case RecordKind.ORDER: {
      const field = (offset: number): number => view.getUint32(at + openRecord.size + offset, true)
      return {
        ...common,
        kind: 'order',
        fd: fd(),
        object: field(Order.object),
        number: field(Order.number),
        mistake: field(Order.mistake),
        called: field(Order.called),
        field: field(Order.field),
        isSingle: field(Order.isSingle),
        since: field(Order.since),
      }
    }
    case RecordKind.DIRECT:
      return { ...common, kind: 'direct', function: text() }
    case RecordKind.GONE:
      return {
        ...common,
        kind: 'use of gone',
        age: view.getBigUint64(at + Gone.age, true),
        objectKind: view.getUint32(at + Gone.objectKind, true),
        number: view.getUint32(at + Gone.number, true),
        use: view.getUint32(at + Gone.use, true),
        destroyed: view.getUint32(at + Gone.destroyed, true),
        isOwner: view.getUint32(at + Gone.owner, true) !== 0,
        function: textAt(bytes, at + goneRecord.size),
      }
    default:
      return undefined
  }
}
