/*
 * Management datagrams: methods, classes and status (InfiniBand Architecture Specification, volume 1, clauses 13.4.4 to
 * 13.4.7), the header of the reliable multi-packet protocol, RMPP (clause 13.6), and the attributes of performance
 * management (clause 16.1). mad.ts has the common header and communication management. Offsets are from the start of
 * the MAD; all fields are big-endian.
 */
import { bitField as at, type BitField } from './headers.ts'

export const MadMethod = {
  GET: 0x01,
  SET: 0x02,
  SEND: 0x03,
  TRAP: 0x05,
  REPORT: 0x06,
  TRAP_REPRESS: 0x07,
  GET_TABLE: 0x12,
  /** Bit of responses. */
  RESPONSE: 0x80,
} as const

/** Number of methods of a class, without MadMethod.RESPONSE. */
export const MAD_METHODS = 128

export const MadClass = {
  SUBNET_LID_ROUTED: 0x01,
  SUBNET_ADMINISTRATION: 0x03,
  PERFORMANCE: 0x04,
  BASEBOARD: 0x05,
  DEVICE_MANAGEMENT: 0x06,
  COMMUNICATION: 0x07,
  DEVICE_ADMINISTRATION: 0x10,
  BOOT: 0x12,
  /** First and last of the vendor classes with an OUI. */
  VENDOR_OUI_FIRST: 0x30,
  VENDOR_OUI_LAST: 0x4f,
  SUBNET_DIRECTED_ROUTE: 0x81,
} as const

/** Whether datagrams of the class go to queue pair 0. */
export const isSubnetManagement = (mgmtClass: number): boolean =>
  mgmtClass === MadClass.SUBNET_LID_ROUTED || mgmtClass === MadClass.SUBNET_DIRECTED_ROUTE

/** Agents can be registered for classes below this number (Linux: MAX_MGMT_CLASS). */
export const MAD_CLASSES = 80

/** The receiver has no room now; the requester may ask again. */
export const MAD_STATUS_BUSY = 0x0001
/** Status of a response: the method is not supported for this attribute. */
export const MAD_STATUS_UNSUPPORTED = 0x000c
/** Status of a response: a field of the attribute has an invalid value. */
export const MAD_STATUS_INVALID_FIELD = 0x001c

export const MAD_HEADER_BYTES = 24

/** Attribute id. */
export const CLASS_PORT_INFO = 0x0001

/** Bit of the attribute modifier of a response of baseboard management. */
export const BASEBOARD_RESPONSE = 1

/** Offset of the 3 bytes of the OUI in a MAD of a vendor class. */
export const VENDOR_OUI_OFFSET = 37

// ---- reliable multi-packet protocol ----

/** Bytes of common header and RMPP header. The header of the class and the data of the segment follow. */
export const RMPP_HEADER_END = 36
/** Bytes of a full segment after the RMPP header. */
export const RMPP_DATA_BYTES = 220
export const RMPP_VERSION = 1

export const rmppHeader = {
  version: at(24, 8),
  type: at(25, 8),
  responseTime: at(26, 5),
  flags: at(26, 3, 5),
  status: at(27, 8),
  segment: at(28, 32),
  /** DATA: the payload length. ACK: the number of the last segment that may be sent (NewWindowLast). */
  lengthOrWindow: at(32, 32),
} as const satisfies Record<string, BitField>

export const RmppType = { DATA: 1, ACK: 2, STOP: 3, ABORT: 4 } as const
export const RmppFlag = { ACTIVE: 1, FIRST: 2, LAST: 4 } as const

/** Reasons to stop or abort a transfer (table 112). */
export const RmppStatus = {
  NORMAL: 0,
  /** STOP: resources exhausted. */
  RESX: 1,
  /**
   * ABORT, from here on. BAD_LENGTH: the payload length does not fit the last flag. BAD_SEGMENT: the segment number
   * does not fit the first flag.
   */
  TIME_TOO_LONG: 118,
  BAD_LENGTH: 119,
  BAD_SEGMENT: 120,
  BAD_TYPE: 121,
  WINDOW_TOO_SMALL: 122,
  SEGMENT_TOO_BIG: 123,
  BAD_STATUS: 124,
  BAD_VERSION: 125,
  TOO_MANY_RETRIES: 126,
  UNSPECIFIED: 127,
} as const
export const RMPP_ABORT_FIRST = RmppStatus.TIME_TOO_LONG
/** From 128 on, the class defines the reason. */
export const RMPP_ABORT_LAST = 191

/**
 * Offset of the data in each segment (Linux: ib_get_mad_data_offset): bytes of common header, RMPP header if the class
 * has RMPP, and class header.
 */
export const dataOffset = (mgmtClass: number): number => {
  switch (mgmtClass) {
    case MadClass.SUBNET_ADMINISTRATION:
      return 56
    case MadClass.DEVICE_MANAGEMENT:
    case MadClass.DEVICE_ADMINISTRATION:
    case MadClass.BOOT:
      return 64
    default:
      return isVendorClass(mgmtClass) ? 40 : MAD_HEADER_BYTES
  }
}

/** Whether the class is a vendor class with an OUI. */
export const isVendorClass = (mgmtClass: number): boolean =>
  mgmtClass >= MadClass.VENDOR_OUI_FIRST && mgmtClass <= MadClass.VENDOR_OUI_LAST

/** Whether the datagrams of the class have an RMPP header. */
export const usesRmpp = (mgmtClass: number): boolean => dataOffset(mgmtClass) !== MAD_HEADER_BYTES

// ---- performance management ----

export const PERFORMANCE_VERSION = 1

/** A counter, and the file in `counters` with the same value (spec/counters.ts). */
interface PerformanceCounter {
  readonly field: BitField
  readonly file: string
}
const counter = (field: BitField, file: string): PerformanceCounter => ({ field, file })

/** By attribute id. Counters of at most 32 bits stop at their maximum. */
export const performanceCounters: Readonly<Record<number, readonly PerformanceCounter[]>> = {
  // PortCounters
  18: [
    counter(at(68, 16), 'symbol_error'),
    counter(at(70, 8), 'link_error_recovery'),
    counter(at(71, 8), 'link_downed'),
    counter(at(72, 16), 'port_rcv_errors'),
    counter(at(74, 16), 'port_rcv_remote_physical_errors'),
    counter(at(76, 16), 'port_rcv_switch_relay_errors'),
    counter(at(78, 16), 'port_xmit_discards'),
    counter(at(80, 8), 'port_xmit_constraint_errors'),
    counter(at(81, 8), 'port_rcv_constraint_errors'),
    counter(at(83, 4), 'local_link_integrity_errors'),
    counter(at(83, 4, 4), 'excessive_buffer_overrun_errors'),
    counter(at(86, 16), 'VL15_dropped'),
    counter(at(88, 32), 'port_xmit_data'),
    counter(at(92, 32), 'port_rcv_data'),
    counter(at(96, 32), 'port_xmit_packets'),
    counter(at(100, 32), 'port_rcv_packets'),
  ],
  // PortCountersExtended
  29: [
    counter(at(72, 64), 'port_xmit_data'),
    counter(at(80, 64), 'port_rcv_data'),
    counter(at(88, 64), 'port_xmit_packets'),
    counter(at(96, 64), 'port_rcv_packets'),
    counter(at(104, 64), 'unicast_xmit_packets'),
    counter(at(112, 64), 'unicast_rcv_packets'),
    counter(at(120, 64), 'multicast_xmit_packets'),
    counter(at(128, 64), 'multicast_rcv_packets'),
  ],
}

/** Offset of PortSelect in both attributes, and its value for all ports. */
export const PERFORMANCE_PORT_OFFSET = 65
export const ALL_PORTS = 0xff

/** ClassPortInfo: versions, CapabilityMask, RespTimeValue. */
export const classPortInfo = {
  baseVersion: at(64, 8),
  classVersion: at(65, 8),
  capabilities: at(66, 16),
  responseTime: at(71, 5, 3),
} as const satisfies Record<string, BitField>

/** Bits of `capabilities`: PortSelect may be ALL_PORTS; PortCountersExtended has unicast and multicast counters. */
export const ALL_PORT_SELECT = 1 << 8
export const EXTENDED_WIDTH = 1 << 9
