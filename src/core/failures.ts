/*
 * Receivers of failures (spec/failures.ts): handlers of the core, with the context of the object. Drivers report
 * failures, and core reports events without an object.
 */
import type { Failure } from '../spec/failures.ts'
import type { Context, Core, Device } from './model.ts'

/** `context`: whose object it is; undefined for a device or port. */
export type FailureHandler = (failure: Failure, device: Device, context: Context | undefined) => void

/** Kept apart from the cores: most have no handler. */
const handlers = new WeakMap<Core, Set<FailureHandler>>()

/** Calls `handler` for each failure until the function returned is called. */
export const addFailureHandler = (core: Core, handler: FailureHandler): (() => void) => {
  const own: FailureHandler = (failure, device, context) => handler(failure, device, context)
  const all = handlers.get(core) ?? new Set()
  handlers.set(core, all.add(own))
  return () => {
    all.delete(own)
  }
}

/** Whether there is a handler. */
export const hasFailureHandlers = (core: Core): boolean => (handlers.get(core)?.size ?? 0) > 0

/** Calls all handlers; an exception is only reported, since the device is working. */
export const reportFailure = (failure: Failure, device: Device, context: Context | undefined): void => {
  const { core } = device
  for (const handler of handlers.get(core) ?? [])
    try {
      handler(failure, device, context)
    } catch (error) {
      core.faults++
      core.report(error)
    }
}
