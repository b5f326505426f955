/*
 * `userdma machine capture`: reads what programs read of this machine in sysfs, for a machine file
 * (tools/topology/machine-file.ts). It needs no right, and takes neither serial numbers nor addresses: only files whose
 * texts are numbers and names of kinds are read, and names of devices that are made of their addresses get others.
 * What cannot be kept is a note.
 */
import { existsSync, readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { basename, join } from 'node:path'
import { sysfsText } from '../../host/processors.ts'
import { LinkSpeed, LinkWidth } from '../../spec/enums.ts'
import { lanesOf } from '../../spec/link-rate.ts'
import {
  acsControls,
  isBridge,
  linkSpeeds,
  type Machine,
  type MachineBus,
  type MachineFunction,
  type MachineNode,
  NO_NODE,
  numbersOf,
  systemFiles,
} from '../../tools/topology/machine-file.ts'

interface Captured {
  readonly machine: Machine
  /** Sentences about what the file does not have. */
  readonly notes: readonly string[]
}

const CPUS = '/sys/devices/system/cpu'
const NODES = '/sys/devices/system/node'
const FUNCTIONS = '/sys/bus/pci/devices'

/** In the order of their names. */
const namesIn = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder).sort() : [])

/** The last name of the path to which a link leads; undefined: there is none. */
const linkName = (link: string): string | undefined => {
  try {
    return basename(readlinkSync(link))
  } catch {
    return undefined
  }
}

const listOf = (path: string): number[] | undefined => numbersOf(sysfsText(path) ?? '-')
const numberIn = (path: string): number => Number(sysfsText(path) ?? Number.NaN)

/** The names by which devices are written. */
class Names {
  readonly #given = new Map<string, string>()
  readonly #notes: string[]

  constructor(notes: string[]) {
    this.#notes = notes
  }

  /** A name of its own if `name` is made of an address, as enx001122334455. */
  of(name: string, kind: string): string {
    if (!/[\da-f]{12}/i.test(name)) return name
    const known = this.#given.get(name)
    if (known !== undefined) return known
    const given = `${kind}x${this.#given.size}`
    this.#given.set(name, given)
    this.#notes.push(`the name of ${given} is another here, where it has the address of the device`)
    return given
  }
}

// ---- processors and nodes ----

const captureSystem = (): Machine['system'] =>
  Object.fromEntries(
    Object.entries(systemFiles).flatMap(([key, file]) => {
      const text = sysfsText(`/sys/class/dmi/id/${file}`)?.replace(/[^\x20-\x7e]|"/g, '')
      return text === undefined || text === '' ? [] : [[key, text]]
    }),
  )

const capturePackages = (online: readonly number[]): Machine['packages'] => {
  const packages = new Map<number, Map<string, readonly number[]>>()
  for (const cpu of online) {
    const topology = `${CPUS}/cpu${cpu}/topology`
    const id = Math.max(numberIn(`${topology}/physical_package_id`) || 0, 0)
    const siblings = listOf(`${topology}/thread_siblings_list`)?.filter(other => online.includes(other))
    const core = siblings?.includes(cpu) === true ? siblings : [cpu]
    const cores = packages.get(id) ?? new Map<string, readonly number[]>()
    packages.set(id, cores.set(core.join(), core))
  }
  return [...packages]
    .sort(([a], [b]) => a - b)
    .map(([id, cores]) => ({ id, cores: [...cores.values()].sort((a, b) => a[0]! - b[0]!) }))
}

/** MiB. */
const memoryIn = (path: string): number =>
  Math.round(Number(/MemTotal:\s+(\d+)/.exec(sysfsText(path) ?? '')?.[1] ?? 0) / 1024)

const captureNodes = (online: readonly number[]): MachineNode[] => {
  const ids = listOf(`${NODES}/online`)
  if (ids === undefined) return [{ id: 0, cpus: online, memory: memoryIn('/proc/meminfo'), distances: [10] }]
  return ids.map(id => {
    const distances = sysfsText(`${NODES}/node${id}/distance`)?.split(/\s+/).map(Number) ?? []
    return {
      id,
      cpus: listOf(`${NODES}/node${id}/cpulist`)?.filter(cpu => online.includes(cpu)) ?? [],
      memory: memoryIn(`${NODES}/node${id}/meminfo`),
      distances: distances.length === ids.length ? distances : ids.map(other => (other === id ? 10 : 20)),
    }
  })
}

// ---- PCI functions ----

const hexIn = (path: string): number => Number.parseInt(sysfsText(path) ?? '0', 16)

const captureLink = (folder: string): Pick<MachineFunction, 'link'> => {
  const speedIn = (file: string) =>
    linkSpeeds.find(speed => sysfsText(`${folder}/${file}`)?.startsWith(`${speed} GT/s`))
  const [speed, maxSpeed] = [speedIn('current_link_speed'), speedIn('max_link_speed')]
  const [width, maxWidth] = [numberIn(`${folder}/current_link_width`), numberIn(`${folder}/max_link_width`)]
  const isUp = speed !== undefined && width >= 1 && width <= 32
  const hasMost = maxSpeed !== undefined && maxWidth >= 1 && maxWidth <= 32
  return isUp
    ? { link: { speed, width, maxSpeed: hasMost ? maxSpeed : speed, maxWidth: hasMost ? maxWidth : width } }
    : {}
}

const captureGroup = (folder: string): Pick<MachineFunction, 'group'> => {
  const name = linkName(`${folder}/iommu_group`)
  if (name === undefined || !/^\d{1,6}$/.test(name)) return {}
  const type = sysfsText(`${folder}/iommu_group/type`)
  return { group: { id: Number(name), ...(type !== undefined && /^[A-Za-z-]+$/.test(type) && { type }) } }
}

const EXTENDED = 0x100
const ACS_ID = 0x000d
/** A longer list would be a loop. */
const MAX_CAPABILITIES = 960

/** The control register is behind the first 64 bytes, which all users may read. */
const acsIn = (config: Buffer): MachineFunction['acs'] => {
  let at = EXTENDED
  for (let count = 0; at >= EXTENDED && at + 8 <= config.length && count < MAX_CAPABILITIES; count++) {
    const head = config.readUInt32LE(at)
    const control = config.readUInt16LE(at + 6)
    if ((head & 0xffff) === ACS_ID) return acsControls.filter((_, bit) => (control & (1 << bit)) !== 0)
    at = head >>> 20
  }
  return undefined
}

/** Followed by the secondary and the subordinate one. */
const PRIMARY_BUS = 0x18

const captureConfig = (folder: string, isOfBridge: boolean): Pick<MachineFunction, 'acs' | 'buses'> => {
  let config = Buffer.alloc(0)
  try {
    config = readFileSync(`${folder}/config`)
  } catch {
    // a function that is gone, or a kernel that hides it
  }
  const acs = acsIn(config)
  const [own = 0, first = 0, last = 0] = config.subarray(PRIMARY_BUS)
  const hasBuses = isOfBridge && ((first > own && first <= last) || last === 0)
  return { ...(acs !== undefined && { acs }), ...(hasBuses && { buses: [first, last] as const }) }
}

/** The rate of a port, of its text `200 Gb/sec (4X HDR)`. */
const rateIn = (path: string): NonNullable<MachineFunction['rdma']>['rate'] => {
  const [, lanes, name = ''] = /\((\d+)X ([A-Z\d]+)\)/.exec(sysfsText(path) ?? '') ?? []
  const activeWidth = Object.values(LinkWidth.values).find(
    one => one > 0 && `${lanesOf({ activeWidth: one })}` === lanes,
  )
  const activeSpeed = Object.entries(LinkSpeed.values).find(([key]) => key === name)?.[1]
  return activeWidth === undefined || !activeSpeed ? undefined : { activeWidth, activeSpeed }
}

const captureAdapter = (folder: string, names: Names, notes: string[]): Pick<MachineFunction, 'rdma'> => {
  const [device, ...others] = namesIn(`${folder}/infiniband`)
  if (device === undefined) return {}
  const name = names.of(device, 'rdma')
  for (const other of others) notes.push(`${names.of(other, 'rdma')} is left out: a function has one RDMA device here`)
  const ports = namesIn(`${folder}/infiniband/${device}/ports`)
  if (ports.length > 1) notes.push(`${name} has ${ports.length} ports; the file has the first`)
  const port = `${folder}/infiniband/${device}/ports/${ports[0] ?? 1}`
  const rate = rateIn(`${port}/rate`)
  const isInfiniBand = sysfsText(`${port}/link_layer`) === 'InfiniBand'
  return { rdma: { name, isInfiniBand, ...(rate !== undefined && { rate }) } }
}

/** The interfaces of a function, also by a virtio device. */
const interfacesOf = (folder: string, names: Names): string[] =>
  [folder, ...namesIn(folder).flatMap(name => (/^virtio\d+$/.test(name) ? [join(folder, name)] : []))]
    .flatMap(place => namesIn(`${place}/net`))
    .map(name => names.of(name, 'net'))

const captureFunction = (address: string, names: Names, notes: string[]): MachineFunction => {
  const folder = `${FUNCTIONS}/${address}`
  const pciClass = hexIn(`${folder}/class`)
  const node = numberIn(`${folder}/numa_node`)
  const driver = linkName(`${folder}/driver`)
  return {
    address,
    pciClass,
    ids: [hexIn(`${folder}/vendor`), hexIn(`${folder}/device`)],
    subsystem: [hexIn(`${folder}/subsystem_vendor`), hexIn(`${folder}/subsystem_device`)],
    revision: hexIn(`${folder}/revision`),
    ...(driver !== undefined && { driver }),
    node: node >= 0 ? node : NO_NODE,
    ...captureLink(folder),
    ...captureGroup(folder),
    ...captureConfig(folder, isBridge({ pciClass })),
    ...captureAdapter(folder, names, notes),
    interfaces: interfacesOf(folder, names),
    functions: [],
  }
}

/** The root bus of a function, and the functions above it, from its folder. */
const pathOf = (address: string): { readonly bus: string; readonly above: readonly string[] } | undefined => {
  const [, bus, path = ''] = /\/pci([\da-f]{4}:[\da-f]{2})\/(.*)$/.exec(realpathSync(`${FUNCTIONS}/${address}`)) ?? []
  return bus === undefined ? undefined : { bus, above: path.split('/').slice(0, -1) }
}

interface OpenFunction extends MachineFunction {
  readonly functions: OpenFunction[]
}

const captureBuses = (notes: string[]): MachineBus[] => {
  const names = new Names(notes)
  const found = new Map<string, OpenFunction>()
  const buses = new Map<string, { functions: OpenFunction[] }>()
  const addresses = namesIn(FUNCTIONS)
  for (const address of addresses) {
    if (!/^[\da-f]{4}:/.test(address))
      notes.push(`${address} is left out: a domain has four hexadecimal digits in the file`)
    else found.set(address, captureFunction(address, names, notes) as OpenFunction)
  }
  for (const [address, one] of found) {
    const path = pathOf(address)
    const parent = path === undefined ? undefined : found.get(path.above.at(-1) ?? '')
    if (path === undefined || (path.above.length > 0 && parent?.buses === undefined))
      notes.push(`${address} is left out: it is below no PCI bridge`)
    else if (parent !== undefined) parent.functions.push(one)
    else {
      const bus = buses.get(path.bus) ?? { functions: [] }
      bus.functions.push(one)
      buses.set(path.bus, bus)
    }
  }
  return [...buses]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([address, { functions }]) => ({ address, node: functions[0]?.node ?? NO_NODE, functions }))
}

/** What programs read of this machine. */
export const captureMachine = (): Captured => {
  const notes: string[] = []
  const online = listOf(`${CPUS}/online`) ?? [0]
  const machine = {
    system: captureSystem(),
    packages: capturePackages(online),
    nodes: captureNodes(online),
    iommus: namesIn('/sys/class/iommu'),
    buses: captureBuses(notes),
  }
  if (process.geteuid?.() !== 0 && machine.buses.length > 0)
    notes.push('controls of ACS are for root to read: without root, the file has none of a real machine')
  return { machine, notes }
}
