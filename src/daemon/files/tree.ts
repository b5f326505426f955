/*
 * The files that RDMA programs read before they open a device: sysfs classes and device nodes, in a folder of the
 * daemon. The shim rewrites the programs' paths to paths in this folder (docs/decisions/interception.md). Nodes are
 * empty files; a message of the session opens the device (OPEN in spec/session.ts).
 */
import { existsSync, readdirSync, renameSync, rmdirSync, rmSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { GidTableEntry } from '../../core/devices/gids.ts'
import type { AdapterTexts } from '../../core/driver-contract.ts'
import { UVERBS_ABI } from '../../spec/classes/device/system.ts'
import { GidType, LinkLayer, NodeType, PhysState, PortState } from '../../spec/enums.ts'
import { lanesOf, linkRate, speedName } from '../../spec/link-rate.ts'
import { CM_NODE, ISSM_NODES, SYSTEM_NAME, SYSTEM_NODE, UMAD_NODES } from '../../spec/session.ts'
import { type CharDevice, CharDevices, rdevOf } from './chardevs.ts'
import { type ShownMachine, writeMachine } from './machine-tree.ts'
import { functionConfig, functionFiles, type PciPlace, pciPaths, shownFunction } from './pci-files.ts'
import {
  ATTRIBUTE_MODE,
  type Files,
  filesIn,
  makeFolder,
  makeLink,
  replaceFile,
  writeFiles,
  writeNewFile,
} from './tree-files.ts'

export interface TreeDevice {
  readonly name: string
  /** N of /dev/infiniband/uverbsN. */
  readonly node: number
  /** `NodeType` (spec/enums.ts). */
  readonly nodeType: number
  readonly driver: string
  /** Version of the driver's ABI. */
  readonly abi: number
  /** 8 bytes, network order. */
  readonly guid: Uint8Array
  /** Name of the network interface, or empty. */
  readonly interfaceName: string
  /** Undefined for a device without a port. */
  readonly port: TreePort | undefined
  readonly hasUmad: boolean
  /** Whether a subnet manager can open its port. */
  readonly hasIssm: boolean
  /** Absent: the driver tells nothing of an adapter. */
  readonly adapter?: AdapterTexts
  /** The parent; absent: the device is virtual. */
  readonly pci?: PciPlace
}

interface TreePort {
  /** GIDs in use. */
  readonly gids: readonly (Omit<GidTableEntry, 'ifindex'> & { readonly index: number })[]
  /** The P_Key table. */
  readonly pkeys: readonly number[]
  /** `PortState` and `PhysState` (spec/enums.ts). */
  readonly state: number
  readonly physState: number
  /** `LinkLayer`, `LinkWidth` and `LinkSpeed`. */
  readonly linkLayer: number
  readonly activeWidth: number
  readonly activeSpeed: number
  readonly lid: number
  readonly lmc: number
  readonly smLid: number
  readonly smSl: number
  readonly portCapFlags: number
}

/** As link_layer_show. */
const LINK_LAYERS: Readonly<Record<number, string>> = {
  [LinkLayer.values.INFINIBAND]: 'InfiniBand',
  [LinkLayer.values.ETHERNET]: 'Ethernet',
}
/** As gid_types_names. */
const gidTypeText = (type: number): string => (type === GidType.values.ROCE_V2 ? 'RoCE v2' : 'IB/RoCE v1')

/** As rate_show, for example `2.5 Gb/sec (1X SDR)`. */
const rateText = (port: TreePort): string => `${linkRate(port) / 10} Gb/sec (${lanesOf(port)}X ${speedName(port)})`

/** The port state in Linux's format, for example `4: ACTIVE`. */
const stateText = (state: number): string =>
  `${state}: ${Object.entries(PortState.values).find(([, value]) => value === state)?.[0]}`
/** As in Linux, where the names of some kinds are in small letters (node_type_show). */
const NODE_TYPE_TEXTS: Readonly<Record<number, string>> = {
  [NodeType.values.CA]: 'CA',
  [NodeType.values.SWITCH]: 'switch',
  [NodeType.values.ROUTER]: 'router',
  [NodeType.values.RNIC]: 'RNIC',
  [NodeType.values.USNIC]: 'usNIC',
  [NodeType.values.USNIC_UDP]: 'usNIC UDP',
  [NodeType.values.UNSPECIFIED]: 'unspecified',
}
const { POLLING, DISABLED, LINK_UP } = PhysState.values
/** The states of soft devices. */
const PHYS_STATE_TEXTS: Readonly<Record<number, string>> = {
  [POLLING]: 'Polling',
  [DISABLED]: 'Disabled',
  [LINK_UP]: 'LinkUp',
}
const physStateText = (state: number): string => `${state}: ${PHYS_STATE_TEXTS[state] ?? '<unknown>'}`

const { uverbs, rdma_cm: cm, umad, issm } = CharDevices
/** How many umad and issm nodes have a number of their own: the next minor numbers are those of other nodes. */
const MAD_NUMBERS = issm.minor - umad.minor

const ENTRY_CLASSES = ['infiniband', 'infiniband_mad', 'infiniband_verbs']

/** An entry is CLASS/NAME. A device has an entry in class infiniband, and one for each of its nodes. */
const rdmaEntry = (name: string): string => `infiniband/${name}`
const verbsEntry = (node: number): string => `infiniband_verbs/${uverbs.node}${node}`
const madEntry = (device: CharDevice, node: number): string => `infiniband_mad/${device.node}${node}`
/** The connection manager's node is a miscellaneous device. */
const cmEntry = `misc/${cm.node}`

const folderOf = (entry: string, pci?: PciPlace): string =>
  `${pci === undefined ? 'sys/devices/virtual' : pciPaths(pci).folder}/${entry}`
/** The link to the entry's folder in the class. */
const classLink = (entry: string): string => `sys/class/${entry}`

/** Links an entry's folder to its class, and the class to the folder. */
const linkEntry = (root: string, entry: string, pci?: PciPlace): void => {
  makeLink(root, `${folderOf(entry, pci)}/subsystem`, dirname(classLink(entry)))
  makeLink(root, classLink(entry), folderOf(entry, pci))
}
const removeEntry = (root: string, entry: string, pci?: PciPlace): void => {
  for (const path of [classLink(entry), folderOf(entry, pci)])
    rmSync(join(root, path), { recursive: true, force: true })
}

const NODES = 'dev/infiniband'

/** The links by a node's number: Linux's to the folder of the entry, and udev's to the node. */
const numberLinks = ({ major, minor }: CharDevice, node: number): readonly [toFolder: string, toNode: string] => {
  const number = `char/${major}:${minor + node}`
  return [`sys/dev/${number}`, `dev/${number}`]
}
const linkNumber = (root: string, device: CharDevice, node: number, folder: string): void => {
  const [toFolder, toNode] = numberLinks(device, node)
  makeLink(root, toFolder, folder)
  makeLink(root, toNode, `${NODES}/${device.node}${node}`)
}

/** st_rdev of a node; 0 for the system-wide device. */
export const nodeRdev = (node: number): number => {
  if (node === SYSTEM_NODE) return 0
  if (node === CM_NODE) return rdevOf(cm)
  if (node >= ISSM_NODES) return rdevOf(issm, node - ISSM_NODES)
  return node >= UMAD_NODES ? rdevOf(umad, node - UMAD_NODES) : rdevOf(uverbs, node)
}

/** A GUID or GID in Linux's format: groups of four hexadecimal digits. */
const hexGroups = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString('hex')
    .replace(/(.{4})(?=.)/g, '$1:')

/** Paths below the tree's root. */
export const deviceFolder = ({ name, pci }: Pick<TreeDevice, 'name' | 'pci'>): string => folderOf(rdmaEntry(name), pci)
export const portFolder = (device: Pick<TreeDevice, 'name' | 'pci'>): string => `${deviceFolder(device)}/ports/1`

/** The files whose contents can change, except the files with the device's name. */
const changingFiles = (device: TreeDevice): Files => {
  if (device.port === undefined) return {}
  const port = portFolder(device)
  const { name, pci, interfaceName } = device
  const { state, physState, gids, lid, lmc, smLid, smSl, portCapFlags, pkeys } = device.port
  return {
    ...(interfaceName !== '' && { [`${folderOf(rdmaEntry(name), pci)}/parent`]: interfaceName }),
    [`${port}/state`]: stateText(state),
    [`${port}/phys_state`]: physStateText(physState),
    [`${port}/rate`]: rateText(device.port),
    [`${port}/lid`]: `0x${lid.toString(16)}`,
    [`${port}/lid_mask_count`]: `${lmc}`,
    [`${port}/sm_lid`]: `0x${smLid.toString(16)}`,
    [`${port}/sm_sl`]: `${smSl}`,
    [`${port}/cap_mask`]: `0x${portCapFlags.toString(16).padStart(8, '0')}`,
    ...Object.fromEntries(pkeys.map((key, i) => [`${port}/pkeys/${i}`, `0x${key.toString(16).padStart(4, '0')}`])),
    ...Object.fromEntries(
      gids.flatMap(({ index, gid, type, vlan }) => [
        [`${port}/gids/${index}`, hexGroups(gid)],
        [`${port}/gid_attrs/types/${index}`, gidTypeText(type)],
        [`${port}/gid_attrs/ndevs/${index}`, vlan?.name ?? interfaceName],
      ]),
    ),
  }
}

const madPath = (device: CharDevice, node: number): string => `${NODES}/${device.node}${node}`
/** As in Linux, only for the owner, because a program with access to the node can send management datagrams. */
const UMAD_MODE = 0o600
const nodeNames: Readonly<Record<number, string>> = { [SYSTEM_NODE]: SYSTEM_NAME, [CM_NODE]: cm.node }
const nodePath = (node: number): string => `${NODES}/${nodeNames[node] ?? `${uverbs.node}${node}`}`

/** Whether the tree at `root` has a device node with this name. */
export const hasNode = (root: string, name: string): boolean => existsSync(join(root, NODES, name))

/** Fixed contents are those of Linux's rxe. */
const portFiles = (device: TreeDevice): Files => {
  const port = portFolder(device)
  if (device.port === undefined) return {}
  return {
    [`${port}/link_layer`]: LINK_LAYERS[device.port.linkLayer] ?? 'Unknown',
    ...changingFiles(device),
  }
}

const uevent = ({ major, minor, node }: CharDevice, number?: number): string =>
  `MAJOR=${major}\nMINOR=${minor + (number ?? 0)}\nDEVNAME=infiniband/${node}${number ?? ''}`

/** In `uevent` of a node that all users may open. */
const DEVMODE_ALL = '\nDEVMODE=0666'

/** The nodes of management datagrams that a device has. */
const madNodes = ({ hasUmad, hasIssm }: TreeDevice): readonly CharDevice[] => [
  ...(hasUmad ? [umad] : []),
  ...(hasIssm ? [issm] : []),
]

const madFiles = (device: TreeDevice): Files =>
  Object.fromEntries(
    madNodes(device).flatMap(mad => {
      const folder = folderOf(madEntry(mad, device.node), device.pci)
      return [
        [`${folder}/dev`, `${mad.major}:${mad.minor + device.node}`],
        [`${folder}/uevent`, uevent(mad, device.node)],
        [`${folder}/ibdev`, device.name],
        [`${folder}/port`, '1'],
      ]
    }),
  )

const deviceFiles = (device: TreeDevice): Files => {
  const { name, node, nodeType, driver, abi, guid, pci, adapter } = device
  const folder = folderOf(rdmaEntry(name), pci)
  const verbs = folderOf(verbsEntry(node), pci)
  return {
    [`${folder}/node_type`]: `${nodeType}: ${NODE_TYPE_TEXTS[nodeType] ?? '<unknown>'}`,
    [`${folder}/node_guid`]: hexGroups(guid),
    [`${folder}/sys_image_guid`]: hexGroups(guid),
    [`${folder}/node_desc`]: driver,
    [`${folder}/fw_ver`]: '',
    ...Object.fromEntries(Object.entries(adapter ?? {}).map(([file, text]) => [`${folder}/${file}`, text])),
    [`${folder}/uevent`]: `NAME=${name}`,
    ...portFiles(device),
    ...madFiles(device),
    [`${verbs}/dev`]: `${uverbs.major}:${uverbs.minor + node}`,
    [`${verbs}/abi_version`]: String(abi),
    [`${verbs}/uevent`]: `${uevent(uverbs, node)}${DEVMODE_ALL}`,
    [`${verbs}/ibdev`]: name,
  }
}

/** The entries of a device, the one that programs read first at the end. */
const entriesOf = ({ name, node }: Pick<TreeDevice, 'name' | 'node'>): readonly string[] => [
  rdmaEntry(name),
  madEntry(umad, node),
  madEntry(issm, node),
  verbsEntry(node),
]

/**
 * Links the device's network interface, which the machine has, to its PCI function. On Linux the folder of the
 * interface is there.
 */
const linkInterface = (root: string, { pci, interfaceName }: TreeDevice): void => {
  if (pci === undefined || pci.folder !== undefined) return
  const folder = join(root, pciPaths(pci).folder, 'net')
  if (existsSync(folder) && readdirSync(folder).join() === interfaceName) return
  rmSync(folder, { recursive: true, force: true })
  if (interfaceName === '') return
  makeFolder(folder)
  symlinkSync(`/sys/class/net/${interfaceName}`, join(folder, interfaceName))
}

/** Writes the files of the device's PCI function, and the links between the function and the device's entries. */
const addPciFunction = (root: string, device: TreeDevice): void => {
  const { pci } = device
  if (pci === undefined) return
  if (pci.folder === undefined) {
    const { folder, driver, links } = pciPaths(pci)
    const shown = shownFunction(pci, device.driver, device.port?.linkLayer ?? LinkLayer.values.ETHERNET)
    writeFiles(root, filesIn(folder, functionFiles(shown)))
    writeNewFile(join(root, folder, 'config'), functionConfig(shown), ATTRIBUTE_MODE)
    makeLink(root, `${folder}/subsystem`, 'sys/bus/pci')
    for (const link of links) makeLink(root, link, folder)
    makeLink(root, `${folder}/driver`, driver)
  }
  for (const entry of entriesOf(device)) {
    const entryFolder = join(root, folderOf(entry, pci))
    if (existsSync(entryFolder)) symlinkSync(`../../../${pci.address}`, join(entryFolder, 'device'))
  }
  linkInterface(root, device)
}

const removeIfEmpty = (folder: string): void => {
  if (existsSync(folder) && readdirSync(folder).length === 0) rmdirSync(folder)
}

/** Folders that another function may have too stay until they are empty. */
const removePciFunction = (root: string, pci: PciPlace): void => {
  const { folder, bus, driver, links } = pciPaths(pci)
  if (pci.folder !== undefined) {
    for (const name of ENTRY_CLASSES) removeIfEmpty(join(root, folder, name))
    return
  }
  for (const path of [...links, folder]) rmSync(join(root, path), { recursive: true, force: true })
  for (const shared of [bus, driver]) removeIfEmpty(join(root, shared))
}

/** Programs read the links in classes first, so the links are written last. */
export const addToTree = (root: string, device: TreeDevice): void => {
  const { name, node, pci } = device
  const mads = madNodes(device)
  writeNewFile(join(root, nodePath(node)), '')
  for (const mad of mads) writeNewFile(join(root, madPath(mad, node)), '', UMAD_MODE)
  writeFiles(root, deviceFiles(device))
  addPciFunction(root, device)
  linkNumber(root, uverbs, node, folderOf(verbsEntry(node), pci))
  if (node < MAD_NUMBERS) for (const mad of mads) linkNumber(root, mad, node, folderOf(madEntry(mad, node), pci))
  linkEntry(root, rdmaEntry(name), pci)
  for (const mad of mads) linkEntry(root, madEntry(mad, node), pci)
  linkEntry(root, verbsEntry(node), pci)
}

export const removeFromTree = (root: string, device: Pick<TreeDevice, 'name' | 'node' | 'pci'>): void => {
  const { node, pci } = device
  for (const entry of [...entriesOf(device)].reverse()) removeEntry(root, entry, pci)
  if (pci !== undefined) removePciFunction(root, pci)
  const madNumbers = node < MAD_NUMBERS ? [umad, issm].flatMap(mad => numberLinks(mad, node)) : []
  const numbers = [...numberLinks(uverbs, node), ...madNumbers]
  for (const path of [...numbers, nodePath(node), madPath(umad, node), madPath(issm, node)])
    rmSync(join(root, path), { force: true })
}

/** Renames a device. Programs can still read its files that they have opened. */
export const renameInTree = (root: string, previousName: string, device: TreeDevice): void => {
  const { name, node, pci } = device
  const folder = folderOf(rdmaEntry(name), pci)
  rmSync(join(root, classLink(rdmaEntry(previousName))))
  renameSync(join(root, folderOf(rdmaEntry(previousName), pci)), join(root, folder))
  rmSync(join(root, folder, 'subsystem'))
  linkEntry(root, rdmaEntry(name), pci)
  replaceFile(root, `${folder}/uevent`, `NAME=${name}\n`, ATTRIBUTE_MODE)
  replaceFile(root, `${folderOf(verbsEntry(node), pci)}/ibdev`, `${name}\n`, ATTRIBUTE_MODE)
  for (const mad of madNodes(device))
    replaceFile(root, `${folderOf(madEntry(mad, node), pci)}/ibdev`, `${name}\n`, ATTRIBUTE_MODE)
}

/** Makes the folder `root`; removes an old tree there. */
export const makeRoot = (root: string): void => {
  rmSync(root, { recursive: true, force: true })
  makeFolder(root)
}

/** Writes the files of a tree into an empty folder. `machine`: the machine that it shows; absent: this one. */
export const writeTree = (root: string, devices: readonly TreeDevice[], machine?: ShownMachine): void => {
  writeFiles(root, { 'sys/class/infiniband_verbs/abi_version': String(UVERBS_ABI) })
  makeFolder(join(root, NODES))
  makeFolder(join(root, 'sys/class/infiniband'))
  writeNewFile(join(root, nodePath(SYSTEM_NODE)), '')
  writeNewFile(join(root, nodePath(CM_NODE)), '')
  writeFiles(root, {
    [`${folderOf(cmEntry)}/dev`]: `${cm.major}:${cm.minor}`,
    [`${folderOf(cmEntry)}/abi_version`]: String(cm.abi),
    [`${folderOf(cmEntry)}/uevent`]: `${uevent(cm)}${DEVMODE_ALL}`,
    'sys/class/infiniband_mad/abi_version': String(umad.abi),
  })
  linkEntry(root, cmEntry)
  if (machine !== undefined) writeMachine(root, machine)
  for (const device of devices) addToTree(root, device)
}

const GID_FOLDERS = ['gids', 'gid_attrs/types', 'gid_attrs/ndevs']

/** Updates the files of a device's port and interface, each atomically. `before`: what they show, if that is known. */
export const updateTree = (root: string, device: TreeDevice, before?: TreeDevice): void => {
  if (device.port === undefined) return
  const files = changingFiles(device)
  const shown = before === undefined ? {} : changingFiles(before)
  for (const folder of GID_FOLDERS) {
    const path = `${portFolder(device)}/${folder}`
    for (const name of readdirSync(join(root, path)))
      if (files[`${path}/${name}`] === undefined) rmSync(join(root, path, name))
  }
  for (const [path, value] of Object.entries(files))
    if (value !== shown[path]) replaceFile(root, path, `${value}\n`, ATTRIBUTE_MODE)
  linkInterface(root, device)
}
