/*
 * Limits of reordering, and the bytes of a packet that a rate limit counts; both halves of a fault layer use them.
 */

import { isMappedIpv4 } from '../../wire/address.ts'
import { IPV4_BYTES, IPV6_BYTES } from '../../wire/ip.ts'
import type { FlowAddress } from '../port.ts'

/** Maximum number of packets that pass a reordered one. */
export const MAX_REORDER_DISTANCE = 8
/** Microseconds after which a reordered packet leaves even if fewer packets than chosen have passed it. */
export const MAX_REORDER_DELAY = 1000

const UDP_BYTES = 8

/** Bytes of the headers before a UDP payload; a rate limit counts them too. */
export const ipBytes = ({ source }: FlowAddress): number => UDP_BYTES + (isMappedIpv4(source) ? IPV4_BYTES : IPV6_BYTES)
