/*
 * The receiving side of one RMPP transfer (IBA 13.6.5): accepts segments in any order within the window, acknowledges
 * when the window is used up, and returns the message when all segments have arrived. The window, and the repetition of
 * ACKs, are Linux's.
 */
import { MAD_BYTES } from '../spec/wire/mad.ts'
import { dataOffset, RMPP_DATA_BYTES, RmppFlag, RmppStatus, RmppType } from '../spec/wire/management.ts'
import { answerRmpp, parseRmpp } from '../wire/mad/management.ts'

/** Window in segments: an eighth of the receive queue that Linux gives queue pair 1. */
export const WINDOW = 64
/** Maximum number of segments of a message, more than 1 MiB. */
export const MAX_SEGMENTS = 8192

/** The result of a segment: a reply to its sender, and the message if it is complete. */
export interface SegmentOutcome {
  readonly reply?: Uint8Array
  readonly message?: Uint8Array
  /** The transfer failed. */
  readonly failed?: true
}

export class SegmentReceiver {
  readonly #offset: number
  /** By segment number from 1; only few segments can follow the first gap. */
  readonly #segments: (Uint8Array | undefined)[] = []
  /** All segments up to this one have arrived. */
  #received = 0
  #acknowledged = 0
  #window = 1
  isComplete = false
  /** The window for the response, from the sender of the request (double-sided transfer). */
  replyWindow = 1

  constructor(mgmtClass: number) {
    this.#offset = dataOffset(mgmtClass)
  }

  /** Bytes of the stored segments. */
  get bytes(): number {
    return this.isComplete ? 0 : this.#segments.length * MAD_BYTES
  }

  /** Handles a DATA segment of this transfer. */
  onData(mad: Uint8Array, segment: number): SegmentOutcome {
    if (this.isComplete || segment <= this.#acknowledged) return { reply: this.#ack(mad) }
    if (segment > this.#window) return {}
    if (segment > MAX_SEGMENTS)
      return { failed: true, reply: answerRmpp(mad, { type: RmppType.STOP, status: RmppStatus.RESX }) }
    this.#segments[segment - 1] ??= mad
    const before = this.#received
    while (this.#segments[this.#received] !== undefined) this.#received++
    if (this.#received === before) return {}
    const last = parseRmpp(this.#segments[this.#received - 1]!)
    if ((last.flags & RmppFlag.LAST) !== 0) {
      this.isComplete = true
      const message = this.#assemble(last.lengthOrWindow)
      this.#segments.length = 0
      return { message, reply: this.#ack(mad) }
    }
    if (this.#received < this.#window) return {}
    this.#window += WINDOW
    return { reply: this.#ack(mad) }
  }

  /** Builds the message: the headers of the first segment, and the data of all. */
  #assemble(lastPayload: number): Uint8Array {
    const room = MAD_BYTES - this.#offset
    const padding = Math.min(room, Math.max(0, RMPP_DATA_BYTES - lastPayload))
    const length = this.#offset + this.#received * room - padding
    const message = new Uint8Array(length)
    for (let i = 0; i < this.#received; i++) {
      const [from, to] = i === 0 ? [0, 0] : [this.#offset, this.#offset + i * room]
      message.set(this.#segments[i]!.subarray(from, from + length - to), to)
    }
    return message
  }

  #ack(mad: Uint8Array): Uint8Array {
    this.#acknowledged = this.#received
    return answerRmpp(mad, { type: RmppType.ACK, segment: this.#received, lengthOrWindow: this.#window })
  }
}
