/*
 * The head of the page of a clock that skips (`--clock skip`): a file of the daemon, which all programs of the session
 * map (shim/clock/clock.h has the rest). Offsets and sizes in bytes. shim/protocol.h is generated from this file too.
 */

/**
 * MAGIC: the value of the first word. `offset`: nanoseconds that were skipped, 64 bits; `jumped`: those by `jumps`, the
 * others by spinning. `jumps`: 64 bits. `begin`: the machine's CLOCK_MONOTONIC when the clock began, nanoseconds, 64
 * bits. `reasons`: how many of the `maxReasons` texts, from `firstReason` on, say what is not covered; each ends with a
 * 0. From `firstKept` on, `maxReasons` times: how many nanoseconds, 64 bits, something kept real time, and a text that
 * says what. `stuck`: 0: something runs, or has a deadline; else all threads wait, and `terminal`: one for a terminal;
 * `world`: one for what comes from outside of the session, such as a signal or a connection, and none for a terminal;
 * `nothing`: all for each other. `tellsCounters`: not 0: programs add to the reasons which of their files read the
 * processor's counter.
 */
export const ClockPage = {
  magic: 0x75_63_6c_31,
  offset: 8,
  jumps: 16,
  begin: 24,
  reasons: 32,
  stuck: 64,
  jumped: 72,
  terminal: 1,
  world: 2,
  nothing: 3,
  firstReason: 80,
  reasonBytes: 112,
  maxReasons: 16,
  firstKept: 1872,
  keptBytes: 120,
  tellsCounters: 3792,
  /** Of the page's path, behind that of the daemon's socket. */
  suffix: '.clock',
} as const

/** The page of the daemon at this socket. */
export const clockPageOf = (socket: string): string => `${socket}${ClockPage.suffix}`
