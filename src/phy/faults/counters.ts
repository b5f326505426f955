/*
 * What both halves of a fault layer share: what they count, how far packets are reordered, what a rate counts.
 */
import { isMappedIpv4 } from '../../wire/address.ts'
import type { FlowAddress } from '../port.ts'

/** Packets of one device, by what happened to them. */
export interface FaultCounters {
  dropped: number
  duplicated: number
  reordered: number
  corrupted: number
  delayed: number
  /** Packets to be held back that were lost because too many were. */
  overflowed: number
}

export const noFaultCounts = (): FaultCounters => ({
  dropped: 0,
  duplicated: 0,
  reordered: 0,
  corrupted: 0,
  delayed: 0,
  overflowed: 0,
})

/** Packets that pass a reordered one at most. */
export const MAX_REORDER_DISTANCE = 8
/** Microseconds after which a reordered packet goes on although fewer have passed it. */
export const REORDER_PATIENCE = 1000

const UDP_BYTES = 8
const IPV4_BYTES = 20
const IPV6_BYTES = 40

/** Bytes of the headers around a UDP payload; a limited rate counts them too. */
export const ipBytes = ({ source }: FlowAddress): number => UDP_BYTES + (isMappedIpv4(source) ? IPV4_BYTES : IPV6_BYTES)
