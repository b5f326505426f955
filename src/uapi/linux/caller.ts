/*
 * Common parts of the codecs of Linux's dialects: the target of a call, the driver's part of a response, and refusals.
 */
import { DriverQp } from '../../spec/classes/qp/driver_qp.ts'
import { Classes } from '../../spec/classes.ts'
import type { DriverLayout, LinuxAbi } from '../../spec/drivers/linux-abi.ts'
import { CallError, callError } from '../../spec/errno.ts'
import type { LinkName } from '../../spec/links.ts'
import type { Layout } from '../../spec/linux/layout.ts'
import { DriverQpTypes, typeTables } from '../../spec/linux/structs.ts'
import { the } from '../../spec/reason.ts'
import { type AnyValues, type Attributes, CREATE, type Method, type ObjectClass } from '../../spec/schema/schema.ts'
import {
  type Answer,
  type Call,
  type CallerView,
  type Decoded,
  type Install,
  isAnswer,
  type NewDescriptor,
  type Result,
} from '../call.ts'
import { lacksMethod } from '../object/lacking.ts'
import { viewOf } from '../scalar.ts'
import { type CompiledLayout, compileLayout, type Facts, readCells, writeCells } from './cells.ts'

/** Memory of the caller for a response. */
export interface UserBuffer {
  readonly address: bigint
  readonly length: number
}

export const refuse = (error: CallError): Answer => ({ ret: -error.errno, installs: [], reason: error.reason })

/** Runs `body`. A thrown CallError becomes the answer. */
export const answering = <T>(body: () => T): T | Answer => {
  try {
    return body()
  } catch (error) {
    if (error instanceof CallError) return refuse(error)
    throw error
  }
}

/**
 * As `answering`. `body` passes the call's name to `onName`, so that the trace shows the name even if decoding fails.
 */
export const answeringAs = (body: (onName: (name: string) => void) => Decoded | Answer): Decoded | Answer => {
  let attempt: string | undefined
  const decoded = answering(() =>
    body(name => {
      attempt = name
    }),
  )
  return attempt !== undefined && isAnswer(decoded) ? { ...decoded, attempt } : decoded
}

/** Core's declaration of a method, without driver attributes. `own`: the class, if it is a driver's own. */
export const declaredMethod = (className: string, method: string, own?: ObjectClass): Method => {
  const found = (own ?? (Classes as Readonly<Record<string, ObjectClass>>)[className])?.methods[method]
  if (found === undefined) throw new Error(`there is no method ${className}.${method}`)
  return found
}

/** Returns the compiled layout of a struct for a class and a link. */
export type LayoutByClass = (className: string, link?: LinkName) => CompiledLayout

/**
 * Compiles a layout for each class and link on first use. `name`: of the command or method, for messages. `own`: see
 * `declaredMethod`.
 */
export const layoutByClass = (
  name: string,
  classes: readonly string[],
  layout: Layout,
  method: string,
  direction: 'in' | 'out',
  own?: ObjectClass,
): LayoutByClass => {
  const byLink = new Map<LinkName, Map<string, CompiledLayout>>()
  /** The method's attributes in all classes. */
  let all: Attributes | undefined
  return (className, link = 'roce') => {
    let byClass = byLink.get(link)
    if (byClass === undefined) {
      byClass = new Map()
      byLink.set(link, byClass)
    }
    let compiled = byClass.get(className)
    if (compiled === undefined) {
      all ??= Object.assign({}, ...classes.map(cls => declaredMethod(cls, method, own)[direction])) as Attributes
      const { [direction]: attributes } = declaredMethod(className, method, own)
      compiled = compileLayout(the.method(`${className}.${method}`, name), layout, attributes, all, className, link)
      byClass.set(className, compiled)
    }
    return compiled
  }
}

/** The class of a queue pair of type DRIVER. */
const driverQpName = ({ schema: { linux } }: CallerView, { length, bytes }: DriverInput): string => {
  const own = linux?.driverQps
  if (own === undefined || length < own.at + 4) return DriverQp.name
  const word = viewOf(bytes()).getUint32(own.at, true)
  return own.classes.find(({ bit }) => (word & bit) !== 0)?.name ?? DriverQp.name
}

/**
 * The class of a call, by the QP or SRQ type in the struct, or by the object. If the object's class is not one of
 * `classes`, the first of `classes`, so that core refuses the call. Throws CallError: EINVAL for an unknown type,
 * EOPNOTSUPP for a type without a class. `driverInput`: selects the class of type DRIVER.
 */
export const classNameOf = (
  view: CallerView,
  classes: readonly string[],
  facts: Facts,
  driverInput: DriverInput,
): string => {
  const table = typeTables.find(table => (table.classes as readonly string[]).includes(classes[0]!))
  if (facts.class !== undefined && table !== undefined) {
    const { noun, types } = table
    if (!(facts.class in types)) throw callError.EINVAL`${noun} type ${facts.class} does not exist`
    const name = types[facts.class]
    if (name === undefined) throw callError.EOPNOTSUPP`no device here has ${noun}s of type ${facts.class}`
    return name === DriverQp.name ? driverQpName(view, driverInput) : name
  }
  if (classes.length > 1 && facts.object !== undefined) {
    const name = view.classOf(facts.object)?.name
    if (name !== undefined && classes.includes(name)) return name
  }
  return classes[0]!
}

/** Whether the device has the method for any of `classes`. */
export const hasMethodOnDevice = (view: CallerView, classes: readonly string[], method: string): boolean =>
  classes.some(name => view.schema.classByName(name)?.methods[method] !== undefined)

/** For a create: the number of the QP or SRQ type, if the class has one. For other calls: the object. */
export const factsOf = (call: Call): Facts => {
  const type = typeTables.flatMap(({ types }) => Object.entries(types)).find(([, name]) => name === call.class.name)
  const creates = call.method.call === CREATE
  const number = type === undefined ? DriverQpTypes[call.class.name] : Number(type[0])
  return {
    ...(creates ? {} : { object: call.object }),
    ...(creates && number !== undefined ? { class: number } : {}),
  }
}

/**
 * The call of `className.methodName` on this device. Throws CallError: EOPNOTSUPP if the device lacks the method,
 * EINVAL before GET_CONTEXT.
 */
export const callOf = (
  view: CallerView,
  className: string,
  methodName: string,
  object: number | undefined,
  args: AnyValues,
): Call => {
  const cls = view.schema.classByName(className)
  const method = cls?.methods[methodName]
  if (cls === undefined || method === undefined) throw new CallError('EOPNOTSUPP', lacksMethod(className, methodName))
  const isOpen = className === 'device' && methodName === 'open'
  if (!view.hasContext && !isOpen) throw callError.EINVAL`the descriptor has no context yet: call GET_CONTEXT first`
  return { class: cls, methodName, method, object: object ?? 0, args }
}

/**
 * Whether the call is a second GET_CONTEXT on a descriptor. Linux answers EINVAL, but fills the response
 * (test/fixtures/abi/raw.out). So the call becomes a query of the device, answered with GET_CONTEXT_AGAIN.
 */
export const isOpenAgain = (view: CallerView, className: string, methodName: string): boolean =>
  view.hasContext && className === 'device' && methodName === 'open'
export const GET_CONTEXT_AGAIN = callError.EINVAL`the descriptor has a context already`

// ---- the driver's part ----

/** The driver's part of a request. */
export interface DriverInput {
  readonly length: number
  /** Throws CallError EFAULT. */
  bytes(): Uint8Array
}

/** The driver's part of a response. */
interface DriverPart {
  readonly compiled: CompiledLayout
  readonly buffer: UserBuffer
  /** Whether nothing is written if the result has no driver attributes. */
  readonly isOptional: boolean
}

/** The compiled layouts of a driver's structs. */
interface DriverStructs {
  readonly in: CompiledLayout | undefined
  readonly out: CompiledLayout
}
const driverStructs = new WeakMap<DriverLayout, DriverStructs>()

/** The driver's structs of a call; undefined if the driver has none. */
const driverStructsOf = (linux: LinuxAbi | undefined, { class: { name: className }, methodName }: Call) => {
  const name = `${className}.${methodName}`
  const part = linux?.layouts[name]
  if (linux === undefined || part === undefined) return undefined
  let structs = driverStructs.get(part)
  if (structs === undefined) {
    // not the method's: another driver with the same ABI may lack these attributes
    const attributes = linux.attributes[className]?.[methodName]
    structs = {
      in: typeof part.input === 'object' ? compileLayout(name, part.input.layout, attributes?.in ?? {}) : undefined,
      out: compileLayout(name, part.out, attributes?.out ?? {}),
    }
    driverStructs.set(part, structs)
  }
  return { name, part, structs }
}

/** The driver's struct of a request, with the call's arguments; empty if the driver has none. */
export const driverRequest = (linux: LinuxAbi | undefined, call: Call): Uint8Array => {
  const compiled = driverStructsOf(linux, call)?.structs.in
  const bytes = new Uint8Array(compiled?.layout.size ?? 0)
  if (compiled !== undefined) writeCells(compiled, bytes, call.args, {})
  return bytes
}

/** Reads the driver's struct of the request into the call's arguments. Throws CallError EINVAL. */
const readDriverInput = (
  name: string,
  compiled: CompiledLayout,
  minBytes: number,
  input: DriverInput,
  args: AnyValues,
): void => {
  if (input.length < minBytes)
    throw callError.EINVAL`${name}: the driver's request has ${minBytes} bytes or more, not ${input.length}`
  const bytes = input.length === 0 ? new Uint8Array() : input.bytes()
  const { size } = compiled.layout
  if (!isZero(bytes.subarray(size)))
    throw callError.EINVAL`${name}: bytes after the ${size} of the driver's request are not 0`
  const struct = new Uint8Array(size)
  struct.set(bytes.subarray(0, size))
  readCells(compiled, struct, args, {}, true)
}

/** Bytes of a pointer as a driver's input. */
const POINTER_BYTES = 8

/**
 * Checks the driver's parts of request and response as Linux's driver does. Returns the argument of `writeDriverPart`:
 * undefined if the driver writes no struct. Throws CallError: EINVAL for a response buffer that is too small, and for
 * unexpected or too little input; EFAULT.
 */
export const driverPart = (
  view: CallerView,
  call: Call,
  input: DriverInput,
  buffer: UserBuffer | undefined,
): DriverPart | undefined => {
  const found = driverStructsOf(view.schema.linux, call)
  if (found === undefined) return undefined
  const { name, part, structs } = found
  const { out, input: inputKind } = part
  if (inputKind === 'none' && input.length > 0)
    throw callError.EINVAL`${name}: the driver has no input of its own, but ${input.length} bytes are passed`
  const { out: compiled } = structs
  if (typeof inputKind === 'object') readDriverInput(name, structs.in!, inputKind.minBytes, input, call.args)
  if (inputKind === 'pointer') {
    if (input.length < POINTER_BYTES)
      throw callError.EINVAL`${name}: the driver takes an address of ${POINTER_BYTES} bytes, not ${input.length}`
    const address = viewOf(input.bytes()).getBigUint64(0, true)
    return { compiled, buffer: { address, length: out.size }, isOptional: true }
  }
  if (part.isTruncated) return buffer === undefined ? undefined : { compiled, buffer, isOptional: false }
  const needed = part.minBytes ?? out.size
  if (needed === 0 && (buffer === undefined || buffer.length < out.size)) return undefined
  if (buffer === undefined || buffer.length < needed)
    throw callError.EINVAL`${name}: the driver's response has ${needed} bytes, there is room for ${buffer?.length ?? 0}`
  return { compiled, buffer, isOptional: false }
}

/** Writes the driver's part of a response to the caller's memory. Throws CallError EFAULT. */
export const writeDriverPart = (view: CallerView, part: DriverPart | undefined, { out }: Result): void => {
  if (part === undefined) return
  const { compiled, buffer } = part
  if (part.isOptional && compiled.boundCells.every(bound => out[bound.attribute] === undefined)) return
  const bytes = new Uint8Array(compiled.layout.size)
  writeCells(compiled, bytes, out, {})
  view.copyOut(buffer.address, bytes.subarray(0, buffer.length))
}

/** The struct of a response, and where the numbers of new descriptors belong in the caller's `buffer`. */
export const responseStruct = (
  compiled: CompiledLayout,
  result: Result,
  buffer: UserBuffer,
): { bytes: Uint8Array; installs: Install[] } => {
  const bytes = new Uint8Array(compiled.layout.size)
  const facts: Facts = result.object === undefined ? {} : { object: result.object }
  writeCells(compiled, bytes, result.out, facts, buffer.length)
  const installs: Install[] = []
  for (const slot of compiled.fds) {
    const descriptor = descriptorOf(result, slot.attribute)
    if (descriptor !== undefined && slot.at + 4 <= buffer.length)
      installs.push({ descriptor, address: buffer.address + BigInt(slot.at), width: 4 })
  }
  return { bytes, installs }
}

/**
 * The inverse of `responseStruct`: the result in a response of Linux's kernel, of which `bytes` may be the beginning.
 */
export const readResponse = (compiled: CompiledLayout, bytes: Uint8Array): Result => {
  const struct = new Uint8Array(compiled.layout.size)
  struct.set(bytes.subarray(0, struct.length))
  const out: AnyValues = {}
  const facts: Facts = {}
  readCells(compiled, struct, out, facts, false)
  const descriptors = compiled.fds.flatMap(({ attribute }): NewDescriptor[] => {
    const { [attribute]: fd } = out
    delete out[attribute]
    return typeof fd === 'number' ? [{ object: fd, attribute }] : []
  })
  return { out, ...(facts.object !== undefined && { object: facts.object }), descriptors }
}

export const descriptorOf = (result: Result, attribute: string): NewDescriptor | undefined =>
  result.descriptors?.find(d => d.attribute === attribute)

/** Writes as many of `bytes` as fit into the caller's buffer, and zeros into its rest. */
export const fill = (view: CallerView, buffer: UserBuffer, bytes: Uint8Array): void => {
  if (buffer.length <= bytes.length) view.copyOut(buffer.address, bytes.subarray(0, buffer.length))
  else {
    const all = new Uint8Array(buffer.length)
    all.set(bytes)
    view.copyOut(buffer.address, all)
  }
}

export const isZero = (bytes: Uint8Array): boolean => bytes.every(byte => byte === 0)
