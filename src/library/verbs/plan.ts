/*
 * Creation of objects, and the state that all objects of a device share. A plan is a call of `create`, and the
 * conversion of the result to an object of the library. Plans run at once, or as entries of a chain (R16). Planned
 * objects of a chain have negative handles, which chain.ts turns into references to entries.
 */

import { Errno } from '../../spec/errno.ts'
import type { LinkName } from '../../spec/links.ts'
import type { AnyValues, In, ObjectClass, Out } from '../../spec/schema/schema.ts'
import type { CallResult, Carrier } from './carrier.ts'
import type { WaiterList } from './cq/waiters.ts'
import {
  closedError,
  deviceClosedError,
  formatValue,
  invalidArgument,
  nameOptions,
  type OptionNames,
  RdmaError,
  USE_ASYNC_HINT,
} from './error.ts'
import { orElse } from './objects/show.ts'
import type { DeviceCheck } from './watch/watch.ts'

/** An object that a call can refer to, also a planned object of a chain. */
export interface ObjectReference {
  /** Handle of the object. */
  readonly handle: number
}

declare const KIND: unique symbol
/** Distinguishes kinds of objects for the compiler; does not exist at run time. */
export interface Kind<N extends string> {
  readonly [KIND]?: N
}
/** An object of one kind, in options. */
export type Reference<N extends string> = ObjectReference & Kind<N>
export type KindOf<T> = T extends Kind<infer N> ? N : never

/**
 * The handle of a closed object: another object may have the former handle. Carriers refuse calls on CLOSED. Planned
 * objects have the handles -1, -2, …, above CLOSED.
 */
export const CLOSED = -0x40000000

/**
 * Throws RdmaError ERR_CLOSED if the device is closed or removed: another device may use the memory of its rings now.
 */
export const checkDevicePresent = (call: string, { waiters }: DeviceContext): void => {
  if (waiters.isOver) throw deviceClosedError(call, 'closed or removed')
}

/** The local end of a queue pair's path: properties of the device and of its port 1. */
export interface LocalPath {
  /** GID of the device's address; for drivers other than rxe the first GID; zeros without a GID. */
  readonly gid: Uint8Array
  /** Index of `gid` in the port's GID table. */
  readonly gidIndex: number
  /** Largest path MTU of the port, in bytes; 0 if unknown. */
  readonly pathMtu: number
  /** The port's link; without it the path is addressed as on RoCE. */
  readonly link?: LinkName | undefined
  /** The port's LID, on InfiniBand and Omni-Path. */
  readonly lid?: number
}

/** The path of a device without ports, or whose link or address is unknown. */
export const NO_PATH: LocalPath = { gid: new Uint8Array(16), gidIndex: 0, pathMtu: 0 }

/** Fields of every object with events. */
export interface SourceIdentity {
  /** An attribute of `create`, which the object's events carry. */
  readonly userHandle: number
  readonly cls: ObjectClass
  readonly handle: number
}

/** State that all objects of one device share. */
export interface DeviceContext {
  readonly carrier: Carrier
  readonly waiters: WaiterList
  /** By id of `waiters`: the object with events that has the id as its user handle; undefined for other ids. */
  readonly sources: Map<number, Disposable | undefined>
  readonly path: LocalPath
  readonly makeAll: MakeAll
  /** Set only for a checked device (`open({ check })`, or `userdma check`). */
  readonly check: DeviceCheck | undefined
  /** Objects that the program has disposed of while others used them, with their classes; see `dispose`. */
  readonly disposed: Map<Closable, ObjectClass>
}

/** What `dispose` closes. */
interface Closable extends ObjectReference {
  /** Throws RdmaError EBUSY while other objects use it. */
  close(): void
}

/** Members of every object of the library's own classes (`VerbsObject` in objects/verbs-object.ts). */
export interface LibraryObject {
  readonly context: DeviceContext
  readonly cls: ObjectClass
  handle: number
  isOpen: boolean
}

/**
 * False for an `ObjectOf`: a class of a driver may have methods with these names, but no property that is a boolean.
 */
const isLibraryObject = (object: object): object is LibraryObject =>
  typeof (object as Partial<LibraryObject>).isOpen === 'boolean'

/** Runs many plans, all or none. Throws RdmaError. */
export type MakeAll = <T extends Disposable>(plans: readonly Plan<T>[]) => T[]

export interface Plan<T> {
  readonly class: ObjectClass
  readonly args: AnyValues
  /** The names of the options by attribute, for refusals. */
  readonly optionsByAttribute?: OptionNames
  /** Converts the result of `create`. */
  onSuccess(result: CallResult<AnyValues>): T
  /** Releases what the plan holds: no object was created. */
  onFailure(): void
}

const doNothing = (): void => {}

/** A plan whose arguments and result follow the class's declaration. */
export const plan = <C extends ObjectClass, T>(
  cls: C,
  args: In<C['methods']['create']>,
  onSuccess: (result: CallResult<Out<C['methods']['create']>>) => T,
  onFailure: () => void = doNothing,
  optionsByAttribute?: OptionNames,
): Plan<T> => ({
  class: cls,
  ...(optionsByAttribute && { optionsByAttribute }),
  args: args as AnyValues,
  onSuccess: result => onSuccess(result as CallResult<Out<C['methods']['create']>>),
  onFailure,
})

/**
 * Destroys an object that a plan has created, but could not convert: its ring cannot be mapped, for example. The error
 * of the conversion is thrown to the program, so an error here is ignored.
 */
export const destroyUnconverted = (carrier: Carrier, cls: ObjectClass, handle: number): void => {
  orElse(() => carrier.call(cls, 'destroy', handle, {}), undefined)
}

/** Runs a plan. Throws RdmaError. */
export const make = <T>(
  { carrier }: DeviceContext,
  { class: cls, args, optionsByAttribute, onSuccess, onFailure }: Plan<T>,
): T => {
  let result: CallResult<AnyValues>
  try {
    result = carrier.call(cls, 'create', 0, args)
  } catch (error) {
    onFailure()
    throw nameOptions(error, optionsByAttribute)
  }
  try {
    return onSuccess(result)
  } catch (error) {
    destroyUnconverted(carrier, cls, result.object)
    onFailure()
    throw error
  }
}

/** Runs a plan of an asynchronous driver. Rejects with RdmaError, or the signal's reason. */
export const makeAsync = async <T>(
  { carrier }: DeviceContext,
  { class: cls, args, onSuccess, onFailure }: Plan<T>,
  signal: AbortSignal | undefined,
): Promise<T> => {
  let result: CallResult<AnyValues>
  try {
    result = await carrier.callAsync(cls, 'create', 0, args, signal)
  } catch (error) {
    onFailure()
    throw error
  }
  return onSuccess(result)
}

/** The user handle of a new object with events. */
export interface EventSource {
  readonly userHandle: number
  /** Makes `object` the source of the events with this user handle; returns it. */
  assign<T extends Disposable & ObjectReference>(object: T): T
  /** Releases the user handle: the object was closed, or not created. */
  release(): void
}

/** Property of an `ObjectOf` with events: its class may have methods with the names of `SourceIdentity`. */
const SOURCE = Symbol('source')
interface Sourced {
  readonly [SOURCE]?: Pick<SourceIdentity, 'userHandle' | 'cls'>
}

export const eventSource = ({ waiters, sources }: DeviceContext, cls: ObjectClass): EventSource => {
  const userHandle = waiters.add()
  return {
    userHandle,
    assign(object) {
      sources.set(userHandle, object)
      return isLibraryObject(object) ? object : Object.assign(object, { [SOURCE]: { userHandle, cls } })
    },
    release: () => waiters.remove(userHandle),
  }
}

/** User handle, class and handle of an open object with events of this device; otherwise undefined. */
export const sourceIdentity = ({ sources }: DeviceContext, object: object): SourceIdentity | undefined => {
  const { userHandle, cls } = (object as Sourced)[SOURCE] ?? (object as SourceIdentity)
  return sources.get(userHandle) === object
    ? { userHandle, cls, handle: (object as ObjectReference).handle }
    : undefined
}

/**
 * Property of an object of `device.create` (`ObjectOf` in objects/object.ts) without events: the device's context;
 * undefined after the object is closed.
 */
const OWNER = Symbol('owner')
interface Owned {
  [OWNER]?: DeviceContext | undefined
}
/** Handles have 32 bits in messages to a daemon: another number would name another object. */
const MAX_HANDLE = 0xffff_ffff
const SAME_DEVICE_HINT = 'use objects that were created on the device that open() returned'

/** Classes by option; options that are not listed accept several classes. */
const optionClasses: Readonly<Record<string, string>> = {
  pd: 'pd',
  sendCq: 'cq',
  recvCq: 'cq',
  cq: 'cq',
  srq: 'srq',
  xrcd: 'xrcd',
  window: 'mw',
  region: 'mr',
}

/**
 * Checks that `object` is open and belongs to this device: otherwise its handle may be another object's. Also checks
 * the class of a `VerbsObject`. Planned objects of the current chain and plain `{ handle }`s pass: the device checks
 * their handles.
 */
export const checkObject = (
  context: DeviceContext,
  call: string,
  option: string,
  object: ObjectReference | undefined,
): void => {
  if (object === undefined) throw invalidArgument(call, `${option} is missing`)
  if (!Number.isInteger(object?.handle) || object.handle > MAX_HANDLE) {
    const handle: unknown = object?.handle
    const what =
      handle === undefined
        ? `${formatValue(object)} is not an object of a device`
        : `has the handle ${formatValue(handle)}, which is no object's`
    throw invalidArgument(call, `${option} ${what}`, SAME_DEVICE_HINT)
  }
  if (isLibraryObject(object)) {
    const { cls } = object
    if (object.context !== context) throw invalidArgument(call, `${option} is of another device`, SAME_DEVICE_HINT)
    if (!object.isOpen) throw closedError(call, option)
    const expected = optionClasses[option]
    if (expected !== undefined && cls.name !== expected && !cls.name.endsWith(`_${expected}`))
      throw invalidArgument(call, `${option} is an object of class ${cls.name}, not ${expected}`)
    return
  }
  // Also CLOSED while the object is being closed asynchronously.
  let isValid = object.handle !== CLOSED
  if (OWNER in object) isValid &&= object[OWNER] === context
  else if (SOURCE in object) isValid &&= sourceIdentity(context, object) !== undefined
  else if (!isValid)
    throw invalidArgument(
      call,
      `${option} is a planned object of another chain, or of a chain that has ended`,
      'use the objects that device.chain() returned',
    )
  if (object.handle === CLOSED) throw closedError(call, option)
  if (!isValid) throw invalidArgument(call, `${option} is closed or of another device`, SAME_DEVICE_HINT)
}

/**
 * Whether an object that is no `VerbsObject` is an `ObjectOf`. False for an object with events that is closed or of
 * another device.
 */
export const isObjectOf = (context: DeviceContext, object: object): boolean =>
  OWNER in object || sourceIdentity(context, object) !== undefined

/** Records that an object without events belongs to this device. Returns the object. */
export const setOwner = <T extends object>(context: DeviceContext, object: T): T =>
  Object.assign(object, { [OWNER]: context })

/** Records that the object is closed. */
export const clearOwner = (object: object): void => {
  ;(object as Owned)[OWNER] = undefined
}

/** EIO: the device was removed, and its objects with it. */
const isRemovalError = (error: unknown): boolean => error instanceof RdmaError && error.errno === Errno.EIO

/** Makes a call that destroys objects. If the device was removed, its objects are gone, and EIO is ignored. */
export const destroyUnlessRemoved = (call: () => void): void => {
  try {
    call()
  } catch (error) {
    if (!isRemovalError(error)) throw error
  }
}

/** Destroys an object; does nothing if the device was removed. Throws RdmaError EBUSY while the object is in use. */
export const destroy = (carrier: Carrier, cls: ObjectClass, handle: number): void =>
  destroyUnlessRemoved(() => carrier.call(cls, 'destroy', handle, {}))

/** Whether a synchronous call was refused because its handler is asynchronous. The handler runs nevertheless. */
export const isAsynchronousError = (error: unknown): boolean =>
  error instanceof RdmaError && error.hint === USE_ASYNC_HINT

const isBusyError = (error: unknown): boolean => error instanceof RdmaError && error.errno === Errno.EBUSY

/**
 * What `using` does with an object at the end of a block. While other objects use it, it stays open, without an error:
 * they may be closed later, or with the device, which `await using` closes after this object. `closeDisposed` closes it
 * then. Throws RdmaError for any other refusal.
 */
export const dispose = (context: DeviceContext, cls: ObjectClass, object: Closable): void => {
  if (context.carrier.isUsed?.(object.handle) === true) {
    closeLater(context, cls, object)
    return
  }
  try {
    object.close()
  } catch (error) {
    if (!isBusyError(error)) throw error
    closeLater(context, cls, object)
  }
}

const closeLater = ({ disposed, check }: DeviceContext, cls: ObjectClass, object: Closable): void => {
  disposed.set(object, cls)
  // What was not closed and uses it may be a leak, but not this object.
  check?.markInternal(cls.name, object.handle)
}

/** As `dispose`, for an object of an asynchronous driver. */
export const disposeAsync = async (
  context: DeviceContext,
  cls: ObjectClass,
  object: Closable,
  close: () => Promise<void>,
): Promise<void> => {
  try {
    await close()
  } catch (error) {
    if (!isBusyError(error)) throw error
    closeLater(context, cls, object)
  }
}

/** Closes what was disposed of and is no longer used, newest first. Called when an object is closed. */
export const closeDisposed = (context: DeviceContext): void => {
  for (const [object, cls] of [...context.disposed].reverse()) {
    context.disposed.delete(object)
    try {
      dispose(context, cls, object)
    } catch (error) {
      if (!isAsynchronousError(error)) throw error
    }
  }
}

/**
 * Makes a call that destroys objects, then calls `release`. If the call is refused because it is asynchronous, the
 * driver completes it: `release` is called too, because a handle may soon be another object's.
 */
export const destroyThen = (destroyObjects: () => void, release: () => void): void => {
  try {
    destroyObjects()
  } catch (error) {
    if (isAsynchronousError(error)) release()
    throw error
  }
  release()
}

/** `destroy` for an object of an asynchronous driver. Rejects with RdmaError. */
export const destroyAsync = async (carrier: Carrier, cls: ObjectClass, handle: number): Promise<void> => {
  try {
    await carrier.callAsync(cls, 'destroy', handle, {})
  } catch (error) {
    if (!isRemovalError(error)) throw error
  }
}
