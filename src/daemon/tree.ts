/*
 * The files that RDMA programs read before they open a device: sysfs classes and device nodes, in a folder of the
 * daemon's own.
 *
 * The shim rewrites paths into it (design.md section 6, abi/uverbs-facts section 2). What a file says comes from the
 * device; what does not exist for a device (GIDs that are not in use, the connection manager's nodes) has no file.
 * Nodes are empty files: their existence is asked for here, opening them is a session's business.
 */
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { UVERBS_ABI } from '../spec/classes/system.ts'
import { RXE_ABI } from '../spec/drivers/rxe.ts'
import { PortState } from '../spec/enums.ts'

export interface TreeDevice {
  readonly name: string
  /** Device node N of /dev/infiniband/uverbsN. */
  readonly node: number
  readonly guid: Uint8Array
  readonly interfaceName: string
  readonly port: TreePort
}

/** What changes while a device is there. */
export interface TreePort {
  /** Those in use. */
  readonly gids: readonly { readonly index: number; readonly gid: Uint8Array }[]
  /** IB_PORT_… and IB_PORT_PHYS_STATE_… */
  readonly state: number
  readonly physState: number
}

/** As Linux writes them. */
const stateText = (state: number): string =>
  `${state}: ${Object.entries(PortState.values).find(([, value]) => value === state)?.[0]}`
const PHYS_STATE_TEXTS: Readonly<Record<number, string>> = { 2: 'Polling', 3: 'Disabled', 5: 'LinkUp' }
const physStateText = (state: number): string => `${state}: ${PHYS_STATE_TEXTS[state] ?? '<unknown>'}`

/** Major number of uverbs nodes and minor number of the first one (Linux: IB_UVERBS_BASE_MINOR). */
const MAJOR = 231
const FIRST_MINOR = 192
/** st_rdev of a node, in the kernel's encoding for small numbers. */
export const nodeRdev = (node: number): number => MAJOR * 256 + FIRST_MINOR + node

const groups = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString('hex')
    .replace(/(.{4})(?=.)/g, '$1:')

type Files = Record<string, string>

const portFolder = ({ name }: Pick<TreeDevice, 'name'>): string => `sys/class/infiniband/${name}/ports/1`

/** The files that change. */
const changingFiles = (device: TreeDevice): Files => {
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

const deviceFiles = (whole: TreeDevice): Files => {
  const { name, node, guid, interfaceName } = whole
  const device = `sys/class/infiniband/${name}`
  const port = portFolder(whole)
  const verbs = `sys/class/infiniband_verbs/uverbs${node}`
  return {
    [`${device}/node_type`]: '1: CA',
    [`${device}/node_guid`]: groups(guid),
    [`${device}/sys_image_guid`]: groups(guid),
    [`${device}/node_desc`]: 'rxe',
    [`${device}/fw_ver`]: '',
    [`${device}/parent`]: interfaceName,
    [`${port}/link_layer`]: 'Ethernet',
    [`${port}/rate`]: '2.5 Gb/sec (1X SDR)',
    [`${port}/lid`]: '0x0',
    [`${port}/lid_mask_count`]: '0',
    [`${port}/sm_lid`]: '0x0',
    [`${port}/sm_sl`]: '0',
    [`${port}/cap_mask`]: '0x00010000',
    [`${port}/pkeys/0`]: '0xffff',
    ...changingFiles(whole),
    [`${verbs}/ibdev`]: name,
    [`${verbs}/dev`]: `${MAJOR}:${FIRST_MINOR + node}`,
    [`${verbs}/abi_version`]: String(RXE_ABI),
    [`${verbs}/uevent`]: `MAJOR=${MAJOR}\nMINOR=${FIRST_MINOR + node}\nDEVNAME=infiniband/uverbs${node}\nDEVMODE=0666`,
  }
}

/** Writes the tree for these devices below `root`, which must not exist or be a tree of ours. */
export const writeTree = (root: string, devices: readonly TreeDevice[]): void => {
  removeTree(root)
  const files: Files = { 'sys/class/infiniband_verbs/abi_version': String(UVERBS_ABI) }
  for (const device of devices) Object.assign(files, deviceFiles(device))
  for (const [path, value] of Object.entries(files)) {
    const full = join(root, path)
    mkdirSync(dirname(full), { recursive: true })
    writeFileSync(full, `${value}\n`)
  }
  mkdirSync(join(root, 'dev/infiniband'), { recursive: true })
  mkdirSync(join(root, 'sys/class/infiniband'), { recursive: true })
  for (const { node } of devices) writeFileSync(join(root, `dev/infiniband/uverbs${node}`), '')
}

const GID_FOLDERS = ['gids', 'gid_attrs/types', 'gid_attrs/ndevs']

/** Brings the files of a device's port up to date; who reads one meanwhile gets its old or its new text, whole. */
export const updateTree = (root: string, device: TreeDevice): void => {
  const files = changingFiles(device)
  for (const folder of GID_FOLDERS) {
    const path = `${portFolder(device)}/${folder}`
    for (const name of readdirSync(join(root, path)))
      if (files[`${path}/${name}`] === undefined) rmSync(join(root, path, name))
  }
  const scratch = join(root, 'new')
  for (const [path, value] of Object.entries(files)) {
    writeFileSync(scratch, `${value}\n`)
    renameSync(scratch, join(root, path))
  }
}

export const removeTree = (root: string): void => rmSync(root, { recursive: true, force: true })
