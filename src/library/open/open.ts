/*
 * `open`: opens a new soft device in this process, or an existing device of a network or of a daemon.
 */

import type { RingLayout } from '../../spec/drivers/ring-layout.ts'
import { type Link, links } from '../../uapi/tool.ts'
import type { StartCheck } from '../network/carrier.ts'
import {
  checkNetwork,
  checkRecording,
  type LocalNetwork,
  type Network,
  networks,
  type PortOptions,
  type RecordOptions,
} from '../network/contract.ts'
import type { CheckOptions } from '../self-check/options.ts'
import { checkOptions, copyRecord, type KnownOptions } from '../verbs/arguments/options.ts'
import type { Device } from '../verbs/device.ts'
import { checkChoice, formatValue, invalidArgument } from '../verbs/error.ts'
import { socketPath } from '../verbs/remote/socket-path.ts'

/** Options of `open`. */
export interface OpenOptions extends PortOptions {
  /** Devices opened on the same network reach each other; default: a new network. */
  readonly network?: Network | undefined
  /** Link of a new network, see `NetworkOptions.link`. */
  readonly link?: Link | undefined
  /**
   * For a new soft device: layout of work requests and completions in memory, 'compact' (default), or 'mapped' as used
   * by libibverbs programs.
   */
  readonly rings?: RingLayout['name'] | undefined
  /** Name of the device. Default: rxe0, rxe1, …, without the names of other devices of the network. */
  readonly name?: string | undefined
  /** IP address of the device. Default: 127.0.0.1, 127.0.0.2, …, without those of other devices of the network. */
  readonly address?: string | undefined
  /**
   * Host of a new soft device on a network with `links`, by its name. Default: the first host without a device, so that
   * devices take hosts in the order of their opening.
   */
  readonly host?: string | undefined
  /** Rate control of a new soft device. Default: `dcqcn` of the network. */
  readonly dcqcn?: boolean | number | string | undefined
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
  host: true,
  dcqcn: true,
  layer: true,
  guid: true,
  pkeys: true,
  limits: true,
  socket: true,
  device: true,
  check: true,
  record: true,
}
const ringNames: readonly RingLayout['name'][] = ['compact', 'mapped']

const checkLink = (network: LocalNetwork, link: Link | undefined): void => {
  if (link !== undefined && link !== network.link)
    throw invalidArgument('open', `link "${link}": the network has link "${network.link}"`, 'give network or link')
}

let openDevice: typeof import('../network/open-device.ts') | undefined
/** Imports what devices of this process need, with the first of them. */
const importOpenDevice = async () => {
  openDevice ??= await import('../network/open-device.ts')
  return openDevice
}

/** Imports the checker, and resolves with a function that starts a check. Rejects with RdmaError EINVAL. */
const loadCheck = async (check: true | CheckOptions): Promise<StartCheck> => {
  const copy = copyRecord(check)
  const { readCheckOptions } = await import('../self-check/options.ts')
  const options = readCheckOptions('open', copy)
  const { checkContext } = await import('../self-check/device-check.ts')
  return (context, lossTo) => checkContext(context, options, lossTo)
}

/**
 * Opens a device. Rejects with RdmaError: EINVAL for an invalid option, EEXIST or EADDRINUSE if the name or address is
 * in use, EADDRNOTAVAIL if this machine does not have the address, ENOSPC if the network has the maximum of soft
 * devices, ENODEV if there is no such device, ECONNREFUSED if no daemon listens at the socket, EACCES if the daemon
 * does not serve this user, is not trusted, or may not access the program's memory, EOPNOTSUPP if native calls are
 * missing.
 */
export const open = async (options: OpenOptions = {}): Promise<Device> => {
  const network: unknown = (options as OpenOptions | null | undefined)?.network
  const own = networks.has(network as object) ? (network as LocalNetwork) : undefined
  const device = await openHeld(options, own?.virtualClock)
  await own?.untilConfigured()
  return device
}

const openHeld = async (options: OpenOptions, virtualClock: LocalNetwork['virtualClock']): Promise<Device> => {
  if (virtualClock === undefined) return openWith(options)
  // Time does not pass while files are imported.
  virtualClock.hold()
  try {
    const device = await virtualClock.watch('open', openWith(options))
    ;(options.network as LocalNetwork).onOpened?.(device)
    return device
  } finally {
    virtualClock.release()
  }
}

const openWith = async (options: OpenOptions): Promise<Device> => {
  checkOptions('open', 'options', options, openOptionNames)
  // The program may use its records again while files are imported.
  const copy = { ...options, record: copyRecord(options.record) }
  const { socket, device, network, link, name, address, rings, record, host, dcqcn, layer, guid, pkeys, limits } = copy
  const ofNewDevice = [link, name, address, rings, host, dcqcn, layer, guid, pkeys, limits]
  if (rings !== undefined) checkChoice('open', 'rings', rings, ringNames)
  checkRecording('open', record)
  if (link !== undefined) checkChoice('open', 'link', link, links)
  if (layer !== undefined) checkChoice('open', 'layer', layer, ['ethernet', 'infiniband'])
  for (const [option, value] of Object.entries({ name, address, device, host, guid }))
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
    if (device === undefined) {
      const { openOnNetwork, openOnNewNetwork } = await importOpenDevice()
      return network === undefined
        ? openOnNewNetwork(copy, link, record, startCheck)
        : openOnNetwork(copy, network as LocalNetwork, startCheck)
    }
    if (network === undefined)
      throw invalidArgument(
        'open',
        `device "${device}": pass socket for a device of a daemon, or network for a device of a network`,
      )
    if (ofNewDevice.some(option => option !== undefined))
      throw invalidArgument('open', `device "${device}" exists already: pass only network and device`)
    const { openFromNetwork } = await importOpenDevice()
    return openFromNetwork(network as LocalNetwork, device, startCheck)
  }
  if ([network, ...ofNewDevice].some(option => option !== undefined))
    throw invalidArgument(
      'open',
      'a daemon has its own network, names, addresses, ports, rings, rates and limits: give socket and device only',
    )
  if (startCheck !== undefined)
    throw invalidArgument('open', 'check is for devices of this process', 'run the program under `userdma check`')
  const { openDaemonDevice } = await import('../verbs/remote/open-device.ts')
  return openDaemonDevice(path, device)
}
