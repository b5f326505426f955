/*
 * The base transport header (InfiniBand Architecture Specification, volume 1, clause 9.2) for hot code. The functions
 * read or write fields of the header at byte `at` of a DataView, without allocation or checks. `checkPacket` in
 * packet.ts checks the length of a packet.
 *
 * Layout, twelve bytes: opcode · SE, MigReq, PadCnt, TVer · P_Key (2) · FECN, BECN, reserved · DestQP (3) · AckReq,
 * reserved · PSN (3).
 */

export const BTH_BYTES = 12

/** Bits of `flags`, the header's second byte: solicited event, and migration request. */
export const BTH_SOLICITED = 0x80
export const BTH_MIGREQ = 0x40
/** Position of the pad count in `flags`. */
export const BTH_PAD_SHIFT = 4

/** The AckReq bit in the last word of the header, which also has the PSN. */
export const BTH_ACKREQ = 0x8000_0000

export const bthOpcode = (view: DataView, at: number): number => view.getUint8(at)

/** The second byte: solicited event, MigReq, pad count and transport version. */
export const bthFlags = (view: DataView, at: number): number => view.getUint8(at + 1)

export const bthSolicited = (view: DataView, at: number): boolean => (view.getUint8(at + 1) & BTH_SOLICITED) !== 0

export const bthMigReq = (view: DataView, at: number): boolean => (view.getUint8(at + 1) & BTH_MIGREQ) !== 0

/** Bytes between payload and ICRC, 0 to 3. */
export const bthPadCount = (view: DataView, at: number): number => (view.getUint8(at + 1) >> BTH_PAD_SHIFT) & 3

/** Transport header version; 0 is the only one. */
export const bthVersion = (view: DataView, at: number): number => view.getUint8(at + 1) & 15

export const bthPkey = (view: DataView, at: number): number => view.getUint16(at + 2)

export const PKEY_FULL_MEMBER = 0x8000

/**
 * Whether ends with these P_Keys may exchange packets: they are of one partition, and one end is a full member, which
 * the most significant bit says (IBA 10.9.1, 10.9.3). 0 and 0x8000 are no P_Keys.
 */
export const doPkeysMatch = (a: number, b: number): boolean =>
  ((a ^ b) & ~PKEY_FULL_MEMBER) === 0 && (a & ~PKEY_FULL_MEMBER) !== 0 && ((a | b) & PKEY_FULL_MEMBER) !== 0

/** Whether a port with this P_Key table may exchange packets with an end that has `pkey`. */
export const isOfPartitions = (pkeys: Uint16Array, pkey: number): boolean => pkeys.some(own => doPkeysMatch(pkey, own))

export const bthFecn = (view: DataView, at: number): boolean => (view.getUint8(at + 4) & 0x80) !== 0

export const bthBecn = (view: DataView, at: number): boolean => (view.getUint8(at + 4) & 0x40) !== 0

/** Destination queue pair number, 24 bits. */
export const bthDestQp = (view: DataView, at: number): number => view.getUint32(at + 4) & 0xff_ffff

export const bthAckReq = (view: DataView, at: number): boolean => (view.getUint8(at + 8) & 0x80) !== 0

/** PSN `a` relative to `b`: -2^23 to 2^23-1, negative when `a` is older (IBA 9.7.2). */
export const psnDifference = (a: number, b: number): number => ((a - b) << 8) >> 8

/** Packet sequence number, 24 bits. */
export const bthPsn = (view: DataView, at: number): number => view.getUint32(at + 8) & 0xff_ffff

/**
 * Writes the header. `flags`: BTH_SOLICITED | BTH_MIGREQ | pad count << BTH_PAD_SHIFT; `ackReqPsn`: the PSN, 0 to
 * 2^24-1, with BTH_ACKREQ if an acknowledgement is requested. FECN, BECN and reserved bits become 0.
 */
export const putBth = (
  view: DataView,
  at: number,
  opcode: number,
  flags: number,
  pkey: number,
  destQp: number,
  ackReqPsn: number,
): void => {
  view.setUint32(at, (opcode << 24) | (flags << 16) | pkey)
  view.setUint32(at + 4, destQp)
  view.setUint32(at + 8, ackReqPsn)
}

/** Sets BECN (annex A17.9.3). */
export const setBthBecn = (view: DataView, at: number): void => view.setUint8(at + 4, 0x40)

/** Rewrites PSN and AckReq bit. `ackReqPsn`: as for `putBth`. */
export const putBthPsn = (view: DataView, at: number, ackReqPsn: number): void => view.setUint32(at + 8, ackReqPsn)
