/*
 * The files of a PCI function in the tree (tree.ts), the parent of a device with `pci=`: as Linux shows an adapter on a
 * root bus. The shim shows them beside the machine's own functions (shim/files/paths.c).
 *
 * A device has the file `modalias` if its driver is that of the adapter. Otherwise the file is missing: libibverbs
 * compares it with the tables of all providers, and might choose another provider than the device's (`uevent` has the
 * text).
 */
import { type ProcessorSet, processorsOf } from '../../host/processors.ts'
import { adapters, type PciModel } from '../../spec/check/adapters.ts'
import { LinkLayer } from '../../spec/enums.ts'
import type { PciFunction } from '../../uapi/tool.ts'
import type { Files } from './tree-files.ts'

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0')
const upper = (value: number, digits: number): string => hex(value, digits).toUpperCase()

/**
 * Base class (network), subclass and programming interface, by the layer of the port: of Ethernet, also of adapters for
 * RDMA.
 */
const ETHERNET_CLASS = 0x020000
const INFINIBAND_CLASS = 0x020700
const classOf = (linkLayer: number): number =>
  linkLayer === LinkLayer.values.INFINIBAND ? INFINIBAND_CLASS : ETHERNET_CLASS

/** The place of a function in sysfs. */
export interface PciPlace extends PciFunction {
  /** Of a function of a machine file, whose files the tree has anyway: its folder, below the tree's root. */
  readonly folder?: string
}

/** Paths are below the tree's root. */
interface PciPaths {
  /** The folder of the function, which contains the folders of the device's entries. */
  readonly folder: string
  /** The folder of the root bus. */
  readonly bus: string
  /** The folder of the driver. */
  readonly driver: string
  /** Links to `folder`. */
  readonly links: readonly string[]
}

const modelOf = ({ model }: PciFunction): PciModel => adapters[model].pci!

export const pciPaths = (pci: PciPlace): PciPaths => {
  const bus = `sys/devices/pci${pci.address.slice(0, '0000:81'.length)}`
  const driver = `sys/bus/pci/drivers/${modelOf(pci).driver}`
  return {
    folder: pci.folder ?? `${bus}/${pci.address}`,
    bus,
    driver,
    links: [`sys/bus/pci/devices/${pci.address}`, `${driver}/${pci.address}`],
  }
}

/** BARs, the expansion ROM: start, end and flags of each. */
const RESOURCES = Array<string>(7).fill('0x0000000000000000 0x0000000000000000 0x0000000000000000').join('\n')

/** GT/s and lanes. */
interface ShownLink {
  readonly speed: string
  readonly width: number
  readonly maxSpeed: string
  readonly maxWidth: number
}

/** What sysfs shows of a function. */
export interface ShownFunction extends Omit<PciModel, 'driver' | 'link' | 'source'> {
  readonly address: string
  readonly pciClass: number
  /** Absent: no driver has it. */
  readonly driver?: string
  /** Whether libibverbs may choose a provider by the file `modalias`. */
  readonly hasAlias: boolean
  readonly node: number
  readonly near: ProcessorSet
  /** Absent for a function without a link of its own. */
  readonly link?: ShownLink
}

const linkFiles = (link: ShownLink | undefined): Files =>
  link === undefined
    ? {}
    : {
        current_link_speed: `${link.speed} GT/s PCIe`,
        current_link_width: `${link.width}`,
        max_link_speed: `${link.maxSpeed} GT/s PCIe`,
        max_link_width: `${link.maxWidth}`,
      }

/** Texts of the files of a function, by name. */
export const functionFiles = (shown: ShownFunction): Files => {
  const { address, vendor, device, subsystemVendor, subsystemDevice, revision, pciClass, driver, node, near } = shown
  const classes = `bc${upper(pciClass >> 16, 2)}sc${upper((pciClass >> 8) & 0xff, 2)}i${upper(pciClass & 0xff, 2)}`
  const alias = `pci:v${upper(vendor, 8)}d${upper(device, 8)}sv${upper(subsystemVendor, 8)}sd${upper(subsystemDevice, 8)}${classes}`
  return {
    vendor: `0x${hex(vendor, 4)}`,
    device: `0x${hex(device, 4)}`,
    subsystem_vendor: `0x${hex(subsystemVendor, 4)}`,
    subsystem_device: `0x${hex(subsystemDevice, 4)}`,
    class: `0x${hex(pciClass, 6)}`,
    revision: `0x${hex(revision, 2)}`,
    irq: '0',
    enable: '1',
    resource: RESOURCES,
    numa_node: `${node}`,
    local_cpulist: near.list,
    local_cpus: near.mask,
    uevent: [
      ...(driver === undefined ? [] : [`DRIVER=${driver}`]),
      `PCI_CLASS=${pciClass.toString(16).toUpperCase()}`,
      `PCI_ID=${upper(vendor, 4)}:${upper(device, 4)}`,
      `PCI_SUBSYS_ID=${upper(subsystemVendor, 4)}:${upper(subsystemDevice, 4)}`,
      `PCI_SLOT_NAME=${address}`,
      `MODALIAS=${alias}`,
    ].join('\n'),
    ...(shown.hasAlias && { modalias: alias }),
    ...linkFiles(shown.link),
  }
}

const CONFIG_BYTES = 256
/** Memory space and bus master are enabled. */
const COMMAND = 0x0006

/** The configuration space, with a type 0 header without base addresses and capabilities. */
export const functionConfig = (shown: ShownFunction, size: number = CONFIG_BYTES): Buffer => {
  const { vendor, device, subsystemVendor, subsystemDevice, revision, pciClass } = shown
  const bytes = Buffer.alloc(size)
  bytes.writeUInt16LE(vendor, 0x00)
  bytes.writeUInt16LE(device, 0x02)
  bytes.writeUInt16LE(COMMAND, 0x04)
  bytes.writeUInt8(revision, 0x08)
  bytes.writeUIntLE(pciClass, 0x09, 3)
  bytes.writeUInt16LE(subsystemVendor, 0x2c)
  bytes.writeUInt16LE(subsystemDevice, 0x2e)
  return bytes
}

/** The function of a device. `deviceDriver`: name of the device's driver. `linkLayer`: of its port. */
export const shownFunction = (pci: PciFunction, deviceDriver: string, linkLayer: number): ShownFunction => {
  const { link, ...model } = modelOf(pci)
  return {
    ...model,
    address: pci.address,
    pciClass: classOf(linkLayer),
    hasAlias: deviceDriver === pci.model,
    node: pci.node,
    near: processorsOf(pci.node),
    ...(link !== undefined && { link: { ...link, maxSpeed: link.speed, maxWidth: link.width } }),
  }
}
