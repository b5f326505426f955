/*
 * The device nodes in /dev/infiniband, as programs get them from netlink (RDMA_NLDEV_CMD_GET_CHARDEV) and stat(2).
 */
import { CM_NAME, ISSM_NAME, UMAD_NAME } from '../../spec/session.ts'

export interface CharDevice {
  /** Whether there is one node per device, per port, or for the system. */
  readonly scope: 'device' | 'port' | 'system'
  /** Name of the node, without the number of the device or port. */
  readonly node: string
  readonly major: number
  /** Minor number of node 0. */
  readonly minor: number
  /** Version of the node's ABI. Absent for `uverbs`: the driver has the version. */
  readonly abi?: number
}

/** By CHARDEV_TYPE. */
export const CharDevices = {
  uverbs: { scope: 'device', node: 'uverbs', major: 231, minor: 192 },
  rdma_cm: { scope: 'system', node: CM_NAME, major: 10, minor: 122, abi: 4 },
  umad: { scope: 'port', node: UMAD_NAME, major: 231, minor: 0, abi: 5 },
  issm: { scope: 'port', node: ISSM_NAME, major: 231, minor: 64, abi: 5 },
} as const satisfies Readonly<Record<string, CharDevice>>

/** st_rdev of node `number`: the encoding of makedev(3) for majors below 4096. */
export const rdevOf = ({ major, minor: first }: CharDevice, number = 0): number => {
  const minor = first + number
  return ((minor & ~0xff) << 12) | (major << 8) | (minor & 0xff)
}
