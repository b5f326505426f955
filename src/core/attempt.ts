/*
 * Runs code whose failure must not stop its caller: callbacks of clients, destroy handlers that core itself calls,
 * steps of a removal. An exception is counted and reported (`Core.report`).
 */
import type { Core } from './model.ts'

/** Counts and reports a caught exception. */
export const noteFault = (core: Core, error: unknown): void => {
  core.faults++
  core.report(error)
}

/** Runs `body`; an exception is reported, and the result is undefined. */
export const attempt = <T>(core: Core, body: () => T): T | undefined => {
  try {
    return body()
  } catch (error) {
    noteFault(core, error)
    return undefined
  }
}

/** Runs the steps of `job`; an exception is reported and ends the job. */
export function* attemptSteps(core: Core, job: () => Iterable<unknown> | undefined): Generator<unknown, void> {
  try {
    yield* job() ?? []
  } catch (error) {
    noteFault(core, error)
  }
}
