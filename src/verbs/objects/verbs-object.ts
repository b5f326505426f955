/*
 * The base class of the library's objects. A program may have very many (R15): an object has few fields, and values
 * that all objects of a class share are accessors of the class.
 */
import type { ObjectClass } from '../../spec/schema/schema.ts'
import { detached } from '../error.ts'
import { CLOSED, type DeviceContext, destroy, type HeldObject } from '../plan.ts'
import { type Shown, showAs } from './show.ts'

/** Called once after the object is destroyed, to release its resources. A symbol hides it from programs. */
export const RELEASED = Symbol('released')
/**
 * Called when the device is closed, and for queue pairs when it is removed: the rings' memory may be reused, so it is
 * not accessed any more.
 */
export const DETACH = Symbol('detach')
/** The properties that `console.log` and JSON show. */
export const SHOWN = Symbol('shown')

export abstract class VerbsObject implements HeldObject, Disposable {
  readonly kit: DeviceContext
  handle: number
  isOpen = true

  constructor(kit: DeviceContext, handle: number) {
    this.kit = kit
    this.handle = handle
  }

  abstract get cls(): ObjectClass

  /** Destroys the object; later calls do nothing. Throws RdmaError EBUSY while it is in use. */
  close(): void {
    if (!this.isOpen) return
    destroy(this.kit.carrier, this.cls, this.handle)
    markClosed(this)
    this[RELEASED]()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  protected [RELEASED](): void {}

  [DETACH](): void {}

  [SHOWN](): Shown {
    return { handle: this.handle }
  }
}

/** Marks the object as destroyed: calls on it are refused. */
export const markClosed = (self: HeldObject): void => {
  self.isOpen = false
  self.handle = CLOSED
}

/** Hot methods, which check `this` themselves. */
const CHECKING = ['send', 'write', 'read', 'compareSwap', 'fetchAdd', 'atomicWrite', 'flush', 'receive', 'poll', 'wait']

/** Methods of a class and its base classes, the nearest of each name. */
const methodsOf = (cls: { readonly prototype: object }): Map<string, (...args: never[]) => unknown> => {
  const methods = new Map<string, (...args: never[]) => unknown>()
  for (let from = cls.prototype; from !== Object.prototype; from = Object.getPrototypeOf(from) as object)
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(from)))
      if (typeof value === 'function' && name !== 'constructor' && !methods.has(name)) methods.set(name, value)
  return methods
}

/** Makes methods of a class throw an RdmaError if called without their object. `call`: the object's name in errors. */
const guard = (call: string, cls: { readonly prototype: object }): void => {
  for (const [key, method] of methodsOf(cls)) {
    if (CHECKING.includes(key)) continue
    const checked = function (this: Partial<HeldObject> | undefined, ...args: never[]): unknown {
      if (this?.kit === undefined) throw detached(`${call}.${key}`)
      return method.apply(this, args)
    }
    Object.defineProperty(cls.prototype, key, { value: checked, writable: true, configurable: true, enumerable: false })
  }
}

/** Completes a class, subclasses first: `call` is the object's name in errors, `name` its kind when shown. */
export const defineVerbsClass = (cls: { readonly prototype: VerbsObject }, call: string, name: string): void => {
  guard(call, cls)
  showAs<VerbsObject>(
    cls.prototype,
    name,
    self => ({ ...self[SHOWN](), ...(!self.isOpen && { closed: true }) }),
    self => self.kit !== undefined,
  )
}
