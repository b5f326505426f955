/*
 * Block signatures of mlx5 keys: the BSF (byte stream format) in requests that configure keys, the request that sets a
 * PSV, and the completion that tells of an error (wqe.h, cq.c and verbs.c of rdma-core's provider). Fields are
 * big-endian.
 */

/** mlx5_bsf, of size WITH_INLINE. Offsets, and bits of fields. */
export const Bsf = {
  BYTES: 64,
  CHECK_MASK: 1,
  /** Size of blocks on the wire (`blockSizes`); with SAME_BLOCKS the bytes of signatures that are copied. */
  WIRE: 2,
  MEMORY: 3,
  RAW_BYTES: 4,
  WIRE_PSV: 8,
  MEMORY_PSV: 12,
  /** To WIRE_INLINE: signatures of a whole transfer. */
  EXTENSION: 16,
  WIRE_INLINE: 32,
  MEMORY_INLINE: 48,
  SIZE_SHIFT: 6,
  WITH_INLINE: 2,
  SAME_BLOCKS: 1 << 4,
  /** Of the first byte: another type than signatures. */
  TYPE_MASK: 0xf,
  PSV_MASK: 0xff_ffff,
  FORMAT_SHIFT: 24,
  FORMAT_MASK: 0xf0,
  REPEAT: 2,
} as const

/** mlx5_bsf_inl: T10-DIF. */
export const BsfInline = {
  TYPE: 8,
  REPEAT: 9,
  FLAGS: 13,
  TAG_MASK: 14,
  VALID: 1 << 15,
  REPEATS: 1 << 7,
  CRC: 1,
  CHECKSUM: 2,
  INCREMENTS: 1 << 6,
  /** Blocks are not checked whose application tag has all bits, and the reference tag too. */
  ESCAPE_TAG: 1,
  ESCAPE_TAGS: 2,
  ESCAPE_MASK: 3,
} as const

export const SigKind = { CRC32: 0, CRC32C: 1, CRC64: 2, T10_CRC: 3, T10_CHECKSUM: 4 } as const
export type SigKind = (typeof SigKind)[keyof typeof SigKind]
/** By the upper bits of a block format. */
export const sigKinds: Readonly<Record<number, SigKind>> = {
  32: SigKind.CRC32,
  64: SigKind.CRC32C,
  80: SigKind.CRC64,
}

/** Bytes of data in a block, by selector. */
export const blockSizes: Readonly<Record<number, number>> = { 1: 512, 2: 520, 3: 4096, 4: 4160, 6: 4048 }
export const LARGEST_BLOCK = 4160
/** Bytes of a signature, at most. */
export const LARGEST_SIGNATURE = 8

/** mlx5_wqe_set_psv_seg */
export const PsvSegment = { INDEX: 0, VALUE_HI: 8, VALUE_LO: 12 } as const

/** mlx5_sigerr_cqe: offsets in a completion entry. */
export const SignatureError = {
  EXPECTED: 16,
  ACTUAL: 20,
  EXPECTED_REFERENCE: 24,
  ACTUAL_REFERENCE: 28,
  SYNDROME: 32,
  DOMAIN: 35,
  KEY: 36,
  OFFSET: 40,
  WIRE: 0,
  MEMORY: 1,
  /** Of SYNDROME. */
  REFERENCE_TAG: 1 << 11,
  APPLICATION_TAG: 1 << 12,
  GUARD: 1 << 13,
} as const
