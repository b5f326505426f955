/*
 * Answers to RDMA_NLDEV requests about devices, ports, device nodes and the system (Linux: nldev_get, nldev_port_get,
 * nldev_get_chardev, nldev_sys_get, nldev_set_sys_set_doit).
 */

import type { Identity } from '../../core/devices/identity.ts'
import type { Device } from '../../core/model.ts'
import { NodeType } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { NameAssignType } from '../../spec/linux/nldev.ts'
import { type Entries, type Entry, encodeAttributes } from '../../uapi/nldev/attributes.ts'
import { viewOf } from '../../uapi/scalar.ts'
import type { DaemonDevice } from '../devices/devices.ts'
import { type CharDevice, CharDevices, rdevOf } from '../files/chardevs.ts'
import { hasNode } from '../files/tree.ts'
import {
  type Answers,
  byIndex,
  deviceOf,
  handleOf,
  type Managed,
  type ParsedRequest,
  portOf,
  required,
  requiredPort,
} from './answers.ts'
import { isModerated } from './changes.ts'

/** A GUID as netlink's u64: the bytes in network order as a number. */
const guidOf = (guid: Uint8Array): bigint => viewOf(guid).getBigUint64(0, false)

const protocolOf = ({ device: { driver } }: DaemonDevice): readonly Entry[] =>
  driver.link === 'roce' || driver.link === 'ib' ? [['DEV_PROTOCOL', driver.link]] : []

const describeDevice = (found: DaemonDevice): Entries => {
  const { driver, ports, attributes, extended } = found.device
  return [
    ...handleOf(found),
    ['PORT_INDEX', ports.length],
    ['CAP_FLAGS', BigInt(attributes.deviceCapFlags >>> 0) | extended.deviceCapFlagsEx],
    ...(driver.adapter === undefined ? [] : ([['FW_VERSION', driver.adapter(attributes).fw_ver]] satisfies Entry[])),
    ['NODE_GUID', guidOf(attributes.nodeGuid)],
    ['SYS_IMAGE_GUID', guidOf(attributes.sysImageGuid)],
    ['DEV_NODE_TYPE', driver.nodeType ?? NodeType.values.CA],
    ['DEV_DIM', +isModerated(found.device)],
    ['NAME_ASSIGN_TYPE', NameAssignType.USER],
    ...protocolOf(found),
  ]
}

export const interfaceOf = ({ device, network }: Pick<DaemonDevice, 'device' | 'network'>): readonly Entry[] =>
  network?.link === undefined ? [] : describeInterface(device, network.link.identity)

/** Nothing for devices without Ethernet (EFA): as on Linux, they belong to no interface. */
export const describeInterface = (
  { driver }: Pick<Device, 'driver'>,
  { interfaceIndex, interfaceName }: Identity,
): readonly Entry[] =>
  driver.link !== 'roce' || interfaceIndex === 0
    ? []
    : [
        ['NDEV_INDEX', interfaceIndex],
        ['NDEV_NAME', interfaceName],
      ]

const describePort = (found: DaemonDevice, number: number): Entries => {
  const { attributes, gids } = found.device.ports[number - 1]!
  const { state, physState, lid, smLid, lmc, portCapFlags } = attributes
  const prefix = gids.entries[0]?.gid
  return [
    ...handleOf(found),
    ['PORT_INDEX', number],
    ...(found.device.driver.link === 'ib' && prefix !== undefined
      ? ([
          ['CAP_FLAGS', BigInt(portCapFlags)],
          ['SUBNET_PREFIX', guidOf(prefix)],
          ['LID', lid],
          ['SM_LID', smLid],
          ['LMC', lmc],
        ] satisfies Entry[])
      : []),
    ['PORT_STATE', state],
    ['PORT_PHYS_STATE', physState],
    ...interfaceOf(found),
  ]
}

function* listDevices({ devices }: Managed): Generator<Uint8Array> {
  for (const found of byIndex(devices)) yield encodeAttributes(describeDevice(found))
}

function* listPorts(daemon: Managed, parsed: ParsedRequest): Generator<Uint8Array> {
  const found = deviceOf(daemon, parsed)
  for (const { number } of found.device.ports) yield encodeAttributes(describePort(found, number))
}

// ---- nodes ----

const nodeTypes: Readonly<Record<string, CharDevice>> = CharDevices

/** The node of a type: the system's (rdma_cm), a device's (uverbs) or a port's (umad). */
const describeNode = (daemon: Managed, parsed: ParsedRequest): Entries => {
  const { attributes } = parsed
  const type = required(attributes, 'CHARDEV_TYPE')
  const found = attributes.DEV_INDEX === undefined ? undefined : deviceOf(daemon, parsed)
  if (found === undefined && attributes.PORT_INDEX !== undefined)
    throw callError.EINVAL`attribute PORT_INDEX needs DEV_INDEX`
  const port = found && portOf(found, parsed)
  const nodeType = Object.hasOwn(nodeTypes, type) ? nodeTypes[type] : undefined
  const refuseUnknown = (): never => {
    throw callError.EOPNOTSUPP`there is no node of type ${JSON.stringify(type)}`
  }
  if (nodeType === undefined) return refuseUnknown()
  const { scope } = nodeType
  if (scope === 'system' && found !== undefined)
    throw callError.EOPNOTSUPP`the node of type ${type} belongs to no device: attribute DEV_INDEX is refused`
  if (scope !== 'system' && found === undefined)
    throw callError.EOPNOTSUPP`a node of type ${type} belongs to a device: attribute DEV_INDEX is missing`
  if (scope === 'device' && port !== undefined)
    throw callError.EINVAL`a node of type ${type} belongs to no port: attribute PORT_INDEX is refused`
  if (scope === 'port' && port === undefined)
    throw callError.EINVAL`a node of type ${type} belongs to a port: attribute PORT_INDEX is missing`
  // A port's node has the device's number too, because devices have at most one port.
  const number = found?.device.index
  const name = `${nodeType.node}${number ?? ''}`
  if (!hasNode(daemon.root, name)) return refuseUnknown()
  const driver = type === 'uverbs' ? found?.device.driver : undefined
  return [
    ...(driver ? ([['UVERBS_DRIVER_ID', driver.id]] as const) : []),
    ['CHARDEV', BigInt(rdevOf(nodeType, number))],
    ['CHARDEV_ABI', BigInt(nodeType.abi ?? driver?.abi ?? 1)],
    ['CHARDEV_NAME', name],
  ]
}

// ---- system ----

/**
 * SYS_NETNS_MODE: 1 if all network namespaces share the devices (daemon/devices/namespaces.ts). SYS_MONITOR_MODE: there
 * are notifications (monitor.ts). SYS_COPY_ON_FORK: registered memory may be copied at fork, because the daemon
 * resolves addresses at each access.
 */
const describeSystem = ({ core, namespaces }: Managed): Entries => [
  ['SYS_NETNS_MODE', +namespaces.isShared],
  ['SYS_PRIVILEGED_QKEY_MODE', +core.allowsPrivilegedQkeys],
  ['SYS_MONITOR_MODE', 1],
  ['SYS_COPY_ON_FORK', 1],
]

const setSystem = ({ core, namespaces, sessions }: Managed, { attributes }: ParsedRequest): undefined => {
  const { SYS_NETNS_MODE: mode, SYS_PRIVILEGED_QKEY_MODE: qkey } = attributes
  // As in Linux, SYS_NETNS_MODE comes first: then SYS_PRIVILEGED_QKEY_MODE is ignored.
  const value = mode ?? qkey
  if (value === undefined) throw callError.EINVAL`SYS_NETNS_MODE or SYS_PRIVILEGED_QKEY_MODE is required`
  if (value > 1) throw callError.EINVAL`a mode is 0 or 1`
  if (mode === undefined) core.allowsPrivilegedQkeys = qkey === 1
  else
    namespaces.setShared(
      mode === 1,
      [...sessions.processes(undefined)].map(({ pid }) => pid),
    )
}

export const deviceAnswers: Answers = {
  GET: { one: (daemon, parsed) => describeDevice(deviceOf(daemon, parsed)), list: listDevices },
  PORT_GET: {
    one: (daemon, parsed) => {
      const found = deviceOf(daemon, parsed)
      return describePort(found, requiredPort(found, parsed))
    },
    list: listPorts,
  },
  GET_CHARDEV: { one: describeNode },
  SYS_GET: { one: describeSystem },
  SYS_SET: { one: setSystem },
}
