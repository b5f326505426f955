/*
 * Limits of runs, and checks of committed runs. A violation is our own mistake, so it throws. Called once per run.
 */

/**
 * The largest run: 64 packets of path MTU 4096, or 990 of path MTU 256. Every run costs system calls at both ends,
 * which count less in larger ones (measured for 1 MiB between two processes: 64 KiB at a time 0.77 of the speed of one
 * run, 128 KiB 0.88, 256 KiB 0.93); beyond that it would leave the L2 cache.
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
 * Checks a run of `count` packets of `size` bytes, the last of `last`, at `offset`: it lies in the reservation from
 * `begin` to `end`, -1 if there is none. Returns where it ends. Throws Error, or RangeError.
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
