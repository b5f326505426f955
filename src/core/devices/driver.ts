/*
 * How a driver declares what it provides (R19, R22): typed handlers per class, written against the class's declaration.
 *
 *   const cq = driverClass(Cq, {
 *     create(call, object, args) { …; object.state = {…}; return { cqe: … } },
 *     destroy: (call, object, args, core) => { …; return core(call, object, args) },
 *     resize: null,
 *   }, { create: { out: { mmapInfo: record(0x8001, {…}) } } })
 *
 * The compiler checks arguments and results, including the driver's own attributes; references arrive as objects. A
 * method that is omitted is core's, `null` removes it, and an override gets core's version as its last parameter.
 * Core's own classes are written in the same way (base/).
 */
import type { LinkName } from '../../spec/links.ts'
import type { Attributes, In, Method, Methods, ObjectClass, Out } from '../../spec/schema/schema.ts'
import type { CallContext, CoreObject, DriverClass, MethodAdditions } from '../model.ts'

type MergedAttributes<X extends Attributes, A, D extends 'in' | 'out'> =
  A extends Readonly<Record<D, infer Y extends Attributes>> ? X & Y : X

/** A method with a driver's attributes. */
export type Extended<M, A> =
  M extends Method<infer I, infer O> ? Method<MergedAttributes<I, A, 'in'>, MergedAttributes<O, A, 'out'>> : never

type Answered<O> = Record<never, never> extends O ? O | undefined : O

/** `undefined` is allowed instead of `{}` for a method without mandatory results. */
export type ResultOf<M> = Answered<Out<M, CoreObject>>

/**
 * The implementation of a method: throws CallError to refuse; returns a promise if it is asynchronous (and then checks
 * again whether the object exists).
 */
export type Handler<M, S> = (
  call: CallContext,
  object: CoreObject<S>,
  args: In<M, CoreObject>,
  core: CoreVersion<M>,
) => ResultOf<M> | Promise<ResultOf<M>>

/** Core's version of a method, for an override to call. */
export type CoreVersion<M> = (call: CallContext, object: CoreObject, args: In<M, CoreObject>) => Out<M, CoreObject>

/** The methods that a driver provides for class `C`, whose objects' state is an `S`. */
export type Handlers<C extends ObjectClass, S = unknown, A = Record<never, never>> = {
  readonly [K in keyof C['methods']]?: Handler<Extended<C['methods'][K], K extends keyof A ? A[K] : unknown>, S> | null
}

/** A line of a driver's table: the class, the methods that it provides, the attributes that it adds. */
export const driverClass = <C extends ObjectClass, S = unknown, const A extends MethodAdditions = Record<never, never>>(
  cls: C,
  handlers: Handlers<C, S, A> = {} as Handlers<C, S, A>,
  additions?: A,
): DriverClass => ({
  class: cls,
  // The compiler has checked each handler against its method; the table holds them by name.
  handlers: handlers as unknown as DriverClass['handlers'],
  additions: additions ?? {},
  methods: {},
})

/** The same for methods that a driver adds to a common class: `extra` declares them, `handlers` runs them. */
export const withMethods = <const M extends Methods, S = unknown>(
  line: DriverClass,
  extra: M,
  handlers: Handlers<ObjectClass<M>, S>,
): DriverClass => ({
  ...line,
  handlers: { ...line.handlers, ...(handlers as unknown as DriverClass['handlers']) },
  methods: { ...line.methods, ...extra },
})

/**
 * The same with versions of methods that differ by link (R27): on a device of that link they replace the common ones,
 * `null` removes one there, and omitted ones are common. Core's version is still what overrides call.
 */
export const withLinkVariants = <C extends ObjectClass, S = unknown>(
  line: DriverClass,
  variants: Readonly<Partial<Record<LinkName, Handlers<C, S>>>>,
): DriverClass => ({ ...line, variants: variants as unknown as NonNullable<DriverClass['variants']> })

/**
 * The same without optional arguments that the driver does not support, each with the reason: its devices do not list
 * them, and a call that passes one gets EOPNOTSUPP with the reason.
 */
export const withoutOptions = (line: DriverClass, attributes: Readonly<Record<string, string>>): DriverClass => ({
  ...line,
  lacks: { ...line.lacks, ...attributes },
})
