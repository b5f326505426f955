/*
 * Lifetime of objects (R23): handles, use counts, parents, and destruction of all objects of a context.
 *
 * An object uses its parents, the objects that the arguments of its create referred to. When a context closes or a
 * device is removed, its objects are destroyed in reverse order of dependency. Reverse order of creation does not
 * suffice, because a modify may add a dependency. The destruction is in steps, because there may be very many objects.
 * If a destroy handler throws, the object is removed nevertheless.
 */
import { callError } from '../../spec/errno.ts'
import { because, the } from '../../spec/reason.ts'
import type { ObjectClass } from '../../spec/schema/schema.ts'
import { noteFault } from '../attempt.ts'
import { classTable, findDestroy } from '../dispatch/lookup.ts'
import { closeEvents, createEventQueue } from '../events/events.ts'
import { noMemory } from '../memory/address-space.ts'
import {
  type CallContext,
  type Caller,
  type Context,
  type CoreObject,
  type Entry,
  type FdObject,
  type HandlerValues,
  Lifecycle,
} from '../model.ts'
import { freeHandle, takeHandle } from './handles.ts'
import { addTo, chargeMemory, releaseMemory, removeFrom, requireShare } from './limits.ts'
import { objectBytes } from './object-bytes.ts'

const throwNoCaller = (operation: string): never => {
  throw callError.EFAULT`${operation}: core itself destroys the object; there is no caller`
}

/** The caller of destroys by core itself. */
const noCaller: Caller = {
  memory: noMemory,
  copyIn: () => throwNoCaller('copyIn'),
  copyOut: () => throwNoCaller('copyOut'),
  descriptor: () => undefined,
}

// ---- creation ----

/** Counts an object, and charges its bytes to the context's account. If it throws, neither is done. */
const countAndCharge = ({ account, device }: Context, cls: ObjectClass): void => {
  const { name } = cls
  const limit = device.limits.get(name)
  const what = because`${the.method(`${name}.create`)}: device ${device.name}`
  if (limit !== undefined) requireShare(limit, account, what)
  chargeMemory(account, what, objectBytes(cls))
  if (limit !== undefined) addTo(limit, account)
  device.counts[name] = (device.counts[name] ?? 0) + 1
}

/**
 * Creates an object with a handle, not visible yet, and counts the use of its parents. Throws ENOMEM beyond the
 * account's share of the device's limit of the class, or of memory.
 */
export const createObject = (context: Context, cls: ObjectClass, parents: readonly CoreObject[]): CoreObject => {
  const { device } = context
  const { core } = device
  countAndCharge(context, cls)
  const object: CoreObject = {
    id: core.nextObject++,
    class: cls,
    context,
    handle: -1,
    life: Lifecycle.CREATING,
    uses: 0,
    parents,
    state: undefined,
    events: undefined,
  }
  if (cls.identity === 'fd') {
    const fd = Object.assign(object, { context, sink: createEventQueue(), isClosed: false }) as FdObject
    fd.handle = core.nextDescriptor++
    context.descriptors.add(fd)
    core.descriptors.set(fd.handle, fd)
  } else object.handle = takeHandle(context.handles, object)
  for (const parent of parents) parent.uses++
  return object
}

/**
 * A number for programs that is not 0, from the id of an object that the device finds otherwise: 1 to `largest`. Of
 * more than `largest` objects, some have the same.
 */
export const numberFromId = ({ id }: CoreObject, largest: number): number => (id % largest) + 1

/**
 * Creates an additional fd object in a handler, as device.open does for its async fd. As an `fd` result it becomes a
 * descriptor of the caller. It is discarded if the call fails. The create handler of its class does not run. Throws
 * EOPNOTSUPP if the device does not have the class, and the errors of `createObject`.
 */
export const createDescriptor = (call: CallContext, className: string): FdObject => {
  const table = call.device.table.byName.get(className)
  if (table?.class.identity !== 'fd')
    throw callError.EOPNOTSUPP`device ${call.device.name} has no class ${className} of descriptors`
  const fd = createObject(call.context, table.class, []) as FdObject
  fd.life = Lifecycle.LIVE
  call.descriptors ??= []
  call.descriptors.push(fd)
  return fd
}

/** Adds a dependency after creation: `parent` is in use until `object` is destroyed or `dropParent` is called. */
export const addParent = (object: CoreObject, parent: CoreObject): void => {
  object.parents = [...object.parents, parent]
  parent.uses++
}

/** Removes a dependency. Throws an Error if there is none. */
export const dropParent = (object: CoreObject, parent: CoreObject): void => {
  const index = object.parents.indexOf(parent)
  if (index < 0)
    throw new Error(`${object.class.name} ${object.handle} does not depend on ${parent.class.name} ${parent.handle}`)
  object.parents = object.parents.filter((_, i) => i !== index)
  releaseUse(parent)
}

// ---- destruction ----

/** Ends one use. An fd object whose descriptor is closed is destroyed when its last use ends. */
export const releaseUse = (object: CoreObject): void => {
  object.uses--
  if (
    object.uses === 0 &&
    object.life === Lifecycle.LIVE &&
    object.class.identity === 'fd' &&
    (object as FdObject).isClosed
  )
    destroyNow(object, 'close')
}

/** Removes an object from all tables, without running its destroy handler, and ends its use of its parents. */
export const removeObject = (object: CoreObject): void => {
  const context = object.context
  if (context === undefined || object.life === Lifecycle.DESTROYED) return
  object.life = Lifecycle.DESTROYED
  context.owned?.delete(object)
  const { account } = context
  const { counts, limits } = context.device
  const { name } = object.class
  counts[name]!--
  releaseMemory(account, objectBytes(object.class))
  const limit = limits.get(name)
  if (limit !== undefined) removeFrom(limit, account)
  if (object.class.identity === 'fd') {
    const fd = object as FdObject
    closeEvents(fd)
    fd.sink.end()
    context.descriptors.delete(fd)
    context.device.core.descriptors.delete(fd.handle)
  } else freeHandle(context.handles, object.handle)
  for (const parent of object.parents) releaseUse(parent)
}

const noArguments: HandlerValues = {}

/** Destroys an object without a call of a client. The destroy handler cannot refuse and must be synchronous. */
export const destroyNow = (object: CoreObject, why: Exclude<CallContext['why'], 'call'>): void => {
  const context = object.context
  if (context === undefined || object.life === Lifecycle.DESTROYED) return
  const { device } = context
  // An asynchronous create or destroy that runs now cleans up itself when it ends.
  const isLive = object.life === Lifecycle.LIVE
  const table = classTable(device.table, object.class.id)
  const entry = table === undefined ? undefined : findDestroy(table)
  object.life = Lifecycle.DESTROYING
  if (isLive && entry !== undefined) runDestroy(context, entry, object, why)
  else if (isLive) for (const ended of device.core.descriptorEnds) ended(object, context, why)
  removeObject(object)
}

/**
 * Destroys objects whose handles the caller never got: first the unused ones, newest first, then those that only they
 * used. An object that another object or an asynchronous call uses stays. Yields after each; tolerates other calls
 * between the steps.
 */
export function* undoSteps(context: Context, objects: readonly (CoreObject | undefined)[]): Generator<void> {
  const remaining = new Set(objects.filter(object => object !== undefined))
  const ready = [...remaining].filter(({ uses }) => uses === 0).sort((a, b) => b.id - a.id)
  // The array grows during the loop.
  for (const object of ready) {
    if (!remaining.delete(object)) continue
    const { parents } = object
    if (object.life === Lifecycle.LIVE && object.uses === 0) {
      if (context.asyncFd === object) context.asyncFd = undefined
      destroyNow(object, 'undo')
      yield
    }
    for (const parent of parents) if (parent.uses === 0) ready.push(parent)
  }
}

/** `undoSteps` at once. */
export const undoObjects = (context: Context, objects: readonly (CoreObject | undefined)[]): void => {
  const steps = undoSteps(context, objects)
  while (!steps.next().done);
}

/** Runs a destroy handler without a call of a client. An exception or rejection is counted and reported. */
export const runDestroy = (
  context: Context,
  entry: Entry,
  object: CoreObject,
  why: Exclude<CallContext['why'], 'call'>,
): void => {
  const { device } = context
  const { core } = device
  const nothingCreated = { descriptors: undefined, alsoCreated: undefined }
  const call: CallContext = { context, device, caller: noCaller, why, entry, ...nothingCreated }
  try {
    const out = entry.run(call, object, noArguments, entry.core)
    if (out instanceof Promise) out.catch(error => noteFault(core, error))
  } catch (error) {
    noteFault(core, error)
  }
}

/**
 * Destroys an unused object, then recursively its parents that became unused, except fd objects and objects of other
 * contexts. Yields after each.
 */
function* destroyUnused(object: CoreObject, why: 'close' | 'remove'): Generator<void> {
  const ready = [object]
  // The array grows during the loop.
  for (const next of ready) {
    const { parents } = next
    destroyNow(next, why)
    yield
    for (const parent of parents)
      if (
        parent.uses === 0 &&
        parent.life !== Lifecycle.DESTROYED &&
        parent.context === object.context &&
        parent.class.identity !== 'fd'
      )
        ready.push(parent)
  }
}

/**
 * The objects of a context, highest handle first; undefined for a free handle. Tolerates destroys between the steps.
 */
export function* objectsDownwards({ handles: { slots } }: Context): Generator<CoreObject | undefined> {
  for (let handle = slots.length - 1; handle >= 0; handle = Math.min(handle, slots.length) - 1) yield slots[handle]
}

/**
 * Destroys objects that asynchronous calls or other objects use, each after its users, except in a cycle. Yields after
 * each.
 */
function* destroyUsed(objects: readonly CoreObject[], why: 'close' | 'remove'): Generator<void> {
  const users = new Map<CoreObject, number>()
  for (const { parents } of objects) for (const parent of parents) users.set(parent, (users.get(parent) ?? 0) + 1)
  const ready = objects.filter(object => !users.has(object))
  // The array grows during the loop.
  for (const object of ready) {
    const { parents } = object
    destroyNow(object, why)
    yield
    for (const parent of parents) {
      const remaining = (users.get(parent) ?? 0) - 1
      users.set(parent, remaining)
      if (remaining === 0 && parent.context === object.context) ready.push(parent)
    }
  }
  for (const object of objects) {
    destroyNow(object, why)
    yield
  }
}

/**
 * Destroys all objects of a context in reverse order of dependency; yields after each. Unused objects come first, with
 * the objects that only they used; then unused fd objects; then what is in use otherwise.
 */
export function* destroyAll(context: Context, why: 'close' | 'remove'): Generator<void> {
  // Withdraws the unread events of all objects together: withdrawing them per object is slow.
  if (why === 'close')
    for (const fd of context.descriptors) {
      closeEvents(fd)
      yield
    }
  for (const object of objectsDownwards(context)) {
    if (object?.uses === 0) yield* destroyUnused(object, why)
    else yield
  }
  const newestDescriptors = (): FdObject[] => [...context.descriptors].sort((a, b) => b.id - a.id)
  for (const fd of newestDescriptors()) if (fd.uses === 0) yield* destroyUnused(fd, why)
  const used: CoreObject[] = []
  for (const object of objectsDownwards(context)) {
    if (object !== undefined) used.push(object)
    yield
  }
  yield* destroyUsed([...used, ...newestDescriptors()], why)
}
