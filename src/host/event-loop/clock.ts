/*
 * The clock of this process for timers and time stamps.
 *
 * performance.now() is CLOCK_MONOTONIC as a double, since the start of the process. It allocates nothing and was the
 * cheapest of the measured clocks: 44 ns (clock_gettime through koffi 62).
 */
/** A copy of the global, which is a slower accessor. */
const source = performance

/** Microseconds since the process started, with fractions. Never goes back. */
export const nowMicroseconds = (): number => source.now() * 1000

/** The longest delay of setTimeout and setInterval, milliseconds. A longer delay would fire at once. */
export const MAX_TIMER_DELAY = 2 ** 31 - 1

/**
 * Fulfilled after at least so many milliseconds. A timer of Node counts whole milliseconds of its clock, so it may fire
 * up to one early. `keepsRunning`: whether the wait keeps the process alive.
 */
export const waitAtLeast = async (milliseconds: number, keepsRunning: boolean): Promise<void> => {
  const end = source.now() + milliseconds
  for (let left = milliseconds; left > 0; left = end - source.now())
    await new Promise<void>(resolve => {
      const timer = setTimeout(resolve, Math.ceil(left))
      if (!keepsRunning) timer.unref()
    })
}
