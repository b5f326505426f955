/*
 * What must not stop what comes after it: callbacks of clients, destroys that core does by itself, the steps of a
 * device's removal. A throw is counted and reported (`Core.report`), and goes no further.
 */
import type { Core } from './model.ts'

export const noteFault = (core: Core, error: unknown): void => {
  core.faults++
  core.report(error)
}

/** Runs `body`; its throw is noted. */
export const attempt = (core: Core, body: () => void): void => {
  try {
    body()
  } catch (error) {
    noteFault(core, error)
  }
}
