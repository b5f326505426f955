/*
 * The connection manager (InfiniBand Architecture Specification, volume 1, chapter 12; R17), without I/O: messages,
 * commands and time go in, messages and events come out. This file has the commands, receive.ts the received messages.
 * Both apply the state table of cm-states.ts. Retransmission, duplicates, stale connections and TIMEWAIT work as
 * in Linux's ib_cm; docs/reference/connection-manager.md lists the differences. Times are microseconds of any monotonic
 * clock.
 */
import { because } from '../../spec/reason.ts'
import { rejReason, sidrStatus } from '../../spec/wire/mad.ts'
import { emitCm } from '../../transport/wire/mad/mad.ts'
import { cmStates } from './cm-states.ts'
import type { CmConnection, CmOffer, CmPath, CmRequest } from './connection.ts'
import { CmError } from './error.ts'
import { type CmCounters, type CmEnvironment, type CmEvent, CmMachine, type CmTransmit } from './machine.ts'
import * as messages from './messages.ts'
import { receive } from './receive.ts'
import { ackTimeout, fromExponent } from './timeout.ts'

/** A request to resolve a service id to a queue pair. */
interface SidrRequest {
  readonly path: CmPath
  readonly serviceId: bigint
  readonly privateData?: Uint8Array
  /** t: the peer has 4.096 µs × 2^t to answer, including the network's round trip. */
  readonly responseTimeout: number
  /** Retries of the message, 0 to 15. */
  readonly maxCmRetries: number
}

/** Maximum timers per call of `onTimeout`: thousands may be due, and other work must not wait for all of them. */
const MAX_DUE = 64

export class CmEngine {
  readonly #machine: CmMachine

  constructor(environment: CmEnvironment) {
    this.#machine = new CmMachine(environment)
  }

  get counters(): CmCounters {
    return this.#machine.counters
  }

  // ---- outputs ----

  /** The next message to send. */
  pollTransmit(): CmTransmit | undefined {
    return this.#machine.transmits.shift()
  }

  /** The next event for the consumer. */
  pollEvent(): CmEvent | undefined {
    return this.#machine.events.shift()
  }

  /** When `onTimeout` must be called next; Infinity for never. */
  nextTimeout(): number {
    return this.#machine.timers.next
  }

  /** Number of connections and received SIDR_REQs of a device, including connections in TIMEWAIT. */
  countOf(device: number): number {
    return this.#machine.registry.ofDevice(device).length
  }

  /** Whether a connection of a device has the queue pair, also in TIMEWAIT. */
  hasQpn(device: number, qpn: number): boolean {
    return this.#machine.registry.ofDevice(device).some(({ agreed }) => agreed.localQpn === qpn)
  }

  /** As `countOf`, of all devices. */
  get size(): number {
    return this.#machine.registry.size
  }

  // ---- commands ----
  // Commands on a connection throw CmError if the state does not allow them, and RangeError if a value does not fit a
  // field of the message. `destroy` throws neither.

  /** Listens for requests to a service id on all devices, including later ones. */
  listen(serviceId: bigint): void {
    this.#machine.registry.listeners.add(serviceId)
  }

  /** Refuses later requests to a service id. Requests that were received before stay. */
  unlisten(serviceId: bigint): void {
    this.#machine.registry.listeners.delete(serviceId)
  }

  /** A new connection in IDLE, for `connect` or `resolve`. */
  create(path: CmPath): CmConnection {
    return this.#machine.create(path)
  }

  /** Sends a REQ. Also throws CmError if another connection has the queue pair. */
  connect(connection: CmConnection, request: CmRequest, now: number): void {
    this.#machine.requireAllowed(connection, 'REQ')
    const { path } = request
    const tid = this.#machine.beginRequest(connection)
    const localAckTimeout = ackTimeout(this.#machine.environment.ackDelay(path.device), path.packetLifeTime)
    const caGuid = this.#machine.environment.caGuid(path.device)
    const bytes = emitCm(messages.req(connection, tid, request, caGuid, localAckTimeout))
    const { agreed } = connection
    connection.path = path
    this.#machine.registry.claimQpn(connection, request.qpn)
    connection.tid = tid
    connection.serviceId = request.serviceId
    connection.answerTimeout = fromExponent(request.remoteResponseTimeout) + 2 * fromExponent(path.packetLifeTime)
    connection.maxCmRetries = request.maxCmRetries
    agreed.rqPsn = request.startingPsn
    agreed.responderResources = request.responderResources
    agreed.initiatorDepth = request.initiatorDepth
    agreed.retryCount = request.retryCount
    agreed.rnrRetryCount = request.rnrRetryCount
    agreed.transport = request.transport
    connection.isXrcTarget = false
    agreed.ackTimeout = path.packetLifeTime + 1
    this.#machine.applyCommand(connection, 'REQ')
    this.#machine.awaitAnswer(connection, 'REQ', bytes, now)
  }

  /** Answers a REQ with a REP. Also throws CmError if another connection has the queue pair. */
  reply(connection: CmConnection, offer: CmOffer, now: number): void {
    this.#machine.requireAllowed(connection, 'REP')
    const { environment } = this.#machine
    const { device } = connection.path
    const bytes = emitCm(messages.rep(connection, offer, environment.caGuid(device), environment.ackDelay(device)))
    const { agreed } = connection
    this.#machine.registry.claimQpn(connection, offer.qpn)
    agreed.rqPsn = offer.startingPsn
    agreed.responderResources = offer.responderResources
    agreed.initiatorDepth = offer.initiatorDepth
    this.#machine.applyCommand(connection, 'REP')
    this.#machine.awaitAnswer(connection, 'REP', bytes, now)
  }

  /** Answers a REP with an RTU: the connection is established. */
  ready(connection: CmConnection, privateData?: Uint8Array): void {
    this.#machine.requireAllowed(connection, 'RTU')
    this.#machine.sendReply(connection, messages.rtu(connection, privateData))
    this.#machine.applyCommand(connection, 'RTU')
  }

  /** Sends an MRA: the answer to a REQ or REP may take 4.096 µs × 2^`serviceTimeout`. */
  delay(connection: CmConnection, serviceTimeout: number, privateData?: Uint8Array): void {
    this.#machine.requireAllowed(connection, 'MRA')
    this.#machine.sendReply(connection, messages.mra(connection, serviceTimeout, privateData))
    this.#machine.applyCommand(connection, 'MRA')
  }

  /** Sends the MRA of `delay` only when the peer repeats its message (Linux: IB_CM_MRA_FLAG_DELAY). */
  delayOnDuplicate(connection: CmConnection, serviceTimeout: number): void {
    this.#machine.requireAllowed(connection, 'MRA')
    connection.serviceTimeout = serviceTimeout
    this.#machine.applyCommand(connection, 'MRA')
  }

  /** Ends the connection with a REJ. */
  reject(connection: CmConnection, rejection: messages.CmRejection, now: number): void {
    this.#machine.requireAllowed(connection, 'REJ')
    this.#machine.sendRej(connection, rejection)
    this.#machine.applyCommand(connection, 'REJ')
    if (connection.state === 'TIMEWAIT') this.#machine.enterTimewait(connection, now)
    else this.#machine.stopRetries(connection)
  }

  /** Ends the connection with a DREQ. */
  disconnect(connection: CmConnection, now: number, privateData?: Uint8Array): void {
    this.#machine.disconnect(connection, now, privateData)
  }

  /** Answers a DREQ with a DREP. */
  confirmDisconnect(connection: CmConnection, now: number, privateData?: Uint8Array): void {
    this.#machine.requireAllowed(connection, 'DREP')
    this.#machine.sendReply(connection, messages.drep(connection, privateData))
    this.#machine.applyCommand(connection, 'DREP')
    this.#machine.enterTimewait(connection, now)
  }

  /** Data has arrived before the peer's RTU: establishes the connection (Linux: ib_cm_notify with COMM_EST). */
  establish(connection: CmConnection): void {
    this.#machine.requireAllowed(connection, 'ESTABLISH')
    this.#machine.applyCommand(connection, 'ESTABLISH')
    this.#machine.stopRetries(connection)
    this.#machine.events.push({ name: 'USER_ESTABLISHED', connection })
  }

  /** Sends a SIDR_REQ: resolves a service id to a queue pair. */
  resolve(connection: CmConnection, request: SidrRequest, now: number): void {
    this.#machine.requireAllowed(connection, 'SIDR_REQ')
    const { path, serviceId, privateData } = request
    const tid = this.#machine.beginRequest(connection)
    const ids = { tid, requestId: connection.localId, pkey: path.pkey, serviceId }
    const bytes = emitCm({ name: 'SIDR_REQ', ...ids, ...(privateData && { privateData }) })
    connection.path = path
    connection.tid = tid
    connection.serviceId = serviceId
    connection.answerTimeout = fromExponent(request.responseTimeout)
    connection.maxCmRetries = request.maxCmRetries
    this.#machine.applyCommand(connection, 'SIDR_REQ')
    this.#machine.awaitAnswer(connection, 'SIDR_REQ', bytes, now)
  }

  /** Answers a SIDR_REQ with a SIDR_REP, and removes the request. */
  replyToResolve(connection: CmConnection, reply: messages.SidrReply): void {
    this.#machine.requireAllowed(connection, 'SIDR_REP')
    this.#machine.send(connection, messages.sidrRep(connection, reply))
    this.#machine.remove(connection)
  }

  /**
   * Destroys a connection: sends the message of the state's rule, and enters TIMEWAIT or removes the connection. An
   * established XRC target is removed without a message, as on Linux: other processes may use the queue pair, and the
   * initiator ends the connection.
   */
  destroy(connection: CmConnection, now: number): void {
    if (connection.isDestroyed) return
    connection.isDestroyed = true
    const isUsedByOthers = connection.isXrcTarget && connection.state === 'ESTABLISHED'
    const rule = isUsedByOthers ? undefined : cmStates[connection.state].destroy
    switch (rule?.send) {
      case 'REJ': {
        const reason = rejReason[rule.reason ?? 'CONSUMER_DEFINED']
        this.#machine.sendRej(connection, { reason })
        break
      }
      case 'DREQ':
        connection.tid = this.#machine.transactionId(connection)
        this.#machine.send(connection, messages.dreq(connection))
        break
      case 'DREP':
        this.#machine.sendReply(connection, messages.drep(connection))
        break
      case 'SIDR_REP':
        this.#machine.send(connection, messages.sidrRep(connection, { status: sidrStatus.REJECT }))
    }
    if (rule?.timewait) this.#machine.enterTimewait(connection, now)
    else if (connection.state !== 'TIMEWAIT') this.#machine.remove(connection)
  }

  /**
   * Drops a received request that the consumer cannot accept now. There is no answer, and the peer repeats the request.
   * Throws CmError if the connection is not a received request.
   */
  drop(connection: CmConnection): void {
    if (connection.state !== 'REQ_RCVD' && connection.state !== 'SIDR_REQ_RCVD') {
      throw new CmError(because`a connection in ${connection.state} cannot be dropped: destroy it`)
    }
    this.#machine.remove(connection)
  }

  /** Removes the connections of a removed device, without messages. */
  removeDevice(device: number): void {
    for (const connection of this.#machine.registry.ofDevice(device)) this.#machine.remove(connection)
  }

  // ---- inputs ----

  /** Handles a datagram received by queue pair 1. `from`: as for `receive` in receive.ts. */
  onMad(mad: Uint8Array, from: CmPath, now: number): void {
    receive(this.#machine, mad, from, now)
  }

  /**
   * Retransmits unanswered messages; if no retries are left, ends the wait. Also ends TIMEWAIT. Handles at most MAX_DUE
   * timers; the next call handles the others.
   */
  onTimeout(now: number): void {
    for (let remaining = MAX_DUE; remaining > 0; remaining--) {
      const connection = this.#machine.timers.take(now)
      if (connection === undefined) return
      const { pending, state } = connection
      if (pending !== undefined && this.#machine.repeat(connection, pending, now)) continue
      const step = cmStates[state].timeout
      if (step === undefined) continue
      if (step.send === 'REJ') this.#machine.sendRej(connection, { reason: rejReason.TIMEOUT })
      this.#machine.applyStep(connection, step, undefined, now)
    }
  }
}
