/*
 * The checksums of the outer headers of a frame: of the IPv4 header, and of TCP or UDP (RFC 791, 8200, 768, 9293). An
 * adapter computes them for programs that ask it to, and tells receivers which are right.
 */
import { IpProtocol } from '../../spec/wire/ethernet.ts'
import type { Arena } from './arena.ts'
import type { FrameKey } from './flow-key.ts'
import { internetChecksum } from './ip.ts'

const CHECKSUM_OF_IPV4 = 10
const CHECKSUM_OF_TCP = 16
const CHECKSUM_OF_UDP = 6

const ipHeaderBytes = ({ ip }: FrameKey, view: DataView): number => (view.getUint8(ip) & 15) * 4

/** The sum of the 16-bit words of the pseudo-header, with which the checksum of layer 4 begins. */
const pseudoSum = ({ ip, l4, end, protocol, isIpv4 }: FrameKey, view: DataView): number => {
  const stop = isIpv4 ? ip + 20 : ip + 40
  let sum = protocol + (end - l4)
  for (let at = isIpv4 ? ip + 12 : ip + 8; at < stop; at += 2) sum += view.getUint16(at)
  return sum
}

const checksumAt = ({ l4, protocol }: FrameKey): number =>
  l4 + (protocol === IpProtocol.TCP ? CHECKSUM_OF_TCP : CHECKSUM_OF_UDP)

/** Whether the frame has an IP header without a wrong checksum; IPv6 has none. */
export const isL3Ok = (key: FrameKey, { view }: Arena): boolean =>
  key.ip >= 0 && (!key.isIpv4 || internetChecksum(view, key.ip, ipHeaderBytes(key, view)) === 0)

/** Whether the frame is a whole TCP or UDP datagram with the right checksum. UDP over IPv4 may have none (0). */
export const isL4Ok = (key: FrameKey, { view }: Arena): boolean => {
  const { l4, end, protocol, isIpv4, isFragment } = key
  if (l4 < 0 || isFragment) return false
  if (protocol === IpProtocol.UDP && view.getUint16(checksumAt(key)) === 0) return isIpv4
  return internetChecksum(view, l4, end - l4, pseudoSum(key, view)) === 0
}

/** Writes the checksum of the IPv4 header. */
export const putL3 = (key: FrameKey, { view }: Arena): void => {
  const { ip, isIpv4 } = key
  if (ip < 0 || !isIpv4) return
  view.setUint16(ip + CHECKSUM_OF_IPV4, 0)
  view.setUint16(ip + CHECKSUM_OF_IPV4, internetChecksum(view, ip, ipHeaderBytes(key, view)))
}

/** Writes the checksum of TCP or UDP. No effect on fragments. */
export const putL4 = (key: FrameKey, { view }: Arena): void => {
  const { l4, end, protocol, isFragment } = key
  if (l4 < 0 || isFragment) return
  const at = checksumAt(key)
  view.setUint16(at, 0)
  const checksum = internetChecksum(view, l4, end - l4, pseudoSum(key, view))
  // in UDP, 0 means that there is no checksum
  view.setUint16(at, protocol === IpProtocol.UDP && checksum === 0 ? 0xffff : checksum)
}
