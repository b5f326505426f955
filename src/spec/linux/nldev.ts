/*
 * NETLINK_RDMA's device interface (RDMA_NLDEV): commands, attributes and constants of Linux's rdma_netlink.h, with the
 * checks of Linux's nldev_policy.
 */
import { QpType, SrqType } from '../enums.ts'

// ---- netlink itself (linux/netlink.h) ----

/** FIRST: the lowest type of a request (NLMSG_MIN_TYPE); lower types are control messages. */
export const NlmsgType = { ERROR: 2, DONE: 3, OVERRUN: 4, FIRST: 16 } as const
export const NlmsgFlags = {
  REQUEST: 0x1,
  MULTI: 0x2,
  ACK: 0x4,
  DUMP: 0x300,
  /** ERROR messages only. CAPPED: the request is not repeated in full. ACK_TLVS: attributes follow. */
  CAPPED: 0x100,
  ACK_TLVS: 0x200,
} as const
/** Attribute of an ERROR message: the reason as text. */
export const NLMSGERR_ATTR_MSG = 1
/** The flag of nested attributes in an attribute's type, and the mask that removes all flags. */
export const NLA_F_NESTED = 0x8000
export const NLA_TYPE_MASK = 0x3fff

/** Options of level SOL_NETLINK. */
export const NetlinkOption = {
  ADD_MEMBERSHIP: 1,
  DROP_MEMBERSHIP: 2,
  BROADCAST_ERROR: 4,
  NO_ENOBUFS: 5,
  /** No effect: messages are the same for all network namespaces. */
  LISTEN_ALL_NSID: 8,
  LIST_MEMBERSHIPS: 9,
  CAP_ACK: 10,
  EXT_ACK: 11,
  GET_STRICT_CHK: 12,
} as const

/** Maximum bytes of a datagram: Linux's NLMSG_GOODSIZE with pages of 4 KiB. */
export const MAX_DATAGRAM_BYTES = 3776

// ---- commands ----

/** The client number of the device interface: bits 10 and up of a message's type. */
const RDMA_NL_NLDEV = 5
/** The multicast group of notifications (`MonitorEvent`). */
export const RDMA_NL_GROUP_NOTIFY = 4
export const nldevType = (command: number): number => (RDMA_NL_NLDEV << 10) | command

export interface NldevCommand {
  readonly number: number
  /** Linux requires CAP_NET_ADMIN. */
  readonly needsNetAdmin?: true
  /** one: a request has one answer (Linux's doit). list: a program can only request a list (dumpit). both: either. */
  readonly requestKind: 'one' | 'list' | 'both'
  /** Attributes are parsed as with Linux's NL_VALIDATE_STRICT; otherwise as with NL_VALIDATE_LIBERAL. */
  readonly isStrict?: true
  /** As on Linux, the attributes of a request for a list are not read. */
  readonly listIgnoresAttributes?: true
  /** A request that the parser refuses gets the parser's errno, ERANGE or EINVAL. Without this flag: always EINVAL. */
  readonly returnsParserErrno?: true
  /** The command number in the reply about one object; default that of the request. */
  readonly replyNumber?: number
  /** What userdma returns or does, for docs/reference/linux-abi.md. */
  readonly effect: string
}

const noRawData = "EINVAL: the driver has no raw data, like Linux's rxe"

export const NldevCommands = {
  GET: { number: 1, requestKind: 'both', listIgnoresAttributes: true, effect: 'devices' },
  SET: {
    number: 2,
    requestKind: 'one',
    needsNetAdmin: true,
    isStrict: true,
    effect: 'sets the name, network namespace or adaptive moderation; a namespace is EOPNOTSUPP if they are shared',
  },
  NEWLINK: {
    number: 3,
    requestKind: 'one',
    needsNetAdmin: true,
    isStrict: true,
    effect: 'adds a device of type rxe with the first address of a network interface',
  },
  DELLINK: { number: 4, requestKind: 'one', needsNetAdmin: true, isStrict: true, effect: 'removes a soft device' },
  PORT_GET: { number: 5, requestKind: 'both', replyNumber: 1, effect: 'ports, with their network interfaces' },
  SYS_GET: {
    number: 6,
    requestKind: 'one',
    returnsParserErrno: true,
    effect: 'network namespace mode, privileged Q_Keys, event monitoring, copy-on-fork',
  },
  SYS_SET: {
    number: 7,
    requestKind: 'one',
    needsNetAdmin: true,
    isStrict: true,
    effect:
      'sets the network namespace mode, EBUSY if a program of another namespace has a session; or whether programs may use privileged Q_Keys',
  },
  RES_GET: { number: 9, requestKind: 'both', listIgnoresAttributes: true, effect: 'numbers of objects, by kind' },
  RES_QP_GET: { number: 10, requestKind: 'both', effect: 'queue pairs' },
  RES_CM_ID_GET: { number: 11, requestKind: 'both', effect: 'identifiers of rdma_cm' },
  RES_CQ_GET: { number: 12, requestKind: 'both', effect: 'completion queues' },
  RES_MR_GET: {
    number: 13,
    requestKind: 'both',
    effect: 'memory regions; their keys only for callers with CAP_NET_ADMIN',
  },
  RES_PD_GET: { number: 14, requestKind: 'both', effect: 'protection domains' },
  GET_CHARDEV: { number: 15, requestKind: 'one', effect: 'device nodes in /dev/infiniband' },
  STAT_SET: {
    number: 16,
    requestKind: 'one',
    needsNetAdmin: true,
    isStrict: true,
    effect: 'sets the counter mode of new queue pairs; binding a counter is ENOMEM, optional counters EINVAL',
  },
  STAT_GET: { number: 17, requestKind: 'both', effect: 'counters of a port, or the counter mode' },
  STAT_DEL: {
    number: 18,
    requestKind: 'one',
    needsNetAdmin: true,
    isStrict: true,
    effect: 'EINVAL: counters of single queue pairs are not supported',
  },
  RES_QP_GET_RAW: { number: 19, requestKind: 'both', needsNetAdmin: true, effect: noRawData },
  RES_CQ_GET_RAW: { number: 20, requestKind: 'both', needsNetAdmin: true, effect: noRawData },
  RES_MR_GET_RAW: { number: 21, requestKind: 'both', needsNetAdmin: true, effect: noRawData },
  RES_CTX_GET: { number: 22, requestKind: 'both', effect: 'contexts' },
  RES_SRQ_GET: { number: 23, requestKind: 'both', effect: 'shared receive queues, with their queue pairs' },
  STAT_GET_STATUS: { number: 24, requestKind: 'one', effect: 'names of the counters of a port' },
  RES_SRQ_GET_RAW: { number: 25, requestKind: 'both', needsNetAdmin: true, effect: noRawData },
  NEWDEV: {
    number: 26,
    requestKind: 'one',
    needsNetAdmin: true,
    isStrict: true,
    effect: 'EOPNOTSUPP: there are no sub-devices',
  },
  DELDEV: {
    number: 27,
    requestKind: 'one',
    needsNetAdmin: true,
    isStrict: true,
    effect: 'EOPNOTSUPP: there are no sub-devices',
  },
  FRMR_POOLS_GET: { number: 29, requestKind: 'list', effect: 'an empty list: no device here has pools of regions' },
  FRMR_POOLS_SET: {
    number: 30,
    requestKind: 'one',
    needsNetAdmin: true,
    isStrict: true,
    effect: 'EINVAL: no device here has pools of regions',
  },
} as const satisfies Readonly<Record<string, NldevCommand>>

export type NldevCommandName = keyof typeof NldevCommands

/** RDMA_NLDEV_CMD_MONITOR: the command number of notifications to the group RDMA_NL_GROUP_NOTIFY. */
export const MONITOR = 28
/** enum rdma_nl_notify_event_type. */
export const MonitorEvent = {
  REGISTER: 0,
  UNREGISTER: 1,
  NETDEV_ATTACH: 2,
  NETDEV_DETACH: 3,
  RENAME: 4,
  NETDEV_RENAME: 5,
} as const
export type MonitorEventName = keyof typeof MonitorEvent

// ---- attributes ----

/** `address`: a struct sockaddr_storage. */
export type NldevKind = 'u8' | 'u32' | 'u64' | 's32' | 's64' | 'text' | 'bytes' | 'address' | 'nested'

export interface NldevAttribute {
  readonly number: number
  readonly kind: NldevKind
  /** Maximum bytes of a text without its NUL, as in Linux's nldev_policy. */
  readonly maxBytes?: number
}

const attribute = <N extends number, K extends NldevKind>(number: N, kind: K, maxBytes?: number) => ({
  number,
  kind,
  ...(maxBytes !== undefined && { maxBytes }),
})

const IB_DEVICE_NAME_MAX = 64
const IFNAMSIZ = 16
/** Maximum bytes of texts that only the kernel sends (RDMA_NLDEV_ATTR_EMPTY_STRING). */
const EMPTY = 1

/** By name, without RDMA_NLDEV_ and ATTR_. */
export const NldevAttributes = {
  DEV_INDEX: attribute(1, 'u32'),
  DEV_NAME: attribute(2, 'text', IB_DEVICE_NAME_MAX),
  PORT_INDEX: attribute(3, 'u32'),
  CAP_FLAGS: attribute(4, 'u64'),
  FW_VERSION: attribute(5, 'text', EMPTY),
  NODE_GUID: attribute(6, 'u64'),
  SYS_IMAGE_GUID: attribute(7, 'u64'),
  SUBNET_PREFIX: attribute(8, 'u64'),
  LID: attribute(9, 'u32'),
  SM_LID: attribute(10, 'u32'),
  LMC: attribute(11, 'u8'),
  PORT_STATE: attribute(12, 'u8'),
  PORT_PHYS_STATE: attribute(13, 'u8'),
  DEV_NODE_TYPE: attribute(14, 'u8'),
  RES_SUMMARY: attribute(15, 'nested'),
  RES_SUMMARY_ENTRY: attribute(16, 'nested'),
  RES_SUMMARY_ENTRY_NAME: attribute(17, 'text', EMPTY),
  RES_SUMMARY_ENTRY_CURR: attribute(18, 'u64'),
  RES_QP: attribute(19, 'nested'),
  RES_QP_ENTRY: attribute(20, 'nested'),
  RES_LQPN: attribute(21, 'u32'),
  RES_RQPN: attribute(22, 'u32'),
  RES_RQ_PSN: attribute(23, 'u32'),
  RES_SQ_PSN: attribute(24, 'u32'),
  RES_PATH_MIG_STATE: attribute(25, 'u8'),
  RES_TYPE: attribute(26, 'u8'),
  RES_STATE: attribute(27, 'u8'),
  RES_PID: attribute(28, 'u32'),
  RES_KERN_NAME: attribute(29, 'text', EMPTY),
  RES_CM_ID: attribute(30, 'nested'),
  RES_CM_ID_ENTRY: attribute(31, 'nested'),
  RES_PS: attribute(32, 'u32'),
  RES_SRC_ADDR: attribute(33, 'address'),
  RES_DST_ADDR: attribute(34, 'address'),
  RES_CQ: attribute(35, 'nested'),
  RES_CQ_ENTRY: attribute(36, 'nested'),
  RES_CQE: attribute(37, 'u32'),
  RES_USECNT: attribute(38, 'u64'),
  RES_POLL_CTX: attribute(39, 'u8'),
  RES_MR: attribute(40, 'nested'),
  RES_MR_ENTRY: attribute(41, 'nested'),
  RES_RKEY: attribute(42, 'u32'),
  RES_LKEY: attribute(43, 'u32'),
  RES_IOVA: attribute(44, 'u64'),
  RES_MRLEN: attribute(45, 'u64'),
  RES_PD: attribute(46, 'nested'),
  RES_PD_ENTRY: attribute(47, 'nested'),
  RES_LOCAL_DMA_LKEY: attribute(48, 'u32'),
  RES_UNSAFE_GLOBAL_RKEY: attribute(49, 'u32'),
  NDEV_INDEX: attribute(50, 'u32'),
  NDEV_NAME: attribute(51, 'text', IFNAMSIZ),
  DRIVER: attribute(52, 'nested'),
  DRIVER_ENTRY: attribute(53, 'nested'),
  DRIVER_STRING: attribute(54, 'text', EMPTY),
  DRIVER_PRINT_TYPE: attribute(55, 'u8'),
  DRIVER_S32: attribute(56, 's32'),
  DRIVER_U32: attribute(57, 'u32'),
  DRIVER_S64: attribute(58, 's64'),
  DRIVER_U64: attribute(59, 'u64'),
  RES_PDN: attribute(60, 'u32'),
  RES_CQN: attribute(61, 'u32'),
  RES_MRN: attribute(62, 'u32'),
  RES_CM_IDN: attribute(63, 'u32'),
  RES_CTXN: attribute(64, 'u32'),
  LINK_TYPE: attribute(65, 'text', IFNAMSIZ),
  SYS_NETNS_MODE: attribute(66, 'u8'),
  DEV_PROTOCOL: attribute(67, 'text', EMPTY),
  NET_NS_FD: attribute(68, 'u32'),
  CHARDEV_TYPE: attribute(69, 'text', 128),
  CHARDEV_NAME: attribute(70, 'text', EMPTY),
  CHARDEV_ABI: attribute(71, 'u64'),
  CHARDEV: attribute(72, 'u64'),
  UVERBS_DRIVER_ID: attribute(73, 'u32'),
  STAT_MODE: attribute(74, 'u32'),
  /** The kind of objects, as attribute number of RES_QP or RES_MR. */
  STAT_RES: attribute(75, 'u32'),
  STAT_AUTO_MODE_MASK: attribute(76, 'u32'),
  STAT_COUNTER: attribute(77, 'nested'),
  STAT_COUNTER_ENTRY: attribute(78, 'nested'),
  STAT_COUNTER_ID: attribute(79, 'u32'),
  STAT_HWCOUNTERS: attribute(80, 'nested'),
  STAT_HWCOUNTER_ENTRY: attribute(81, 'nested'),
  STAT_HWCOUNTER_ENTRY_NAME: attribute(82, 'text'),
  STAT_HWCOUNTER_ENTRY_VALUE: attribute(83, 'u64'),
  DEV_DIM: attribute(84, 'u8'),
  RES_RAW: attribute(85, 'bytes'),
  RES_CTX: attribute(86, 'nested'),
  RES_CTX_ENTRY: attribute(87, 'nested'),
  RES_SRQ: attribute(88, 'nested'),
  RES_SRQ_ENTRY: attribute(89, 'nested'),
  RES_SRQN: attribute(90, 'u32'),
  MIN_RANGE: attribute(91, 'u32'),
  MAX_RANGE: attribute(92, 'u32'),
  SYS_COPY_ON_FORK: attribute(93, 'u8'),
  STAT_HWCOUNTER_INDEX: attribute(94, 'u32'),
  STAT_HWCOUNTER_DYNAMIC: attribute(95, 'u8'),
  SYS_PRIVILEGED_QKEY_MODE: attribute(96, 'u8'),
  DRIVER_DETAILS: attribute(97, 'u8'),
  RES_SUBTYPE: attribute(98, 'text', EMPTY),
  DEV_TYPE: attribute(99, 'u8'),
  PARENT_NAME: attribute(100, 'text'),
  NAME_ASSIGN_TYPE: attribute(101, 'u8'),
  EVENT_TYPE: attribute(102, 'u8'),
  SYS_MONITOR_MODE: attribute(103, 'u8'),
  STAT_OPCOUNTER_ENABLED: attribute(104, 'u8'),
  FRMR_POOLS: attribute(105, 'nested'),
  FRMR_POOL_ENTRY: attribute(106, 'nested'),
  FRMR_POOL_KEY: attribute(107, 'nested'),
  FRMR_POOL_KEY_ATS: attribute(108, 'u8'),
  FRMR_POOL_KEY_ACCESS_FLAGS: attribute(109, 'u32'),
  FRMR_POOL_KEY_VENDOR_KEY: attribute(110, 'u64'),
  FRMR_POOL_KEY_NUM_DMA_BLOCKS: attribute(111, 'u64'),
  FRMR_POOL_QUEUE_HANDLES: attribute(112, 'u32'),
  FRMR_POOL_MAX_IN_USE: attribute(113, 'u64'),
  FRMR_POOL_IN_USE: attribute(114, 'u64'),
  FRMR_POOLS_AGING_PERIOD: attribute(115, 'u32'),
  FRMR_POOL_PINNED_HANDLES: attribute(116, 'u32'),
  FRMR_POOL_KEY_KERNEL_VENDOR_KEY: attribute(117, 'u64'),
  RES_SUMMARY_ENTRY_MAX: attribute(118, 'u64'),
} as const satisfies Readonly<Record<string, NldevAttribute>>

export type NldevAttributeName = keyof typeof NldevAttributes

// ---- resources ----

/** Objects that programs can list. */
interface NldevResource {
  /** Name in the summary. */
  readonly name: string
  readonly command: NldevCommandName
  /** The nested attributes of the list and of each entry, and the attribute with the object's number. */
  readonly table: NldevAttributeName
  readonly entry: NldevAttributeName
  readonly id: 'RES_LQPN' | 'RES_CM_IDN' | 'RES_CQN' | 'RES_MRN' | 'RES_PDN' | 'RES_CTXN' | 'RES_SRQN'
  /** Objects belong to a port. A request for one must name its port; a request for a list can select a port. */
  readonly hasPort?: true
}

/** By kind; in the order of the summary (RES_GET). */
export const NldevResources = {
  pd: { name: 'pd', command: 'RES_PD_GET', table: 'RES_PD', entry: 'RES_PD_ENTRY', id: 'RES_PDN' },
  cq: { name: 'cq', command: 'RES_CQ_GET', table: 'RES_CQ', entry: 'RES_CQ_ENTRY', id: 'RES_CQN' },
  qp: { name: 'qp', command: 'RES_QP_GET', table: 'RES_QP', entry: 'RES_QP_ENTRY', id: 'RES_LQPN', hasPort: true },
  cm_id: {
    name: 'cm_id',
    command: 'RES_CM_ID_GET',
    table: 'RES_CM_ID',
    entry: 'RES_CM_ID_ENTRY',
    id: 'RES_CM_IDN',
    hasPort: true,
  },
  mr: { name: 'mr', command: 'RES_MR_GET', table: 'RES_MR', entry: 'RES_MR_ENTRY', id: 'RES_MRN' },
  ctx: { name: 'ctx', command: 'RES_CTX_GET', table: 'RES_CTX', entry: 'RES_CTX_ENTRY', id: 'RES_CTXN' },
  srq: { name: 'srq', command: 'RES_SRQ_GET', table: 'RES_SRQ', entry: 'RES_SRQ_ENTRY', id: 'RES_SRQN' },
} as const satisfies Readonly<Record<string, NldevResource>>

export type NldevResourceName = keyof typeof NldevResources

/** enum ib_qp_type, by the classes of queue pairs. */
export const QpTypeNumbers: Readonly<Record<string, number>> = {
  smi_qp: 0,
  gsi_qp: 1,
  rc_qp: QpType.values.RC,
  uc_qp: QpType.values.UC,
  ud_qp: QpType.values.UD,
  raw_packet_qp: QpType.values.RAW_PACKET,
  driver_qp: QpType.values.DRIVER,
  dci_qp: QpType.values.DRIVER,
  dct_qp: QpType.values.DRIVER,
  xrc_ini_qp: QpType.values.XRC_INI,
  xrc_tgt_qp: QpType.values.XRC_TGT,
}

/** Names of the types that a driver adds, by the classes of queue pairs. */
export const QpSubtypes: Readonly<Record<string, string | undefined>> = { dci_qp: 'DCI', dct_qp: 'DCT' }

/** enum ib_srq_type, by the classes of shared receive queues. */
export const SrqTypeNumbers: Readonly<Record<string, number>> = {
  srq: SrqType.values.BASIC,
  xrc_srq: SrqType.values.XRC,
}

/** enum rdma_cm_state, without states that identifiers here never have. */
export const CmIdState = {
  IDLE: 0,
  ADDR_RESOLVED: 2,
  ROUTE_QUERY: 3,
  ROUTE_RESOLVED: 4,
  CONNECT: 5,
  DISCONNECT: 6,
  ADDR_BOUND: 7,
  LISTEN: 8,
  DEVICE_REMOVAL: 9,
} as const

/** enum rdma_nl_counter_mode, and the criteria of AUTO (enum rdma_nl_counter_mask). */
export const CounterMode = { NONE: 0, AUTO: 1, MANUAL: 2 } as const
export const CounterMask = { QP_TYPE: 1, PID: 2 } as const

/** RDMA_NAME_ASSIGN_TYPE: USER: a user chose the name; UNKNOWN: the driver chose it. */
export const NameAssignType = { UNKNOWN: 0, USER: 1 } as const
