/*
 * Objects that another object of the context owns: a driver's object that is more than one object of the model, such as
 * mlx5's objects of firmware commands (docs/decisions/mlx5-firmware-commands.md). They are created, called and
 * destroyed by the device's own methods, with their hooks, so tools see them as any other object; but no call reaches
 * them by a handle. The owner uses what it owns, and whatever uses that, uses the owner too: the owner can be destroyed
 * only after it.
 */
import { CallError } from '../../spec/errno.ts'
import { coded, the } from '../../spec/reason.ts'
import { CREATE, DESTROY, type ObjectClass } from '../../spec/schema/schema.ts'
import { setEventHandlers } from '../events/events.ts'
import {
  type AnyResult,
  type CallContext,
  type CoreObject,
  type Entry,
  type HandlerValues,
  Lifecycle,
} from '../model.ts'
import { addParent, createObject, destroyNow, dropParent, removeObject, runDestroy } from '../objects/lifetime.ts'
import { methodOf, requireOpen } from './invoke.ts'
import { findEntry } from './lookup.ts'

/** The call of an owned object within `call`. */
const within = ({ context, device, caller, why }: CallContext, entry: Entry): CallContext => ({
  context,
  device,
  caller,
  why,
  entry,
  descriptors: undefined,
  alsoCreated: undefined,
})

/** The object that owns this one; undefined: none does. */
export const ownerOf = (object: CoreObject): CoreObject | undefined => object.context?.owned?.get(object)

/** The objects to which the arguments refer, and the owners of those. */
const parentsFor = ({ references }: Entry, args: HandlerValues): CoreObject[] => {
  const parents: CoreObject[] = []
  for (const { name } of references) {
    const parent = args[name] as CoreObject | undefined
    if (parent === undefined) continue
    parents.push(parent)
    const owner = ownerOf(parent)
    if (owner !== undefined) parents.push(owner)
  }
  return parents
}

export interface Owned {
  readonly object: CoreObject
  readonly out: AnyResult
}

/**
 * Creates an object of the class for `owner`, whose create handler runs in `call`. `args`: with objects for references;
 * their kinds are not checked. Throws the CallErrors of the create. If the caller fails afterwards, it destroys the
 * object (`destroyOwned`).
 */
export const createOwned = (
  call: CallContext,
  owner: CoreObject,
  cls: ObjectClass,
  args: HandlerValues,
): Owned | Promise<Owned> => {
  const { context, device } = call
  const entry = methodOf(context, cls, CREATE, 'create')
  const object = createObject(context, entry.class, parentsFor(entry, args))
  context.owned ??= new Map()
  context.owned.set(object, owner)
  const nested = within(call, entry)
  const finish = (out: AnyResult): Owned => {
    try {
      requireOpen(call)
    } catch (error) {
      const destroy = findEntry(device.table, object.class.id, DESTROY)
      if (destroy !== undefined) runDestroy(context, destroy, object, 'undo')
      throw error
    }
    object.life = Lifecycle.LIVE
    setEventHandlers(object, call.caller.handlers)
    addParent(owner, object)
    return { object, out }
  }
  const fail = (error: unknown): never => {
    removeObject(object)
    throw error
  }
  try {
    const out = entry.run(nested, object, args, entry.core)
    return out instanceof Promise ? out.then(finish).catch(fail) : finish(out)
  } catch (error) {
    return fail(error)
  }
}

/** Calls a method of an object within `call`, whether it has an owner or not. `args`: see `createOwned`. */
export const callWithin = (
  call: CallContext,
  object: CoreObject,
  method: { readonly call: number; readonly name: string },
  args: HandlerValues,
): AnyResult | Promise<AnyResult> => {
  const entry = methodOf(call.context, object.class, method.call, method.name)
  return entry.run(within(call, entry), object, args, entry.core)
}

/**
 * Destroys an object for its owner, whose destroy handler runs in `call`. Throws the CallError of a destroy that
 * refuses; then the object stays.
 */
export const destroyOwned = (call: CallContext, owner: CoreObject, object: CoreObject): void | Promise<void> => {
  const { device, why } = call
  if (object.life === Lifecycle.DESTROYED) return
  if (owner.parents.includes(object)) dropParent(owner, object)
  if (why !== 'call') {
    destroyNow(object, why)
    return
  }
  const stay = (error: unknown): never => {
    if (object.life === Lifecycle.DESTROYING) {
      object.life = Lifecycle.LIVE
      addParent(owner, object)
    }
    throw error
  }
  object.life = Lifecycle.DESTROYING
  try {
    if (object.uses > 0)
      throw new CallError(
        'EBUSY',
        coded(
          'in-use',
        )`${the.method(`${owner.class.name}.destroy`)}: its ${object.class.name} is used ${object.uses} times`,
      )
    const entry = findEntry(device.table, object.class.id, DESTROY)
    const out = entry?.run(within(call, entry), object, {}, entry.core)
    if (out instanceof Promise) return out.then(() => removeObject(object), stay)
  } catch (error) {
    stay(error)
  }
  removeObject(object)
}
