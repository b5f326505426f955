/*
 * Identity of a soft device on this machine, from MAC, name and index of the interface that has the device's address.
 * If no interface has the address, the loopback interface is used, which has no MAC (identity.ts).
 */
import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { type Identity, identify } from '../core/devices/identity.ts'
import type { Interfaces } from '../host/net/interfaces.ts'
import { parseAddress } from '../transport/wire/address.ts'
import type { DeviceSpec } from '../uapi/tool.ts'

const LOOPBACK = 'lo'

type InterfaceTable = Pick<Interfaces, 'withAddress' | 'links'>

/** 0 if no interface has this name, or the index is not known: some containers have no /sys. */
const interfaceIndex = (name: string, interfaces: InterfaceTable | undefined): number => {
  for (const link of interfaces?.links().values() ?? []) if (link.name === name) return link.index
  try {
    return Number(readFileSync(`/sys/class/net/${name}/ifindex`, 'utf8'))
  } catch {
    return 0
  }
}

/**
 * The identity of the device with this address. `interfaces` includes interfaces that are down or not connected, which
 * Node does not list. Throws an Error for text that is no address.
 */
export const identityOf = ({ address }: Pick<DeviceSpec, 'address'>, interfaces?: InterfaceTable): Identity => {
  const bytes = parseAddress(address)
  if (!bytes) throw new Error(`"${address}" is not an IPv4 or IPv6 address`)
  const networkInterface = interfaces?.withAddress(bytes)
  if (networkInterface) return identify(bytes, networkInterface)
  const key = String(bytes)
  for (const [name, addresses = []] of Object.entries(networkInterfaces())) {
    const match = addresses.find(info => String(parseAddress(info.address.split('%')[0]!)) === key)
    if (match)
      return identify(bytes, {
        mac: Uint8Array.from(match.mac.split(':'), hex => Number.parseInt(hex, 16)),
        name,
        index: interfaceIndex(name, interfaces),
      })
  }
  return identify(bytes, { name: LOOPBACK, index: interfaceIndex(LOOPBACK, interfaces) })
}
