/*
 * The client side of the object dialect: encodes a call as a message with room for the results, and decodes the
 * answered message. Lengths are computed first, so that a chain of calls can be written into one buffer.
 */
import { AttributeFlag, CommonAttribute } from '../../spec/classes/ids.ts'
import { type CallError, callError } from '../../spec/errno.ts'
import type { Place } from '../../spec/reason.ts'
import { type AnyValues, sizeOf } from '../../spec/schema/schema.ts'
import { passesQuickCheck } from '../argument-check.ts'
import type { Call, Result } from '../call.ts'
import { checkValue, viewOf, writeBytes } from '../scalar.ts'
import {
  ATTRIBUTE,
  creates,
  HEADER,
  INDIRECT_BYTES,
  indirect,
  itemAt,
  methodOfCall,
  pad,
  payloadSize,
  type Slot,
  valueIn,
  WRITTEN_SHIFT,
  writePayload,
} from './format.ts'
import { checkKnown } from './versions.ts'

const { MANDATORY, OUT, FILLED, INDIRECT: IS_INDIRECT, CHAINED } = AttributeFlag

/** Space for an output: bytes in the message, or the caller's memory. */
export type OutputBuffer = number | { readonly address: bigint; readonly length: number }

/** Maximum default space for a list or blob, bytes. */
const DEFAULT_LIST_BYTES = 1024

export interface EncodeOptions {
  readonly legacy?: Uint8Array | undefined
  /** By attribute: the space for an output; 0: not requested. By default lists and blobs get up to 1 KiB. */
  readonly outputBuffers?: { readonly [attribute: string]: OutputBuffer }
  /** Attributes that a device may ignore if it does not know them. */
  readonly ignorable?: readonly string[]
  /** By attribute: the address of the value's bytes, which are then not in the message. */
  readonly inputAddresses?: { readonly [attribute: string]: bigint }
}

/** By attribute: the chain entry that creates the object, in place of an argument. */
export type ChainedRefs = Readonly<Record<string, number>>

const NO_OPTIONS: EncodeOptions = {}

const outputBufferOf = ({ attribute: { type }, name }: Slot, { outputBuffers }: EncodeOptions): OutputBuffer => {
  const hasVariableSize = type.kind === 'list' || type.kind === 'blob'
  return outputBuffers?.[name] ?? (hasVariableSize ? Math.min(sizeOf(type), DEFAULT_LIST_BYTES) : sizeOf(type))
}

/** Bytes of an output's payload in the message. */
const outputPayloadSize = (buffer: OutputBuffer): number => (typeof buffer === 'number' ? buffer : INDIRECT_BYTES)

const tooLong = (where: Place, length: number): CallError =>
  callError.EMSGSIZE`${where}: the message would have ${length} bytes, at most 65,528 are possible`

/**
 * Bytes of a call's message. Throws CallError: EPROTONOSUPPORT for an argument that the method lacks, EINVAL for a
 * missing or invalid argument, EMSGSIZE beyond 65,528 bytes. The server checks unknown bits of flags.
 */
export const messageLength = (call: Call, options: EncodeOptions = NO_OPTIONS, refs?: ChainedRefs): number => {
  const { where, inputs, outputs, shape } = methodOfCall(call)
  const isValid = refs === undefined && passesQuickCheck(shape, call.args)
  if (!isValid) checkKnown(where, call.method, call.args)
  let length = HEADER
  for (const { name, path, attribute } of inputs) {
    const { type, optional } = attribute
    const value = refs?.[name] ?? call.args[name]
    if (value === undefined) {
      if (optional) continue
      throw callError.EINVAL`${path} is missing`
    }
    if (!isValid) checkValue(path, type, value)
    length +=
      ATTRIBUTE + (options.inputAddresses?.[name] === undefined ? pad(payloadSize(type, value)) : INDIRECT_BYTES)
  }
  for (const slot of outputs) {
    const buffer = outputBufferOf(slot, options)
    if (buffer !== 0) length += ATTRIBUTE + pad(outputPayloadSize(buffer))
  }
  if (options.legacy !== undefined) length += ATTRIBUTE + pad(options.legacy.length)
  if (length > 0xffff) throw tooLong(where, length)
  return length
}

/** Writes a call's message at `start`, where the bytes must be 0. `length`: from `messageLength`. */
export const writeMessage = (
  view: DataView,
  start: number,
  length: number,
  call: Call,
  options: EncodeOptions = NO_OPTIONS,
  refs?: ChainedRefs,
): void => {
  const { inputs, outputs } = methodOfCall(call)
  view.setUint16(start, length, true)
  view.setUint16(start + 2, call.class.id, true)
  view.setUint32(start + 4, call.object, true)
  let at = start + HEADER
  /** Writes the header of the next attribute; returns the offset of its payload of `size` bytes. */
  const addAttribute = (id: number, flags: number, size: number): number => {
    const payload = at + ATTRIBUTE
    view.setUint16(at, ATTRIBUTE + size, true)
    view.setUint16(at + 2, id, true)
    view.setUint32(at + 4, flags, true)
    at = payload + pad(size)
    return payload
  }
  const writeIndirect = (payload: number, address: bigint, size: number): void => {
    view.setBigUint64(payload, address, true)
    view.setBigUint64(payload + 8, BigInt(size), true)
  }
  for (const { name, attribute } of inputs) {
    const { id, type } = attribute
    const entry = refs?.[name]
    const value = entry ?? call.args[name]
    if (value === undefined) continue
    const flags = (options.ignorable?.includes(name) ? 0 : MANDATORY) | (entry === undefined ? 0 : CHAINED)
    const address = options.inputAddresses?.[name]
    const size = payloadSize(type, value)
    if (address === undefined) writePayload(view, addAttribute(id, flags, size), type, value)
    else writeIndirect(addAttribute(id, flags | IS_INDIRECT, INDIRECT_BYTES), address, size)
  }
  for (const slot of outputs) {
    const { id } = slot.attribute
    const buffer = outputBufferOf(slot, options)
    if (buffer === 0) continue
    if (typeof buffer === 'number') addAttribute(id, OUT, buffer)
    else writeIndirect(addAttribute(id, OUT | IS_INDIRECT, INDIRECT_BYTES), buffer.address, buffer.length)
  }
  const { legacy } = options
  if (legacy !== undefined)
    writeBytes(view, addAttribute(CommonAttribute.LEGACY, 0, legacy.length), legacy.length, legacy)
}

/** The message of a call. Throws as `messageLength`. */
export const encodeCall = (call: Call, options: EncodeOptions = NO_OPTIONS): Uint8Array => {
  const message = new Uint8Array(messageLength(call, options))
  writeMessage(viewOf(message), 0, message.length, call, options)
  return message
}

/**
 * The result in an answered message. `copyIn` reads indirect outputs; without `copyIn` they are omitted. Throws
 * CallError: EINVAL for a malformed message, E2BIG for a record with nonzero bytes after its known fields.
 */
export const decodeResult = (
  call: Call,
  message: Uint8Array,
  copyIn?: (address: bigint, length: number) => Uint8Array,
): Result => {
  const { where, out: outputs } = methodOfCall(call)
  if (message.length < HEADER)
    throw callError.EINVAL`${where}: an answer has at least ${HEADER} bytes, not ${message.length}`
  const view = viewOf(message)
  const out: AnyValues = {}
  for (let at = HEADER; at < message.length; ) {
    const item = itemAt(where, view, at, message.length)
    at = item.next
    const slot = item.flags & OUT && item.flags & FILLED ? outputs.get(item.id) : undefined
    if (slot === undefined) continue
    const { name, path, attribute } = slot
    if (item.flags & IS_INDIRECT) {
      const { address, length } = indirect(path, view, item)
      if (copyIn === undefined) continue
      const bytes = copyIn(address, Number(length))
      if (bytes.length < length) throw callError.EINVAL`${path}: ${length} bytes written, ${bytes.length} are readable`
      out[name] = valueIn(path, attribute.type, viewOf(bytes), 0, bytes.length)
      continue
    }
    const written = item.flags >>> WRITTEN_SHIFT
    if (written > item.length) throw callError.EINVAL`${path}: ${written} bytes written into a buffer of ${item.length}`
    out[name] = valueIn(path, attribute.type, view, item.payload, written)
  }
  return creates(call.method) ? { object: view.getUint32(4, true), out } : { out }
}
