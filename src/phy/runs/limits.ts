/*
 * How large a run of our ports may be, and the checks of what a sender does with room that was reserved for it: our own
 * mistakes, so they throw. Knows nothing of where runs go. Called once per run, so nothing is allocated unless it
 * throws.
 */

/**
 * The largest run: 64 packets of path MTU 4096, or 990 of path MTU 256. Every run costs system calls at both ends, and
 * the larger it is the less that counts (measured for 1 MiB between two processes: 64 KiB at a time 0.77 of what one
 * piece takes, 128 KiB 0.88, 256 KiB 0.93); beyond that it would leave the processor's second-level cache.
 */
export const RUN_BYTES = 270336
export const RUN_PACKETS = 1024
/** BTH and ICRC. */
export const SHORTEST_PACKET = 16

/** RangeError if `bytes` are more than a run has. */
export const requireRunBytes = (bytes: number): void => {
  if (bytes > RUN_BYTES) throw new RangeError(`a run has at most ${RUN_BYTES} bytes, not ${bytes}`)
}

/**
 * Checks a run of `count` packets of `size` bytes, the last of `last`, at `offset`: it lies in the room from `begin` to
 * `end`, -1 if none was reserved. Answers where it ends. Error, or RangeError.
 */
export const requireRun = (
  offset: number,
  size: number,
  count: number,
  last: number,
  begin: number,
  end: number,
): number => {
  if (end < 0) throw new Error('commit without reserve')
  const runEnd = offset + (count - 1) * size + last
  if (count < 1 || count > RUN_PACKETS || last < SHORTEST_PACKET || last > size || offset < begin || runEnd > end)
    throw new RangeError(
      `a run of ${count} packets of ${size} bytes, the last of ${last}, at ${offset} does not fit the room reserved`,
    )
  return runEnd
}
