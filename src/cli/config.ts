/*
 * The options that configure a daemon: `--device`, `--machine`, `--driver`, `--link`, `--path`, `--fault`, `--torment`,
 * `--ignore-memlock`, `--check`, `--like`, `--buffers`, `--lent`, `--who`, `--fabric`, `--timers`, `--clock` and
 * `--no-clock-spin`. Parses them, and compares them with the configuration of a running daemon
 * (docs/decisions/joining-a-daemon.md).
 */
import { resolve } from 'node:path'
import type { RegisteredDriver } from '../core/driver-contract.ts'
import {
  checkDevices,
  defaultDevice,
  deviceText,
  driverOf,
  parseDevice,
  withoutOwnFunction,
} from '../daemon/devices/device-spec.ts'
import { type AdapterName, pciModelNames } from '../spec/check/adapters.ts'
import type { BufferCheck } from '../spec/check/requests.ts'
import { kindsOf, readTorment, type TormentSetting, tormentText } from '../spec/check/torment.ts'
import type { LentCheck } from '../spec/lends.ts'
import { parseAddress } from '../transport/wire/address.ts'
import type { ClockKind, DaemonConfig, DeviceSpec, Link, Path } from '../uapi/tool.ts'
import type { OptionsOf } from './command-line/option.ts'
import type { configOptions, daemonOptions } from './command-line/options.ts'
import { UsageError } from './fail.ts'

/** Each element of `fault` has one rule, or several separated by `;`. */
export type ConfigOptions = OptionsOf<
  typeof configOptions & Pick<typeof daemonOptions, 'check' | 'like' | 'buffers' | 'lent' | 'who' | 'driver'>
>

/** Options that decide whether standard error has JSON objects: then it has nothing else. */
export interface OutputOptions {
  readonly output?: string
  readonly json?: boolean
}

/** The settings that were given as options; others are absent. */
export interface WantedConfig {
  readonly devices?: readonly DeviceSpec[]
  /** In canonical form (`canonicalFaults`). */
  readonly fault?: string
  readonly link?: Link
  readonly path?: Path
  readonly ignoreMemlock?: boolean
  readonly allowFaults?: boolean
  readonly check?: boolean
  /** In canonical form (`tormentText`). */
  readonly torment?: string
  readonly adapters?: readonly AdapterName[]
  readonly buffers?: BufferCheck
  readonly lent?: LentCheck
  readonly who?: string
  readonly fabric?: string
  readonly timers?: number
  readonly clock?: ClockKind
  readonly clockSpin?: false
  /** Absolute paths. */
  readonly drivers?: readonly string[]
  /** Absolute path. */
  readonly machine?: string
}

/** The setting of `--torment` with `--torment-kinds`. Throws an Error. */
export const parseTorment = (text: string, kinds: readonly string[] | undefined): TormentSetting => {
  try {
    return { ...readTorment(text), ...(kinds !== undefined && { kinds: kindsOf(kinds) }) }
  } catch (error) {
    throw new Error(`--torment "${text}": ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** All fault rules in canonical form. Throws an Error. The parser is loaded only when needed. */
export const canonicalFaults = async (texts: readonly string[]): Promise<string> => {
  const { formatFaults, parseFaults } = await import('../faults/rules.ts')
  return formatFaults(parseFaults(texts.join(';')))
}

/** The text of a fabric. Throws an Error. */
const checkedFabric = async (text: string): Promise<string> => {
  const { parseFabric } = await import('../settings/fabric.ts')
  try {
    parseFabric(text)
  } catch (error) {
    throw new Error(`--fabric "${text}": ${error instanceof Error ? error.message : String(error)}`)
  }
  return text
}

/** The file of `--machine`, and its devices. Throws an Error. The reader is loaded only when needed. */
const machineConfig = async (name: string, given: readonly DeviceSpec[] | undefined) => {
  const { machineFile } = await import('./machine/shipped.ts')
  const { machineDevices } = await import('./machine/devices.ts')
  const { readMachine } = await import('../tools/topology/machine-file.ts')
  const file = machineFile(name)
  return { file, devices: machineDevices(readMachine(file), given) }
}

/** The result of `parse`; throws what it throws as a UsageError. */
export const orUsageError = async <T>(parse: () => T | Promise<T>): Promise<T> => {
  try {
    return await parse()
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}

/** Whether the name, and so the driver, of a device decides whether its address may be absent, or is `driver=`. */
const needsDriver = ({ address, driver }: DeviceSpec): boolean => address === '' || driver !== undefined

/**
 * Parses the options. Throws UsageError. `loaded`: the drivers in the files of `--driver`; if they are absent, only the
 * daemon can tell whether a driver makes a device. The registered drivers are loaded only for devices that need them,
 * because all commands parse options.
 */
export const wantedConfig = (
  {
    device,
    machine,
    fault,
    link,
    path,
    ignoreMemlock,
    allowFaults,
    check,
    torment,
    tormentKinds,
    like,
    buffers,
    lent,
    who,
    fabric,
    timers,
    clock,
    clockSpin,
    driver,
  }: ConfigOptions,
  loaded: readonly RegisteredDriver[] | undefined = driver === undefined ? [] : undefined,
): Promise<WantedConfig> =>
  orUsageError(async () => {
    const given = device?.map(text => parseDevice(text))
    const { file = undefined, devices = given } = machine === undefined ? {} : await machineConfig(machine, given)
    if (devices) checkDevices(devices)
    if (loaded !== undefined)
      for (const spec of devices?.filter(needsDriver) ?? []) {
        const { registeredDrivers } = await import('../drivers/registered.ts')
        driverOf(spec, [...loaded, ...registeredDrivers])
      }
    return {
      ...(devices && { devices }),
      ...(file !== undefined && { machine: file }),
      ...(fault !== undefined && { fault: await canonicalFaults(fault) }),
      ...(link !== undefined && { link }),
      ...(path !== undefined && { path }),
      ...(ignoreMemlock && { ignoreMemlock }),
      ...(allowFaults && { allowFaults }),
      ...(check && { check }),
      ...(torment !== undefined && { torment: tormentText(parseTorment(torment, tormentKinds)) }),
      ...(like !== undefined && { adapters: like }),
      ...(buffers !== undefined && { buffers }),
      ...(lent !== undefined && { lent }),
      ...(who !== undefined && { who }),
      ...(fabric !== undefined && { fabric: await checkedFabric(fabric) }),
      ...(timers !== undefined && { timers }),
      ...(clock !== undefined && { clock }),
      ...(clockSpin === false && { clockSpin }),
      ...(driver !== undefined && { drivers: driver.map(file => resolve(file)) }),
    }
  })

/** Names of devices of whose driver the user was told, or knows. */
const told = new Set<string>()

/** No line of `tellDrivers` about these devices: they are those of a daemon that runs. */
export const knowDrivers = (devices: readonly DeviceSpec[]): void => {
  for (const { name } of devices) told.add(name)
}

/**
 * Tells the user, once for each device, that one with the name of an adapter's devices has rxe's driver, because no
 * other was asked for: vendors' libraries do not find it. On standard error, unless that has JSON objects.
 */
export const tellDrivers = async (
  devices: readonly DeviceSpec[] | undefined,
  { json, output }: OutputOptions,
): Promise<void> => {
  for (const { name, address, driver } of devices ?? []) {
    const adapter = pciModelNames.find(model => name.startsWith(model))
    if (adapter === undefined || address === '' || driver !== undefined || told.has(name)) continue
    const { networkDrivers } = await import('../drivers/registered.ts')
    const [byDefault] = networkDrivers
    if (adapter === byDefault || !networkDrivers.includes(adapter)) continue
    told.add(name)
    if (!json || output !== undefined)
      process.stderr.write(`userdma: ${name}: driver ${byDefault} (for lib${adapter}: driver=${adapter})\n`)
  }
}

/**
 * The configuration of a new daemon. Devices, faults and link have defaults; other settings are absent if they were not
 * given, `path`, `buffers` and `clock` also if they have the default value.
 */
export const fullConfig = ({
  devices,
  fault,
  link,
  path,
  buffers,
  clock,
  fabric,
  ...others
}: WantedConfig): DaemonConfig => ({
  // A daemon of switches needs none.
  devices: devices ?? (fabric !== undefined && /(?:^|,)serve=/.test(fabric) ? [] : [defaultDevice]),
  ...(fabric !== undefined && { fabric }),
  fault: fault ?? '',
  link: link ?? 'memory',
  ...(path === 'packets' && { path }),
  ...(buffers === 'all' && { buffers }),
  ...(clock === 'skip' && { clock }),
  ...others,
})

/** The command line options that give a daemon this configuration. */
export const configArguments = ({
  devices,
  fault,
  link,
  path,
  ignoreMemlock,
  allowFaults,
  check,
  torment,
  adapters,
  buffers,
  lent,
  who,
  fabric,
  timers,
  clock,
  clockSpin,
  drivers = [],
  machine,
}: DaemonConfig): string[] => [
  ...devices.flatMap(device => ['--device', deviceText(device)]),
  ...(machine === undefined ? [] : ['--machine', machine]),
  ...(fault === '' ? [] : ['--fault', fault]),
  ...(link === 'memory' ? [] : ['--link', link]),
  ...(path === undefined ? [] : ['--path', path]),
  ...(ignoreMemlock ? ['--ignore-memlock'] : []),
  ...(allowFaults ? ['--allow-faults'] : []),
  ...(check ? ['--check'] : []),
  ...(torment === undefined ? [] : ['--torment', torment]),
  ...(adapters === undefined ? [] : ['--like', adapters.join(',')]),
  ...(buffers === undefined ? [] : ['--buffers', buffers]),
  ...(lent === undefined ? [] : ['--lent', lent]),
  ...(who === undefined ? [] : ['--who', who]),
  ...(fabric === undefined ? [] : ['--fabric', fabric]),
  ...(timers === undefined || timers === 1 ? [] : ['--timers', String(timers)]),
  ...(clock === undefined ? [] : ['--clock', clock]),
  ...(clockSpin === false ? ['--no-clock-spin'] : []),
  ...drivers.flatMap(file => ['--driver', file]),
]

/** The devices as the end of a sentence. A daemon has none if all were removed. */
export const devicesText = (devices: readonly DeviceSpec[]): string =>
  devices.map(deviceText).join(', ') || 'no devices'

/** Machine, devices, link and faults as text. */
export const settingsText = ({
  devices,
  fault,
  link,
  machine,
}: Pick<DaemonConfig, 'devices' | 'fault' | 'link' | 'machine'>): string =>
  [
    ...(machine === undefined ? [] : [`machine ${machine}`]),
    devicesText(devices),
    ...(link === 'memory' ? [] : [`link ${link}`]),
    ...(fault === '' ? [] : [`faults ${fault}`]),
  ].join(', ')

/** Devices as a text that depends neither on their order nor on the spelling of their addresses. */
const canonicalDevices = (devices: readonly DeviceSpec[]): string =>
  devices
    .map(({ address, ...others }) => deviceText({ ...others, address: `${parseAddress(address) ?? ''}` }))
    .sort()
    .join(' ')

/** A device for which no PCI function is wanted may have the one that the daemon gives it. */
const hasDevices = (wanted: readonly DeviceSpec[], running: readonly DeviceSpec[]): boolean => {
  const withAny = new Set(wanted.filter(({ pci }) => pci === undefined).map(({ name }) => name))
  const comparable = running.map(device => (withAny.has(device.name) ? withoutOwnFunction(device) : device))
  return canonicalDevices(wanted) === canonicalDevices(comparable)
}

/**
 * Why a command with the settings `wanted` cannot join a daemon with the configuration `running`, as the end of a
 * sentence that begins with "the daemon"; undefined if it can.
 */
export const difference = async (wanted: WantedConfig, running: DaemonConfig): Promise<string | undefined> => {
  if (wanted.devices && !hasDevices(wanted.devices, running.devices))
    return `has ${devicesText(running.devices)}, not ${devicesText(wanted.devices)}`
  if (wanted.machine !== undefined && wanted.machine !== running.machine)
    return `shows ${running.machine === undefined ? 'this machine' : `the machine ${running.machine}`}, not ${wanted.machine} (--machine)`
  if (wanted.fault !== undefined && wanted.fault !== (await canonicalFaults([running.fault])))
    return `has ${running.fault === '' ? 'no faults' : `faults ${running.fault}`}, not ${wanted.fault === '' ? 'none' : wanted.fault}`
  if (wanted.link !== undefined && wanted.link !== running.link) return `has link ${running.link}, not ${wanted.link}`
  const path = running.path ?? 'direct'
  if (wanted.path !== undefined && wanted.path !== path) return `has path ${path}, not ${wanted.path}`
  if (wanted.ignoreMemlock && !running.ignoreMemlock) return 'applies RLIMIT_MEMLOCK (no --ignore-memlock)'
  if (wanted.allowFaults && !running.allowFaults)
    return 'lets programs set no faults for devices that others use (no --allow-faults)'
  if (wanted.torment !== undefined && wanted.torment !== running.torment)
    return running.torment === undefined
      ? `has no torment, not --torment ${wanted.torment}`
      : `has --torment ${running.torment}, not ${wanted.torment}`
  if (wanted.check && !running.check) return 'does not check programs (--check)'
  const missing = (wanted.adapters ?? []).filter(name => !running.adapters?.includes(name))
  if (missing.length > 0) return `does not compare programs with ${missing.join(', ')} (--like)`
  const buffers = running.buffers ?? 'sampled'
  if (wanted.buffers !== undefined && wanted.buffers !== buffers)
    return `checks buffers by --buffers ${buffers}, not ${wanted.buffers}`
  const lent = running.lent ?? 'learnt'
  if (wanted.lent !== undefined && wanted.lent !== lent)
    return `checks lent memory by --lent ${lent}, not ${wanted.lent}`
  if (wanted.who !== undefined && wanted.who !== running.who)
    return `tells ${running.who === undefined ? 'no accesses' : `accesses to ${running.who}`}, not to ${wanted.who} (--who)`
  if (wanted.fabric !== undefined && wanted.fabric !== running.fabric)
    return `has ${running.fabric === undefined ? 'no --fabric' : `--fabric ${running.fabric}`}, not ${wanted.fabric}`
  const timers = running.timers ?? 1
  if (wanted.timers !== undefined && wanted.timers !== timers) return `has --timers ${timers}, not ${wanted.timers}`
  const clock = running.clock ?? 'real'
  if (wanted.clock !== undefined && wanted.clock !== clock) return `has --clock ${clock}, not ${wanted.clock}`
  if (wanted.clockSpin === false && running.clockSpin !== false)
    return 'lets time go on while programs spin (--no-clock-spin)'
  return undefined
}
