/*
 * The ring layout of rxe's user library and driver (rdma/rdma_user_rxe.h). Offsets are in bytes; fields are
 * little-endian.
 *
 * A ring is a header and 2^n slots of 2^m bytes. Stored indices are masked. If they are equal, the ring is empty. If
 * the producer is one before the consumer, the ring is full: a ring of `mask + 1` slots has at most `mask` elements.
 * The program produces send and receive requests, the device produces completions.
 */

/** struct rxe_queue_buf. */
export const RingHeader = { LOG2_ELEMENT: 0, INDEX_MASK: 4, PRODUCER: 128, CONSUMER: 256, DATA: 384 } as const

/**
 * Offset of a word of the header that rxe does not use. The word is the offset of the elements from the start of the
 * header, or 0 for RingHeader.DATA. Packed rings (OpenWants.PACKED_RINGS in spec/session.ts) have their headers side by
 * side, apart from the elements.
 */
export const ELEMENTS_OFFSET = 8

/** struct ib_uverbs_wc, in elements of 128 bytes (2^ELEMENT_SHIFT), as in rxe. */
export const Wc = {
  WR_ID: 0,
  STATUS: 8,
  OPCODE: 12,
  VENDOR_ERR: 16,
  BYTE_LEN: 20,
  /** Immediate data big-endian, or the invalidated rkey little-endian. */
  IMM: 24,
  QP_NUM: 28,
  SRC_QP: 32,
  FLAGS: 36,
  PKEY_INDEX: 40,
  SLID: 42,
  SL: 44,
  PATH_BITS: 45,
  PORT_NUM: 46,
  /** After the struct, in extended CQs only; not in Linux's rxe. Nanoseconds of the device's clock, u64. */
  TIMESTAMP: 48,
  ELEMENT_SHIFT: 7,
} as const

/** struct rxe_send_wqe up to the scatter/gather elements or the inline data. */
export const SendWqe = {
  WR_ID: 0,
  OPCODE: 12,
  /** ibv_send_flags. In an XRC request, bits 8 and up are the number of the receiver's SRQ. */
  FLAGS: 16,
  /** Immediate data big-endian, or the rkey to invalidate little-endian. */
  IMM: 20,
  REMOTE: 24,
  RKEY: 32,
  ATOMIC_COMPARE_ADD: 32,
  ATOMIC_SWAP: 40,
  ATOMIC_RKEY: 48,
  /**
   * BIND_MW: address (u64, at REMOTE), length (u64), the region's lkey, the window's old and new rkey, access flags.
   */
  MW_LENGTH: 32,
  MW_LKEY: 40,
  MW_KEY: 44,
  MW_NEW_KEY: 48,
  MW_ACCESS: 52,
  /** FLUSH (Linux 6.2): rkey, placement (one byte), selectivity (one byte). The length is in DMA_LENGTH. */
  FLUSH_RKEY: 36,
  FLUSH_PLACEMENT: 40,
  FLUSH_SELECTIVITY: 41,
  /**
   * Datagrams: QP number, Q_Key, and number of the address handle. If this number is 0, the address vector is at
   * UD_VECTOR.
   */
  UD_QPN: 24,
  UD_QKEY: 28,
  UD_AH: 36,
  UD_VECTOR: 56,
  DMA_LENGTH: 184,
  DMA_NUM_SGE: 196,
  /** The scatter/gather elements, inline data, or the 8 bytes of an ATOMIC WRITE. */
  SGE: 208,
} as const

/** struct rxe_av, in requests of older rdma-core providers, which lack numbers of address handles. */
export const AddressVector = { PORT: 0, DGID: 8, FLOW_LABEL: 24, SGID_INDEX: 28, TRAFFIC_CLASS: 30, BYTES: 88 } as const

/** struct rxe_recv_wqe up to the scatter/gather elements. */
export const RecvWqe = { WR_ID: 0, DMA_NUM_SGE: 28, SGE: 40 } as const

/** struct ib_sge in a ring. */
export const RingSge = { ADDRESS: 0, LENGTH: 8, LKEY: 12, BYTES: 16 } as const
