/*
 * Declarations of drivers (R19, R22): typed handlers per class.
 *
 *   const cq = driverClass(Cq, {
 *     create(call, object, args) { …; object.state = {…}; return { cqe: … } },
 *     destroy: (call, object, args, core) => { …; return core(call, object, args) },
 *     modify: null,
 *   }, { create: { out: { mmapInfo: optional(record(0x8001, {…})) } } })
 *
 * Arguments and results are type-checked, the driver's own attributes too. An argument that refers to an object is the
 * CoreObject. An omitted method is core's, `null` removes a method, and an override gets core's version as its last
 * parameter.
 */
import type { LinkName } from '../../spec/links.ts'
import type { Attributes, In, Method, Methods, ObjectClass, Out } from '../../spec/schema/schema.ts'
import type { DriverClass, MethodAdditions } from '../driver-contract.ts'
import type { CallContext, CoreObject } from '../model.ts'

/** Attributes `X` and the attributes for direction `D` of `A`, the additions to the method. */
type MergedAttributes<X extends Attributes, A, D extends 'in' | 'out'> =
  A extends Readonly<Record<D, infer Y extends Attributes>> ? X & Y : X

/** The type of a method with the driver's own attributes added. */
type Extended<M, A> =
  M extends Method<infer I, infer O> ? Method<MergedAttributes<I, A, 'in'>, MergedAttributes<O, A, 'out'>> : never

type OrUndefined<O> = Record<never, never> extends O ? O | undefined : O

/** The results of a method. A handler may return `undefined` if no result is mandatory. */
type ResultOf<M> = OrUndefined<Out<M, CoreObject>>

/**
 * The implementation of a method. Throws CallError to refuse. Returns a promise if it is asynchronous, and then checks
 * after each `await` whether the object still exists.
 */
export type Handler<M, S> = (
  call: CallContext,
  object: CoreObject<S>,
  args: In<M, CoreObject>,
  core: CoreVersion<M>,
) => ResultOf<M> | Promise<ResultOf<M>>

/**
 * Core's version of a method, which an override can call. Of asynchronous methods (mr.create, mr.modify): see
 * `answered`.
 */
type CoreVersion<M> = (call: CallContext, object: CoreObject, args: In<M, CoreObject>) => Out<M, CoreObject>

/**
 * `change` of core's answer, which is a promise if a method waits: a region is checked in slices if it has many
 * mappings.
 */
export const answered = <T, R>(answer: T | Promise<T>, change: (answer: T) => R): R | Promise<R> =>
  answer instanceof Promise ? answer.then(change) : change(answer)

/** The methods that a driver provides for class `C`; `S` is the type of its objects' state. */
export type Handlers<C extends ObjectClass, S = unknown, A = Record<never, never>> = {
  readonly [K in keyof C['methods']]?: Handler<Extended<C['methods'][K], K extends keyof A ? A[K] : unknown>, S> | null
}

/** An entry of a driver's table: a class, the driver's methods, and the attributes that the driver adds. */
export const driverClass = <C extends ObjectClass, S = unknown, const A extends MethodAdditions = Record<never, never>>(
  cls: C,
  handlers: Handlers<C, S, A> = {} as Handlers<C, S, A>,
  additions?: A,
): DriverClass => ({
  class: cls,
  // TypeScript has checked each handler against its method.
  handlers: handlers as DriverClass['handlers'],
  additions: additions ?? {},
  methods: {},
})

/** The handlers that an overlay replaces, which are synchronous. */
type Inner<C extends ObjectClass, S, A> = {
  readonly [K in keyof C['methods']]: (
    ...args: Parameters<Handler<Extended<C['methods'][K], K extends keyof A ? A[K] : unknown>, S>>
  ) => ResultOf<Extended<C['methods'][K], K extends keyof A ? A[K] : unknown>>
}

/** An entry whose handlers `overlay` replaces; it may call those of `base`, an entry of the same class. */
export const overlayClass = <
  C extends ObjectClass,
  S = unknown,
  const A extends MethodAdditions = Record<never, never>,
>(
  base: DriverClass,
  additions: A,
  overlay: (inner: Inner<C, S, A>) => Handlers<C, S, A>,
): DriverClass => ({
  ...base,
  additions,
  // TypeScript has checked the overlay, and `driverClass` the handlers of `base`.
  handlers: {
    ...base.handlers,
    ...(overlay(base.handlers as Partial<Inner<C, S, A>> as Inner<C, S, A>) as DriverClass['handlers']),
  },
})

/** Adds methods of the driver's own to one of core's classes: `extra` declares them, `handlers` implements them. */
export const withMethods = <const M extends Methods, S = unknown>(
  base: DriverClass,
  extra: M,
  handlers: Handlers<ObjectClass<M>, S>,
): DriverClass => ({
  ...base,
  handlers: { ...base.handlers, ...(handlers as DriverClass['handlers']) },
  methods: { ...base.methods, ...extra },
})

/** Adds handlers for link layers, which replace those of `base` on devices of the link layer. `null`: no method. */
export const withLinkVariants = <C extends ObjectClass, S = unknown>(
  base: DriverClass,
  variants: Readonly<Partial<Record<LinkName, Handlers<C, S>>>>,
): DriverClass => ({ ...base, variants: variants as NonNullable<DriverClass['variants']> })

/**
 * Removes optional attributes that the driver does not support, from all methods. `attributes`: the reason by name of
 * the attribute. A call with such an attribute fails with EOPNOTSUPP and the reason.
 */
export const withoutOptions = (base: DriverClass, attributes: Readonly<Record<string, string>>): DriverClass => ({
  ...base,
  unsupported: { ...base.unsupported, ...attributes },
})
