/*
 * The files that RDMA programs read before they open a device: sysfs classes and device nodes, in a folder of the
 * daemon's own.
 *
 * The shim rewrites paths into it (design.md section 6, abi/uverbs-facts section 2). What a file says comes from the
 * device; what does not exist for a device (GIDs that are not in use, the connection manager's nodes) has no file.
 * Nodes are empty files: their existence is asked for here, opening them is a session's business.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

export interface TreeDevice {
  readonly name: string
  /** Device node N of /dev/infiniband/uverbsN. */
  readonly node: number
  readonly guid: Uint8Array
  readonly gids: readonly Uint8Array[]
  readonly interfaceName: string
}

/** Major number of uverbs nodes and minor number of the first one (Linux: IB_UVERBS_BASE_MINOR). */
const MAJOR = 231
const FIRST_MINOR = 192
/** st_rdev of a node, in the kernel's encoding for small numbers. */
export const nodeRdev = (node: number): number => MAJOR * 256 + FIRST_MINOR + node

const groups = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString('hex')
    .replace(/(.{4})(?=.)/g, '$1:')

const deviceFiles = ({ name, node, guid, gids, interfaceName }: TreeDevice): Record<string, string> => {
  const device = `sys/class/infiniband/${name}`
  const port = `${device}/ports/1`
  const verbs = `sys/class/infiniband_verbs/uverbs${node}`
  return {
    [`${device}/node_type`]: '1: CA',
    [`${device}/node_guid`]: groups(guid),
    [`${device}/sys_image_guid`]: groups(guid),
    [`${device}/node_desc`]: 'rxe',
    [`${device}/fw_ver`]: '',
    [`${device}/parent`]: interfaceName,
    [`${port}/state`]: '4: ACTIVE',
    [`${port}/phys_state`]: '5: LinkUp',
    [`${port}/link_layer`]: 'Ethernet',
    [`${port}/rate`]: '2.5 Gb/sec (1X SDR)',
    [`${port}/lid`]: '0x0',
    [`${port}/lid_mask_count`]: '0',
    [`${port}/sm_lid`]: '0x0',
    [`${port}/sm_sl`]: '0',
    [`${port}/cap_mask`]: '0x00010000',
    [`${port}/pkeys/0`]: '0xffff',
    ...Object.fromEntries(
      gids.flatMap((gid, index) => [
        [`${port}/gids/${index}`, groups(gid)],
        [`${port}/gid_attrs/types/${index}`, 'RoCE v2'],
        [`${port}/gid_attrs/ndevs/${index}`, interfaceName],
      ]),
    ),
    [`${verbs}/ibdev`]: name,
    [`${verbs}/dev`]: `${MAJOR}:${FIRST_MINOR + node}`,
    [`${verbs}/abi_version`]: '2',
    [`${verbs}/uevent`]: `MAJOR=${MAJOR}\nMINOR=${FIRST_MINOR + node}\nDEVNAME=infiniband/uverbs${node}\nDEVMODE=0666`,
  }
}

/** Writes the tree for these devices below `root`, which must not exist or be a tree of ours. */
export const writeTree = (root: string, devices: readonly TreeDevice[]): void => {
  removeTree(root)
  const files: Record<string, string> = { 'sys/class/infiniband_verbs/abi_version': '6' }
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

export const removeTree = (root: string): void => rmSync(root, { recursive: true, force: true })
