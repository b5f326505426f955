/*
 * The object dialect (R1–R6, design.md section 3 "fixed here"): messages of a header and attributes ⇄ calls and
 * results, for both sides, from the classes' declarations alone.
 *
 * Header {u16 length, u16 class_id, u32 object_id, u32 op_ctrl, u32 flags}; attribute {u16 length with its header, u16
 * id, u32 flags}, payload padded to 8; little-endian. An indirect payload is {u64 address, u64 length}. An answer is
 * the message itself, changed in place: object_id, the payloads of outputs and in their flags `filled` and, in bits
 * 16–31, how many bytes were written (of an indirect one: in its length). Attributes keep their length, so that an
 * answered message can still be walked. Errors: no such class or method EOPNOTSUPP; unknown mandatory attribute
 * EPROTONOSUPPORT; room too small ENOSPC, with what is needed; a record's unknown tail that is not zero E2BIG;
 * malformed, missing or out of limits EINVAL.
 */
import { AttributeFlag, CommonAttribute, MessageFlag, OpCtrl } from '../spec/classes/ids.ts'
import { CallError } from '../spec/errno.ts'
import { type AnyValue, type AnyValues, type Attribute, type Kind, sizeOf } from '../spec/schema.ts'
import { checkKnown } from '../spec/versions.ts'
import type { Answer, Call, CallerView, Decoded, Install, Result } from './call.ts'
import { answering, descriptorOf, refuse } from './caller.ts'
import {
  ATTRIBUTE,
  creates,
  HEADER,
  INDIRECT,
  type Item,
  indirect,
  items,
  methodByCall,
  pad,
  payloadOf,
  valueIn,
  WRITTEN,
} from './object-format.ts'
import { checkValue, viewOf } from './scalar.ts'

export { ATTRIBUTE, callOfRequest, HEADER, ioctlRequest } from './object-format.ts'

const { MANDATORY, OUT, FILLED, INDIRECT: IS_INDIRECT, CHAINED } = AttributeFlag

/** Longest payload that lies elsewhere, for kinds that may grow. */
const LONGEST = 1 << 20

// ---- server: message → call, result → message ----

/** A message made a call. */
export interface ObjectMessage {
  readonly call: Call
  readonly legacy: Uint8Array | undefined
  /**
   * ENOSPC if there is too little room for an output whose size is fixed: then the call is not to be run, but refused.
   */
  readonly short: CallError | undefined
  /**
   * The message with the result in it; indirect outputs are written with `copyOut`. Throws CallError, ENOSPC above all.
   */
  answer(result: Result): { message: Uint8Array; installs: Placed[] }
  /** The message after a refusal: after ENOSPC it says what each output needs. */
  refuse(): Uint8Array
}

/** A descriptor's number belongs at this offset of the message, or of what lies at `base`. */
export interface Placed {
  readonly descriptor: Install['descriptor']
  readonly offset: number
  readonly base?: bigint
}

interface Place {
  readonly name: string
  readonly attribute: Attribute
  readonly item: Item
}

const spaceError = (where: string, needed: number, room: number | bigint): CallError =>
  new CallError('ENOSPC', `${where}: it needs ${needed} bytes, there is room for ${room}`)

/** The object that an entry of the chain under way has made, as this attribute names objects. */
const chained = (view: CallerView, path: string, of: Kind, value: AnyValue): number => {
  if (view.chained === undefined) throw new CallError('EINVAL', `${path}: it names an entry, but this is no chain`)
  if (of.kind !== 'ref' && of.kind !== 'fd')
    throw new CallError('EINVAL', `${path}: it is no reference to an object, so it cannot name an entry`)
  return view.chained(path, of, value as number)
}

/** The descriptors whose numbers lie somewhere in the value of an attribute that is none itself. */
const descriptorsWithin = (result: Result, name: string, of: Kind): Placed[] =>
  of.kind === 'fd' || result.descriptors === undefined
    ? []
    : result.descriptors
        .filter(({ attribute }) => attribute === name)
        .map(descriptor => ({ descriptor, offset: descriptor.offset ?? 0 }))

/** Decodes one message of call number `call`. Throws CallError. */
export const decodeMessage = (view: CallerView, call: number, bytes: Uint8Array): ObjectMessage => {
  if (bytes.length < HEADER)
    throw new CallError('EINVAL', `a message has at least ${HEADER} bytes, not ${bytes.length}`)
  const header = viewOf(bytes)
  const length = header.getUint16(0, true)
  if (length < HEADER || length > bytes.length || length % 8 !== 0)
    throw new CallError(
      'EINVAL',
      `the message says that it has ${length} bytes; a multiple of 8 from ${HEADER} to ${bytes.length} is right`,
    )
  const cls = view.schema.classById(header.getUint16(2, true))
  if (cls === undefined) throw new CallError('EOPNOTSUPP', `this device has no class ${header.getUint16(2, true)}`)
  const named = methodByCall(cls, call)
  if (named === undefined) throw new CallError('EOPNOTSUPP', `class ${cls.name} of this device has no method ${call}`)
  const where = `${cls.name}.${named.name}`
  const object = header.getUint32(4, true)
  if (header.getUint32(8, true) !== OpCtrl.ATTRIBUTES || (header.getUint32(12, true) & ~MessageFlag.ANSWERED) !== 0)
    throw new CallError('EOPNOTSUPP', `${where}: op_ctrl or flags of the header are unknown`)
  if (object !== 0 && creates(named.method))
    throw new CallError('EINVAL', `${where}: object_id is ${object}; it is 0 for what is yet to be made`)
  if (!view.hasContext && !(cls.name === 'device' && named.name === 'open'))
    throw new CallError('EINVAL', `${where}: the descriptor has no context yet: device.open comes first`)

  const message = bytes.subarray(0, length)
  const args: AnyValues = {}
  const places: Place[] = []
  const seen = new Set<number>()
  // Bytes needed by outputs that do not fit.
  const needed = new Map<Item, number>()
  let short: CallError | undefined
  let legacy: Uint8Array | undefined
  for (const item of items(where, message)) {
    const { id, flags } = item
    const isOut = (flags & OUT) !== 0
    if ((flags & ~(MANDATORY | OUT | FILLED | IS_INDIRECT | CHAINED) & 0xffff) !== 0)
      throw new CallError(
        'EINVAL',
        `${where}: attribute 0x${id.toString(16)} has unknown flags 0x${flags.toString(16)}`,
      )
    if (seen.has(id)) throw new CallError('EINVAL', `${where}: attribute 0x${id.toString(16)} is there twice`)
    seen.add(id)
    const found = (isOut ? named.out : named.in).get(id)
    if (found === undefined) {
      if (id === CommonAttribute.LEGACY && !isOut && (flags & IS_INDIRECT) === 0)
        legacy = message.slice(item.payload, item.payload + item.length)
      else if ((isOut ? named.in : named.out).has(id))
        throw new CallError(
          'EINVAL',
          `${where}: attribute 0x${id.toString(16)} goes ${isOut ? 'in' : 'out'}, not ${isOut ? 'out' : 'in'}`,
        )
      else if (flags & MANDATORY) {
        const refused = Object.values(named.method.refused ?? {}).find(one => one.id === id && !isOut)
        if (refused !== undefined) throw new CallError('EINVAL', `${where}: ${refused.why}`)
        throw new CallError('EPROTONOSUPPORT', `${where}: the mandatory attribute 0x${id.toString(16)} is unknown`)
      }
      continue
    }
    const [name, attribute] = found
    const path = `${where}: attribute ${name}`
    if (isOut) {
      const { kind } = attribute.of
      if (flags & IS_INDIRECT && kind === 'fd')
        throw new CallError('EINVAL', `${path}: a descriptor's number is not indirect`)
      const room = flags & IS_INDIRECT ? indirect(path, message, item).length : BigInt(item.length)
      const size = kind === 'list' || kind === 'blob' ? 0 : sizeOf(attribute.of)
      if (room < BigInt(size)) {
        short ??= spaceError(path, size, room)
        needed.set(item, size)
      }
      places.push({ name, attribute, item })
      continue
    }
    let payload = message.subarray(item.payload, item.payload + item.length)
    if (flags & IS_INDIRECT) {
      const { address, length: size } = indirect(path, message, item)
      const limit = Math.max(sizeOf(attribute.of), attribute.of.kind === 'record' ? LONGEST : 0)
      if (size > BigInt(limit)) throw new CallError('EINVAL', `${path}: ${size} bytes, at most ${limit} are taken`)
      payload = view.copyIn(address, Number(size))
    }
    const value = valueIn(path, attribute.of, payload)
    checkValue(path, attribute.of, value, true)
    args[name] = flags & CHAINED ? chained(view, path, attribute.of, value) : value
  }
  for (const name in named.method.in)
    if (!named.method.in[name].optional && args[name] === undefined)
      throw new CallError('EINVAL', `${where}: attribute ${name} is missing`)

  return {
    short,
    call: { class: cls, methodName: named.name, method: named.method, object, args },
    legacy,
    answer: result => {
      const answered = message.slice()
      const out = viewOf(answered)
      const installs: Placed[] = []
      const indirects: [bigint, Uint8Array][] = []
      let short: CallError | undefined
      for (const { name, attribute, item } of places) {
        const path = `${where}: attribute ${name}`
        const descriptor = attribute.of.kind === 'fd' ? descriptorOf(result, name) : undefined
        const value = descriptor === undefined ? result.out[name] : 0xffffffff
        if (value === undefined) continue
        const payload = payloadOf(attribute.of, value)
        if (item.flags & IS_INDIRECT) {
          const { address, length: room } = indirect(path, message, item)
          if (BigInt(payload.length) > room) {
            short ??= spaceError(path, payload.length, room)
            needed.set(item, payload.length)
            continue
          }
          indirects.push([address, payload])
          for (const within of descriptorsWithin(result, name, attribute.of))
            installs.push({ ...within, base: address })
          out.setBigUint64(item.payload + 8, BigInt(payload.length), true)
          out.setUint32(item.at + 4, item.flags | FILLED, true)
          continue
        }
        if (payload.length > item.length) {
          short ??= spaceError(path, payload.length, item.length)
          needed.set(item, payload.length)
          continue
        }
        answered.fill(0, item.payload, item.payload + item.length)
        answered.set(payload, item.payload)
        out.setUint32(item.at + 4, ((item.flags & 0xffff) | FILLED | (payload.length << WRITTEN)) >>> 0, true)
        if (descriptor !== undefined) installs.push({ descriptor, offset: item.payload })
        for (const { descriptor, offset } of descriptorsWithin(result, name, attribute.of))
          installs.push({ descriptor, offset: item.payload + offset })
      }
      if (short !== undefined) throw short
      for (const [address, payload] of indirects) view.copyOut(address, payload)
      const own = descriptorOf(result, 'object')
      if (own !== undefined) installs.unshift({ descriptor: own, offset: 4 })
      const lost = result.descriptors?.find(d => !installs.some(({ descriptor }) => descriptor === d))
      if (lost !== undefined)
        throw new CallError('ENOSPC', `${where}: there is no room for the descriptor ${lost.attribute}`)
      else if (result.object !== undefined) out.setUint32(4, result.object, true)
      out.setUint32(12, MessageFlag.ANSWERED, true)
      return { message: answered, installs }
    },
    refuse: () => {
      const answered = message.slice()
      const out = viewOf(answered)
      for (const [item, bytes] of needed) {
        if (item.flags & IS_INDIRECT) out.setBigUint64(item.payload + 8, BigInt(bytes), true)
        else out.setUint32(item.at + 4, ((item.flags & 0xffff) | (Math.min(bytes, 0xffff) << WRITTEN)) >>> 0, true)
      }
      out.setUint32(12, MessageFlag.ANSWERED, true)
      return answered
    },
  }
}

/** Decodes the message at `address` in the caller's memory, of call number `call` (an ioctl's, `callOfRequest`). */
export const decodeObject = (view: CallerView, call: number, address: bigint): Decoded | Answer =>
  answering((): Decoded | Answer => {
    const length = viewOf(view.copyIn(address, 8)).getUint16(0, true)
    if (length < HEADER) throw new CallError('EINVAL', `a message has at least ${HEADER} bytes, not ${length}`)
    const decoded = decodeMessage(view, call, view.copyIn(address, length))
    const failed = (error: CallError): Answer => {
      try {
        view.copyOut(address, decoded.refuse())
      } catch (fault) {
        if (!(fault instanceof CallError)) throw fault
      }
      return refuse(error)
    }
    if (decoded.short !== undefined) return failed(decoded.short)
    return {
      call: decoded.call,
      legacy: () => decoded.legacy,
      answer: outcome => {
        if (outcome instanceof CallError) return failed(outcome)
        try {
          const { message, installs } = decoded.answer(outcome)
          view.copyOut(address, message)
          return {
            ret: 0,
            installs: installs.map(({ descriptor, offset, base = address }) => ({
              descriptor,
              address: base + BigInt(offset),
              width: 4,
            })),
          }
        } catch (error) {
          if (error instanceof CallError) return failed(error)
          throw error
        }
      },
    }
  })

// ---- client: call → message, message → result ----

/** Room for an output: bytes in the message, or memory elsewhere. */
export type OutputRoom = number | { readonly address: bigint; readonly length: number }

/** Room for outputs of which there can be many, where a caller says nothing. */
const LIST_ROOM = 1024

/** Inputs that do not fit the message lie where `place` puts them. */
export interface EncodeOptions {
  readonly legacy?: Uint8Array | undefined
  /** By attribute; all outputs get room otherwise, lists and blobs 1 KiB. `0`: not wanted. */
  readonly rooms?: { readonly [attribute: string]: OutputRoom }
  /** Attributes that a device which does not know them may ignore (R3); it refuses others. */
  readonly ignorable?: readonly string[]
  /** By attribute: the address at which the caller has put the value's bytes. */
  readonly elsewhere?: { readonly [attribute: string]: bigint }
}

/**
 * The message of a call. Arguments outside their limits are refused here; unknown bits of flags are the server's to
 * refuse. Throws CallError EINVAL, and EMSGSIZE if the message would have more than 65,528 bytes.
 */
export const encodeCall = (call: Call, options: EncodeOptions = {}): Uint8Array => {
  const where = `${call.class.name}.${call.methodName}`
  const parts: { id: number; flags: number; payload: Uint8Array }[] = []
  const add = (id: number, flags: number, payload: Uint8Array): void => {
    parts.push({ id, flags, payload })
  }
  const pointer = (address: bigint, length: number): Uint8Array => {
    const bytes = new Uint8Array(INDIRECT)
    viewOf(bytes).setBigUint64(0, address, true)
    viewOf(bytes).setBigUint64(8, BigInt(length), true)
    return bytes
  }
  checkKnown(where, call.method, call.args)
  for (const [name, { id, of, optional }] of Object.entries(call.method.in)) {
    const value = call.args[name]
    if (value === undefined) {
      if (optional) continue
      throw new CallError('EINVAL', `${where}: attribute ${name} is missing`)
    }
    checkValue(`${where}: attribute ${name}`, of, value)
    const payload = payloadOf(of, value)
    const flags = options.ignorable?.includes(name) ? 0 : MANDATORY
    const address = options.elsewhere?.[name]
    if (address === undefined) add(id, flags, payload)
    else add(id, flags | IS_INDIRECT, pointer(address, payload.length))
  }
  for (const [name, { id, of }] of Object.entries(call.method.out)) {
    const some = of.kind === 'list' || of.kind === 'blob'
    const room = options.rooms?.[name] ?? (some ? Math.min(sizeOf(of), LIST_ROOM) : sizeOf(of))
    if (room === 0) continue
    if (typeof room === 'number') add(id, OUT, new Uint8Array(room))
    else add(id, OUT | IS_INDIRECT, pointer(room.address, room.length))
  }
  if (options.legacy !== undefined) add(CommonAttribute.LEGACY, 0, options.legacy)

  const length = parts.reduce((sum, { payload }) => sum + ATTRIBUTE + pad(payload.length), HEADER)
  if (length > 0xffff)
    throw new CallError('EMSGSIZE', `${where}: the message would have ${length} bytes, at most 65,528 are possible`)
  const message = new Uint8Array(length)
  const view = viewOf(message)
  view.setUint16(0, length, true)
  view.setUint16(2, call.class.id, true)
  view.setUint32(4, call.object, true)
  let at = HEADER
  for (const { id, flags, payload } of parts) {
    view.setUint16(at, ATTRIBUTE + payload.length, true)
    view.setUint16(at + 2, id, true)
    view.setUint32(at + 4, flags, true)
    message.set(payload, at + ATTRIBUTE)
    at += ATTRIBUTE + pad(payload.length)
  }
  return message
}

/**
 * The result in an answered message. `copyIn` reads indirect outputs. Numbers of descriptors appear as values. Throws
 * CallError EINVAL if the message is not an answer to `call`.
 */
export const decodeResult = (
  call: Call,
  message: Uint8Array,
  copyIn?: (address: bigint, length: number) => Uint8Array,
): Result => {
  const where = `${call.class.name}.${call.methodName}`
  if (message.length < HEADER)
    throw new CallError('EINVAL', `${where}: an answer has at least ${HEADER} bytes, not ${message.length}`)
  const named = methodByCall(call.class, call.method.call)
  const out: AnyValues = {}
  for (const item of items(where, message)) {
    const found = item.flags & OUT && item.flags & FILLED ? named?.out.get(item.id) : undefined
    if (found === undefined) continue
    const [name, { of }] = found
    const path = `${where}: attribute ${name}`
    let payload: Uint8Array
    if (item.flags & IS_INDIRECT) {
      const { address, length } = indirect(path, message, item)
      if (copyIn === undefined) continue
      payload = copyIn(address, Number(length))
    } else {
      const written = item.flags >>> WRITTEN
      if (written > item.length)
        throw new CallError('EINVAL', `${path}: ${written} bytes written into a room of ${item.length}`)
      payload = message.subarray(item.payload, item.payload + written)
    }
    out[name] = valueIn(path, of, payload)
  }
  return creates(call.method) ? { object: viewOf(message).getUint32(4, true), out } : { out }
}
