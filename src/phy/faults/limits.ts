/*
 * Limits of reordering, and the bytes of headers that a rate limit counts; the fault layer uses them for sending and
 * receiving.
 */

import { isMappedIpv4 } from '../../wire/address.ts'
import { IPV4_BYTES, IPV6_BYTES } from '../../wire/ip.ts'
import type { FlowAddress } from '../port.ts'

/** A reordered packet leaves when a random number of others, 1 to this many, have overtaken it. */
export const MAX_REORDER_DISTANCE = 8
/**
 * Microseconds after which a reordered packet leaves even if fewer have overtaken it; if it is delayed too, they are
 * added to its delay.
 */
export const MAX_REORDER_DELAY = 1000

const UDP_BYTES = 8

/** Bytes of the IP and UDP headers; a rate limit counts them too. */
export const ipUdpHeaderBytes = ({ source }: FlowAddress): number =>
  UDP_BYTES + (isMappedIpv4(source) ? IPV4_BYTES : IPV6_BYTES)
