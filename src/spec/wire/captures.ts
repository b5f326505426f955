/*
 * Capture files: magic numbers, block and record types, and link types (draft-ietf-opsawg-pcap, -pcapng and
 * -pcaplinktype; Endace ERF type definitions).
 */

export const PcapngBlock = {
  SECTION: 0x0a0d_0d0a,
  INTERFACE: 1,
  /** The obsolete packet block: a 16-bit interface, and the drops since the last one. */
  PACKET: 2,
  SIMPLE_PACKET: 3,
  ENHANCED_PACKET: 6,
} as const
/** The byte-order magic in a section header block. */
export const PCAPNG_BYTE_ORDER = 0x1a2b_3c4d
/** Options: of any block, of an interface, and of an enhanced packet. */
export const PcapngOption = { END: 0, COMMENT: 1, IF_NAME: 2, IF_TSRESOL: 9, IF_TSOFFSET: 14, EPB_FLAGS: 2 } as const

/**
 * By pcap's first four bytes, read big-endian: byte order, nanoseconds per unit of fractional time, and bytes of a
 * packet's header (24: the form of Kuznetzov).
 */
export const pcapMagics: ReadonlyMap<
  number,
  { readonly isLittleEndian: boolean; readonly unit: number; readonly headerBytes: number }
> = new Map([
  [0xa1b2_c3d4, { isLittleEndian: false, unit: 1000, headerBytes: 16 }],
  [0xd4c3_b2a1, { isLittleEndian: true, unit: 1000, headerBytes: 16 }],
  [0xa1b2_3c4d, { isLittleEndian: false, unit: 1, headerBytes: 16 }],
  [0x4d3c_b2a1, { isLittleEndian: true, unit: 1, headerBytes: 16 }],
  [0xa1b2_cd34, { isLittleEndian: false, unit: 1000, headerBytes: 24 }],
  [0x34cd_b2a1, { isLittleEndian: true, unit: 1000, headerBytes: 24 }],
])

/** LINKTYPE_…: what the bytes of a packet begin with. */
export const LinkType = {
  ETHERNET: 1,
  RAW_BSD: 12,
  RAW: 101,
  LINUX_COOKED: 113,
  ERF: 197,
  IPV4: 228,
  IPV6: 229,
  INFINIBAND: 247,
  LINUX_COOKED_V2: 276,
} as const

/** The lower seven bits of an ERF record's type. Others are skipped. */
export const ErfType = {
  ETHERNET: 2,
  COLOR_ETHERNET: 11,
  DSM_COLOR_ETHERNET: 16,
  COLOR_HASH_ETHERNET: 20,
  INFINIBAND: 21,
  IPV4: 22,
  IPV6: 23,
  META: 27,
  PAD: 48,
} as const
/** The bit of an ERF record's type, and of each extension header, that says: an extension header follows. */
export const ERF_MORE = 0x80
