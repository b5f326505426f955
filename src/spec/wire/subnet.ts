/*
 * Subnet management and administration of InfiniBand as data (InfiniBand Architecture Specification, volume 1): the
 * datagram of subnet management with directed routes (clause 14.2.1), its attributes (14.2.5), the notices of traps
 * (13.4.8.2, 14.2.5.1), the datagram of subnet administration and its records (15.2). Fields are listed in their order
 * on the wire without gaps; those whose names begin with "_" are reserved.
 */
import { MAD_BYTES } from './mad.ts'

/**
 * A field: an integer of so many bits (1: a boolean, 64: a bigint), an array of `[bytes]`, or a list of
 * `[count, bits]`.
 */
export type Field = number | readonly [bytes: number] | readonly [count: number, bits: number]
export type Layout = Readonly<Record<string, Field>>

const GID = [16] as const

// ---- subnet management ----

/** Queue pair of subnet management. It uses virtual lane 15 only. */
export const SMI_QPN = 0
/** The LID of who has none: packets of directed routes have it. */
export const PERMISSIVE_LID = 0xffff
export const FIRST_MULTICAST_LID = 0xc000
/** Of a directed route. */
export const MAX_HOPS = 63
/** Partition key of all ports, with full membership. */
export const DEFAULT_PARTITION = 0xffff
/** Bit of a partition key: full membership. */
export const FULL_MEMBER = 0x8000

const madCommon = {
  baseVersion: 8,
  mgmtClass: 8,
  classVersion: 8,
  method: 8,
} as const satisfies Layout

/** LID-routed datagrams have zeros in the fields of the directed route. */
export const smp = {
  ...madCommon,
  /** Direction bit: the datagram returns. */
  isReturning: 1,
  status: 15,
  hopPointer: 8,
  hopCount: 8,
  tid: 64,
  attribute: 16,
  _attribute: 16,
  modifier: 32,
  mKey: 64,
  drSlid: 16,
  drDlid: 16,
  _header: [28],
  data: [64],
  initialPath: [64],
  returnPath: [64],
} as const satisfies Layout

export const SUBNET_VERSION = 1

export const NodeType = { ADAPTER: 1, SWITCH: 2, ROUTER: 3 } as const

/** `portState` of a PortInfo; NO_CHANGE in a Set. */
export const PortState = { NO_CHANGE: 0, DOWN: 1, INIT: 2, ARMED: 3, ACTIVE: 4 } as const
export const PhysicalState = { NO_CHANGE: 0, SLEEP: 1, POLLING: 2, DISABLED: 3, TRAINING: 4, LINK_UP: 5 } as const

/** Bits of a PortInfo's `capabilityMask`. */
export const PortCapability = {
  IS_SM: 1 << 1,
  NOTICE: 1 << 2,
  TRAP: 1 << 3,
  AUTOMATIC_MIGRATION: 1 << 5,
  SL_MAPPING: 1 << 6,
  SYSTEM_IMAGE_GUID: 1 << 11,
  EXTENDED_SPEEDS: 1 << 14,
  COMMUNICATION_MANAGEMENT: 1 << 16,
  CAPABILITY_MASK_NOTICE: 1 << 22,
  CLIENT_REREGISTRATION: 1 << 25,
} as const

const nodeInfo = {
  baseVersion: 8,
  classVersion: 8,
  nodeType: 8,
  numPorts: 8,
  systemImageGuid: 64,
  nodeGuid: 64,
  portGuid: 64,
  partitionCap: 16,
  deviceId: 16,
  revision: 32,
  localPort: 8,
  vendorId: 24,
} as const satisfies Layout

const portInfo = {
  mKey: 64,
  gidPrefix: 64,
  lid: 16,
  smLid: 16,
  capabilityMask: 32,
  diagCode: 16,
  mKeyLeasePeriod: 16,
  localPort: 8,
  linkWidthEnabled: 8,
  linkWidthSupported: 8,
  linkWidthActive: 8,
  linkSpeedSupported: 4,
  portState: 4,
  physicalState: 4,
  linkDownDefaultState: 4,
  mKeyProtectBits: 2,
  _lmc: 3,
  lmc: 3,
  linkSpeedActive: 4,
  linkSpeedEnabled: 4,
  neighborMtu: 4,
  smSl: 4,
  vlCap: 4,
  initType: 4,
  vlHighLimit: 8,
  vlArbitrationHighCap: 8,
  vlArbitrationLowCap: 8,
  initTypeReply: 4,
  mtuCap: 4,
  vlStallCount: 3,
  hoqLife: 5,
  operationalVls: 4,
  partitionEnforcementInbound: 1,
  partitionEnforcementOutbound: 1,
  filterRawInbound: 1,
  filterRawOutbound: 1,
  mKeyViolations: 16,
  pKeyViolations: 16,
  qKeyViolations: 16,
  guidCap: 8,
  clientReregister: 1,
  multicastPKeyTrapSuppression: 2,
  subnetTimeout: 5,
  _response: 3,
  responseTime: 5,
  localPhysicalErrors: 4,
  overrunErrors: 4,
  maxCreditHint: 16,
  _latency: 8,
  linkRoundTripLatency: 24,
  capabilityMask2: 16,
  linkSpeedExtActive: 4,
  linkSpeedExtSupported: 4,
  _speed: 3,
  linkSpeedExtEnabled: 5,
} as const satisfies Layout

const switchInfo = {
  linearFdbCap: 16,
  randomFdbCap: 16,
  multicastFdbCap: 16,
  linearFdbTop: 16,
  defaultPort: 8,
  defaultMulticastPrimaryPort: 8,
  defaultMulticastNotPrimaryPort: 8,
  lifeTime: 5,
  portStateChange: 1,
  optimizedSlToVl: 2,
  lidsPerPort: 16,
  partitionEnforcementCap: 16,
  inboundEnforcementCap: 1,
  outboundEnforcementCap: 1,
  filterRawInboundCap: 1,
  filterRawOutboundCap: 1,
  enhancedPort0: 1,
  _port0: 11,
  multicastFdbTop: 16,
} as const satisfies Layout

const smInfo = { guid: 64, smKey: 64, activityCount: 32, priority: 4, state: 4 } as const satisfies Layout

/** `state` of an SMInfo. */
export const SmState = { NOT_ACTIVE: 0, DISCOVERING: 1, STANDBY: 2, MASTER: 3 } as const
/** Attribute modifiers of a Set of SMInfo (14.4.1). */
export const SmControl = { HANDOVER: 1, ACKNOWLEDGE: 2, DISABLE: 3, STANDBY: 4, DISCOVER: 5 } as const

const notice = {
  isGeneric: 1,
  type: 7,
  /** Kind of the node that tells it, as NodeType; 4: a class manager. */
  producerType: 24,
  /** Of a vendor's notice: its device id. */
  trapNumber: 16,
  issuerLid: 16,
  toggle: 1,
  count: 15,
  data: [54],
} as const satisfies Layout

export const NoticeType = { FATAL: 0, URGENT: 1, SECURITY: 2, SUBNET_MANAGEMENT: 3, INFORMATIONAL: 4 } as const
export const CLASS_MANAGER = 4

export const Trap = {
  /** A GID has come into service, has left it; a multicast group was created, was deleted: by the manager. */
  GID_IN: 64,
  GID_OUT: 65,
  GROUP_CREATED: 66,
  GROUP_DELETED: 67,
  /** The state of a link of a switch has changed. */
  LINK_STATE: 128,
  CAPABILITY: 144,
  BAD_M_KEY: 256,
  BAD_P_KEY: 257,
  BAD_Q_KEY: 258,
} as const

/** `data` of a notice, by trap. */
const gidData = { _gid: 48, gid: GID } as const satisfies Layout
const badKeyData = {
  _lid: 16,
  lid1: 16,
  lid2: 16,
  key: 32,
  sl: 4,
  _qp1: 4,
  qp1: 24,
  _qp2: 8,
  qp2: 24,
  gid1: GID,
  gid2: GID,
} as const satisfies Layout
export const noticeData = {
  [Trap.GID_IN]: gidData,
  [Trap.GID_OUT]: gidData,
  [Trap.GROUP_CREATED]: gidData,
  [Trap.GROUP_DELETED]: gidData,
  [Trap.LINK_STATE]: { lid: 16, _end: 16 },
  [Trap.CAPABILITY]: { _lid: 16, lid: 16, _changes: 8, localChanges: 8, capabilityMask: 32, changeFlags: 16 },
  [Trap.BAD_M_KEY]: {
    _lid: 16,
    lid: 16,
    drSlid: 16,
    method: 8,
    _method: 8,
    attribute: 16,
    modifier: 32,
    mKey: 64,
    _route: 8,
    isDirected: 1,
    isTruncated: 1,
    hopCount: 6,
    returnPath: [30],
  },
  [Trap.BAD_P_KEY]: badKeyData,
  [Trap.BAD_Q_KEY]: badKeyData,
} as const satisfies Readonly<Record<number, Layout>>

export const LFT_BLOCK = 64
export const MFT_BLOCK = 32
/** Ports in an entry of a block of the multicast table. */
export const MFT_PORTS = 16
export const PKEY_BLOCK = 32
export const GUID_BLOCK = 8
/** A port in the linear forwarding table: none. */
export const NO_PORT = 0xff

/** Attributes of subnet management, by name: `data` of a datagram. */
export const smAttributes = {
  Notice: { id: 0x02, layout: notice },
  NodeDescription: { id: 0x10, layout: { text: [64] } },
  NodeInfo: { id: 0x11, layout: nodeInfo },
  SwitchInfo: { id: 0x12, layout: switchInfo },
  GUIDInfo: { id: 0x14, layout: { guids: [GUID_BLOCK, 64] } },
  PortInfo: { id: 0x15, layout: portInfo },
  P_KeyTable: { id: 0x16, layout: { pkeys: [PKEY_BLOCK, 16] } },
  /** The virtual lane of each service level. */
  SLtoVLMappingTable: { id: 0x17, layout: { lanes: [16, 4] } },
  /** Entries: 4 bits reserved, 4 bits lane, 8 bits weight. */
  VLArbitrationTable: { id: 0x18, layout: { entries: [32, 16] } },
  LinearForwardingTable: { id: 0x19, layout: { ports: [LFT_BLOCK, 8] } },
  MulticastForwardingTable: { id: 0x1b, layout: { masks: [MFT_BLOCK, 16] } },
  SMInfo: { id: 0x20, layout: smInfo },
  /** Of Mellanox's nodes: FDR10. OpenSM and ibportstate ask for it. */
  MlnxExtendedPortInfo: {
    id: 0xff90,
    layout: {
      _state: 24,
      stateChangeEnable: 8,
      _supported: 24,
      linkSpeedSupported: 8,
      _enabled: 24,
      linkSpeedEnabled: 8,
      _active: 24,
      linkSpeedActive: 8,
    },
  },
} as const satisfies Readonly<Record<string, { readonly id: number; readonly layout: Layout }>>

/** `vendorId` of a NodeInfo. */
export const MELLANOX = 0x2c9

// ---- subnet administration ----

export const SA_VERSION = 2

/** Methods of subnet administration beside those of every class. */
export const SaMethod = { DELETE: 0x15 } as const

/** Status of a response, in its upper byte (15.2.4). */
export const SaStatus = {
  NO_RESOURCES: 0x0100,
  REQUEST_INVALID: 0x0200,
  NO_RECORDS: 0x0300,
  TOO_MANY_RECORDS: 0x0400,
  INVALID_GID: 0x0500,
  INSUFFICIENT_COMPONENTS: 0x0600,
  DENIED: 0x0700,
} as const

const SA_DATA_BYTES = MAD_BYTES - 56

export const saMad = {
  ...madCommon,
  status: 16,
  _status: 16,
  tid: 64,
  attribute: 16,
  _attribute: 16,
  modifier: 32,
  rmpp: [12],
  smKey: 64,
  /** Bytes from one record to the next, in units of 8. */
  attributeOffset: 16,
  _offset: 16,
  componentMask: 64,
  data: [SA_DATA_BYTES],
} as const satisfies Layout

/** ClassPortInfo of any class. */
const classPortInfoLayout = {
  baseVersion: 8,
  classVersion: 8,
  capabilityMask: 16,
  capabilityMask2: 27,
  responseTime: 5,
  redirectGid: GID,
  redirectTrafficClass: 8,
  redirectSl: 4,
  redirectFlowLabel: 20,
  redirectLid: 16,
  redirectPKey: 16,
  _redirectQpn: 8,
  redirectQpn: 24,
  redirectQKey: 32,
  trapGid: GID,
  trapTrafficClass: 8,
  trapSl: 4,
  trapFlowLabel: 20,
  trapLid: 16,
  trapPKey: 16,
  trapHopLimit: 8,
  trapQpn: 24,
  trapQKey: 32,
} as const satisfies Layout

const informInfo = {
  gid: GID,
  lidBegin: 16,
  lidEnd: 16,
  _generic: 16,
  isGeneric: 8,
  subscribe: 8,
  type: 16,
  trapNumber: 16,
  qpn: 24,
  _time: 3,
  responseTime: 5,
  _producer: 8,
  producerType: 24,
} as const satisfies Layout

/**
 * Records of subnet administration. The order of the fields, reserved ones included and each element of a list by
 * itself, is the order of their bits in the component mask.
 */
export const saRecords = {
  ClassPortInfo: { id: 0x01, layout: classPortInfoLayout },
  Notice: { id: 0x02, layout: { ...notice, issuerGid: GID } },
  InformInfo: { id: 0x03, layout: informInfo },
  NodeRecord: { id: 0x11, layout: { lid: 16, _lid: 16, ...nodeInfo, description: [64] } },
  PortInfoRecord: { id: 0x12, layout: { endPortLid: 16, portNum: 8, options: 8, ...portInfo } },
  SLtoVLMappingTableRecord: {
    id: 0x13,
    layout: { lid: 16, inputPort: 8, outputPort: 8, _ports: 32, lanes: [16, 4] },
  },
  SwitchInfoRecord: { id: 0x14, layout: { lid: 16, _lid: 16, ...switchInfo } },
  LinearForwardingTableRecord: {
    id: 0x15,
    layout: { lid: 16, blockNumber: 16, _block: 32, ports: [LFT_BLOCK, 8] },
  },
  MulticastForwardingTableRecord: {
    id: 0x17,
    layout: { lid: 16, position: 4, _position: 3, blockNumber: 9, _block: 32, masks: [MFT_BLOCK, 16] },
  },
  SMInfoRecord: { id: 0x18, layout: { lid: 16, _lid: 16, ...smInfo } },
  LinkRecord: { id: 0x20, layout: { fromLid: 16, fromPort: 8, toPort: 8, toLid: 16, _toLid: 16 } },
  GUIDInfoRecord: {
    id: 0x30,
    layout: { lid: 16, blockNumber: 8, _block: 8, _reserved: 32, guids: [GUID_BLOCK, 64] },
  },
  ServiceRecord: {
    id: 0x31,
    layout: {
      serviceId: 64,
      gid: GID,
      pkey: 16,
      _pkey: 16,
      /** Seconds; all ones: for ever. */
      lease: 32,
      key: GID,
      name: [64],
      data8: [16, 8],
      data16: [8, 16],
      data32: [4, 32],
      data64: [2, 64],
    },
  },
  P_KeyTableRecord: {
    id: 0x33,
    layout: { lid: 16, blockNumber: 16, portNum: 8, _port: 24, pkeys: [PKEY_BLOCK, 16] },
  },
  PathRecord: {
    id: 0x35,
    layout: {
      serviceIdHigh: 32,
      serviceIdLow: 32,
      dgid: GID,
      sgid: GID,
      dlid: 16,
      slid: 16,
      rawTraffic: 1,
      _raw: 3,
      flowLabel: 20,
      hopLimit: 8,
      trafficClass: 8,
      reversible: 1,
      numbPath: 7,
      pkey: 16,
      qosClass: 12,
      sl: 4,
      mtuSelector: 2,
      mtu: 6,
      rateSelector: 2,
      rate: 6,
      packetLifeTimeSelector: 2,
      packetLifeTime: 6,
      preference: 8,
      _end: 48,
    },
  },
  VLArbitrationTableRecord: {
    id: 0x36,
    layout: { lid: 16, outputPort: 8, blockNumber: 8, _block: 32, entries: [32, 16] },
  },
  MCMemberRecord: {
    id: 0x38,
    layout: {
      mgid: GID,
      portGid: GID,
      qkey: 32,
      mlid: 16,
      mtuSelector: 2,
      mtu: 6,
      trafficClass: 8,
      pkey: 16,
      rateSelector: 2,
      rate: 6,
      packetLifeTimeSelector: 2,
      packetLifeTime: 6,
      sl: 4,
      flowLabel: 20,
      hopLimit: 8,
      scope: 4,
      joinState: 4,
      proxyJoin: 1,
      _end: 23,
    },
  },
  InformInfoRecord: { id: 0xf3, layout: { subscriberGid: GID, enumeration: 16, _enumeration: [6], ...informInfo } },
} as const satisfies Readonly<Record<string, { readonly id: number; readonly layout: Layout }>>

/** Selectors of MTU, rate and lifetime in a query. */
export const Selector = { GREATER: 0, LESS: 1, EXACT: 2, LARGEST: 3 } as const
/** Bits of `joinState`. */
export const JoinState = { FULL: 1, NON_MEMBER: 2, SEND_ONLY: 4, SEND_ONLY_FULL: 8 } as const
