/*
 * An identifier of rdma_cm (struct rdma_cm_id).
 */
import type { CmConnection, CmPath, CmTransport } from '../../cm/connection.ts'
import type { CoreObject, Device } from '../../core/model.ts'
import type {
  CmConnectionParameters,
  CmDatagramParameters,
  CmEce,
} from '../../spec/classes/connections/cm_parameters.ts'
import { QpType } from '../../spec/enums.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'
import type { PortHolder } from './ports.ts'
import type { SocketAddress } from './socket-address.ts'

/** Linux's enum rdma_cm_state, without states of operations that end immediately here, such as ADDR_QUERY. */
export type IdState =
  | 'IDLE'
  | 'ADDR_BOUND'
  | 'ADDR_RESOLVED'
  | 'ROUTE_RESOLVED'
  | 'CONNECT'
  | 'DISCONNECT'
  | 'LISTEN'
  | 'DEVICE_REMOVAL'

export interface CmDevice {
  /** As in `CmPath.device`; never reused. */
  readonly number: number
  readonly device: Device
  /** The node GUID. */
  readonly caGuid: bigint
}

/** The next hop of a path. */
export interface Neighbour {
  /** Undefined until the system has resolved it. */
  mac: string | undefined
}

export type ConnectionParameters = RecordOf<typeof CmConnectionParameters>
export type DatagramParameters = RecordOf<typeof CmDatagramParameters>
export type Ece = RecordOf<typeof CmEce>

/** A path that the program has set (RDMA_OPTION_IB_PATH). */
export interface ChosenPath {
  readonly path: Omit<CmPath, 'device'>
  /** The path record, 64 bytes. */
  readonly record: Uint8Array
}

export interface EventDetails {
  /** 0, −errno, the reason of a REJ, or the status of a SIDR_REP. */
  readonly status?: number
  readonly connection?: ConnectionParameters
  readonly datagram?: DatagramParameters
  readonly ece?: Ece
  /** Of an event that the program has written (rdma_write_cm_event), 8 bytes. */
  readonly argument?: bigint
}

/** An event with which a fault rule fails a call on an identifier. */
export interface InjectedEvent {
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

/** By ibv_qp_type. */
const transports: Readonly<Record<number, CmTransport>> = {
  [QpType.values.RC]: 'RC',
  [QpType.values.UC]: 'UC',
  [QpType.values.XRC_INI]: 'XRC',
  [QpType.values.XRC_TGT]: 'XRC',
}

export class Identifier implements PortHolder {
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
  /** 16 bytes; set when the peer is known. */
  remoteGid: Uint8Array | undefined
  flowLabel = 0
  /** The device's MAC when the identifier was bound, to detect a change (ADDR_CHANGE); undefined if it was unknown. */
  mac: string | undefined
  /** The next hop when the route was resolved; undefined if the system reports no MACs. */
  neighbour: Neighbour | undefined
  /** The path that the program has set; undefined: the resolved path is used. */
  chosenPath: ChosenPath | undefined
  connection: CmConnection | undefined
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
  /** Multicast memberships, which are destroyed with the identifier. */
  readonly memberships = new Set<CoreObject>()
  /** Number of events that the program has not read. */
  unreadEvents = 0
  /** Number of events of multicast memberships that the program has read, also of memberships that it has left. */
  readGroupEvents = 0
  /** During a call on the identifier: how it fails, though it returns 0. */
  injected: InjectedEvent | undefined
  /** RDMA_OPTION_ID_REUSEADDR. */
  reuseAddress = false
  /** RDMA_OPTION_ID_AFONLY. */
  onlyIpv6 = false
  trafficClass = 0
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

  /** Undefined for datagrams. */
  get transport(): CmTransport | undefined {
    return transports[this.qpType]
  }

  get isListening(): boolean {
    return this.state === 'LISTEN'
  }

  /** Call when the owner has read or handled this request: makes space in the listener's backlog. */
  removeFromBacklog(): void {
    this.listener?.unreadRequests.delete(this)
    this.listener = undefined
  }
}
