/* Limits of reordering, and the header bytes that a rate limit counts. */

import { isMappedIpv4 } from '../../wire/address.ts'
import { GRH_BYTES, IPV4_BYTES, IPV6_BYTES, UDP_BYTES } from '../../wire/ip.ts'
import { hasLids, LOCAL_AND_GLOBAL_BYTES, LRH_BYTES } from '../../wire/lrh.ts'
import type { FlowAddress } from '../port.ts'

/**
 * A reordered packet leaves when a random number of packets, 1 to this many, have overtaken it. A reordered packet that
 * the device sends leaves at the next `flush` after that.
 */
export const MAX_REORDER_DISTANCE = 8
/** µs after which a reordered packet leaves anyway. If the packet is also delayed, this is added to its delay. */
export const MAX_REORDER_DELAY = 1000

/** Bytes of the headers before the BTH of each packet of the flow: IP and UDP, GRH, or LRH and GRH. */
export const headerBytesOf = (flow: FlowAddress): number => {
  if (hasLids(flow)) return flow.grh === undefined ? LRH_BYTES : LOCAL_AND_GLOBAL_BYTES
  if (flow.grh !== undefined) return GRH_BYTES
  return UDP_BYTES + (isMappedIpv4(flow.source) ? IPV4_BYTES : IPV6_BYTES)
}
