/*
 * Converts between Linux's struct sockaddr_in, sockaddr_in6 and sockaddr_ib (GID and service id), and one record for
 * all three. IPv4 addresses are ::ffff:a.b.c.d, as in GIDs of RoCE.
 */
import { ADDRESS_BYTES, SOCKADDR_BYTES, type SocketAddress } from '../spec/classes/connections/cm_parameters.ts'
import { copyOfBytes } from '../spec/memory.ts'
import { isMappedIpv4, mappedIpv4 } from '../transport/wire/address.ts'

/** Linux's AF_INET, AF_INET6 and AF_IB. */
export const Family = { INET: 2, INET6: 10, IB: 27 } as const

/** Bytes of the family's struct; 0 for an unknown family. */
export const addressSize = ({ family }: SocketAddress): number => SOCKADDR_BYTES[family] ?? 0

/** Literals that begin with a key: on Node 20 a key that follows a leading spread takes 0.7 µs. */
const noExtras = { flowInfo: 0, scope: 0, pkey: 0, serviceId: 0n, serviceMask: 0n }

/** An IPv4 or IPv6 address. `address`: 16 bytes, IPv4 as ::ffff:a.b.c.d. */
export const ipAddress = (address: Uint8Array, port: number, scope = 0): SocketAddress => ({
  family: isMappedIpv4(address) ? Family.INET : Family.INET6,
  ...noExtras,
  address,
  port,
  scope,
})

const noIpv4 = mappedIpv4(new Uint8Array(4), 0)
const noIpv6 = new Uint8Array(16)

/** The zero address of a family. */
export const anyAddress = (family: number): SocketAddress => ({
  family,
  ...noExtras,
  port: 0,
  address: family === Family.INET ? noIpv4 : noIpv6,
})

/**
 * Parses one of the three structs; undefined for another family. Family and scope are little-endian, other numbers
 * big-endian. `bytes`: at least as many as the struct.
 */
export const parseAddress = (bytes: Uint8Array): SocketAddress | undefined => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const family = view.getUint16(0, true)
  if (family === Family.INET) return { family, ...noExtras, port: view.getUint16(2), address: mappedIpv4(bytes, 4) }
  if (family === Family.INET6) {
    const address = copyOfBytes(bytes.subarray(8, 24))
    return {
      family,
      ...noExtras,
      port: view.getUint16(2),
      address,
      flowInfo: view.getUint32(4),
      scope: view.getUint32(24, true),
    }
  }
  if (family !== Family.IB) return undefined
  const serviceId = view.getBigUint64(24)
  return {
    family,
    ...noExtras,
    port: Number(serviceId & 0xffffn),
    address: copyOfBytes(bytes.subarray(8, 24)),
    pkey: view.getUint16(2),
    flowInfo: view.getUint32(4),
    serviceId,
    serviceMask: view.getBigUint64(32),
  }
}

/** The inverse of `parseAddress`, as a struct sockaddr_storage. */
export const emitAddress = (socketAddress: SocketAddress): Uint8Array => {
  const bytes = new Uint8Array(ADDRESS_BYTES)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, socketAddress.family, true)
  if (socketAddress.family === Family.INET) {
    view.setUint16(2, socketAddress.port)
    bytes.set(socketAddress.address.subarray(12), 4)
  } else if (socketAddress.family === Family.INET6) {
    view.setUint16(2, socketAddress.port)
    view.setUint32(4, socketAddress.flowInfo)
    bytes.set(socketAddress.address, 8)
    view.setUint32(24, socketAddress.scope, true)
  } else {
    view.setUint16(2, socketAddress.pkey)
    view.setUint32(4, socketAddress.flowInfo)
    bytes.set(socketAddress.address, 8)
    view.setBigUint64(24, socketAddress.serviceId)
    view.setBigUint64(32, socketAddress.serviceMask)
  }
  return bytes
}

/** Whether bytes `first` to `end`, exclusive, are 0. */
export const areZeros = (bytes: Uint8Array, first = 0, end = bytes.length): boolean => {
  for (let i = first; i < end; i++) if (bytes[i] !== 0) return false
  return true
}

/** Whether the address is a wildcard: 0.0.0.0 or ::. */
export const isAny = ({ family, address }: SocketAddress): boolean => areZeros(address, family === Family.INET ? 12 : 0)

/** Whether the address is in 127.0.0.0/8, or ::1. */
export const isLoopback = ({ family, address }: SocketAddress): boolean =>
  family === Family.INET ? address[12] === 127 : address[15] === 1 && areZeros(address, 0, 15)

/** The address in rdma_cm's header, 16 bytes: IPv4 in the last 4, after zeros. */
export const headerAddress = ({ family, address }: SocketAddress): Uint8Array => {
  if (family !== Family.INET) return address
  const bytes = new Uint8Array(16)
  bytes.set(address.subarray(12), 12)
  return bytes
}

/** The inverse of `headerAddress`. */
export const fromHeader = (ipVersion: number, address: Uint8Array, port: number): SocketAddress =>
  ipAddress(ipVersion === 4 ? mappedIpv4(address, 12) : address, port)
