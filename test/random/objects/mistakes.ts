/*
 * Calls of the object dialect with one mistake each, built from the declaration of the method, with the errno and the
 * message that each must cause.
 */
import assert from 'node:assert/strict'
import { AttributeFlag } from '../../../src/spec/classes/ids.ts'
import { type Kind, recordSize, sizeOf } from '../../../src/spec/schema/schema.ts'
import type { Call } from '../../../src/uapi/call.ts'
import { encodeCall } from '../../../src/uapi/object/client.ts'
import { ATTRIBUTE, HEADER, type Item, itemAt, pad, payloadOf } from '../../../src/uapi/object/format.ts'
import { type ClientState, isCreate } from './plausible.ts'

const { MANDATORY, OUT, INDIRECT, CHAINED } = AttributeFlag

// no object and no descriptor of the tests has these numbers
export const ABSENT_HANDLE = 4000
export const ABSENT_FD = 999

/** The number of an object whose class is not `cls`. */
export const notOf = (classByNumber: ReadonlyMap<number, string>, cls: string): number =>
  [...classByNumber].find(([, name]) => name !== cls)![0]

export interface Wrong {
  readonly title: string
  /** The errno by name. */
  readonly code: string
  readonly message: RegExp
  /** The encoded call. */
  readonly bytes: Uint8Array
}

/** Offsets in the header of a message and of an attribute. */
const MessageAt = { LENGTH: 0, CLASS: 2, OBJECT: 4, FLAGS: 12 }
const AttributeAt = { LENGTH: 0, ID: 2, FLAGS: 4 }

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

type Direction = 'in' | 'out'

const find = (bytes: Uint8Array, id: number, direction: Direction): Item => {
  for (let at = HEADER; at < bytes.length; ) {
    const item = itemAt('', viewOf(bytes), at, bytes.length)
    if (item.id === id && ((item.flags & OUT) !== 0) === (direction === 'out')) return item
    at = item.next
  }
  return assert.fail(`there is no attribute ${id}`)
}

/** The message with another payload and other flags in one attribute; without `payload` the attribute is omitted. */
const withAttribute = (
  bytes: Uint8Array,
  id: number,
  direction: Direction,
  payload?: Uint8Array,
  flags?: number,
): Uint8Array => {
  const item = find(bytes, id, direction)
  const attribute = new Uint8Array(payload === undefined ? 0 : ATTRIBUTE + pad(payload.length))
  if (payload !== undefined) {
    viewOf(attribute).setUint16(AttributeAt.LENGTH, ATTRIBUTE + payload.length, true)
    viewOf(attribute).setUint16(AttributeAt.ID, id, true)
    viewOf(attribute).setUint32(AttributeAt.FLAGS, flags ?? item.flags, true)
    attribute.set(payload, ATTRIBUTE)
  }
  const after = item.at + pad(ATTRIBUTE + item.length)
  const changed = new Uint8Array(Buffer.concat([bytes.subarray(0, item.at), attribute, bytes.subarray(after)]))
  viewOf(changed).setUint16(MessageAt.LENGTH, changed.length, true)
  return changed
}

/** No enum has this value, no attribute this flag. */
const [NO_VALUE, UNKNOWN_FLAG] = [77, 0x40]

const highest = { u8: 0xff, u16: 0xffff, u32: 0xffffffff }

/** A wrong payload of one attribute; `message` is the source of a RegExp. */
interface WrongValue {
  readonly title: string
  readonly code: string
  readonly message: string
  readonly payload: Uint8Array
  readonly flags?: number
}

const littleEndian = (value: number, size: number): Uint8Array => {
  const bytes = new Uint8Array(8)
  viewOf(bytes).setUint32(0, value, true)
  return bytes.subarray(0, size)
}

const wrongValues = (client: ClientState, type: Kind, payload: Uint8Array): WrongValue[] => {
  const found: WrongValue[] = []
  const add = (title: string, code: string, message: string, bytes: Uint8Array): void => {
    found.push({ title, code, message, payload: bytes })
  }
  switch (type.kind) {
    case 'u8':
    case 'u16':
    case 'u32': {
      const size = sizeOf(type)
      if (type.min !== undefined)
        add('too small', 'EINVAL', `${type.min - 1} is below ${type.min}`, littleEndian(type.min - 1, size))
      if (type.max !== undefined && type.max < highest[type.kind])
        add('too large', 'EINVAL', `${type.max + 1} is above ${type.max}`, littleEndian(type.max + 1, size))
      break
    }
    case 'enum':
      add(
        'no such value',
        'EINVAL',
        `${NO_VALUE} is not a value of ${type.enumeration.name}`,
        littleEndian(NO_VALUE, type.width),
      )
      break
    case 'flags': {
      const all = Object.values(type.enumeration.values).reduce((bits, bit) => (bits | bit) >>> 0, 0)
      const unknown = [...Array(8 * type.width).keys()].map(i => 2 ** i).find(bit => (all & bit) === 0)
      if (unknown !== undefined)
        add('unknown bits', 'EINVAL', `${type.enumeration.name} has no bits 0x`, littleEndian(unknown, type.width))
      break
    }
    case 'ref': {
      add('no such object', 'ENOENT', `there is no object with handle ${ABSENT_HANDLE}`, littleEndian(ABSENT_HANDLE, 4))
      const other = notOf(client.handles, type.class)
      add('another class', 'EINVAL', `handle ${other} is of class \\w+, not ${type.class}`, littleEndian(other, 4))
      found.push({
        title: 'a reference to a chain entry',
        code: 'EINVAL',
        message: 'this is not a chain',
        payload,
        flags: MANDATORY | CHAINED,
      })
      break
    }
    case 'fd':
      add('no descriptor', 'EBADF', 'the descriptor does not belong to this context', littleEndian(ABSENT_FD, 4))
      add(
        'another class',
        'EBADF',
        `the descriptor is of class \\w+, not ${type.class}`,
        littleEndian(notOf(client.fds, type.class), 4),
      )
      break
    case 'record': {
      const longer = new Uint8Array(payload.length + 8).fill(1)
      longer.set(payload)
      add('a longer record', 'E2BIG', 'those after the \\d+ known ones are not 0', longer)
      for (const [name, field] of Object.entries(type.fields))
        for (const wrong of wrongValues(client, field.type, payload)) {
          // a field of a record has a fixed size
          if (wrong.title === 'too short') continue
          const whole = payload.slice()
          whole.set(wrong.payload, field.offset)
          found.push({
            ...wrong,
            title: `${name}: ${wrong.title}`,
            message: `\\.${name}: ${wrong.message}`,
            payload: whole,
          })
        }
      return found
    }
    case 'list':
      if (recordSize(type.fields) > 1)
        add('part of a record', 'EINVAL', 'bytes are not 0 to \\d+ records', new Uint8Array(1))
      return found
    case 'blob':
      return found
  }
  add(
    'too short',
    'EINVAL',
    `it must have ${sizeOf(type)} bytes and has ${sizeOf(type) - 1}`,
    payload.slice(0, sizeOf(type) - 1),
  )
  return found
}

/** Mistakes in the input `name`; `call` must have the attribute. */
export const wrongInput = (client: ClientState, call: Call, name: string): Wrong[] => {
  const { class: cls, methodName } = call
  const { id, type, optional } = call.method.in[name]
  const bytes = encodeCall(call)
  const payload = payloadOf(type, call.args[name]!)
  const path = `${cls.name}\\.${methodName}: attribute ${name}`
  const found: Wrong[] = wrongValues(client, type, payload).map(({ title, code, message, payload: wrong, flags }) => ({
    title: `${name}: ${title}`,
    code,
    message: new RegExp(`^${path}${message.startsWith('\\.') ? '' : ': .*'}${message}`),
    bytes: withAttribute(bytes, id, 'in', wrong, flags),
  }))
  const prefix = `^${cls.name}\\.${methodName}: attribute 0x${id.toString(16)}`
  if (!optional)
    found.push({
      title: `${name} missing`,
      code: 'EINVAL',
      message: new RegExp(`^${path} is missing$`),
      bytes: withAttribute(bytes, id, 'in'),
    })
  const refused = { code: 'EINVAL' }
  const twice = new Uint8Array(Buffer.concat([bytes, bytes.subarray(HEADER)]))
  viewOf(twice).setUint16(MessageAt.LENGTH, twice.length, true)
  // address and length
  const unmapped = new Uint8Array(16)
  viewOf(unmapped).setBigUint64(0, 0xdead_0000n, true)
  viewOf(unmapped).setBigUint64(8, BigInt(payload.length), true)
  found.push(
    { ...refused, title: `${name} twice`, message: /attribute 0x[0-9a-f]+ is passed twice$/, bytes: twice },
    {
      ...refused,
      title: `${name} as output`,
      message: new RegExp(`${prefix} is an input, not an output`),
      bytes: withAttribute(bytes, id, 'in', payload, OUT),
    },
    {
      ...refused,
      title: `${name} with unknown flags`,
      message: new RegExp(`${prefix} has unknown flags 0x${UNKNOWN_FLAG.toString(16)}`),
      bytes: withAttribute(bytes, id, 'in', payload, UNKNOWN_FLAG),
    },
    {
      ...refused,
      title: `${name} indirect with 4 bytes`,
      message: /an indirect payload must have 16 bytes and has 4/,
      bytes: withAttribute(bytes, id, 'in', new Uint8Array(4), INDIRECT),
    },
  )
  if (payload.length > 0)
    found.push({
      title: `${name} at an unmapped address`,
      code: 'EFAULT',
      message: /address 0xdead0000/,
      bytes: withAttribute(bytes, id, 'in', unmapped, INDIRECT),
    })
  return found
}

/** Mistakes in the output `name`; none for lists and blobs. */
export const wrongOutput = (call: Call, name: string): Wrong[] => {
  const { class: cls, methodName } = call
  const { id, type } = call.method.out[name]
  const bytes = encodeCall(call)
  const path = `${cls.name}\\.${methodName}: attribute ${name}`
  if (type.kind === 'list' || type.kind === 'blob') return []
  return [
    {
      title: `${name}: too little room`,
      code: 'ENOSPC',
      message: new RegExp(`^${path}: it needs ${sizeOf(type)} bytes, there is room for 0`),
      bytes: withAttribute(bytes, id, 'out', new Uint8Array(0)),
    },
  ]
}

/** Mistakes in a call outside its attributes. */
export const wrongCalls = (client: ClientState, call: Call): Wrong[] => {
  const { class: cls, methodName } = call
  const bytes = encodeCall(call)
  const prefix = `^${cls.name}\\.${methodName}: `
  const changed = (change: (view: DataView) => void): Uint8Array => {
    const copy = bytes.slice()
    change(viewOf(copy))
    return copy
  }
  const unknown = new Uint8Array(ATTRIBUTE)
  viewOf(unknown).setUint16(AttributeAt.LENGTH, ATTRIBUTE, true)
  viewOf(unknown).setUint16(AttributeAt.ID, 0x7eee, true)
  viewOf(unknown).setUint32(AttributeAt.FLAGS, MANDATORY, true)
  const longer = new Uint8Array(Buffer.concat([bytes, unknown]))
  viewOf(longer).setUint16(MessageAt.LENGTH, longer.length, true)
  const found: Wrong[] = [
    {
      title: 'an unknown attribute',
      code: 'EPROTONOSUPPORT',
      message: new RegExp(`${prefix}the mandatory attribute 0x7eee is unknown`),
      bytes: longer,
    },
    {
      title: 'unknown flags',
      code: 'EOPNOTSUPP',
      message: new RegExp(`${prefix}op_ctrl or flags of the header are unknown`),
      bytes: changed(view => view.setUint32(MessageAt.FLAGS, 8, true)),
    },
    {
      title: 'an unknown class',
      code: 'EOPNOTSUPP',
      message: /this device has no class 32000/,
      bytes: changed(view => view.setUint16(MessageAt.CLASS, 32_000, true)),
    },
    {
      title: 'an impossible length',
      code: 'EINVAL',
      message: /the header has length \d+|at least 16 bytes/,
      bytes: changed(view => view.setUint16(MessageAt.LENGTH, 17, true)),
    },
  ]
  const addWrongObject = (title: string, code: string, message: string, number: number): void => {
    found.push({
      title,
      code,
      message: new RegExp(prefix + message),
      bytes: changed(view => view.setUint32(MessageAt.OBJECT, number, true)),
    })
  }
  if (isCreate(call.method.call))
    addWrongObject(
      'an object that the call creates',
      'EINVAL',
      'object_id is 3; it is 0 for an object to be created',
      3,
    )
  else if (cls.identity === 'handle') {
    addWrongObject('no such object', 'ENOENT', `there is no object with handle ${ABSENT_HANDLE}`, ABSENT_HANDLE)
    addWrongObject(
      'another class',
      'EINVAL',
      `handle \\d+ is of class \\w+, not ${cls.name}`,
      notOf(client.handles, cls.name),
    )
  } else if (cls.identity === 'fixed')
    addWrongObject(
      'no such object',
      'EINVAL',
      cls.name === 'port'
        ? 'object 9: device rxe0 has ports 1 to 1'
        : `object 9: the only ${cls.name} is object 0|the context is open already`,
      9,
    )
  return found
}
