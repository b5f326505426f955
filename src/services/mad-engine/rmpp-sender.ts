/*
 * The sending side of one RMPP transfer (IBA 13.6.6): splits a message into segments, and sends them within the window
 * of the receiver's ACKs. agent.ts has the timers. Payload lengths are counted as in Linux.
 */
import { MAD_BYTES } from '../../spec/wire/mad.ts'
import {
  dataOffset,
  RMPP_DATA_BYTES,
  RMPP_VERSION,
  RmppFlag,
  RmppStatus,
  RmppType,
} from '../../spec/wire/management.ts'
import { emitRmpp, type RmppFields } from '../../transport/wire/mad/management.ts'

/**
 * The effect of an ACK. `old`: none. `progress`: segments were acknowledged. `open`: only the window has grown. `done`:
 * all segments have arrived. `abort`: the ACK is invalid, and an ABORT with this status must be sent.
 */
type AckOutcome = 'old' | 'progress' | 'open' | 'done' | { readonly abort: number }

export class SegmentSender {
  readonly #header: Uint8Array
  readonly #data: Uint8Array
  /** Bytes of data in a segment. */
  readonly #dataBytes: number
  /** Number of segments. */
  readonly count: number
  /** The last sent segment. */
  #sent = 0
  /** The last acknowledged segment. */
  #acknowledged = 0
  /** The last segment that may be sent. */
  #window: number

  /** `message`: common header, RMPP header, class header, then the data. `window`: at least 1. */
  constructor(message: Uint8Array, mgmtClass: number, window: number) {
    const offset = dataOffset(mgmtClass)
    this.#header = message.subarray(0, offset)
    this.#data = message.subarray(offset)
    this.#dataBytes = MAD_BYTES - offset
    this.count = Math.max(1, Math.ceil(this.#data.length / this.#dataBytes))
    this.#window = window
  }

  /** Whether all segments were acknowledged. */
  get isDone(): boolean {
    return this.#acknowledged === this.count
  }

  /** Whether the window allows another segment of the message. */
  get hasNext(): boolean {
    return this.#sent < Math.min(this.#window, this.count)
  }

  /** Returns the next segment, and counts it as sent. */
  next(): Uint8Array {
    return this.#segment(++this.#sent)
  }

  /** `next` restarts after the last acknowledged segment. */
  rewind(): void {
    this.#sent = this.#acknowledged
  }

  onAck({ segment, lengthOrWindow: window }: Pick<RmppFields, 'segment' | 'lengthOrWindow'>): AckOutcome {
    if (this.isDone) return 'done'
    if (segment > this.count || segment > this.#window) return { abort: RmppStatus.SEGMENT_TOO_BIG }
    if (window < this.#window || segment < this.#acknowledged) return 'old'
    if (window === this.#window && segment === this.#acknowledged) return 'old'
    const hasProgress = segment > this.#acknowledged
    this.#acknowledged = segment
    this.#sent = Math.max(this.#sent, segment)
    this.#window = window
    if (this.isDone) return 'done'
    return hasProgress ? 'progress' : 'open'
  }

  #segment(number: number): Uint8Array {
    const start = (number - 1) * this.#dataBytes
    const data = this.#data.subarray(start, start + this.#dataBytes)
    const [isFirst, isLast] = [number === 1, number === this.count]
    const padding = this.count * this.#dataBytes - this.#data.length
    // The first segment has the length of all segments, the last segment its own length. Both lengths include the class
    // header of each segment.
    let length = 0
    if (isLast) length = RMPP_DATA_BYTES - padding
    else if (isFirst) length = this.count * RMPP_DATA_BYTES - padding
    const flags = RmppFlag.ACTIVE | (isFirst ? RmppFlag.FIRST : 0) | (isLast ? RmppFlag.LAST : 0)
    const fields = { version: RMPP_VERSION, type: RmppType.DATA, flags, segment: number, lengthOrWindow: length }
    return emitRmpp(this.#header, fields, data)
  }
}
