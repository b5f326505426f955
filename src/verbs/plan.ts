/*
 * Creation of objects: a plan is the call that creates an object, and the conversion of its answer. A plan runs at once
 * or as an entry of a chain (R16), where the objects that it refers to may not exist yet: these have a negative
 * `handle`, which chain.ts turns into a reference to the entry that creates them.
 */
import type { LinkName } from '../spec/links.ts'
import type { AnyValues, In, ObjectClass, Out } from '../spec/schema/schema.ts'
import type { Answered, Carrier } from './carrier.ts'
import type { Checked } from './check/checked.ts'
import type { WaiterList } from './cq/waiters.ts'
import { invalidArgument, nameOptions, type OptionNames, RdmaError } from './error.ts'

/** Anything that a call can refer to: an object of the library, or a planned one. */
export interface Named {
  /** Its handle. */
  readonly handle: number
}

/** Distinguishes kinds of objects for the compiler; does not exist at run time. */
declare const KIND: unique symbol
/** Distinguishes kinds of objects for the compiler; does not exist at run time. */
export interface Kind<N extends string> {
  readonly [KIND]?: N
}
/** An object of one kind, in options. */
export type Reference<N extends string> = Named & Kind<N>
export type KindOf<T> = T extends Kind<infer N> ? N : never

/** The handle that a closed object gets, because its number may belong to another object now. Carriers refuse it. */
export const CLOSED = -0x40000000
export const isClosed = (call: string): RdmaError => invalidArgument(call, 'the object is closed')

/** Properties of the device that queue pairs need. */
export interface PathFacts {
  /** The device's address, and its index in the GID table. */
  readonly gid: Uint8Array
  readonly gidIndex: number
  /** Largest path MTU of the port, in bytes. */
  readonly pathMtu: number
  /** Its link; undefined if unknown. */
  readonly link?: LinkName | undefined
  /** The port's LID, on a link that has them. */
  readonly lid?: number
}

/** Fields of every object with events: its number, and its handle. */
export interface SourceName {
  readonly number: number
  readonly cls: ObjectClass
  readonly handle: number
}

/** State that all objects of one device share. */
export interface DeviceContext {
  readonly carrier: Carrier
  readonly waiters: WaiterList
  /** Objects with events, by number; undefined while one is being created. */
  readonly sources: Map<number, Disposable | undefined>
  readonly path: PathFacts
  /** Runs many plans, all or none. Throws RdmaError. */
  readonly makeAll: MakeAll
  /** Set only for a checked device. */
  readonly checked: Checked | undefined
}

/** Members of every object of the library, see verbs-object.ts. */
export interface HeldObject {
  readonly kit: DeviceContext
  handle: number
  isOpen: boolean
}

/** Runs many plans, all or none. Throws RdmaError. */
export type MakeAll = <T extends Disposable>(plans: readonly Plan<T>[]) => T[]

export interface Plan<T> {
  readonly class: ObjectClass
  readonly args: AnyValues
  /** For refusals: the options' names by attribute. */
  readonly options?: OptionNames
  made(answered: Answered<AnyValues>): T
  /** The object will not be created. */
  failed(): void
}

const nothing = (): void => {}

/** A plan whose arguments and answer follow the class's declaration. */
export const plan = <C extends ObjectClass, T>(
  cls: C,
  args: In<C['methods']['create']>,
  made: (answered: Answered<Out<C['methods']['create']>>) => T,
  failed: () => void = nothing,
  options?: OptionNames,
): Plan<T> => ({
  class: cls,
  ...(options && { options }),
  args: args as AnyValues,
  made: answered => made(answered as Answered<Out<C['methods']['create']>>),
  failed,
})

/** Runs a plan. Throws RdmaError. */
export const make = <T>({ carrier }: DeviceContext, { class: cls, args, options, made, failed }: Plan<T>): T => {
  let answered: Answered<AnyValues>
  try {
    answered = carrier.call(cls, 'create', 0, args)
  } catch (error) {
    failed()
    throw nameOptions(error, options)
  }
  return made(answered)
}

/** Runs a plan of an asynchronous driver. Rejects with RdmaError, or the signal's reason. */
export const makeAsync = async <T>(
  { carrier }: DeviceContext,
  { class: cls, args, made, failed }: Plan<T>,
  signal: AbortSignal | undefined,
): Promise<T> => {
  let answered: Answered<AnyValues>
  try {
    answered = await carrier.callAsync(cls, 'create', 0, args, signal)
  } catch (error) {
    failed()
    throw error
  }
  return made(answered)
}

/** A number for an object with events; `is` assigns the object once it exists, `forget` releases the number. */
export interface EventSource {
  readonly number: number
  is<T extends Disposable & Named>(object: T): T
  forget(): void
}

export const eventSource = ({ waiters, sources }: DeviceContext, cls: ObjectClass): EventSource => {
  const number = waiters.add()
  return {
    number,
    is(object) {
      sources.set(number, object)
      return 'cls' in object ? object : Object.assign(object, { number, cls })
    },
    forget: () => waiters.remove(number),
  }
}

/** Number, class and handle of an object with events; undefined if it does not belong to this device. */
export const sourceName = ({ sources }: DeviceContext, object: object): SourceName | undefined => {
  const { number = 0 } = object as Partial<SourceName>
  return sources.get(number) === object ? (object as SourceName) : undefined
}

/** The property in which an object without events stores its device state; undefined once it is closed. */
const OWNER = Symbol('owner')
interface Owned {
  [OWNER]?: DeviceContext | undefined
}
const OWN = 'use what was made by the same open()'

/**
 * Checks that `object` is open and belongs to this device: on another device, or after its close, its handle would be
 * another object's. The device checks planned objects and plain handles.
 */
export const checkOwn = (kit: DeviceContext, call: string, option: string, object: Named | undefined): void => {
  if (object === undefined) throw invalidArgument(call, `${option} is missing`)
  if (typeof object?.handle !== 'number') throw invalidArgument(call, `${option} is not an object of a device`, OWN)
  const { number, kit: its, isOpen } = object as Partial<SourceName & HeldObject>
  const isOwn =
    its !== undefined
      ? its === kit && isOpen === true
      : OWNER in object
        ? object[OWNER] === kit
        : number === undefined || kit.sources.get(number) === (object as unknown)
  if (!isOwn) throw invalidArgument(call, `${option} is closed or of another device`, OWN)
}

/** Whether it is an object of this device with its own methods. */
export const isNativeObject = (kit: DeviceContext, object: object): boolean =>
  OWNER in object || sourceName(kit, object) !== undefined

/** Assigns `object` to this device; objects without events are not among the sources. */
export const adopt = <T extends object>(kit: DeviceContext, object: T): T => Object.assign(object, { [OWNER]: kit })

/** Marks it as closed. */
export const markEnded = (object: object): void => {
  ;(object as Owned)[OWNER] = undefined
}

const isGone = (error: unknown): boolean => error instanceof RdmaError && error.code === 'EIO'

/** Makes a call that destroys an object; does nothing if the device was removed. */
export const destroyUnlessRemoved = (call: () => void): void => {
  try {
    call()
  } catch (error) {
    if (!isGone(error)) throw error
  }
}

/** Destroys an object. Throws RdmaError EBUSY while it is in use. */
export const destroy = (carrier: Carrier, cls: ObjectClass, handle: number): void =>
  destroyUnlessRemoved(() => carrier.call(cls, 'destroy', handle, {}))

/** Destroys an object of an asynchronous driver. Rejects with RdmaError. */
export const destroyAsync = async (carrier: Carrier, cls: ObjectClass, handle: number): Promise<void> => {
  try {
    await carrier.callAsync(cls, 'destroy', handle, {})
  } catch (error) {
    if (!isGone(error)) throw error
  }
}

/** A function that destroys an object once; later calls do nothing. It throws RdmaError EBUSY while it is in use. */
export const closer = (carrier: Carrier, cls: ObjectClass, handle: number, closed: () => void = nothing) => {
  let open = true
  return (): void => {
    if (!open) return
    destroy(carrier, cls, handle)
    open = false
    closed()
  }
}
