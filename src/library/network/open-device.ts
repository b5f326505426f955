/*
 * Opens devices of this process for `open` (library/open/open.ts): a new soft device, or a device that the network has.
 * Imported with the first such device, because a program of a daemon needs none.
 */

import { findGid, type GidTable } from '../../core/devices/gids.ts'
import type { Identity } from '../../core/devices/identity.ts'
import { libraryDriver } from '../../drivers/registered.ts'
import { DeviceClass } from '../../spec/classes/device/device.ts'
import { PortClass } from '../../spec/classes/device/port.ts'
import { deviceName } from '../../spec/drivers/known.ts'
import type { RingLayout } from '../../spec/drivers/ring-layout.ts'
import type { LinkName } from '../../spec/links.ts'
import { mtuBytes } from '../../spec/mtu.ts'
import { addressText } from '../../transport/wire/address.ts'
import type { Link } from '../../uapi/tool.ts'
import type { Carrier } from '../verbs/carrier.ts'
import { type Device, deviceOn } from '../verbs/device.ts'
import { type LocalPath, NO_PATH } from '../verbs/plan.ts'
import { contextCarrier, localCarrier, type StartCheck } from './carrier.ts'
import type { AttachedDevice, DevicePlace, LocalNetwork, RecordOptions } from './contract.ts'
import { infinibandPath } from './infiniband.ts'
import { createNetwork } from './network.ts'

/** The `n`-th loopback address, from 1: 127.0.0.1, 127.0.0.2, … */
const loopbackAddress = (n: number): string => `127.${(n >> 16) & 0xff}.${(n >> 8) & 0xff}.${n & 0xff}`

/** The first of `candidate(first)`, `candidate(first + 1)` … that is not in use. */
const firstFree = (first: number, candidate: (n: number) => string, isUsed: (text: string) => boolean): string => {
  let n = first
  while (isUsed(candidate(n))) n++
  return candidate(n)
}

/** Index of the device's own address in `Identity.gids`. */
const OWN_GID = 1

const ownGid = (table: GidTable, { gids }: Identity): Pick<LocalPath, 'gid' | 'gidIndex'> => ({
  gid: gids[OWN_GID]!,
  gidIndex: findGid(table, gids[OWN_GID]!),
})

/** The path of a soft device. */
export const softPath = ({ network: { device, link, subnetPort } }: AttachedDevice): LocalPath =>
  subnetPort === undefined
    ? { ...ownGid(device.ports[0]!.gids, link.identity), pathMtu: link.pathMtu }
    : infinibandPath(device)

/** The path of port 1 of a device that is not a soft device; NO_PATH without a link or without ports. */
const pathOfPort = (carrier: Carrier, link: LinkName | undefined): LocalPath => {
  if (link === undefined || !carrier.call(DeviceClass, 'query', 0, {}).out.attributes.physPortCnt) return NO_PATH
  const { lid, activeMtu } = carrier.call(PortClass, 'query', 1, {}).out.attributes
  const { entries } = carrier.call(DeviceClass, 'queryGidTable', 0, {}).out
  const entry = entries.find(({ port }) => port === 1)
  const { gid, index: gidIndex } = entry ?? { gid: NO_PATH.gid, index: 0 }
  const hasLids = link === 'ib' || link === 'opa'
  return { gid, gidIndex, pathMtu: activeMtu === 0 ? 0 : mtuBytes(activeMtu), link, ...(hasLids && { lid }) }
}

/** Starts the recording of a network that has the option `record`, with its first device. Rejects with RdmaError. */
const startRecording = async (network: LocalNetwork): Promise<void> => {
  const { record } = network
  if (record === undefined || network.endRecording !== undefined) return
  const { recordNetwork } = await import('./record.ts')
  network.endRecording ??= recordNetwork('open', network, record)
}

/** Options of `open` for a new soft device. */
interface SoftDeviceOptions extends DevicePlace {
  readonly name?: string | undefined
  readonly address?: string | undefined
  readonly rings?: RingLayout['name'] | undefined
}

/** Creates a soft device on a network, and opens it. `removed`: called when its close has removed it. */
const openSoftDevice = async (
  options: SoftDeviceOptions,
  network: LocalNetwork,
  startCheck: StartCheck | undefined,
  removed?: () => Promise<void> | undefined,
): Promise<Device> => {
  if (options.layer === 'infiniband') await network.loadSubnet()
  const { core } = network
  const devicesAdded = network.devicesAdded()
  const {
    address = network.addressAt(options.host) ?? firstFree(devicesAdded + 1, loopbackAddress, network.hasAddress),
    name = firstFree(
      devicesAdded,
      i => deviceName(libraryDriver.name, i),
      text => core.devices.has(text),
    ),
  } = options
  const carrier = localCarrier(network, name, address, options.rings, startCheck, removed, options)
  return deviceOn(carrier, name, address, () => softPath(network.softDevice(name)!))
}

/** Creates a soft device on the network, and opens it. Rejects with RdmaError. */
export const openOnNetwork = async (
  options: SoftDeviceOptions,
  network: LocalNetwork,
  startCheck: StartCheck | undefined,
): Promise<Device> => {
  await startRecording(network)
  return openSoftDevice(options, network, startCheck)
}

/** Creates a network with one soft device, and opens it. The recording ends with the device. Rejects with RdmaError. */
export const openOnNewNetwork = async (
  options: SoftDeviceOptions,
  link: Link | undefined,
  record: string | RecordOptions | undefined,
  startCheck: StartCheck | undefined,
): Promise<Device> => {
  const network = createNetwork({ link, record }) as LocalNetwork
  await startRecording(network)
  return openSoftDevice(options, network, startCheck, () => network.endRecording?.())
}

/** Opens an existing device of the network. Rejects with RdmaError. */
export const openFromNetwork = async (
  network: LocalNetwork,
  name: string,
  startCheck: StartCheck | undefined,
): Promise<Device> => {
  await startRecording(network)
  const carrier = contextCarrier(network, name, startCheck)
  const soft = network.softDevice(name)
  if (soft !== undefined) {
    const path = softPath(soft)
    return deviceOn(carrier, name, addressText(soft.network.link.identity.gids[OWN_GID]!), () => path)
  }
  return deviceOn(carrier, name, '', () => pathOfPort(carrier, network.core.devices.get(name)?.driver.link))
}
