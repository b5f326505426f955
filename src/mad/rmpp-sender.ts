/*
 * The sending side of one RMPP transfer (IBA 13.6.6): a message in segments, within the window that the receiver's ACKs
 * open. Timers and the result of the transfer are the agent's (agent.ts); the counting is Linux's.
 */
import { MAD_BYTES } from '../spec/wire/mad.ts'
import { dataOffset, RMPP_DATA_BYTES, RMPP_VERSION, RmppFlag, RmppStatus, RmppType } from '../spec/wire/management.ts'
import { emitRmpp, type RmppFields } from '../wire/management.ts'

/** The effect of an ACK: none, more may be sent, all has arrived; or its error, for an ABORT. */
export type AckOutcome = 'old' | 'open' | 'done' | { readonly abort: number }

export class SegmentSender {
  readonly #header: Uint8Array
  readonly #data: Uint8Array
  readonly #room: number
  readonly count: number
  /** The last segment that was sent, that was acknowledged, and that may be sent. */
  #sent = 0
  #acknowledged = 0
  #window: number

  /** `message`: common header, RMPP header, header of the class, then the data. `window`: 1 at least. */
  constructor(message: Uint8Array, mgmtClass: number, window: number) {
    const offset = dataOffset(mgmtClass)
    this.#header = message.subarray(0, offset)
    this.#data = message.subarray(offset)
    this.#room = MAD_BYTES - offset
    this.count = Math.max(1, Math.ceil(this.#data.length / this.#room))
    this.#window = window
  }

  get isDone(): boolean {
    return this.#acknowledged === this.count
  }

  /** Whether the window allows a segment that was not sent yet. */
  get hasNext(): boolean {
    return this.#sent < Math.min(this.#window, this.count)
  }

  /** That segment. */
  next(): Uint8Array {
    return this.#segment(++this.#sent)
  }

  /** Segments after the last acknowledged one are lost: `next` starts there again. */
  rewind(): void {
    this.#sent = this.#acknowledged
  }

  onAck({ segment, lengthOrWindow: window }: Pick<RmppFields, 'segment' | 'lengthOrWindow'>): AckOutcome {
    if (this.isDone) return 'done'
    if (segment > this.count || segment > this.#window) return { abort: RmppStatus.SEGMENT_TOO_BIG }
    if (window < this.#window || segment < this.#acknowledged) return 'old'
    if (window === this.#window && segment === this.#acknowledged) return 'old'
    this.#acknowledged = segment
    this.#sent = Math.max(this.#sent, segment)
    this.#window = window
    return this.isDone ? 'done' : 'open'
  }

  #segment(number: number): Uint8Array {
    const at = (number - 1) * this.#room
    const data = this.#data.subarray(at, at + this.#room)
    const [isFirst, isLast] = [number === 1, number === this.count]
    const padding = this.count * this.#room - this.#data.length
    // The last segment says how long it is, the first how long all are; each counts the class's header too.
    const length = isLast || isFirst ? (isLast ? 1 : this.count) * RMPP_DATA_BYTES - padding : 0
    const flags = RmppFlag.ACTIVE | (isFirst ? RmppFlag.FIRST : 0) | (isLast ? RmppFlag.LAST : 0)
    const fields = { version: RMPP_VERSION, type: RmppType.DATA, flags, segment: number, lengthOrWindow: length }
    return emitRmpp(this.#header, fields, data)
  }
}
