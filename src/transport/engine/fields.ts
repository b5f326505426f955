/*
 * Word offsets of the engine's rows and blocks (state.ts has the arrays): queue pairs, WQEs, READ and atomic resources,
 * and the pending DMA. Words have 32 bits, signed in rows and unsigned elsewhere. So addresses, keys and lengths in
 * rows are read with `>>> 0`.
 *
 * These are const enums because V8 inlines functions by bytecode size: with object properties a small WRITE took 10 %
 * longer.
 */

/** A queue pair. Prefixes: REQ_ requester, COMP_ completer, RESP_ responder. */
export const enum QP {
  // ---- kept at RESET; SERVICE to RECV_PD as in `QpInit` (types.ts) ----
  // For an XRC target, each message sets PD, RECV_CQ and RECV_PD (responder/xrc.ts).
  /** Whether the row is in use. */
  ALIVE = 0,
  /** A number of `Service`. */
  SERVICE = 1,
  QPN = 2,
  PD = 3,
  SEND_CQ = 4,
  RECV_CQ = 5,
  /** Protection domain of the receive WQEs' memory: with an SRQ, the SRQ's. */
  RECV_PD = 6,
  /** Limits, options and block sizes, packed into one word by qp-layout.ts. */
  LAYOUT = 7,
  /** Whether the row is in the transmit queue. */
  SCHEDULED = 8,

  // ---- state, and attributes as in `QpAttributes` (types.ts); RESET clears from here on ----
  STATE = 9,
  MTU = 10,
  DEST_QPN = 11,
  FLOW = 12,
  PEER = 13,
  ACCESS = 14,
  PKEY_INDEX = 15,
  RETRY_CNT = 16,
  RNR_RETRY = 17,
  TIMEOUT = 18,
  MIN_RNR_TIMER = 19,
  MAX_RD_ATOMIC = 20,
  MAX_DEST_RD_ATOMIC = 21,
  QKEY = 22,

  // ---- requester ----
  /** Bits of `ReqFlag`. */
  REQ_FLAGS = 23,
  /** Number of the send WQE to fetch next, counted from 0 since RESET. */
  REQ_WQE_INDEX = 24,
  /** Blocks of the oldest (0: none) and of the youngest fetched WQE, in a list linked by WQE.NEXT. */
  REQ_HEAD = 25,
  REQ_TAIL = 26,
  /** The fetched WQE to send from; 0: fetch the next one. */
  REQ_CURRENT = 27,
  /** PSN to send next, and the PSN after the highest that was sent. */
  REQ_PSN = 28,
  REQ_MAX_PSN = 29,
  /** Window bytes (payload plus PACKET_WEIGHT per packet) sent up to REQ_PSN, modulo 2^32. */
  REQ_SENT_BYTES = 30,
  /** Window bytes since the last packet with AckReq. */
  REQ_BYTES_SINCE_ACKREQ = 31,
  /** Number of outstanding READ and atomic requests. */
  REQ_RD_ATOMIC = 32,
  /**
   * Congestion window: with so many window bytes in flight, SENDs, WRITEs and parts of READs (`readPartBytes`) wait.
   */
  REQ_CWND = 33,

  // ---- completer ----
  /** Oldest unacknowledged PSN. */
  COMP_PSN = 34,
  /** Window bytes acknowledged, up to COMP_PSN, modulo 2^32. */
  COMP_ACKED_BYTES = 35,
  /** Retries left, of retry_cnt and of rnr_retry. */
  COMP_RETRIES = 36,
  COMP_RNR_RETRIES = 37,
  /** In ERR and SQE: the vendor error with which WQEs are flushed. */
  FLUSH_CAUSE = 38,
  /** How often requests were sent again after a loss or a timeout. */
  COMP_LOSSES = 58,

  // ---- responder ----
  /** Bits of `RespFlag`. */
  RESP_FLAGS = 39,
  /** Expected PSN. */
  RESP_EPSN = 40,
  RESP_MSN = 41,
  /** Kind of the message that is being received: SendKind.SEND or WRITE; 0: none. */
  RESP_MESSAGE = 42,
  /** Block of the current receive WQE (0: none), and bytes received. */
  RESP_RECEIVE = 43,
  RESP_BYTES = 44,
  /** WRITE: address of the next byte, key, and bytes still to receive. */
  RESP_WRITE_HI = 45,
  RESP_WRITE_LO = 46,
  RESP_WRITE_KEY = 47,
  RESP_WRITE_LEFT = 48,
  /** The NAK to send if NAK_DUE is set. */
  RESP_NAK_SYNDROME = 49,
  RESP_NAK_PSN = 50,
  RESP_NAK_MSN = 51,
  /**
   * Block of the READ and atomic resources, their number, index of the next to use, and number with responses to send.
   */
  RESP_RESOURCES = 52,
  RESP_RESOURCE_COUNT = 53,
  RESP_RESOURCE_NEXT = 54,
  RESP_PENDING = 55,
  /** XRC target: number of the SRQ of the current or last message; -1: it was destroyed. */
  RESP_SRQN = 56,
  /** UD: Completion.SL for the current packet (DEST_QPN is the packet's source QP); other services: 0. */
  RESP_SL = 57,

  WORDS = 59,
}

/** Bits of QP.REQ_FLAGS. */
export const enum ReqFlag {
  /** The program may have posted more WQEs than were fetched. */
  MORE = 1,
  /** After an RNR NAK: no request is sent until the timer expires or PSNs are acknowledged. */
  RNR_WAIT = 2,
  /**
   * Go-back-N was done after a NAK, an RNR NAK or a lost response, and there was no progress since. Further reports of
   * the same loss are ignored.
   */
  RESENT = 4,
  /** SQD: the event SQ_DRAINED was not raised yet. */
  DRAINING = 8,
  /** ERR and SQE: there may be more WQEs to flush than one call allows. */
  FLUSHING = 16,
  /** The running ACK timeout expired late and was extended; each is extended only once. */
  LATE = 32,
  /** Set only while PSNs are being acknowledged (completer.ts): an ACK has passed REQ_PSN, which was advanced too. */
  SKIPPED_AHEAD = 64,
}

/** Bits of QP.RESP_FLAGS. */
export const enum RespFlag {
  ACK_DUE = 1,
  NAK_DUE = 2,
  /** A NAK was scheduled for the expected PSN. Until that PSN arrives, packets after it cause no further NAK. */
  NAK_SENT = 4,
  /** RTR: the event COMM_EST was raised. */
  ESTABLISHED = 8,
  /** UC: packets are dropped until the next message begins. */
  DROPPING = 16,
  /** A marked packet has arrived: a congestion notification packet is due. */
  CNP_DUE = 32,
}

/** A fetched send WQE, in a block of the pool; the work request (`Send`, types.ts) follows at WR. */
export const enum WQE {
  NEXT = 0,
  FIRST_PSN = 1,
  /** A local operation takes none, whatever its number here. */
  PSNS = 2,
  /** QP.REQ_SENT_BYTES before its first packet. */
  START = 3,
  /** SendKind. */
  KIND = 4,
  /** Its contribution to QP.REQ_RD_ATOMIC: for a READ the number of outstanding parts. */
  COUNTED = 5,
  /** Status of a local error, with which the WQE completes once it is the oldest; 0: no error. */
  STATUS = 6,
  /** 1: this local operation was executed, and waits for the WQEs before it. */
  DONE = 7,
  WR = 8,
}

/** A READ or atomic resource of the responder, from which duplicate requests are answered. */
export const enum RES {
  /** SendKind with RESPONSE; 0: unused. */
  KIND = 0,
  FIRST_PSN = 1,
  PSNS = 2,
  MSN = 3,
  /** READ: address, key and length of the original request. */
  HI = 4,
  LO = 5,
  KEY = 6,
  LENGTH = 7,
  /** Response packets [NEXT, END) are still to be sent. */
  NEXT = 8,
  END = 9,
  /** READ: the packet whose data begins at the address DATA. */
  BASE = 10,
  /** READ: the address of packet BASE. Atomic: the word before the operation. */
  DATA_HI = 11,
  DATA_LO = 12,
  /** READ: bytes of packets [BASE, END); 0 for FLUSH and ATOMIC WRITE. */
  READ_LENGTH = 13,
  /** 1: the responses are repeated and may be dropped. */
  REPLAY = 14,
  /** READ: protection domain of the memory. */
  PD = 15,
  WORDS = 16,
}

/** The pending DMA write (dma.ts), from the arena `s.dmaArena` to client memory. */
export const enum DMA {
  ROW = 0,
  /** DmaKind. */
  KIND = 1,
  /** Protection domain, key, access right and address of the memory. */
  PD = 2,
  KEY = 3,
  ACCESS = 4,
  HI = 5,
  LO = 6,
  /** Offset of the first chunk in the arena, bytes of a chunk, distance of chunks, and number of chunks. */
  AT = 7,
  CHUNK = 8,
  STRIDE = 9,
  CHUNKS = 10,
  /** Bytes of all chunks. */
  TOTAL = 11,
  /** 1: the last chunk is shorter than CHUNK, so no chunk can follow. */
  CLOSED = 12,
  /** Expected PSN and MSN before the first packet, for reporting a failure. */
  PSN = 13,
  MSN = 14,
  WORDS = 15,
}
