/*
 * Whether an address is in another subnet than one of this host: by the netmask of the interface that has it.
 */
import { networkInterfaces } from 'node:os'
import {
  addressText,
  isLinkLocal,
  isLoopbackIpv4,
  isMappedIpv4,
  isSameAddress,
  parseAddress,
  subnetAddress,
} from '../../transport/wire/address.ts'

/** Whether two addresses are in one subnet. `prefix`: bits of the addresses of `own`. */
const areTogether = (own: Uint8Array, address: Uint8Array, prefix: number): boolean =>
  isMappedIpv4(own) === isMappedIpv4(address) &&
  isSameAddress(subnetAddress(own, prefix), subnetAddress(address, prefix))

/**
 * Why it is; undefined: it is not, it is an address of this host, or no interface has the address `own`. Addresses: 16
 * bytes.
 */
export const otherSubnet = (own: Uint8Array, address: Uint8Array): string | undefined => {
  if (isLinkLocal(own) || isLinkLocal(address) || isLoopbackIpv4(address)) return undefined
  let subnet: string | undefined
  for (const { address: text, cidr } of Object.values(networkInterfaces()).flatMap(infos => infos ?? [])) {
    const prefix = Number(cidr?.split('/', 2)[1] ?? Number.NaN)
    const found = parseAddress(text.split('%', 1)[0]!)
    if (found === undefined || Number.isNaN(prefix)) continue
    if (isSameAddress(found, address)) return undefined
    if (!isSameAddress(found, own)) continue
    if (areTogether(own, address, prefix)) return undefined
    subnet = `${cidr}`
  }
  return subnet && `${addressText(address)} is in another subnet than ${subnet}`
}
