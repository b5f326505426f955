/*
 * Whether an address is in another subnet than one of this host: by the netmask of the interface that has it.
 */
import { networkInterfaces } from 'node:os'
import { addressText, isLinkLocal, isLoopbackIpv4, isSameAddress, parseAddress } from '../../transport/wire/address.ts'

/** Bits before an IPv4 address as ::ffff:a.b.c.d. */
const MAPPED_BITS = 96

const inPrefix = (address: Uint8Array, prefix: Uint8Array, bits: number): boolean =>
  prefix.every((byte, i) => {
    const mask = (0xff00 >> Math.min(8, Math.max(0, bits - 8 * i))) & 0xff
    return ((byte ^ address[i]!) & mask) === 0
  })

/**
 * Why it is; undefined: it is not, it is an address of this host, or no interface has the address `own`. Addresses: 16
 * bytes.
 */
export const otherSubnet = (own: Uint8Array, address: Uint8Array): string | undefined => {
  if (isLinkLocal(own) || isLinkLocal(address) || isLoopbackIpv4(address)) return undefined
  let subnet: string | undefined
  for (const { address: text, cidr, family } of Object.values(networkInterfaces()).flatMap(infos => infos ?? [])) {
    const bits = Number(cidr?.split('/', 2)[1] ?? Number.NaN)
    const found = parseAddress(text.split('%', 1)[0]!)
    if (found === undefined || Number.isNaN(bits)) continue
    if (isSameAddress(found, address)) return undefined
    if (!isSameAddress(found, own)) continue
    if (inPrefix(address, own, bits + (family === 'IPv4' ? MAPPED_BITS : 0))) return undefined
    subnet = `${cidr}`
  }
  return subnet && `${addressText(address)} is in another subnet than ${subnet}`
}
