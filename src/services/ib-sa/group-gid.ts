/*
 * The GID of an IP multicast group on InfiniBand (RFC 4391, section 4; Linux: ip_ib_mc_map, ipv6_ib_mc_map,
 * cma_set_mgid).
 */
import { isMappedIpv4, mappedIpv4 } from '../../transport/wire/address.ts'

/** Bytes 2 and 3: which kind of address the GID is made of. */
const Signature = { IPV4: 0x401b, IPV6: 0x601b } as const
/** The lower byte of the signature of groups of rdma_cm's datagrams. */
const RDMA_CM_SIGNATURE = 0x01
const LINK_LOCAL_SCOPE = 0x12

/** `address`: 16 bytes, IPv4 as ::ffff:a.b.c.d. `ofRdmaCm`: not the group of IP over InfiniBand. */
export const groupGid = (address: Uint8Array, pkey: number, ofRdmaCm = false): Uint8Array => {
  const gid = new Uint8Array(16)
  const view = new DataView(gid.buffer)
  const isIpv4 = isMappedIpv4(address)
  view.setUint16(0, 0xff00 | LINK_LOCAL_SCOPE)
  view.setUint16(2, isIpv4 ? Signature.IPV4 : Signature.IPV6)
  if (ofRdmaCm) gid[3] = RDMA_CM_SIGNATURE
  view.setUint16(4, pkey)
  gid.set(isIpv4 ? address.subarray(12) : address.subarray(6), isIpv4 ? 12 : 6)
  if (isIpv4) gid[12]! &= 0x0f
  return gid
}

/** The group of IP's broadcasts. */
export const broadcastGid = (pkey: number): Uint8Array => {
  const gid = groupGid(mappedIpv4(new Uint8Array(4), 0), pkey)
  gid.fill(0xff, 12)
  return gid
}

/** An IPv6 address that is a GID which the subnet administrator has given: ff1S:a01b::/32. */
export const isGivenGid = (address: Uint8Array): boolean =>
  address[0] === 0xff && (address[1]! & 0xf0) === 0x10 && address[2] === 0xa0 && address[3] === 0x1b
