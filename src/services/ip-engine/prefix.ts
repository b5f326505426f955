/*
 * The address of an interface and the prefix of its link. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d.
 */
import {
  addressText,
  isLoopbackIpv4,
  isMappedIpv4,
  isMulticastGid,
  isSameAddress,
} from '../../transport/wire/address.ts'
import { IpError } from './error.ts'

const LIMITED_BROADCAST = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 255, 255, 255, 255)

/** 0.0.0.0 or ::. */
export const isUnspecified = (address: Uint8Array): boolean =>
  address.subarray(isMappedIpv4(address) ? 12 : 0).every(byte => byte === 0)

const isLoopback = (address: Uint8Array): boolean =>
  isLoopbackIpv4(address) || (address[15] === 1 && address.subarray(0, 15).every(byte => byte === 0))

export class Prefix {
  readonly address: Uint8Array
  /** Bits: 1 to 32 for IPv4, 1 to 128 for IPv6. */
  readonly length: number
  readonly isIpv4: boolean

  /** Throws IpError EINVAL. */
  constructor(address: Uint8Array, length: number) {
    this.address = address
    this.length = length
    this.isIpv4 = isMappedIpv4(address)
    const bits = this.isIpv4 ? 32 : 128
    if (!(length >= 1 && length <= bits)) throw new IpError('EINVAL', `prefix length ${length} is not in 1 to ${bits}`)
    if (isMulticastGid(address) || isUnspecified(address) || isLoopback(address) || this.isBroadcast(address))
      throw new IpError('EINVAL', `${addressText(address)} is not the address of a host on a link`)
  }

  get text(): string {
    return `${addressText(this.address)}/${this.length}`
  }

  isOwn(address: Uint8Array): boolean {
    return isSameAddress(address, this.address)
  }

  includes(address: Uint8Array): boolean {
    if (isMappedIpv4(address) !== this.isIpv4) return false
    const bits = this.length + (this.isIpv4 ? 96 : 0)
    const wholeBytes = bits >> 3
    for (let i = 0; i < wholeBytes; i++) if (address[i] !== this.address[i]) return false
    if (bits % 8 === 0) return true
    const hostBits = 8 - (bits % 8)
    return address[wholeBytes]! >> hostBits === this.address[wholeBytes]! >> hostBits
  }

  /** 255.255.255.255, or the last address of the prefix (RFC 919, RFC 922). */
  isBroadcast(address: Uint8Array): boolean {
    if (!this.isIpv4) return false
    if (isSameAddress(address, LIMITED_BROADCAST)) return true
    // All addresses of a /32 and of a /31 (RFC 3021) are hosts.
    if (this.length > 30 || !this.includes(address)) return false
    const hostMask = 2 ** (32 - this.length) - 1
    return (new DataView(address.buffer, address.byteOffset).getUint32(12) & hostMask) >>> 0 === hostMask
  }

  /** Whether an address is the address of another host on the link. */
  isNeighbour(address: Uint8Array): boolean {
    const isHost = !isMulticastGid(address) && !isUnspecified(address) && !this.isBroadcast(address)
    return isHost && this.includes(address) && !this.isOwn(address)
  }
}
