/*
 * Chains (R16): many objects with one call, all or none. A function describes the objects with the methods of a builder
 * (`Chain`). The methods return planned objects, which are entries of the chain: until the chain has ended, entry 0 has
 * the handle -1, entry 1 the handle -2. Later entries may refer to earlier entries.
 */
import type { ChainedMethod } from '../../core/dispatch/chain.ts'
import type { ChainedCall } from '../../core/dispatch/chain-calls.ts'
import { ChainErrors, Interface } from '../../spec/classes/device/interface.ts'
import { CallError, errnoName } from '../../spec/errno.ts'
import { because, decodeReason, type Reason } from '../../spec/reason.ts'
import type { AnyValues, In, ObjectClass, Out } from '../../spec/schema/schema.ts'
import { type ChainLink, chainEntries, encodeChain } from '../../uapi/object/chain.ts'
import { type ChainedRefs, decodeResult } from '../../uapi/object/client.ts'
import { checkRecord, copyOfValue } from './arguments/options.ts'
import type { CallResult } from './carrier.ts'
import { type CqOptions, cqPlan } from './cq/completion-queue.ts'
import {
  checkFunction,
  checkText,
  invalidArgument,
  nameOptions,
  type OptionNames,
  refusal,
  USE_ASYNC_HINT,
} from './error.ts'
import { type Access, regionPlan } from './mr/region.ts'
import { windowPlan } from './mr/window.ts'
import { type CreateArguments, checkClass, type ObjectOf, objectPlan } from './objects/object.ts'
import { orElse } from './objects/show.ts'
import { type ProtectionDomain, pdPlan } from './pd.ts'
import {
  CLOSED,
  checkObject,
  type DeviceContext,
  destroyUnconverted,
  isObjectOf,
  type Kind,
  type KindOf,
  type MakeAll,
  make,
  type ObjectReference,
  type Plan,
} from './plan.ts'
import { type RcQueuePairOptions, rcQpPlan, type UcQueuePairOptions, ucQpPlan } from './qp/connected.ts'
import { addressPlan, type Destination, type UdQueuePairOptions, udQpPlan } from './qp/datagram.ts'
import { type GsiQueuePairOptions, gsiQpPlan, type SmiQueuePairOptions, smiQpPlan } from './qp/management.ts'
import { type XrcInitiatorOptions, xrcInitiatorPlan } from './qp/xrc.ts'
import { type SrqOptions, srqPlan, type XrcSrqOptions, xrcSrqPlan } from './srq/shared-receive.ts'

declare const PLANNED: unique symbol
/** A planned object, or the planned result of a call. */
export interface PlannedObject<T> extends ObjectReference, Kind<KindOf<T>> {
  readonly [PLANNED]: T
}

/** The same values with real objects in place of planned ones. */
export type Resolved<T> =
  T extends PlannedObject<infer O>
    ? O
    : T extends readonly (infer E)[]
      ? Resolved<E>[]
      : T extends object
        ? { readonly [K in keyof T]: Resolved<T[K]> }
        : T

type PlannedBy<P> = P extends Plan<infer T> ? PlannedObject<T> : never

/** The builder of a chain: each method adds an entry. */
export interface Chain {
  /** `device.pd()`. */
  pd(): PlannedObject<ProtectionDomain>
  /** `device.cq()`. */
  cq(options?: CqOptions): PlannedBy<ReturnType<typeof cqPlan>>
  /** `pd.register()`. */
  register(pd: ObjectReference, buffer: Uint8Array, access?: Access): PlannedBy<ReturnType<typeof regionPlan>>
  /** `pd.window()`. */
  window(pd: ObjectReference, type?: 1 | 2): PlannedBy<ReturnType<typeof windowPlan>>
  /** `pd.rcQp()` with a `sendCq`. */
  rcQp(pd: ObjectReference, options: RcQueuePairOptions): PlannedBy<ReturnType<typeof rcQpPlan>>
  /** `pd.ucQp()` with a `sendCq`. */
  ucQp(pd: ObjectReference, options: UcQueuePairOptions): PlannedBy<ReturnType<typeof ucQpPlan>>
  /** `pd.udQp()` with a `sendCq`. */
  udQp(pd: ObjectReference, options: UdQueuePairOptions): PlannedBy<ReturnType<typeof udQpPlan>>
  /** `pd.gsiQp()`. */
  gsiQp(pd: ObjectReference, options: GsiQueuePairOptions): PlannedBy<ReturnType<typeof gsiQpPlan>>
  /** `pd.smiQp()`. */
  smiQp(pd: ObjectReference, options: SmiQueuePairOptions): PlannedBy<ReturnType<typeof smiQpPlan>>
  /** `pd.xrcInitiator()`. */
  xrcInitiator(pd: ObjectReference, options: XrcInitiatorOptions): PlannedBy<ReturnType<typeof xrcInitiatorPlan>>
  /** `pd.srq()`. */
  srq(pd: ObjectReference, options?: SrqOptions): PlannedBy<ReturnType<typeof srqPlan>>
  /** `pd.xrcSrq()`. */
  xrcSrq(pd: ObjectReference, options: XrcSrqOptions): PlannedBy<ReturnType<typeof xrcSrqPlan>>
  /** `pd.addressHandle()`. */
  addressHandle(pd: ObjectReference, destination: Destination): PlannedBy<ReturnType<typeof addressPlan>>
  /** An object of any class, like `device.create`; references in `args` may be handles of planned objects. */
  create<C extends ObjectClass>(cls: C, args?: CreateArguments<C>): PlannedObject<ObjectOf<C>>
  /** Any call of the device; references in `args` may be handles of planned objects, and `object` a planned object. */
  call<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    args: In<C['methods'][K]>,
    object?: ObjectReference,
  ): PlannedObject<Out<C['methods'][K]>>
}

/** An entry of the chain: the planned object that the builder returns. */
interface Entry extends ChainedCall {
  /** -1 minus the entry's number; CLOSED after the chain. */
  handle: number
  /** The class as the program knows it; `chainedMethod.class` is the device's declaration. */
  readonly cls: ObjectClass
  /** Name of the method. */
  readonly name: string
  readonly optionsByAttribute: OptionNames | undefined
  readonly onSuccess: (result: CallResult<AnyValues>) => unknown
  readonly onFailure: () => void
  /** The method as the device declares it, and the entries that the arguments refer to. Set by `lookUp`. */
  chainedMethod: Chainable
  refs: ChainedRefs | undefined
}

/** A method as the device declares it. */
interface Chainable extends ChainedMethod {
  /** Names of the input attributes that are objects or descriptors. */
  readonly references: readonly string[]
}

const chainable = (cls: ObjectClass, name: string): Chainable => {
  const method = cls.methods[name]!
  const references = Object.entries(method.in).filter(([, { type }]) => type.kind === 'ref' || type.kind === 'fd')
  return { class: cls, name, method, references: references.map(([attribute]) => attribute) }
}

/** Numbers of the entries that arguments refer to, by attribute; undefined if there are none. */
const refsOf = (args: AnyValues, references: readonly string[]): ChainedRefs | undefined => {
  let found: Record<string, number> | undefined
  for (const name in args) {
    const value = args[name]
    if (typeof value !== 'number' || value >= 0 || !references.includes(name)) continue
    found ??= {}
    found[name] = -1 - value
  }
  return found
}

/** Replaces planned objects in `value` by the objects of their entries; other values stay. */
const resolvePlanned = (
  context: DeviceContext,
  value: unknown,
  entries: readonly Entry[],
  objects: readonly unknown[],
): unknown => {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(element => resolvePlanned(context, element, entries, objects))
  const { handle } = value as Partial<ObjectReference>
  if (handle !== undefined && handle < 0 && entries[-1 - handle] === value) return objects[-1 - handle]
  if (Object.getPrototypeOf(value) !== Object.prototype || isObjectOf(context, value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, field]) => [name, resolvePlanned(context, field, entries, objects)]),
  )
}

const NOT_LOOKED_UP: Chainable = { class: Interface, name: '', method: Interface.methods.chain, references: [] }

/** An entry that runs a plan; `index`: its number in the chain. */
const creationEntry = <O>(
  { class: cls, args, optionsByAttribute, onSuccess, onFailure }: Plan<O>,
  index: number,
): Entry => ({
  optionsByAttribute,
  handle: -1 - index,
  cls,
  name: 'create',
  args,
  object: 0,
  onSuccess,
  onFailure,
  chainedMethod: NOT_LOOKED_UP,
  refs: undefined,
})

const doNothing = (): void => {}
const outOf = ({ out }: CallResult<AnyValues>): AnyValues => out

/** The encoded chain. `refuse` is called with the first entry that a codec refuses. */
const encode = (
  links: readonly ChainLink[],
  refuse: (index: number, errno: number, reason: Reason) => never,
): Uint8Array => {
  try {
    return encodeChain(links)
  } catch (error) {
    // The error does not name the entry, so each entry is encoded alone.
    for (const [index, link] of links.entries())
      try {
        encodeChain([link])
      } catch (entryError) {
        if (entryError instanceof CallError) refuse(index, entryError.errno, entryError.reason)
      }
    throw error
  }
}

const chainBuilder = (context: DeviceContext, entries: Entry[]): Chain => {
  const add = (entry: Entry): never => {
    entries.push(entry)
    return entry as never
  }
  const create = <O>(plan: Plan<O>): never => add(creationEntry(plan, entries.length))
  return {
    pd: () => create(pdPlan(context)),
    cq: options => create(cqPlan(context, options)),
    register: (pd, buffer, access = {}) => create(regionPlan(context, pd, buffer, access)),
    window: (pd, type = 2) => create(windowPlan(context, pd, type)),
    rcQp: (pd, options) => create(rcQpPlan(context, pd, options)),
    ucQp: (pd, options) => create(ucQpPlan(context, pd, options)),
    udQp: (pd, options) => create(udQpPlan(context, pd, options)),
    gsiQp: (pd, options) => create(gsiQpPlan(context, pd, options)),
    smiQp: (pd, options) => create(smiQpPlan(context, pd, options)),
    xrcInitiator: (pd, options) => create(xrcInitiatorPlan(context, pd, options)),
    srq: (pd, options) => create(srqPlan(context, pd, options)),
    xrcSrq: (pd, options) => create(xrcSrqPlan(context, pd, options)),
    addressHandle: (pd, destination) => create(addressPlan(context, pd, destination)),
    create: (cls, args) => create(objectPlan(context, 'chain.create', cls, copyOfValue(args))),
    call(cls, method, args, object) {
      checkClass('chain.call', cls)
      checkText('chain.call', 'method', method)
      checkRecord(`${cls.name}.${method}`, 'its arguments', args, 'give {} where there are none')
      if (object !== undefined) checkObject(context, `${cls.name}.${method}`, 'object', object)
      return add({
        handle: -1 - entries.length,
        cls,
        name: method,
        // The chain runs after the function, which may use its record again before.
        args: copyOfValue(args) as AnyValues,
        object: object?.handle ?? 0,
        onSuccess: outOf,
        onFailure: doNothing,
        chainedMethod: NOT_LOOKED_UP,
        refs: undefined,
        optionsByAttribute: undefined,
      })
    },
  }
}

/** Entries of the chain whose function runs, on any device. */
let describedEntries: readonly Entry[] = []

/** Maximum plans that `makeAll` puts into one chain: a chain has at most 1 MiB. */
const PLANS_PER_CHAIN = 2048

/** `classOf`: the device's own declaration of a class; throws if the device lacks the method. */
export const createChains = (context: DeviceContext, classOf: (cls: ObjectClass, method: string) => ObjectClass) => {
  const makeAll: MakeAll = <T extends Disposable>(plans: readonly Plan<T>[]): T[] => {
    const created: T[] = []
    try {
      if (!context.carrier.isRemote) for (const plan of plans) created.push(make(context, plan))
      else
        for (let first = 0; first < plans.length; first += PLANS_PER_CHAIN) {
          const entries = plans.slice(first, first + PLANS_PER_CHAIN).map(creationEntry)
          created.push(...execute(entries, objects => objects as T[]))
        }
    } catch (error) {
      for (const object of created) object[Symbol.dispose]()
      throw error
    }
    return created
  }

  const run = <T>(build: (chain: Chain) => T): Resolved<T> => {
    checkFunction('device.chain', 'build', build)
    const entries: Entry[] = []
    // In this chain the handles of an outer chain's planned objects would name entries of this chain.
    const outerEntries = describedEntries
    for (const entry of outerEntries) entry.handle = CLOSED
    describedEntries = entries
    try {
      let built: T
      try {
        built = build(chainBuilder(context, entries))
        if (built instanceof Promise)
          throw invalidArgument(
            'interface.chain',
            'the function returns a promise',
            'describe the objects without waiting',
          )
      } catch (error) {
        for (const entry of entries) entry.onFailure()
        throw error
      }
      const resolve = (objects: readonly unknown[]) => resolvePlanned(context, built, entries, objects) as Resolved<T>
      return entries.length === 0 ? resolve([]) : execute(entries, resolve)
    } finally {
      // In another chain the handles would name that chain's entries.
      for (const entry of entries) entry.handle = CLOSED
      for (const [index, entry] of outerEntries.entries()) entry.handle = -1 - index
      describedEntries = outerEntries
    }
  }

  /** Looks up the methods of the entries, and the entries that their arguments refer to. */
  const lookUp = (entries: readonly Entry[]): void => {
    const known = new Map<ObjectClass, Map<string, Chainable>>()
    const find = (cls: ObjectClass, name: string): Chainable => {
      let methods = known.get(cls)
      if (methods === undefined) {
        methods = new Map()
        known.set(cls, methods)
      }
      let found = methods.get(name)
      if (found === undefined) {
        found = chainable(classOf(cls, name), name)
        methods.set(name, found)
      }
      return found
    }
    // Most chains have runs of entries with the same method: these need no lookup.
    let previous: Entry | undefined
    for (const entry of entries) {
      const isSameMethod = previous !== undefined && previous.cls === entry.cls && previous.name === entry.name
      entry.chainedMethod = isSameMethod ? previous!.chainedMethod : find(entry.cls, entry.name)
      entry.refs = refsOf(entry.args, entry.chainedMethod.references)
      previous = entry
    }
  }

  /**
   * Returns the result of `use`, called with the object or result of each entry. If a result cannot be converted, or
   * `use` throws, destroys all objects.
   */
  const convert = <R>(
    entries: readonly Entry[],
    results: readonly CallResult<AnyValues>[],
    use: (objects: readonly unknown[]) => R,
  ): R => {
    const converted: unknown[] = []
    try {
      for (const [i, result] of results.entries()) converted.push(entries[i]!.onSuccess(result))
      return use(converted)
    } catch (error) {
      // Newest first: later objects may use earlier ones.
      for (let i = results.length - 1; i >= 0; i--) {
        const { cls, name, onFailure } = entries[i]!
        if (name !== 'create') continue
        // The result of `chain.call` is not disposable, also if the call is `create`.
        const { [Symbol.dispose]: dispose } = (converted[i] ?? {}) as Partial<Disposable>
        if (dispose !== undefined) orElse(() => dispose.call(converted[i]), undefined)
        else {
          destroyUnconverted(context.carrier, cls, results[i]!.object)
          onFailure()
        }
      }
      throw error
    }
  }

  /**
   * Runs the entries, all or none. Returns the result of `use`, called with the object or result of each entry. Throws
   * RdmaError, and what `use` throws.
   */
  const execute = <R>(entries: readonly Entry[], use: (objects: readonly unknown[]) => R): R => {
    let results: readonly CallResult<AnyValues>[]
    try {
      results = callAll(entries)
    } catch (error) {
      for (const entry of entries) entry.onFailure()
      throw error
    }
    return convert(entries, results, use)
  }

  /** Makes the calls of the entries, all or none. Returns their results. Throws RdmaError. */
  const callAll = (entries: readonly Entry[]): readonly CallResult<AnyValues>[] => {
    lookUp(entries)
    const refuse = (index: number, errno: number, reason: Reason, hint?: string): never => {
      const { cls, name, optionsByAttribute } = entries[index]!
      const sentence = because`${reason} (entry ${index} of a chain)`
      throw nameOptions(refusal(errnoName(errno), errno, `${cls.name}.${name}`, sentence, hint), optionsByAttribute)
    }
    const outcome = context.carrier.chain?.(entries)
    if (outcome !== undefined) {
      const { results, error, isAsynchronous } = outcome
      if (error !== undefined)
        return refuse(results.length, error.errno, error.reason, isAsynchronous ? USE_ASYNC_HINT : undefined)
      return results
    }
    const links = entries.map(
      ({ chainedMethod: { class: cls, name: methodName, method }, args, object, refs }): ChainLink => {
        const call = { class: cls, methodName, method, object: Math.max(object, 0), args }
        return { call, refs, object: object < 0 ? -1 - object : undefined }
      },
    )
    const { out } = context.carrier.call(Interface, 'chain', 0, {
      entries: encode(links, refuse),
      onError: ChainErrors.values.UNDO,
    })
    const { results, done, error, reason } = out
    if (done < entries.length)
      return refuse(
        done,
        error,
        decodeReason(reason === undefined ? 'refused' : new TextDecoder().decode(reason as Uint8Array)),
      )
    return chainEntries(results as Uint8Array).map(({ message }, i) => {
      const { object, out: values } = decodeResult(links[i]!.call, message)
      return { object: object ?? 0, out: values }
    })
  }
  return { run, makeAll }
}
