/*
 * Handles the events of the connection manager (src/services/cm-engine): finds listeners for requests, and reports
 * events to identifiers (Linux: cma_ib_handler, cma_ib_req_handler, cma_sidr_rep_handler).
 */

import type {
  ConnectionEnd,
  ConnectionNews,
  ConnectionParameters,
  PeerRequest,
  Refusal,
} from '../../core/driver-contract.ts'
import { CmEventType, QpType } from '../../spec/enums.ts'
import { Errno } from '../../spec/errno.ts'
import { rejReason, sidrStatus } from '../../spec/wire/mad.ts'
import { type CmMessage, parseRdmaCmHeader } from '../../transport/wire/mad/mad.ts'
import type { CmConnection } from '../cm-engine/connection.ts'
import type { CmEvent } from '../cm-engine/machine.ts'
import { eceOf } from '../cm-engine/messages.ts'
import { anyAddress, Family, fromHeader } from '../socket-address.ts'
import { type ConnectionHost, IbConnection } from './connection.ts'
import type { IbPort } from './path.ts'
import { headerBytes } from './private-data.ts'
import { addressOf } from './qp-attributes.ts'

const { CONNECT_REQUEST, CONNECT_RESPONSE, UNREACHABLE, REJECTED, ESTABLISHED, DISCONNECTED, TIMEWAIT_EXIT } =
  CmEventType.values
const { RC, UC, UD, XRC_TGT } = QpType.values

type Message<N extends CmMessage['name']> = Extract<CmMessage, { name: N }>
type Request = Message<'REQ'> | Message<'SIDR_REQ'>

const TIMED_OUT: ConnectionNews = { status: -Errno.ETIMEDOUT }

/** The connection manager, as the handling of events uses it. */
export interface EventHost extends ConnectionHost {
  portOf(number: number): IbPort | undefined
  /**
   * Any listener that is bound by AF_IB to this GID or a wildcard. If there is one, requests to the GID have no rdma_cm
   * header, and their addresses are the GIDs of the path.
   */
  ibListener(serviceId: bigint, gid: Uint8Array, port: IbPort): ConnectionEnd | undefined
  /** Undefined if the identifier was destroyed. */
  connectionOf(cm: CmConnection): IbConnection | undefined
  /** Events of the connection are reported to `end` from now on. */
  bind(connection: IbConnection, end: ConnectionEnd): void
}

/** By `CmTransport`: of the passive side. */
const qpTypes = { RC, UC, XRC: XRC_TGT } as const

/**
 * The answer to a request that is refused: `reason` of a REJ, `status` of a SIDR_REP. BUSY has none: the peer repeats.
 */
const refusals: Readonly<Record<Exclude<Refusal, 'BUSY'>, { readonly reason: number; readonly status: number }>> = {
  NO_LISTENER: { reason: rejReason.INVALID_SERVICE_ID, status: sidrStatus.UNSUPPORTED },
  WRONG_ADDRESS: { reason: rejReason.CONSUMER_DEFINED, status: sidrStatus.UNSUPPORTED },
  WRONG_TYPE: { reason: rejReason.CONSUMER_DEFINED, status: sidrStatus.REJECT },
}

/**
 * The addresses of a request. If a listener is bound by AF_IB, they are the GIDs of the path. Otherwise they are in
 * rdma_cm's header in the private data; undefined if the header is invalid.
 */
const addressesOf = (
  cm: EventHost,
  port: IbPort,
  { serviceId, path }: CmConnection,
  privateData: Uint8Array,
): Pick<PeerRequest, 'peer' | 'local'> | undefined => {
  const { source } = cm.ibListener(serviceId, path.localGid, port) ?? {}
  if (source !== undefined)
    return {
      peer: { ...anyAddress(Family.IB), address: path.remoteGid },
      local: { ...source, address: path.localGid, serviceId },
    }
  const header = parseRdmaCmHeader(privateData)
  return (
    header && {
      peer: fromHeader(header.ipVersion, header.source, header.port),
      // The low 16 bits of a service id of rdma_cm are the port.
      local: fromHeader(header.ipVersion, header.destination, Number(serviceId & 0xffffn)),
    }
  )
}

/** Service timeout of an MRA, an exponent: 4.096 µs · 2^24 is 69 s. Linux's CMA_CM_MRA_SETTING. */
const SERVICE_TIMEOUT = 24

/** Until the owner has answered a REQ or REP, the engine answers repetitions with an MRA. */
const answerRepeatsWithMra = ({ engine }: EventHost, connection: CmConnection): void => {
  if (connection.state === 'REQ_RCVD' || connection.state === 'REP_RCVD')
    engine.delayOnDuplicate(connection, SERVICE_TIMEOUT)
}

const eceNews = (message: Message<'REQ'> | Message<'REP'>): Pick<ConnectionNews, 'ece'> => {
  const ece = eceOf(message)
  return ece === undefined ? {} : { ece }
}

/**
 * What a REQ or REP says of the peer. Its initiator depth limits this end's responder resources, and the reverse. So
 * the two fields are swapped.
 */
const offerIn = (message: Message<'REQ'> | Message<'REP'>, qpNum: number): Partial<ConnectionParameters> => ({
  qpNum,
  responderResources: message.initiatorDepth,
  initiatorDepth: message.responderResources,
  flowControl: message.flowControl ? 1 : 0,
  rnrRetryCount: message.rnrRetryCount,
  srq: message.srq ? 1 : 0,
})

const onRequest = (cm: EventHost, connection: CmConnection, message: Request): void => {
  const { serviceId, path } = connection
  const port = cm.portOf(path.device)
  if (port === undefined) return
  const ibConnection = new IbConnection(cm, port, connection)
  const addresses = addressesOf(cm, port, connection, message.privateData)
  const end =
    addresses === undefined
      ? 'WRONG_ADDRESS'
      : port.listeners.request(
          {
            portSpace: Number(serviceId >> 16n),
            ...addresses,
            qpType: message.name === 'REQ' ? qpTypes[connection.agreed.transport] : UD,
            path,
          },
          ibConnection,
        )
  if (end === 'BUSY') cm.engine.drop(connection)
  else if (typeof end === 'string') ibConnection.refuse(refusals[end].reason, refusals[end].status)
  else {
    cm.bind(ibConnection, end)
    const privateData = message.privateData.subarray(headerBytes(end.source))
    end.report(
      CONNECT_REQUEST,
      message.name === 'REQ'
        ? {
            privateData,
            connection: { retryCount: message.retryCount, ...offerIn(message, message.qpn) },
            ...eceNews(message),
          }
        : { privateData },
    )
    answerRepeatsWithMra(cm, connection)
  }
}

const onSidrReply = (
  { end, port, cm: { path } }: IbConnection,
  { status, qpn, qkey, privateData }: Message<'SIDR_REP'>,
): void => {
  if (status !== sidrStatus.SUCCESS) end.report(UNREACHABLE, { status, privateData })
  else {
    // As in Linux, hop limit and service level of the request's path, which the program may have set.
    const { sgidIndex, ...address } = addressOf(port, path)
    const dlid = path.lids?.remote ?? 0
    const datagram = { ...address, sgidIndex: Math.max(0, sgidIndex), dlid, qpNum: qpn, qkey }
    end.report(ESTABLISHED, { privateData, datagram })
  }
}

const onMessage = (cm: EventHost, connection: IbConnection, message: CmMessage | undefined): void => {
  const { end } = connection
  switch (message?.name) {
    case 'REP': {
      const { privateData } = message
      // Which field of a REP has the QPN depends on the transport.
      const news = { privateData, connection: offerIn(message, connection.cm.agreed.remoteQpn), ...eceNews(message) }
      if (end.report(CONNECT_RESPONSE, news)) answerRepeatsWithMra(cm, connection.cm)
      break
    }
    case 'RTU':
      // As in Linux, without the RTU's private data.
      end.report(ESTABLISHED)
      break
    case 'REJ':
      end.report(REJECTED, { status: message.reason, privateData: message.privateData })
      break
    case 'DREQ':
    case 'DREP':
      end.report(DISCONNECTED)
      break
    case 'SIDR_REP':
      onSidrReply(connection, message)
  }
}

/** Handles one event of the engine. If the connection's identifier was destroyed, drops the event. */
export const handleEvent = (cm: EventHost, { name, connection, message }: CmEvent): void => {
  if (message?.name === 'REQ' || message?.name === 'SIDR_REQ') {
    onRequest(cm, connection, message)
    return
  }
  const found = cm.connectionOf(connection)
  if (found === undefined) return
  const { end } = found
  switch (name) {
    case 'REQ_ERROR':
    case 'REP_ERROR':
    case 'SIDR_REQ_ERROR':
      end.report(UNREACHABLE, TIMED_OUT)
      break
    case 'DREQ_ERROR':
      end.report(DISCONNECTED, TIMED_OUT)
      break
    case 'USER_ESTABLISHED':
      end.report(ESTABLISHED)
      break
    case 'TIMEWAIT_EXIT':
      end.report(TIMEWAIT_EXIT)
      break
    default:
      onMessage(cm, found, message)
  }
}
