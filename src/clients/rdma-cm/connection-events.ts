/*
 * Turns events of the connection manager into events of identifiers (cma_ib_handler, cma_ib_req_handler and
 * cma_sidr_rep_handler of Linux's cma.c).
 */
import type { CmConnection } from '../../cm/connection.ts'
import type { CmEngine } from '../../cm/engine.ts'
import type { CmEvent } from '../../cm/machine.ts'
import { eceOf } from '../../cm/messages.ts'
import { CmEventType, QpType } from '../../spec/enums.ts'
import { Errno } from '../../spec/errno.ts'
import { rejReason, sidrStatus } from '../../spec/wire/mad.ts'
import type { CmMessage } from '../../wire/mad/mad.ts'
import { parseRdmaCmHeader } from '../../wire/mad/mad.ts'
import type { CmDevices } from './devices.ts'
import type { CmDevice, EventDetails, Identifier } from './identifier.ts'
import {
  connectionData,
  datagramData,
  datagramParameters,
  headerBytes,
  replyParameters,
  requestParameters,
} from './parameters.ts'
import { Family, fromHeader, ipAddress, type SocketAddress } from './socket-address.ts'

const { CONNECT_REQUEST, CONNECT_RESPONSE, UNREACHABLE, REJECTED, ESTABLISHED, DISCONNECTED, TIMEWAIT_EXIT } =
  CmEventType.values

type Message<N extends CmMessage['name']> = Extract<CmMessage, { name: N }>
type Request = Message<'REQ'> | Message<'SIDR_REQ'>

const TIMED_OUT: EventDetails = { status: -Errno.ETIMEDOUT }

/** The part of rdma_cm that event handling uses. */
export interface EventHost {
  readonly engine: CmEngine
  readonly devices: CmDevices
  /** Microseconds. */
  now(): number
  /** Owner of a connection; undefined once it has none. */
  idOf(connection: CmConnection): Identifier | undefined
  /** The listener to a service at an address of a device. A specific address has precedence over the wildcard. */
  listenerFor(serviceId: bigint, local: SocketAddress, device: CmDevice): Identifier | undefined
  /** A listener to a service id bound by AF_IB: its requests have no rdma_cm header. */
  ibListener(serviceId: bigint, gid: Uint8Array): Identifier | undefined
  /** Attaches `id`, which was created for a peer's request, to its connection. */
  adopt(id: Identifier, connection: CmConnection, device: CmDevice): void
}

/** Addresses of a request: those of the header, or for AF_IB the GIDs of the path. */
const addressesOf = (
  event: CmEvent,
  privateData: Uint8Array,
  listener: Identifier | undefined,
): { readonly peer: SocketAddress; readonly local: SocketAddress } | undefined => {
  const { path, serviceId } = event.connection
  const port = Number(serviceId & 0xffffn)
  if (listener?.source?.family === Family.IB)
    return { peer: ipAddress(path.remoteGid, 0), local: { ...listener.source, address: path.localGid, serviceId } }
  const header = parseRdmaCmHeader(privateData)
  if (header === undefined) return undefined
  const { ipVersion, source, destination } = header
  return { peer: fromHeader(ipVersion, source, header.port), local: fromHeader(ipVersion, destination, port) }
}

/** Exponent: 69 s, as Linux's CMA_CM_MRA_SETTING. */
const SERVICE_TIMEOUT = 24

/** The owner has not answered a REQ or REP yet: if the peer repeats it, an MRA is sent. */
const awaitOwner = ({ engine }: EventHost, connection: CmConnection): void => {
  if (connection.state === 'REQ_RCVD' || connection.state === 'REP_RCVD')
    engine.delayOnDuplicate(connection, SERVICE_TIMEOUT)
}

const eceDetails = (message: Message<'REQ'> | Message<'REP'>): Pick<EventDetails, 'ece'> => {
  const ece = eceOf(message)
  return ece === undefined ? {} : { ece }
}

/** Refuses a request for which there is no listener. */
const refuse = (cm: EventHost, { connection }: CmEvent, reason: number, status: number): void => {
  if (connection.state === 'SIDR_REQ_RCVD') cm.engine.resolved(connection, { status })
  else {
    cm.engine.reject(connection, { reason }, cm.now())
    cm.engine.destroy(connection, cm.now())
  }
}

/** Whether a request is for the type of queue pair that the listener accepts (cma_ib_check_req_qp_type). */
const acceptsQpType = ({ qpType, transport }: Identifier, { connection }: CmEvent): boolean =>
  connection.state === 'SIDR_REQ_RCVD' ? qpType === QpType.values.UD : transport === connection.agreed.transport

const onRequest = (cm: EventHost, event: CmEvent, message: Request): void => {
  const { connection } = event
  const device = cm.devices.byNumber(connection.path.device)
  const addresses = addressesOf(
    event,
    message.privateData,
    cm.ibListener(connection.serviceId, connection.path.localGid),
  )
  const listener = device && addresses && cm.listenerFor(connection.serviceId, addresses.local, device)
  if (device === undefined || addresses === undefined || listener === undefined) {
    const reason = addresses === undefined ? rejReason.CONSUMER_DEFINED : rejReason.INVALID_SERVICE_ID
    refuse(cm, event, reason, sidrStatus.UNSUPPORTED)
    return
  }
  if (!acceptsQpType(listener, event)) {
    refuse(cm, event, rejReason.CONSUMER_DEFINED, sidrStatus.REJECT)
    return
  }
  // Dropped if the backlog is full: the peer repeats it, and there may be space then.
  const request = listener.unread.size < listener.backlog ? listener.owner.createRequest(listener) : undefined
  if (request === undefined) {
    cm.engine.drop(connection)
    return
  }
  request.source = addresses.local
  request.destination = addresses.peer
  request.trafficClass = listener.trafficClass
  request.ackTimeout = listener.ackTimeout
  request.minRnrTimer = listener.minRnrTimer
  cm.adopt(request, connection, device)
  listener.unread.add(request)
  request.listener = listener
  const at = headerBytes(request)
  listener.owner.event(
    CONNECT_REQUEST,
    message.name === 'REQ'
      ? { connection: requestParameters(message, at), ...eceDetails(message) }
      : {
          datagram: datagramParameters(request, connection.path.remoteGid, {
            qpNum: 0,
            qkey: 0,
            privateData: message.privateData.subarray(at),
          }),
        },
    request,
  )
  awaitOwner(cm, connection)
}

const onSidrReply = (id: Identifier, { status, qpn, qkey, privateData }: Message<'SIDR_REP'>): void => {
  if (status !== sidrStatus.SUCCESS || id.remoteGid === undefined) {
    id.state = 'ROUTE_RESOLVED'
    id.owner.event(UNREACHABLE, { status, datagram: datagramData(privateData) })
    return
  }
  id.qkey = qkey
  id.owner.event(ESTABLISHED, { datagram: datagramParameters(id, id.remoteGid, { qpNum: qpn, qkey, privateData }) })
}

/** The connection ends. Reported once. */
const onDisconnected = (id: Identifier, details: EventDetails): void => {
  if (id.state !== 'CONNECT') return
  id.state = 'DISCONNECT'
  id.owner.event(DISCONNECTED, details)
}

/** An identifier whose request failed can send another. */
const failed = (id: Identifier, type: number, details: EventDetails): void => {
  if (id.state === 'CONNECT' && id.connection?.state === 'IDLE') id.state = 'ROUTE_RESOLVED'
  id.owner.event(type, details)
}

const onMessage = (cm: EventHost, id: Identifier, event: CmEvent): void => {
  const { message, connection } = event
  switch (message?.name) {
    case 'REP':
      id.owner.event(CONNECT_RESPONSE, { connection: replyParameters(message, connection), ...eceDetails(message) })
      awaitOwner(cm, connection)
      break
    case 'RTU':
      // Without its private data, as in Linux's cma: that is how consumers distinguish the two sides.
      id.owner.event(ESTABLISHED, {})
      break
    case 'REJ':
      failed(id, REJECTED, { status: message.reason, connection: connectionData(message.privateData) })
      break
    case 'DREQ':
    case 'DREP':
      onDisconnected(id, {})
      break
    case 'SIDR_REP':
      onSidrReply(id, message)
  }
}

/** Handles one event of the engine. Events of connections without an owner are dropped. */
export const handleEvent = (cm: EventHost, event: CmEvent): void => {
  const { name, connection, message } = event
  if (message?.name === 'REQ' || message?.name === 'SIDR_REQ') {
    onRequest(cm, event, message)
    return
  }
  const id = cm.idOf(connection)
  if (id === undefined) return
  switch (name) {
    case 'REQ_ERROR':
    case 'REP_ERROR':
    case 'SIDR_REQ_ERROR':
      failed(id, UNREACHABLE, TIMED_OUT)
      break
    case 'DREQ_ERROR':
      onDisconnected(id, TIMED_OUT)
      break
    case 'USER_ESTABLISHED':
      id.owner.event(ESTABLISHED, {})
      break
    case 'TIMEWAIT_EXIT':
      // Not reported after a rejection (cma_ib_handler).
      if (id.state === 'DISCONNECT') id.owner.event(TIMEWAIT_EXIT, {})
      break
    default:
      onMessage(cm, id, event)
  }
}
