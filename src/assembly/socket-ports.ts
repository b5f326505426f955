/*
 * Creates the port of a soft device for `--link` other than `memory`: a socket on the device's address, with the MTU of
 * the address's interface.
 */
import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import type { Identity } from '../core/devices/identity.ts'
import { loadNativeCrc } from '../host/crc.ts'
import { EADDRINUSE, EADDRNOTAVAIL, SystemError } from '../host/errno.ts'
import { mapArena, releaseArena } from '../host/memory/mapping.ts'
import { hasNative } from '../host/native.ts'
import { interfaceMtu } from '../host/net/udp.ts'
import { callError } from '../spec/errno.ts'
import { ROCE_UDP_PORT } from '../spec/wire/headers.ts'
import { createDgramPort } from '../transport/phy/dgram.ts'
import type { Port } from '../transport/phy/port.ts'
import { createUdpPort } from '../transport/phy/udp/port.ts'
import { addressText, parseAddress } from '../transport/wire/address.ts'
import { plainArena } from '../transport/wire/arena.ts'
import { useCrcEngine } from '../transport/wire/crc.ts'
import type { DeviceSpec, Link } from '../uapi/tool.ts'

type SocketLink = Exclude<Link, 'memory'>

/** The error to throw if the device's socket cannot be opened. */
const explainedError = (error: unknown, { name, address }: DeviceSpec, link: Link): unknown => {
  if (!(error instanceof SystemError)) return error
  const device = `device ${name}@${address}`
  if (error.errno === EADDRINUSE)
    return callError.EADDRINUSE`${device}: UDP port ${ROCE_UDP_PORT} of ${address} is in use by another program (a second userdma daemon?), or by Linux's module rdma_rxe; stop the program, unload the module, or give another address`
  if (error.errno !== EADDRNOTAVAIL) return new Error(`${device}: ${error.message}`)
  const addresses = Object.entries(networkInterfaces()).flatMap(([interfaceName, infos = []]) =>
    infos.map(info => `${info.address} (${interfaceName})`),
  )
  return callError.EADDRNOTAVAIL`${device}: this machine does not have the address ${address}, which link ${link} needs; it has ${addresses.join(', ') || 'none'}`
}

/** MTU if the interface's is not known, bytes. */
const DEFAULT_MTU = 1500

/** MTU of an interface, bytes; undefined if it is not known. */
const mtuOf = (interfaceName: string): number | undefined => {
  if (hasNative()) return interfaceMtu(interfaceName)
  try {
    return Number(readFileSync(`/sys/class/net/${interfaceName}/mtu`, 'utf8'))
  } catch {
    return undefined
  }
}

type NetworkInterface = Pick<Identity, 'interfaceName' | 'interfaceIndex'>

/** Memory for packets, which native code can access if there is native code. */
const packetMemory = (bytes: number) => {
  if (!hasNative()) return { arena: plainArena(bytes), release: () => {} }
  const arena = mapArena(bytes)
  return { arena, release: () => releaseArena(arena) }
}

/** By link: creates the port. `mtu` in bytes. */
const portConstructors: {
  readonly [L in SocketLink]: (device: DeviceSpec, mtu: number, networkInterface: NetworkInterface) => Port
} = {
  udp: (_device, mtu, { interfaceIndex }) => createUdpPort({ mtu, interfaceIndex, segmentation: 'auto' }),
  'udp-plain': (_device, mtu, { interfaceIndex }) => createUdpPort({ mtu, interfaceIndex, segmentation: 'never' }),
  dgram: ({ name }, mtu, { interfaceName }) =>
    createDgramPort({
      mtu,
      interfaceName,
      makeArena: packetMemory,
      onForeign: address =>
        console.error(
          `userdma: ${name} refuses packets from ${addressText(address)}: they are those of another kind of port, and --link dgram speaks to --link dgram only; use --link udp`,
        ),
    }),
}

/** Bytes of the arena with which `useCrcEngine` checks an engine. */
const CRC_CHECK_BYTES = 1024

/** Uses native code for ICRCs if it is available. */
export const useNativeCrc = (): void => {
  const crc = hasNative() ? loadNativeCrc() : undefined
  if (crc) useCrcEngine(crc, mapArena(CRC_CHECK_BYTES))
}

/**
 * The port of a device whose address belongs to `networkInterface`. Throws CallError EADDRINUSE or EADDRNOTAVAIL, or an
 * Error for another reason.
 */
export const createSocketPort = (link: SocketLink, device: DeviceSpec, networkInterface: NetworkInterface): Port => {
  const port = portConstructors[link](device, mtuOf(networkInterface.interfaceName) ?? DEFAULT_MTU, networkInterface)
  try {
    port.addAddress(parseAddress(device.address) as Uint8Array)
  } catch (error) {
    port.close()
    throw explainedError(error, device, link)
  }
  return port
}
