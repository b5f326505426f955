/*
 * Contains the daemon's own bugs. An exception in a callback of the event loop is logged with its stack, and ends at
 * most the session, device, socket or call that was served. A fault that repeats is logged the 1st, 2nd, 4th, 8th …
 * time, so that the log cannot fill a disk.
 */

export interface Containment {
  /** Number of faults since the start. */
  readonly count: number
  /** Logs a fault. `where` names the work in a few words; repetitions are counted for each `where`. */
  report(where: string, error: unknown): void
  /**
   * Wraps `body` in a callback that never throws. If `body` throws, the fault is logged, and `onFailure` runs; its
   * exceptions are logged too.
   */
  guard<A extends readonly unknown[]>(
    where: string,
    body: (...args: A) => void,
    onFailure?: () => void,
  ): (...args: A) => void
  /** Runs all steps, even if some throw; faults are logged. */
  runAll(where: string, steps: readonly (() => void)[]): void
}

export const createContainment = (log: (...words: unknown[]) => void = console.error): Containment => {
  let count = 0
  const counts = new Map<string, number>()
  const report = (where: string, error: unknown): void => {
    count++
    const times = (counts.get(where) ?? 0) + 1
    counts.set(where, times)
    const isPowerOfTwo = (times & (times - 1)) === 0
    if (!isPowerOfTwo) return
    log(`userdma daemon: an internal error in ${where}${times > 1 ? `, ${times} times so far` : ''}:`, error)
  }
  const attempt = (where: string, body: () => void): boolean => {
    try {
      body()
      return true
    } catch (error) {
      report(where, error)
      return false
    }
  }
  return {
    get count() {
      return count
    },
    report,
    guard(where, body, onFailure) {
      return (...args) => {
        if (!attempt(where, () => body(...args))) attempt(where, () => onFailure?.())
      }
    },
    runAll(where, steps) {
      for (const step of steps) attempt(where, step)
    },
  }
}
