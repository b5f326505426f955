/*
 * Programs' memory for the engine, through the `Memory` of all soft devices: gathers and scatters the elements of
 * requests. Functions that return a boolean return false for memory that is not registered with the rights, or is gone.
 */

import type { Bytes } from '../../core/memory/address-space.ts'
import { EfaStatus } from '../../spec/drivers/efa-queues.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { TWO_32 } from '../../spec/memory.ts'
import type { Memory } from '../../transport/engine/types.ts'
import { regionMemory } from '../soft/memory.ts'
import type { EfaState } from './device-state.ts'
import { NO_INLINE } from './requests.ts'
import type { Element, QueuePair, Request } from './state.ts'

const { LOCAL_WRITE, REMOTE_WRITE } = AccessFlags.values

/** The queue pair for which memory is accessed. */
type Owner = Pick<QueuePair, 'pd' | 'qpn'>

/** The elements of a request; the first `count` are valid. */
type Elements = Pick<Request, 'elements' | 'count'>

/** Programs' memory. Created with the first access: the device is registered after its state is made. */
export const memoryOf = (efa: EfaState): Memory => {
  efa.memory ??= regionMemory(efa.device().memory)
  return efa.memory
}

/** Sets a range, and returns it: one record serves all packets. */
export const setRange = (range: Element, hi: number, lo: number, key: number, length: number): Element => {
  range.hi = hi
  range.lo = lo
  range.key = key
  range.length = length
  return range
}

/**
 * Copies between `length` bytes of a range, from byte `offset` on, and `bytes`. `access`: rights that the key must
 * grant; those to write say that the range is written. The range's own length is not looked at.
 */
export const copyRange = (
  memory: Memory,
  { pd, qpn }: Owner,
  access: number,
  { hi, lo, key }: Omit<Element, 'length'>,
  offset: number,
  bytes: Bytes,
  at: number,
  length: number,
): boolean => {
  if (length === 0) return true
  const low = lo + offset
  const high = (hi + Math.floor(low / TWO_32)) >>> 0
  const region = memory.resolve(pd, key, high, low >>> 0, length, access, qpn)
  if (region < 0) return false
  // two calls, which V8 can inline
  return (access & (LOCAL_WRITE | REMOTE_WRITE)) === 0
    ? memory.read(region, high, low >>> 0, bytes, at, length, length, length) === 0
    : memory.write(region, high, low >>> 0, bytes, at, length, length, length) === 0
}

/** Whether a key grants access to a whole range. */
export const isGranted = (
  memory: Memory,
  { pd, qpn }: Owner,
  access: number,
  { key, hi, lo, length }: Element,
): boolean => length === 0 || memory.resolve(pd, key, hi, lo, length, access, qpn) >= 0

/** Whether all elements of a request are registered with `access`. */
export const elementsGranted = (
  memory: Memory,
  owner: Owner,
  { elements, count }: Elements,
  access: number,
): boolean => {
  for (let i = 0; i < count; i++) if (!isGranted(memory, owner, access, elements[i]!)) return false
  return true
}

/**
 * Copies `length` bytes between the elements, from byte `offset` of their bytes on, and `bytes`. `access`: 0 or
 * LOCAL_WRITE.
 */
export const copyElements = (
  memory: Memory,
  owner: Owner,
  { elements, count }: Elements,
  access: number,
  offset: number,
  bytes: Bytes,
  at: number,
  length: number,
): boolean => {
  let skipped = offset
  let left = length
  let to = at
  for (let i = 0; i < count && left > 0; i++) {
    const element = elements[i]!
    if (skipped >= element.length) {
      skipped -= element.length
      continue
    }
    const part = Math.min(element.length - skipped, left)
    if (!copyRange(memory, owner, access, element, skipped, bytes, to, part)) return false
    to += part
    left -= part
    skipped = 0
  }
  return left === 0
}

/** Copies `length` bytes of a send's message, from byte `offset` on, to `bytes`. */
export const gather = (
  memory: Memory,
  request: Request,
  offset: number,
  bytes: Bytes,
  at: number,
  length: number,
): EfaStatus => {
  const { qp, inlineLength, inline, elements, count } = request
  if (inlineLength !== NO_INLINE) {
    // at most 80 bytes: a view of them would cost more
    for (let i = 0; i < length; i++) bytes.bytes[at + i] = inline[offset + i]!
    return EfaStatus.OK
  }
  // several elements only fit into one packet
  const isCopied =
    count === 1
      ? copyRange(memory, qp, 0, elements[0]!, offset, bytes, at, length)
      : copyElements(memory, qp, request, 0, offset, bytes, at, length)
  return isCopied ? EfaStatus.OK : EfaStatus.INVALID_LKEY
}
