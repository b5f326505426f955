/*
 * Reports failures (spec/check/failures.ts) to handlers. Drivers report failures of their objects; core reports the
 * events of devices and ports, the daemon reports destroys that wait.
 */
import type { Failure } from '../spec/check/failures.ts'
import { noteFault } from './attempt.ts'
import type { Context, Core, Device } from './model.ts'

/** `context`: the context of the object; undefined for a device or port. */
export type FailureHandler = (failure: Failure, device: Device, context: Context | undefined) => void

/** Not a field of `Core`, since most cores have no handler. */
const handlers = new WeakMap<Core, Set<FailureHandler>>()

/** Calls `handler` for each failure, until the returned function is called. */
export const addFailureHandler = (core: Core, handler: FailureHandler): (() => void) => {
  // A function of its own, so that the same handler can be added several times.
  const registration: FailureHandler = (failure, device, context) => handler(failure, device, context)
  const registered = handlers.get(core) ?? new Set()
  handlers.set(core, registered.add(registration))
  return () => {
    registered.delete(registration)
  }
}

/** Whether there is a handler. */
export const hasFailureHandlers = (core: Core): boolean => (handlers.get(core)?.size ?? 0) > 0

/**
 * Calls the registered handlers. An exception is counted and reported, since this runs in the middle of the device's
 * work.
 */
export const reportFailure = (failure: Failure, device: Device, context: Context | undefined): void => {
  const { core } = device
  for (const handler of handlers.get(core) ?? [])
    try {
      handler(failure, device, context)
    } catch (error) {
      noteFault(core, error)
    }
}
