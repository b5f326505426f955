/*
 * The base class of the library's objects. A program may have very many objects (R15), so they have few fields: values
 * common to a class are accessors.
 */
import type { ObjectClass } from '../../../spec/schema/schema.ts'
import { asProgramCall, withoutObject } from '../error.ts'
import {
  CLOSED,
  closeDisposed,
  type DeviceContext,
  destroy,
  destroyThen,
  dispose,
  type LibraryObject,
} from '../plan.ts'
import { type Shown, showAs, shownClosed } from './show.ts'

// Internal methods: symbols hide them from programs.

/** Called once after the object is destroyed: releases its rings, buffers and user handle. */
export const RELEASED = Symbol('released')
/**
 * Drops the rings, because another device may use their memory. Called when the device is closed, and for queue pairs
 * also when the device is removed.
 */
export const DROP_RINGS = Symbol('drop rings')
/** Returns the properties that `console.log` and JSON show. */
export const SHOWN = Symbol('shown')

export abstract class VerbsObject implements LibraryObject, Disposable {
  readonly context: DeviceContext
  handle: number
  isOpen = true

  constructor(context: DeviceContext, handle: number) {
    this.context = context
    this.handle = handle
  }

  abstract get cls(): ObjectClass

  /** Destroys the object; later calls do nothing. Throws RdmaError EBUSY while it is in use. */
  close(): void {
    if (!this.isOpen) return
    destroyThen(
      () => destroy(this.context.carrier, this.cls, this.handle),
      () => {
        markClosed(this)
        this[RELEASED]()
      },
    )
    closeDisposed(this.context)
  }

  [Symbol.dispose](): void {
    dispose(this.context, this.cls, this)
  }

  protected [RELEASED](): void {}

  [DROP_RINGS](): void {}

  [SHOWN](): Shown {
    return { handle: this.handle }
  }
}

/** Marks a destroyed object, so that further calls are refused. */
export const markClosed = (object: LibraryObject): void => {
  object.isOpen = false
  object.handle = CLOSED
}

/** Hot methods: they check `this` themselves, not by `guard`. */
const SELF_CHECKED = [
  'send',
  'write',
  'read',
  'compareSwap',
  'fetchAdd',
  'atomicWrite',
  'flush',
  'receive',
  'poll',
  'wait',
]

/** Methods of a class and of its base classes by name. */
const methodsOf = (cls: { readonly prototype: object }): Map<string, (...args: never[]) => unknown> => {
  const methods = new Map<string, (...args: never[]) => unknown>()
  for (let proto = cls.prototype; proto !== Object.prototype; proto = Object.getPrototypeOf(proto) as object)
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(proto)))
      if (typeof value === 'function' && name !== 'constructor' && !methods.has(name)) methods.set(name, value)
  return methods
}

/**
 * Makes the methods of a class throw an RdmaError if `this` is missing, as after `const { query } = qp`. `prefix`: the
 * part of `RdmaError.call` before the dot.
 */
const guard = (prefix: string, cls: { readonly prototype: object }): void => {
  for (const [name, method] of methodsOf(cls)) {
    if (SELF_CHECKED.includes(name)) continue
    const call = `${prefix}.${name}`
    const guarded = function (this: Partial<LibraryObject> | undefined, ...args: never[]): unknown {
      if (this?.context === undefined) throw withoutObject(call)
      return asProgramCall(call, () => method.apply(this, args))
    }
    Object.defineProperty(cls.prototype, name, {
      value: guarded,
      writable: true,
      configurable: true,
      enumerable: false,
    })
  }
}

/**
 * Guards the methods of a class, and defines what `console.log` and JSON show of its objects. `prefix`: see `guard`;
 * `name`: the shown kind of object.
 */
export const defineVerbsClass = (cls: { readonly prototype: VerbsObject }, prefix: string, name: string): void => {
  guard(prefix, cls)
  showAs<VerbsObject>(
    cls.prototype,
    name,
    self => (self.isOpen ? self[SHOWN]() : shownClosed(self[SHOWN]())),
    // false for the prototype
    self => self.context !== undefined,
  )
}
