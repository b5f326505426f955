/*
 * The receiving side of one RMPP transfer (IBA 13.6.5). Segments may come in any order within the window. An ACK is
 * sent when the whole window or the whole message has arrived, and again for each repeated segment that was
 * acknowledged before. As in Linux, the window grows by WINDOW.
 */
import { MAD_RECEIVED_SEGMENTS } from '../../spec/classes/mad/mad_channel.ts'
import { MAD_BYTES } from '../../spec/wire/mad.ts'
import { dataOffset, RMPP_DATA_BYTES, RmppFlag, RmppStatus, RmppType } from '../../spec/wire/management.ts'
import { answerRmpp, parseRmpp } from '../../transport/wire/mad/management.ts'

/** Window in segments: an eighth of the receive queue that Linux gives queue pair 1. */
const WINDOW = 64

/** The result of a segment. */
interface SegmentOutcome {
  /** A datagram for the sender of the segment. */
  readonly reply?: Uint8Array
  /** The complete message. */
  readonly message?: Uint8Array
  /** The transfer has failed: it has more than MAD_RECEIVED_SEGMENTS segments. */
  readonly hasFailed?: true
}

export class SegmentReceiver {
  /** Where the data begins in a segment. */
  readonly #dataOffset: number
  /** By number − 1. At most a window of segments follows the first gap. */
  readonly #segments: (Uint8Array | undefined)[] = []
  /** All segments up to this number have arrived. */
  #received = 0
  /** The last acknowledged segment. */
  #acknowledged = 0
  /** The last segment that the sender may send. */
  #window = 1
  isComplete = false
  /** The requester's window for the response (double-sided transfer). */
  replyWindow = 1

  constructor(mgmtClass: number) {
    this.#dataOffset = dataOffset(mgmtClass)
  }

  /** Bytes of the stored segments, including gaps. */
  get bytes(): number {
    return this.isComplete ? 0 : this.#segments.length * MAD_BYTES
  }

  onData(mad: Uint8Array, segment: number): SegmentOutcome {
    if (this.isComplete || segment <= this.#acknowledged) return { reply: this.#ack(mad) }
    if (segment > this.#window) return {}
    if (segment > MAD_RECEIVED_SEGMENTS)
      return { hasFailed: true, reply: answerRmpp(mad, { type: RmppType.STOP, status: RmppStatus.RESX }) }
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

  /**
   * Headers of the first segment, and data of all. `lastPayload`: the length field of the last segment, which counts
   * class header and data.
   */
  #assemble(lastPayload: number): Uint8Array {
    /** Bytes of data in a segment. */
    const dataBytes = MAD_BYTES - this.#dataOffset
    const padding = Math.min(dataBytes, Math.max(0, RMPP_DATA_BYTES - lastPayload))
    const length = this.#dataOffset + this.#received * dataBytes - padding
    const message = new Uint8Array(length)
    for (let i = 0; i < this.#received; i++) {
      // The first segment is copied with its headers.
      const [begin, target] = i === 0 ? [0, 0] : [this.#dataOffset, this.#dataOffset + i * dataBytes]
      const bytesLeft = length - target
      message.set(this.#segments[i]!.subarray(begin, begin + bytesLeft), target)
    }
    return message
  }

  #ack(mad: Uint8Array): Uint8Array {
    this.#acknowledged = this.#received
    return answerRmpp(mad, { type: RmppType.ACK, segment: this.#received, lengthOrWindow: this.#window })
  }
}
