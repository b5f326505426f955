/*
 * The one entry into the subsystem for typed calls (R21, docs/decisions/one-way-in.md). Every dialect (Linux's write
 * commands, its ioctls, our own messages) and every in-process caller uses it.
 *
 * A call finds its method in the device's compiled table, its object, and the objects that its arguments refer to. A
 * create makes the object. The handler runs between its hooks. A destroy removes the object. A call is asynchronous
 * only if its handler is, or if a sink of events must prepare first (`prepareCall`).
 *
 * Errors are CallErrors with Linux' numbers:
 * - EOPNOTSUPP: no such class or method;
 * - ENOENT: unknown handle, or object still being created;
 * - EINVAL: handle of another class, or other invalid argument;
 * - EBUSY: object in use or being destroyed;
 * - EBADF: descriptor of another context or class;
 * - EIO: context closed or device removed, before or during the call.
 */
import { CallError, callError, codedError, gone } from '../../spec/errno.ts'
import { because, coded, type Noun, type Place, the } from '../../spec/reason.ts'
import {
  type AnyValue,
  type AnyValues,
  DESTROY,
  type In,
  type ObjectClass,
  type Out,
} from '../../spec/schema/schema.ts'
import { passesQuickCheck } from '../../uapi/argument-check.ts'
import type { NewDescriptor, Result } from '../../uapi/call.ts'
import { lacksMethod } from '../../uapi/object/lacking.ts'
import { unknownAttribute } from '../../uapi/object/versions.ts'
import { problemOf } from '../../uapi/scalar.ts'
import { prepareWithdrawEvents, setEventHandlers } from '../events/events.ts'
import {
  type AnyResult,
  type CallContext,
  type Caller,
  type Context,
  type CoreObject,
  type CreatedObjects,
  type Entry,
  type HandlerValues,
  Lifecycle,
  type ReferenceAttribute,
} from '../model.ts'
import { findHandle } from '../objects/handles.ts'
import { createObject, releaseUse, removeObject, runDestroy, undoObjects } from '../objects/lifetime.ts'
import { findEntry } from './lookup.ts'
import { undoWhenDone } from './undo.ts'

type MaybePromise<T> = T | Promise<T>

/** `Result` with the types of the method. */
export interface ReturnOf<O> extends Result {
  readonly out: O & AnyValues
}

const nameOf = (entry: Entry): Noun => the.method(`${entry.class.name}.${entry.name}`)

// ---- look-up ----

/** Begins the reason of a call that fails. */
const placeOf = (subject: Entry | Place, attribute: ReferenceAttribute | undefined): Place => {
  const place = typeof subject === 'object' && 'method' in subject ? nameOf(subject) : subject
  return attribute === undefined ? place : because`${place}: ${the.attribute(attribute.name)}`
}

/** The error for an object that an asynchronous call is creating or destroying. */
const unusableError = (
  object: CoreObject,
  subject: Entry | Place,
  attribute: ReferenceAttribute | undefined,
): CallError => {
  const prefix = because`${placeOf(subject, attribute)}: ${object.class.name} ${object.handle}`
  return object.life === Lifecycle.CREATING
    ? callError.ENOENT`${prefix} is still being created`
    : callError.EBUSY`${prefix} is being destroyed`
}

/**
 * The object of class `className` with this handle. Throws ENOENT if there is none or it is still being created, EINVAL
 * for another class, EBUSY while it is being destroyed. `subject` begins the error message.
 */
export const findObject = (
  context: Context,
  className: string,
  handle: number,
  subject: Entry | Place,
  attribute?: ReferenceAttribute,
): CoreObject => {
  const object = findHandle(context.handles, handle)
  if (object === undefined || context.owned?.has(object) === true)
    throw callError.ENOENT`${placeOf(subject, attribute)}: there is no object with handle ${handle}`
  if (object.class.name !== className)
    throw new CallError(
      'EINVAL',
      coded(
        'wrong-class',
      )`${placeOf(subject, attribute)}: handle ${handle} is of class ${object.class.name}, not ${className}`,
    )
  if (object.life !== Lifecycle.LIVE) throw unusableError(object, subject, attribute)
  return object
}

/**
 * The fd object of class `className` with this number. Throws EBADF if there is no open one in the context; as
 * `findObject` while it is being created or destroyed.
 */
const findFdObject = (
  context: Context,
  className: string,
  number: number | undefined,
  subject: Entry,
  attribute?: ReferenceAttribute,
): CoreObject => {
  const fd = number === undefined ? undefined : context.device.core.descriptors.get(number)
  if (fd === undefined || fd.context !== context || fd.isClosed)
    throw callError.EBADF`${placeOf(subject, attribute)}: the descriptor does not belong to this context`
  if (fd.class.name !== className)
    throw callError.EBADF`${placeOf(subject, attribute)}: the descriptor is of class ${fd.class.name}, not ${className}`
  if (fd.life !== Lifecycle.LIVE) throw unusableError(fd, subject, attribute)
  return fd
}

/** The object on which a method is called. */
const findTarget = (context: Context, entry: Entry, number: number): CoreObject => {
  const { class: cls } = entry
  if (cls.identity === 'handle') return findObject(context, cls.name, number, entry)
  if (cls.identity === 'fd') return findFdObject(context, cls.name, number, entry)
  const { device } = context
  const fixed = device.fixedObjects.get(cls.name)
  if (fixed !== undefined) {
    if (number === 0) return fixed
    throw callError.EINVAL`${nameOf(entry)}: object ${number}: the only ${cls.name} is object 0`
  }
  const port = device.ports[number - 1]
  if (cls.name === 'port' && port !== undefined) return port.object
  throw callError.EINVAL`${nameOf(entry)}: object ${number}: device ${device.name} has ports 1 to ${device.ports.length}`
}

/** The object that an attribute refers to, by a handle or by a descriptor of the caller. */
const resolveReference = (
  context: Context,
  caller: Caller,
  entry: Entry,
  attribute: ReferenceAttribute,
  value: AnyValue | undefined,
): CoreObject | undefined => {
  // Optional: `checkPresence` refuses a call without a required argument.
  if (value === undefined) return undefined
  if (typeof value !== 'number')
    throw callError.EINVAL`${placeOf(entry, attribute)}: not a number but a ${typeof value}`
  if (!attribute.isFd) return findObject(context, attribute.class, value, entry, attribute)
  return findFdObject(context, attribute.class, caller.descriptor(value), entry, attribute)
}

/** Throws if a required argument is missing, or one that the method refuses on this device is present. */
const checkPresence = (entry: Entry, args: AnyValues): void => {
  for (const name in entry.method.refused)
    if (args[name] !== undefined) {
      const { code, why } = entry.method.refused[name]!
      throw new CallError(code, because`${nameOf(entry)}: ${why}`)
    }
  for (const name of entry.required)
    if (args[name] === undefined) throw callError.EINVAL`${nameOf(entry)}: ${the.attribute(name)} is missing`
}

/**
 * Checks arguments that no codec has checked: each must be an attribute of the device's method and have a value of its
 * kind, also inside records and lists.
 */
const checkValues = (entry: Entry, args: AnyValues): void => {
  const attributes = entry.method.in
  for (const name in args) {
    const value = args[name]
    if (value === undefined) continue
    // A name that every object inherits (`constructor`) has no `type`.
    const type = attributes[name]?.type
    if (type === undefined) throw unknownAttribute(nameOf(entry), entry.method, name)
    const problem = problemOf(the.attribute(name), type, value, false)
    if (problem !== undefined) throw callError.EINVAL`${nameOf(entry)}: ${problem}`
  }
}

const MAX_OF_KIND = { u8: 0xff, u16: 0xffff, u32: 0xffff_ffff } as const

/** Checks arguments of a codec: numbers must be in the ranges of the device's method. */
const checkNumbers = (entry: Entry, args: AnyValues): void => {
  const attributes = entry.method.in
  for (const name in args) {
    const type = attributes[name]?.type
    const value = args[name]
    if (value === undefined || (type?.kind !== 'u8' && type?.kind !== 'u16' && type?.kind !== 'u32')) continue
    const min = type.min ?? 0
    const max = type.max ?? MAX_OF_KIND[type.kind]
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max)
      throw codedError(
        'EINVAL',
        'out-of-range',
      )`${nameOf(entry)}: ${the.attribute(name)}: ${String(value)} is not in ${min} to ${max}`
  }
}

// ---- results ----

/** The result of a successful call. `created`: the object of a create. */
const resultOf = (call: CallContext, created: CoreObject | undefined, returned: AnyResult): Result => {
  const result = resultWithoutPutBack(call, created, returned)
  return call.putBack === undefined ? result : { putBack: call.putBack, ...result }
}

/** The result without `putBack`. */
const resultWithoutPutBack = (call: CallContext, created: CoreObject | undefined, returned: AnyResult): Result => {
  const { entry } = call
  let out = (returned ?? {}) as AnyValues
  let descriptors: NewDescriptor[] | undefined
  if (entry.returned.length > 0) {
    out = { ...out }
    for (const { name, isFd } of entry.returned) {
      const object = returned?.[name] as CoreObject | undefined
      if (object === undefined) continue
      if (isFd) {
        delete out[name]
        descriptors ??= []
        descriptors.push({ object: object.handle, attribute: name })
      } else out[name] = object.handle
    }
  }
  if (call.alsoCreated !== undefined) {
    const { objects, descriptors: chainDescriptors } = call.alsoCreated
    return { out, createdObjects: objects.map(object => object.handle), descriptors: chainDescriptors }
  }
  if (created?.class.identity === 'fd') {
    descriptors ??= []
    descriptors.unshift({ object: created.handle, attribute: 'object' })
    return { out, descriptors }
  }
  if (created !== undefined)
    return descriptors === undefined ? { object: created.handle, out } : { object: created.handle, out, descriptors }
  return descriptors === undefined ? { out } : { out, descriptors }
}

// ---- running ----

/** Removes `created`, and the fd objects of `createDescriptor`. */
const discard = (call: CallContext, created?: CoreObject): void => {
  const { context, descriptors = [] } = call
  for (const object of created === undefined ? descriptors : [created, ...descriptors]) {
    removeObject(object)
    if (context.asyncFd === object) context.asyncFd = undefined
  }
}

/** The objects of `alsoCreated`. */
const objectsOf = ({ device }: CallContext, { objects, descriptors }: CreatedObjects) => [
  ...objects,
  ...descriptors.map(({ object }) => device.core.descriptors.get(object)),
]

/**
 * Whether the context was closed, or the device removed, during the call. Then core destroys all objects of the
 * context, or has destroyed them.
 */
const wasClosed = ({ context, device }: CallContext): boolean => context.isClosed || !device.isAlive

const closedError = ({ entry }: CallContext): CallError =>
  gone`${nameOf(entry)}: the context was closed, or its device removed, during the call`

/** Throws EIO if the context was closed, or the device removed, during the call. */
export const requireOpen = (call: CallContext): void => {
  if (wasClosed(call)) throw closedError(call)
}

/**
 * The handler has succeeded: makes the object of a create visible, removes the object of a destroy. Throws EIO if the
 * context was closed or the device removed during the call.
 */
const finishCall = (call: CallContext, object: CoreObject, out: AnyResult): Result => {
  const { context, device, entry } = call
  const { kind } = entry
  if (wasClosed(call)) {
    // The caller does not get the object, so it must be destroyed.
    const destroy = kind === 'create' ? findEntry(device.table, object.class.id, DESTROY) : undefined
    if (destroy !== undefined) runDestroy(context, destroy, object, 'undo')
    // The destroy handler has run. Core, which has yet to destroy the context's objects, must not run it again.
    if (kind === 'destroy') removeObject(object)
    throw closedError(call)
  }
  if (kind === 'create') {
    object.life = Lifecycle.LIVE
    setEventHandlers(object, call.caller.handlers)
    return resultOf(call, object, out)
  }
  if (kind === 'destroy') removeObject(object)
  else if (kind === 'open') context.isOpened = true
  return resultOf(call, undefined, out)
}

/** The call has failed: removes the objects that it created. After a failed destroy the object is live again. */
const rollBack = (call: CallContext, object: CoreObject): void => {
  const { kind } = call.entry
  discard(call, kind === 'create' ? object : undefined)
  if (!wasClosed(call)) {
    // A driver's override has failed after it ran core's handler, which may have read events and created objects.
    call.putBack?.()
    if (call.alsoCreated !== undefined) undoObjects(call.context, objectsOf(call, call.alsoCreated))
  }
  if (kind === 'destroy' && object.life === Lifecycle.DESTROYING) object.life = Lifecycle.LIVE
}

/**
 * Finishes a call whose handler is asynchronous. Until then the objects of its arguments count as used, and its own
 * object too, unless the call creates or destroys it. Core itself may destroy all of them meanwhile, because the
 * context was closed or the device removed.
 */
const finishLater = async (
  call: CallContext,
  object: CoreObject,
  args: HandlerValues,
  promise: Promise<AnyResult>,
): Promise<Result> => {
  const { device, entry } = call
  const objects: CoreObject[] = entry.kind === 'other' ? [object] : []
  for (const { name } of entry.references) if (args[name] !== undefined) objects.push(args[name] as CoreObject)
  for (const used of objects) used.uses++
  device.core.waitingCalls++
  let isRefused = true
  try {
    const out = await promise
    isRefused = false
    return finishCall(call, object, out)
  } catch (error) {
    // The destroy handler has refused, but core has removed the object meanwhile: the handler runs again, and cannot
    // refuse then.
    if (isRefused && entry.kind === 'destroy' && object.life === Lifecycle.DESTROYED)
      runDestroy(call.context, entry, object, device.isAlive ? 'close' : 'remove')
    rollBack(call, object)
    throw error
  } finally {
    device.core.waitingCalls--
    for (const used of objects) releaseUse(used)
  }
}

/** Lists of parents are never changed, so this one can be shared. */
const noParents: readonly CoreObject[] = []

/**
 * Replaces handles in the arguments by objects. For a create the objects become the context's `lastParents`. If they
 * equal the last ones, the list is reused, which saves memory with very many objects (R15).
 */
const resolveReferences = (context: Context, caller: Caller, entry: Entry, args: AnyValues): HandlerValues => {
  const { references } = entry
  if (references.length === 0) return args
  const values: HandlerValues = { ...args }
  const { lastParents } = context
  let count = 0
  let isSame = true
  for (let i = 0; i < references.length; i++) {
    const { name } = references[i]!
    const object = resolveReference(context, caller, entry, references[i]!, args[name])
    if (object === undefined) continue
    values[name] = object
    isSame = isSame && lastParents[count] === object
    count++
  }
  if (entry.kind === 'create' && (!isSame || count !== lastParents.length))
    context.lastParents = references
      .map(({ name }) => values[name] as CoreObject)
      .filter(object => object !== undefined)
  return values
}

/** Checks context and arguments; returns the arguments with objects for handles. */
const checkedArguments = (
  context: Context,
  entry: Entry,
  args: AnyValues,
  caller: Caller,
  check: typeof checkNumbers,
): HandlerValues => {
  const { device } = context
  if (!device.isAlive) throw gone`${nameOf(entry)}: device ${device.name} was removed`
  if (context.isClosed) throw gone`${nameOf(entry)}: the context is closed`
  const isOpenCall = entry.kind === 'open'
  if (context.isOpened === isOpenCall)
    throw callError.EINVAL`${nameOf(entry)}: the context is ${context.isOpened ? 'open already' : 'not open yet'}`
  // The full checks also accept class instances as records, which the quick check does not.
  if (!passesQuickCheck(entry.shape, args)) {
    checkPresence(entry, args)
    check(entry, args)
  }
  return resolveReferences(context, caller, entry, args)
}

/** The object of a call; for a create a new one. If `values` is `args`, the method has no references. */
const objectOfCall = (
  context: Context,
  entry: Entry,
  number: number,
  args: AnyValues,
  values: HandlerValues,
): CoreObject =>
  entry.kind === 'create'
    ? createObject(context, entry.class, values === args ? noParents : context.lastParents)
    : findTarget(context, entry, number)

/** Throws EBUSY if the object is used. */
const beginDestroy = (entry: Entry, object: CoreObject): void => {
  if (object.uses > 0)
    throw codedError(
      'EBUSY',
      'in-use',
    )`${nameOf(entry)}: ${object.class.name} ${object.handle} is used ${object.uses} times`
  object.life = Lifecycle.DESTROYING
}

/**
 * Maximum number of promises of `prepareCall` that a call awaits: one for each descriptor that may have events of its
 * object (channel, async fd, event queue).
 */
const MAX_PREPARATIONS = 3

/**
 * To be awaited before a call that withdraws, counts or reads unread events (`EventSink.prepareWithdraw`). Undefined:
 * nothing to wait for.
 */
const prepareCall = (
  context: Context,
  { class: { identity }, kind }: Entry,
  number: number,
): Promise<void> | undefined => {
  if (identity === 'fd') {
    const fd = context.device.core.descriptors.get(number)
    // The number may be of another client's descriptor.
    return fd?.context === context ? fd.sink.prepareWithdraw?.() : undefined
  }
  const object = kind === 'destroy' && identity === 'handle' ? findHandle(context.handles, number) : undefined
  return object && prepareWithdrawEvents(object)
}

/** Runs a call. `check`: the check of its arguments. `preparations`: number of awaited promises of `prepareCall`. */
const run = (
  context: Context,
  entry: Entry,
  number: number,
  args: AnyValues,
  caller: Caller,
  check: typeof checkNumbers,
  preparations = 0,
): MaybePromise<Result> => {
  const preparing = preparations < MAX_PREPARATIONS ? prepareCall(context, entry, number) : undefined
  if (preparing !== undefined)
    return preparing.then(() => run(context, entry, number, args, caller, check, preparations + 1))
  const { device } = context
  const call: CallContext = {
    context,
    device,
    caller,
    why: 'call',
    entry,
    descriptors: undefined,
    alsoCreated: undefined,
  }
  let values: HandlerValues
  let object: CoreObject | undefined
  try {
    values = checkedArguments(context, entry, args, caller, check)
    object = objectOfCall(context, entry, number, args, values)
    if (entry.kind === 'destroy') beginDestroy(entry, object)
  } catch (error) {
    entry.onRefused?.(call, object, args, error)
    throw error
  }
  try {
    const out = entry.run(call, object, values, entry.core)
    return out instanceof Promise ? finishLater(call, object, values, out) : finishCall(call, object, out)
  } catch (error) {
    rollBack(call, object)
    throw error
  }
}

/**
 * Runs a method with arguments from a codec. `number`: as `object` of `invoke`. A refusal is thrown, or rejects, as
 * CallError.
 */
export const execute = (
  context: Context,
  entry: Entry,
  number: number,
  args: AnyValues,
  caller: Caller,
): MaybePromise<Result> => run(context, entry, number, args, caller, checkNumbers)

/** As `execute`, with arguments that no codec has checked. */
export const invokeTyped = (
  context: Context,
  entry: Entry,
  number: number,
  args: AnyValues,
  caller: Caller,
): MaybePromise<Result> => run(context, entry, number, args, caller, checkValues)

/** The device's method for a class and a call number. EOPNOTSUPP if it has none. */
export const methodOf = (context: Context, cls: ObjectClass, call: number, name: string): Entry => {
  const entry = findEntry(context.device.table, cls.id, call)
  if (entry === undefined) throw new CallError('EOPNOTSUPP', lacksMethod(cls.name, name))
  return entry
}

/**
 * Calls a method in this process. `object` is a handle, an fd object's number, a port number, or 0. References in
 * `args` are handles or the caller's descriptors. Returns a promise only if the call is asynchronous. A refusal is
 * thrown, or rejects, as CallError.
 */
export const invoke = <C extends ObjectClass, K extends keyof C['methods'] & string>(
  context: Context,
  cls: C,
  method: K,
  object: number,
  args: In<C['methods'][K]>,
  caller: Caller,
): MaybePromise<ReturnOf<Out<C['methods'][K]>>> => {
  if (!Object.hasOwn(cls.methods, method)) throw new CallError('EOPNOTSUPP', lacksMethod(cls.name, method))
  const entry = methodOf(context, cls, cls.methods[method]!.call, method)
  if (typeof args !== 'object' || args === null)
    throw callError.EINVAL`${nameOf(entry)}: the arguments must be an object, not ${String(args)}`
  return invokeTyped(context, entry, object, args as AnyValues, caller) as MaybePromise<ReturnOf<Out<C['methods'][K]>>>
}

/** `invoke` for a synchronous call. If the call is asynchronous, throws an Error, and undoes the call when it ends. */
export const invokeNow = <C extends ObjectClass, K extends keyof C['methods'] & string>(
  context: Context,
  cls: C,
  method: K,
  object: number,
  args: In<C['methods'][K]>,
  caller: Caller,
): ReturnOf<Out<C['methods'][K]>> => {
  const result = invoke(context, cls, method, object, args, caller)
  if (result instanceof Promise) {
    undoWhenDone(context, result as Promise<Result>)
    throw new Error(`${cls.name}.${method} is asynchronous: use invoke`)
  }
  return result
}
