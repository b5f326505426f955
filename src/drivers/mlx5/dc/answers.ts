/*
 * The dynamically connected transport between our devices (docs/decisions/dc.md): statuses of answers, times and
 * limits.
 */

/** Statuses of a target's answer. ACCEPTED: the connection has a responder. BUSY: try again. */
export const DcStatus = { ACCEPTED: 0, BUSY: 1, ACCESS_KEY: 2 } as const

/** Times in microseconds. */
export const DcTime = {
  /** Until the first repetition of a CONNECT; each is twice as long as the one before, up to RETRY_MAX. */
  RETRY: 4_000,
  RETRY_MAX: 256_000,
  /** A CONNECT is given up after the time of all retries of the queue pair, but not before this. */
  GIVE_UP_MIN: 64_000,
  /** After BUSY, as RETRY. */
  BUSY: 1_000,
  BUSY_MAX: 64_000,
  /** An initiator that has sent nothing for one to two of these disconnects. */
  IDLE: 100_000,
  /** From KEEP to KEEP of a connection in use, and until a target ends one of which it has heard nothing. */
  KEEP: 10_000_000,
  SILENCE: 60_000_000,
  /** From one look at all connections of targets to the next. */
  REAP: 1_000_000,
} as const

/**
 * Streams of an initiator, log2: those that exist at a time, and those in error that it tolerates (mlx5dv_dci_streams).
 */
export const MAX_LOG_STREAMS = { concurrent: 6, errored: 6 } as const

/** Connections of a target, and of a device. */
export const DC_MAX_CONNECTIONS = { target: 4096, device: 16384 } as const
