/*
 * Limits of runs of packets (transport/phy/port.ts), and checks. A violation is a bug, so it throws.
 */

/**
 * Maximum bytes of a run: 65 packets with path MTU 4096, or about 990 with path MTU 256. Long runs save system calls,
 * but a run that does not fit in the L2 cache is slow.
 */
export const RUN_BYTES = 270336
/** Maximum packets of a run. */
export const RUN_PACKETS = 1024
/** Bytes of the shortest packet: BTH and ICRC. */
export const SHORTEST_PACKET = 16

export const requireRunBytes = (bytes: number): void => {
  if (bytes > RUN_BYTES) throw new RangeError(`a run has at most ${RUN_BYTES} bytes, not ${bytes}`)
}

/**
 * Checks a run of `count` packets of `packetBytes` bytes, the last of `lastBytes`, at `offset`. It must be inside the
 * unused part of the reservation, from `unusedBegin` to `reservationEnd`. Returns the end of the run. Throws a
 * RangeError for a wrong run, and an Error without a reservation (`reservationEnd` is -1).
 */
export const requireRun = (
  offset: number,
  packetBytes: number,
  count: number,
  lastBytes: number,
  unusedBegin: number,
  reservationEnd: number,
): number => {
  if (reservationEnd < 0) throw new Error('commit without reserve')
  if (count < 1 || count > RUN_PACKETS || lastBytes < SHORTEST_PACKET || lastBytes > packetBytes)
    throw new RangeError(
      `a run of ${count} packets of ${packetBytes} bytes, the last of ${lastBytes}: there must be 1 to ${RUN_PACKETS} packets, and the last must have ${SHORTEST_PACKET} bytes or more, but not more than the others`,
    )
  const runEnd = offset + (count - 1) * packetBytes + lastBytes
  if (offset < unusedBegin || runEnd > reservationEnd)
    throw new RangeError(
      `a run at [${offset}, ${runEnd}) is not inside the unused part of the reservation, [${unusedBegin}, ${reservationEnd})`,
    )
  return runEnd
}
