/*
 * What objects of the library are made of (R15): a program may hold very many, so one object holds a few fields, and
 * its methods are those of a table that all of its class share. Methods find the fields in `this`; those that are not
 * in the interface of the class are nobody's but the library's.
 */
import type { ObjectClass } from '../spec/schema/schema.ts'
import { detached } from './error.ts'
import { destroy, type HeldObject } from './plan.ts'
import { showAs } from './show.ts'
import { markClosed } from './verbs-object.ts'

/** Methods that look for their object themselves, since they are called very often. */
const CHECKING = ['send', 'write', 'read', 'compareSwap', 'fetchAdd', 'atomicWrite', 'flush', 'receive', 'poll', 'wait']
/** What queue pairs are made with, which needs none. */
const INTERNAL = ['stepsTo']

/** Makes the methods of a table say so when they are called without their object; `name`: how sentences call that. */
export const guardedTable = <M extends object>(name: string, methods: M): M => {
  for (const [key, member] of Object.entries(Object.getOwnPropertyDescriptors(methods) as PropertyDescriptorMap)) {
    const { value: method } = member
    if (typeof method !== 'function' || CHECKING.includes(key) || INTERNAL.includes(key)) continue
    const checked = function (this: Partial<HeldObject> | undefined, ...args: unknown[]): unknown {
      if (this?.kit === undefined) throw detached(`${name}.${key}`)
      return method.apply(this, args)
    }
    Object.defineProperty(methods, key, { ...member, value: checked })
  }
  return methods
}

/** What `console.log` and JSON show of objects with these methods. */
export const shownAs = <S extends HeldObject>(methods: object, name: string, show: (self: S) => object): void =>
  showAs<S>(
    methods,
    name,
    self => ({ ...show(self), ...(!self.isOpen && { closed: true }) }),
    self => self.kit !== undefined,
  )

/** A table of what is in both, accessors included; neither is changed. */
export const mergeTables = <A extends object, B extends object>(base: A, more: B): A & B =>
  Object.create(Object.prototype, {
    ...Object.getOwnPropertyDescriptors(base),
    ...Object.getOwnPropertyDescriptors(more),
  })

/** An object that holds `fields` and has the methods of a table that all of its kind share. */
export const withMethods = <T>(methods: object, fields: object): T => Object.setPrototypeOf(fields, methods) as T

/** The fields of an object, to be set once. */
type Settable<F> = { -readonly [K in keyof F]: F[K] }

/**
 * The same for what is made very often, as a class would have it: giving an object its methods afterwards costs as much
 * as the call that makes it at the device. `fill`, a `function`, sets every field of `this`.
 */
export const assignMethods = <T, F extends object, A extends readonly unknown[]>(
  methods: object,
  fill: (this: Settable<F>, ...args: A) => void,
): (new (
  ...args: A
) => T) => Object.defineProperty(fill, 'prototype', { value: methods }) as unknown as new (...args: A) => T

/** Destroys an object that is open; answers whether it was. Throws RdmaError EBUSY while it is used. */
export const destroyed = (self: HeldObject, cls: ObjectClass): boolean => {
  if (!self.isOpen) return false
  destroy(self.kit.carrier, cls, self.handle)
  markClosed(self)
  return true
}
