/*
 * Timeouts of the connection manager. IBA encodes them as exponents of 5 bits: n means 4.096 µs × 2^n. Times are
 * microseconds.
 */

/** Microseconds of an exponent (0 to 31). */
export const fromExponent = (exponent: number): number => 4.096 * 2 ** exponent

/**
 * The exponent of an ACK timeout: twice the packet life time of the path, plus the ACK delay of the end that
 * acknowledges (clause 12.7.34). All are exponents.
 */
export const ackTimeout = (ackDelay: number, packetLifeTime: number): number => {
  const roundTrip = packetLifeTime + 1
  // As Linux's cm_ack_timeout: the larger exponent, plus 1 unless the other one is more than 1 smaller.
  const sum = Math.max(roundTrip, ackDelay) + (Math.abs(roundTrip - ackDelay) <= 1 ? 1 : 0)
  return Math.min(31, sum)
}
