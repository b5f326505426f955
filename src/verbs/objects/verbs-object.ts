/*
 * The base class of the library's objects. A program may have very many of them (R15), so that an object has few
 * fields, and values that all objects of a class share are accessors.
 */
import type { ObjectClass } from '../../spec/schema/schema.ts'
import { withoutObject } from '../error.ts'
import { CLOSED, type DeviceContext, destroy, type LibraryObject } from '../plan.ts'
import { type Shown, showAs } from './show.ts'

// Names of methods for the library itself; symbols hide them from programs.

/** Called once after the object is destroyed: releases its rings, buffers and user handle. */
export const RELEASED = Symbol('released')
/**
 * Drops the rings, because another device may use their memory: called when the device is closed, for queue pairs also
 * when the device is removed.
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
    destroy(this.context.carrier, this.cls, this.handle)
    markClosed(this)
    this[RELEASED]()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  protected [RELEASED](): void {}

  [DROP_RINGS](): void {}

  [SHOWN](): Shown {
    return { handle: this.handle }
  }
}

/** Records that the object is destroyed: further calls on it are refused. */
export const markClosed = (object: LibraryObject): void => {
  object.isOpen = false
  object.handle = CLOSED
}

/** Hot methods, which check `this` themselves, so that `guard` leaves them unchanged. */
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
 * Makes methods of a class throw an RdmaError if they are called without their object, as in `const { query } = qp`.
 * `prefix`: the part of `RdmaError.call` before the dot.
 */
const guard = (prefix: string, cls: { readonly prototype: object }): void => {
  for (const [name, method] of methodsOf(cls)) {
    if (SELF_CHECKED.includes(name)) continue
    const guarded = function (this: Partial<LibraryObject> | undefined, ...args: never[]): unknown {
      if (this?.context === undefined) throw withoutObject(`${prefix}.${name}`)
      return method.apply(this, args)
    }
    Object.defineProperty(cls.prototype, name, {
      value: guarded,
      writable: true,
      configurable: true,
      enumerable: false,
    })
  }
}

/** What is shown of a closed object: it has no handle, and its state at the device is unknown. */
const shownClosed = ({ handle: _, ...shown }: Shown): Shown => ({
  ...Object.fromEntries(Object.entries(shown).filter(([, value]) => value !== undefined)),
  closed: true,
})

/**
 * Guards the methods of a class and defines what `console.log` and JSON show of its objects. `prefix`: as for
 * `guard`; `name`: the kind of its objects as shown.
 */
export const defineVerbsClass = (cls: { readonly prototype: VerbsObject }, prefix: string, name: string): void => {
  guard(prefix, cls)
  showAs<VerbsObject>(
    cls.prototype,
    name,
    self => (self.isOpen ? self[SHOWN]() : shownClosed(self[SHOWN]())),
    self => self.context !== undefined,
  )
}
