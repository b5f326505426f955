/*
 * The receiving side of one RMPP transfer (IBA 13.6.5): segments in any order within the window, ACKs when the window is
 * used up, and the message once the last one is there. The window and what is acknowledged again are Linux's.
 */
import { MAD_BYTES } from '../spec/wire/mad.ts'
import { dataOffset, RMPP_DATA_BYTES, RmppFlag, RmppStatus, RmppType } from '../spec/wire/management.ts'
import { answerRmpp, parseRmpp } from '../wire/management.ts'

/** Segments that a sender may send ahead: an eighth of the receive queue that Linux gives queue pair 1. */
export const WINDOW = 64
/** Segments of the longest message that is taken: 1 MiB and more. */
export const MAX_SEGMENTS = 8192

/** The result of a segment: an answer to its sender, and the message if it is complete. */
export interface SegmentOutcome {
  readonly reply?: Uint8Array
  readonly message?: Uint8Array
  /** The transfer is over without a message. */
  readonly failed?: true
}

export class SegmentReceiver {
  readonly #offset: number
  /** By segment number from 1; they are few beyond the first gap. */
  readonly #segments: (Uint8Array | undefined)[] = []
  /** All segments up to this one are there. */
  #received = 0
  #acknowledged = 0
  #window = 1
  isComplete = false
  /** The window of the request's sender for the response (a double-sided transfer). */
  replyWindow = 1

  constructor(mgmtClass: number) {
    this.#offset = dataOffset(mgmtClass)
  }

  /** Bytes that it holds. */
  get bytes(): number {
    return this.isComplete ? 0 : this.#segments.length * MAD_BYTES
  }

  /** A DATA segment of this transfer. */
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

  /** The whole message: the headers of the first segment, and the data of all. */
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
