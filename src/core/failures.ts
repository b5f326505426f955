/*
 * Reports failures (spec/check/failures.ts) to handlers. Drivers, core and the daemon report them.
 */
import type { Failure } from '../spec/check/failures.ts'
import { attempt } from './attempt.ts'
import type { Context, Core, Device } from './model.ts'

/** `context`: the context of the object; undefined for a device or port. */
export type FailureHandler = (failure: Failure, device: Device, context: Context | undefined) => void

const handlers = new WeakMap<Core, Set<FailureHandler>>()

/** Calls `handler` for each failure, until the returned function is called. */
export const addFailureHandler = (core: Core, handler: FailureHandler): (() => void) => {
  // A new function, so that the same handler can be added several times.
  const registration: FailureHandler = (failure, device, context) => handler(failure, device, context)
  const registered = handlers.get(core) ?? new Set()
  handlers.set(core, registered.add(registration))
  return () => {
    registered.delete(registration)
  }
}

export const hasFailureHandlers = (core: Core): boolean => (handlers.get(core)?.size ?? 0) > 0

/**
 * Calls the handlers. An exception is counted and reported, not thrown: the caller is in the middle of the device's
 * work.
 */
export const reportFailure = (failure: Failure, device: Device, context: Context | undefined): void => {
  const { core } = device
  for (const handler of handlers.get(core) ?? []) attempt(core, () => handler(failure, device, context))
}
