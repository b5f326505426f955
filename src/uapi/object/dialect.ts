/*
 * The server side of the object dialect (R1–R6, docs/reference/object-dialect.md): decodes messages into calls and
 * writes results into the messages, by the declarations of the classes.
 *
 * Little-endian. Header: {u16 length, u16 class_id, u32 object_id, u32 op_ctrl, u32 flags}. Attribute: {u16 length with
 * this header, u16 id, u32 flags}, and a payload padded to 8. An indirect payload is {u64 address, u64 length}.
 *
 * An answer is written into the message. The header gets flag ANSWERED and object_id. Outputs get their payloads, flag
 * FILLED, and the number of written bytes in bits 16–31 of the flags. An indirect output gets this number as its u64
 * length. Attributes keep their length.
 *
 * Errors:
 * - EOPNOTSUPP: unknown class, method, op_ctrl or flag of the header;
 * - EPROTONOSUPPORT: unknown mandatory attribute;
 * - ENOSPC, with the needed sizes: too little room;
 * - E2BIG: nonzero bytes after the known fields of a record;
 * - the error of an attribute in `Method.refused`;
 * - EFAULT: memory of the caller that cannot be accessed;
 * - EINVAL: everything else.
 */
import { AttributeFlag, CommonAttribute, MessageFlag, OpCtrl } from '../../spec/classes/ids.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { because, type Place } from '../../spec/reason.ts'
import { type AnyValue, type AnyValues, type Kind, type ObjectClass, sizeOf } from '../../spec/schema/schema.ts'
import { isValid } from '../argument-check.ts'
import type { Answer, Call, CallerView, Decoded, Install, Result } from '../call.ts'
import { answering, descriptorOf, refuse } from '../linux/caller.ts'
import { checkValue, viewOf } from '../scalar.ts'
import {
  type CompiledMethod,
  creates,
  HEADER,
  type Item,
  indirect,
  itemAt,
  methodByCall,
  payloadOf,
  payloadSize,
  type Slot,
  valueIn,
  WRITTEN_SHIFT,
  writePayload,
} from './format.ts'
import { lacksCall } from './lacking.ts'

export { callOfRequest, HEADER, ioctlRequest } from './format.ts'

const { MANDATORY, OUT, FILLED, INDIRECT: IS_INDIRECT, CHAINED } = AttributeFlag

/** Offsets in the header of a message. */
const HeaderAt = { CLASS_ID: 2, OBJECT_ID: 4, OP_CTRL: 8, FLAGS: 12 } as const

/** Maximum bytes of an indirect record, that of an attribute on Linux. A record may be longer than its known fields. */
const MAX_RECORD = 0xffff

interface ObjectMessage {
  readonly call: Call
  readonly legacy: Uint8Array | undefined
  /** ENOSPC if an output of fixed size has too little room: the call must be refused without running. */
  readonly roomError: CallError | undefined
  /**
   * Writes the result into the message, and indirect outputs with `copyOut`. Throws CallError ENOSPC and the errors of
   * `copyOut`; the message is then unchanged. Returns the message, and where the numbers of new descriptors belong.
   */
  answer(result: Result): { message: Uint8Array; installs: readonly DescriptorSlot[] }
  /** Writes a refusal into the message and returns it. After ENOSPC, too small outputs get their needed size. */
  refuse(): Uint8Array
}

/** Where a new descriptor's number belongs: at `offset` of the message, or of the memory at `base`. */
interface DescriptorSlot {
  readonly descriptor: Install['descriptor']
  readonly offset: number
  readonly base?: bigint
}

/** An output that does not fit. */
interface TooSmall {
  readonly item: Item
  /** Needed bytes. */
  readonly size: number
}

interface Output {
  readonly slot: Slot
  readonly item: Item
}

/** An output that gets a value of `size` bytes. */
interface FilledOutput extends Output {
  readonly value: AnyValue
  readonly size: number
}

const spaceError = (where: Place, needed: number, room: number | bigint): CallError =>
  callError.ENOSPC`${where}: it needs ${needed} bytes, there is room for ${room}`

/** For an attribute with flag CHAINED: the handle or descriptor of the object that entry `value` created. */
const chainedReference = (view: CallerView, path: Place, type: Kind, value: AnyValue): number => {
  if (view.chained === undefined) throw callError.EINVAL`${path}: it names an entry, but this is not a chain`
  if (type.kind !== 'ref' && type.kind !== 'fd')
    throw callError.EINVAL`${path}: it is not a reference to an object, so it cannot name an entry`
  return view.chained(path, type, value as number)
}

/** Descriptors whose numbers lie in the value of attribute `name` (results of a chain), with offsets in the value. */
const descriptorsWithin = (result: Result, name: string, type: Kind): DescriptorSlot[] =>
  type.kind === 'fd' || result.descriptors === undefined
    ? []
    : result.descriptors
        .filter(({ attribute }) => attribute === name)
        .map(descriptor => ({ descriptor, offset: descriptor.offset ?? 0 }))

const hexadecimal = (id: number): string => `0x${id.toString(16)}`

/** −1 as u32: the number of a new descriptor until it is installed in the caller. */
const NOT_INSTALLED = 0xffffffff

const NO_INSTALLS: readonly DescriptorSlot[] = Object.freeze([])

/** A checked header. */
interface Header {
  readonly cls: ObjectClass
  readonly compiled: CompiledMethod
  /** `object_id`. */
  readonly object: number
  /** Bytes of the message. */
  readonly length: number
}

/** Reads and checks a header. `room`: available bytes of the message, at least HEADER. Throws CallError. */
const readHeader = (view: CallerView, call: number, header: DataView, room: number): Header => {
  const length = header.getUint16(0, true)
  if (length < HEADER || length > room || length % 8 !== 0)
    throw callError.EINVAL`the header has length ${length}, allowed is a multiple of 8 from ${HEADER} to ${room}`
  const classId = header.getUint16(HeaderAt.CLASS_ID, true)
  const cls = view.schema.classById(classId)
  const compiled = cls === undefined ? undefined : methodByCall(cls, call)
  if (cls === undefined || compiled === undefined) throw new CallError('EOPNOTSUPP', lacksCall(cls, classId, call))
  const { where } = compiled
  const object = header.getUint32(HeaderAt.OBJECT_ID, true)
  const unknownFlags = header.getUint32(HeaderAt.FLAGS, true) & ~MessageFlag.ANSWERED
  if (header.getUint32(HeaderAt.OP_CTRL, true) !== OpCtrl.ATTRIBUTES || unknownFlags !== 0)
    throw callError.EOPNOTSUPP`${where}: op_ctrl or flags of the header are unknown`
  if (object !== 0 && creates(compiled.method))
    throw callError.EINVAL`${where}: object_id is ${object}; it is 0 for an object to be created`
  if (!view.hasContext && !(cls.name === 'device' && compiled.name === 'open'))
    throw callError.EINVAL`${where}: the descriptor has no context yet: call device.open first`
  return { cls, compiled, object, length }
}

/** The constructor reads the attributes. Throws CallError. */
class MessageInPlace implements ObjectMessage {
  readonly call: Call
  legacy: Uint8Array | undefined
  roomError: CallError | undefined
  readonly #view: CallerView
  readonly #bytes: Uint8Array
  readonly #data: DataView
  readonly #compiled: CompiledMethod
  readonly #args: AnyValues = {}
  readonly #outputs: Output[] = []
  readonly #tooSmall: TooSmall[] = []
  /** Ids of passed attributes that the method does not have in their direction. */
  #unknownIds: Set<number> | undefined

  /** `bytes`: exactly the message. `data`: a view of `bytes`, and maybe of further memory after them. */
  constructor(view: CallerView, { cls, compiled, object }: Header, bytes: Uint8Array, data: DataView) {
    this.#view = view
    this.#bytes = bytes
    this.#data = data
    this.#compiled = compiled
    this.#readAttributes()
    this.call = { class: cls, methodName: compiled.name, method: compiled.method, object, args: this.#args }
  }

  #readAttributes(): void {
    const { where, required } = this.#compiled
    for (let at = HEADER; at < this.#bytes.length; ) {
      const item = itemAt(where, this.#data, at, this.#bytes.length)
      at = item.next
      this.#readAttribute(item)
    }
    for (const { name, path } of required)
      if (this.#args[name] === undefined) throw callError.EINVAL`${path} is missing`
  }

  #readAttribute(received: Item): void {
    const { where, in: inputs, out: outputs } = this.#compiled
    const { id, flags } = received
    if ((flags & ~(MANDATORY | OUT | FILLED | IS_INDIRECT | CHAINED) & 0xffff) !== 0)
      throw callError.EINVAL`${where}: attribute ${hexadecimal(id)} has unknown flags ${hexadecimal(flags)}`
    const isOut = (flags & OUT) !== 0
    const item = isOut ? this.#unanswered(received) : received
    const slot = (isOut ? outputs : inputs).get(id)
    if (this.#isPassedTwice(id, isOut ? undefined : slot))
      throw callError.EINVAL`${where}: attribute ${hexadecimal(id)} is passed twice`
    if (slot === undefined) this.#readUnknown(item, isOut)
    else if (isOut) this.#readOutput(slot, item)
    else this.#args[slot.name] = this.#readInput(slot, item)
  }

  /** The output without FILLED and the number of written bytes, which it has if the message was answered before. */
  #unanswered(output: Item): Item {
    const flags = output.flags & 0xffff & ~FILLED
    if (flags === output.flags) return output
    this.#data.setUint32(output.at + 4, flags, true)
    return { ...output, flags }
  }

  /** `input`: the attribute's slot, if it is a known input. */
  #isPassedTwice(id: number, input: Slot | undefined): boolean {
    if (this.#unknownIds?.has(id) === true) return true
    if (input !== undefined) return this.#args[input.name] !== undefined
    for (let i = 0; i < this.#outputs.length; i++) if (this.#outputs[i]!.item.id === id) return true
    return false
  }

  /** Reads LEGACY; ignores or refuses other attributes that the method does not have in this direction. */
  #readUnknown({ id, flags, payload, length }: Item, isOut: boolean): void {
    const { where, method, in: inputs, out: outputs } = this.#compiled
    this.#unknownIds ??= new Set()
    this.#unknownIds.add(id)
    if (id === CommonAttribute.LEGACY && !isOut && (flags & IS_INDIRECT) === 0)
      this.legacy = this.#bytes.slice(payload, payload + length)
    else if ((isOut ? inputs : outputs).has(id))
      throw callError.EINVAL`${where}: attribute ${hexadecimal(id)} is an ${isOut ? 'input' : 'output'}, not an ${isOut ? 'output' : 'input'}`
    // an attribute in `refused` can never apply to this device: it is refused even without flag MANDATORY
    const refused = Object.values(method.refused ?? {}).find(one => one.id === id && !isOut)
    if (refused !== undefined) throw new CallError(refused.code, because`${where}: ${refused.why}`)
    if (flags & MANDATORY)
      throw callError.EPROTONOSUPPORT`${where}: the mandatory attribute ${hexadecimal(id)} is unknown`
  }

  #readOutput(slot: Slot, item: Item): void {
    const { path, attribute } = slot
    const { type } = attribute
    if (item.flags & IS_INDIRECT && type.kind === 'fd')
      throw callError.EINVAL`${path}: a descriptor's number is not indirect`
    const room = this.#roomOf(path, item)
    const size = type.kind === 'list' || type.kind === 'blob' ? 0 : sizeOf(type)
    if (room < size) {
      this.roomError ??= spaceError(path, size, room)
      this.#tooSmall.push({ item, size })
    }
    this.#outputs.push({ slot, item })
  }

  #readInput({ path, attribute, check }: Slot, item: Item): AnyValue {
    const { type } = attribute
    const value =
      item.flags & IS_INDIRECT
        ? this.#readIndirect(path, type, item)
        : valueIn(path, type, this.#data, item.payload, item.length)
    if (!isValid(check, value)) checkValue(path, type, value, true)
    return item.flags & CHAINED ? chainedReference(this.#view, path, type, value) : value
  }

  #readIndirect(path: Place, type: Kind, item: Item): AnyValue {
    const { address, length } = indirect(path, this.#data, item)
    const limit = Math.max(sizeOf(type), type.kind === 'record' ? MAX_RECORD : 0)
    if (length > BigInt(limit)) throw callError.EINVAL`${path}: ${length} bytes, at most ${limit} are taken`
    const size = Number(length)
    return valueIn(path, type, viewOf(this.#view.copyIn(address, size)), 0, size)
  }

  /** Maximum bytes of an output. */
  #roomOf(path: Place, item: Item): number | bigint {
    return item.flags & IS_INDIRECT ? indirect(path, this.#data, item).length : item.length
  }

  answer(result: Result): { message: Uint8Array; installs: readonly DescriptorSlot[] } {
    const filled = this.#fit(result)
    const installs = result.descriptors === undefined ? NO_INSTALLS : this.#installsOf(filled, result)
    // before the message changes, because `copyOut` may fail
    for (const { slot, item, value } of filled)
      if (item.flags & IS_INDIRECT)
        this.#view.copyOut(indirect(slot.path, this.#data, item).address, payloadOf(slot.attribute.type, value))
    for (const output of filled) this.#fill(output)
    if (result.object !== undefined && descriptorOf(result, 'object') === undefined)
      this.#data.setUint32(HeaderAt.OBJECT_ID, result.object, true)
    this.#data.setUint32(HeaderAt.FLAGS, MessageFlag.ANSWERED, true)
    return { message: this.#bytes, installs }
  }

  /** The outputs that have a value. Throws CallError ENOSPC if one does not fit. */
  #fit(result: Result): readonly FilledOutput[] {
    const filled: FilledOutput[] = []
    let roomError: CallError | undefined
    for (const { slot, item } of this.#outputs) {
      const { name, path, attribute } = slot
      const isDescriptor = attribute.type.kind === 'fd' && descriptorOf(result, name) !== undefined
      const value = isDescriptor ? NOT_INSTALLED : result.out[name]
      if (value === undefined) continue
      const size = payloadSize(attribute.type, value)
      const room = this.#roomOf(path, item)
      if (size > room) {
        roomError ??= spaceError(path, size, room)
        this.#tooSmall.push({ item, size })
      } else filled.push({ slot, item, value, size })
    }
    if (roomError !== undefined) throw roomError
    return filled
  }

  /** Where the numbers of new descriptors belong. Throws CallError ENOSPC if one has no room in the message. */
  #installsOf(filled: readonly FilledOutput[], result: Result): readonly DescriptorSlot[] {
    const installs: DescriptorSlot[] = []
    const created = descriptorOf(result, 'object')
    if (created !== undefined) installs.push({ descriptor: created, offset: HeaderAt.OBJECT_ID })
    for (const { slot, item } of filled) {
      const descriptor = slot.attribute.type.kind === 'fd' ? descriptorOf(result, slot.name) : undefined
      if (descriptor !== undefined) installs.push({ descriptor, offset: item.payload })
      for (const within of descriptorsWithin(result, slot.name, slot.attribute.type))
        if (item.flags & IS_INDIRECT) installs.push({ ...within, base: indirect(slot.path, this.#data, item).address })
        else installs.push({ ...within, offset: item.payload + within.offset })
    }
    const missing = result.descriptors?.find(one => !installs.some(({ descriptor }) => descriptor === one))
    if (missing !== undefined)
      throw callError.ENOSPC`${this.#compiled.where}: there is no room for the descriptor ${missing.attribute}`
    return installs
  }

  /** Writes a value into the message; of an indirect value, the length. */
  #fill({ slot, item, value, size }: FilledOutput): void {
    const { at, flags, payload, length: room } = item
    if (flags & IS_INDIRECT) {
      this.#data.setBigUint64(payload + 8, BigInt(size), true)
      this.#data.setUint32(at + 4, flags | FILLED, true)
      return
    }
    for (let i = payload; i < payload + room; i++) this.#bytes[i] = 0
    writePayload(this.#data, payload, slot.attribute.type, value)
    this.#data.setUint32(at + 4, (flags | FILLED | (size << WRITTEN_SHIFT)) >>> 0, true)
  }

  refuse(): Uint8Array {
    for (const { item, size } of this.#tooSmall) {
      if (item.flags & IS_INDIRECT) this.#data.setBigUint64(item.payload + 8, BigInt(size), true)
      else this.#data.setUint32(item.at + 4, (item.flags | (Math.min(size, 0xffff) << WRITTEN_SHIFT)) >>> 0, true)
    }
    this.#data.setUint32(HeaderAt.FLAGS, MessageFlag.ANSWERED, true)
    return this.#bytes
  }
}

/** Decodes one message; its answer is written into `bytes`. Throws CallError. */
export const decodeMessage = (view: CallerView, call: number, bytes: Uint8Array): ObjectMessage => {
  if (bytes.length < HEADER) throw callError.EINVAL`a message has at least ${HEADER} bytes, not ${bytes.length}`
  const data = viewOf(bytes)
  const header = readHeader(view, call, data, bytes.length)
  const message = bytes.length === header.length ? bytes : bytes.subarray(0, header.length)
  return new MessageInPlace(view, header, message, data)
}

/** Decodes the message at `address` in the caller's memory. `call`: call number, from `callOfRequest`. */
export const decodeObject = (view: CallerView, call: number, address: bigint): Decoded | Answer =>
  answering((): Decoded | Answer => {
    const length = viewOf(view.copyIn(address, 8)).getUint16(0, true)
    const decoded = decodeMessage(view, call, view.copyIn(address, length))
    const failed = (error: CallError): Answer => {
      try {
        view.copyOut(address, decoded.refuse())
      } catch (fault) {
        if (!(fault instanceof CallError)) throw fault
      }
      return refuse(error)
    }
    if (decoded.roomError !== undefined) return failed(decoded.roomError)
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
