/*
 * The packed specs of a rule in Linux's CREATE_FLOW ⇄ the records of flow.create (R41, flow-layout.ts).
 *
 * Counters are a spec in Linux and an attribute here. A residue (cells.ts) keeps the size of each spec, the bytes that
 * records do not have (the end of longer filters, padding), and the position of the counters' spec. A spec without a
 * size in the residue gets the size of Linux 6.1. Errors are the kernel's.
 */
import { MAX_FLOW_SPECS } from '../../spec/classes/flow.ts'
import { FlowFlags, FlowSpecFlags, FlowSpecType, FlowType } from '../../spec/enums.ts'
import { CallError, callError } from '../../spec/errno.ts'
import type { PackedSpecs } from '../../spec/linux/layout.ts'
import { because } from '../../spec/reason.ts'
import type { AnyRecord, AnyValues } from '../../spec/schema/schema.ts'
import { viewOf } from '../scalar.ts'
import { isZero } from './caller.ts'
import {
  FLOW_ACTION_BYTES,
  FLOW_SPEC_HEADER_BYTES,
  FlowAction,
  type FlowFilter,
  flowFilters,
  MAX_FLOW_SPEC_BYTES,
} from './flow-layout.ts'
import { badLegacy } from './legacy.ts'

const { ACTION_TAG, ACTION_DROP } = FlowSpecType.values
const { INNER } = FlowSpecFlags.values
/** Bytes of `value` and of `mask` in a record: those of the longest filter. */
const FILTER_BYTES = Math.max(...Object.values(flowFilters).map(filter => filter!.bytes))

const actionSize = (type: number): number | undefined => {
  if (type === ACTION_DROP) return FLOW_SPEC_HEADER_BYTES
  return type === ACTION_TAG || type === FlowAction.COUNT ? FLOW_ACTION_BYTES : undefined
}

/** Bytes of the spec of a filter or a supported action in Linux 6.1; undefined for other types. */
const usualSize = (type: number): number | undefined => {
  const filter = flowFilters[type]
  return filter === undefined ? actionSize(type) : FLOW_SPEC_HEADER_BYTES + 2 * filter.bytes
}

// ---- filters ----

/**
 * `filterBytes`: bytes of the value, and of the mask, in a spec of `size` bytes. `knownBytes`: how many of them are
 * known.
 */
const filterSizes = ({ bytes }: FlowFilter, size: number): { filterBytes: number; knownBytes: number } => {
  const filterBytes = (size - FLOW_SPEC_HEADER_BYTES) >>> 1
  return { filterBytes, knownBytes: Math.min(filterBytes, bytes) }
}

const filterOf = (spec: Uint8Array, at: number, knownBytes: number): Uint8Array => {
  const bytes = new Uint8Array(FILTER_BYTES)
  bytes.set(spec.subarray(at, at + knownBytes))
  return bytes
}

const readFilter = (where: string, spec: Uint8Array, type: number): AnyRecord => {
  const filter = flowFilters[type & ~INNER]
  if (filter === undefined) throw callError.EINVAL`${where}: 0x${type.toString(16)} is not a type of a header`
  const inner = (type & INNER) !== 0
  if (inner && filter.outermost) throw callError.EINVAL`${where}: there is no tunnel within a tunnel`
  const { filterBytes, knownBytes } = filterSizes(filter, spec.length)
  if (filterBytes === 0 || filterBytes % 4 !== 0)
    throw callError.EINVAL`${where}: a filter has 4 bytes or a multiple, not ${filterBytes}`
  const maskAt = FLOW_SPEC_HEADER_BYTES + filterBytes
  if (!isZero(spec.subarray(maskAt + knownBytes, maskAt + filterBytes)))
    throw callError.EINVAL`${where}: only the first ${knownBytes} bytes of this filter are known`
  const value = filterOf(spec, FLOW_SPEC_HEADER_BYTES, knownBytes)
  const mask = filterOf(spec, maskAt, knownBytes)
  if (filter.limit !== undefined)
    for (const bytes of [value, mask])
      if (viewOf(bytes).getUint32(filter.limit.at) >>> filter.limit.bits !== 0)
        throw callError.EINVAL`${where}: the word at ${filter.limit.at} has at most ${filter.limit.bits} bits`
  return { type: type & ~INNER, value, mask, flags: type & INNER, tag: 0 }
}

// ---- actions ----

/** Throws CallError if `type` is not a supported action, or the spec has a wrong size. */
const checkAction = (where: string, type: number, size: number): void => {
  // Linux checks the size first. With the right size, it looks for the object of the handle, which does not exist.
  if (type === FlowAction.HANDLE)
    throw new CallError(
      size === FLOW_ACTION_BYTES ? 'EINVAL' : 'EOPNOTSUPP',
      because`${where}: actions that are objects are not supported`,
    )
  const expected = actionSize(type)
  if (expected === undefined) throw callError.EINVAL`${where}: 0x${type.toString(16)} is not an action`
  if (size !== expected) throw callError.EINVAL`${where}: it has ${size} bytes, this action ${expected}`
}

const noFilter = (): Uint8Array => new Uint8Array(FILTER_BYTES)

// ---- all of them ----

/** Linux's checks of a rule before it reads the specs. */
const checkRule = (title: string, { type, flags }: AnyValues): void => {
  const { DONT_TRAP, EGRESS } = FlowFlags.values
  const givenFlags = flags as number
  const unknown = (givenFlags & ~(DONT_TRAP | EGRESS)) >>> 0
  if (unknown !== 0) throw callError.EINVAL`${title}: flags 0x${unknown.toString(16)} are unknown`
  const { ALL_DEFAULT, MC_DEFAULT } = FlowType.values
  if ((givenFlags & DONT_TRAP) !== 0 && (type === ALL_DEFAULT || type === MC_DEFAULT))
    throw callError.EINVAL`${title}: a default rule has no flag DONT_TRAP`
}

/**
 * Reads the specs into attributes `name` and `counters` of `args`, which has the struct's values. `request`: the
 * struct; `tail`: the bytes after it; `title`: beginning of error messages. Throws CallError.
 */
export const readSpecs = (
  title: string,
  { sizeAt, countAt, counters }: PackedSpecs,
  request: Uint8Array,
  tail: Uint8Array,
  name: string,
  args: AnyValues,
): void => {
  checkRule(title, args)
  const count = request[countAt]!
  const size = viewOf(request).getUint16(sizeAt, true)
  if (count > MAX_FLOW_SPECS) throw callError.EINVAL`${title}: ${count} specs, at most ${MAX_FLOW_SPECS} are allowed`
  if (size > count * MAX_FLOW_SPEC_BYTES)
    throw callError.EINVAL`${title}: ${count} specs have at most ${count * MAX_FLOW_SPEC_BYTES} bytes, not ${size}`
  if (size > tail.length) throw callError.ENOSPC`${title}: the specs have ${size} bytes, ${tail.length} are there`
  if (!isZero(tail.subarray(size))) throw callError.EOPNOTSUPP`${title}: bytes after the specs are not 0`
  const view = viewOf(tail)
  const specs: AnyRecord[] = []
  let at = 0
  for (let i = 0; i < count; i++) {
    const where = `${title}: spec ${i}`
    const remaining = size - at
    // A missing header is reported by the check of the size.
    const specSize = remaining < FLOW_SPEC_HEADER_BYTES ? FLOW_SPEC_HEADER_BYTES : view.getUint16(at + 4, true)
    if (specSize < FLOW_SPEC_HEADER_BYTES || specSize > remaining)
      throw callError.EINVAL`${where}: it has ${specSize} bytes, ${remaining} are left`
    if (view.getUint16(at + 6, true) !== 0) throw callError.EINVAL`${where}: its reserved bytes are not 0`
    const type = view.getUint32(at, true)
    if (type < FlowAction.FIRST) specs.push(readFilter(where, tail.subarray(at, at + specSize), type))
    else {
      checkAction(where, type, specSize)
      // the tag, or the handle of the counters
      const word = type === ACTION_DROP ? 0 : view.getUint32(at + FLOW_SPEC_HEADER_BYTES, true)
      if (type !== FlowAction.COUNT) specs.push({ type, value: noFilter(), mask: noFilter(), flags: 0, tag: word })
      else if (args[counters] !== undefined) throw callError.EINVAL`${where}: a rule has at most one spec of counters`
      else args[counters] = word
    }
    at += specSize
  }
  if (at !== size) throw callError.EINVAL`${title}: ${size - at} bytes are left after ${count} specs`
  args[name] = specs
}

/** Zeroes what `readSpecs` has decoded. The struct, the first `start` bytes, must still have the number of specs. */
export const clearSpecs = ({ sizeAt, countAt }: PackedSpecs, request: Uint8Array, start: number): void => {
  const view = viewOf(request)
  let at = start
  for (let i = 0; i < request[countAt]!; i++) {
    const type = view.getUint32(at, true)
    const specSize = view.getUint16(at + 4, true)
    const filter = type < FlowAction.FIRST ? flowFilters[type & ~INNER] : undefined
    const bodyAt = at + FLOW_SPEC_HEADER_BYTES
    if (type !== FlowAction.COUNT) view.setUint32(at, 0, true)
    if (filter !== undefined) {
      const { filterBytes, knownBytes } = filterSizes(filter, specSize)
      request.fill(0, bodyAt, bodyAt + knownBytes)
      request.fill(0, bodyAt + filterBytes, bodyAt + filterBytes + knownBytes)
    } else if (type !== ACTION_DROP) view.setUint32(bodyAt, 0, true)
    at += specSize
  }
  view.setUint16(sizeAt, 0, true)
  request[countAt] = 0
}

/**
 * Writes specs and counters at `start` of a request, over a residue or zeros. Throws CallError EINVAL if they do not
 * fit, or Linux does not accept the type of a spec.
 */
export const writeSpecs = (
  { sizeAt, countAt }: PackedSpecs,
  request: Uint8Array,
  start: number,
  specs: readonly AnyRecord[],
  counters: number | undefined,
): void => {
  const view = viewOf(request)
  const total = specs.length + (counters === undefined ? 0 : 1)
  let at = start
  let next = 0
  let isCounterDone = counters === undefined
  for (let i = 0; i < total; i++) {
    const hasHeader = at + FLOW_SPEC_HEADER_BYTES <= request.length
    const isCounter = hasHeader && view.getUint32(at, true) === FlowAction.COUNT
    if (isCounter && isCounterDone) throw badLegacy('has counters where the call has none')
    // undefined: the spec of the counters, which is the last unless the residue has it earlier
    const spec = isCounter ? undefined : specs[next++]
    if (spec === undefined) isCounterDone = true
    const type = spec === undefined ? FlowAction.COUNT : (spec.type as number)
    const usual = usualSize(type)
    if (usual === undefined) throw callError.EINVAL`CREATE_FLOW has no spec of type 0x${type.toString(16)}`
    const specSize = (hasHeader ? view.getUint16(at + 4, true) : 0) || usual
    const filter = flowFilters[type]
    if (at + specSize > request.length || specSize < (filter === undefined ? usual : FLOW_SPEC_HEADER_BYTES))
      throw badLegacy(`has no room for spec ${i}`)
    view.setUint32(at, (type | ((spec?.flags as number | undefined) ?? 0)) >>> 0, true)
    view.setUint16(at + 4, specSize, true)
    const bodyAt = at + FLOW_SPEC_HEADER_BYTES
    if (spec !== undefined && filter !== undefined) {
      const { filterBytes, knownBytes } = filterSizes(filter, specSize)
      for (const [bytes, bytesAt] of [
        [spec.value as Uint8Array, bodyAt],
        [spec.mask as Uint8Array, bodyAt + filterBytes],
      ] as const) {
        if (!isZero(bytes.subarray(knownBytes, filter.bytes))) throw badLegacy(`has no room for spec ${i}`)
        request.set(bytes.subarray(0, knownBytes), bytesAt)
      }
    } else if (type !== ACTION_DROP) view.setUint32(bodyAt, spec === undefined ? counters! : (spec.tag as number), true)
    at += specSize
  }
  view.setUint16(sizeAt, at - start, true)
  request[countAt] = total
}

/** Total bytes of the specs in Linux 6.1. */
export const specsSize = (specs: readonly AnyRecord[], hasCounters: boolean): number =>
  specs.reduce((sum, { type }) => sum + (usualSize(type as number) ?? 0), hasCounters ? FLOW_ACTION_BYTES : 0)

/** Whether Linux accepts the number of specs, and all types. */
export const specsFit = (specs: readonly AnyRecord[], hasCounters: boolean): boolean =>
  specs.length + (hasCounters ? 1 : 0) <= MAX_FLOW_SPECS &&
  specs.every(({ type }) => usualSize(type as number) !== undefined)
