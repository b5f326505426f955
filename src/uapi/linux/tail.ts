/*
 * The bytes after the struct of a write command of Linux (R41, spec/linux/layout.ts `tail`): work requests, a list, or
 * the packed specs of a rule (flow.ts). The struct has log2 of the list's length.
 */
import { MAX_LOG_TABLE_SIZE } from '../../spec/classes/wq.ts'
import { type CallError, callError } from '../../spec/errno.ts'
import type { Layout } from '../../spec/linux/layout.ts'
import type { WriteCommand } from '../../spec/linux/write.ts'
import {
  type AnyRecord,
  type AnyValue,
  type AnyValues,
  type Attributes,
  type Kind,
  recordSize,
} from '../../spec/schema/schema.ts'
import type { Call } from '../call.ts'
import { payloadOf, valueIn } from '../object/format.ts'
import { viewOf } from '../scalar.ts'
import { isZero } from './caller.ts'
import { clearSpecs, readSpecs, specsFit, specsSize, writeSpecs } from './flow.ts'
import { badLegacy } from './legacy.ts'

// sizes of struct ib_uverbs_send_wr, which drivers may extend, and struct ib_uverbs_sge
const MIN_WORK_REQUEST = 56
const SGE = 16

/**
 * Checks POST_SEND's work requests and scatter/gather elements. Throws CallError: ENOSPC if bytes are missing,
 * EOPNOTSUPP for nonzero bytes after them, EINVAL for too short work requests.
 */
const checkWorkRequests = (args: AnyValues, tail: Uint8Array): void => {
  const size = args.wqeSize as number
  const needed = size * (args.wrCount as number) + SGE * (args.sgeCount as number)
  if (needed > tail.length)
    throw callError.ENOSPC`POST_SEND: the work requests have ${needed} bytes, ${tail.length} are there`
  if (!isZero(tail.subarray(needed))) throw callError.EOPNOTSUPP`POST_SEND: bytes after the work requests are not 0`
  if (size < MIN_WORK_REQUEST)
    throw callError.EINVAL`POST_SEND: a work request has at least ${MIN_WORK_REQUEST} bytes, not ${size}`
}

/** Reads a list, such as a table of work queues. Zeros may follow. */
const readList = (
  { name, in: { tailLogAt } }: WriteCommand,
  type: Kind & { readonly kind: 'list' },
  request: Uint8Array,
  tail: Uint8Array,
): AnyValue => {
  const log = viewOf(request).getUint32(tailLogAt!, true)
  if (log > MAX_LOG_TABLE_SIZE)
    throw callError.EINVAL`${name}: a list of 2^${log} records is longer than 2^${MAX_LOG_TABLE_SIZE}`
  const size = (1 << log) * recordSize(type.fields)
  if (size > tail.length)
    throw callError.ENOSPC`${name}: a list of 2^${log} records does not fit the ${tail.length} bytes there`
  if (!isZero(tail.subarray(size))) throw callError.EOPNOTSUPP`${name}: bytes after the list are not 0`
  return valueIn(name, type, viewOf(tail), 0, size)
}

/** Reads the bytes after the struct into `args`, which has the struct's values. Throws CallError. */
export const readTail = (
  command: WriteCommand,
  attributes: Attributes,
  request: Uint8Array,
  tail: Uint8Array,
  args: AnyValues,
): void => {
  const { tail: name, tailSpecs } = command.in
  if (name === undefined) return
  const { type } = attributes[name]!
  if (tailSpecs !== undefined) readSpecs(command.name, tailSpecs, request, tail, name, args)
  else if (type.kind === 'list') args[name] = readList(command, type, request, tail)
  else {
    checkWorkRequests(args, tail)
    if (tail.length > 0) args[name] = tail.slice()
  }
}

/** For a residue (cells.ts): zeroes those bytes after the struct that `restoreTail` writes. */
export const clearTail = ({ size, tail, tailSpecs }: Layout, request: Uint8Array): void => {
  if (tail === undefined) return
  if (tailSpecs !== undefined) clearSpecs(tailSpecs, request, size)
  else request.fill(0, size)
}

/** Writes arguments after the struct, over a residue or zeros. Throws CallError EINVAL if they do not fit. */
export const restoreTail = (layout: Layout, call: Call, request: Uint8Array): void => {
  const { tail, tailLogAt, tailSpecs, size } = layout
  if (tail === undefined) return
  const value = call.args[tail]
  if (value === undefined) return
  const tooShort = (bytes: number): CallError =>
    badLegacy(`has a request of ${request.length} bytes, ${bytes} are needed`)
  if (request.length < size) throw tooShort(size)
  if (tailSpecs !== undefined) {
    writeSpecs(tailSpecs, request, size, value as AnyRecord[], call.args[tailSpecs.counters] as number | undefined)
    return
  }
  if (!tailFits(layout, call))
    throw badLegacy(`has log2 of the number of ${tail}, and ${(value as AnyRecord[]).length} is not a power of two`)
  const bytes = payloadOf(call.method.in[tail]!.type, value)
  if (request.length < size + bytes.length) throw tooShort(size + bytes.length)
  request.set(bytes, size)
  if (tailLogAt !== undefined) viewOf(request).setUint32(tailLogAt, Math.log2((value as AnyRecord[]).length), true)
}

/** How many bytes after the struct a call needs. */
export const tailSize = ({ tail, tailSpecs }: Layout, call: Call): number => {
  if (tail === undefined) return 0
  const value = call.args[tail]
  if (value === undefined) return 0
  if (tailSpecs !== undefined) return specsSize(value as AnyRecord[], call.args[tailSpecs.counters] !== undefined)
  return payloadOf(call.method.in[tail]!.type, value).length
}

/** Whether a call's arguments can be encoded after the struct. */
export const tailFits = ({ tail, tailLogAt, tailSpecs }: Layout, { args }: Call): boolean => {
  if (tail === undefined) return true
  const list = (args[tail] ?? []) as AnyRecord[]
  if (tailSpecs !== undefined) return specsFit(list, args[tailSpecs.counters] !== undefined)
  return tailLogAt === undefined || Number.isInteger(Math.log2(list.length))
}
