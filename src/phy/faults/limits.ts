/*
 * Limits that both halves of a fault layer share: how far packets are reordered, which bytes a rate counts.
 */
import { isMappedIpv4 } from '../../wire/address.ts'
import type { FlowAddress } from '../port.ts'

/** Maximum packets that pass a reordered one. */
export const MAX_REORDER_DISTANCE = 8
/** Microseconds after which a reordered packet leaves although fewer have passed it. */
export const REORDER_PATIENCE = 1000

const UDP_BYTES = 8
const IPV4_BYTES = 20
const IPV6_BYTES = 40

/** Bytes of the headers around a UDP payload; a limited rate counts them too. */
export const ipBytes = ({ source }: FlowAddress): number => UDP_BYTES + (isMappedIpv4(source) ? IPV4_BYTES : IPV6_BYTES)
