/*
 * A connection of InfiniBand's connection manager: the calls of rdma_cm as commands of the engine (Linux:
 * cma_connect_ib, cma_resolve_ib_udp, cma_accept_ib, cma_send_sidr_rep).
 */

import type { Connection, ConnectionEnd, ConnectionParameters, QpAttributes } from '../../core/driver-contract.ts'
import { QpType } from '../../spec/enums.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { because, the } from '../../spec/reason.ts'
import { privateDataBytes, sidrStatus } from '../../spec/wire/mad.ts'
import type { CmConnection, CmTransport } from '../cm-engine/connection.ts'
import type { CmEngine } from '../cm-engine/engine.ts'
import { CmError } from '../cm-engine/error.ts'
import { type IbPort, pathOf, serviceIdOf } from './path.ts'
import { privateDataOf, replyData, requestData } from './private-data.ts'
import { connectedAttributes } from './qp-attributes.ts'

/** Values of Linux's cma.c. Timeouts are exponents: 4.096 µs · 2^n. */
const RESPONSE_TIMEOUT = 20
/** How often the connection manager repeats a message. */
const MAX_RETRIES = 15
/** The maximum of retry_cnt and rnr_retry. */
const MAX_QP_RETRIES = 7
/** QPNs have 24 bits. */
const QPN_MASK = 0xff_ffff

/** By ibv_qp_type. */
const transports: Readonly<Record<number, CmTransport>> = {
  [QpType.values.RC]: 'RC',
  [QpType.values.UC]: 'UC',
  [QpType.values.XRC_INI]: 'XRC',
  [QpType.values.XRC_TGT]: 'XRC',
}

/** The connection manager, as its connections use it. */
export interface ConnectionHost {
  readonly engine: CmEngine
  /** Microseconds. */
  now(): number
  /** Sends the engine's messages and reports its events. */
  flush(): void
  /** Drops later events of the connection. */
  release(connection: IbConnection): void
}

export class IbConnection implements Connection {
  readonly port: IbPort
  readonly cm: CmConnection
  readonly #host: ConnectionHost
  /** Set before the first call. */
  #end: ConnectionEnd | undefined

  constructor(host: ConnectionHost, port: IbPort, cm: CmConnection) {
    this.#host = host
    this.port = port
    this.cm = cm
  }

  /** The identifier. Throws an Error for a request that has none. */
  get end(): ConnectionEnd {
    if (this.#end === undefined) throw new Error('a connection without an identifier')
    return this.#end
  }

  set end(end: ConnectionEnd) {
    this.#end = end
  }

  get isIdle(): boolean {
    return this.cm.state === 'IDLE'
  }

  /** Sends a REQ, or a SIDR_REQ for datagrams. After a rejection, the connection can send another one. */
  connect(parameters: ConnectionParameters): void {
    this.#run((end, now) => {
      const common = {
        path: pathOf(this.port, end),
        serviceId: serviceIdOf(end, end.destination),
        privateData: requestData(end, privateDataOf(parameters)),
        maxCmRetries: MAX_RETRIES,
      }
      if (isDatagram(end)) this.#host.engine.resolve(this.cm, { responseTimeout: RESPONSE_TIMEOUT, ...common }, now)
      else
        this.#host.engine.connect(
          this.cm,
          {
            transport: transports[end.qpType] ?? 'RC',
            ...offerOf(end, parameters),
            ...common,
            retryCount: Math.min(MAX_QP_RETRIES, parameters.retryCount),
            remoteResponseTimeout: RESPONSE_TIMEOUT,
            localResponseTimeout: RESPONSE_TIMEOUT,
          },
          now,
        )
    })
  }

  /** Sends a REP or SIDR_REP. */
  accept(parameters: ConnectionParameters): void {
    this.#run((end, now) => {
      const { engine } = this.#host
      const { qkey } = end
      const data = privateDataOf(parameters)
      if (isDatagram(end))
        engine.replyToResolve(this.cm, {
          status: sidrStatus.SUCCESS,
          qpn: parameters.qpNum & QPN_MASK,
          qkey,
          privateData: replyData(data, privateDataBytes.SIDR_REP, 'cm_id.accept'),
        })
      else {
        const privateData = replyData(data, privateDataBytes.REP, 'cm_id.accept')
        engine.reply(this.cm, { privateData, ...offerOf(end, parameters) }, now)
      }
    })
  }

  /** Sends an RTU. */
  confirm(): void {
    this.#run(() => this.#host.engine.ready(this.cm))
  }

  /** Sends a REJ or SIDR_REP. */
  reject(privateData: Uint8Array, reason: number): void {
    this.#run((end, now) => {
      const { engine } = this.#host
      if (isDatagram(end))
        engine.replyToResolve(this.cm, {
          status: sidrStatus.REJECT,
          privateData: replyData(privateData, privateDataBytes.SIDR_REP, 'cm_id.reject'),
        })
      else
        engine.reject(
          this.cm,
          { reason, privateData: replyData(privateData, privateDataBytes.REJ, 'cm_id.reject') },
          now,
        )
    })
  }

  /** Sends a DREQ, or answers the peer's DREQ. */
  disconnect(): void {
    this.#run((_end, now) => {
      if (this.cm.state === 'DREQ_RCVD') this.#host.engine.confirmDisconnect(this.cm, now)
      else if (this.cm.state === 'ESTABLISHED') this.#host.engine.disconnect(this.cm, now)
    })
  }

  establish(): void {
    if (this.cm.state === 'ESTABLISHED')
      throw callError.EISCONN`${the.method('cm_id.notify')}: the connection is established already`
    this.#run(() => this.#host.engine.establish(this.cm))
  }

  queuePairAttributes(state: number): Omit<QpAttributes, 'state'> {
    return connectedAttributes(this, state)
  }

  destroy(): void {
    this.#host.release(this)
    this.#host.engine.destroy(this.cm, this.#host.now())
    this.#host.flush()
  }

  /** Refuses a request for which there is no identifier, with `reason` in a REJ or `status` in a SIDR_REP. */
  refuse(reason: number, status: number): void {
    const { engine } = this.#host
    if (this.cm.state === 'SIDR_REQ_RCVD') engine.replyToResolve(this.cm, { status })
    else {
      engine.reject(this.cm, { reason }, this.#host.now())
      engine.destroy(this.cm, this.#host.now())
    }
  }

  /** Runs a command. Converts a CmError or RangeError, which is a mistake of the program. */
  #run(command: (end: ConnectionEnd, now: number) => void): void {
    try {
      command(this.end, this.#host.now())
    } catch (error) {
      if (error instanceof CmError) throw new CallError(error.code, because`cm_id: ${error.reason}`)
      throw error instanceof RangeError ? callError.EINVAL`cm_id: ${error.message}` : error
    }
    this.#host.flush()
  }
}

const isDatagram = ({ qpType }: ConnectionEnd): boolean => qpType === QpType.values.UD

/** The fields of a REQ or REP about this end's queue pair. */
const offerOf = ({ startingPsn, ece }: ConnectionEnd, parameters: ConnectionParameters) => ({
  ece,
  qpn: parameters.qpNum & QPN_MASK,
  startingPsn,
  responderResources: parameters.responderResources,
  initiatorDepth: parameters.initiatorDepth,
  flowControl: parameters.flowControl !== 0,
  rnrRetryCount: Math.min(MAX_QP_RETRIES, parameters.rnrRetryCount),
  srq: parameters.srq !== 0,
})
