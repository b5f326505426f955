/*
 * `open`: opens a new soft device in this process, or an existing device of a network or of a daemon.
 */
import { Device as DeviceClass } from '../spec/classes/device/device.ts'
import { Port as PortClass } from '../spec/classes/device/port.ts'
import type { RingLayout } from '../spec/drivers/ring-layout.ts'
import type { LinkName } from '../spec/links.ts'
import { mtuBytes } from '../spec/mtu.ts'
import { type Link, links } from '../uapi/tool.ts'
import { addressText, parseAddress } from '../wire/address.ts'
import { checkOptions, copyRecord, type KnownOptions } from './arguments/options.ts'
import type { Carrier } from './carrier.ts'
import type { CheckOptions } from './check/options.ts'
import { createDevice, type Device } from './device.ts'
import { checkChoice, formatValue, invalidArgument } from './error.ts'
import { contextCarrier, localCarrier, type StartCheck } from './local/carrier.ts'
import {
  checkNetwork,
  checkRecording,
  createNetwork,
  type LocalNetwork,
  type Network,
  type RecordOptions,
} from './local/network.ts'
import type { LocalPath } from './plan.ts'
import { socketPath } from './remote/socket-path.ts'

/** Options of `open`. */
export interface OpenOptions {
  /** Devices opened on the same network reach each other; default: a new network. */
  readonly network?: Network | undefined
  /** Link of a new network, see `NetworkOptions.link`. */
  readonly link?: Link | undefined
  /**
   * For a new soft device: layout of work requests and completions in memory, 'compact' (default), or 'rxe' as used by
   * libibverbs programs.
   */
  readonly rings?: RingLayout['name'] | undefined
  /** Name of the device. Default: rxe0, rxe1, …, without the names of other devices of the network. */
  readonly name?: string | undefined
  /** IP address of the device. Default: 127.0.0.1, 127.0.0.2, …, without those of other devices of the network. */
  readonly address?: string | undefined
  /**
   * Opens a device of the daemon at this path. `true`: the daemon under which the program runs, otherwise the user's
   * own daemon (`userdma daemon`). Needs the package koffi.
   */
  readonly socket?: string | true | undefined
  /**
   * Name of an existing device. With `socket`: default is the daemon's first device with a network. With `network`: a
   * device of `network.addDevice`, or an open device; `close` does not remove the device from the network.
   */
  readonly device?: string | undefined
  /**
   * Reports mistakes in the program's use of verbs on this device (docs/how-to/check.md). Only for devices of this
   * process. Default: `check` of the network.
   */
  readonly check?: boolean | CheckOptions | undefined
  /**
   * Records the device's new network until the device is closed (docs/reference/session-file.md). A text is
   * `RecordOptions.file`. For a network of several devices, pass it to `createNetwork`. Default: no recording.
   */
  readonly record?: string | RecordOptions | undefined
}

const openOptionNames: KnownOptions<OpenOptions> = {
  network: true,
  link: true,
  rings: true,
  name: true,
  address: true,
  socket: true,
  device: true,
  check: true,
  record: true,
}
const ringNames: readonly RingLayout['name'][] = ['compact', 'rxe']

/** Index of the address in the GID table of a soft device; entry 0 is the link-local GID. */
const ADDRESS_GID_INDEX = 1
/** The path of a device without ports, or whose link or address is unknown. */
const NO_PATH: LocalPath = { gid: new Uint8Array(16), gidIndex: 0, pathMtu: 0 }

/** The `n`-th loopback address, from 1: 127.0.0.1, 127.0.0.2, … */
const loopbackAddress = (n: number): string => `127.${(n >> 16) & 0xff}.${(n >> 8) & 0xff}.${n & 0xff}`

/** The first of `candidate(first)`, `candidate(first + 1)` … that is not in use. */
const firstFree = (first: number, candidate: (n: number) => string, isUsed: (text: string) => boolean): string => {
  let n = first
  while (isUsed(candidate(n))) n++
  return candidate(n)
}

/** Runs `create`; closes the carrier if it throws. */
const withCarrier = <C extends Carrier>(carrier: C, create: (carrier: C) => Device): Device => {
  try {
    return create(carrier)
  } catch (error) {
    void carrier.close()
    throw error
  }
}

/** Creates a soft device on a network, and opens it. `removed`: called when its close has removed it. */
const openSoftDevice = (
  options: OpenOptions,
  network: LocalNetwork,
  startCheck: StartCheck | undefined,
  removed?: () => Promise<void> | undefined,
): Device => {
  const { devicesAdded, core } = network
  const {
    address = firstFree(devicesAdded + 1, loopbackAddress, network.hasAddress),
    name = firstFree(
      devicesAdded,
      n => `rxe${n}`,
      text => core.devices.has(text),
    ),
  } = options
  return withCarrier(localCarrier(network, name, address, options.rings, startCheck, removed), carrier => {
    const gid = parseAddress(address) as Uint8Array
    const path = { gid, gidIndex: ADDRESS_GID_INDEX, pathMtu: carrier.pathMtu }
    return createDevice(carrier, name, address, path, carrier.check)
  })
}

/** The path of port 1 of a device that is not a soft device; NO_PATH without a link or without ports. */
const localPathOf = (carrier: Carrier, link: LinkName | undefined): LocalPath => {
  if (link === undefined || !carrier.call(DeviceClass, 'query', 0, {}).out.attributes.physPortCnt) return NO_PATH
  const { lid, activeMtu } = carrier.call(PortClass, 'query', 1, {}).out.attributes
  const { entries } = carrier.call(DeviceClass, 'queryGidTable', 0, {}).out
  const entry = entries.find(({ port }) => port === 1)
  const { gid, index: gidIndex } = entry ?? { gid: NO_PATH.gid, index: 0 }
  const hasLids = link === 'ib' || link === 'opa'
  return { gid, gidIndex, pathMtu: activeMtu === 0 ? 0 : mtuBytes(activeMtu), link, ...(hasLids && { lid }) }
}

/** Opens an existing device of the network. */
const openNetworkDevice = (network: Network, name: string, startCheck: StartCheck | undefined): Device =>
  withCarrier(contextCarrier(network, name, startCheck), carrier => {
    const soft = (network as LocalNetwork).softDevice(name)
    if (soft === undefined) {
      const link = (network as LocalNetwork).core.devices.get(name)?.driver.link
      return createDevice(carrier, name, '', localPathOf(carrier, link), carrier.check)
    }
    const { identity, pathMtu } = soft.network.link
    const gid = identity.gids[ADDRESS_GID_INDEX]!
    const path = { gid, gidIndex: ADDRESS_GID_INDEX, pathMtu }
    return createDevice(carrier, name, addressText(gid), path, carrier.check)
  })

/** `device`: the device's name; undefined for the daemon's first device with a network. */
const openDaemonDevice = async (socket: string, device: string | undefined): Promise<Device> => {
  const { remoteCarrier } = await import('./remote/carrier.ts')
  return withCarrier(remoteCarrier(socket, device), carrier => {
    const { name, address } = carrier.device
    // A device without a network has no address.
    if (address === '') return createDevice(carrier, name, address, NO_PATH, carrier.check)
    const gid = parseAddress(address) as Uint8Array
    const { entries } = carrier.call(DeviceClass, 'queryGidTable', 0, {}).out
    const entry = entries.find(candidate => candidate.gid.every((byte, i) => byte === gid[i]))
    const { activeMtu } = carrier.call(PortClass, 'query', 1, {}).out.attributes
    const path = { gid, gidIndex: entry?.index ?? ADDRESS_GID_INDEX, pathMtu: mtuBytes(activeMtu) }
    return createDevice(carrier, name, address, path, carrier.check)
  })
}

const checkLink = (network: LocalNetwork, link: Link | undefined): void => {
  if (link !== undefined && link !== network.link)
    throw invalidArgument('open', `link "${link}": the network has link "${network.link}"`, 'give network or link')
}

/** Imports the checker, and resolves with a function that starts a check. Rejects with RdmaError EINVAL. */
const loadCheck = async (check: true | CheckOptions): Promise<StartCheck> => {
  const copy = copyRecord(check)
  const { readCheckOptions } = await import('./check/options.ts')
  const options = readCheckOptions('open', copy)
  const { checkContext } = await import('./check/device-check.ts')
  return context => checkContext(context, options)
}

/** Starts the recording of a network that has the option `record`, with its first device. Rejects with RdmaError. */
const startRecording = async (network: LocalNetwork): Promise<void> => {
  const { record } = network
  if (record === undefined || network.endRecording !== undefined) return
  const { recordNetwork } = await import('./local/record.ts')
  network.endRecording ??= recordNetwork('open', network, record)
}

/**
 * Opens a device. Rejects with RdmaError: EINVAL for an invalid option, EEXIST or EADDRINUSE if the name or address is
 * in use, EADDRNOTAVAIL if this machine does not have the address, ENOSPC if the network has the maximum of soft
 * devices, ENODEV if there is no such device, ECONNREFUSED if no daemon listens at the socket, EACCES if the daemon does
 * not serve this user, is not trusted, or may not access the program's memory, EOPNOTSUPP if native calls are missing.
 */
export const open = async (options: OpenOptions = {}): Promise<Device> => {
  checkOptions('open', 'options', options, openOptionNames)
  // The program may use its record again while the checker is imported.
  const copy = { ...options }
  const { socket, device, network, link, name, address, rings, record } = copy
  if (rings !== undefined) checkChoice('open', 'rings', rings, ringNames)
  checkRecording('open', record)
  if (link !== undefined) checkChoice('open', 'link', link, links)
  for (const [option, value] of Object.entries({ name, address, device }))
    if (value !== undefined && typeof value !== 'string')
      throw invalidArgument('open', `${option} ${formatValue(value)} is not a string`)
  if (record !== undefined && (network !== undefined || socket !== undefined))
    throw invalidArgument(
      'open',
      `record ${formatValue(record)} is for a new network`,
      network === undefined ? 'run the daemon with --record' : 'pass record to createNetwork',
    )
  const path = socket === undefined ? undefined : socketPath('open', socket)
  if (network !== undefined) {
    checkNetwork('open', network)
    checkLink(network as LocalNetwork, link)
  }
  const { check = (network as LocalNetwork | undefined)?.check } = options
  const startCheck = check === undefined || check === false ? undefined : await loadCheck(check)
  if (path === undefined) {
    if (network !== undefined) await startRecording(network as LocalNetwork)
    if (device === undefined) {
      if (network !== undefined) return openSoftDevice(copy, network as LocalNetwork, startCheck)
      const own = createNetwork({ ...(link && { link }), ...(record && { record }) }) as LocalNetwork
      await startRecording(own)
      return openSoftDevice(copy, own, startCheck, () => own.endRecording?.())
    }
    if (network === undefined)
      throw invalidArgument(
        'open',
        `device "${device}": pass socket for a device of a daemon, or network for a device of a network`,
      )
    if ([link, name, address, rings].some(option => option !== undefined))
      throw invalidArgument('open', `device "${device}" exists already: pass only network and device`)
    return openNetworkDevice(network, device, startCheck)
  }
  if ([network, link, name, address, rings].some(option => option !== undefined))
    throw invalidArgument(
      'open',
      'a daemon has its own network, names, addresses and rings: give socket and device only',
    )
  if (startCheck !== undefined)
    throw invalidArgument('open', 'check is for devices of this process', 'run the program under `userdma check`')
  return openDaemonDevice(path, device)
}
