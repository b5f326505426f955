/*
 * The files of a PCI function in the tree (tree.ts), the parent of a device with `pci=`: as Linux shows an adapter on a
 * root bus. The shim shows them beside the machine's own functions (shim/files/paths.c).
 *
 * A device has the file `modalias` if its driver is that of the adapter. Otherwise the file is missing: libibverbs
 * compares it with the tables of all providers, and might choose another provider than the device's (`uevent` has the
 * text).
 */
import { processorsOf } from '../../host/processors.ts'
import { adapters, type PciModel } from '../../spec/check/adapters.ts'
import { LinkLayer } from '../../spec/enums.ts'
import type { PciFunction } from '../../uapi/tool.ts'

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

export const pciPaths = (pci: PciFunction): PciPaths => {
  const bus = `sys/devices/pci${pci.address.slice(0, '0000:81'.length)}`
  const driver = `sys/bus/pci/drivers/${modelOf(pci).driver}`
  return {
    folder: `${bus}/${pci.address}`,
    bus,
    driver,
    links: [`sys/bus/pci/devices/${pci.address}`, `${driver}/${pci.address}`],
  }
}

/** BARs, the expansion ROM: start, end and flags of each. */
const RESOURCES = Array<string>(7).fill('0x0000000000000000 0x0000000000000000 0x0000000000000000').join('\n')

const linkFiles = ({ link }: PciModel): Record<string, string> =>
  link === undefined
    ? {}
    : Object.fromEntries(
        ['current', 'max'].flatMap(which => [
          [`${which}_link_speed`, `${link.speed} GT/s PCIe`],
          [`${which}_link_width`, `${link.width}`],
        ]),
      )

/** Texts of the files, by name. `deviceDriver`: name of the device's driver. `linkLayer`: of its port. */
export const pciFiles = (pci: PciFunction, deviceDriver: string, linkLayer: number): Record<string, string> => {
  const model = modelOf(pci)
  const { vendor, device, subsystemVendor, subsystemDevice, revision, driver } = model
  const near = processorsOf(pci.node)
  const pciClass = classOf(linkLayer)
  const alias = `pci:v${upper(vendor, 8)}d${upper(device, 8)}sv${upper(subsystemVendor, 8)}sd${upper(subsystemDevice, 8)}bc02sc${upper((pciClass >> 8) & 0xff, 2)}i00`
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
    numa_node: `${pci.node}`,
    local_cpulist: near.list,
    local_cpus: near.mask,
    uevent: [
      `DRIVER=${driver}`,
      `PCI_CLASS=${pciClass.toString(16).toUpperCase()}`,
      `PCI_ID=${upper(vendor, 4)}:${upper(device, 4)}`,
      `PCI_SUBSYS_ID=${upper(subsystemVendor, 4)}:${upper(subsystemDevice, 4)}`,
      `PCI_SLOT_NAME=${pci.address}`,
      `MODALIAS=${alias}`,
    ].join('\n'),
    ...(deviceDriver === pci.model && { modalias: alias }),
    ...linkFiles(model),
  }
}

const CONFIG_BYTES = 256
/** Memory space and bus master are enabled. */
const COMMAND = 0x0006

/** The file `config`: the configuration space, with a type 0 header without base addresses and capabilities. */
export const pciConfig = (pci: PciFunction, linkLayer: number): Uint8Array => {
  const { vendor, device, subsystemVendor, subsystemDevice, revision } = modelOf(pci)
  const bytes = Buffer.alloc(CONFIG_BYTES)
  bytes.writeUInt16LE(vendor, 0x00)
  bytes.writeUInt16LE(device, 0x02)
  bytes.writeUInt16LE(COMMAND, 0x04)
  bytes.writeUInt8(revision, 0x08)
  bytes.writeUIntLE(classOf(linkLayer), 0x09, 3)
  bytes.writeUInt16LE(subsystemVendor, 0x2c)
  bytes.writeUInt16LE(subsystemDevice, 0x2e)
  return bytes
}
