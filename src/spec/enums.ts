/*
 * Enumerations and flag sets of the verbs, with the names and numbers of Linux's user ABI (ib_user_verbs.h,
 * ib_user_ioctl_verbs.h) and of the InfiniBand Architecture Specification, except our own sets and values.
 */
import { enumeration } from './schema/schema.ts'

/** Access rights of a memory region, and rights of the peer on a QP (ibv_access_flags). */
export const AccessFlags = enumeration('access_flags', {
  LOCAL_WRITE: 1 << 0,
  REMOTE_WRITE: 1 << 1,
  REMOTE_READ: 1 << 2,
  REMOTE_ATOMIC: 1 << 3,
  MW_BIND: 1 << 4,
  ZERO_BASED: 1 << 5,
  ON_DEMAND: 1 << 6,
  HUGETLB: 1 << 7,
  /** Rights for a peer's FLUSH (IBA annex A19) to global visibility and to persistence. */
  FLUSH_GLOBAL: 1 << 8,
  FLUSH_PERSISTENT: 1 << 9,
  RELAXED_ORDERING: 1 << 20,
  /** A device ignores unknown bits of this range, 20 to 29. */
  OPTIONAL_RANGE: 0x3ff00000,
})

const { REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, FLUSH_GLOBAL, FLUSH_PERSISTENT } = AccessFlags.values
/** An access that needs one of these rights comes from a peer. */
export const REMOTE_RIGHTS = REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | FLUSH_GLOBAL | FLUSH_PERSISTENT

/**
 * Types of memory windows (IBA 10.6.7). Type 1 is valid in a protection domain, type 2 (here 2B) only on the queue pair
 * that bound the window.
 */
export const MwType = enumeration('mw_type', { TYPE_1: 1, TYPE_2: 2 })

/** States of a queue pair (IBA 10.3.1). RC never enters SQE. */
export const QpState = enumeration('qp_state', { RESET: 0, INIT: 1, RTR: 2, RTS: 3, SQD: 4, SQE: 5, ERR: 6 })

/** Types of queue pairs in Linux's ABI. In the object dialect each type is a class. */
export const QpType = enumeration('qp_type', {
  RC: 2,
  UC: 3,
  UD: 4,
  RAW_PACKET: 8,
  XRC_INI: 9,
  XRC_TGT: 10,
  DRIVER: 0xff,
})

/** Path MTU: 128 << value bytes. */
export const Mtu = enumeration('mtu', { MTU_256: 1, MTU_512: 2, MTU_1024: 3, MTU_2048: 4, MTU_4096: 5 })

/** Types of shared receive queues in Linux's ABI. In the object dialect each type is a class. */
export const SrqType = enumeration('srq_type', { BASIC: 0, XRC: 1, TM: 2 })

/** Flags for opening an XRC domain (O_CREAT and O_EXCL of open(2)). */
export const XrcdFlags = enumeration('xrcd_flags', { CREAT: 0o100, EXCL: 0o200 })

/** USER_RMPP: the program itself segments and reassembles long messages (ib_user_mad.h). */
export const MadAgentFlags = enumeration('mad_agent_flags', { USER_RMPP: 1 })

export const PathMigState = enumeration('path_mig_state', { MIGRATED: 0, REARM: 1, ARMED: 2 })

export const PortState = enumeration('port_state', {
  NOP: 0,
  DOWN: 1,
  INIT: 2,
  ARMED: 3,
  ACTIVE: 4,
  ACTIVE_DEFER: 5,
})

/** Physical state of a port (IBA 14.2.5.6). */
export const PhysState = enumeration('phys_state', {
  NONE: 0,
  SLEEP: 1,
  POLLING: 2,
  DISABLED: 3,
  TRAINING: 4,
  LINK_UP: 5,
  ERROR_RECOVERY: 6,
  PHY_TEST: 7,
})

export const LinkLayer = enumeration('link_layer', { UNSPECIFIED: 0, INFINIBAND: 1, ETHERNET: 2 })
export const LinkWidth = enumeration('link_width', { NONE: 0, X1: 1, X4: 2, X8: 4, X12: 8, X2: 16 })
export const LinkSpeed = enumeration('link_speed', {
  NONE: 0,
  SDR: 1,
  DDR: 2,
  QDR: 4,
  FDR10: 8,
  FDR: 16,
  EDR: 32,
  HDR: 64,
  NDR: 128,
})

/** Of a `dmah`: volatile or persistent memory. */
export const TphMemType = enumeration('tph_mem_type', { VM: 0, PM: 1 })

/** HCA: atomic among the atomics of this device; GLOB: also with the processor. */
export const AtomicCap = enumeration('atomic_cap', { NONE: 0, HCA: 1, GLOB: 2 })

export const GidType = enumeration('gid_type', { IB: 0, ROCE_V1: 1, ROCE_V2: 2 })

export const PortCapFlags = enumeration('port_cap_flags', {
  SM: 1 << 1,
  NOTICE_SUP: 1 << 2,
  TRAP_SUP: 1 << 3,
  OPT_IPD_SUP: 1 << 4,
  AUTO_MIGR_SUP: 1 << 5,
  SL_MAP_SUP: 1 << 6,
  MKEY_NVRAM: 1 << 7,
  PKEY_NVRAM: 1 << 8,
  LED_INFO_SUP: 1 << 9,
  SM_DISABLED: 1 << 10,
  SYS_IMAGE_GUID_SUP: 1 << 11,
  PKEY_SW_EXT_PORT_TRAP_SUP: 1 << 12,
  EXTENDED_SPEEDS_SUP: 1 << 14,
  CM_SUP: 1 << 16,
  SNMP_TUNNEL_SUP: 1 << 17,
  REINIT_SUP: 1 << 18,
  DEVICE_MGMT_SUP: 1 << 19,
  VENDOR_CLASS_SUP: 1 << 20,
  DR_NOTICE_SUP: 1 << 21,
  CAP_MASK_NOTICE_SUP: 1 << 22,
  BOOT_MGMT_SUP: 1 << 23,
  LINK_LATENCY_SUP: 1 << 24,
  CLIENT_REG_SUP: 1 << 25,
  IP_BASED_GIDS: 1 << 26,
})

/** Flags of `port.query`. GRH_REQUIRED: packets of the port always have a GRH. */
export const PortFlags = enumeration('port_flags', { GRH_REQUIRED: 1 << 0 })

export const DeviceCapFlags = enumeration('device_cap_flags', {
  RESIZE_MAX_WR: 1 << 0,
  BAD_PKEY_CNTR: 1 << 1,
  BAD_QKEY_CNTR: 1 << 2,
  RAW_MULTI: 1 << 3,
  AUTO_PATH_MIG: 1 << 4,
  CHANGE_PHY_PORT: 1 << 5,
  UD_AV_PORT_ENFORCE: 1 << 6,
  CURR_QP_STATE_MOD: 1 << 7,
  SHUTDOWN_PORT: 1 << 8,
  INIT_TYPE: 1 << 9,
  PORT_ACTIVE_EVENT: 1 << 10,
  SYS_IMAGE_GUID: 1 << 11,
  RC_RNR_NAK_GEN: 1 << 12,
  SRQ_RESIZE: 1 << 13,
  N_NOTIFY_CQ: 1 << 14,
  MEM_WINDOW: 1 << 17,
  UD_IP_CSUM: 1 << 18,
  XRC: 1 << 20,
  MEM_MGT_EXTENSIONS: 1 << 21,
  MEM_WINDOW_TYPE_2A: 1 << 23,
  MEM_WINDOW_TYPE_2B: 1 << 24,
  RC_IP_CSUM: 1 << 25,
  RAW_IP_CSUM: 1 << 26,
  MANAGED_FLOW_STEERING: 1 << 29,
})

/** Capabilities of the core (core_support, u64). OPTIONAL_MR_ACCESS: register accepts AccessFlags.OPTIONAL_RANGE. */
export const CoreSupport = { OPTIONAL_MR_ACCESS: 1n } as const

export const CqFlags = enumeration('cq_flags', { TIMESTAMP_COMPLETION: 1 << 0, IGNORE_OVERRUN: 1 << 1 })

/** Kinds of completion queues. EXTENDED: entries have a timestamp. COUNTING: only counts of completions. */
export const CqKind = enumeration('cq_kind', { ENTRIES: 0, EXTENDED: 1, COUNTING: 2 })

/**
 * Kinds of memory regions. MEMORY: a range of the caller's memory. FILE: pages of a memory file. NULL: writes are
 * discarded, reads return zeros. IMPLICIT: the caller's whole address space, as it is at each access. DEVICE: memory of
 * a `dm`.
 */
export const MrKind = enumeration('mr_kind', { MEMORY: 0, FILE: 1, NULL: 2, IMPLICIT: 3, DEVICE: 4, INDIRECT: 5 })

/** Advice about ranges of on-demand regions, and its flags (ib_uverbs_advise_mr_advice, ib_uverbs_advise_mr_flag). */
export const MrAdvice = enumeration('mr_advice', { PREFETCH: 0, PREFETCH_WRITE: 1, PREFETCH_NO_FAULT: 2 })
export const AdviseFlags = enumeration('advise_flags', { FLUSH: 1 })

/** On-demand paging of a device, and of its transports (ib_odp_general_cap_bits, ib_odp_transport_cap_bits). */
export const OdpCaps = enumeration('odp_caps', { SUPPORT: 1, SUPPORT_IMPLICIT: 2 })
export const OdpTransportCaps = enumeration('odp_transport_caps', {
  SEND: 1 << 0,
  RECV: 1 << 1,
  WRITE: 1 << 2,
  READ: 1 << 3,
  ATOMIC: 1 << 4,
  SRQ_RECV: 1 << 5,
  FLUSH: 1 << 6,
  ATOMIC_WRITE: 1 << 7,
})

/** Receive work queues (ib_wq_type, ib_wq_state, ib_uverbs_wq_flags). */
export const WqType = enumeration('wq_type', { RQ: 0 })
export const WqState = enumeration('wq_state', { RESET: 0, RDY: 1, ERR: 2 })
export const WqFlags = enumeration('wq_flags', {
  CVLAN_STRIPPING: 1 << 0,
  SCATTER_FCS: 1 << 1,
  DELAY_DROP: 1 << 2,
  PCI_WRITE_END_PADDING: 1 << 3,
})

/** Flow steering rules (ib_flow_attr_type, ib_flow_flags, ib_flow_spec_type). */
export const FlowType = enumeration('flow_type', { NORMAL: 0, ALL_DEFAULT: 1, MC_DEFAULT: 2, SNIFFER: 3 })
export const FlowFlags = enumeration('flow_flags', { DONT_TRAP: 1 << 1, EGRESS: 1 << 2 })
export const FlowSpecType = enumeration('flow_spec_type', {
  ETH: 0x20,
  IB: 0x22,
  IPV4: 0x30,
  IPV6: 0x31,
  ESP: 0x34,
  TCP: 0x40,
  UDP: 0x41,
  VXLAN_TUNNEL: 0x50,
  GRE: 0x51,
  MPLS: 0x60,
  ACTION_TAG: 0x1000,
  ACTION_DROP: 0x1001,
})
/** Flag in a spec's type (IB_FLOW_SPEC_INNER): the spec matches the inner header of a tunnel. */
export const FlowSpecFlags = enumeration('flow_spec_flags', { INNER: 1 << 8 })

/**
 * Flags of operations on tags (ibv_ops_flags). SIGNALED: the operation has a completion. SYNC: the operation has the
 * number of consumed unexpected messages.
 */
export const TmFlags = enumeration('tm_flags', { SIGNALED: 1 << 0, SYNC: 1 << 1 })

/** ib_uverbs_read_counters_flags. */
export const CountersFlags = enumeration('counters_flags', { PREFER_CACHED: 1 << 0 })

/** Flags at the creation of a queue pair. */
export const QpFlags = enumeration('qp_flags', { SQ_SIG_ALL: 1 << 12 })

/** Types of asynchronous events (ib_event_type). */
export const AsyncEventType = enumeration('async_event_type', {
  CQ_ERR: 0,
  QP_FATAL: 1,
  QP_REQ_ERR: 2,
  QP_ACCESS_ERR: 3,
  COMM_EST: 4,
  SQ_DRAINED: 5,
  PATH_MIG: 6,
  PATH_MIG_ERR: 7,
  DEVICE_FATAL: 8,
  PORT_ACTIVE: 9,
  PORT_ERR: 10,
  LID_CHANGE: 11,
  PKEY_CHANGE: 12,
  SM_CHANGE: 13,
  SRQ_ERR: 14,
  SRQ_LIMIT_REACHED: 15,
  QP_LAST_WQE_REACHED: 16,
  CLIENT_REREGISTER: 17,
  GID_CHANGE: 18,
  WQ_FATAL: 19,
  DEVICE_SPEED_CHANGE: 20,
  /**
   * Events of the system-wide device, not in Linux. The event's element is the index of the added or removed device.
   */
  DEVICE_ADDED: 0x80,
  DEVICE_REMOVED: 0x81,
})

/** Kinds of devices (rdma_node_type). */
export const NodeType = enumeration('node_type', {
  CA: 1,
  SWITCH: 2,
  ROUTER: 3,
  RNIC: 4,
  USNIC: 5,
  USNIC_UDP: 6,
  UNSPECIFIED: 7,
})

/**
 * Kinds of events of an event queue: asynchronous events, and two more. COMPLETION: an armed CQ has completions.
 * CONNECTION: the channel of a connection identifier has an event of that identifier.
 */
export const EventKind = enumeration('event_kind', { ...AsyncEventType.values, COMPLETION: 0x100, CONNECTION: 0x101 })

/** Events of a connection identifier (rdma_cm_event_type). */
export const CmEventType = enumeration('cm_event_type', {
  ADDR_RESOLVED: 0,
  ADDR_ERROR: 1,
  ROUTE_RESOLVED: 2,
  ROUTE_ERROR: 3,
  CONNECT_REQUEST: 4,
  CONNECT_RESPONSE: 5,
  CONNECT_ERROR: 6,
  UNREACHABLE: 7,
  REJECTED: 8,
  ESTABLISHED: 9,
  DISCONNECTED: 10,
  DEVICE_REMOVAL: 11,
  MULTICAST_JOIN: 12,
  MULTICAST_ERROR: 13,
  ADDR_CHANGE: 14,
  TIMEWAIT_EXIT: 15,
  // 16 and 17 are ADDRINFO_RESOLVED and ADDRINFO_ERROR, which librdmacm makes of INTERNAL
  USER: 18,
  INTERNAL: 19,
})

/** Port spaces (rdma_ucm_port_space). The port space determines the default QP type of an identifier. */
export const CmPortSpace = enumeration('cm_port_space', { IPOIB: 0x0002, IB: 0x013f, TCP: 0x0106, UDP: 0x0111 })

/** Protocols of sockets of IP over the device. ICMP: echo requests of ICMP, or for IPv6 of ICMPv6. */
export const IpProtocol = enumeration('ip_protocol', { ICMP: 1, UDP: 17 })

/** Option levels of an identifier (RDMA_OPTION_ID, RDMA_OPTION_IB). */
export const CmOptionLevel = enumeration('cm_option_level', { ID: 0, IB: 1 })

/** The name of a value, or the value as text if it has no name. */
export const nameIn = (values: Readonly<Record<string, number>>, value: number | undefined): string =>
  Object.keys(values).find(name => values[name] === value) ?? String(value)
