/*
 * The transport headers of InfiniBand and RoCEv2, and values of their fields. Names are those of the InfiniBand
 * Architecture Specification, volume 1: clauses 9.2 (BTH), 9.3 (RETH, AtomicETH, DETH, AETH, AtomicAckETH, ImmDt, IETH)
 * and 9.7.5 (values of AETH), annexes A14 (XRCETH) and A19 (FETH).
 *
 * Bits count in transmission order: bit 0 is the most significant bit of byte 0. Fields are big-endian.
 */

export type BitField = readonly [firstBit: number, width: number]

/** A field of `width` bits, starting at bit `bit` (0: most significant) of byte `byte`. */
export const bitField = <const W extends number>(
  byte: number,
  width: W,
  bit = 0,
): readonly [firstBit: number, width: W] => [byte * 8 + bit, width]

/** Size in bytes, and fields in transmission order, reserved fields included. */
export interface Header {
  readonly bytes: number
  readonly fields: Readonly<Record<string, BitField>>
}

export const headers = {
  /** Base transport header: the start of every packet. */
  BTH: {
    bytes: 12,
    fields: {
      opcode: [0, 8],
      /** Solicited event. */
      se: [8, 1],
      migReq: [9, 1],
      padCnt: [10, 2],
      tver: [12, 4],
      pkey: [16, 16],
      fecn: [32, 1],
      becn: [33, 1],
      resv6: [34, 6],
      destQp: [40, 24],
      ackReq: [64, 1],
      resv7: [65, 7],
      psn: [72, 24],
    },
  },
  /** RDMA: remote virtual address, rkey, and bytes of the whole message. */
  RETH: { bytes: 16, fields: { va: [0, 64], rkey: [64, 32], dmaLen: [96, 32] } },
  /** Acknowledge. msn: the responder's count of completed messages. */
  AETH: { bytes: 4, fields: { syndrome: [0, 8], msn: [8, 24] } },
  /** Atomic request. swapDt: the new value of compare-and-swap, or the addend of fetch-and-add. */
  AtomicETH: { bytes: 28, fields: { va: [0, 64], rkey: [64, 32], swapDt: [96, 64], cmpDt: [160, 64] } },
  /** The value in memory before the atomic operation. */
  AtomicAckETH: { bytes: 8, fields: { origRemDt: [0, 64] } },
  /** Datagram: Q_Key and source QP. */
  DETH: { bytes: 8, fields: { qkey: [0, 32], resv8: [32, 8], srcQp: [40, 24] } },
  /** Immediate data, delivered in the byte order of the wire. */
  ImmDt: { bytes: 4, fields: { immDt: [0, 32] } },
  /** The rkey that the receiver invalidates. */
  IETH: { bytes: 4, fields: { rkey: [0, 32] } },
  /** Flush: selectivity level (`flushSelectivity`) and placement type (bits of `flushPlacement`). */
  FETH: { bytes: 4, fields: { resv26: [0, 26], sel: [26, 2], plt: [28, 4] } },
  /** The SRQ of an XRC request. */
  XRCETH: { bytes: 4, fields: { resv8: [0, 8], xrcSrq: [8, 24] } },
  /**
   * Of our SRD packets with data, which are in no specification. `epoch`: of the sending queue
   * pair, so that packets of an earlier one with its number are not mistaken. `message`: number of the sender's message
   * to this destination; `offset`, `length`: the payload's position in the message, and the message's bytes.
   */
  SRDETH: {
    bytes: 24,
    fields: {
      qkey: [0, 32],
      resv8: [32, 8],
      srcQp: [40, 24],
      epoch: [64, 32],
      message: [96, 32],
      offset: [128, 32],
      length: [160, 32],
    },
  },
  /** Acknowledges SRD packets: bit n of `receivedLo`, and n − 64 of `receivedHi`, is for the PSN BTH.psn − n. */
  SRDAETH: {
    bytes: 24,
    fields: { resv8: [0, 8], srcQp: [8, 24], epoch: [32, 32], receivedHi: [64, 64], receivedLo: [128, 64] },
  },
  /** Refuses the SRD packet BTH.psn. `status`: `EfaStatus` (spec/drivers/efa-queues.ts). */
  SRDNAK: { bytes: 12, fields: { status: [0, 8], srcQp: [8, 24], epoch: [32, 32], message: [64, 32] } },
  /**
   * From an initiator of DC to a target, in no specification either. `connection`: its number, of
   * the initiator; `replyQp`: where its device takes answers.
   */
  DCETH: {
    bytes: 20,
    fields: {
      resv8: [0, 8],
      srcQp: [8, 24],
      connection: [32, 32],
      resv8b: [64, 8],
      replyQp: [72, 24],
      accessKey: [96, 64],
    },
  },
  /** A target's answer. `status`: `DcStatus` (drivers/mlx5/dc/answers.ts); `srcQp`: the responder of the connection. */
  DCAETH: {
    bytes: 12,
    fields: { status: [0, 8], initiatorQp: [8, 24], connection: [32, 32], resv8: [64, 8], srcQp: [72, 24] },
  },
} as const satisfies Record<string, Header>

export type HeaderName = keyof typeof headers

/** The invariant CRC at the end of each packet; little-endian. */
export const ICRC_BYTES = 4

/** Reserved bytes of a CNP between BTH and ICRC (annex A17.9.3). */
export const CNP_RESERVED_BYTES = 16

/** The UDP destination port of RoCEv2 (annex A17). */
export const ROCE_UDP_PORT = 4791

/** The P_Key of the default partition, full member. */
export const DEFAULT_PKEY = 0xffff

/** BTH.destQP of a datagram to a multicast group (IBA 9.2.5). */
export const MULTICAST_QPN = 0xff_ffff

/** FETH.sel: the scope of a FLUSH. */
export const flushSelectivity = { RANGE: 0, REGION: 1 } as const

/** FETH.plt, bits: make the data globally visible at the responder, or persistent. */
export const flushPlacement = { GLOBAL: 1, PERSISTENT: 2 } as const

/** The kind of an AETH.syndrome: the bits of SYNDROME_KIND_MASK. Lower bits are the value; the highest is reserved. */
export const syndromeKind = { ACK: 0x00, RNR_NAK: 0x20, RESERVED: 0x40, NAK: 0x60 } as const
/** What an acknowledgement says, for fault rules. */
export const ackNames = ['ACK', 'NAK', 'RNR_NAK'] as const satisfies readonly (keyof typeof syndromeKind)[]
export const SYNDROME_KIND_MASK = 0x60
export const SYNDROME_VALUE_MASK = 0x1f

/** The value of a NAK syndrome; values above 4 are reserved. */
export const nakCode = {
  PSN_SEQUENCE: 0,
  INVALID_REQUEST: 1,
  REMOTE_ACCESS: 2,
  REMOTE_OPERATION: 3,
  INVALID_RD_REQUEST: 4,
} as const

/** The value of an ACK syndrome without end-to-end flow control ("invalid" in the specification). */
export const CREDITS_UNLIMITED = 31

/** End-to-end credits (receive requests) by the value of an ACK syndrome below `CREDITS_UNLIMITED`. */
export const creditCounts = [
  0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144,
  8192, 12288, 16384, 24576, 32768,
] as const

/** The requester's minimum RNR wait in microseconds, by the value of an RNR NAK syndrome (min_rnr_timer). */
export const rnrTimerMicroseconds: readonly number[] = [
  655360, 10, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1920, 2560, 3840, 5120, 7680, 10240, 15360,
  20480, 30720, 40960, 61440, 81920, 122880, 163840, 245760, 327680, 491520,
]
