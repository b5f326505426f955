/*
 * The queues of an EFA device in memory that it shares with a program, as in efa_io_defs.h of rdma-core: sends of 64 or
 * 128 bytes, receives of 16 bytes per scatter/gather element, completions of 16 or 32 bytes. Little-endian; offsets in
 * bytes. A completion is new if its phase bit differs from that of the last round; a doorbell has the number of
 * descriptors that were written, modulo 2^16.
 */

/**
 * Type of a send's operation: the lower 4 bits of `SendDescriptor.CONTROL_1`, and bits 4 to 6 of
 * `CompletionEntry.FLAGS`.
 */
export const EfaOperation = { SEND: 0, RDMA_READ: 1, RDMA_WRITE: 2 } as const

/** efa_io_tx_wqe: the meta descriptor, and what follows it. */
export const SendDescriptor = {
  REQUEST_ID: 0,
  /** OPERATION_MASK, HAS_IMM, INLINE, META. */
  CONTROL_1: 2,
  /** Phase, FIRST, LAST, COMPLETION. */
  CONTROL_2: 3,
  DEST_QPN: 4,
  /** Bytes of inline data, otherwise number of elements. */
  LENGTH: 6,
  IMM: 8,
  AH: 12,
  QKEY: 16,
  /** Three more u16 of a request id of 64 bits. */
  REQUEST_ID_EXTENDED: 26,
  /** Elements, or inline data of a SEND. */
  DATA: 32,
  /** Of READ and WRITE: bytes, rkey and address of the peer's memory, then an element or inline data. */
  REMOTE_LENGTH: 32,
  REMOTE_KEY: 36,
  REMOTE_ADDRESS: 40,
  RDMA_DATA: 48,
} as const
export const SendControl = { OPERATION_MASK: 15, HAS_IMM: 0x10, INLINE: 0x20, META: 0x80 } as const
/** efa_io_tx_buf_desc: an element of a send, 16 bytes. The key has 24 bits. */
export const SendElement = { BYTES: 16, LENGTH: 0, KEY: 4, ADDRESS: 8 } as const
export const SEND_SIZES = [64, 128] as const
/** Inline data that a send of each size has room for. */
export const InlineBytes = { 64: 32, 128: 80 } as const

/**
 * efa_io_rx_desc: an element of a receive, 16 bytes. A receive is the elements from one with FIRST to one with LAST.
 */
export const ReceiveDescriptor = {
  BYTES: 16,
  ADDRESS: 0,
  REQUEST_ID: 8,
  LENGTH: 10,
  /** 24 bits of a key, FIRST and LAST. */
  KEY_AND_CONTROL: 12,
} as const
export const ReceiveControl = { FIRST: 1 << 30, LAST: 1 << 31 } as const
export const KEY_MASK = 0xff_ffff

/** efa_io_cdesc_common, efa_io_tx_cdesc, efa_io_rx_cdesc and efa_io_rx_cdesc_ex. */
export const CompletionEntry = {
  /** Word: request id (u16), status (u8), flags (u8). */
  REQUEST_ID: 0,
  STATUS: 2,
  FLAGS: 3,
  QPN: 4,
  /** Of a send. */
  REQUEST_ID_EXTENDED: 6,
  /** Of a receive. */
  LENGTH: 6,
  AH: 8,
  SOURCE_QPN: 10,
  IMM: 12,
  /**
   * Of a receive in an entry of 32 bytes: bits 16 to 31 of the length of a WRITE; or the source GID, if AH is
   * UNKNOWN_AH.
   */
  LENGTH_HIGH: 16,
  SOURCE_GID: 16,
} as const
export const COMPLETION_SIZES = [16, 32] as const
/** Bits of `CompletionEntry.FLAGS`: phase, queue, immediate data, operation, and no receive was taken. */
export const CompletionFlag = {
  PHASE: 1,
  SEND_QUEUE: 1 << 1,
  RECEIVE_QUEUE: 2 << 1,
  HAS_IMM: 8,
  OPERATION_SHIFT: 4,
  UNSOLICITED: 0x80,
} as const
export const UNKNOWN_AH = 0xffff

/** Doorbell of a CQ: consumer index, sequence number of events, and the bit that arms the CQ. */
export const CqDoorbell = { INDEX_MASK: 0xffff, EVENTS_SHIFT: 29, EVENTS_MASK: 3, ARM: 1 << 31 } as const

/** efa_io_comp_status; also the vendor error of a completion. */
export const EfaStatus = {
  OK: 0,
  FLUSHED: 1,
  INTERNAL_ERROR: 2,
  UNSUPPORTED_OPERATION: 3,
  INVALID_AH: 4,
  INVALID_LKEY: 5,
  LOCAL_LENGTH: 6,
  BAD_ADDRESS: 7,
  ABORT: 8,
  BAD_DESTINATION: 9,
  NOT_READY: 10,
  REMOTE_LENGTH: 11,
  BAD_STATUS: 12,
  UNRESPONSIVE: 13,
  UNKNOWN_PEER: 14,
  UNREACHABLE: 15,
} as const
export type EfaStatus = (typeof EfaStatus)[keyof typeof EfaStatus]
