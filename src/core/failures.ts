/*
 * Reports failures (spec/check/failures.ts) to handlers. Drivers, core and the daemon report them.
 */
import { type Failure, failureReason, isNote } from '../spec/check/failures.ts'
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

/** Drops, refused posts and waits do not end a request. */
const KEPT: ReadonlySet<Failure['kind']> = new Set(['send', 'receive', 'flush', 'event'])

/** By device and QPN: the last failure of the queue pair. */
const lastFailures = new WeakMap<Device, Map<number, Failure>>()

/** The last failure of a queue pair, without drops, refused posts and notes. */
export const lastFailure = (device: Device, qpn: number): Failure | undefined => lastFailures.get(device)?.get(qpn)

/** Why a request of a queue pair failed, if it was the last failure of the queue pair. */
export const explainRequest = (device: Device, qpn: number, wrId: bigint): string | undefined => {
  const failure = lastFailure(device, qpn)
  return failure?.wrId === wrId ? failureReason(failure) : undefined
}

/** Drivers that report failures of queue pairs call it when a queue pair is reset or destroyed. */
export const forgetFailure = (device: Device, qpn: number): void => {
  lastFailures.get(device)?.delete(qpn)
}

const keepFailure = (device: Device, qpn: number, failure: Failure): void => {
  const kept = lastFailures.get(device) ?? new Map<number, Failure>()
  lastFailures.set(device, kept)
  // What the program was told first: an event with the same cause does not replace the failed request.
  if (kept.get(qpn)?.cause !== failure.cause) kept.set(qpn, failure)
}

/**
 * Keeps the failure for `lastFailure`, and calls the handlers. An exception is counted and reported, not thrown: the
 * caller is in the middle of the device's work.
 */
export const reportFailure = (failure: Failure, device: Device, context: Context | undefined): void => {
  const { core } = device
  const { kind, qpn } = failure
  if (qpn !== undefined && KEPT.has(kind) && !isNote(failure)) keepFailure(device, qpn, failure)
  for (const handler of handlers.get(core) ?? []) attempt(core, () => handler(failure, device, context))
}
