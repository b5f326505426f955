/*
 * Calls whose failure must not stop what follows: callbacks of clients, destroys by core itself, the steps of a
 * device's removal. An exception is counted and reported (`Core.report`).
 */
import type { Core } from './model.ts'

export const noteFault = (core: Core, error: unknown): void => {
  core.faults++
  core.report(error)
}

/** Runs `body`; an exception is reported. */
export const attempt = (core: Core, body: () => void): void => {
  try {
    body()
  } catch (error) {
    noteFault(core, error)
  }
}
