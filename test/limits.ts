/*
 * Limits that grow with the time that a start of a program takes on this machine at this moment. Tests have no others
 * (CONTRIBUTING.md); these are for what must be given up while its processes go on: a state that is polled for, and a
 * program that is expected to hang.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { setTimeout } from 'node:timers/promises'

/** What `node -e 0` takes on an idle machine, in milliseconds. */
const USUAL = 40
/** A measurement holds for so long, in milliseconds. */
const VALID = 10_000
/** Between two polls, in milliseconds: a loop without a pause would take the processor from what it waits for. */
const PAUSE = 2

let measured = { at: Number.NEGATIVE_INFINITY, factor: 1 }

/** `limit`, rounded up, times how much longer than usual a start takes now. */
export const scaled = (limit: number): number => {
  const begin = performance.now()
  if (begin > measured.at + VALID) {
    spawnSync(process.execPath, ['-e', '0'], { env: {} })
    const at = performance.now()
    measured = { at, factor: Math.max(1, (at - begin) / USUAL) }
  }
  return Math.ceil(limit * measured.factor)
}

/** Whether `isReached` becomes true within the scaled limit of `seconds`. */
export const becomes = async (isReached: () => boolean | Promise<boolean>, seconds: number): Promise<boolean> => {
  const begin = performance.now()
  while (!(await isReached())) {
    const passed = performance.now() - begin
    // Only who is late measures.
    if (passed > 1000 * seconds && passed > scaled(1000 * seconds)) return false
    await setTimeout(PAUSE)
  }
  return true
}

/** Waits until `isReached`, for the scaled limit of `seconds`; then fails with `text`. */
export const until = async (
  isReached: () => boolean | Promise<boolean>,
  text = () => `it does not become true: ${isReached}`,
  seconds = 10,
): Promise<void> => assert.ok(await becomes(isReached, seconds), text())
