/*
 * Identity of a soft device: GUID and GIDs, as Linux's rxe derives them from the MAC of the interface.
 *
 * The GUID is the EUI-64 of the MAC. GID 0 is the link-local address with this EUI-64. GID 1 is the device's address
 * (IPv4 as ::ffff:a.b.c.d). If the interface has no MAC (loopback), a locally administered MAC is derived from the
 * address, so that devices on 127.0.0.1 and 127.0.0.2 differ. The GUID stays when the MAC changes, and GID 0 follows.
 */

export interface Identity {
  /** EUI-64, 8 bytes. */
  readonly guid: Uint8Array
  /** 16 bytes each, in table order. */
  readonly gids: readonly Uint8Array[]
  /** The interface that has the address. */
  readonly interfaceName: string
  readonly interfaceIndex: number
}

/** The universal/local bit in the first byte of a MAC. */
const LOCALLY_ADMINISTERED = 0x02

/** 02:00 and the last four bytes of the address. */
const derivedMac = (address: Uint8Array): Uint8Array =>
  Uint8Array.of(LOCALLY_ADMINISTERED, 0, ...address.subarray(12, 16))

/** EUI-64 of a MAC as in IPv6 addresses (RFC 4291, appendix A). */
const eui64 = (mac: Uint8Array): Uint8Array =>
  Uint8Array.of(mac[0]! ^ LOCALLY_ADMINISTERED, mac[1]!, mac[2]!, 0xff, 0xfe, mac[3]!, mac[4]!, mac[5]!)

/** The link-local address with the EUI-64 of a MAC. */
export const defaultGid = (mac: Uint8Array): Uint8Array => {
  const gid = new Uint8Array(16)
  gid.set([0xfe, 0x80])
  gid.set(eui64(mac), 8)
  return gid
}

/**
 * `address`: 16 bytes, IPv4 as ::ffff:a.b.c.d. `networkInterface`: the interface that has the address; `mac` is all
 * zeros or undefined if the interface has none.
 */
export const identify = (
  address: Uint8Array,
  networkInterface: { readonly mac?: Uint8Array; readonly name: string; readonly index: number },
): Identity => {
  const { name, index } = networkInterface
  const mac = networkInterface.mac?.some(byte => byte !== 0) ? networkInterface.mac : derivedMac(address)
  return { guid: eui64(mac), gids: [defaultGid(mac), address.slice()], interfaceName: name, interfaceIndex: index }
}

/** The MAC of a device, from which its GUID was made. */
export const macOf = ({ guid }: Identity): Uint8Array =>
  Uint8Array.of(guid[0]! ^ LOCALLY_ADMINISTERED, guid[1]!, guid[2]!, guid[5]!, guid[6]!, guid[7]!)
