/*
 * Parses `--device`: NAME@ADDRESS, or NAME for a device without a network. Settings may follow: driver=NAME chooses the
 * driver; layer=infiniband makes the port one of InfiniBand, with guid=GUID and pkeys=KEY+KEY…; dcqcn=RATE has queue
 * pairs control their rate (transport/engine/congestion/); pci=BDF, numa=N and model=MODEL describe the PCI function
 * that sysfs shows as the device's parent (daemon/files/pci-files.ts). A device whose driver is that of an adapter
 * always has such a function. vlan=ID+ADDRESS… gives it the GIDs of a VLAN interface over its own. LIMIT=N lowers a
 * limit of the device (spec/device-limits.ts).
 *
 * Without driver=, a device with an address is a soft device, whatever its name, because libibverbs asks netlink for
 * the driver. (Before version 23, it chooses the provider by the prefix `rxe`.) The name of a device without an address
 * begins with the name of its driver, for example ctx0. Only the daemon knows all drivers (`driverOf`).
 */

import { linkQuantities } from '../../base/quantities.ts'
import { didYouMean } from '../../base/suggest.ts'
import type { Driver, FabricOptions } from '../../core/driver-contract.ts'
import { readDeviceLimit } from '../../settings/device-limits.ts'
import { guidBytes, isPartitionKey, MAX_PKEYS, readGuid } from '../../settings/fabric.ts'
import { type AdapterName, pciModelNames } from '../../spec/check/adapters.ts'
import { LineRate } from '../../spec/congestion.ts'
import { deviceLimitNames } from '../../spec/device-limits.ts'
import { isLinkLocal, parseAddress, reasonUnusable } from '../../transport/wire/address.ts'
import type { DeviceSpec, PciFunction } from '../../uapi/tool.ts'

export const defaultDevice: DeviceSpec = { name: 'rxe0', address: '127.0.0.1' }

/** Linux's IB_DEVICE_NAME_MAX without the NUL. */
const MAX_NAME_LENGTH = 63

/** A device with an address is a soft device, whatever its name: `rdma link add` accepts all names. */
export const hasAddress = ({ address }: DeviceSpec): boolean => address !== ''

/** Why a device cannot have this name; undefined if it can. */
export const deviceNameError = (name: string): string | undefined =>
  /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) && name.length <= MAX_NAME_LENGTH
    ? undefined
    : `device name "${name}": a name begins with a letter or digit, has letters, digits, ".", "_", "-", and at most ${MAX_NAME_LENGTH} characters`

const pciText = ({ address, node, model }: PciFunction): string =>
  `,pci=${address}${node === NO_NODE ? '' : `,numa=${node}`},model=${model}`

const pkeyText = (key: number): string => `0x${key.toString(16).padStart(4, '0')}`
const fabricText = ({ layer, guid, pkeys }: DeviceSpec): string =>
  `${layer === undefined ? '' : `,layer=${layer}`}${guid === undefined ? '' : `,guid=0x${guid}`}${pkeys === undefined ? '' : `,pkeys=${pkeys.map(pkeyText).join('+')}`}`

const limitsText = (limits: DeviceSpec['limits'] = {}): string =>
  Object.entries(limits)
    .map(([name, value]) => `,${name}=${value}`)
    .join('')

const vlansText = (vlans: DeviceSpec['vlans']): string =>
  vlans === undefined ? '' : `,vlan=${vlans.flatMap(({ id, addresses }) => [id, ...addresses]).join('+')}`

/** The inverse of `parseDevice`. */
export const deviceText = (spec: DeviceSpec): string => {
  const { name, address, driver, dcqcn, pci, nodeGuid, limits, vlans } = spec
  return `${name}${address === '' ? '' : `@${address}`}${driver === undefined ? '' : `,driver=${driver}`}${fabricText(spec)}${dcqcn === undefined ? '' : `,dcqcn=${linkQuantities.rate.write(dcqcn)}`}${pci === undefined ? '' : pciText(pci)}${nodeGuid === undefined ? '' : `,node_guid=0x${nodeGuid}`}${vlansText(vlans)}${limitsText(limits)}`
}

/** NUMA_NO_NODE. */
export const NO_NODE = -1
/** 2^CONFIG_NODES_SHIFT - 1 of kernels for the largest machines. */
const MAX_NODE = 1023
/** The adapter that most programs know. */
const DEFAULT_MODEL: AdapterName = 'mlx5'

/** A PCI address with its domain, in small letters. Throws an Error. */
const parsePciAddress = (text: string): string => {
  const address = text.toLowerCase()
  if (!/^(?:[\da-f]{4}:)?[\da-f]{2}:[01][\da-f]\.[0-7]$/.test(address))
    throw new Error(
      `pci="${text}": a PCI address is [DOMAIN:]BUS:DEVICE.FUNCTION in hexadecimal, with a device up to 1f and a function up to 7, for example 0000:81:00.0`,
    )
  return address.length < '0000:81:00.0'.length ? `0000:${address}` : address
}

/** Throws an Error. */
const parseNode = (text: string): number => {
  if (text === `${NO_NODE}`) return NO_NODE
  if (!/^\d{1,4}$/.test(text) || Number(text) > MAX_NODE)
    throw new Error(`numa="${text}": give the number of a NUMA node, from 0 to ${MAX_NODE}, or ${NO_NODE} for none`)
  return Number(text)
}

/** Throws an Error. */
const parseModel = (text: string): AdapterName => {
  const model = pciModelNames.find(name => name === text)
  if (model === undefined) throw new Error(`model="${text}" is not one of ${pciModelNames.join(', ')}`)
  return model
}

/** The adapter whose driver has this name. */
const modelOfDriver = (driver: string | undefined): AdapterName | undefined =>
  pciModelNames.find(name => name === driver)

/** The line rate of `dcqcn=RATE`, bits/s. Throws an Error. */
const parseDcqcn = (text: string): number => {
  const rate = linkQuantities.rate.read(text)
  if (rate === undefined || rate < LineRate.MIN || rate > LineRate.MAX)
    throw new Error(`dcqcn="${text}": give a line rate from 1mbit to 800gbit, for example 40gbit`)
  return rate
}

/** Throws an Error. */
const parsePkeys = (text: string): number[] => {
  const keys = text.split('+')
  const wrong = keys.find(key => !/^0x[\da-f]{1,4}$/i.test(key) || !isPartitionKey(Number(key)))
  if (wrong !== undefined || keys.length > MAX_PKEYS)
    throw new Error(
      `pkeys="${text}": give 1 to ${MAX_PKEYS} partition keys from 0x0001 to 0xffff with + between them, for example 0xffff+0x8001; 0x8000 is none`,
    )
  return keys.map(Number)
}

/** The settings of an InfiniBand port. Throws an Error. */
const parseFabric = ({ layer, guid, pkeys }: Settings): Pick<DeviceSpec, 'layer' | 'guid' | 'pkeys'> => {
  if (layer !== undefined && layer !== 'infiniband' && layer !== 'ethernet')
    throw new Error(`layer="${layer}" is not one of ethernet, infiniband`)
  if (layer === 'infiniband')
    return {
      layer,
      ...(guid !== undefined && { guid: readGuid(guid) }),
      ...(pkeys !== undefined && { pkeys: parsePkeys(pkeys) }),
    }
  const needsLayer = guid === undefined ? pkeys && 'pkeys=' : 'guid='
  if (needsLayer !== undefined)
    throw new Error(`${needsLayer} is a setting of an InfiniBand port: give layer=infiniband too`)
  return {}
}

/** What `dcqcn` alone stands for. */
const DEFAULT_DCQCN = `dcqcn=${LineRate.DEFAULT}`

const SETTINGS = [
  'driver',
  'layer',
  'guid',
  'pkeys',
  'dcqcn',
  'pci',
  'numa',
  'model',
  'node_guid',
  'vlan',
  ...deviceLimitNames,
] as const
type Settings = Partial<Record<(typeof SETTINGS)[number], string>>
const SETTING = new RegExp(`^(${SETTINGS.join('|')})=(.*)$`, 's')

/** Of a virtual function that nobody has given one. */
const NO_GUID = '0000000000000000'

/** Throws an Error. */
const parseNodeGuid = ({ node_guid: text, layer }: Settings): Pick<DeviceSpec, 'nodeGuid'> => {
  if (text === undefined) return {}
  if (layer === 'infiniband') throw new Error('node_guid= is not for an InfiniBand port: give guid=')
  return { nodeGuid: /^(?:0x)?0+$/i.test(text) ? NO_GUID : readGuid(text) }
}

/** IEEE 802.1Q: 0 is no VLAN, and 4095 is reserved. */
const MAX_VLAN = 4094

/** Throws an Error. */
const parseVlans = ({ vlan: text, layer }: Settings): Pick<DeviceSpec, 'vlans'> => {
  if (text === undefined) return {}
  if (layer === 'infiniband')
    throw new Error('vlan= is not for an InfiniBand port: partitions are its VLANs; give pkeys=')
  const refuse = (why: string): Error =>
    new Error(
      `vlan="${text}": ${why}; give the number of a VLAN from 1 to ${MAX_VLAN} and its addresses with + between them, for example 100+10.0.100.1`,
    )
  const vlans: { readonly id: number; readonly addresses: string[] }[] = []
  for (const word of text.split('+')) {
    const id = /^\d+$/.test(word) ? Number(word) : undefined
    if (id !== undefined) {
      if (id < 1 || id > MAX_VLAN) throw refuse(`${id} is no VLAN`)
      if (vlans.some(vlan => vlan.id === id)) throw refuse(`VLAN ${id} is given twice`)
      vlans.push({ id, addresses: [] })
      continue
    }
    const address = parseAddress(word)
    if (address === undefined) throw refuse(`"${word}" is not an IPv4 or IPv6 address`)
    const reason =
      reasonUnusable(address) ?? (isLinkLocal(address) ? 'is link-local, and the device has it' : undefined)
    if (reason !== undefined) throw refuse(`${word} ${reason}`)
    const last = vlans.at(-1)
    if (last === undefined) throw refuse(`${word} is before a number`)
    last.addresses.push(word)
  }
  const empty = vlans.find(({ addresses }) => addresses.length === 0)
  if (empty !== undefined) throw refuse(`VLAN ${empty.id} has no address`)
  return { vlans }
}

/** Throws an Error. */
const parseLimits = (found: Settings): Pick<DeviceSpec, 'limits'> => {
  const given = deviceLimitNames.filter(name => found[name] !== undefined)
  return given.length === 0
    ? {}
    : { limits: Object.fromEntries(given.map(name => [name, readDeviceLimit(name, found[name]!)])) }
}

/** Parses settings, each NAME=VALUE, in any order. Throws an Error. */
const parseSettings = (settings: readonly string[]): Omit<DeviceSpec, 'name' | 'address'> => {
  const found: Settings = {}
  for (const setting of settings) {
    const [, key, value] = SETTING.exec(setting === 'dcqcn' ? DEFAULT_DCQCN : setting) ?? []
    if (key === undefined)
      throw new Error(
        `"${setting}" is no setting of a device; after the address may follow driver=, layer=, guid=, pkeys=, dcqcn, pci=, numa=, model=, node_guid=, vlan=, and the limits ${deviceLimitNames.map(name => `${name}=`).join(', ')}${didYouMean(setting.split('=', 1)[0]!, SETTINGS)}`,
      )
    if (found[key as keyof typeof found] !== undefined) throw new Error(`${key}= is given twice`)
    found[key as keyof typeof found] = value!
  }
  const { driver, dcqcn, pci, numa, model } = found
  const chosen = {
    ...(driver !== undefined && { driver }),
    ...parseFabric(found),
    ...(dcqcn !== undefined && { dcqcn: parseDcqcn(dcqcn) }),
    ...parseNodeGuid(found),
    ...parseVlans(found),
    ...parseLimits(found),
  }
  const own = modelOfDriver(driver)
  if (own !== undefined && model !== undefined && model !== own)
    throw new Error(`model="${model}" is not the model of driver=${own}, which is ${own}; omit model=`)
  if (pci !== undefined)
    return {
      ...chosen,
      pci: {
        address: parsePciAddress(pci),
        node: numa === undefined ? NO_NODE : parseNode(numa),
        model: model === undefined ? (own ?? DEFAULT_MODEL) : parseModel(model),
      },
    }
  const needsFunction = settings.find(setting => /^(numa|model)=/.test(setting))
  if (needsFunction === undefined) return chosen
  throw new Error(`${needsFunction} needs a PCI function: give its address too, for example pci=0000:81:00.0`)
}

/**
 * Parses NAME@ADDRESS or NAME, and the settings after it. Throws an Error with a message for people. Whether a driver
 * makes such a device is the matter of `driverOf`.
 */
export const parseDevice = (text: string): DeviceSpec => {
  const [device = '', ...settings] = text.split(',')
  const spec = parseNameAndAddress(device)
  try {
    return { ...spec, ...parseSettings(settings) }
  } catch (error) {
    throw new Error(`device "${text}": ${(error as Error).message}`, { cause: error })
  }
}

/** Throws an Error with a message for people. */
const parseNameAndAddress = (text: string): DeviceSpec => {
  const at = text.indexOf('@')
  const name = at < 0 ? text : text.slice(0, at)
  const nameError = deviceNameError(name)
  if (nameError !== undefined) throw new Error(nameError)
  if (at < 0) return { name, address: '' }
  const address = text.slice(at + 1)
  const bytes = parseAddress(address)
  if (!bytes) throw new Error(`device "${text}": "${address}" is not an IPv4 or IPv6 address`)
  const reason = reasonUnusable(bytes)
  if (reason) throw new Error(`device "${text}": ${address} ${reason}; each device needs its own address`)
  return { name, address }
}

/** The domain of the PCI functions that devices get without `pci=`; no machine has it. */
const OWN_DOMAIN = 'efa0'

/** The device with a PCI function, if its driver is that of an adapter. `taken`: addresses of other functions. */
export const withPciFunction = (spec: DeviceSpec, taken: readonly string[]): DeviceSpec => {
  const model = modelOfDriver(spec.driver)
  if (model === undefined || spec.pci !== undefined) return spec
  for (let bus = 0; ; bus++) {
    const address = `${OWN_DOMAIN}:${bus.toString(16).padStart(2, '0')}:00.0`
    if (!taken.includes(address)) return { ...spec, pci: { address, node: NO_NODE, model } }
  }
}

/** The device without the PCI function that `withPciFunction` has given it. */
export const withoutOwnFunction = (spec: DeviceSpec): DeviceSpec => {
  const { pci, ...others } = spec
  return pci?.address.startsWith(`${OWN_DOMAIN}:`) ? others : spec
}

/** Of a device with an InfiniBand port. */
export const fabricOf = ({ layer, guid, pkeys }: DeviceSpec): FabricOptions | undefined =>
  layer === undefined ? undefined : { guid: guid === undefined ? undefined : guidBytes(guid), pkeys }

/** What `driverOf` needs of a driver. */
type NamedDriver = Pick<Driver, 'name' | 'hasAddress' | 'hasRateControl' | 'hasVlans' | 'hasFabric' | 'settableLimits'>

const namesOf = (drivers: readonly NamedDriver[]): string => drivers.map(({ name }) => name).join(', ')

/**
 * The driver of a device, among `drivers`; the first one with addresses is the default for devices with an address.
 * Throws an Error with a message for people if no driver makes the device.
 */
export const driverOf = <D extends NamedDriver>(
  { name, address, driver: wanted, dcqcn, layer, vlans, limits = {} }: DeviceSpec,
  drivers: readonly D[],
): D => {
  const refuse = (reason: string): Error =>
    new Error(`device "${name}${address === '' ? '' : `@${address}`}": ${reason}`)
  const named =
    wanted === undefined
      ? drivers.find(driver => name.startsWith(driver.name) && !driver.hasAddress)
      : drivers.find(driver => driver.name === wanted)
  if (wanted !== undefined && named === undefined)
    throw refuse(
      `driver="${wanted}" is not one of ${namesOf(drivers)}${didYouMean(
        wanted,
        drivers.map(one => one.name),
      )}`,
    )
  const found = named ?? (address === '' ? undefined : drivers.find(driver => driver.hasAddress))
  if (found === undefined || (found.hasAddress && address === ''))
    throw refuse(
      `the address is missing; write it as NAME@ADDRESS, for example ${name}@127.0.0.1 (names of devices without an address begin with ${namesOf(drivers.filter(driver => !driver.hasAddress))})`,
    )
  if (!found.hasAddress && address !== '')
    throw refuse(`a device of driver ${found.name} has no network; omit the address`)
  if (layer !== undefined && !found.hasFabric)
    throw refuse(
      `driver ${found.name} has no InfiniBand port; those with one are ${namesOf(drivers.filter(driver => driver.hasFabric))}`,
    )
  if (layer !== undefined && dcqcn !== undefined) throw refuse('an InfiniBand port has no DCQCN; omit dcqcn')
  if (dcqcn !== undefined && !found.hasRateControl) throw refuse(`driver ${found.name} has no rate control; omit dcqcn`)
  if (vlans !== undefined && !found.hasVlans) throw refuse(`driver ${found.name} has no VLANs; omit vlan`)
  const { settableLimits = [] } = found
  const foreign = deviceLimitNames.find(limit => limits[limit] !== undefined && !settableLimits.includes(limit))
  if (foreign !== undefined)
    throw refuse(
      `${foreign}= cannot be set for driver ${found.name}, but ${settableLimits.join(', ') || 'no limit'} can`,
    )
  return found
}

/** A device with an address, of a driver of `drivers`. Its `driver` is absent if the device has it anyway. */
export const specOf = (name: string, address: string, driver: string, drivers: readonly NamedDriver[]): DeviceSpec => {
  const isDefault = drivers.find(one => one.hasAddress)?.name === driver
  const hasOtherName = drivers.some(one => !one.hasAddress && name.startsWith(one.name))
  return isDefault && !hasOtherName ? { name, address } : { name, address, driver }
}

/** Names, addresses and PCI functions must be unique. Throws like parseDevice. */
export const checkDevices = (devices: readonly DeviceSpec[]): void => {
  const names = new Set<string>()
  const addresses = new Map<string, string>()
  const functions = new Map<string, string>()
  for (const { name, address, pci, vlans = [] } of devices) {
    if (names.has(name)) throw new Error(`device name "${name}" is given twice`)
    names.add(name)
    if (pci !== undefined) {
      const other = functions.get(pci.address)
      if (other !== undefined)
        throw new Error(`devices ${other} and ${name} have the same PCI address ${pci.address}; each needs its own`)
      functions.set(pci.address, name)
    }
    if (address === '') continue
    for (const one of [address, ...vlans.flatMap(vlan => vlan.addresses)]) {
      // One address can be written in several ways.
      const key = String(parseAddress(one))
      const other = addresses.get(key)
      if (other === name) throw new Error(`device ${name} has the address ${one} twice`)
      if (other !== undefined)
        throw new Error(`devices ${other} and ${name} have the same address ${one}; each needs its own`)
      addresses.set(key, name)
    }
  }
}
