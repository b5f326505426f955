/*
 * An identifier of rdma_cm (struct rdma_cm_id).
 */
import type {
  Connection,
  ConnectionEnd,
  ConnectionNews,
  ConnectionParameters,
  ConnectionProtocol,
  Ece,
} from '../../core/driver-contract.ts'
import type { CoreObject, Device } from '../../core/model.ts'
import type { SocketAddress } from '../../spec/classes/connections/cm_parameters.ts'
import { CmEventType, QpType } from '../../spec/enums.ts'
import { type EventDetails, eventDetails } from './parameters.ts'
import type { PortHolder } from './ports.ts'

const { CONNECT_REQUEST, UNREACHABLE, REJECTED, ESTABLISHED, DISCONNECTED, TIMEWAIT_EXIT } = CmEventType.values

/** Linux's enum rdma_cm_state, without states of operations that end immediately here, such as ADDR_QUERY. */
export type IdState =
  | 'IDLE'
  | 'ADDR_BOUND'
  | 'ADDR_RESOLVED'
  | 'ROUTE_QUERY'
  | 'ROUTE_RESOLVED'
  | 'CONNECT'
  | 'DISCONNECT'
  | 'LISTEN'
  | 'DEVICE_REMOVAL'

export interface CmDevice {
  readonly device: Device
  readonly protocol: ConnectionProtocol
}

/** The next hop of a path. */
export interface Neighbour {
  /** Undefined until the system has resolved it. */
  mac: string | undefined
}

/** An event with which a fault rule fails a call on an identifier. */
interface InjectedEvent {
  /** CmEventType. */
  readonly type: number
  /** Tells of it. */
  readonly report: () => void
}

/** The owner of an identifier: a program by its channel, or code in this process. */
export interface IdOwner {
  /** `type`: CmEventType. `request`: the new identifier of a CONNECT_REQUEST. */
  event(type: number, details: EventDetails, request?: Identifier): void
  /** Creates an identifier for a peer's request; undefined if that fails. */
  createRequest(template: { readonly portSpace: number; readonly qpType: number }): Identifier | undefined
  /** Called when the identifier is destroyed. No events follow. */
  destroyed?(): void
}

export class Identifier implements PortHolder, ConnectionEnd {
  owner: IdOwner
  /** CmPortSpace. */
  portSpace: number
  /** ibv_qp_type (`QpType`). */
  readonly qpType: number
  state: IdState = 'IDLE'
  source: SocketAddress | undefined
  destination: SocketAddress | undefined
  device: CmDevice | undefined
  /** If set, the only device that the identifier may use. */
  readonly onlyDevice: CmDevice | undefined
  /** 16 bytes; set with the device. */
  localGid: Uint8Array | undefined
  /** The index of the local GID in the device's table, which the identifier holds (`holdGid`); -1: none. */
  heldGid = -1
  /** 16 bytes; set when the peer is known. */
  remoteGid: Uint8Array | undefined
  /** Of an AF_IB address, on InfiniBand. */
  pkey: number | undefined
  flowLabel = 0
  /** The device's MAC when the identifier was bound, to detect a change (ADDR_CHANGE); undefined if it was unknown. */
  mac: string | undefined
  /** The next hop when the route was resolved; undefined if the system reports no MACs. */
  neighbour: Neighbour | undefined
  /**
   * The path record that the program has set (RDMA_OPTION_IB_PATH) or the protocol has found; undefined: the addresses
   * are the path.
   */
  chosenPath: Uint8Array | undefined
  /** In ROUTE_QUERY: ends the query. */
  cancelQuery: (() => void) | undefined
  connection: Connection | undefined
  /** Of the connection, without datagrams; 0: none. */
  qpn = 0
  /** Of a listener: requests that its owner has not handled. */
  readonly unreadRequests = new Set<Identifier>()
  /** Maximum number of `unreadRequests`. */
  backlog = 0
  /** Of a request: its listener, until the listener's owner has handled the request. */
  listener: Identifier | undefined
  /** Whether this was created for a peer's request. */
  isRequest = false
  /** Whether this is a request that its owner has not accepted. */
  isUnaccepted = false
  /** Whether this is a request that its owner has rejected. */
  isRejected = false
  /** Whether an answer of the peer to the last request was delivered. */
  isAnswered = false
  /** The event that was delivered last: CmEventType, and its status as in `EventDetails`. */
  lastDelivered: { readonly type: number; readonly status: number } | undefined
  /** Likewise, that the program has read last. */
  lastRead: { readonly type: number; readonly status: number } | undefined
  /** Multicast memberships, which are destroyed with the identifier. */
  readonly memberships = new Set<CoreObject>()
  /** Number of events that the program has not read. */
  unreadEvents = 0
  /** Number of events of multicast memberships that the program has read, also of memberships that it has left. */
  readGroupEvents = 0
  /** RDMA_OPTION_ID_REUSEADDR. */
  reuseAddress = false
  /** RDMA_OPTION_ID_AFONLY. */
  onlyIpv6 = false
  /** RDMA_OPTION_ID_TOS, or of the path of a request; undefined: not set. */
  tos: number | undefined
  /** Options of enhanced connection establishment (rdma_set_local_ece). */
  ece: Ece | undefined
  /** Local ACK timeout, an exponent: 4.096 µs · 2^n. Undefined: that of the REQ or REP. */
  ackTimeout: number | undefined
  /** Of the resolved route or the peer's request, an exponent: 4.096 µs · 2^n. Undefined: PACKET_LIFE_TIME. */
  packetLifeTime: number | undefined
  qkey: number
  /** The first PSN that the peer sends. */
  readonly startingPsn: number
  /** Core's object of a program's identifier; undefined if the identifier belongs to code in this process. */
  object: CoreObject | undefined
  #injected: InjectedEvent | undefined

  constructor(
    owner: IdOwner,
    onlyDevice: CmDevice | undefined,
    portSpace: number,
    qpType: number,
    startingPsn: number,
    qkey: number,
  ) {
    this.owner = owner
    this.onlyDevice = onlyDevice
    this.portSpace = portSpace
    this.qpType = qpType
    this.startingPsn = startingPsn
    this.qkey = qkey
  }

  get trafficClass(): number {
    return this.tos ?? this.device?.device.taps.defaultTos?.() ?? 0
  }

  get isDatagram(): boolean {
    return this.qpType === QpType.values.UD
  }

  /** After `connect` and `accept`. */
  setQpn(parameters: ConnectionParameters | undefined): void {
    if (parameters !== undefined && !this.isDatagram) this.qpn = parameters.qpNum & 0xff_ffff
  }

  /** Whether a call of this method can lead to an event (a name of `CmEventType`) of the connection. */
  canFailBy(method: string, event: string): boolean {
    // The answer to a SIDR_REQ has no answer, and its refusal is UNREACHABLE.
    if (method === 'connect') return !this.isDatagram || event === 'UNREACHABLE'
    // The active side accepts a connection that exists.
    if (method === 'accept') return !this.isDatagram && (this.isRequest || event === 'DISCONNECTED')
    return true
  }

  /** Until `endCall`: how the call fails that begins now on the identifier, though it returns 0. */
  failCall(injected: InjectedEvent): void {
    this.#injected = injected
  }

  /** The event of `failCall` until it comes. */
  get injected(): InjectedEvent | undefined {
    return this.#injected
  }

  /** The call has ended, or its event comes. */
  endCall(): void {
    this.#injected = undefined
  }

  get isListening(): boolean {
    return this.state === 'LISTEN'
  }

  /** Call when the owner has read or handled this request: makes space in the listener's backlog. */
  removeFromBacklog(): void {
    this.listener?.unreadRequests.delete(this)
    this.listener = undefined
  }
  /** An event of the connection. As in Linux (cma_ib_handler), after the end of the connection it is dropped. */
  report(type: number, news: ConnectionNews = {}): boolean {
    const details = eventDetails(news, this.isDatagram)
    if (type === CONNECT_REQUEST) {
      this.listener?.owner.event(type, details, this)
      return true
    }
    // During a call after which the injected event comes.
    if (this.injected !== undefined) return false
    // TIMEWAIT_EXIT is not reported after a rejection.
    if (this.state !== (type === TIMEWAIT_EXIT ? 'DISCONNECT' : 'CONNECT')) return false
    if (type === DISCONNECTED) this.state = 'DISCONNECT'
    // The active side can send another request (`connect` refuses the identifier of a peer's request).
    if ((type === REJECTED || type === UNREACHABLE) && this.connection?.isIdle) this.state = 'ROUTE_RESOLVED'
    if (type === ESTABLISHED && details.datagram) this.qkey = details.datagram.qkey
    this.owner.event(type, details)
    return true
  }
}

/** The identifier of an object; undefined: it has none, or no more. */
export const identifierIn = (object: CoreObject | undefined): Identifier | undefined =>
  object?.state instanceof Identifier ? object.state : undefined
