/*
 * The nodes in /dev/infiniband, as programs request them by netlink (RDMA_NLDEV_CMD_GET_CHARDEV) and see them in
 * stat(2). A program cannot see a node that the daemon's tree lacks.
 */
import { CM_NAME, UMAD_NAME } from '../session.ts'

export interface CharDevice {
  /** One node per device, per port, or for the system. */
  readonly of: 'device' | 'port' | 'system'
  /** Name of the node, followed by the number of the device or port, unless there is one for the system. */
  readonly node: string
  readonly major: number
  /** Minor number of node 0. */
  readonly minor: number
  /** Version of its ABI; of `uverbs` it is the driver's. */
  readonly abi?: number
}

/** By CHARDEV_TYPE. */
export const CharDevices = {
  uverbs: { of: 'device', node: 'uverbs', major: 231, minor: 192 },
  rdma_cm: { of: 'system', node: CM_NAME, major: 10, minor: 122, abi: 4 },
  umad: { of: 'port', node: UMAD_NAME, major: 231, minor: 0, abi: 5 },
  issm: { of: 'port', node: 'issm', major: 231, minor: 64, abi: 5 },
} as const satisfies Readonly<Record<string, CharDevice>>

/** st_rdev in the kernel's encoding for small numbers. */
export const rdevOf = ({ major, minor }: CharDevice, number = 0): number => major * 256 + minor + number
