/*
 * Objects of any class, as declared (R1, R12–R14): for classes that have no interface of their own in the library, such
 * as those of other drivers, private ones, and those of a newer release. Methods, arguments and results follow the
 * declaration.
 */
import type { AnyValues, In, ObjectClass, Out } from '../../spec/schema/schema.ts'
import type { Carrier } from '../carrier.ts'
import { checkRecord } from '../checks/options.ts'
import { formatValue, invalidArgument } from '../error.ts'
import {
  adopt,
  CLOSED,
  type DeviceContext,
  destroy,
  destroyAsync,
  eventSource,
  markEnded,
  type Named,
  type Plan,
} from '../plan.ts'
import { jsonSafe, showAs } from './show.ts'

type CallOf<M> = Record<never, never> extends In<M> ? (args?: In<M>) => Out<M> : (args: In<M>) => Out<M>

/** Arguments of a creation: the class's, without the user handle, which the library sets. */
export type CreateArguments<C extends ObjectClass> = Omit<In<C['methods']['create']>, 'userHandle'>

/**
 * An object with the methods of its class. `handle`, `class`, `made` and `close` are always properties of the library;
 * use `device.call` for methods with these names.
 */
export type ObjectOf<C extends ObjectClass> = {
  readonly [K in Exclude<keyof C['methods'] & string, 'create' | 'destroy'>]: CallOf<C['methods'][K]>
} & Named &
  Disposable &
  AsyncDisposable & {
    readonly class: C
    /** The results of its creation. */
    readonly made: Out<C['methods']['create']>
    /**
     * Destroys it, or closes its descriptor. Throws RdmaError EBUSY while it is in use. If the driver's destroy is
     * asynchronous, use `await using` or `[Symbol.asyncDispose]`.
     */
    close(): void
  }

/**
 * A function that closes a descriptor once: it calls `destroy` if the class has it (EBUSY if the object is in use),
 * closes the descriptor, and calls `closed`.
 */
export const descriptorCloser = (carrier: Carrier, cls: ObjectClass, handle: number, closed: () => void) => {
  let open = true
  return (): void => {
    if (!open) return
    if (cls.methods.destroy !== undefined) destroy(carrier, cls, handle)
    open = false
    carrier.descriptors.close(handle)
    closed()
  }
}

/** Checks that `cls` is a class declaration. */
export const checkClass = (call: string, cls: ObjectClass): void => {
  if (typeof cls !== 'object' || cls === null || typeof cls.methods !== 'object' || typeof cls.name !== 'string')
    throw invalidArgument(
      call,
      `${formatValue(cls)} is not a class`,
      'give one of Classes of userdma/spec, or of a driver',
    )
}

/** `call`: the calling method, for errors. */
export const objectPlan = <C extends ObjectClass>(
  kit: DeviceContext,
  call: string,
  cls: C,
  args: CreateArguments<C> | undefined,
): Plan<ObjectOf<C>> => {
  const { carrier } = kit
  checkClass(call, cls)
  const { create } = cls.methods
  if (args !== undefined) checkRecord(`${cls.name}.create`, 'its arguments', args, 'give {} if there are none')
  if (create === undefined)
    throw invalidArgument(`${cls.name}.create`, 'objects of this class exist already', 'use device.call')
  const source = 'userHandle' in create.in ? eventSource(kit, cls) : undefined
  return {
    class: cls,
    args: { ...(args as AnyValues), ...(source !== undefined && { userHandle: BigInt(source.number) }) },
    made({ object: handle, out }) {
      const hasDestroy = cls.methods.destroy !== undefined
      const release = (): void => {
        if (own.handle === CLOSED) return
        if (cls.identity === 'fd') carrier.descriptors.close(handle)
        source?.forget()
        markEnded(object)
        own.handle = CLOSED
      }
      const close = (): void => {
        if (own.handle === CLOSED) return
        if (hasDestroy) destroy(carrier, cls, handle)
        release()
      }
      const closeAsync = async (): Promise<void> => {
        if (own.handle === CLOSED) return
        if (hasDestroy) await destroyAsync(carrier, cls, handle)
        release()
      }
      const methods = Object.keys(cls.methods)
        .filter(name => name !== 'create' && name !== 'destroy')
        .map(name => [name, (given = {}) => carrier.call(cls, name, own.handle, given).out])
      const own = { handle, class: cls, made: out, close, [Symbol.dispose]: close, [Symbol.asyncDispose]: closeAsync }
      const object = Object.assign(own, { ...Object.fromEntries(methods), ...own }) as ObjectOf<C>
      showAs(object, 'Object', () => ({ class: cls.name, handle: own.handle, made: jsonSafe(out) }))
      return source === undefined ? adopt(kit, object) : source.is(object)
    },
    failed: () => source?.forget(),
  }
}
