/*
 * One agent of the MAD layer, without I/O: requests with responses and retransmission, and RMPP transfers in both
 * directions (IBA 13.4.6.4, 13.6; Linux's mad.c and mad_rmpp.c). Datagrams, calls and time go in; datagrams, messages
 * and outcomes of sends come out. Times are microseconds.
 *
 * A response belongs to the request with the same transaction id, class and local GID. The caller finds the agent of a
 * request by registrations.ts, and of a response by the upper half of the transaction id.
 */
import {
  MAD_HEADER_BYTES,
  RMPP_ABORT_FIRST,
  RMPP_ABORT_LAST,
  RMPP_HEADER_END,
  RMPP_VERSION,
  RmppFlag,
  RmppStatus,
  RmppType,
  usesRmpp,
} from '../../spec/wire/management.ts'
import { isSameAddress } from '../../transport/wire/address.ts'
import {
  answerRmpp,
  type MadFields,
  madFields,
  parseRmpp,
  type RmppFields,
  setTidHigh,
} from '../../transport/wire/mad/management.ts'
import { isSamePeer, type MadPath, peerOf } from './path.ts'
import { newestOfLargest, type Receiving } from './receiving.ts'
import { SegmentReceiver } from './rmpp-receiver.ts'
import { SegmentSender } from './rmpp-sender.ts'

/** Default and maximum timeout for the ACK of a burst of segments. */
const ACK_TIMEOUT = 2_000_000
/** Timeout for receiving a whole message. */
const TRANSFER_TIMEOUT = 40_000_000
/** For this time, repeated segments of a complete message are acknowledged again. */
const COMPLETE_TIMEOUT = 10_000_000
/** Maximum segments of a burst, even if the window of the peer is larger. */
const MAX_BURST = 64
/** Maximum RMPP transfers that are being received, or complete and still acknowledged. */
const MAX_TRANSFERS = 256
/** Bytes charged for a transfer that is being received, besides its segments. */
const TRANSFER_BYTES = 1024
/** Maximum bytes of the messages that are being received. */
const MAX_RECEIVING_BYTES = 4 << 20

/**
 * How a send ended. `sent`: no response was expected. `timeout`: no response or ACK in time. `aborted`: by the peer,
 * for an error of the peer, or because the agent was closed.
 */
export type SendOutcome = 'sent' | 'answered' | 'timeout' | 'aborted'

export interface SendOptions<T> {
  /** Microseconds until the response; 0: no response is expected. Also until an ACK, but at most ACK_TIMEOUT. */
  readonly timeout: number
  readonly retries: number
  /** Passed back with the outcome. */
  readonly tag: T
}

export interface AgentOptions {
  /** Upper half of the transaction ids of requests. */
  readonly highTid: number
  /**
   * Whether the engine does RMPP for its owner. Otherwise the owner gets every datagram of a transfer, even if the
   * datagram matches no request.
   */
  readonly engineDoesRmpp: boolean
}

interface AgentOwner<P extends MadPath, T> {
  transmit(mad: Uint8Array, path: P): void
  /** `nextTimeout` is now `time`. */
  wakeAt(time: number): void
  /** Passes on a request or response: a whole message if the engine does RMPP, otherwise a datagram. */
  deliver(message: Uint8Array, from: P): void
  /** A send of `message` has ended. `tag`: from its options. */
  ended(tag: T, outcome: SendOutcome, message: Uint8Array): void
  /** Charges memory of transfers that are being received; false: there is none. Absent: they are not charged. */
  reserve?(bytes: number): boolean
  release?(bytes: number): void
}

/** An unfinished send. */
interface Sending<P, T> {
  readonly message: Uint8Array
  readonly fields: MadFields
  readonly path: P
  readonly options: SendOptions<T>
  readonly segments: SegmentSender | undefined
  retriesLeft: number
  /** When the next step is due, µs. */
  deadline: number
}

/** Whether a datagram belongs to an RMPP transfer. As on Linux, only the flag Active of its RMPP header counts. */
const isRmpp = (mad: Uint8Array, { mgmtClass }: Pick<MadFields, 'mgmtClass'>): boolean =>
  usesRmpp(mgmtClass) && (parseRmpp(mad).flags & RmppFlag.ACTIVE) !== 0

const isSameTransaction = (a: MadFields, b: MadFields): boolean => a.tid === b.tid && a.mgmtClass === b.mgmtClass

export class MadAgentEngine<P extends MadPath, T> {
  readonly #options: AgentOptions
  readonly #owner: AgentOwner<P, T>
  readonly #sending = new Set<Sending<P, T>>()
  readonly #receiving = new Set<Receiving<P>>()
  #nextTimeout = Number.POSITIVE_INFINITY

  constructor(options: AgentOptions, owner: AgentOwner<P, T>) {
    this.#options = options
    this.#owner = owner
  }

  /** Number of unfinished sends. */
  get outstanding(): number {
    return this.#sending.size
  }

  /** When `onTimeout` must be called next; Infinity for never. */
  nextTimeout(): number {
    return this.#nextTimeout
  }

  /** Whether the engine sends a message as an RMPP transfer. */
  isTransfer(message: Uint8Array, mgmtClass: number): boolean {
    return this.#options.engineDoesRmpp && isRmpp(message, { mgmtClass })
  }

  #doesRmpp(mgmtClass: number): boolean {
    return this.#options.engineDoesRmpp && usesRmpp(mgmtClass)
  }

  /**
   * Sends a message of MAD_BYTES bytes, or an RMPP transfer of any length. The engine then owns the message, and sets
   * the upper half of a request's transaction id. Returns false, and sends nothing, if the class and transaction id are
   * those of another unfinished request, or of another unfinished response to this peer.
   */
  send(message: Uint8Array, path: P, options: SendOptions<T>, now: number): boolean {
    if (!madFields(message).isResponse) setTidHigh(message, this.#options.highTid)
    const fields = madFields(message)
    if (this.#isDuplicate(fields, message, path)) return false
    const segments = this.isTransfer(message, fields.mgmtClass)
      ? new SegmentSender(message, fields.mgmtClass, this.#firstWindow(fields, path))
      : undefined
    // As on Linux, a message that is not a transfer is sent with an empty RMPP header.
    if (segments === undefined && this.#doesRmpp(fields.mgmtClass)) message.fill(0, MAD_HEADER_BYTES, RMPP_HEADER_END)
    const { timeout, retries, tag } = options
    if (segments === undefined && timeout === 0) {
      this.#owner.transmit(message, path)
      this.#owner.ended(tag, 'sent', message)
      return true
    }
    const sending = { message, fields, path, options, segments, retriesLeft: retries, deadline: 0 }
    this.#sending.add(sending)
    this.#transmit(sending, now)
    return true
  }

  onMad(mad: Uint8Array, from: P, now: number): void {
    const fields = madFields(mad)
    const isPartOfTransfer = isRmpp(mad, fields)
    if (!this.#options.engineDoesRmpp || !isPartOfTransfer) this.#deliver(mad, fields, from, isPartOfTransfer)
    else this.#onRmpp(mad, fields, from, now)
  }

  /**
   * Retransmits due sends; if no retries are left, ends them. Aborts transfers that were not complete in time. A step
   * is a datagram sent, a send ended or a transfer dropped. Stops after about `max` steps; the rest stays due. Returns
   * the number of steps.
   */
  onTimeout(now: number, max = Number.POSITIVE_INFINITY): number {
    if (now < this.#nextTimeout) return 0
    this.#nextTimeout = Number.POSITIVE_INFINITY
    let done = 0
    let left = this.#sending.size
    for (const sending of this.#sending) {
      // The sends from here on were moved to the end in this call (`#onDeadline`), or added.
      if (left-- === 0) break
      if (sending.deadline <= now && done < max) done += this.#onDeadline(sending, now)
      else this.#wakeAt(sending.deadline)
    }
    for (const receiving of this.#receiving) {
      if (receiving.deadline > now || done >= max) {
        this.#wakeAt(receiving.deadline)
        continue
      }
      done++
      this.#forget(receiving)
      if (!receiving.segments.isComplete) this.#abort(receiving.mad, receiving.from, RmppStatus.TIME_TOO_LONG)
    }
    return done
  }

  /** Ends the send with this tag as aborted: nobody waits for its response. No effect if it has ended. */
  abort(tag: T): void {
    for (const sending of this.#sending) if (sending.options.tag === tag) this.#end(sending, 'aborted')
  }

  /** Ends all sends as aborted, and drops transfers that are being received. */
  close(): void {
    for (const receiving of this.#receiving) this.#forget(receiving)
    for (const sending of this.#sending) this.#end(sending, 'aborted')
  }

  // ---- sending ----

  /**
   * Whether an unfinished request, or an unfinished response to this peer, has the transaction id. If the engine does
   * not do RMPP, the datagrams of a transfer share a transaction id and are not duplicates.
   */
  #isDuplicate(fields: MadFields, message: Uint8Array, path: P): boolean {
    if (!this.#options.engineDoesRmpp && isRmpp(message, fields)) return false
    for (const { fields: other, path: peerPath } of this.#sending) {
      if (!isSameTransaction(other, fields) || other.isResponse !== fields.isResponse) continue
      if (!fields.isResponse || isSamePeer(peerPath, path)) return true
    }
    return false
  }

  /** Segments before the first ACK: `replyWindow` for the response to an RMPP request, otherwise 1. */
  #firstWindow(fields: MadFields, path: P): number {
    if (!fields.isResponse) return 1
    for (const { fields: request, from, segments } of this.#receiving) {
      if (request.isResponse || !isSameTransaction(request, fields)) continue
      if (isSamePeer(from, path)) return segments.replyWindow
    }
    return 1
  }

  #wakeAt(time: number): void {
    if (time >= this.#nextTimeout) return
    this.#nextTimeout = time
    this.#owner.wakeAt(time)
  }

  /** Sends the message or the next segments, and sets the deadline. Returns the number of datagrams. */
  #transmit(sending: Sending<P, T>, now: number): number {
    const { message, path, segments, options } = sending
    let sent = 0
    if (segments === undefined) {
      this.#owner.transmit(message, path)
      sent = 1
    } else for (; sent < MAX_BURST && segments.hasNext; sent++) this.#owner.transmit(segments.next(), path)
    const awaitsResponse = segments === undefined || segments.isDone
    const wait = awaitsResponse ? options.timeout : Math.min(options.timeout || ACK_TIMEOUT, ACK_TIMEOUT)
    sending.deadline = segments?.hasNext ? now : now + wait
    this.#wakeAt(sending.deadline)
    return sent
  }

  /** A deadline of a send is due. Returns the number of datagrams sent, or 1 if the send ended. */
  #onDeadline(sending: Sending<P, T>, now: number): number {
    const { segments } = sending
    if (!segments?.hasNext) {
      // A completely acknowledged transfer is not repeated: only the response is missing.
      if (sending.retriesLeft === 0 || segments?.isDone) {
        this.#end(sending, 'timeout')
        return 1
      }
      sending.retriesLeft--
      segments?.rewind()
    }
    // Round robin: the other due sends come first at the next call.
    this.#sending.delete(sending)
    this.#sending.add(sending)
    return this.#transmit(sending, now)
  }

  #end(sending: Sending<P, T>, outcome: SendOutcome): void {
    if (this.#sending.delete(sending)) this.#owner.ended(sending.options.tag, outcome, sending.message)
  }

  /** The send that a response, ACK, STOP or ABORT answers. */
  #sendingOf(fields: MadFields, from: P): Sending<P, T> | undefined {
    for (const sending of this.#sending) {
      const { fields: sent, path } = sending
      if (!isSameTransaction(sent, fields) || sent.isResponse === fields.isResponse) continue
      const isSamePath = sent.isResponse
        ? isSamePeer(path, from)
        : // The response may come from another port of the peer.
          isSameAddress(path.localGid, from.localGid)
      if (isSamePath) return sending
    }
    return undefined
  }

  /** `acceptsUnmatched`: also delivers a response that answers no send. */
  #deliver(message: Uint8Array, fields: MadFields, from: P, acceptsUnmatched = false): void {
    const sending = fields.isResponse ? this.#sendingOf(fields, from) : undefined
    if (fields.isResponse && sending === undefined && !acceptsUnmatched) return
    this.#owner.deliver(message, from)
    if (sending !== undefined) this.#end(sending, 'answered')
  }

  // ---- RMPP ----

  #onRmpp(mad: Uint8Array, fields: MadFields, from: P, now: number): void {
    const rmpp = parseRmpp(mad)
    const { version, type, status } = rmpp
    if (version !== RMPP_VERSION) this.#refuse(mad, fields, from, RmppStatus.BAD_VERSION)
    else if (type === RmppType.DATA) this.#onData(mad, fields, rmpp, from, now)
    else if (type === RmppType.ACK) this.#onAck(mad, fields, rmpp, from, now)
    else if (type === RmppType.STOP || type === RmppType.ABORT) {
      const isAbort = type === RmppType.ABORT
      const isValidStatus = isAbort
        ? status >= RMPP_ABORT_FIRST && status <= RMPP_ABORT_LAST
        : status === RmppStatus.RESX
      if (isValidStatus) this.#stop(fields, from)
      else this.#refuse(mad, fields, from, RmppStatus.BAD_STATUS)
    } else this.#refuse(mad, fields, from, RmppStatus.BAD_TYPE)
  }

  /** Answers a datagram with an ABORT. */
  #abort(mad: Uint8Array, path: P, status: number): void {
    this.#owner.transmit(answerRmpp(mad, { type: RmppType.ABORT, status }), path)
  }

  /** The peer violates the protocol: ends the transfer here, and sends an ABORT to end it at the peer. */
  #refuse(mad: Uint8Array, fields: MadFields, from: P, status: number): void {
    this.#stop(fields, from)
    this.#abort(mad, from, status)
  }

  /**
   * Ends the transfer of a datagram's transaction, in either direction. Ours to the peer is aborted, unless all
   * segments were acknowledged. The peer's to us is dropped if it is incomplete (Linux keeps it), so that its segments
   * are not mixed with those of a new message.
   */
  #stop(fields: MadFields, from: P): void {
    const sending = this.#sendingOf(fields, from)
    if (sending?.segments !== undefined && !sending.segments.isDone) this.#end(sending, 'aborted')
    const receiving = this.#receivingOf(fields, from)
    if (receiving !== undefined && !receiving.segments.isComplete) this.#forget(receiving)
  }

  #onAck(mad: Uint8Array, fields: MadFields, rmpp: RmppFields, from: P, now: number): void {
    const { status, segment, lengthOrWindow: window } = rmpp
    if (status !== RmppStatus.NORMAL || window < segment) {
      this.#refuse(
        mad,
        fields,
        from,
        status === RmppStatus.NORMAL ? RmppStatus.WINDOW_TOO_SMALL : RmppStatus.BAD_STATUS,
      )
      return
    }
    const sending = this.#sendingOf(fields, from)
    const segments = sending?.segments
    if (sending === undefined || segments === undefined) {
      // Double-sided transfer: the requester sends an ACK of segment 0 with its window for the response.
      const request = segment === 0 ? this.#receivingOf(fields, from) : undefined
      if (request?.segments.isComplete) request.segments.replyWindow = Math.max(1, window)
      return
    }
    const wasDone = segments.isDone
    const outcome = segments.onAck(rmpp)
    if (typeof outcome === 'object') this.#refuse(mad, fields, from, outcome.abort)
    else if (outcome === 'progress') {
      sending.retriesLeft = sending.options.retries
      this.#transmit(sending, now)
    } else if (outcome === 'open') {
      // Without another segment the deadline stays. Otherwise a peer that only grows its window could postpone it for
      // ever.
      if (segments.hasNext) this.#transmit(sending, now)
    } else if (outcome === 'done') {
      if (sending.options.timeout === 0) this.#end(sending, 'sent')
      else {
        // All segments are sent: this only sets the deadline of the response.
        if (!wasDone) this.#transmit(sending, now)
        // ACK of segment 0, with our window for the response. It is never sent in answer to an ACK of segment 0: a peer
        // without an agent for the class returns our ACK as a response, and the ACKs would repeat without end.
        if (segment > 0) this.#owner.transmit(answerRmpp(mad, { type: RmppType.ACK, lengthOrWindow: 1 }), from)
      }
    }
  }

  /** The transfer to which a segment, or the ACK of segment 0, belongs. */
  #receivingOf(fields: MadFields, from: P): Receiving<P> | undefined {
    for (const receiving of this.#receiving) {
      const { fields: known, from: peer } = receiving
      const isSame =
        isSameTransaction(known, fields) &&
        known.classVersion === fields.classVersion &&
        known.method === fields.method &&
        peer.qpn === from.qpn &&
        isSamePeer(peer, from)
      if (isSame) return receiving
    }
    return undefined
  }

  #onData(mad: Uint8Array, fields: MadFields, { status, segment, flags }: RmppFields, from: P, now: number): void {
    const isFirst = (flags & RmppFlag.FIRST) !== 0
    if (status !== RmppStatus.NORMAL) this.#abort(mad, from, RmppStatus.BAD_STATUS)
    else if (isFirst !== (segment === 1)) this.#abort(mad, from, RmppStatus.BAD_SEGMENT)
    else {
      const receiving =
        this.#receivingOf(fields, from) ?? (isFirst ? this.#startTransfer(mad, fields, from, now) : undefined)
      if (receiving !== undefined) this.#onSegment(receiving, mad, segment, now)
    }
  }

  /** Starts a transfer. If there is no space, sends a STOP and returns undefined. */
  #startTransfer(mad: Uint8Array, fields: MadFields, from: P, now: number): Receiving<P> | undefined {
    if (this.#receiving.size >= MAX_TRANSFERS) {
      const [oldestComplete] = [...this.#receiving].filter(({ segments }) => segments.isComplete)
      if (oldestComplete !== undefined) this.#forget(oldestComplete)
      else if (!this.#makeRoom(from, () => 1)) {
        this.#refuseTransfer(mad, from)
        return undefined
      }
    }
    const segments = new SegmentReceiver(fields.mgmtClass)
    const peer = peerOf(from)
    const receiving = { mad, fields, from, peer, segments, deadline: now + TRANSFER_TIMEOUT, charged: 0 }
    if (!this.#charge(receiving)) {
      this.#refuseTransfer(mad, from)
      return undefined
    }
    this.#receiving.add(receiving)
    this.#wakeAt(receiving.deadline)
    return receiving
  }

  #onSegment(receiving: Receiving<P>, mad: Uint8Array, segment: number, now: number): void {
    const { segments, from, fields } = receiving
    const { reply, message, hasFailed } = segments.onData(mad, segment)
    if (reply !== undefined) this.#owner.transmit(reply, from)
    if (hasFailed) this.#forget(receiving)
    else if (!this.#charge(receiving)) {
      this.#forget(receiving)
      this.#refuseTransfer(mad, from)
    } else if (message !== undefined) {
      receiving.deadline = now + COMPLETE_TIMEOUT
      this.#wakeAt(receiving.deadline)
      this.#deliver(message, fields, from)
    } else
      while (this.#receiving.has(receiving) && this.#receivingBytes() > MAX_RECEIVING_BYTES)
        if (!this.#makeRoom(from, transfer => transfer.segments.bytes)) {
          this.#forget(receiving)
          this.#refuseTransfer(mad, from)
        }
  }

  /** Charges what the transfer has now; false: there is no memory for what it has more. */
  #charge(receiving: Receiving<P>): boolean {
    const more = TRANSFER_BYTES + receiving.segments.bytes - receiving.charged
    if (more > 0 && this.#owner.reserve?.(more) === false) return false
    if (more < 0) this.#owner.release?.(-more)
    receiving.charged += more
    return true
  }

  #forget(receiving: Receiving<P>): void {
    if (!this.#receiving.delete(receiving)) return
    this.#owner.release?.(receiving.charged)
    receiving.charged = 0
  }

  /** Sends a STOP: there is no space. */
  #refuseTransfer(mad: Uint8Array, from: P): void {
    this.#owner.transmit(answerRmpp(mad, { type: RmppType.STOP, status: RmppStatus.RESX }), from)
  }

  /**
   * Stops a transfer of the peer with the largest weight (receiving.ts). Returns false if the peer at `from`, which
   * needs the space, has as large a weight.
   */
  #makeRoom(from: P, weightOf: (receiving: Receiving<P>) => number): boolean {
    const victim = newestOfLargest(this.#receiving, peerOf(from), weightOf)
    if (victim === undefined) return false
    this.#forget(victim)
    this.#refuseTransfer(victim.mad, victim.from)
    return true
  }

  #receivingBytes(): number {
    let bytes = 0
    for (const { segments } of this.#receiving) bytes += segments.bytes
    return bytes
  }
}
