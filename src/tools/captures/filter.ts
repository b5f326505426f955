/*
 * Which packets of a capture are of interest: hosts, queue pairs, time.
 */
import { addressKey } from '../../transport/wire/address.ts'
import type { AddressTable } from './addresses.ts'
import type { Located } from './located.ts'

export interface CaptureFilter {
  /** 16 bytes each: packets from or to one of these addresses. */
  readonly hosts?: readonly Uint8Array[]
  /** Packets to one of these queue pairs. */
  readonly qpns?: readonly number[]
  /** Nanoseconds since the first packet. */
  readonly from?: number
  readonly to?: number
}

export const matchesFilter = (
  { hosts, qpns, from, to }: CaptureFilter,
  addresses: AddressTable,
  { source, destination }: Located,
  qpn: number,
  time: number,
): boolean => {
  if (from !== undefined && time < from) return false
  if (to !== undefined && time > to) return false
  // Queue pair 1 carries the connection manager's messages, which explain the others.
  if (qpns !== undefined && qpn !== 1 && !qpns.includes(qpn)) return false
  if (hosts === undefined) return true
  const keys = hosts.map(addressKey)
  return keys.includes(addressKey(addresses.bytes(source))) || keys.includes(addressKey(addresses.bytes(destination)))
}
