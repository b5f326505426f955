/*
 * The frames of `connection.messages()`: one SEND each, at the start of a receive buffer. Fields are big-endian; the
 * layout is in docs/reference/messages.md. Counters count from the start of the connection, modulo 2^32.
 */

/** Version of the frames and of the rules. */
export const VERSION = 1
/** Bytes of ACK and END, and the offset of the payload in DATA. */
export const HEADER_BYTES = 16
export const OFFER_BYTES = 28
export const HELLO_BYTES = 32
/** 'UDMS': the first bytes of the payload of HELLO. */
const MAGIC = 0x55444d53

export const FrameType = {
  /** The first frame of each side: its parameters. */
  HELLO: 1,
  /** A message. */
  DATA: 2,
  /** A message that the receiver of the frame reads from the sender's memory by RDMA READ. */
  OFFER: 3,
  /** Only a header. */
  ACK: 4,
  /** Only a header: no DATA and no OFFER follows. */
  END: 5,
  /** Text: the sender has given up, and messages are missing. No frame follows. */
  ABORT: 6,
  /** Only a header: uses a grant that the sender does not need. */
  UNUSED: 7,
} as const

/** The parameters of one side. */
export interface Hello {
  readonly version: number
  /** Bytes of a receive buffer: the longest frame. */
  readonly slotBytes: number
  /** The longest message that this side takes. */
  readonly maxMessageBytes: number
}

/** The memory of an offered message. */
interface Offer {
  readonly address: bigint
  readonly rkey: number
}

export const putHeader = (view: DataView, at: number, type: number, granted: number, done: number, length: number) => {
  view.setUint32(at, type << 24)
  view.setUint32(at + 4, granted)
  view.setUint32(at + 8, done)
  view.setUint32(at + 12, length)
}

/** The type in a header; undefined if the bytes that must be 0 are not. */
export const typeAt = (view: DataView, at: number): number | undefined => {
  const word = view.getUint32(at)
  return (word & 0xffffff) === 0 ? word >>> 24 : undefined
}
export const grantedAt = (view: DataView, at: number): number => view.getUint32(at + 4)
export const doneAt = (view: DataView, at: number): number => view.getUint32(at + 8)
export const lengthAt = (view: DataView, at: number): number => view.getUint32(at + 12)

export const putOffer = (view: DataView, at: number, { address, rkey }: Offer): void => {
  view.setBigUint64(at + HEADER_BYTES, address)
  view.setUint32(at + 24, rkey)
}
export const offerAt = (view: DataView, at: number): Offer => ({
  address: view.getBigUint64(at + HEADER_BYTES),
  rkey: view.getUint32(at + 24),
})

export const putHello = (view: DataView, at: number, { version, slotBytes, maxMessageBytes }: Hello): void => {
  view.setUint32(at + HEADER_BYTES, MAGIC)
  view.setUint32(at + 20, version)
  view.setUint32(at + 24, slotBytes)
  view.setUint32(at + 28, maxMessageBytes)
}
/** The parameters in HELLO; undefined without the magic bytes. */
export const helloAt = (view: DataView, at: number): Hello | undefined =>
  view.getUint32(at + HEADER_BYTES) === MAGIC
    ? { version: view.getUint32(at + 20), slotBytes: view.getUint32(at + 24), maxMessageBytes: view.getUint32(at + 28) }
    : undefined
