/*
 * The server side of the object dialect (R1–R6, docs/reference/object-dialect.md): decodes messages of a header and
 * attributes into calls and writes results into the messages, by the classes' declarations. client.ts is the client
 * side.
 *
 * Header {u16 length, u16 class_id, u32 object_id, u32 op_ctrl, u32 flags}; attribute {u16 length including its header,
 * u16 id, u32 flags}, payload padded to 8; little-endian. An indirect payload is {u64 address, u64 length}. An answer
 * is the message itself, changed in place: flag ANSWERED, object_id, the payloads of outputs, and the flags of outputs,
 * which get FILLED and, in bits 16–31, the number of bytes written (for an indirect output its u64 length gets the
 * number). Attributes keep their length, so that an answered message can still be walked.
 *
 * Errors: unknown class, method, op_ctrl or flag of the header EOPNOTSUPP; unknown mandatory attribute EPROTONOSUPPORT;
 * too little room ENOSPC, with the needed sizes; nonzero unknown end of a record E2BIG; an attribute of
 * `Method.refused` that one's error; anything else that is malformed, missing or out of limits EINVAL.
 */
import { AttributeFlag, CommonAttribute, MessageFlag, OpCtrl } from '../../spec/classes/ids.ts'
import { CallError } from '../../spec/errno.ts'
import { lacksCall } from '../../spec/schema/lacking.ts'
import { type AnyValue, type AnyValues, type Kind, sizeOf } from '../../spec/schema/schema.ts'
import { isValid } from '../argument-check.ts'
import type { Answer, Call, CallerView, Decoded, Install, Result } from '../call.ts'
import { answering, descriptorOf, refuse } from '../linux/caller.ts'
import { checkValue, viewOf } from '../scalar.ts'
import {
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

export { ATTRIBUTE, callOfRequest, HEADER, ioctlRequest } from './format.ts'

const { MANDATORY, OUT, FILLED, INDIRECT: IS_INDIRECT, CHAINED } = AttributeFlag

/** Maximum bytes of an indirect record, which may be longer than the record that this release knows. */
const MAX_RECORD = 1 << 20

/** A decoded message. */
export interface ObjectMessage {
  readonly call: Call
  readonly legacy: Uint8Array | undefined
  /** ENOSPC if there is too little room for an output of fixed size: the call must then be refused without running. */
  readonly roomError: CallError | undefined
  /**
   * Writes the result into the message, and indirect outputs with `copyOut`. Throws CallError, ENOSPC or that of
   * `copyOut`, and then leaves the message unchanged. Returns the message, and where the numbers of new descriptors
   * belong.
   */
  answer(result: Result): { message: Uint8Array; installs: readonly DescriptorSlot[] }
  /**
   * Writes a refusal into the message and returns it; after ENOSPC it has the needed size of each output that is too
   * small.
   */
  refuse(): Uint8Array
}

/** A new descriptor whose number belongs at `offset` of the message, or of the memory at `base`. */
export interface DescriptorSlot {
  readonly descriptor: Install['descriptor']
  readonly offset: number
  readonly base?: bigint
}

/** An output that does not fit. */
interface TooSmall {
  readonly item: Item
  /** The bytes that its value needs. */
  readonly size: number
}

/** An output of a message. */
interface Output {
  readonly slot: Slot
  readonly item: Item
}

const spaceError = (where: string, needed: number, room: number | bigint): CallError =>
  new CallError('ENOSPC', `${where}: it needs ${needed} bytes, there is room for ${room}`)

/** The value of an attribute with flag CHAINED: the handle or descriptor of the object that entry `value` created. */
const chainedReference = (view: CallerView, path: string, of: Kind, value: AnyValue): number => {
  if (view.chained === undefined) throw new CallError('EINVAL', `${path}: it names an entry, but this is not a chain`)
  if (of.kind !== 'ref' && of.kind !== 'fd')
    throw new CallError('EINVAL', `${path}: it is not a reference to an object, so it cannot name an entry`)
  return view.chained(path, of, value as number)
}

/** Descriptors whose numbers lie in the value of attribute `name` (results of a chain), with offsets in that value. */
const descriptorsWithin = (result: Result, name: string, of: Kind): DescriptorSlot[] =>
  of.kind === 'fd' || result.descriptors === undefined
    ? []
    : result.descriptors
        .filter(({ attribute }) => attribute === name)
        .map(descriptor => ({ descriptor, offset: descriptor.offset ?? 0 }))

const hasOutput = (outputs: readonly Output[], id: number): boolean => {
  for (let i = 0; i < outputs.length; i++) if (outputs[i]!.item.id === id) return true
  return false
}

const NO_INSTALLS: readonly DescriptorSlot[] = Object.freeze([])

/** −1 as u32: the number of a new descriptor until it is installed in the caller. */
const NOT_INSTALLED = 0xffffffff

/**
 * Writes a result into a message. If outputs do not fit, adds them to `tooSmall` and throws ENOSPC. `header`: a view of
 * `message`.
 */
const writeResult = (
  where: string,
  view: CallerView,
  message: Uint8Array,
  header: DataView,
  outputs: readonly Output[],
  tooSmall: TooSmall[],
  result: Result,
): readonly DescriptorSlot[] => {
  const filled: { output: Output; value: AnyValue; length: number }[] = []
  let roomError: CallError | undefined
  for (const output of outputs) {
    const { item, slot } = output
    const { name, path, attribute } = slot
    const isDescriptor = attribute.of.kind === 'fd' && descriptorOf(result, name) !== undefined
    const value = isDescriptor ? NOT_INSTALLED : result.out[name]
    if (value === undefined) continue
    const length = payloadSize(attribute.of, value)
    const room = item.flags & IS_INDIRECT ? indirect(path, header, item).length : item.length
    if (length > room) {
      roomError ??= spaceError(path, length, room)
      tooSmall.push({ item, size: length })
    } else filled.push({ output, value, length })
  }
  if (roomError !== undefined) throw roomError
  const installs = result.descriptors === undefined ? NO_INSTALLS : installsOf(where, header, filled, result)
  for (const { output, value } of filled) {
    const { path, attribute } = output.slot
    if (output.item.flags & IS_INDIRECT)
      view.copyOut(indirect(path, header, output.item).address, payloadOf(attribute.of, value))
  }
  for (const { output, value, length } of filled) {
    const { at, flags, payload, length: room } = output.item
    if (flags & IS_INDIRECT) {
      header.setBigUint64(payload + 8, BigInt(length), true)
      header.setUint32(at + 4, flags | FILLED, true)
      continue
    }
    for (let i = payload; i < payload + room; i++) message[i] = 0
    writePayload(header, payload, output.slot.attribute.of, value)
    header.setUint32(at + 4, ((flags & 0xffff) | FILLED | (length << WRITTEN_SHIFT)) >>> 0, true)
  }
  if (result.object !== undefined && descriptorOf(result, 'object') === undefined)
    header.setUint32(4, result.object, true)
  header.setUint32(12, MessageFlag.ANSWERED, true)
  return installs
}

/** Where the numbers of a result's descriptors belong. Throws ENOSPC if one of them has no room in the message. */
const installsOf = (
  where: string,
  header: DataView,
  filled: readonly { readonly output: Output }[],
  result: Result,
): readonly DescriptorSlot[] => {
  const installs: DescriptorSlot[] = []
  const created = descriptorOf(result, 'object')
  if (created !== undefined) installs.push({ descriptor: created, offset: 4 })
  for (const { output } of filled) {
    const { slot, item } = output
    const descriptor = slot.attribute.of.kind === 'fd' ? descriptorOf(result, slot.name) : undefined
    if (descriptor !== undefined) installs.push({ descriptor, offset: item.payload })
    for (const within of descriptorsWithin(result, slot.name, slot.attribute.of))
      if (item.flags & IS_INDIRECT) installs.push({ ...within, base: indirect(slot.path, header, item).address })
      else installs.push({ ...within, offset: item.payload + within.offset })
  }
  const missing = result.descriptors?.find(one => !installs.some(({ descriptor }) => descriptor === one))
  if (missing !== undefined)
    throw new CallError('ENOSPC', `${where}: there is no room for the descriptor ${missing.attribute}`)
  return installs
}

/** Decodes one message of call number `call`; its answer is written into these bytes. Throws CallError. */
export const decodeMessage = (view: CallerView, call: number, bytes: Uint8Array): ObjectMessage => {
  if (bytes.length < HEADER)
    throw new CallError('EINVAL', `a message has at least ${HEADER} bytes, not ${bytes.length}`)
  const header = viewOf(bytes)
  const length = header.getUint16(0, true)
  if (length < HEADER || length > bytes.length || length % 8 !== 0)
    throw new CallError(
      'EINVAL',
      `the header has length ${length}, allowed is a multiple of 8 from ${HEADER} to ${bytes.length}`,
    )
  const classId = header.getUint16(2, true)
  const cls = view.schema.classById(classId)
  const compiled = cls === undefined ? undefined : methodByCall(cls, call)
  if (cls === undefined || compiled === undefined) throw new CallError('EOPNOTSUPP', lacksCall(cls, classId, call))
  const { where } = compiled
  const object = header.getUint32(4, true)
  if (header.getUint32(8, true) !== OpCtrl.ATTRIBUTES || (header.getUint32(12, true) & ~MessageFlag.ANSWERED) !== 0)
    throw new CallError('EOPNOTSUPP', `${where}: op_ctrl or flags of the header are unknown`)
  if (object !== 0 && creates(compiled.method))
    throw new CallError('EINVAL', `${where}: object_id is ${object}; it is 0 for an object to be created`)
  if (!view.hasContext && !(cls.name === 'device' && compiled.name === 'open'))
    throw new CallError('EINVAL', `${where}: the descriptor has no context yet: call device.open first`)

  const message = bytes.length === length ? bytes : bytes.subarray(0, length)
  const args: AnyValues = {}
  const outputs: Output[] = []
  /** Ids of attributes in the message that the method does not have in their direction. */
  let unknownIds: Set<number> | undefined
  const tooSmall: TooSmall[] = []
  let roomError: CallError | undefined
  let legacy: Uint8Array | undefined
  for (let at = HEADER; at < length; ) {
    const item = itemAt(where, header, at, length)
    at = item.next
    const { id, flags } = item
    const isOut = (flags & OUT) !== 0
    if ((flags & ~(MANDATORY | OUT | FILLED | IS_INDIRECT | CHAINED) & 0xffff) !== 0)
      throw new CallError(
        'EINVAL',
        `${where}: attribute 0x${id.toString(16)} has unknown flags 0x${flags.toString(16)}`,
      )
    const slot = (isOut ? compiled.out : compiled.in).get(id)
    const isTwice =
      unknownIds?.has(id) === true ||
      (slot !== undefined && !isOut ? args[slot.name] !== undefined : hasOutput(outputs, id))
    if (isTwice) throw new CallError('EINVAL', `${where}: attribute 0x${id.toString(16)} is passed twice`)
    if (slot === undefined) {
      unknownIds ??= new Set()
      unknownIds.add(id)
      if (id === CommonAttribute.LEGACY && !isOut && (flags & IS_INDIRECT) === 0)
        legacy = message.slice(item.payload, item.payload + item.length)
      else if ((isOut ? compiled.in : compiled.out).has(id))
        throw new CallError(
          'EINVAL',
          `${where}: attribute 0x${id.toString(16)} is an ${isOut ? 'input' : 'output'}, not an ${isOut ? 'output' : 'input'}`,
        )
      // A known attribute that can never apply to this device is refused even without the flag MANDATORY.
      const refused = Object.values(compiled.method.refused ?? {}).find(one => one.id === id && !isOut)
      if (refused !== undefined) throw new CallError(refused.code, `${where}: ${refused.why}`)
      if (flags & MANDATORY)
        throw new CallError('EPROTONOSUPPORT', `${where}: the mandatory attribute 0x${id.toString(16)} is unknown`)
      continue
    }
    const { name, path, attribute } = slot
    const { of } = attribute
    if (isOut) {
      if (flags & IS_INDIRECT && of.kind === 'fd')
        throw new CallError('EINVAL', `${path}: a descriptor's number is not indirect`)
      const room = flags & IS_INDIRECT ? indirect(path, header, item).length : item.length
      const size = of.kind === 'list' || of.kind === 'blob' ? 0 : sizeOf(of)
      if (room < size) {
        roomError ??= spaceError(path, size, room)
        tooSmall.push({ item, size })
      }
      outputs.push({ slot, item })
      continue
    }
    let value: AnyValue
    if (flags & IS_INDIRECT) {
      const { address, length: size } = indirect(path, header, item)
      const limit = Math.max(sizeOf(of), of.kind === 'record' ? MAX_RECORD : 0)
      if (size > BigInt(limit)) throw new CallError('EINVAL', `${path}: ${size} bytes, at most ${limit} are taken`)
      value = valueIn(path, of, viewOf(view.copyIn(address, Number(size))), 0, Number(size))
    } else value = valueIn(path, of, header, item.payload, item.length)
    if (!isValid(slot.check, value)) checkValue(path, of, value, true)
    args[name] = flags & CHAINED ? chainedReference(view, path, of, value) : value
  }
  for (const { name, path } of compiled.required)
    if (args[name] === undefined) throw new CallError('EINVAL', `${path} is missing`)

  return {
    roomError,
    call: { class: cls, methodName: compiled.name, method: compiled.method, object, args },
    legacy,
    answer: result => ({ message, installs: writeResult(where, view, message, header, outputs, tooSmall, result) }),
    refuse: () => {
      for (const { item, size } of tooSmall) {
        if (item.flags & IS_INDIRECT) header.setBigUint64(item.payload + 8, BigInt(size), true)
        else
          header.setUint32(item.at + 4, ((item.flags & 0xffff) | (Math.min(size, 0xffff) << WRITTEN_SHIFT)) >>> 0, true)
      }
      header.setUint32(12, MessageFlag.ANSWERED, true)
      return message
    },
  }
}

/** Decodes the message at `address` in the caller's memory, of call number `call` (from an ioctl: `callOfRequest`). */
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
