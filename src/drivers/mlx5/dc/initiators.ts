/*
 * Initiators of DC. The row of an initiator in the engine is connected, as one of RC, to one responder of one target at
 * a time. Its requests are taken from the program's queue as long as they name this target. At a request that names
 * another, the initiator waits until all earlier ones are acknowledged, disconnects, connects to the responder that the
 * other target makes for it, and goes on. It also disconnects when it is idle.
 *
 * A request whose target cannot be reached is taken with the status with which it fails, and the queue pair goes to
 * ERR.
 *
 * Requests name streams (MLX5_QP_FLAG_DCI_STREAM). An initiator that tolerates errors of some fetches requests of one
 * stream at a time. When one fails, those that were fetched are flushed with it, and the row starts again with the
 * requests of other streams. Requests of a stream in error are flushed in ERR, where the row stays as long as there are
 * some, and ends if too many streams are in error.
 */

import { createCause } from '../../../spec/check/causes.ts'
import {
  DATAGRAM_GID_SHIFT,
  DATAGRAM_GRH_SHIFT,
  DatagramSegment,
  SEGMENT_BYTES,
} from '../../../spec/drivers/mlx5-queues.ts'
import { QpState } from '../../../spec/enums.ts'
import { CallError } from '../../../spec/errno.ts'
import { ackTimeouts, WcStatus } from '../../../spec/work.ts'
import { isRoceV1 } from '../../../transport/wire/lrh.ts'
import { type Address, storedAddress } from '../../soft/address/path.ts'
import { refusal } from '../../soft/queues.ts'
import type { QpObject, SoftState } from '../../soft/state.ts'
import type { Sends, TargetGate } from '../sends.ts'
import { DcStatus, DcTime } from './answers.ts'
import { type Answer, DcOpcode, type Outbox, type Path, type Request } from './messages.ts'

const { RESET, INIT, RTR, RTS, ERR } = QpState.values
const { LOC_QP_OP_ERR, RETRY_EXC_ERR, RNR_RETRY_EXC_ERR, REM_ACCESS_ERR } = WcStatus.values

/** The statuses with which requests fail that cannot be sent. */
const NO_PATH = refusal(LOC_QP_OP_ERR, 'NO_ADDRESS_HANDLE')
const NO_ANSWER = refusal(RETRY_EXC_ERR, 'DC_NO_ANSWER')
const BUSY = refusal(RNR_RETRY_EXC_ERR, 'DC_BUSY')
const WRONG_KEY = refusal(REM_ACCESS_ERR, 'DC_ACCESS_KEY')

/**
 * WAITS: CONNECT is repeated after a time, as the target is busy. FAILED: the next request that is taken is refused.
 */
const Phase = { NONE: 0, CONNECTING: 1, WAITS: 2, CONNECTED: 3, FAILED: 4 } as const

const QPN_MASK = 0xff_ffff
const WORDS = DatagramSegment.BYTES / 4
const SEGMENT_WORDS = SEGMENT_BYTES / 4
const NO_STREAM = -1
const NO_FLOW = -1
const NO_PEER = -1
/** The rnr_retry that means unlimited. */
const UNLIMITED = 7
/** Repetitions before a CONNECT is given up, however short the queue pair's timeout is. */
const MIN_TRIES = 4

interface InitiatorOptions {
  readonly object: QpObject
  readonly sends: Sends
  /** Streams in error with which the queue pair goes to ERR. */
  readonly maxErrored: number
}

/** ControlSegment.STREAM of the request at `words[at]`: big-endian, in bytes 1 and 2 of the third word. */
const streamOf = (words: Int32Array, at: number): number => {
  const word = words[at + 2]!
  return (word & 0xff00) | ((word >>> 16) & 0xff)
}

class Initiator implements TargetGate {
  readonly object: QpObject
  readonly sends: Sends
  readonly #all: Initiators
  phase: number = Phase.NONE
  /** The datagram segments of the connected target, and of the one to connect to. */
  readonly target = new Int32Array(WORDS)
  readonly wanted = new Int32Array(WORDS)
  readonly bytes: Uint8Array
  readonly view: DataView
  flow = NO_FLOW
  address: Address | undefined
  /** Number of the present or last connection. */
  number = 0
  tries = 0
  busyRetries = 0
  /** When to repeat CONNECT, and when to give up. */
  dueAt = 0
  giveUpAt = 0
  /** `Sends.taken` at the last look for idle ones. */
  seenTaken = -1
  keptAt = 0
  readonly maxErrored: number
  /** The stream whose requests are fetched. */
  stream = NO_STREAM
  /** Streams in error. */
  readonly errored = new Set<number>()
  /** In ERR only to flush requests of streams in error. */
  flushesErrored = false
  /** In ERR until RESET. */
  hasEnded = false

  constructor(all: Initiators, { object, sends, maxErrored }: InitiatorOptions) {
    this.#all = all
    this.maxErrored = maxErrored
    this.object = object
    this.sends = sends
    this.bytes = new Uint8Array(this.target.buffer)
    this.view = new DataView(this.target.buffer)
  }

  get confinesErrors(): boolean {
    return this.maxErrored > 1
  }

  /** `TargetGate.mayTake` */
  mayTake(words: Int32Array, control: number, needsTarget: boolean): boolean {
    if (this.confinesErrors && !this.#mayTakeOf(streamOf(words, control))) return false
    if (!needsTarget) return true
    const { phase, target } = this
    const at = control + SEGMENT_WORDS
    if (phase === Phase.CONNECTED) {
      let i = 0
      while (i < WORDS && words[at + i] === target[i]) i++
      if (i === WORDS) return true
    }
    if (phase === Phase.FAILED || this.#all.isFlushing(this)) return true
    if (phase === Phase.CONNECTING || phase === Phase.WAITS) return false
    for (let i = 0; i < WORDS; i++) this.wanted[i] = words[at + i]!
    this.#all.onWanted(this)
    return false
  }

  #mayTakeOf(stream: number): boolean {
    const isErrored = this.errored.has(stream)
    if (this.#all.isFlushing(this)) return isErrored || this.hasEnded
    if (!isErrored && stream === this.stream) return true
    if (!isErrored && this.sends.isDrained) {
      this.stream = stream
      return true
    }
    this.flushesErrored = isErrored
    this.#all.onPause(this)
    return false
  }
}

export class Initiators {
  readonly #soft: SoftState
  readonly #outbox: Outbox
  readonly #byNumber = new Map<number, Initiator>()
  /** Those that want a target as soon as their earlier requests are acknowledged. */
  readonly #switching = new Set<Initiator>()
  /** Those that wait for an answer, or to repeat CONNECT. */
  readonly #waiting = new Set<Initiator>()
  readonly #connected = new Set<Initiator>()
  /**
   * Those that tolerate errors of streams, and of them those whose next request waits for the completion of all earlier
   * ones.
   */
  readonly #confining = new Set<Initiator>()
  readonly #paused = new Set<Initiator>()
  #nextDue = Number.POSITIVE_INFINITY
  #nextSweep = Number.POSITIVE_INFINITY
  readonly #replyQpn: number
  #lastNumber: number

  /** `replyQpn`: to which answers come. `first`: the number of the first connection. */
  constructor(soft: SoftState, outbox: Outbox, replyQpn: number, first: number) {
    this.#soft = soft
    this.#outbox = outbox
    this.#replyQpn = replyQpn
    this.#lastNumber = first
  }

  add(options: InitiatorOptions): void {
    const { object, sends } = options
    const initiator = new Initiator(this, options)
    sends.gate = initiator
    this.#byNumber.set(object.state.qpn, initiator)
    if (initiator.confinesErrors) this.#confining.add(initiator)
  }

  /** The queue pair was moved to RESET, or is destroyed. */
  reset(qpn: number): void {
    const initiator = this.#byNumber.get(qpn)
    if (initiator === undefined) return
    this.#disconnect(initiator)
    initiator.sends.refusal = 0
    initiator.stream = NO_STREAM
    initiator.errored.clear()
    initiator.flushesErrored = false
    initiator.hasEnded = false
    this.#paused.delete(initiator)
  }

  remove(qpn: number): void {
    this.reset(qpn)
    const initiator = this.#byNumber.get(qpn)
    if (initiator !== undefined) this.#confining.delete(initiator)
    this.#byNumber.delete(qpn)
  }

  /** The program has moved the queue pair to ERR. */
  end(qpn: number): void {
    const initiator = this.#byNumber.get(qpn)
    if (initiator === undefined) return
    initiator.hasEnded = true
    this.#soft.recheck(initiator.object.state.row)
  }

  /** Requests of the stream are sent again (mlx5dv_dci_stream_id_reset). */
  resetStream(qpn: number, stream: number): void {
    this.#byNumber.get(qpn)?.errored.delete(stream)
  }

  /**
   * Before a call that depends on the state of the queue pair: one whose stream has failed is in ERR only until the
   * next poll.
   */
  settle(qpn: number): void {
    const initiator = this.#byNumber.get(qpn)
    if (initiator === undefined || !this.#confining.has(initiator)) return
    this.#soft.catchUp(initiator.object.state.row)
    this.#settle(initiator)
  }

  /** An initiator that is in ERR goes on with the streams that are not. True if anything was done. */
  #settle(initiator: Initiator): boolean {
    if (initiator.hasEnded || !this.isFlushing(initiator)) return false
    const { row } = initiator.object.state
    if (!initiator.flushesErrored) initiator.errored.add(initiator.stream)
    initiator.flushesErrored = false
    const isLost = this.#soft.failures.last(row)?.cause.id === 'COMPLETION_LOST'
    if (isLost || initiator.errored.size >= initiator.maxErrored) {
      initiator.hasEnded = true
      this.#soft.recheck(row)
    } else this.#restart(initiator)
    return true
  }

  /** From ERR to RTS: nothing is in flight. */
  #restart(initiator: Initiator): void {
    const { row } = initiator.object.state
    const engine = this.#soft.engine()
    const { access, pkeyIndex, pathMtu, minRnrTimer, timeout, retryCnt, rnrRetry, maxRdAtomic, sqPsn } =
      engine.query(row)
    this.#disconnect(initiator)
    engine.modify(row, RESET, {})
    initiator.sends.restart()
    engine.modify(row, INIT, { access, pkeyIndex })
    engine.modify(row, RTR, { pathMtu, minRnrTimer })
    engine.modify(row, RTS, { timeout, retryCnt, rnrRetry, maxRdAtomic, sqPsn })
    this.#soft.recheck(row)
  }

  onPause(initiator: Initiator): void {
    this.#paused.add(initiator)
  }

  #resume(initiator: Initiator): void {
    const { row } = initiator.object.state
    const engine = this.#soft.engine()
    if (engine.stateOf(row) !== RTS) return
    if (initiator.flushesErrored) engine.modify(row, ERR, {}, createCause('FLUSHED', { state: ERR }))
    else this.#soft.recheck(row)
  }

  isFlushing({ object }: Initiator): boolean {
    return this.#soft.engine().stateOf(object.state.row) === ERR
  }

  onWanted(initiator: Initiator): void {
    this.#switching.add(initiator)
  }

  onAnswer({ initiatorQpn, connection, status, responderQpn }: Answer, from: Path, now: number): void {
    const initiator = this.#byNumber.get(initiatorQpn)
    if (initiator?.phase !== Phase.CONNECTING || initiator.number !== connection) return
    const { address } = initiator
    if (
      address === undefined ||
      this.#soft.paths.peerOf(address) !== this.#soft.port.peerOf(from.source, isRoceV1(from))
    )
      return
    if (status === DcStatus.ACCEPTED) this.#onAccepted(initiator, responderQpn, now)
    else if (status === DcStatus.BUSY) this.#onBusy(initiator, now)
    else this.#fail(initiator, WRONG_KEY)
  }

  /** Begins connections, and repeats messages. True if anything was done. */
  poll(now: number): boolean {
    let progress = false
    for (const initiator of this.#paused) {
      if (!initiator.sends.isDrained) continue
      this.#paused.delete(initiator)
      this.#resume(initiator)
      progress = true
    }
    for (const initiator of this.#confining) progress = this.#settle(initiator) || progress
    for (const initiator of this.#switching) {
      if (!initiator.sends.isDrained) continue
      this.#switching.delete(initiator)
      if (this.#soft.engine().stateOf(initiator.object.state.row) !== RTS) continue
      this.#connect(initiator, now)
      progress = true
    }
    if (now >= this.#nextDue) {
      progress = true
      this.#nextDue = Number.POSITIVE_INFINITY
      for (const initiator of this.#waiting) {
        if (now >= initiator.dueAt) this.#onDue(initiator, now)
        if (this.#waiting.has(initiator)) this.#nextDue = Math.min(this.#nextDue, initiator.dueAt)
      }
    }
    if (now >= this.#nextSweep) this.#sweep(now)
    return progress
  }

  nextTimeout(): number {
    return Math.min(this.#nextDue, this.#nextSweep)
  }

  #request({ object, view, number }: Initiator, opcode: number): Request {
    const { row, qpn } = object.state
    return {
      opcode,
      destQpn: view.getUint32(DatagramSegment.QPN) & QPN_MASK,
      connection: number,
      psn: this.#soft.engine().query(row).sqPsn,
      initiatorQpn: qpn,
      replyQpn: this.#replyQpn,
      keyHi: view.getUint32(DatagramSegment.QKEY),
      keyLo: view.getUint32(DatagramSegment.QKEY + 4),
    }
  }

  #connect(initiator: Initiator, now: number): void {
    this.#disconnect(initiator)
    initiator.target.set(initiator.wanted)
    const { object, view, bytes } = initiator
    const source = view.getUint32(DatagramSegment.SOURCE)
    const targetQpn = view.getUint32(DatagramSegment.QPN) & QPN_MASK
    const { paths, ecn } = this.#soft
    const address = {
      ...paths.none,
      port: 1,
      dgid: bytes.slice(DatagramSegment.DGID, DatagramSegment.DGID + 16),
      flowLabel: source & 0xf_ffff,
      sgidIndex: (source >>> DATAGRAM_GID_SHIFT) & 0xff,
      trafficClass: view.getUint8(DatagramSegment.TRAFFIC_CLASS),
      hopLimit: view.getUint8(DatagramSegment.HOP_LIMIT),
      dlid: view.getUint16(DatagramSegment.LID),
      sl: view.getUint8(DatagramSegment.RATE_SL) & 15,
      isGlobal: paths.none.isGlobal | ((source >>> DATAGRAM_GRH_SHIFT) & 1),
    }
    try {
      initiator.flow = paths.open(address, 'DC', {
        ecn,
        qpn: object.state.qpn,
        destQpn: targetQpn,
        hopLimit: address.hopLimit,
      })
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      this.#fail(initiator, NO_PATH)
      return
    }
    initiator.address = address
    object.state.address = storedAddress(this.#soft, address)
    object.state.targetQpn = targetQpn
    this.#lastNumber = (this.#lastNumber + 1) >>> 0
    initiator.number = this.#lastNumber
    initiator.busyRetries = 0
    this.#begin(initiator, now)
  }

  /** Sends the first CONNECT, or the first one after BUSY. */
  #begin(initiator: Initiator, now: number): void {
    const { timeout, retryCnt } = this.#soft.engine().query(initiator.object.state.row)
    initiator.giveUpAt = now + Math.max(DcTime.GIVE_UP_MIN, ackTimeouts[timeout]! * (retryCnt + 1))
    initiator.tries = 0
    initiator.phase = Phase.CONNECTING
    this.#waiting.add(initiator)
    this.#sendConnect(initiator, now)
  }

  #sendConnect(initiator: Initiator, now: number): void {
    this.#outbox.add(this.#request(initiator, DcOpcode.CONNECT), initiator.flow)
    const wait = Math.min(DcTime.RETRY * 2 ** initiator.tries++, DcTime.RETRY_MAX)
    this.#setDue(initiator, now + wait)
  }

  #setDue(initiator: Initiator, dueAt: number): void {
    initiator.dueAt = dueAt
    this.#nextDue = Math.min(this.#nextDue, dueAt)
  }

  #onDue(initiator: Initiator, now: number): void {
    // as for other timeouts, the time in which this process was late does not count (docs/decisions/late-timeouts.md)
    initiator.giveUpAt += now - initiator.dueAt
    if (initiator.phase === Phase.WAITS) this.#begin(initiator, now)
    else if (now >= initiator.giveUpAt && initiator.tries >= MIN_TRIES) this.#fail(initiator, NO_ANSWER)
    else this.#sendConnect(initiator, now)
  }

  #onAccepted(initiator: Initiator, responderQpn: number, now: number): void {
    const { object, flow, address } = initiator
    const { row } = object.state
    this.#waiting.delete(initiator)
    this.#connected.add(initiator)
    initiator.phase = Phase.CONNECTED
    initiator.keptAt = now
    initiator.seenTaken = -1
    this.#nextSweep = Math.min(this.#nextSweep, now + DcTime.IDLE)
    const peer = address === undefined ? NO_PEER : this.#soft.paths.peerOf(address)
    this.#soft.engine().modify(row, undefined, { destQpn: responderQpn, flow, peer })
    this.#soft.recheck(row)
  }

  #onBusy(initiator: Initiator, now: number): void {
    const { rnrRetry } = this.#soft.engine().query(initiator.object.state.row)
    if (rnrRetry !== UNLIMITED && initiator.busyRetries >= rnrRetry) {
      this.#fail(initiator, BUSY)
      return
    }
    initiator.phase = Phase.WAITS
    this.#setDue(initiator, now + Math.min(DcTime.BUSY * 2 ** initiator.busyRetries++, DcTime.BUSY_MAX))
  }

  /** The next request, which names the target, fails with `refused` (`Send.REFUSED`). */
  #fail(initiator: Initiator, refused: number): void {
    const { sends, object } = initiator
    this.#release(initiator)
    initiator.phase = Phase.FAILED
    sends.refusal = refused
    this.#soft.recheck(object.state.row)
  }

  /** Ends what the initiator has begun. */
  #disconnect(initiator: Initiator): void {
    const { phase, flow } = initiator
    const hasBegun = phase === Phase.CONNECTED || phase === Phase.CONNECTING
    if (hasBegun) this.#outbox.add(this.#request(initiator, DcOpcode.DISCONNECT), flow)
    this.#release(initiator)
    initiator.phase = Phase.NONE
    initiator.object.state.address = undefined
    // late packets are dropped
    if (hasBegun) this.#soft.engine().modify(initiator.object.state.row, undefined, { peer: NO_PEER })
  }

  #release(initiator: Initiator): void {
    this.#switching.delete(initiator)
    this.#waiting.delete(initiator)
    this.#connected.delete(initiator)
    if (initiator.flow !== NO_FLOW) this.#soft.releasedFlows.push(initiator.flow)
    initiator.flow = NO_FLOW
    if (this.#connected.size === 0) this.#nextSweep = Number.POSITIVE_INFINITY
    if (this.#waiting.size === 0) this.#nextDue = Number.POSITIVE_INFINITY
  }

  /** Disconnects those that are idle or in ERR, and tells the targets of the others that they live. */
  #sweep(now: number): void {
    for (const initiator of this.#connected) {
      const { sends, flow, keptAt } = initiator
      const isIdle = sends.isDrained && sends.taken === initiator.seenTaken
      if (isIdle || this.isFlushing(initiator)) this.#disconnect(initiator)
      else if (now - keptAt >= DcTime.KEEP) {
        this.#outbox.add(this.#request(initiator, DcOpcode.KEEP), flow)
        initiator.keptAt = now
      }
      initiator.seenTaken = sends.taken
    }
    this.#nextSweep = this.#connected.size > 0 ? now + DcTime.IDLE : Number.POSITIVE_INFINITY
  }
}
