/*
 * How objects are made: a plan is the call that makes one and what its answer becomes. A plan is carried out at once,
 * or as an entry of a chain (R16), where what it refers to may not exist yet: such an object has a negative `handle`,
 * which chain.ts turns into a reference to the entry that makes it.
 */
import type { LinkName } from '../spec/links.ts'
import type { AnyValues, In, ObjectClass, Out } from '../spec/schema/schema.ts'
import type { Answered, Carrier } from './carrier.ts'
import type { WaiterList } from './cq/waiters.ts'
import { inOptionWords, invalidArgument, type OptionNames, RdmaError } from './error.ts'

/** Anything that a call can name: an object of the library, or one that a chain is about to make. */
export interface Named {
  /** Its handle. */
  readonly handle: number
}

/** Tells objects of different kinds apart for the compiler; no object has it. */
declare const KIND: unique symbol
/** Tells kinds of objects apart for the compiler; no object has anything of it. */
export interface Kind<N extends string> {
  readonly [KIND]?: N
}
/** An object of one kind, as options name it. */
export type Reference<N extends string> = Named & Kind<N>
export type KindOf<T> = T extends Kind<infer N> ? N : never

/** The handle of what is closed: its number may be another object's by now. Carriers refuse calls with it. */
export const CLOSED = -0x40000000
export const isClosed = (call: string): RdmaError => invalidArgument(call, 'it is closed')

/** What a device knows that its queue pairs need. */
export interface PathFacts {
  /** Its own address, and the index in the GID table. */
  readonly gid: Uint8Array
  readonly gidIndex: number
  /** Largest path MTU of the port, bytes. */
  readonly pathMtu: number
  /** What it is on; undefined if it does not say. */
  readonly link?: LinkName | undefined
  /** Its port's, on a link that has them. */
  readonly lid?: number
}

/** What every object that has events holds: its number among them, and what calls name it by. */
export interface SourceName {
  readonly number: number
  readonly cls: ObjectClass
  readonly handle: number
}

/** What all objects of one device share. */
export interface DeviceContext {
  readonly carrier: Carrier
  readonly waiters: WaiterList
  /** Objects that have events, by their numbers; undefined for one that is being made. */
  readonly sources: Map<number, Disposable | undefined>
  readonly path: PathFacts
  /** Carries many plans out, all or none. Throws RdmaError. */
  readonly makeAll: MakeAll
}

/** What every object of the library has, see verbs-object.ts. */
export interface HeldObject {
  readonly kit: DeviceContext
  handle: number
  isOpen: boolean
}

/** Carries many plans out, all or none. Throws RdmaError. */
export type MakeAll = <T extends Disposable>(plans: readonly Plan<T>[]) => T[]

export interface Plan<T> {
  readonly class: ObjectClass
  readonly args: AnyValues
  /** Where it was said with options: their names, so that refusals use them. */
  readonly options?: OptionNames
  made(answered: Answered<AnyValues>): T
  /** It is not going to be made after all. */
  failed(): void
}

const nothing = (): void => {}

/** A plan whose arguments and answer are those of the class's declaration. */
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

/** Carries a plan out. Throws RdmaError. */
export const make = <T>({ carrier }: DeviceContext, { class: cls, args, options, made, failed }: Plan<T>): T => {
  let answered: Answered<AnyValues>
  try {
    answered = carrier.call(cls, 'create', 0, args as never) as Answered<AnyValues>
  } catch (error) {
    failed()
    throw inOptionWords(error, options)
  }
  return made(answered)
}

/** The same where the driver may take time. Rejects with RdmaError, or the signal's reason. */
export const makeAsync = async <T>(
  { carrier }: DeviceContext,
  { class: cls, args, made, failed }: Plan<T>,
  signal: AbortSignal | undefined,
): Promise<T> => {
  let answered: Answered<AnyValues>
  try {
    answered = (await carrier.callAsync(cls, 'create', 0, args as never, signal)) as Answered<AnyValues>
  } catch (error) {
    failed()
    throw error
  }
  return made(answered)
}

/** A number for an object that has events; `is` names the object once it is there, `forget` ends it. */
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

/** The name of an object that has events, if it is one of this device. */
export const sourceName = ({ sources }: DeviceContext, object: object): SourceName | undefined => {
  const { number = 0 } = object as Partial<SourceName>
  return sources.get(number) === object ? (object as SourceName) : undefined
}

/** Where an object without events has its kit; undefined once it is closed. */
const OWNER = Symbol('owner')
interface Owned {
  [OWNER]?: DeviceContext | undefined
}
const OWN = 'use what was made by the same open()'

/**
 * That `object` is there and of this device: its handle is that of something else on another one, and of something
 * newer once it is closed. What a chain is about to make, and bare handles, are the device's to check.
 */
export const checkOwn = (kit: DeviceContext, call: string, option: string, object: Named | undefined): void => {
  if (object === undefined) throw invalidArgument(call, `${option} is missing`)
  if (typeof object?.handle !== 'number') throw invalidArgument(call, `${option} is no object of a device`, OWN)
  const { number, kit: its, isOpen } = object as Partial<SourceName & HeldObject>
  const isOwn =
    its !== undefined
      ? its === kit && isOpen === true
      : OWNER in object
        ? object[OWNER] === kit
        : number === undefined || kit.sources.get(number) === (object as unknown)
  if (!isOwn) throw invalidArgument(call, `${option} is closed or of another device`, OWN)
}

/** Whether it is an object of this device whose methods are its own. */
export const isNativeObject = (kit: DeviceContext, object: object): boolean =>
  OWNER in object || sourceName(kit, object) !== undefined

/** `object` is of this device from now on; what has no events is not found among the sources. */
export const adopt = <T extends object>(kit: DeviceContext, object: T): T => Object.assign(object, { [OWNER]: kit })

/** It is closed. */
export const markEnded = (object: object): void => {
  ;(object as Owned)[OWNER] = undefined
}

const isGone = (error: unknown): boolean => error instanceof RdmaError && error.code === 'EIO'

/** Makes a call that destroys; of a device that is gone there is nothing to destroy. */
export const destroyUnlessRemoved = (call: () => void): void => {
  try {
    call()
  } catch (error) {
    if (!isGone(error)) throw error
  }
}

/** Destroys an object. Throws RdmaError EBUSY while it is used. */
export const destroy = (carrier: Carrier, cls: ObjectClass, handle: number): void =>
  destroyUnlessRemoved(() => carrier.call(cls, 'destroy', handle, {} as never))

/** The same where the driver may take time. Rejects with RdmaError. */
export const destroyAsync = async (carrier: Carrier, cls: ObjectClass, handle: number): Promise<void> => {
  try {
    await carrier.callAsync(cls, 'destroy', handle, {} as never)
  } catch (error) {
    if (!isGone(error)) throw error
  }
}

/** The end of an object: destroyed by its first call, nothing afterwards. Throws RdmaError EBUSY while it is used. */
export const closer = (carrier: Carrier, cls: ObjectClass, handle: number, closed: () => void = nothing) => {
  let open = true
  return (): void => {
    if (!open) return
    destroy(carrier, cls, handle)
    open = false
    closed()
  }
}
