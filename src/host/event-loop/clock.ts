/*
 * The clock of this process for timers and time stamps, and the limit of Node's timers.
 *
 * performance.now() is CLOCK_MONOTONIC as a double, without allocation, BigInt or koffi, at 44 ns a call the cheapest
 * of those measured (process.hrtime() 50, clock_gettime through koffi 62, process.hrtime.bigint() 63). It counts from
 * the start of the process: do not compare values of two processes.
 */
const source = performance

/** Microseconds since the process started, with fractions; never goes back. */
export const nowMicroseconds = (): number => source.now() * 1000

/** The longest delay of setTimeout and setInterval in milliseconds; a longer one would fire at once. */
export const MAX_TIMER_DELAY = 2 ** 31 - 1
