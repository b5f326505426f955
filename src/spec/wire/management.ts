/*
 * Management datagrams beside communication management as data: methods, classes and status (InfiniBand Architecture
 * Specification, volume 1, clauses 13.4.4 to 13.4.7), the header of the reliable multi-packet protocol (clause 13.6)
 * and the attributes of performance management (clause 16.1). Offsets are from the start of the MAD; all fields are
 * big-endian. The common header is in mad.ts.
 */
import type { BitField } from './headers.ts'

export const MadMethod = {
  GET: 0x01,
  SET: 0x02,
  SEND: 0x03,
  TRAP: 0x05,
  REPORT: 0x06,
  TRAP_REPRESS: 0x07,
  GET_TABLE: 0x12,
  /** The bit of the method that marks a response. */
  RESPONSE: 0x80,
} as const

/** Methods that a class can have, without the bit of responses. */
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
  /** Vendors' classes with an OUI. */
  VENDOR_OUI_FIRST: 0x30,
  VENDOR_OUI_LAST: 0x4f,
  SUBNET_DIRECTED_ROUTE: 0x81,
} as const

/** Agents can be registered for classes below this number. */
export const MAD_CLASSES = 80

/** Status of a response: method and attribute are not supported together. */
export const MAD_STATUS_UNSUPPORTED = 0x000c

/** The common header. */
export const MAD_HEADER_BYTES = 24

/** Attribute that every class has. */
export const CLASS_PORT_INFO = 0x0001

/** Bit of the attribute modifier that makes a datagram of baseboard management a response. */
export const BASEBOARD_RESPONSE = 1

/** The OUI of a vendor class, 3 bytes. */
export const VENDOR_OUI_AT = 37

// ---- reliable multi-packet protocol ----

/** Common header and RMPP header; the data of a segment, with the class's own header, follows. */
export const RMPP_HEADER_BYTES = 36
/** Bytes of a full segment that `lengthOrWindow` counts: everything after the RMPP header. */
export const RMPP_DATA_BYTES = 220
export const RMPP_VERSION = 1

const at = <const W extends number>(byte: number, width: W, bit = 0): readonly [firstBit: number, width: W] => [
  byte * 8 + bit,
  width,
]

export const rmppHeader = {
  version: at(24, 8),
  type: at(25, 8),
  responseTime: at(26, 5),
  flags: at(26, 3, 5),
  status: at(27, 8),
  segment: at(28, 32),
  /** Payload length in DATA, the last segment that may be sent in an ACK. */
  lengthOrWindow: at(32, 32),
} as const satisfies Record<string, BitField>

export const RmppType = { DATA: 1, ACK: 2, STOP: 3, ABORT: 4 } as const
export const RmppFlag = { ACTIVE: 1, FIRST: 2, LAST: 4 } as const

/** Reasons to stop or abort a transfer (table 112). */
export const RmppStatus = {
  NORMAL: 0,
  /** STOP: resources exhausted. */
  RESX: 1,
  /** Aborts: total time too long, inconsistent last and payload length, inconsistent first and segment number, … */
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
export const RMPP_ABORT_LAST = 191

/**
 * Classes with headers of their own: bytes in front of the data of each segment. Only these use RMPP; the data of other
 * classes follows the common header.
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

/** Whether agents of the class have an OUI. */
export const isVendorClass = (mgmtClass: number): boolean =>
  mgmtClass >= MadClass.VENDOR_OUI_FIRST && mgmtClass <= MadClass.VENDOR_OUI_LAST

export const usesRmpp = (mgmtClass: number): boolean => dataOffset(mgmtClass) !== MAD_HEADER_BYTES

// ---- performance management ----

export const PERFORMANCE_VERSION = 1

/** A counter in a MAD and the file of `counters/` that it shows (spec/counters.ts). */
export interface PerformanceCounter {
  readonly field: BitField
  readonly file: string
}
const counter = (field: BitField, file: string): PerformanceCounter => ({ field, file })

/** By attribute id. Counters of 32 bits and fewer saturate. */
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

/** PortSelect of both; 0xff: all ports. */
export const PERFORMANCE_PORT_AT = 65
export const ALL_PORTS = 0xff

/** ClassPortInfo behind the 40 reserved bytes of the class: versions, CapabilityMask, RespTimeValue. */
export const classPortInfo = {
  baseVersion: at(64, 8),
  classVersion: at(65, 8),
  capabilities: at(66, 16),
  responseTime: at(71, 5, 3),
} as const satisfies Record<string, BitField>

/** IsExtendedWidthSupported: PortCountersExtended has the packets of each kind too. */
export const EXTENDED_WIDTH = 1 << 9
