/*
 * Targets of DC: each connection of an initiator has a responder, a row of the engine of the service RC with a number
 * of its own, that takes receives of the target's SRQ and completes to the target's CQ. Responders are made by CONNECT
 * and end with DISCONNECT, with the target, or when their initiator is silent. A CONNECT without the access key leaves
 * nothing.
 */

import type { Context } from '../../../core/model.ts'
import { PeerTable } from '../../../core/objects/peer-table.ts'
import { QpState } from '../../../spec/enums.ts'
import { CallError } from '../../../spec/errno.ts'
import { Service } from '../../../spec/wire/services.ts'
import { flowsOfPeers } from '../../../transport/phy/port.ts'
import { ECN_MASK } from '../../../transport/wire/flow.ts'
import { isRoceV1 } from '../../../transport/wire/lrh.ts'
import { storedAddress } from '../../soft/address/path.ts'
import { forgetFailing } from '../../soft/completions.ts'
import { emptySendQueue } from '../../soft/queues.ts'
import { noPsns, type QpObject, type QueuePair, type SoftState } from '../../soft/state.ts'
import { Limits } from '../attributes.ts'
import type { CompletedQueues } from '../completions.ts'
import { DC_MAX_CONNECTIONS, DcStatus, DcTime } from './answers.ts'
import { type Answer, DcOpcode, type Outbox, type Path, type Request } from './messages.ts'

const { INIT, RTR, RTS, ERR } = QpState.values

/** Bytes that a connection costs the target's account, with a flow of its own. */
const CONNECTION_BYTES = 2048

/** A target. `recvPd`: of its SRQ's memory; `recvCq`: number of its CQ. */
interface Target {
  readonly object: QpObject
  readonly keyHi: number
  readonly keyLo: number
  readonly uidx: number
  readonly pd: number
  readonly recvPd: number
  readonly recvCq: number
  readonly connections: Map<string, Connection>
  /** Number of CONNECTs without the access key, and who is told of the next one. */
  violations: number
  onViolation: (() => void) | undefined
}

interface Connection {
  readonly target: Target
  /** In `Target.connections`. */
  readonly key: string
  readonly number: number
  readonly responder: QueuePair
  /** When a CONNECT or KEEP has come last. */
  heardAt: number
}

/** An initiator, as it is known to a target. */
const keyOf = ({ initiatorQpn, replyQpn }: Request, { source }: Path): string =>
  `${initiatorQpn} ${replyQpn} ${String.fromCharCode(...source)}`

export class Targets {
  readonly #soft: SoftState
  readonly #outbox: Outbox
  readonly #byNumber = new Map<number, Target>()
  /** By QPN of the responder: what its completions say. */
  readonly #responders = new Map<number, CompletedQueues>()
  /** The connections of all targets. */
  readonly table: PeerTable
  #nextReap = Number.POSITIVE_INFINITY

  constructor(soft: SoftState, outbox: Outbox) {
    this.#soft = soft
    this.table = new PeerTable(
      'connections of DC targets',
      Math.min(DC_MAX_CONNECTIONS.device, flowsOfPeers(soft.port)),
      CONNECTION_BYTES,
    )
    this.#outbox = outbox
  }

  add(target: Target): void {
    this.#byNumber.set(target.object.state.qpn, target)
  }

  /** The target is destroyed. */
  remove(qpn: number): void {
    const target = this.#byNumber.get(qpn)
    this.#byNumber.delete(qpn)
    if (target !== undefined) this.#endAll(target)
  }

  /** The context closes: its targets do not respond any more. */
  endConnectionsOf(context: Context): void {
    for (const target of this.#byNumber.values()) if (target.object.context === context) this.#endAll(target)
  }

  #endAll({ connections }: Target): void {
    for (const connection of [...connections.values()]) {
      this.#soft.sendResponses(connection.responder.row)
      this.#end(connection)
    }
  }

  targetOf(qpn: number): Target | undefined {
    return this.#byNumber.get(qpn)
  }

  objectOf(qpn: number): QpObject | undefined {
    return this.#byNumber.get(qpn)?.object
  }

  completedOf(responderQpn: number): CompletedQueues | undefined {
    return this.#responders.get(responderQpn)
  }

  onRequest(request: Request, from: Path, now: number): void {
    const target = this.#byNumber.get(request.destQpn)
    if (target === undefined || this.#soft.engine().stateOf(target.object.state.row) !== RTR) return
    const key = keyOf(request, from)
    const known = target.connections.get(key)
    const isKey = request.keyHi === target.keyHi && request.keyLo === target.keyLo
    if (request.opcode !== DcOpcode.CONNECT) {
      if (known?.number !== request.connection || !isKey) return
      if (request.opcode === DcOpcode.DISCONNECT) this.#end(known)
      else known.heardAt = now
      return
    }
    if (!isKey) {
      target.violations = (target.violations + 1) >>> 0
      const { onViolation } = target
      target.onViolation = undefined
      onViolation?.()
      this.#refuse(request, from, DcStatus.ACCESS_KEY)
      return
    }
    if (known !== undefined && known.number === request.connection) {
      // the answer was lost
      known.heardAt = now
      this.#accept(request, known)
      return
    }
    // a late copy of an earlier CONNECT
    if (known !== undefined && ((request.connection - known.number) | 0) < 0) return
    if (known !== undefined) this.#end(known)
    const connection = this.#connect(target, key, request, from, now)
    if (connection === undefined) {
      this.#refuse(request, from, DcStatus.BUSY)
      return
    }
    target.connections.set(key, connection)
    this.#accept(request, connection)
    this.#nextReap = Math.min(this.#nextReap, now + DcTime.REAP)
  }

  nextTimeout(): number {
    return this.#nextReap
  }

  /** Ends connections that have failed or whose initiators are silent. */
  onTimeout(now: number): void {
    if (now < this.#nextReap) return
    for (const { connections } of this.#byNumber.values())
      for (const connection of [...connections.values()]) {
        const hasFailed = this.#soft.engine().stateOf(connection.responder.row) === ERR
        if (hasFailed || now - connection.heardAt > DcTime.SILENCE) this.#end(connection)
      }
    this.#nextReap = this.#responders.size > 0 ? now + DcTime.REAP : Number.POSITIVE_INFINITY
  }

  /** A flow for answers; undefined if there is no path. */
  #openFlow(from: Path): number | undefined {
    const { paths, ecn } = this.#soft
    try {
      // the request may have been marked on its way
      return paths.openBack({ ...from, trafficClass: from.trafficClass & ~ECN_MASK }, 'DC', { ecn })
    } catch (error) {
      if (error instanceof CallError) return undefined
      throw error
    }
  }

  #answer(request: Request, flow: number, status: number, responderQpn: number): void {
    const { replyQpn, connection, psn, initiatorQpn } = request
    const answer: Answer = {
      opcode: DcOpcode.ANSWER,
      destQpn: replyQpn,
      connection,
      psn,
      initiatorQpn,
      status,
      responderQpn,
    }
    this.#outbox.add(answer, flow)
  }

  #accept(request: Request, { responder: { flow, qpn } }: Connection): void {
    this.#answer(request, flow, DcStatus.ACCEPTED, qpn)
  }

  #refuse(request: Request, from: Path, status: number): void {
    const flow = this.#openFlow(from)
    if (flow === undefined) return
    this.#answer(request, flow, status, 0)
    this.#soft.releasedFlows.push(flow)
  }

  /** Undefined if there is no room for another connection. */
  #connect(target: Target, key: string, request: Request, from: Path, now: number): Connection | undefined {
    const { object, pd, recvPd, recvCq, uidx } = target
    const soft = this.#soft
    const { context } = object
    if (target.connections.size >= DC_MAX_CONNECTIONS.target) return undefined
    if (!this.table.take({ context, qpn: object.state.qpn })) return undefined
    const flow = this.#openFlow(from)
    if (flow === undefined) {
      this.table.release(context?.account)
      return undefined
    }
    const engine = soft.engine()
    const { receive } = object.state
    const qpn = soft.qpns.take()
    const row = engine.create({
      service: Service.RC,
      qpn,
      pd,
      sendCq: recvCq,
      recvCq,
      maxSendSge: 0,
      maxRecvSge: receive.maxSge,
      hasSrq: true,
      recvPd,
      sqSigAll: false,
      owner: context?.account?.payer,
    })
    soft.qpns.bind(qpn, row)
    const { access, pathMtu, minRnrTimer, pkeyIndex } = engine.query(object.state.row)
    engine.modify(row, INIT, { access, pkeyIndex })
    engine.modify(row, RTR, {
      destQpn: request.initiatorQpn,
      rqPsn: request.psn,
      pathMtu,
      minRnrTimer,
      maxDestRdAtomic: Limits.maxRdAtomic,
      flow,
      peer: soft.port.peerOf(from.source, isRoceV1(from)),
    })
    engine.modify(row, RTS, {})
    const responder: QueuePair = {
      row,
      qpn,
      send: emptySendQueue,
      receive,
      destinations: undefined,
      attributeBits: 0,
      address: storedAddress(soft, soft.paths.back(from)),
      firstPsns: noPsns,
      heldGid: -1,
      flow,
    }
    soft.qps[row] = object
    soft.queues[row] = responder
    this.#responders.set(qpn, { uidx, qpn: object.state.qpn, opcodeOf: () => 0 })
    return { target, key, number: request.connection, responder, heardAt: now }
  }

  #end(connection: Connection): void {
    const { target, key, responder } = connection
    const { row, qpn, flow } = responder
    const soft = this.#soft
    target.connections.delete(key)
    this.#responders.delete(qpn)
    if (this.#responders.size === 0) this.#nextReap = Number.POSITIVE_INFINITY
    soft.engine().destroy(row)
    soft.qps[row] = undefined
    soft.queues[row] = undefined
    soft.failures.forget(row)
    soft.inError.delete(qpn)
    forgetFailing(soft, qpn)
    soft.qpns.free(qpn)
    soft.releasedFlows.push(flow)
    this.table.release(target.object.context?.account)
  }
}
