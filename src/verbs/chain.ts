/*
 * Chains in the library (R16): many objects with one call, all or none. A builder function describes them with the
 * library's own methods; later objects may refer to earlier ones.
 *
 * The builder's objects stand for the entries that create them: their `handle` is negative, -1 for the first entry.
 */
import type { ChainedMethod } from '../core/dispatch/chain.ts'
import type { ChainedCall } from '../core/dispatch/chain-calls.ts'
import { ChainErrors, Interface } from '../spec/classes/device/interface.ts'
import { CallError, errnoName } from '../spec/errno.ts'
import type { AnyValues, In, ObjectClass, Out } from '../spec/schema/schema.ts'
import { chainEntries, encodeChain, type Link } from '../uapi/object/chain.ts'
import { type ChainedRefs, decodeResult } from '../uapi/object/client.ts'
import type { Answered } from './carrier.ts'
import { checkRecord } from './checks/options.ts'
import { type CqOptions, cqPlan } from './cq/completion-queue.ts'
import {
  checkFunction,
  checkText,
  invalidArgument,
  nameOptions,
  type OptionNames,
  rdmaError,
  refusal,
  USE_ASYNC_HINT,
} from './error.ts'
import { type Access, regionPlan } from './mr/region.ts'
import { windowPlan } from './mr/window.ts'
import { type CreateArguments, checkClass, type ObjectOf, objectPlan } from './objects/object.ts'
import { type ProtectionDomain, pdPlan } from './pd.ts'
import {
  checkOwn,
  type DeviceContext,
  isNativeObject,
  type Kind,
  type KindOf,
  type MakeAll,
  make,
  type Named,
  type Plan,
} from './plan.ts'
import { type RcQueuePairOptions, rcQpPlan, type UcQueuePairOptions, ucQpPlan } from './qp/connected.ts'
import { addressPlan, type Destination, type UdQueuePairOptions, udQpPlan } from './qp/datagram.ts'
import { type GsiQueuePairOptions, gsiQpPlan, type SmiQueuePairOptions, smiQpPlan } from './qp/management.ts'
import { type XrcInitiatorOptions, xrcInitiatorPlan } from './qp/xrc.ts'
import { type SrqOptions, srqPlan, type XrcSrqOptions, xrcSrqPlan } from './srq/shared-receive.ts'

declare const PLANNED: unique symbol
/** A planned object, or the planned result of a call. */
export interface PlannedObject<T> extends Named, Kind<KindOf<T>> {
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

type Made<P> = P extends Plan<infer T> ? PlannedObject<T> : never

/** The argument of `device.chain`'s builder: the library's methods, each of which adds an entry to the chain. */
export interface Chain {
  /** `device.pd()`. */
  pd(): PlannedObject<ProtectionDomain>
  /** `device.cq()`. */
  cq(options?: CqOptions): Made<ReturnType<typeof cqPlan>>
  /** `pd.register()`. */
  register(pd: Named, buffer: Uint8Array, access?: Access): Made<ReturnType<typeof regionPlan>>
  /** `pd.window()`. */
  window(pd: Named, type?: 1 | 2): Made<ReturnType<typeof windowPlan>>
  /** `pd.rcQp()` with a `sendCq`. */
  rcQp(pd: Named, options: RcQueuePairOptions): Made<ReturnType<typeof rcQpPlan>>
  /** `pd.ucQp()` with a `sendCq`. */
  ucQp(pd: Named, options: UcQueuePairOptions): Made<ReturnType<typeof ucQpPlan>>
  /** `pd.udQp()` with a `sendCq`. */
  udQp(pd: Named, options: UdQueuePairOptions): Made<ReturnType<typeof udQpPlan>>
  /** `pd.gsiQp()`. */
  gsiQp(pd: Named, options: GsiQueuePairOptions): Made<ReturnType<typeof gsiQpPlan>>
  /** `pd.smiQp()`. */
  smiQp(pd: Named, options: SmiQueuePairOptions): Made<ReturnType<typeof smiQpPlan>>
  /** `pd.xrcInitiator()`. */
  xrcInitiator(pd: Named, options: XrcInitiatorOptions): Made<ReturnType<typeof xrcInitiatorPlan>>
  /** `pd.srq()`. */
  srq(pd: Named, options?: SrqOptions): Made<ReturnType<typeof srqPlan>>
  /** `pd.xrcSrq()`. */
  xrcSrq(pd: Named, options: XrcSrqOptions): Made<ReturnType<typeof xrcSrqPlan>>
  /** `pd.addressHandle()`. */
  addressHandle(pd: Named, to: Destination): Made<ReturnType<typeof addressPlan>>
  /** An object of any class, like `device.create`; references in `args` may be handles of planned objects. */
  create<C extends ObjectClass>(cls: C, args?: CreateArguments<C>): PlannedObject<ObjectOf<C>>
  /** Any call of the device; references in `args`, and `object`, may be handles of planned objects. */
  call<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    args: In<C['methods'][K]>,
    object?: Named,
  ): PlannedObject<Out<C['methods'][K]>>
}

/** An entry of the chain: represents its object until the chain has run. */
interface Entry extends ChainedCall {
  readonly handle: number
  /** Some plans depend on the kind of the object that they belong to. */
  readonly cls: ObjectClass
  readonly name: string
  readonly options: OptionNames | undefined
  readonly made: (answered: Answered<AnyValues>) => unknown
  readonly failed: () => void
  on: Chainable
  refs: ChainedRefs | undefined
}

/** A method as the device declares it, with its attributes that name objects. */
interface Chainable extends ChainedMethod {
  readonly references: readonly string[]
}

const chainable = (cls: ObjectClass, name: string): Chainable => {
  const method = cls.methods[name]!
  const references = Object.entries(method.in).filter(([, { of }]) => of.kind === 'ref' || of.kind === 'fd')
  return { class: cls, name, method, references: references.map(([attribute]) => attribute) }
}

/** Arguments that name entries of the chain, by attribute; undefined if there are none. */
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

/** Replaces planned objects by real ones; other objects stay. */
const resolvePlanned = (
  kit: DeviceContext,
  value: unknown,
  entries: readonly Entry[],
  made: readonly unknown[],
): unknown => {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(one => resolvePlanned(kit, one, entries, made))
  const { handle } = value as Partial<Named>
  if (handle !== undefined && handle < 0 && entries[-1 - handle] === value) return made[-1 - handle]
  if (Object.getPrototypeOf(value) !== Object.prototype || isNativeObject(kit, value)) return value
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, resolvePlanned(kit, one, entries, made)]))
}

/** Placeholder for a method that has not been looked up. */
const nowhere: Chainable = { class: Interface, name: '', method: Interface.methods.chain, references: [] }

const creation = <O>({ class: cls, args, options, made, failed }: Plan<O>, at: number): Entry => ({
  options,
  handle: -1 - at,
  cls,
  name: 'create',
  args,
  object: 0,
  made,
  failed,
  on: nowhere,
  refs: undefined,
})

const nothing = (): void => {}
const outOf = ({ out }: Answered<AnyValues>): AnyValues => out

/** Matches the call's name at the start of a codec's message. */
const CALL = /^\w+\.\w+(?=: )/

const encoded = (links: readonly Link[], entries: readonly Entry[]): Uint8Array => {
  try {
    return encodeChain(links)
  } catch (error) {
    if (!(error instanceof CallError)) throw error
    const call = CALL.exec(error.message)?.[0] ?? 'interface.chain'
    const options = entries.find(({ cls, name }) => `${cls.name}.${name}` === call)?.options
    throw nameOptions(rdmaError(error, call), options)
  }
}

/** Objects per chain of creations: a chain has at most 1 MiB. */
const AT_ONCE = 2048

/** Runs chains on a device. `classOf`: the device's own declaration of a class that has the method. */
export const createChains = (kit: DeviceContext, classOf: (cls: ObjectClass, method: string) => ObjectClass) => {
  const makeAll: MakeAll = <T extends Disposable>(plans: readonly Plan<T>[]): T[] => {
    const made: T[] = []
    try {
      if (!kit.carrier.remote) for (const one of plans) made.push(make(kit, one))
      else
        for (let at = 0; at < plans.length; at += AT_ONCE)
          made.push(...(execute(plans.slice(at, at + AT_ONCE).map(creation)) as T[]))
    } catch (error) {
      for (const one of made) one[Symbol.dispose]()
      throw error
    }
    return made
  }

  const run = <T>(build: (chain: Chain) => T): Resolved<T> => {
    checkFunction('interface.chain', 'the builder', build)
    const entries: Entry[] = []
    const add = (entry: Entry): never => {
      entries.push(entry)
      return entry as never
    }
    const create = <O>(plan: Plan<O>): never => add(creation(plan, entries.length))
    const builder: Chain = {
      pd: () => create(pdPlan(kit)),
      cq: options => create(cqPlan(kit, options)),
      register: (pd, buffer, access = {}) => create(regionPlan(kit, pd, buffer, access)),
      window: (pd, type = 2) => create(windowPlan(kit, pd, type)),
      rcQp: (pd, options) => create(rcQpPlan(kit, pd, options)),
      ucQp: (pd, options) => create(ucQpPlan(kit, pd, options)),
      udQp: (pd, options) => create(udQpPlan(kit, pd, options)),
      gsiQp: (pd, options) => create(gsiQpPlan(kit, pd, options)),
      smiQp: (pd, options) => create(smiQpPlan(kit, pd, options)),
      xrcInitiator: (pd, options) => create(xrcInitiatorPlan(kit, pd, options)),
      srq: (pd, options) => create(srqPlan(kit, pd, options)),
      xrcSrq: (pd, options) => create(xrcSrqPlan(kit, pd, options)),
      addressHandle: (pd, to) => create(addressPlan(kit, pd, to)),
      create: (cls, args) => create(objectPlan(kit, 'chain.create', cls, args)),
      call(cls, method, args, object) {
        checkClass('chain.call', cls)
        checkText('chain.call', 'method', method)
        checkRecord(`${cls.name}.${method}`, 'its arguments', args, 'give {} where there are none')
        if (object !== undefined) checkOwn(kit, `${cls.name}.${method}`, 'object', object)
        return add({
          handle: -1 - entries.length,
          cls,
          name: method,
          args: args as AnyValues,
          object: object?.handle ?? 0,
          made: outOf,
          failed: nothing,
          on: nowhere,
          refs: undefined,
          options: undefined,
        })
      },
    }
    try {
      const built = build(builder)
      if (built instanceof Promise)
        throw invalidArgument(
          'interface.chain',
          'the function returns a promise',
          'describe the objects without waiting',
        )
      const made = entries.length === 0 ? [] : execute(entries)
      return resolvePlanned(kit, built, entries, made) as Resolved<T>
    } catch (error) {
      for (const entry of entries) entry.failed()
      throw error
    }
  }

  const execute = (entries: readonly Entry[]): unknown[] => {
    const known = new Map<ObjectClass, Map<string, Chainable>>()
    let last: Chainable | undefined
    let lastWanted: ObjectClass | undefined
    let lastName = ''
    const find = (cls: ObjectClass, name: string): Chainable => {
      if (last !== undefined && lastWanted === cls && lastName === name) return last
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
      last = found
      lastWanted = cls
      lastName = name
      return found
    }
    for (const entry of entries) {
      entry.on = find(entry.cls, entry.name)
      entry.refs = refsOf(entry.args, entry.on.references)
    }
    const refuse = (done: number, error: number, why: string, hint?: string): never => {
      const { cls, name, options } = entries[done]!
      const refused = refusal(errnoName(error), error, `${cls.name}.${name}`, `${why} (entry ${done} of a chain)`, hint)
      throw nameOptions(refused, options)
    }
    const straight = kit.carrier.chain?.(entries)
    if (straight !== undefined) {
      const { answers, error, isAsynchronous } = straight
      if (error !== undefined)
        return refuse(answers.length, error.errno, error.message, isAsynchronous ? USE_ASYNC_HINT : undefined)
      return answers.map((answered, i) => entries[i]!.made(answered))
    }
    const links = entries.map(({ on: { class: cls, name: methodName, method }, args, object, refs }): Link => {
      const call = { class: cls, methodName, method, object: Math.max(object, 0), args }
      return { call, refs, object: object < 0 ? -1 - object : undefined }
    })
    const { out } = kit.carrier.call(Interface, 'chain', 0, {
      entries: encoded(links, entries),
      onError: ChainErrors.values.UNDO,
    })
    const { results, done, error, reason } = out
    if (done < entries.length)
      return refuse(done, error, reason === undefined ? 'refused' : new TextDecoder().decode(reason as Uint8Array))
    return chainEntries(results as Uint8Array).map(({ message }, i) => {
      const result = decodeResult(links[i]!.call, message)
      return entries[i]!.made({ object: result.object ?? 0, out: result.out })
    })
  }
  return { run, makeAll }
}
