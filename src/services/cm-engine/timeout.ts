/*
 * Timeouts of the connection manager: exponents of 5 bits, where n means 4.096 µs × 2^n.
 */

import { timerFactor } from '../../spec/work.ts'

/** Microseconds of an exponent (0 to 31). */
export const fromExponent = (exponent: number): number => 4.096 * 2 ** exponent * timerFactor

/**
 * The ACK timeout: twice the packet life time of the path, plus the acknowledger's ACK delay (clause 12.7.34).
 * Arguments and result are exponents.
 */
export const ackTimeout = (ackDelay: number, packetLifeTime: number): number => {
  // Twice the time is the exponent plus 1.
  const roundTrip = packetLifeTime + 1
  // As Linux's cm_ack_timeout: a sum of similar exponents is the larger exponent plus 1.
  const sum = Math.max(roundTrip, ackDelay) + (Math.abs(roundTrip - ackDelay) <= 1 ? 1 : 0)
  return Math.min(31, sum)
}
