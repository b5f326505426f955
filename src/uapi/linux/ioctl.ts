/*
 * Linux's ioctl dialect (R42), RDMA_VERBS_IOCTL with {object, method} and attributes, by the table of
 * spec/linux/ioctl.ts: attributes of a parsed message (ioctl-message.ts) become a call, and the result is written to
 * attributes.
 */
import { AnsweredError, CallError, callError } from '../../spec/errno.ts'
import {
  type Choice,
  InvokeWrite,
  type IoctlAttribute,
  RDMA_VERBS_IOCTL,
  UHW_IN,
  UHW_OUT,
} from '../../spec/linux/ioctl.ts'
import { LinuxObjectClasses } from '../../spec/linux/structs.ts'
import { because } from '../../spec/reason.ts'
import { type AnyRecord, type AnyValues, recordSize } from '../../spec/schema/schema.ts'
import type { Answer, Call, CallerView, Decoded, Install, NewDescriptor, Result } from '../call.ts'
import { payloadOf, valueIn } from '../object/format.ts'
import { encodeRecords, viewOf } from '../scalar.ts'
import {
  answering,
  answeringAs,
  callOf,
  classNameOf,
  type DriverInput,
  declaredMethod,
  descriptorOf,
  driverPart,
  fill,
  GET_CONTEXT_AGAIN,
  isOpenAgain,
  refuse,
  writeDriverPart,
} from './caller.ts'
import { type Facts, readCells, residue, writeCells } from './cells.ts'
import { clearRequest, type DecodedCommand, deviceCommand, readCommand } from './command.ts'
import {
  bufferOf,
  bytesOf,
  checkHandle,
  constantOf,
  flagsOf,
  INLINE_BYTES,
  IoctlAttr,
  IoctlHeader,
  type Message,
  offsetOf,
  type PassedAttribute,
  readMessage,
} from './ioctl-message.ts'
import { EntryPoint, packLegacy } from './legacy.ts'

/** UVERBS_ATTR_F_VALID_OUTPUT: the flag of an attribute whose output was written. */
const VALID_OUTPUT = 2

// ---- from attributes to a call ----

/** The contents of a message's attributes. */
interface DecodedAttributes {
  readonly args: AnyValues
  readonly facts: Facts
  readonly className: string
}

/** The passed group of `choices`, if there are any. Throws CallError EINVAL unless exactly one is passed. */
const choiceOf = ({ method: { spec }, passed }: Message): Choice | undefined => {
  if (spec.choices === undefined) return undefined
  const [choice, ...others] = spec.choices.filter(({ attributes }) => attributes.some(id => passed.has(id)))
  if (choice !== undefined && others.length === 0 && choice.attributes.every(id => passed.has(id))) return choice
  const groups = spec.choices.map(({ attributes }) => attributes.join(' and ')).join(', or ')
  throw callError.EINVAL`${spec.name}: pass attribute ${groups}`
}

/** Throws CallError for attributes that no device accepts, missing attributes, and invalid values. */
const decodeAttributes = (message: Message): DecodedAttributes => {
  const { method, passed } = message
  const { spec } = method
  const choice = choiceOf(message)
  const args: AnyValues = { ...spec.impliedArguments, ...choice?.impliedArguments }
  const facts: Facts = {}
  for (const attribute of passed.values()) {
    const { kind, name, cells, errnoIfPresent, id } = attribute.compiled.spec
    if (errnoIfPresent !== undefined)
      throw new CallError(errnoIfPresent, because`${spec.name}: no device here has attribute ${id}`)
    if (kind === 'destroy' || (kind === 'handle' && name === 'object')) facts.object = Number(attribute.data)
    else if (kind === 'in' && cells.some(cell => cell.kind === 'class'))
      facts.class = constantOf(message, id, 0xffffffffn)
  }
  const className = classNameOf(message.view, spec.classes, facts, inputOf(message, passed.get(UHW_IN)))
  for (const { compiled, data } of passed.values()) {
    const { id, refusedFor, classesFor } = compiled.spec
    if (refusedFor?.includes(className)) throw callError.EINVAL`${spec.name}: ${className} has no attribute ${id}`
    const classes = classesFor?.[className]
    if (classes !== undefined) checkHandle(message.view, `${spec.name}: attribute ${id}`, data, classes)
  }
  const { in: inputs } = declaredMethod(className, spec.method!, spec.driverClass)
  // an argument that the class lacks belongs to other classes of the method, and is not required
  const isRequired = ({ kind, cells, name }: IoctlAttribute): boolean =>
    kind === 'out' || kind === 'list' || inputs[cells[0]?.name ?? name]?.optional === false
  const missing = [...method.attributes.values()].find(
    ({ spec }) => spec.errnoIfAbsent !== undefined && !passed.has(spec.id) && isRequired(spec),
  )
  if (missing !== undefined)
    throw new CallError(missing.spec.errnoIfAbsent!, because`${spec.name}: attribute ${missing.spec.id} is missing`)
  // missing flags are 0
  for (const { spec } of method.attributes.values())
    if (spec.kind === 'flags' && inputs[spec.name]?.optional === false) args[spec.name] = 0
  for (const attribute of passed.values()) {
    const { kind, name, cells } = attribute.compiled.spec
    if (kind === 'in' && cells.length > 0)
      readCells(attribute.compiled.layout(className), bytesOf(message, attribute), args, facts, true)
    else if (kind === 'flags') {
      const flags = flagsOf(message, attribute, className, choice?.allowedFlags)
      if (inputs[name] !== undefined) args[name] = flags
    } else if (kind === 'records') {
      const bytes = bytesOf(message, attribute)
      args[name] = valueIn(`${spec.name}: ${name}`, inputs[name]!.type, viewOf(bytes), 0, bytes.length)
    } else if (kind === 'blob') args[name] = bytesOf(message, attribute)
    else if (kind === 'blobOut') args.outBytes = attribute.length
    else if (kind === 'enum') {
      args[name] = attribute.element
      if (cells.length > 0)
        readCells(attribute.compiled.layout(className), bytesOf(message, attribute), args, facts, true)
    }
    // attributes of other classes are ignored
    else if ((kind === 'handle' || kind === 'fd') && inputs[name] !== undefined) args[name] = Number(attribute.data)
  }
  return { args, facts, className }
}

// ---- answers ----

/** Changes of a message: flags and new handles, and the addresses for numbers of new descriptors. */
interface Changes {
  readonly bytes: Uint8Array
  /** Whether `bytes` must be written to the caller. */
  isChanged: boolean
  readonly installs: Install[]
}

/** Sets VALID_OUTPUT. */
const markFilled = (changes: Changes, attribute: PassedAttribute): void => {
  changes.bytes[offsetOf(attribute.index) + IoctlAttr.flags]! |= VALID_OUTPUT
  changes.isChanged = true
}

const writeOutputs = (message: Message, { className }: DecodedAttributes, result: Result, changes: Changes): void => {
  for (const attribute of message.passed.values()) {
    const { spec, layout } = attribute.compiled
    if (spec.kind === 'out' && spec.cells.length > 0) {
      const struct = layout(className)
      // optional outputs of other classes are not written
      if (!spec.mandatory && struct.boundCells.length === 0) continue
      const bytes = new Uint8Array(spec.max)
      writeCells(struct, bytes, result.out, {})
      if (spec.isExtensible) fill(message.view, bufferOf(attribute), bytes)
      else message.view.copyOut(attribute.data, bytes)
      markFilled(changes, attribute)
    } else if (spec.kind === 'list' && message.method.spec.converter === undefined) {
      const { type } = declaredMethod(className, message.method.spec.method as string).out[spec.name]!
      const value = result.out[spec.name]
      fill(message.view, bufferOf(attribute), value === undefined ? new Uint8Array() : payloadOf(type, value))
      markFilled(changes, attribute)
    } else if (spec.kind === 'blobOut') {
      const bytes = result.out[spec.name] as Uint8Array
      message.view.copyOut(attribute.data, bytes.subarray(0, attribute.length))
      markFilled(changes, attribute)
    } else if (spec.kind === 'newHandle') {
      if (result.object === undefined) continue
      viewOf(changes.bytes).setBigUint64(offsetOf(attribute.index) + IoctlAttr.data, BigInt(result.object), true)
      changes.isChanged = true
    } else if (spec.kind === 'newFd') {
      const descriptor = descriptorOf(result, 'object')
      const address = message.address + BigInt(offsetOf(attribute.index) + IoctlAttr.data)
      if (descriptor !== undefined) changes.installs.push({ descriptor, address, width: 8 })
    }
  }
}

/** The inverse of `writeOutputs`: the result that Linux's kernel has written. */
const readOutputs = (message: Message, { className }: DecodedAttributes, after: Pick<CallerView, 'copyIn'>): Result => {
  const answered = viewOf(after.copyIn(message.address, message.bytes.length))
  const out: AnyValues = {}
  const descriptors: NewDescriptor[] = []
  let object: number | undefined
  for (const { compiled, data, index, length } of message.passed.values()) {
    const { spec, layout } = compiled
    const dataAt = offsetOf(index) + IoctlAttr.data
    if (spec.kind === 'newHandle') object = Number(answered.getBigUint64(dataAt, true))
    else if (spec.kind === 'newFd') descriptors.push({ object: answered.getInt32(dataAt, true), attribute: 'object' })
    else if (spec.kind === 'out' && spec.cells.length > 0 && layout(className).boundCells.length > 0) {
      const struct = new Uint8Array(spec.max)
      struct.set(after.copyIn(data, Math.min(length, spec.max)))
      readCells(layout(className), struct, out, {}, false)
    }
  }
  return { out, ...(object !== undefined && { object }), descriptors }
}

/** Runs `body`, which writes outputs, then writes the changes of the message. A thrown CallError becomes the answer. */
const writeAnswer = (message: Message, answer: Answer, body: (changes: Changes) => void): Answer =>
  answering(() => {
    const changes: Changes = { bytes: message.bytes.slice(), isChanged: false, installs: [] }
    body(changes)
    if (changes.isChanged)
      message.view.copyOut(message.address + BigInt(IoctlHeader.bytes), changes.bytes.subarray(IoctlHeader.bytes))
    return { ...answer, installs: changes.installs }
  })

const SUCCESS: Answer = { ret: 0, installs: [] }

// ---- converters ----

/** Attribute ids of INFO_HANDLES: UVERBS_ATTR_INFO_OBJECT_ID, …_TOTAL_HANDLES, …_HANDLES_LIST. */
const InfoHandles = { OBJECT_ID: 0, COUNT: 1, LIST: 2 } as const
/** Attribute ids of QUERY_GID_TABLE: UVERBS_ATTR_QUERY_GID_TABLE_ENTRY_SIZE, …_RESP_ENTRIES, …_RESP_NUM_ENTRIES. */
const QueryGidTable = { ENTRY_SIZE: 0, LIST: 2, COUNT: 3 } as const

/**
 * INFO_HANDLES and QUERY_GID_TABLE return a list in the caller's buffer, and the number of entries. `args`: additional
 * arguments; `max` is the number of entries for which the buffer has room.
 */
const listCall = (message: Message): { args: AnyValues; write(result: Result, changes: Changes): void } => {
  const { passed, view } = message
  const isHandles = message.method.spec.converter === 'handles'
  const ids = isHandles ? InfoHandles : QueryGidTable
  const list = passed.get(ids.LIST)!
  const count = passed.get(ids.COUNT)!
  const attribute = isHandles ? 'handles' : 'entries'
  const { type } = declaredMethod('device', isHandles ? 'queryHandles' : 'queryGidTable').out[attribute]!
  if (type.kind !== 'list') throw new Error(`${attribute} is not a list`)
  const size = recordSize(type.fields)
  const stride = isHandles ? size : Number(passed.get(QueryGidTable.ENTRY_SIZE)!.data)
  if (stride === 0 || list.length % stride !== 0 || list.length === 0)
    throw callError.EINVAL`${message.method.spec.name}: the list has ${list.length} bytes; one or more entries of ${stride} bytes are required`
  const max = list.length / stride
  const args: AnyValues = { max }
  if (isHandles) {
    const object = constantOf(message, InfoHandles.OBJECT_ID, 0xffffn)
    const classes = LinuxObjectClasses[object]
    const known = classes?.flatMap(name => view.schema.classByName(name) ?? [])
    if (classes === undefined || known === undefined || (known.length === 0 && classes.length > 0))
      throw callError.ENOENT`INFO_HANDLES: this device has no objects of type ${object}`
    args.classes = known.map(({ id }) => ({ id }))
  }
  return {
    args,
    write: (result, changes) => {
      const entries = (result.out[attribute] as AnyRecord[]).slice(0, max)
      const packed = encodeRecords(type.fields, entries)
      const bytes = new Uint8Array(entries.length * stride)
      for (let i = 0; i < entries.length; i++)
        bytes.set(packed.subarray(i * size, i * size + Math.min(size, stride)), i * stride)
      if (bytes.length > 0) view.copyOut(list.data, bytes)
      markFilled(changes, list)
      const number = new Uint8Array(count.length)
      viewOf(number).setUint32(0, entries.length, true)
      view.copyOut(count.data, number)
      markFilled(changes, count)
    },
  }
}

const inputOf = (message: Message, attribute: PassedAttribute | undefined): DriverInput => ({
  length: attribute?.length ?? 0,
  bytes: () => bytesOf(message, attribute!),
})

/** INVOKE_WRITE: a write command in an ioctl. `onName` gets the command's name. */
const invokeWrite = (message: Message, onName: (name: string) => void): Decoded => {
  const { view, passed } = message
  const found = deviceCommand(view, constantOf(message, InvokeWrite.WRITE_CMD, 0xffffffffn), onName)
  const { command } = found
  const core = passed.get(InvokeWrite.CORE_IN)
  const response = passed.get(InvokeWrite.CORE_OUT)
  const driverIn = passed.get(UHW_IN)
  const driverOut = passed.get(UHW_OUT)
  if ((core?.length ?? 0) < command.minRequestBytes)
    throw callError.ENOSPC`${command.name}: the request must have ${command.minRequestBytes} bytes and has ${core?.length ?? 0}`
  if ((response?.length ?? 0) < command.minResponseBytes)
    throw callError.ENOSPC`${command.name}: the response has ${command.minResponseBytes} bytes, there is room for ${response?.length ?? 0}`
  const decoded = readCommand(view, found, {
    request: core === undefined ? new Uint8Array() : bytesOf(message, core),
    response: response === undefined ? undefined : bufferOf(response),
    driverInput: inputOf(message, driverIn),
    driverResponse: driverOut === undefined ? undefined : bufferOf(driverOut),
  })
  return {
    call: decoded.call,
    legacy: () => legacyOf(message, undefined, decoded),
    answer: outcome => {
      if (outcome instanceof CallError) return refuse(outcome)
      const answer = answering(() => decoded.answer(outcome))
      // a second GET_CONTEXT fails, but fills its response
      if (answer.ret < 0 && answer.reason !== GET_CONTEXT_AGAIN.reason) return answer
      return writeAnswer(message, answer, changes => {
        if (response !== undefined && command.out !== undefined) markFilled(changes, response)
        if (driverOut !== undefined && answer.ret === 0) markFilled(changes, driverOut)
        changes.installs.push(...answer.installs)
      })
    },
    readResult: decoded.readResult,
  }
}

// ---- LEGACY attribute ----

/** Whether an attribute is a handle, a descriptor or flags of other classes of the method. */
const isForeign = ({ args }: DecodedAttributes, { kind, name }: IoctlAttribute): boolean =>
  (kind === 'handle' || kind === 'fd' || kind === 'flags') && name !== 'object' && args[name] === undefined

/** The LEGACY attribute of a message: zeros replace the bytes that the arguments restore (legacy.ts). */
const legacyOf = (
  message: Message,
  attributes: DecodedAttributes | undefined,
  command: DecodedCommand | undefined,
): Uint8Array => {
  const bytes = message.bytes.slice()
  const memory: Uint8Array[] = []
  for (const attribute of message.passed.values()) {
    const { spec, layout } = attribute.compiled
    const at = offsetOf(attribute.index)
    const inline = bytes.subarray(at + IoctlAttr.data, at + IoctlAttr.bytes)
    if (attributes !== undefined && isForeign(attributes, spec)) continue
    if (spec.kind === 'handle' || spec.kind === 'destroy' || spec.kind === 'fd') inline.fill(0)
    else if (spec.kind === 'enum') bytes[at + IoctlAttr.reserved] = 0
    else if (spec.kind === 'flags' && spec.name !== '') inline.fill(0, 0, attribute.length)
    else if (
      spec.kind === 'in' &&
      (spec.cells.length > 0 || (command !== undefined && spec.id === InvokeWrite.CORE_IN))
    ) {
      const target =
        attribute.length <= INLINE_BYTES ? inline.subarray(0, attribute.length) : bytesOf(message, attribute).slice()
      if (spec.cells.length > 0) {
        const struct = target.slice(0, spec.max)
        target.set(residue(layout(attributes!.className), struct, attributes!.args, attributes!.facts))
      } else clearRequest(command!, target)
      if (attribute.length > INLINE_BYTES) memory.push(target)
    }
  }
  return packLegacy({ entryPoint: EntryPoint.IOCTL, parts: [bytes, ...memory] })
}

// ---- decoding ----

/** Decodes an ioctl. Requests other than RDMA_VERBS_IOCTL are ENOTTY. */
export const decodeVerbsIoctl = (view: CallerView, request: number, argument: bigint): Decoded | Answer =>
  answeringAs((onName): Decoded => {
    if (request >>> 0 !== RDMA_VERBS_IOCTL)
      throw callError.ENOTTY`ioctl 0x${(request >>> 0).toString(16)} is unknown here`
    const message = readMessage(view, argument, onName)
    const { spec } = message.method
    if (spec.converter === 'invokeWrite') return invokeWrite(message, onName)
    const methodName = spec.method
    if (methodName === undefined) throw callError.EOPNOTSUPP`${spec.name}: the device cannot do this`
    const decoded = decodeAttributes(message)
    const list = spec.converter === undefined ? undefined : listCall(message)
    const isAgain = isOpenAgain(view, decoded.className, methodName)
    const args = list === undefined ? decoded.args : { ...decoded.args, ...list.args }
    const call: Call = isAgain
      ? callOf(view, 'device', 'query', 0, {})
      : callOf(view, decoded.className, methodName, decoded.facts.object, args)
    const driverOut = message.passed.get(UHW_OUT)
    const part = spec.hasDriverAttributes
      ? driverPart(
          view,
          call,
          inputOf(message, message.passed.get(UHW_IN)),
          driverOut === undefined ? undefined : bufferOf(driverOut),
        )
      : undefined
    return {
      call,
      legacy: () => legacyOf(message, decoded, undefined),
      answer: outcome => {
        if (outcome instanceof AnsweredError)
          return writeAnswer(message, refuse(outcome), changes =>
            writeOutputs(message, decoded, { out: outcome.out }, changes),
          )
        if (outcome instanceof CallError) return refuse(outcome)
        return writeAnswer(message, isAgain ? refuse(GET_CONTEXT_AGAIN) : SUCCESS, changes => {
          if (driverOut !== undefined && !isAgain) {
            writeDriverPart(view, part, outcome)
            markFilled(changes, driverOut)
          }
          writeOutputs(message, decoded, outcome, changes)
          list?.write(outcome, changes)
        })
      },
      readResult: after => readOutputs(message, decoded, after),
    }
  })
