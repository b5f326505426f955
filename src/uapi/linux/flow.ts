/*
 * The packed specs of a rule in Linux's CREATE_FLOW ⇄ the records of flow.create (R41, spec/linux/flow.ts).
 *
 * Counters are a spec in Linux and an attribute here. A residue keeps each spec's size, the unknown end of a longer
 * filter, and the position of the counters' spec; without a size, a spec gets that of Linux 6.1. Errors are the
 * kernel's: EINVAL, but ENOSPC for missing specs, and EOPNOTSUPP for bytes after them and for the wrong size of a
 * FLOW_ACTION, which no object here can be.
 */
import { FlowFlags, FlowSpecFlags, FlowSpecType, FlowType } from '../../spec/enums.ts'
import { CallError } from '../../spec/errno.ts'
import {
  FLOW_ACTION,
  FLOW_SPEC_HEADER,
  FLOW_SPEC_ROOM,
  FLOW_SPECS,
  FlowAction,
  type FlowFilter,
  flowFilters,
} from '../../spec/linux/flow.ts'
import type { PackedSpecs } from '../../spec/linux/layout.ts'
import type { AnyRecord, AnyValues } from '../../spec/schema/schema.ts'
import { viewOf } from '../scalar.ts'
import { isZero } from './caller.ts'
import { badLegacy } from './legacy.ts'

const { ACTION_TAG, ACTION_DROP } = FlowSpecType.values
const { INNER } = FlowSpecFlags.values
/** Bytes of `value` and `mask` in a record: the longest filter. */
const FILTER = Math.max(...Object.values(flowFilters).map(filter => filter!.bytes))

const actionSize = (type: number): number | undefined =>
  type === ACTION_DROP ? FLOW_SPEC_HEADER : type === ACTION_TAG || type === FlowAction.COUNT ? FLOW_ACTION : undefined

/** Bytes of a spec in Linux 6.1; undefined if Linux accepts no rule with it. */
const usualSize = (type: number): number | undefined => {
  const filter = flowFilters[type]
  return filter === undefined ? actionSize(type) : FLOW_SPEC_HEADER + 2 * filter.bytes
}

// ---- filters ----

/** Bytes of each of a spec's two filters, and how many of them are known. */
const filterSizes = ({ bytes }: FlowFilter, size: number): { each: number; used: number } => {
  const each = (size - FLOW_SPEC_HEADER) >>> 1
  return { each, used: Math.min(each, bytes) }
}

const filterOf = (spec: Uint8Array, at: number, used: number): Uint8Array => {
  const bytes = new Uint8Array(FILTER)
  bytes.set(spec.subarray(at, at + used))
  return bytes
}

const readFilter = (where: string, spec: Uint8Array, type: number): AnyRecord => {
  const filter = flowFilters[type & ~INNER]
  if (filter === undefined) throw new CallError('EINVAL', `${where}: 0x${type.toString(16)} is not a type of a header`)
  const inner = (type & INNER) !== 0
  if (inner && filter.outermost) throw new CallError('EINVAL', `${where}: there is no tunnel within a tunnel`)
  const { each, used } = filterSizes(filter, spec.length)
  if (each === 0 || each % 4 !== 0)
    throw new CallError('EINVAL', `${where}: a filter has a multiple of 4 bytes, not ${each}`)
  const masks = FLOW_SPEC_HEADER + each
  if (!isZero(spec.subarray(masks + used, masks + each)))
    throw new CallError('EINVAL', `${where}: only the first ${used} bytes of this filter are known`)
  const value = filterOf(spec, FLOW_SPEC_HEADER, used)
  const mask = filterOf(spec, masks, used)
  if (filter.limit !== undefined)
    for (const bytes of [value, mask])
      if (viewOf(bytes).getUint32(filter.limit.at) >>> filter.limit.bits !== 0)
        throw new CallError('EINVAL', `${where}: the word at ${filter.limit.at} has at most ${filter.limit.bits} bits`)
  return { type: type & ~INNER, value, mask, flags: type & INNER, tag: 0 }
}

// ---- actions ----

const checkAction = (where: string, type: number, size: number): void => {
  if (type === FlowAction.HANDLE)
    throw new CallError(
      size === FLOW_ACTION ? 'EINVAL' : 'EOPNOTSUPP',
      `${where}: actions that are objects are not supported`,
    )
  const expected = actionSize(type)
  if (expected === undefined) throw new CallError('EINVAL', `${where}: 0x${type.toString(16)} is not an action`)
  if (size !== expected) throw new CallError('EINVAL', `${where}: it has ${size} bytes, this action ${expected}`)
}

const noFilter = (): Uint8Array => new Uint8Array(FILTER)

// ---- all of them ----

/** Linux's checks of a rule before it reads the specs. */
const checkRule = (title: string, { type, flags }: AnyValues): void => {
  const { DONT_TRAP, EGRESS } = FlowFlags.values
  const set = flags as number
  const unknown = (set & ~(DONT_TRAP | EGRESS)) >>> 0
  if (unknown !== 0) throw new CallError('EINVAL', `${title}: flags 0x${unknown.toString(16)} are unknown`)
  const { ALL_DEFAULT, MC_DEFAULT } = FlowType.values
  if ((set & DONT_TRAP) !== 0 && (type === ALL_DEFAULT || type === MC_DEFAULT))
    throw new CallError('EINVAL', `${title}: a default rule has no flag DONT_TRAP`)
}

/**
 * Reads the specs behind a struct into the attribute `name` and that of the counters. `args` has the struct's values.
 * Throws CallError.
 */
export const readSpecs = (
  title: string,
  { size: sizeAt, count: countAt, counters }: PackedSpecs,
  request: Uint8Array,
  tail: Uint8Array,
  name: string,
  args: AnyValues,
): void => {
  checkRule(title, args)
  const count = request[countAt]!
  const size = viewOf(request).getUint16(sizeAt, true)
  if (count > FLOW_SPECS) throw new CallError('EINVAL', `${title}: ${count} specs, at most ${FLOW_SPECS} are allowed`)
  if (size > count * FLOW_SPEC_ROOM)
    throw new CallError('EINVAL', `${title}: ${count} specs have at most ${count * FLOW_SPEC_ROOM} bytes, not ${size}`)
  if (size > tail.length)
    throw new CallError('ENOSPC', `${title}: the specs have ${size} bytes, ${tail.length} are there`)
  if (!isZero(tail.subarray(size))) throw new CallError('EOPNOTSUPP', `${title}: bytes after the specs are not 0`)
  const view = viewOf(tail)
  const specs: AnyRecord[] = []
  let at = 0
  for (let i = 0; i < count; i++) {
    const where = `${title}: spec ${i}`
    const left = size - at
    const own = left < FLOW_SPEC_HEADER ? FLOW_SPEC_HEADER : view.getUint16(at + 4, true)
    if (own < FLOW_SPEC_HEADER || own > left)
      throw new CallError('EINVAL', `${where}: it has ${own} bytes, ${left} are left`)
    if (view.getUint16(at + 6, true) !== 0) throw new CallError('EINVAL', `${where}: its reserved bytes are not 0`)
    const type = view.getUint32(at, true)
    if (type < FlowAction.FIRST) specs.push(readFilter(where, tail.subarray(at, at + own), type))
    else {
      checkAction(where, type, own)
      const word = type === ACTION_DROP ? 0 : view.getUint32(at + FLOW_SPEC_HEADER, true)
      if (type !== FlowAction.COUNT) specs.push({ type, value: noFilter(), mask: noFilter(), flags: 0, tag: word })
      else if (args[counters] !== undefined) throw new CallError('EINVAL', `${where}: a rule counts once`)
      else args[counters] = word
    }
    at += own
  }
  if (at !== size) throw new CallError('EINVAL', `${title}: ${size - at} bytes are left after ${count} specs`)
  args[name] = specs
}

/** Zeroes what `readSpecs` decoded in a request whose struct of `start` bytes still has their counts. */
export const clearSpecs = ({ size, count }: PackedSpecs, request: Uint8Array, start: number): void => {
  const view = viewOf(request)
  let at = start
  for (let i = 0; i < request[count]!; i++) {
    const type = view.getUint32(at, true)
    const own = view.getUint16(at + 4, true)
    const filter = type < FlowAction.FIRST ? flowFilters[type & ~INNER] : undefined
    const word = at + FLOW_SPEC_HEADER
    if (type !== FlowAction.COUNT) view.setUint32(at, 0, true)
    if (filter !== undefined) {
      const { each, used } = filterSizes(filter, own)
      request.fill(0, word, word + used)
      request.fill(0, word + each, word + each + used)
    } else if (type !== ACTION_DROP) view.setUint32(word, 0, true)
    at += own
  }
  view.setUint16(size, 0, true)
  request[count] = 0
}

/**
 * Writes specs and counters at `start` of a request with a residue, or zeros. Throws CallError EINVAL if they do not
 * fit, or Linux accepts no rule with such a header.
 */
export const writeSpecs = (
  { size, count }: PackedSpecs,
  request: Uint8Array,
  start: number,
  specs: readonly AnyRecord[],
  counters: number | undefined,
): void => {
  const view = viewOf(request)
  const total = specs.length + (counters === undefined ? 0 : 1)
  let at = start
  let next = 0
  let counted = counters === undefined
  for (let i = 0; i < total; i++) {
    const known = at + FLOW_SPEC_HEADER <= request.length
    const countsHere = known && view.getUint32(at, true) === FlowAction.COUNT
    if (countsHere && counted) throw badLegacy('has counters where the call has none')
    const spec = countsHere ? undefined : specs[next++]
    if (spec === undefined) counted = true
    const type = spec === undefined ? FlowAction.COUNT : (spec.type as number)
    const usual = usualSize(type)
    if (usual === undefined) throw new CallError('EINVAL', `CREATE_FLOW has no spec of type 0x${type.toString(16)}`)
    const own = (known ? view.getUint16(at + 4, true) : 0) || usual
    const filter = flowFilters[type]
    if (at + own > request.length || own < (filter === undefined ? usual : FLOW_SPEC_HEADER))
      throw badLegacy(`has no room for spec ${i}`)
    view.setUint32(at, (type | ((spec?.flags as number | undefined) ?? 0)) >>> 0, true)
    view.setUint16(at + 4, own, true)
    const word = at + FLOW_SPEC_HEADER
    if (spec !== undefined && filter !== undefined) {
      const { each, used } = filterSizes(filter, own)
      request.set((spec.value as Uint8Array).subarray(0, used), word)
      request.set((spec.mask as Uint8Array).subarray(0, used), word + each)
    } else if (type !== ACTION_DROP) view.setUint32(word, spec === undefined ? counters! : (spec.tag as number), true)
    at += own
  }
  view.setUint16(size, at - start, true)
  request[count] = total
}

/** Total bytes of the specs in Linux 6.1. */
export const specsSize = (specs: readonly AnyRecord[], counts: boolean): number =>
  specs.reduce((sum, { type }) => sum + (usualSize(type as number) ?? 0), counts ? FLOW_ACTION : 0)

/** Whether Linux accepts all headers of the specs, and their number. */
export const specsFit = (specs: readonly AnyRecord[], counts: boolean): boolean =>
  specs.length + (counts ? 1 : 0) <= FLOW_SPECS && specs.every(({ type }) => usualSize(type as number) !== undefined)
