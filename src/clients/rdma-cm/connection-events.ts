/*
 * Handles the events of the connection manager (src/cm): creates identifiers for requests, and reports events to owners
 * of identifiers (Linux: cma_ib_handler, cma_ib_req_handler, cma_sidr_rep_handler).
 */
import type { CmConnection, CmPath } from '../../cm/connection.ts'
import type { CmEngine } from '../../cm/engine.ts'
import type { CmEvent } from '../../cm/machine.ts'
import { eceOf } from '../../cm/messages.ts'
import { CmEventType, QpType } from '../../spec/enums.ts'
import { Errno } from '../../spec/errno.ts'
import { rejReason, sidrStatus } from '../../spec/wire/mad.ts'
import { isMulticastGid } from '../../wire/address.ts'
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
import { anyAddress, Family, fromHeader, isAny, isLoopback, type SocketAddress } from './socket-address.ts'

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
  /** The identifier of a connection; undefined if the identifier was destroyed. */
  idOf(connection: CmConnection): Identifier | undefined
  /** The listener for a request to address `local` that arrived at `device` (`Listeners.find`). */
  listenerFor(request: CmConnection, local: SocketAddress, device: CmDevice): Identifier | undefined
  /** As `Listeners.findIb`. */
  ibListener(serviceId: bigint, gid: Uint8Array, device: CmDevice | undefined): Identifier | undefined
  /** Attaches `id`, the new identifier of a peer's request, to the request's connection. */
  attachRequest(id: Identifier, connection: CmConnection, device: CmDevice): void
}

interface Addresses {
  readonly peer: SocketAddress
  readonly local: SocketAddress
}

/**
 * As in Linux (validate_net_dev), a request of another host is to an address of the device, and is not from a loopback
 * address, a group or the wildcard.
 */
const arePossible = ({ devices }: EventHost, { peer, local }: Addresses, { device, remoteGid }: CmPath): boolean =>
  devices.isOfHost(remoteGid) ||
  (devices.hasGid(device, local.address) && !isLoopback(peer) && !isMulticastGid(peer.address) && !isAny(peer))

/**
 * The addresses of a request. If a listener is bound by AF_IB, they are the GIDs of the path. Otherwise they are in
 * rdma_cm's header in the private data; undefined if the header is invalid.
 */
const addressesOf = (
  cm: EventHost,
  event: CmEvent,
  privateData: Uint8Array,
  ibListener: Identifier | undefined,
): Addresses | undefined => {
  const { path, serviceId } = event.connection
  if (ibListener?.source !== undefined)
    return {
      peer: { ...anyAddress(Family.IB), address: path.remoteGid },
      local: { ...ibListener.source, address: path.localGid, serviceId },
    }
  const header = parseRdmaCmHeader(privateData)
  if (header === undefined) return undefined
  const { ipVersion, source, destination } = header
  const addresses = {
    peer: fromHeader(ipVersion, source, header.port),
    // The low 16 bits of a service id of rdma_cm are the port.
    local: fromHeader(ipVersion, destination, Number(serviceId & 0xffffn)),
  }
  return arePossible(cm, addresses, path) ? addresses : undefined
}

/** Service timeout of an MRA, an exponent: 4.096 µs · 2^24 is 69 s. Linux's CMA_CM_MRA_SETTING. */
const SERVICE_TIMEOUT = 24

/** Until the owner has answered a REQ or REP, the engine answers repetitions with an MRA. */
const answerRepeatsWithMra = ({ engine }: EventHost, connection: CmConnection): void => {
  if (connection.state === 'REQ_RCVD' || connection.state === 'REP_RCVD')
    engine.delayOnDuplicate(connection, SERVICE_TIMEOUT)
}

const eceDetails = (message: Message<'REQ'> | Message<'REP'>): Pick<EventDetails, 'ece'> => {
  const ece = eceOf(message)
  return ece === undefined ? {} : { ece }
}

/** Refuses a request with `reason` in a REJ, or with `status` in a SIDR_REP. */
const refuse = (cm: EventHost, { connection }: CmEvent, reason: number, status: number): void => {
  if (connection.state === 'SIDR_REQ_RCVD') cm.engine.replyToResolve(connection, { status })
  else {
    cm.engine.reject(connection, { reason }, cm.now())
    cm.engine.destroy(connection, cm.now())
  }
}

/** Whether a listener is for requests of this service. Linux: cma_ib_check_req_qp_type. */
const acceptsQpType = ({ qpType, transport }: Identifier, { connection }: CmEvent): boolean =>
  connection.state === 'SIDR_REQ_RCVD' ? qpType === QpType.values.UD : transport === connection.agreed.transport

const onRequest = (cm: EventHost, event: CmEvent, message: Request): void => {
  const { connection } = event
  const device = cm.devices.byNumber(connection.path.device)
  const addresses = addressesOf(
    cm,
    event,
    message.privateData,
    cm.ibListener(connection.serviceId, connection.path.localGid, device),
  )
  const listener = device && addresses && cm.listenerFor(connection, addresses.local, device)
  if (device === undefined || addresses === undefined || listener === undefined) {
    const reason = addresses === undefined ? rejReason.CONSUMER_DEFINED : rejReason.INVALID_SERVICE_ID
    refuse(cm, event, reason, sidrStatus.UNSUPPORTED)
    return
  }
  if (!acceptsQpType(listener, event)) {
    refuse(cm, event, rejReason.CONSUMER_DEFINED, sidrStatus.REJECT)
    return
  }
  // Beyond the backlog, or without room for an identifier, the request is dropped. The peer repeats it.
  const request = listener.unreadRequests.size < listener.backlog ? listener.owner.createRequest(listener) : undefined
  if (request === undefined) {
    cm.engine.drop(connection)
    return
  }
  request.source = addresses.local
  request.destination = addresses.peer
  cm.attachRequest(request, connection, device)
  listener.unreadRequests.add(request)
  request.listener = listener
  const dataOffset = headerBytes(request)
  listener.owner.event(
    CONNECT_REQUEST,
    message.name === 'REQ'
      ? { connection: requestParameters(message, dataOffset), ...eceDetails(message) }
      : { datagram: datagramData(message.privateData.subarray(dataOffset)) },
    request,
  )
  answerRepeatsWithMra(cm, connection)
}

const onSidrReply = (
  id: Identifier,
  { path }: CmConnection,
  { status, qpn, qkey, privateData }: Message<'SIDR_REP'>,
): void => {
  if (status !== sidrStatus.SUCCESS) {
    id.state = 'ROUTE_RESOLVED'
    id.owner.event(UNREACHABLE, { status, datagram: datagramData(privateData) })
    return
  }
  id.qkey = qkey
  // As in Linux, hop limit and service level of the request's path, which the program may have set.
  const { hopLimit, sl } = path
  const remote = { qpNum: qpn, qkey, privateData }
  const datagram = datagramParameters({ ...path, device: id.device }, path.remoteGid, remote)
  id.owner.event(ESTABLISHED, { datagram: { ...datagram, hopLimit, sl } })
}

/** Reports the end of a connection, once. */
const onDisconnected = (id: Identifier, details: EventDetails): void => {
  if (id.state !== 'CONNECT') return
  id.state = 'DISCONNECT'
  id.owner.event(DISCONNECTED, details)
}

/**
 * A message was rejected or not answered. If the connection is idle, the active side can send another request
 * (`connect` refuses the identifier of a peer's request).
 */
const onFailed = (id: Identifier, type: number, details: EventDetails): void => {
  if (id.state === 'CONNECT' && id.connection?.state === 'IDLE') id.state = 'ROUTE_RESOLVED'
  id.owner.event(type, details)
}

const onMessage = (cm: EventHost, id: Identifier, event: CmEvent): void => {
  const { message, connection } = event
  switch (message?.name) {
    case 'REP':
      id.owner.event(CONNECT_RESPONSE, { connection: replyParameters(message, connection), ...eceDetails(message) })
      answerRepeatsWithMra(cm, connection)
      break
    case 'RTU':
      // As in Linux, without the RTU's private data.
      id.owner.event(ESTABLISHED, {})
      break
    case 'REJ':
      onFailed(id, REJECTED, { status: message.reason, connection: connectionData(message.privateData) })
      break
    case 'DREQ':
    case 'DREP':
      onDisconnected(id, {})
      break
    case 'SIDR_REP':
      onSidrReply(id, connection, message)
  }
}

/** Handles one event of the engine. If the connection's identifier was destroyed, drops the event. */
export const handleEvent = (cm: EventHost, event: CmEvent): void => {
  const { name, connection, message } = event
  if (message?.name === 'REQ' || message?.name === 'SIDR_REQ') {
    onRequest(cm, event, message)
    return
  }
  const id = cm.idOf(connection)
  // As in Linux (cma_ib_handler): what comes after the end of a connection is dropped.
  if (id === undefined || (name !== 'TIMEWAIT_EXIT' && id.state !== 'CONNECT')) return
  switch (name) {
    case 'REQ_ERROR':
    case 'REP_ERROR':
    case 'SIDR_REQ_ERROR':
      onFailed(id, UNREACHABLE, TIMED_OUT)
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
