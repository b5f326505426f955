/*
 * Arithmetic of packet sequence numbers: 24 bits, wrapping, compared by halves (InfiniBand Architecture Specification,
 * volume 1, clause 9.7.2). A requester has at most 2^23 PSNs outstanding, so the responder can tell duplicates from
 * PSNs that are ahead of the expected one.
 */

export const PSN_MASK = 0xff_ffff

/** Maximum outstanding PSNs. */
export const PSN_HALF = 0x80_0000

export const psnAdd = (psn: number, count: number): number => (psn + count) & PSN_MASK

/** How far `to` is ahead of `from`: 0 to 2^24-1. */
export const psnDistance = (from: number, to: number): number => (to - from) & PSN_MASK

export { psnDifference } from '../wire/bth.ts'
