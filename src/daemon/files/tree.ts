/*
 * The files that RDMA programs read before they open a device: sysfs classes and device nodes, in a folder of the
 * daemon.
 *
 * The shim rewrites paths into it (docs/decisions/interception.md). The contents come from the device; there is no file
 * for what it does not have (unused GIDs, for example). As in Linux, a class has links to the folders of its devices.
 * Nodes are empty files: programs check that they exist; sessions open them.
 */
import { existsSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { UVERBS_ABI } from '../../spec/classes/device/system.ts'
import { NodeType, PortState } from '../../spec/enums.ts'
import { type CharDevice, CharDevices, rdevOf } from '../../spec/linux/chardevs.ts'
import { CM_NODE, SYSTEM_NAME, SYSTEM_NODE, UMAD_NODES } from '../../spec/session.ts'
import { makeFolder, replaceFile, writeNewFile } from './tree-files.ts'

export interface TreeDevice {
  readonly name: string
  /** N of /dev/infiniband/uverbsN. */
  readonly node: number
  /** IBA's number of the node type (spec/enums.ts), name of the driver, and version of its ABI. */
  readonly nodeType: number
  readonly driver: string
  readonly abi: number
  readonly guid: Uint8Array
  /** Empty without a network. */
  readonly interfaceName: string
  /** Undefined for a device without a port. */
  readonly port: TreePort | undefined
  /** The device has a umad node, through which programs send management datagrams. */
  readonly hasMads: boolean
}

/** The part that can change while a device exists. */
export interface TreePort {
  /** GIDs in use. */
  readonly gids: readonly { readonly index: number; readonly gid: Uint8Array }[]
  /** IB_PORT_… and IB_PORT_PHYS_STATE_… */
  readonly state: number
  readonly physState: number
}

/** In Linux's format. */
const stateText = (state: number): string =>
  `${state}: ${Object.entries(PortState.values).find(([, value]) => value === state)?.[0]}`
const NODE_TYPE_TEXTS: Readonly<Record<number, string>> = { [NodeType.values.CA]: 'CA' }
const PHYS_STATE_TEXTS: Readonly<Record<number, string>> = { 2: 'Polling', 3: 'Disabled', 5: 'LinkUp' }
const physStateText = (state: number): string => `${state}: ${PHYS_STATE_TEXTS[state] ?? '<unknown>'}`

const { uverbs, rdma_cm: cm, umad } = CharDevices

/** A device of a class: `class/name`. */
const rdmaPlace = (name: string): string => `infiniband/${name}`
const verbsPlace = (node: number): string => `infiniband_verbs/${uverbs.node}${node}`
const madPlace = (node: number): string => `infiniband_mad/${umad.node}${node}`
/** The connection manager's node is a miscellaneous device. */
const cmPlace = `misc/${cm.node}`

/** Folder of a device; the link to it in its class; its link to the class. */
const folderOf = (place: string): string => `sys/devices/virtual/${place}`
const classLink = (place: string): string => `sys/class/${place}`
const linkDevice = (root: string, place: string): void => {
  symlinkSync(`../../../../class/${dirname(place)}`, join(root, folderOf(place), 'subsystem'))
  makeFolder(join(root, dirname(classLink(place))))
  symlinkSync(`../../devices/virtual/${place}`, join(root, classLink(place)))
}
const removeDevice = (root: string, place: string): void => {
  for (const path of [classLink(place), folderOf(place)]) rmSync(join(root, path), { recursive: true, force: true })
}

/** st_rdev of a node; 0 for the system-wide device. */
export const nodeRdev = (node: number): number => {
  if (node === SYSTEM_NODE) return 0
  if (node === CM_NODE) return rdevOf(cm)
  return node >= UMAD_NODES ? rdevOf(umad, node - UMAD_NODES) : rdevOf(uverbs, node)
}

const groups = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString('hex')
    .replace(/(.{4})(?=.)/g, '$1:')

type Files = Record<string, string>

/** The folder of a device's port, below the tree's root. */
export const portFolder = ({ name }: Pick<TreeDevice, 'name'>): string => `${folderOf(rdmaPlace(name))}/ports/1`

/** The files whose contents can change. */
const changingFiles = (device: TreeDevice): Files => {
  if (device.port === undefined) return {}
  const port = portFolder(device)
  const { state, physState, gids } = device.port
  return {
    [`${port}/state`]: stateText(state),
    [`${port}/phys_state`]: physStateText(physState),
    ...Object.fromEntries(
      gids.flatMap(({ index, gid }) => [
        [`${port}/gids/${index}`, groups(gid)],
        [`${port}/gid_attrs/types/${index}`, 'RoCE v2'],
        [`${port}/gid_attrs/ndevs/${index}`, device.interfaceName],
      ]),
    ),
  }
}

const NODES = 'dev/infiniband'
const umadPath = (node: number): string => `${NODES}/${umad.node}${node}`
/** Linux's mode of the node: with it a program can send as the system itself. */
const UMAD_MODE = 0o600
const nodeNames: Readonly<Record<number, string>> = { [SYSTEM_NODE]: SYSTEM_NAME, [CM_NODE]: cm.node }
const nodePath = (node: number): string => `${NODES}/${nodeNames[node] ?? `${uverbs.node}${node}`}`

/** Whether there is a node with this name. */
export const hasNode = (root: string, name: string): boolean => existsSync(join(root, NODES, name))

const portFiles = (device: TreeDevice): Files => {
  const port = portFolder(device)
  if (device.port === undefined) return {}
  return {
    [`${port}/link_layer`]: 'Ethernet',
    [`${port}/rate`]: '2.5 Gb/sec (1X SDR)',
    [`${port}/lid`]: '0x0',
    [`${port}/lid_mask_count`]: '0',
    [`${port}/sm_lid`]: '0x0',
    [`${port}/sm_sl`]: '0',
    [`${port}/cap_mask`]: '0x00010000',
    [`${port}/pkeys/0`]: '0xffff',
    ...changingFiles(device),
  }
}

const uevent = ({ major, minor, node }: CharDevice, number?: number): string =>
  `MAJOR=${major}\nMINOR=${minor + (number ?? 0)}\nDEVNAME=infiniband/${node}${number ?? ''}`

const madFiles = ({ hasMads, node, name }: TreeDevice): Files => {
  if (!hasMads) return {}
  const folder = folderOf(madPlace(node))
  return {
    [`${folder}/dev`]: `${umad.major}:${umad.minor + node}`,
    [`${folder}/uevent`]: uevent(umad, node),
    [`${folder}/ibdev`]: name,
    [`${folder}/port`]: '1',
  }
}

const deviceFiles = (device: TreeDevice): Files => {
  const { name, node, nodeType, driver, abi, guid, interfaceName } = device
  const folder = folderOf(rdmaPlace(name))
  const verbs = folderOf(verbsPlace(node))
  return {
    [`${folder}/node_type`]: `${nodeType}: ${NODE_TYPE_TEXTS[nodeType] ?? '<unknown>'}`,
    [`${folder}/node_guid`]: groups(guid),
    [`${folder}/sys_image_guid`]: groups(guid),
    [`${folder}/node_desc`]: driver,
    [`${folder}/fw_ver`]: '',
    [`${folder}/uevent`]: `NAME=${name}`,
    ...(interfaceName === '' ? {} : { [`${folder}/parent`]: interfaceName }),
    ...portFiles(device),
    ...madFiles(device),
    [`${verbs}/dev`]: `${uverbs.major}:${uverbs.minor + node}`,
    [`${verbs}/abi_version`]: String(abi),
    [`${verbs}/uevent`]: `${uevent(uverbs, node)}\nDEVMODE=0666`,
    [`${verbs}/ibdev`]: name,
  }
}

/** As in Linux, programs may write node_desc. */
const ATTRIBUTE_MODE = 0o444
const DESCRIPTION_MODE = 0o644

const writeFiles = (root: string, files: Files): void => {
  for (const [path, value] of Object.entries(files)) {
    const full = join(root, path)
    makeFolder(dirname(full))
    writeNewFile(full, `${value}\n`, path.endsWith('/node_desc') ? DESCRIPTION_MODE : ATTRIBUTE_MODE)
  }
}

/** Adds a device. The files that programs look for first are written last. */
export const addToTree = (root: string, device: TreeDevice): void => {
  const { name, node, hasMads } = device
  writeNewFile(join(root, nodePath(node)), '')
  if (hasMads) writeNewFile(join(root, umadPath(node)), '', UMAD_MODE)
  writeFiles(root, deviceFiles(device))
  linkDevice(root, rdmaPlace(name))
  if (hasMads) linkDevice(root, madPlace(node))
  linkDevice(root, verbsPlace(node))
}

/** Removes a device. */
export const removeFromTree = (root: string, { name, node }: Pick<TreeDevice, 'name' | 'node'>): void => {
  for (const place of [verbsPlace(node), madPlace(node), rdmaPlace(name)]) removeDevice(root, place)
  for (const path of [nodePath(node), umadPath(node)]) rmSync(join(root, path), { force: true })
}

/** A device was renamed; readers of an open file continue. */
export const renameInTree = (root: string, before: string, device: TreeDevice): void => {
  const { name, node, hasMads } = device
  rmSync(join(root, classLink(rdmaPlace(before))))
  renameSync(join(root, folderOf(rdmaPlace(before))), join(root, folderOf(rdmaPlace(name))))
  rmSync(join(root, folderOf(rdmaPlace(name)), 'subsystem'))
  linkDevice(root, rdmaPlace(name))
  replaceFile(root, `${folderOf(rdmaPlace(name))}/uevent`, `NAME=${name}\n`, ATTRIBUTE_MODE)
  replaceFile(root, `${folderOf(verbsPlace(node))}/ibdev`, `${name}\n`, ATTRIBUTE_MODE)
  if (hasMads) replaceFile(root, `${folderOf(madPlace(node))}/ibdev`, `${name}\n`, ATTRIBUTE_MODE)
}

/** Creates the tree for these devices at `root`, which must not exist, or be an old tree of this daemon's. */
export const writeTree = (root: string, devices: readonly TreeDevice[]): void => {
  removeTree(root)
  writeFiles(root, { 'sys/class/infiniband_verbs/abi_version': String(UVERBS_ABI) })
  makeFolder(join(root, NODES))
  makeFolder(join(root, 'sys/class/infiniband'))
  writeNewFile(join(root, nodePath(SYSTEM_NODE)), '')
  writeNewFile(join(root, nodePath(CM_NODE)), '')
  writeFiles(root, {
    [`${folderOf(cmPlace)}/dev`]: `${cm.major}:${cm.minor}`,
    [`${folderOf(cmPlace)}/abi_version`]: String(cm.abi),
    [`${folderOf(cmPlace)}/uevent`]: uevent(cm),
    'sys/class/infiniband_mad/abi_version': String(umad.abi),
  })
  linkDevice(root, cmPlace)
  for (const device of devices) addToTree(root, device)
}

const GID_FOLDERS = ['gids', 'gid_attrs/types', 'gid_attrs/ndevs']

/** Updates the files of a device's port, each atomically. */
export const updateTree = (root: string, device: TreeDevice): void => {
  if (device.port === undefined) return
  const files = changingFiles(device)
  for (const folder of GID_FOLDERS) {
    const path = `${portFolder(device)}/${folder}`
    for (const name of readdirSync(join(root, path)))
      if (files[`${path}/${name}`] === undefined) rmSync(join(root, path, name))
  }
  for (const [path, value] of Object.entries(files)) replaceFile(root, path, `${value}\n`, ATTRIBUTE_MODE)
}

export const removeTree = (root: string): void => rmSync(root, { recursive: true, force: true })
