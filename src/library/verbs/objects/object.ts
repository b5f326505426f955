/*
 * Objects of any class (R1, R12–R14), for example a driver's private class: `device.create` and `chain.create`.
 * Methods, arguments and results are those of the class's declaration.
 */
import type { AnyValues, In, ObjectClass, Out } from '../../../spec/schema/schema.ts'
import { checkRecord } from '../arguments/options.ts'
import type { Carrier } from '../carrier.ts'
import { formatValue, invalidArgument } from '../error.ts'
import {
  CLOSED,
  clearOwner,
  closeDisposed,
  type DeviceContext,
  destroy,
  destroyAsync,
  destroyThen,
  dispose,
  disposeAsync,
  eventSource,
  type ObjectReference,
  type Plan,
  setOwner,
} from '../plan.ts'
import { jsonSafe, showAs, shownClosed } from './show.ts'

type CallOf<M> = Record<never, never> extends In<M> ? (args?: In<M>) => Out<M> : (args: In<M>) => Out<M>

/** Arguments of `create` as the class declares them, without the user handle, which the library sets. */
export type CreateArguments<C extends ObjectClass> = Omit<In<C['methods']['create']>, 'userHandle'>

/**
 * An object with the methods of its class. `handle`, `class`, `createOutput` and `close` are properties of the library:
 * if the class has a method of that name, use `device.call`.
 */
export type ObjectOf<C extends ObjectClass> = {
  readonly [K in Exclude<keyof C['methods'] & string, 'create' | 'destroy'>]: CallOf<C['methods'][K]>
} & ObjectReference &
  Disposable &
  AsyncDisposable & {
    readonly class: C
    /** The output attributes of `create`. */
    readonly createOutput: Out<C['methods']['create']>
    /**
     * Destroys the object, or closes its descriptor. Does nothing after that, or while `[Symbol.asyncDispose]` closes
     * the object. Throws RdmaError EBUSY while the object is in use. If the driver's destroy is asynchronous, use
     * `await using` or `[Symbol.asyncDispose]`: `close` throws RdmaError EOPNOTSUPP, and the driver completes the
     * destroy later.
     */
    close(): void
  }

/** A function that destroys an object that is a descriptor, and closes the descriptor. Later calls do nothing. */
export const descriptorCloser = (carrier: Carrier, cls: ObjectClass, handle: number, onClosed: () => void) => {
  let isOpen = true
  return (): void => {
    if (!isOpen) return
    const release = (): void => {
      isOpen = false
      carrier.descriptors.close(handle)
      onClosed()
    }
    if (cls.methods.destroy === undefined) release()
    else destroyThen(() => destroy(carrier, cls, handle), release)
  }
}

/** Checks that `cls` is a class declaration. */
export const checkClass = (call: string, cls: ObjectClass): void => {
  if (typeof cls !== 'object' || cls === null || typeof cls.methods !== 'object' || typeof cls.name !== 'string')
    throw invalidArgument(
      call,
      `${formatValue(cls)} is not a class`,
      'give one of `Classes` of userdma/spec, or a class of a driver',
    )
}

/** Plans an object of class `cls`. `call`: the program's call, for errors about `cls`. */
export const objectPlan = <C extends ObjectClass>(
  context: DeviceContext,
  call: string,
  cls: C,
  args: CreateArguments<C> | undefined,
): Plan<ObjectOf<C>> => {
  const { carrier } = context
  checkClass(call, cls)
  const { create } = cls.methods
  if (args !== undefined) checkRecord(`${cls.name}.create`, 'its arguments', args, 'give {} if there are none')
  if (create === undefined)
    throw invalidArgument(`${cls.name}.create`, 'objects of this class exist already', 'use device.call')
  const source = 'userHandle' in create.in ? eventSource(context, cls) : undefined
  return {
    class: cls,
    args: { ...(args as AnyValues), ...(source !== undefined && { userHandle: BigInt(source.userHandle) }) },
    onSuccess({ object: handle, out }) {
      const hasDestroy = cls.methods.destroy !== undefined
      const release = (): void => {
        if (cls.identity === 'fd') carrier.descriptors.close(handle)
        source?.release()
        clearOwner(object)
        self.handle = CLOSED
      }
      const close = (): void => {
        if (self.handle === CLOSED) return
        if (hasDestroy) destroyThen(() => destroy(carrier, cls, handle), release)
        else release()
        closeDisposed(context)
      }
      let closing: Promise<void> | undefined
      const destroyAndRelease = async (): Promise<void> => {
        // Before the call returns, another object may get the handle: no method may use it.
        self.handle = CLOSED
        try {
          if (hasDestroy) await destroyAsync(carrier, cls, handle)
        } catch (error) {
          self.handle = handle
          throw error
        } finally {
          closing = undefined
        }
        release()
        closeDisposed(context)
      }
      const closeAsync = async (): Promise<void> => {
        if (closing === undefined && self.handle === CLOSED) return
        closing ??= destroyAndRelease()
        await closing
      }
      const methods = Object.keys(cls.methods)
        .filter(name => name !== 'create' && name !== 'destroy')
        .map(name => [name, (methodArgs = {}) => carrier.call(cls, name, self.handle, methodArgs).out])
      const self = {
        handle,
        class: cls,
        createOutput: out,
        close,
        [Symbol.dispose]: () => dispose(context, cls, self),
        [Symbol.asyncDispose]: () => disposeAsync(context, cls, self, closeAsync),
      }
      // Adds the methods to `self`. The library's properties win over methods of the class with the same names.
      const object = Object.assign(self, { ...Object.fromEntries(methods), ...self }) as ObjectOf<C>
      showAs(object, 'Object', () => {
        const shown = { class: cls.name, handle, createOutput: jsonSafe(out) }
        return self.handle === CLOSED ? shownClosed(shown) : shown
      })
      return source === undefined ? setOwner(context, object) : source.assign(object)
    },
    onFailure: () => source?.release(),
  }
}
