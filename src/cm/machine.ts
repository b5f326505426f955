/*
 * Operations common to commands and received messages: state transitions by spec/cm-states.ts; sending, retransmitting
 * and storing messages for duplicates; TIMEWAIT and removal of connections. engine.ts has the commands, receive.ts the
 * received messages.
 */
import { type CmCommand, type CmEventName, type CmStep, cmStates } from '../spec/cm-states.ts'
import { type CmMessageName, cmMessages, rejReason } from '../spec/wire/mad.ts'
import { type CmDraft, type CmMessage, emitCm } from '../wire/mad/mad.ts'
import { CmConnection, type CmListener, type CmPath, type Received } from './connection.ts'
import { CmError } from './error.ts'
import * as messages from './messages.ts'
import { CmRegistry } from './registry.ts'
import { fromExponent } from './timeout.ts'
import { TimerQueue } from './timer-queue.ts'

/** Facts about devices for the engine. */
export interface CmEnvironment {
  /** An unpredictable u32. */
  random(): number
  caGuid(device: number): bigint
  /** Exponent: the device's maximum ACK delay. */
  ackDelay(device: number): number
  /** Whether the GID, 16 bytes, belongs to the device. */
  hasGid(device: number, gid: Uint8Array): boolean
}

export interface CmEvent {
  readonly name: CmEventName
  readonly connection: CmConnection
  /** The received message; absent for errors, TIMEWAIT_EXIT and USER_ESTABLISHED. */
  readonly message?: CmMessage
}

/** A message for queue pair 1 of the peer at the other end of the path. */
export interface CmTransmit {
  readonly path: CmPath
  readonly mad: Uint8Array
}

/** Linux's counters per port, by message. */
export interface CmCounters {
  readonly sent: Record<CmMessageName, number>
  readonly resent: Record<CmMessageName, number>
  readonly received: Record<CmMessageName, number>
  readonly duplicates: Record<CmMessageName, number>
}

/**
 * Exponent of the longest TIMEWAIT, 8.6 s: the peer chooses the ACK timeout, and 31 would keep a connection for hours.
 */
const LONGEST_TIMEWAIT = 21

const zeroCounts = (): Record<CmMessageName, number> => {
  const names = Object.keys(cmMessages) as CmMessageName[]
  return Object.fromEntries(names.map(name => [name, 0])) as Record<CmMessageName, number>
}

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

  /** Applies the table's rule for a message; a message without a rule is a duplicate. */
  applyRule(connection: CmConnection | undefined, message: CmMessage, now: number): void {
    const receipt = connection && cmStates[connection.state].receive[message.name]
    if (connection === undefined || receipt === undefined) {
      this.counters.duplicates[message.name]++
      return
    }
    if ('to' in receipt) {
      this.step(connection, receipt, message, now)
      return
    }
    this.counters.duplicates[message.name]++
    this.#repeatAnswer(connection, receipt.answer)
  }

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

  step(connection: CmConnection, step: CmStep, message: CmMessage | undefined, now: number): void {
    this.stop(connection)
    connection.state = step.to
    if (step.to === 'TIMEWAIT') this.enterTimewait(connection, now)
    if (step.to === 'IDLE') {
      this.releaseBacklog(connection)
      this.registry.removePeer(connection)
      this.registry.releaseQpn(connection)
      if (connection.destroyed) this.registry.remove(connection)
    }
    // The consumer of a destroyed connection is notified only of the end of TIMEWAIT.
    if (step.event === undefined || (connection.destroyed && step.event !== 'TIMEWAIT_EXIT')) return
    this.events.push({ name: step.event, connection, ...(message && { message }) })
  }

  request(connection: CmConnection, listener: CmListener, name: CmEventName, message: CmMessage): void {
    connection.listener = listener
    listener.waiting++
    this.events.push({ name, connection, message })
  }

  /** The consumer has answered a request, or the request is over. */
  releaseBacklog(connection: CmConnection): void {
    if (connection.listener === undefined) return
    connection.listener.waiting--
    connection.listener = undefined
  }

  check(connection: CmConnection, command: CmCommand): void {
    const allowed = connection.destroyed ? {} : cmStates[connection.state].command
    if (allowed[command] !== undefined) return
    const state = connection.destroyed ? 'that is destroyed' : `in ${connection.state}`
    const commands = Object.keys(allowed).join(', ') || 'nothing'
    throw new CmError('EINVAL', `a connection ${state} does not allow ${command}; it allows ${commands}`)
  }

  apply(connection: CmConnection, command: CmCommand): void {
    const to = cmStates[connection.state].command[command]
    if (to === undefined) return
    connection.state = to
    if (to !== 'IDLE') return
    this.registry.removePeer(connection)
    this.registry.releaseQpn(connection)
  }

  /** Sends a message, with retries until it is answered. */
  awaitAnswer(connection: CmConnection, name: CmMessageName, bytes: Uint8Array, now: number): void {
    const { answerTimeout, maxCmRetries } = connection
    connection.pending = { name, bytes, retries: maxCmRetries, timeout: answerTimeout }
    this.transmit(connection.path, name, bytes, 'sent')
    this.timers.set(connection, now + answerTimeout)
  }

  /** Stops retries. */
  stop(connection: CmConnection): void {
    connection.pending = undefined
    this.timers.clear(connection)
  }

  /** Enters TIMEWAIT: packets of the connection may still be in flight, so its queue pair must not be reused yet. */
  enterTimewait(connection: CmConnection, now: number): void {
    this.stop(connection)
    this.releaseBacklog(connection)
    connection.state = 'TIMEWAIT'
    this.registry.releaseRemoteQpn(connection)
    this.registry.releaseQpn(connection)
    this.timers.set(connection, now + fromExponent(Math.min(LONGEST_TIMEWAIT, connection.agreed.ackTimeout)))
  }

  remove(connection: CmConnection): void {
    this.stop(connection)
    this.releaseBacklog(connection)
    this.registry.remove(connection)
    connection.destroyed = true
    connection.state = 'IDLE'
  }

  // ---- messages ----

  /** Sends a DREQ. */
  disconnect(connection: CmConnection, now: number, privateData?: Uint8Array): void {
    this.check(connection, 'DREQ')
    connection.tid = this.transaction(connection)
    const bytes = emitCm(messages.dreq(connection, privateData))
    this.apply(connection, 'DREQ')
    this.awaitAnswer(connection, 'DREQ', bytes, now)
  }

  /** Prepares a connection in IDLE for a request; returns the transaction id of the request. */
  begin(connection: CmConnection): bigint {
    // A new connection has tid 0. A retried one gets a new id.
    if (connection.tid !== 0n) this.registry.renew(connection)
    return this.transaction(connection)
  }

  /** The transaction id of a connection's own requests, common to REQ and DREQ. */
  transaction({ localId }: CmConnection): bigint {
    return this.#transactionHigh | BigInt(localId)
  }

  transmit(path: CmPath, name: CmMessageName, mad: Uint8Array, count: 'sent' | 'resent'): void {
    this.counters[count][name]++
    this.transmits.push({ path, mad })
  }

  send(connection: CmConnection, draft: CmDraft): Uint8Array {
    const bytes = emitCm(draft)
    this.transmit(connection.path, draft.name, bytes, 'sent')
    return bytes
  }

  /** Sends an answer without retries, and stores it for duplicates of the message that it answers. */
  sendReply(connection: CmConnection, draft: CmDraft<'RTU' | 'MRA' | 'DREP'>): void {
    connection.lastReply = { name: draft.name, bytes: this.send(connection, draft) }
  }

  /** Sends a REJ. A REJ for a timeout carries our CA GUID, which identifies the connection (clause 12.6.7.2). */
  sendRej(connection: CmConnection, rejection: messages.CmRejection): void {
    const { reason } = rejection
    const info = new Uint8Array(8)
    new DataView(info.buffer).setBigUint64(0, this.environment.caGuid(connection.path.device))
    this.send(connection, messages.rej(connection, reason === rejReason.TIMEOUT ? { ...rejection, info } : rejection))
  }

  /** Rejects a message without a connection. The REJ for an invalid GID contains a valid one. */
  refuse(message: Received<'REQ' | 'REP'>, from: CmPath, reason: number): void {
    const isGid = reason === rejReason.INVALID_GID || reason === rejReason.INVALID_ALT_GID
    const info = isGid ? from.localGid : new Uint8Array(0)
    this.transmit(from, 'REJ', emitCm(messages.refusal(message, reason, info)), 'sent')
  }

  /**
   * Rejects a message whose queue pair is connected already, and ends that connection, since the peer no longer has it.
   */
  refuseStale(message: Received<'REQ' | 'REP'>, qpn: number, from: CmPath, now: number): boolean {
    const stale = this.registry.byRemoteQpn(from, message.caGuid, qpn)
    if (stale === undefined) return false
    this.refuse(message, from, rejReason.STALE_CONN)
    if (stale.state === 'ESTABLISHED') this.disconnect(stale, now)
    return true
  }
}
