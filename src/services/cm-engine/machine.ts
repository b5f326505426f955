/*
 * Operations common to commands (engine.ts) and received messages (receive.ts): state transitions by cm-states.ts,
 * sending and retransmission of messages, TIMEWAIT, and removal of connections.
 */
import { coded } from '../../spec/reason.ts'
import { type CmMessageName, cmMessages, rejReason } from '../../spec/wire/mad.ts'
import { addressKey } from '../../transport/wire/address.ts'
import { type CmDraft, type CmMessage, emitCm } from '../../transport/wire/mad/mad.ts'
import { type CmCommand, type CmEventName, type CmStep, cmStates } from './cm-states.ts'
import { CmConnection, type CmPath, type CmPending, peerAddress, type ReceivedMessage } from './connection.ts'
import { CmError } from './error.ts'
import * as messages from './messages.ts'
import { CmRegistry } from './registry.ts'
import { fromExponent } from './timeout.ts'
import { TimerQueue } from './timer-queue.ts'

/** Random numbers, and facts about devices, for the engine. */
export interface CmEnvironment {
  /** An unpredictable u32. */
  random(): number
  caGuid(device: number): bigint
  /** The device's maximum ACK delay, an exponent (timeout.ts). */
  ackDelay(device: number): number
  /** Whether the GID, 16 bytes, belongs to the device. */
  hasGid(device: number, gid: Uint8Array): boolean
  /**
   * Microseconds after which an unanswered message is repeated first, on a path without delay. Further repetitions
   * follow at up to MAX_INTERVAL, until the peer's response timeout. Absent or 0: none before that timeout.
   */
  firstRepetition?(path: CmPath): number
}

export interface CmEvent {
  readonly name: CmEventName
  readonly connection: CmConnection
  /** The received message; absent for errors, TIMEWAIT_EXIT and USER_ESTABLISHED. */
  readonly message?: CmMessage
}

/** A message for the peer's queue pair 1. */
export interface CmTransmit {
  readonly path: CmPath
  readonly mad: Uint8Array
}

/** Numbers of messages by type. `sent` does not include `resent`. */
export interface CmCounters {
  readonly sent: Record<CmMessageName, number>
  readonly resent: Record<CmMessageName, number>
  readonly received: Record<CmMessageName, number>
  readonly duplicates: Record<CmMessageName, number>
}

/** Exponent (timeout.ts) of the longest TIMEWAIT, 8.6 s. The peer chooses the ACK timeout: up to hours. */
const MAX_TIMEWAIT = 21

/** Maximum microseconds between repetitions before the response timeout. */
const MAX_INTERVAL = 64_000

/** Maximum kept REJs. A repetition follows within MAX_INTERVAL. */
const MAX_REJECTIONS = 64
/** Identifies a REQ of a peer: a peer's ids and transaction ids are not reused soon. */
const requestName = (path: CmPath, caGuid: bigint, id: number, tid: bigint): string =>
  `${addressKey(peerAddress(path))}/${caGuid}/${id}/${tid}`

const zeroCounts = (): Record<CmMessageName, number> => {
  const names = Object.keys(cmMessages) as CmMessageName[]
  return Object.fromEntries(names.map(name => [name, 0])) as Record<CmMessageName, number>
}

/** All times (`now`) are microseconds of one clock. */
export class CmMachine {
  readonly counters: CmCounters = {
    sent: zeroCounts(),
    resent: zeroCounts(),
    received: zeroCounts(),
    duplicates: zeroCounts(),
  }
  readonly environment: CmEnvironment
  readonly registry: CmRegistry
  readonly timers = new TimerQueue<CmConnection>()
  readonly transmits: CmTransmit[] = []
  readonly events: CmEvent[] = []
  /** The REJs of the last rejected requests, by `requestName`. */
  readonly #rejections = new Map<string, Uint8Array>()
  readonly #transactionHigh: bigint

  constructor(environment: CmEnvironment) {
    this.environment = environment
    this.registry = new CmRegistry(() => environment.random())
    this.#transactionHigh = BigInt(environment.random()) << 32n
  }

  /** A new connection in IDLE. */
  create(path: CmPath): CmConnection {
    const connection = new CmConnection(this.registry.newId(), path)
    this.registry.add(connection)
    return connection
  }

  // ---- steps ----

  /** Applies the rule for a received message. A message without a rule counts as a duplicate. */
  applyRule(connection: CmConnection | undefined, message: CmMessage, now: number): void {
    const receipt = connection && cmStates[connection.state].receive[message.name]
    if (connection === undefined || receipt === undefined) {
      this.counters.duplicates[message.name]++
      return
    }
    if ('nextState' in receipt) {
      this.applyStep(connection, receipt, message, now)
      return
    }
    this.counters.duplicates[message.name]++
    this.#repeatAnswer(connection, receipt.answer)
  }

  /**
   * Answers a duplicate with the stored message. If another or none is stored, sends a new DREP or MRA, but no REP or
   * RTU. A REJ is always new.
   */
  #repeatAnswer(connection: CmConnection, answer: CmMessageName): void {
    if (answer === 'REJ') {
      this.sendRej(connection, { reason: rejReason.STALE_CONN })
      return
    }
    const stored = answer === 'REP' ? connection.pending : connection.lastReply
    if (stored?.name === answer) this.transmit(connection.path, stored.name, stored.bytes, 'resent')
    else if (answer === 'DREP') this.sendReply(connection, messages.drep(connection))
    else if (answer === 'MRA') this.sendReply(connection, messages.mra(connection, connection.serviceTimeout))
  }

  /** Makes the transition of a received message or a timeout, and reports the event. */
  applyStep(connection: CmConnection, step: CmStep, message: CmMessage | undefined, now: number): void {
    this.stopRetries(connection)
    connection.state = step.nextState
    if (step.nextState === 'TIMEWAIT') this.enterTimewait(connection, now)
    if (step.nextState === 'IDLE') {
      this.registry.removePeer(connection)
      this.registry.releaseQpn(connection)
      if (connection.isDestroyed) this.registry.remove(connection)
    }
    // The consumer of a destroyed connection gets only TIMEWAIT_EXIT.
    if (step.event === undefined || (connection.isDestroyed && step.event !== 'TIMEWAIT_EXIT')) return
    this.events.push({ name: step.event, connection, ...(message && { message }) })
  }

  /** Throws CmError EINVAL if the connection's state does not allow a command. */
  requireAllowed(connection: CmConnection, command: CmCommand): void {
    const allowed = connection.isDestroyed ? {} : cmStates[connection.state].command
    if (allowed[command] !== undefined) return
    const state = connection.isDestroyed ? 'that is destroyed' : `in ${connection.state}`
    const commands = Object.keys(allowed).join(', ') || 'nothing'
    throw new CmError(coded('connection-state')`a connection ${state} does not allow ${command}; it allows ${commands}`)
  }

  /** Makes the transition of an allowed command. */
  applyCommand(connection: CmConnection, command: CmCommand): void {
    const nextState = cmStates[connection.state].command[command]
    if (nextState === undefined) return
    connection.state = nextState
    if (nextState !== 'IDLE') return
    this.registry.removePeer(connection)
    this.registry.releaseQpn(connection)
  }

  /** Sends a message, with retries until it is answered. */
  awaitAnswer(connection: CmConnection, name: CmMessageName, bytes: Uint8Array, now: number): void {
    const { answerTimeout, maxCmRetries } = connection
    const interval = this.environment.firstRepetition?.(connection.path) ?? 0
    const pending = {
      name,
      bytes,
      retries: maxCmRetries,
      timeout: answerTimeout,
      interval,
      overdueAt: now + answerTimeout,
    }
    connection.pending = pending
    this.transmit(connection.path, name, bytes, 'sent')
    this.#setRepetition(connection, pending, now)
  }

  /** Repeats an unanswered message; false if no retries are left. Repetitions before the timeout are no retries. */
  repeat(connection: CmConnection, pending: CmPending, now: number): boolean {
    if (now >= pending.overdueAt) {
      if (pending.retries === 0) return false
      pending.retries--
      pending.overdueAt = now + pending.timeout
    }
    this.transmit(connection.path, pending.name, pending.bytes, 'resent')
    this.#setRepetition(connection, pending, now)
    return true
  }

  /** Sets the timer for the next repetition: after `interval`, but not later than `overdueAt`. */
  #setRepetition(connection: CmConnection, pending: CmPending, now: number): void {
    const { interval, overdueAt } = pending
    pending.interval = Math.min(2 * interval, MAX_INTERVAL)
    this.timers.set(connection, interval === 0 ? overdueAt : Math.min(now + interval, overdueAt))
  }

  stopRetries(connection: CmConnection): void {
    connection.pending = undefined
    this.timers.clear(connection)
  }

  /** Enters TIMEWAIT: packets of the connection may still be in flight. */
  enterTimewait(connection: CmConnection, now: number): void {
    this.stopRetries(connection)
    connection.state = 'TIMEWAIT'
    this.registry.releaseRemoteQpn(connection)
    this.registry.releaseQpn(connection)
    this.timers.set(connection, now + fromExponent(Math.min(MAX_TIMEWAIT, connection.agreed.ackTimeout)))
  }

  /** Removes a connection without sending a message. */
  remove(connection: CmConnection): void {
    this.stopRetries(connection)
    this.registry.remove(connection)
    connection.isDestroyed = true
    connection.state = 'IDLE'
  }

  // ---- messages ----

  disconnect(connection: CmConnection, now: number, privateData?: Uint8Array): void {
    this.requireAllowed(connection, 'DREQ')
    connection.tid = this.transactionId(connection)
    const bytes = emitCm(messages.dreq(connection, privateData))
    this.applyCommand(connection, 'DREQ')
    this.awaitAnswer(connection, 'DREQ', bytes, now)
  }

  /** Prepares a connection in IDLE for a request; returns the transaction id. */
  beginRequest(connection: CmConnection): bigint {
    // If `tid` is not 0, the connection has sent a request before.
    if (connection.tid !== 0n) this.registry.renew(connection)
    connection.lastReply = undefined
    return this.transactionId(connection)
  }

  /** The transaction id of our REQ, DREQ and SIDR_REQ. */
  transactionId({ localId }: CmConnection): bigint {
    return this.#transactionHigh | BigInt(localId)
  }

  /** Queues and counts a message. */
  transmit(path: CmPath, name: CmMessageName, mad: Uint8Array, counter: 'sent' | 'resent'): void {
    this.counters[counter][name]++
    this.transmits.push({ path, mad })
  }

  /** Encodes and sends a message without retries; returns its bytes. */
  send(connection: CmConnection, draft: CmDraft): Uint8Array {
    const bytes = emitCm(draft)
    this.transmit(connection.path, draft.name, bytes, 'sent')
    return bytes
  }

  /** Sends an answer without retries, and stores it for duplicates of the answered message. */
  sendReply(connection: CmConnection, draft: CmDraft<'RTU' | 'MRA' | 'DREP'>): void {
    connection.lastReply = { name: draft.name, bytes: this.send(connection, draft) }
  }

  /** Sends a REJ. A REJ for a timeout carries our CA GUID, which identifies the connection (clause 12.6.7.2). */
  sendRej(connection: CmConnection, rejection: messages.CmRejection): void {
    const isTimeout = rejection.reason === rejReason.TIMEOUT
    const sent = isTimeout ? { ...rejection, info: this.#caGuidBytes(connection) } : rejection
    const bytes = this.send(connection, messages.rej(connection, sent))
    if (connection.state === 'REQ_RCVD' || connection.state === 'MRA_REQ_SENT') this.#keepRejection(connection, bytes)
  }

  /** Keeps the REJ of a request whose sender repeats it after milliseconds: a repetition may be in flight already. */
  #keepRejection({ path, remoteCaGuid, remoteId, tid }: CmConnection, bytes: Uint8Array): void {
    if ((this.environment.firstRepetition?.(path) ?? 0) === 0) return
    this.#rejections.set(requestName(path, remoteCaGuid, remoteId, tid), bytes)
    const [oldest] = this.#rejections.keys()
    if (this.#rejections.size > MAX_REJECTIONS && oldest !== undefined) this.#rejections.delete(oldest)
  }

  /** Answers a repetition of a rejected REQ with the same REJ; false for another REQ. */
  repeatRejection({ caGuid, localId, tid }: ReceivedMessage<'REQ'>, from: CmPath): boolean {
    const bytes = this.#rejections.get(requestName(from, caGuid, localId, tid))
    if (bytes === undefined) return false
    this.counters.duplicates.REQ++
    this.transmit(from, 'REJ', bytes, 'resent')
    return true
  }

  #caGuidBytes({ path }: CmConnection): Uint8Array {
    const bytes = new Uint8Array(8)
    new DataView(bytes.buffer).setBigUint64(0, this.environment.caGuid(path.device))
    return bytes
  }

  /** Rejects a message without a connection. The REJ for an invalid GID contains a valid one. */
  refuse(message: ReceivedMessage<'REQ' | 'REP'>, from: CmPath, reason: number): void {
    const isGid = reason === rejReason.INVALID_GID || reason === rejReason.INVALID_ALT_GID
    const info = isGid ? from.localGid : new Uint8Array(0)
    this.transmit(from, 'REJ', emitCm(messages.refusal(message, reason, info)), 'sent')
  }

  /**
   * If the queue pair in a REQ or REP is connected here already, the peer no longer has that connection: rejects the
   * message, and disconnects the stale connection if it is ESTABLISHED. Returns whether the message was rejected.
   */
  refuseStale(message: ReceivedMessage<'REQ' | 'REP'>, qpn: number, from: CmPath, now: number): boolean {
    const stale = this.registry.byRemoteQpn(from, message.caGuid, qpn)
    if (stale === undefined) return false
    this.refuse(message, from, rejReason.STALE_CONN)
    if (stale.state === 'ESTABLISHED') this.disconnect(stale, now)
    return true
  }
}
