/*
 * The queues of mlx5 devices, as libmlx5 writes and reads them (mlx5dv.h of rdma-core). Multi-byte fields are
 * big-endian.
 *
 * A send queue is a ring of blocks of 64 bytes. A request begins at a block and has segments of 16 bytes: control, then
 * by its opcode a datagram's destination, the XRC SRQ, the remote address, an atomic's operands, and data. Segments
 * continue at the first block after the last one. Receive requests and those of shared queues have a power of two of
 * bytes. A doorbell record has two counters (u32): of posted receives and blocks, or of polled completions and armings.
 */
import { WcStatus, WrOpcode } from '../work.ts'

export const BLOCK_BYTES = 64
export const SEGMENT_BYTES = 16

/** Offsets in a doorbell record, and its bytes. */
export const DoorbellRecord = { RECEIVES: 0, SENDS: 4, CONSUMED: 0, ARM: 4, BYTES: 8 } as const
/** Counters of posted requests have 16 bits, of polled completions 24. */
export const POSTED_MASK = 0xffff
export const CONSUMED_MASK = 0xff_ffff

/** mlx5_wqe_ctrl_seg. MODIFIER: of the opcode. STREAM: of an initiator of DC, 16 bits. */
export const ControlSegment = {
  MODIFIER: 0,
  /** Number of the request's first block, and of the queue pair: 16 and 24 bits. */
  INDEX: 1,
  OPCODE: 3,
  QPN: 4,
  SEGMENTS: 7,
  STREAM: 9,
  FLAGS: 11,
  IMM: 12,
  SEGMENTS_MASK: 0x3f,
} as const
/** Number of blocks of a request; one without segments has one. */
export const blocksOf = (segments: number): number => (segments <= 4 ? 1 : (segments + 3) >> 2)
/** Bits of the flags of a control segment. FENCE: modes from 2 on wait for READs and atomics. */
export const ControlFlag = { SOLICITED: 2, SIGNALED: 8, FENCE_SHIFT: 5, FENCE_MASK: 7, FENCE: 2 } as const

/** Opcodes of requests (MLX5_OPCODE_…). */
export const Mlx5Opcode = {
  NOP: 0x00,
  SEND_INVAL: 0x01,
  RDMA_WRITE: 0x08,
  RDMA_WRITE_IMM: 0x09,
  SEND: 0x0a,
  SEND_IMM: 0x0b,
  RDMA_READ: 0x10,
  ATOMIC_CS: 0x11,
  ATOMIC_FA: 0x12,
  SET_PSV: 0x20,
  UMR: 0x25,
  MMO: 0x2f,
} as const

const { values: Wr } = WrOpcode
/** ibv_wr_opcode by opcode; UMR becomes BIND_MW or LOCAL_INV. */
export const wrOpcodes: Readonly<Record<number, number>> = {
  [Mlx5Opcode.NOP]: Wr.DRIVER1,
  [Mlx5Opcode.SET_PSV]: Wr.DRIVER1,
  [Mlx5Opcode.SEND_INVAL]: Wr.SEND_WITH_INV,
  [Mlx5Opcode.RDMA_WRITE]: Wr.RDMA_WRITE,
  [Mlx5Opcode.RDMA_WRITE_IMM]: Wr.RDMA_WRITE_WITH_IMM,
  [Mlx5Opcode.SEND]: Wr.SEND,
  [Mlx5Opcode.SEND_IMM]: Wr.SEND_WITH_IMM,
  [Mlx5Opcode.RDMA_READ]: Wr.RDMA_READ,
  [Mlx5Opcode.ATOMIC_CS]: Wr.ATOMIC_CMP_AND_SWP,
  [Mlx5Opcode.ATOMIC_FA]: Wr.ATOMIC_FETCH_AND_ADD,
  [Mlx5Opcode.MMO]: Wr.MEMCPY,
}

/** mlx5_wqe_datagram_seg. SOURCE: flow label in bits 0 to 19, index of the source GID in bits 20 to 27. */
export const DatagramSegment = {
  QKEY: 0,
  QPN: 8,
  /** InfiniBand: static rate, and in the lower four bits the service level. */
  RATE_SL: 12,
  LID: 14,
  TRAFFIC_CLASS: 26,
  HOP_LIMIT: 27,
  SOURCE: 28,
  DGID: 32,
  BYTES: 48,
} as const
export const DATAGRAM_GID_SHIFT = 20
/** Whether there is a GRH. */
export const DATAGRAM_GRH_SHIFT = 30
/**
 * mlx5_wqe_eth_seg, of raw packets: checksums to compute, and the frame's first bytes, HEADER_BYTES of them. The
 * segment has a multiple of 16 bytes.
 */
export const EthernetSegment = {
  CHECKSUMS: 4,
  HEADER_BYTES: 12,
  HEADER: 14,
  L3_CHECKSUM: 1 << 6,
  L4_CHECKSUM: 1 << 7,
} as const
/** mlx5_wqe_raddr_seg */
export const RemoteSegment = { ADDRESS: 0, RKEY: 8 } as const
/** mlx5_wqe_atomic_seg */
export const AtomicSegment = { SWAP_ADD: 0, COMPARE: 8 } as const
/** mlx5_wqe_data_seg. With INLINE, the other bits are the number of bytes that follow the first word. */
export const DataSegment = { BYTES: 0, LKEY: 4, ADDRESS: 8, INLINE: 0x8000_0000, INVALID_LKEY: 0x100 } as const
/**
 * A copy within memory (mlx5_mmo_wqe): a segment of metadata, which names memory for more about operations of other
 * modifiers, the source and the destination. The number of bytes 0 is 2^31.
 */
export const CopySegments = { MODIFIER: 1, COUNT: 3 } as const
/** mlx5_wqe_srq_next_seg, 16 bytes: the next request of the list. */
export const NextSegment = { INDEX: 2 } as const

/**
 * A request that changes a memory key, in three parts of 48, 64 and 64 bytes (mlx5_wqe_umr_ctrl_seg,
 * mlx5_wqe_mkey_context_seg, mlx5_wqe_umr_klm_seg). Offsets from the first part. Its immediate data is the key.
 */
export const KeySegments = {
  FLAGS: 0,
  MKEY_MASK: 8,
  FREE: 48,
  ACCESS: 50,
  QPN_KEY: 52,
  START: 64,
  LENGTH: 72,
  LOG_ENTITY: 107,
  LKEY: 116,
  ADDRESS: 120,
  OCTOWORDS: 4,
  BSF_OCTOWORDS: 6,
  BSF_FLAGS: 60,
  INLINE: 0x80,
  IS_FREE: 0x40,
  /** Of LOG_ENTITY. */
  LOG_MASK: 0x3f,
  LENGTH_MASK: 1,
  ENTITY_MASK: 1 << 1,
  START_MASK: 1 << 6,
  BSF_MASK: 1 << 12,
  QPN_MASK: 1 << 14,
  ACCESS_MASK: 0xf << 18,
  /** Of BSF_FLAGS. */
  HAS_BSF: 1 << 30,
} as const
/** Bits of KeySegments.ACCESS. */
export const KeyAccess = { ATOMIC: 0x40, REMOTE_WRITE: 0x20, REMOTE_READ: 0x10, LOCAL_WRITE: 8 } as const

/** mlx5_cqe64, and mlx5_err_cqe. Entries of 128 bytes have it in their second half. */
export const CompletionEntry = {
  BYTES: 64,
  /** Path bits, and the source LID. */
  PATH: 17,
  SLID: 22,
  /** Of a raw packet (`FrameHeaders`), 16 bits. */
  FRAME_HEADERS: 28,
  /** GRH in bits 28 and 29, service level in bits 24 to 27, source QPN. */
  SOURCE: 24,
  UIDX: 32,
  IMM: 36,
  LENGTH: 44,
  TIMESTAMP: 48,
  VENDOR_SYNDROME: 54,
  SYNDROME: 55,
  /** Opcode of the request, and QPN; of a raw packet the tag of its flow rule. */
  OPCODE_QPN: 56,
  COUNTER: 60,
  OWNER: 63,
} as const

/** What a completion says of a raw packet: checks that were right, and the types of its headers. */
export const FrameHeaders = {
  L2_OK: 1 << 8,
  L3_OK: 1 << 9,
  L4_OK: 1 << 10,
  IPV6: 1 << 2,
  IPV4: 2 << 2,
  TCP: 1 << 4,
  UDP: 2 << 4,
} as const

/** Kinds of completions, the upper four bits of CompletionEntry.OWNER. */
export const CompletionKind = {
  REQUEST: 0,
  RECEIVE_WRITE_IMM: 1,
  RECEIVE: 2,
  RECEIVE_IMM: 3,
  RECEIVE_INVALIDATE: 4,
  RESIZED: 5,
  /** drivers/mlx5/signature/layout.ts */
  SIGNATURE_ERROR: 12,
  REQUEST_ERROR: 13,
  RECEIVE_ERROR: 14,
  INVALID: 15,
} as const

const { values: Wc } = WcStatus
/** Syndromes by ibv_wc_status, as libmlx5 translates them (mlx5_handle_error_cqe). */
export const syndromes: Readonly<Record<number, number>> = {
  [Wc.LOC_LEN_ERR]: 0x01,
  [Wc.LOC_QP_OP_ERR]: 0x02,
  [Wc.LOC_PROT_ERR]: 0x04,
  [Wc.WR_FLUSH_ERR]: 0x05,
  [Wc.MW_BIND_ERR]: 0x06,
  [Wc.BAD_RESP_ERR]: 0x10,
  [Wc.LOC_ACCESS_ERR]: 0x11,
  [Wc.REM_INV_REQ_ERR]: 0x12,
  [Wc.REM_ACCESS_ERR]: 0x13,
  [Wc.REM_OP_ERR]: 0x14,
  [Wc.RETRY_EXC_ERR]: 0x15,
  [Wc.RNR_RETRY_EXC_ERR]: 0x16,
  [Wc.REM_ABORT_ERR]: 0x22,
}
/** A syndrome that libmlx5 does not know: ibv_wc_status GENERAL_ERR. */
export const GENERAL_SYNDROME = 0x7f
/**
 * Vendor syndromes that adapters report, by ibv_wc_status, where one is known for sure (NVIDIA publishes no table;
 * these stand in logs with their status). All others are 0.
 */
export const vendorSyndromes: Readonly<Record<number, number>> = {
  [Wc.WR_FLUSH_ERR]: 0xf9,
  [Wc.RETRY_EXC_ERR]: 0x81,
  [Wc.RNR_RETRY_EXC_ERR]: 0x87,
  [Wc.REM_ACCESS_ERR]: 0x88,
  [Wc.REM_OP_ERR]: 0x89,
  [Wc.REM_INV_REQ_ERR]: 0x8a,
}
/** As vendorSyndromes, of receives: of LOC_PROT_ERR only this side's is known. */
export const receiveSyndromes: Readonly<Record<number, number>> = { ...vendorSyndromes, [Wc.LOC_PROT_ERR]: 0x32 }

/** The arm word of a doorbell record. SOLICITED: only for solicited completions. TAKEN: the device has taken it. */
export const ArmWord = { SOLICITED: 1 << 24, INDEX_MASK: 0xff_ffff, TAKEN: 0xffff_ffff } as const
