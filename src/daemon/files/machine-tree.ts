/*
 * The machine of --machine in the tree (tree.ts): its PCI functions, processors, NUMA nodes, network interfaces and
 * IOMMU groups, as Linux shows them. The shim shows these folders in place of the machine's own (shim/files/paths.c);
 * the file `machine` in the tree tells it to.
 *
 * The interfaces of this machine stay in /sys/class/net, without a PCI function: programs reach others by them.
 */
import { existsSync, readdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { possibleProcessors, processorMask } from '../../host/processors.ts'
import {
  acsControls,
  functionsOf,
  hex,
  isBridge,
  linkSpeeds,
  listText,
  type Machine,
  type MachineBus,
  type MachineFunction,
  type MachineNode,
  NO_NODE,
  type PciSpeed,
  systemFiles,
} from '../../tools/topology/machine-file.ts'
import { functionConfig, functionFiles, type ShownFunction } from './pci-files.ts'
import { ATTRIBUTE_MODE, type Files, filesIn, makeFolder, makeLink, writeFiles, writeNewFile } from './tree-files.ts'

export interface ShownMachine {
  readonly machine: Machine
  /** The drivers of the devices that have a function of the machine, by its address. */
  readonly drivers: ReadonlyMap<string, string>
}

const CPUS = 'sys/devices/system/cpu'
const NODES = 'sys/devices/system/node'
const INTERFACES = 'sys/class/net'
const VIRTUAL_INTERFACES = 'sys/devices/virtual/net'
/** The folders that are shown even if the machine file has nothing for them. */
const FOLDERS = [
  ...['sys/bus/pci/devices', 'sys/bus/pci/drivers', 'sys/class/pci_bus', 'sys/class/iommu', 'sys/class/block'],
  ...['sys/kernel/iommu_groups', INTERFACES, VIRTUAL_INTERFACES],
]

/** What is made of a function, above it or below. */
interface Made {
  readonly files: Record<string, string>
  readonly links: [link: string, target: string][]
  readonly configs: [path: string, bytes: Uint8Array][]
}

const add = (made: Made, folder: string, files: Files): void => {
  Object.assign(made.files, filesIn(folder, files))
}

// ---- processors and nodes ----

const addProcessors = (made: Made, { packages, nodes }: Machine, width: number): void => {
  const all: number[] = []
  for (const { id, cores } of packages) {
    const ofPackage = cores.flat().sort((a, b) => a - b)
    all.push(...ofPackage)
    const mask = processorMask(ofPackage, width)
    const shared = { physical_package_id: `${id}`, package_cpus: mask, core_siblings: mask }
    for (const [core, cpus] of cores.entries()) {
      const siblings = processorMask(cpus, width)
      const own = { core_id: `${core}`, core_cpus: siblings, thread_siblings: siblings }
      const [first, ...others] = cpus.map(cpu => `${CPUS}/cpu${cpu}/topology`)
      add(made, first!, { ...shared, ...own, thread_siblings_list: listText(cpus) })
      // It has the same texts for all processors of a core; one link is faster than many files.
      for (const other of others) made.links.push([other, first!])
    }
  }
  const online = listText(all.sort((a, b) => a - b))
  add(made, CPUS, {
    online,
    present: online,
    possible: `0-${width - 1}`,
    offline: '',
    kernel_max: `${width - 1}`,
  })
  for (const { id, cpus } of nodes)
    for (const cpu of cpus) made.links.push([`${CPUS}/cpu${cpu}/node${id}`, `${NODES}/node${id}`])
  made.links.push(['sys/bus/cpu/devices', CPUS])
}

const nodeFiles = ({ id, cpus, memory, distances }: MachineNode, width: number): Files => {
  const kilobytes = `${memory * 1024}`.padStart(8)
  return {
    cpulist: listText(cpus),
    cpumap: processorMask(cpus, width),
    distance: distances.join(' '),
    meminfo: [`MemTotal:       ${kilobytes} kB`, `MemFree:        ${kilobytes} kB`, 'MemUsed:               0 kB']
      .map(line => `Node ${id} ${line}`)
      .join('\n'),
    numastat: ['numa_hit', 'numa_miss', 'numa_foreign', 'interleave_hit', 'local_node', 'other_node']
      .map(name => `${name} 0`)
      .join('\n'),
  }
}

const addNodes = (made: Made, { nodes }: Machine, width: number): void => {
  const ids = (has: (node: MachineNode) => boolean): string => listText(nodes.filter(has).map(({ id }) => id))
  add(made, NODES, {
    online: ids(() => true),
    possible: ids(() => true),
    has_cpu: ids(({ cpus }) => cpus.length > 0),
    has_memory: ids(({ memory }) => memory > 0),
    has_normal_memory: ids(({ memory }) => memory > 0),
  })
  for (const node of nodes) add(made, `${NODES}/node${node.id}`, nodeFiles(node, width))
  made.links.push(['sys/bus/node/devices', NODES])
}

// ---- PCI functions ----

/** In the configuration space. */
const Pcie = {
  POINTER: 0x34,
  HAS_CAPABILITIES: 0x10,
  CAPABILITY: 0x40,
  ID: 0x10,
  VERSION: 2,
  ACS: 0x100,
  ACS_ID: 0x000d,
}
const CONFIG_BYTES = 256
const EXTENDED_BYTES = 4096

/** Of the PCI Express capability, by the place: a bridge below a root port is the upstream port of a switch. */
const PortType = { ENDPOINT: 0, ROOT_PORT: 4, UPSTREAM: 5, DOWNSTREAM: 6, INTEGRATED: 9 }
const portTypeOf = (found: MachineFunction, above: number | undefined): number => {
  if (!isBridge(found)) return above === undefined ? PortType.INTEGRATED : PortType.ENDPOINT
  if (above === undefined) return PortType.ROOT_PORT
  return above === PortType.UPSTREAM ? PortType.DOWNSTREAM : PortType.UPSTREAM
}

const speedCode = (speed: PciSpeed): number => linkSpeeds.indexOf(speed) + 1

const configOf = (found: MachineFunction, shown: ShownFunction, portType: number): Uint8Array => {
  const { link, acs, buses } = found
  const bytes = functionConfig(shown, acs === undefined ? CONFIG_BYTES : EXTENDED_BYTES)
  if (buses !== undefined) {
    bytes.fill(0, 0x2c, 0x30)
    bytes.writeUInt8(1, 0x0e)
    bytes.set([Number.parseInt(found.address.slice(5, 7), 16), ...buses], 0x18)
  }
  if (link === undefined && acs === undefined) return bytes
  const at = Pcie.CAPABILITY
  bytes.writeUInt16LE(Pcie.HAS_CAPABILITIES, 0x06)
  bytes.writeUInt8(at, Pcie.POINTER)
  bytes.writeUInt8(Pcie.ID, at)
  bytes.writeUInt16LE(Pcie.VERSION | (portType << 4), at + 0x02)
  if (link !== undefined) {
    const fastest = speedCode(link.maxSpeed)
    bytes.writeUInt32LE(fastest | (link.maxWidth << 4), at + 0x0c)
    bytes.writeUInt16LE(speedCode(link.speed) | (link.width << 4), at + 0x12)
    bytes.writeUInt32LE(((1 << fastest) - 1) << 1, at + 0x2c)
    bytes.writeUInt16LE(fastest, at + 0x30)
  }
  if (acs !== undefined) {
    bytes.writeUInt32LE(Pcie.ACS_ID | (1 << 16), Pcie.ACS)
    bytes.writeUInt16LE((1 << acsControls.length) - 1, Pcie.ACS + 4)
    bytes.writeUInt16LE(
      acs.reduce((bits, control) => bits | (1 << acsControls.indexOf(control)), 0),
      Pcie.ACS + 6,
    )
  }
  return bytes
}

/** Whether libibverbs may choose a provider by the function: the device there has another driver than its adapter. */
const hasAlias = ({ address, driver }: MachineFunction, drivers: ShownMachine['drivers']): boolean => {
  const deviceDriver = drivers.get(address)
  return deviceDriver === undefined || driver?.startsWith(deviceDriver) === true
}

const addInterface = (made: Made, folder: string, name: string, isInfiniBand: boolean): void => {
  const own = `${folder}/net/${name}`
  add(made, own, {
    type: isInfiniBand ? '32' : '1',
    address: Array<string>(isInfiniBand ? 20 : 6)
      .fill('00')
      .join(':'),
    operstate: 'unknown',
    dev_id: '0x0',
    dev_port: '0',
    uevent: `INTERFACE=${name}`,
  })
  made.links.push([`${own}/device`, folder], [`${own}/subsystem`, INTERFACES], [`${INTERFACES}/${name}`, own])
}

/** The list of the processors near a bus, in the class pci_bus. */
const addBus = (made: Made, address: string, folder: string, near: ShownFunction['near']): void => {
  const own = `${folder}/pci_bus/${address}`
  add(made, own, { cpuaffinity: near.mask, cpulistaffinity: near.list })
  made.links.push([`sys/class/pci_bus/${address}`, own], [`${own}/device`, folder])
}

type NearReader = (node: number) => ShownFunction['near']

const addFunction = (
  made: Made,
  found: MachineFunction,
  parent: string,
  above: number | undefined,
  nearOf: NearReader,
  drivers: ShownMachine['drivers'],
): void => {
  const { address, ids, subsystem, driver, link, group, buses, node } = found
  const folder = `${parent}/${address}`
  const shown: ShownFunction = {
    address,
    vendor: ids[0],
    device: ids[1],
    subsystemVendor: subsystem[0],
    subsystemDevice: subsystem[1],
    revision: found.revision,
    pciClass: found.pciClass,
    hasAlias: hasAlias(found, drivers),
    node,
    near: nearOf(node),
    ...(driver !== undefined && { driver }),
    ...(link !== undefined && { link }),
  }
  const portType = portTypeOf(found, above)
  add(made, folder, functionFiles(shown))
  made.configs.push([`${folder}/config`, configOf(found, shown, portType)])
  made.links.push([`${folder}/subsystem`, 'sys/bus/pci'], [`sys/bus/pci/devices/${address}`, folder])
  if (driver !== undefined) {
    const ofDriver = `sys/bus/pci/drivers/${driver}`
    made.links.push([`${folder}/driver`, ofDriver], [`${ofDriver}/${address}`, folder])
  }
  if (group !== undefined) {
    const ofGroup = `sys/kernel/iommu_groups/${group.id}`
    if (group.type !== undefined) add(made, ofGroup, { type: group.type })
    made.links.push([`${folder}/iommu_group`, ofGroup], [`${ofGroup}/devices/${address}`, folder])
  }
  for (const name of found.interfaces) addInterface(made, folder, name, found.rdma?.isInfiniBand === true)
  if (buses !== undefined) {
    add(made, folder, { secondary_bus_number: `${buses[0]}`, subordinate_bus_number: `${buses[1]}` })
    if (buses[0] > 0) addBus(made, `${address.slice(0, 5)}${hex(buses[0], 2)}`, folder, nearOf(node))
  }
  for (const one of found.functions) addFunction(made, one, folder, portType, nearOf, drivers)
}

const rootFolder = ({ address }: MachineBus): string => `sys/devices/pci${address}`

/** The folders of the functions below `folder`, by their addresses. */
const foldersBelow = (functions: readonly MachineFunction[], folder: string): [string, string][] =>
  functions.flatMap(one => {
    const own = `${folder}/${one.address}`
    return [[one.address, own] as [string, string], ...foldersBelow(one.functions, own)]
  })

/** The folders of all functions below the tree's root, by their addresses. */
export const functionFolders = ({ buses }: Machine): ReadonlyMap<string, string> =>
  new Map(buses.flatMap(bus => foldersBelow(bus.functions, rootFolder(bus))))

// ---- all ----

/** Each interface of this machine: its files are links to the machine's. */
const linkInterfaces = (root: string, machine: Machine): void => {
  const shown = functionsOf(machine).flatMap(({ interfaces }) => interfaces)
  for (const name of existsSync(`/${INTERFACES}`) ? readdirSync(`/${INTERFACES}`) : []) {
    const own = `/${INTERFACES}/${name}`
    if (shown.includes(name) || !existsSync(`${own}/ifindex`)) continue
    makeFolder(join(root, VIRTUAL_INTERFACES, name))
    for (const file of readdirSync(own))
      if (file !== 'device') symlinkSync(`${own}/${file}`, join(root, VIRTUAL_INTERFACES, name, file))
    makeLink(root, `${INTERFACES}/${name}`, `${VIRTUAL_INTERFACES}/${name}`)
  }
}

/** Writes the files of the machine into the tree at `root`, which has none of them yet. */
export const writeMachine = (root: string, { machine, drivers }: ShownMachine): void => {
  const { packages, nodes, buses, iommus, system } = machine
  const made: Made = { files: { machine: '' }, links: [], configs: [] }
  const all = packages.flatMap(({ cores }) => cores.flat()).sort((a, b) => a - b)
  // A program may use the numbers of its processors as indexes of arrays with so many elements.
  const width = Math.max(possibleProcessors(), (all.at(-1) ?? 0) + 1)
  const nearOf: NearReader = node => {
    const cpus = node === NO_NODE ? all : (nodes.find(({ id }) => id === node)?.cpus ?? [])
    return { list: listText(cpus), mask: processorMask(cpus, width) }
  }
  addProcessors(made, machine, width)
  addNodes(made, machine, width)
  for (const bus of buses) {
    addBus(made, bus.address, rootFolder(bus), nearOf(bus.node))
    for (const one of bus.functions) addFunction(made, one, rootFolder(bus), undefined, nearOf, drivers)
  }
  for (const name of iommus) add(made, `sys/devices/virtual/iommu/${name}`, { uevent: '' })
  for (const name of iommus) made.links.push([`sys/class/iommu/${name}`, `sys/devices/virtual/iommu/${name}`])
  const texts = Object.entries(system).map(([key, text]) => [systemFiles[key as keyof typeof systemFiles], text])
  add(made, 'sys/devices/virtual/dmi/id', Object.fromEntries(texts))
  if (texts.length > 0) made.links.push(['sys/class/dmi/id', 'sys/devices/virtual/dmi/id'])
  for (const folder of FOLDERS) makeFolder(join(root, folder))
  writeFiles(root, made.files)
  for (const [path, bytes] of made.configs) writeNewFile(join(root, path), bytes, ATTRIBUTE_MODE)
  for (const [link, target] of made.links) makeLink(root, link, target)
  linkInterfaces(root, machine)
}
