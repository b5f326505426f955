/*
 * Layouts of management datagrams: the MAD header (InfiniBand Architecture Specification, volume 1, clause 13.4.3), the
 * messages of communication management (clause 12.6, tables 106 to 120) and rdma_cm's header at the start of their
 * private data (annex A11). Offsets are from the start of the MAD; all fields are big-endian.
 */
import { bitField as at, type BitField } from './headers.ts'

/** Bytes of a MAD; bytes after the last field are zero. */
export const MAD_BYTES = 256

/** Number of the queue pair of the general services (clause 3.5.7). */
export const GSI_QPN = 1
/** The well-known Q_Key of the general services (IBA 10.2.5); subnet management has none. */
export const GSI_QKEY = 0x8001_0000

/** Values in the MAD header of every message of communication management. */
export const CM_CLASS = 7
export const CM_CLASS_VERSION = 2
export const MAD_BASE_VERSION = 1
export const MAD_METHOD_SEND = 3

/** A byte array; offset and length in bytes. */
export interface ByteField {
  readonly offset: number
  readonly bytes: number
}
const bytes = (offset: number, length: number): ByteField => ({ offset, bytes: length })

/** Integer fields and byte arrays of a message. */
export interface MessageLayout {
  readonly fields: Readonly<Record<string, BitField>>
  readonly blobs: Readonly<Record<string, ByteField>>
}

export const madHeader = {
  baseVersion: at(0, 8),
  mgmtClass: at(1, 8),
  classVersion: at(2, 8),
  method: at(3, 8),
  status: at(4, 16),
  tid: at(8, 64),
  attribute: at(16, 16),
  modifier: at(20, 32),
} as const satisfies Record<string, BitField>

const ids = { localId: at(24, 32), remoteId: at(28, 32) } as const

/** Enhanced connection establishment (ECE): a vendor id in reserved bits, and options in the attribute modifier. */
const ece = { eceAttrMod: madHeader.modifier } as const

/** Attribute ids and layouts of messages. */
export const cmMessages = {
  REQ: {
    attribute: 0x10,
    fields: {
      ...ece,
      localId: at(24, 32),
      eceVendorId: at(29, 24),
      serviceId: at(32, 64),
      caGuid: at(40, 64),
      qkey: at(52, 32),
      qpn: at(56, 24),
      responderResources: at(59, 8),
      eecn: at(60, 24),
      initiatorDepth: at(63, 8),
      remoteEecn: at(64, 24),
      remoteResponseTimeout: at(67, 5),
      transportType: at(67, 2, 5),
      flowControl: at(67, 1, 7),
      startingPsn: at(68, 24),
      localResponseTimeout: at(71, 5),
      retryCount: at(71, 3, 5),
      pkey: at(72, 16),
      pathMtu: at(74, 4),
      rdcExists: at(74, 1, 4),
      rnrRetryCount: at(74, 3, 5),
      maxCmRetries: at(75, 4),
      srq: at(75, 1, 4),
      extendedTransportType: at(75, 3, 5),
      localLid: at(76, 16),
      remoteLid: at(78, 16),
      flowLabel: at(112, 20),
      packetRate: at(115, 6, 2),
      trafficClass: at(116, 8),
      hopLimit: at(117, 8),
      sl: at(118, 4),
      subnetLocal: at(118, 1, 4),
      localAckTimeout: at(119, 5),
      alternateLocalLid: at(120, 16),
      alternateRemoteLid: at(122, 16),
      alternateFlowLabel: at(156, 20),
      alternatePacketRate: at(159, 6, 2),
      alternateTrafficClass: at(160, 8),
      alternateHopLimit: at(161, 8),
      alternateSl: at(162, 4),
      alternateSubnetLocal: at(162, 1, 4),
      alternateLocalAckTimeout: at(163, 5),
    },
    blobs: {
      localGid: bytes(80, 16),
      remoteGid: bytes(96, 16),
      alternateLocalGid: bytes(124, 16),
      alternateRemoteGid: bytes(140, 16),
      privateData: bytes(164, 92),
    },
  },
  MRA: {
    attribute: 0x11,
    fields: { ...ids, message: at(32, 2), serviceTimeout: at(33, 5) },
    blobs: { privateData: bytes(34, 222) },
  },
  REJ: {
    attribute: 0x12,
    fields: { ...ids, message: at(32, 2), infoLength: at(33, 7), reason: at(34, 16) },
    blobs: { info: bytes(36, 72), privateData: bytes(108, 148) },
  },
  REP: {
    attribute: 0x13,
    fields: {
      ...ece,
      ...ids,
      qkey: at(32, 32),
      qpn: at(36, 24),
      eceVendorIdHigh: at(39, 8),
      eecn: at(40, 24),
      eceVendorIdMiddle: at(43, 8),
      startingPsn: at(44, 24),
      eceVendorIdLow: at(47, 8),
      responderResources: at(48, 8),
      initiatorDepth: at(49, 8),
      targetAckDelay: at(50, 5),
      failoverAccepted: at(50, 2, 5),
      flowControl: at(50, 1, 7),
      rnrRetryCount: at(51, 3),
      srq: at(51, 1, 3),
      caGuid: at(52, 64),
    },
    blobs: { privateData: bytes(60, 196) },
  },
  RTU: { attribute: 0x14, fields: ids, blobs: { privateData: bytes(32, 224) } },
  DREQ: { attribute: 0x15, fields: { ...ids, remoteQpn: at(32, 24) }, blobs: { privateData: bytes(36, 220) } },
  DREP: { attribute: 0x16, fields: ids, blobs: { privateData: bytes(32, 224) } },
  SIDR_REQ: {
    attribute: 0x17,
    fields: { requestId: at(24, 32), pkey: at(28, 16), serviceId: at(32, 64) },
    blobs: { privateData: bytes(40, 216) },
  },
  SIDR_REP: {
    attribute: 0x18,
    fields: {
      requestId: at(24, 32),
      status: at(28, 8),
      infoLength: at(29, 8),
      qpn: at(32, 24),
      serviceId: at(36, 64),
      qkey: at(44, 32),
    },
    blobs: { info: bytes(48, 72), privateData: bytes(120, 136) },
  },
  LAP: {
    attribute: 0x19,
    fields: {
      ...ids,
      remoteQpn: at(36, 24),
      remoteResponseTimeout: at(39, 5),
      alternateLocalLid: at(44, 16),
      alternateRemoteLid: at(46, 16),
      alternateFlowLabel: at(80, 20),
      alternateTrafficClass: at(83, 8),
      alternateHopLimit: at(84, 8),
      alternatePacketRate: at(85, 6, 2),
      alternateSl: at(86, 4),
      alternateSubnetLocal: at(86, 1, 4),
      alternateLocalAckTimeout: at(87, 5),
    },
    blobs: { alternateLocalGid: bytes(48, 16), alternateRemoteGid: bytes(64, 16), privateData: bytes(88, 168) },
  },
  APR: {
    attribute: 0x1a,
    fields: { ...ids, infoLength: at(32, 8), status: at(33, 8) },
    blobs: { info: bytes(36, 72), privateData: bytes(108, 148) },
  },
} as const satisfies Record<string, MessageLayout & { readonly attribute: number }>

export type CmMessageName = keyof typeof cmMessages

/** `message` of a REJ or MRA: the answered message (clauses 12.6.6, 12.6.7). */
export const cmAnswered = { REQ: 0, REP: 1, OTHER: 2 } as const

/** Reasons of a REJ (clause 12.6.7.2, table 109). */
export const rejReason = {
  NO_QP: 1,
  NO_EEC: 2,
  NO_RESOURCES: 3,
  TIMEOUT: 4,
  UNSUPPORTED: 5,
  INVALID_COMM_ID: 6,
  INVALID_COMM_INSTANCE: 7,
  INVALID_SERVICE_ID: 8,
  INVALID_TRANSPORT_TYPE: 9,
  STALE_CONN: 10,
  RDC_NOT_EXIST: 11,
  INVALID_GID: 12,
  INVALID_LID: 13,
  INVALID_SL: 14,
  INVALID_TRAFFIC_CLASS: 15,
  INVALID_HOP_LIMIT: 16,
  INVALID_PACKET_RATE: 17,
  INVALID_ALT_GID: 18,
  INVALID_ALT_LID: 19,
  INVALID_ALT_SL: 20,
  INVALID_ALT_TRAFFIC_CLASS: 21,
  INVALID_ALT_HOP_LIMIT: 22,
  INVALID_ALT_PACKET_RATE: 23,
  PORT_CM_REDIRECT: 24,
  PORT_REDIRECT: 25,
  INVALID_MTU: 26,
  INSUFFICIENT_RESP_RESOURCES: 27,
  CONSUMER_DEFINED: 28,
  INVALID_RNR_RETRY: 29,
  DUPLICATE_LOCAL_COMM_ID: 30,
  INVALID_CLASS_VERSION: 31,
  INVALID_FLOW_LABEL: 32,
  INVALID_ALT_FLOW_LABEL: 33,
  VENDOR_OPTION_NOT_SUPPORTED: 35,
} as const

/** What the commonest reasons mean: what the sender of the REJ says of itself. */
const rejectMeanings: Readonly<Record<number, string>> = {
  [rejReason.NO_QP]: 'it has no queue pair for the connection',
  [rejReason.NO_RESOURCES]: 'it has no resources for the connection',
  [rejReason.TIMEOUT]: 'it waited for an answer, and gave up',
  [rejReason.INVALID_COMM_ID]: 'it does not know the connection',
  [rejReason.INVALID_SERVICE_ID]: 'no program listens there',
  [rejReason.STALE_CONN]: 'it has a connection with this queue pair already',
  [rejReason.INVALID_GID]: 'the GID of the path is not its own',
  [rejReason.INVALID_MTU]: 'it cannot have this path MTU',
  [rejReason.CONSUMER_DEFINED]: 'its program rejected the connection, or ended',
  [rejReason.DUPLICATE_LOCAL_COMM_ID]: 'it has a connection with this communication id already',
}

/** `reason 8, invalid service id: no program listens there` */
export const rejectText = (reason: number): string => {
  const name = Object.entries(rejReason).find(([, value]) => value === reason)?.[0]
  const meaning = rejectMeanings[reason]
  return `reason ${reason}${name === undefined ? '' : `, ${name.toLowerCase().replaceAll('_', ' ')}`}${
    meaning === undefined ? '' : `: ${meaning}`
  }`
}

/** `status` of a SIDR_REP (clause 12.11.2.2, table 121). */
export const sidrStatus = {
  SUCCESS: 0,
  UNSUPPORTED: 1,
  REJECT: 2,
  NO_QP: 3,
  REDIRECT: 4,
  UNSUPPORTED_VERSION: 5,
} as const

/** `status 1, unsupported` */
export const sidrStatusText = (status: number): string => {
  const name = Object.entries(sidrStatus).find(([, value]) => value === status)?.[0]
  return `status ${status}${name === undefined ? '' : `, ${name.toLowerCase().replaceAll('_', ' ')}`}`
}

/** `status` of an APR (clause 12.8.2.2). */
export const aprStatus = {
  SUCCESS: 0,
  INVALID_COMM_ID: 1,
  UNSUPPORTED: 2,
  REJECT: 3,
  REDIRECT: 4,
  IS_CURRENT: 5,
  INVALID_QPN_EECN: 6,
  INVALID_LID: 7,
  INVALID_GID: 8,
  INVALID_FLOW_LABEL: 9,
  INVALID_TCLASS: 10,
  INVALID_HOP_LIMIT: 11,
  INVALID_PACKET_RATE: 12,
  INVALID_SL: 13,
} as const

/** `failoverAccepted` of a REP: whether the alternate path of the REQ is accepted (clause 12.6.8). */
export const failoverAccepted = { ACCEPTED: 0, UNSUPPORTED: 1, REJECTED: 2 } as const

/** `transportType` of a REQ. EXTENDED: `extendedTransportType` has the type (1: XRC). */
export const transportType = { RC: 0, UC: 1, RD: 2, EXTENDED: 3 } as const

/** Maximum bytes of private data. */
export const privateDataBytes = {
  REQ: cmMessages.REQ.blobs.privateData.bytes,
  REP: cmMessages.REP.blobs.privateData.bytes,
  REJ: cmMessages.REJ.blobs.privateData.bytes,
  SIDR_REQ: cmMessages.SIDR_REQ.blobs.privateData.bytes,
  SIDR_REP: cmMessages.SIDR_REP.blobs.privateData.bytes,
} as const

/** rdma_cm's header at the start of the private data of REQ and SIDR_REQ. Offsets are from the start of the header. */
export const rdmaCmHeader = {
  bytes: 36,
  fields: { version: at(0, 8), ipVersion: at(1, 4), port: at(2, 16) },
  blobs: { source: bytes(4, 16), destination: bytes(20, 16) },
} as const satisfies MessageLayout & { readonly bytes: number }
