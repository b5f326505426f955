/*
 * An identifier of rdma_cm (struct rdma_cm_id): its addresses and device, the state of its connection, and its options.
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

/** Linux's states (enum rdma_cm_state), without those of operations that end at once here, such as ADDR_QUERY. */
export type IdState =
  | 'IDLE'
  | 'ADDR_BOUND'
  | 'ADDR_RESOLVED'
  | 'ROUTE_RESOLVED'
  | 'CONNECT'
  | 'DISCONNECT'
  | 'LISTEN'
  | 'DEVICE_REMOVAL'

/** A device for connections. */
export interface CmDevice {
  /** The number of the device in paths of the connection manager (`CmPath.device`); never reused. */
  readonly number: number
  readonly device: Device
  /** The node GUID, by which peers know the device. */
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

/** A path that the consumer has set (RDMA_OPTION_IB_PATH). */
export interface ChosenPath {
  readonly path: Omit<CmPath, 'device'>
  /** Its path record, 64 bytes. */
  readonly record: Uint8Array
}

/** The details of an event, without its type. */
export interface EventDetails {
  /** 0, a negative errno, the reason of a REJ, or the status of a SIDR_REP. */
  readonly status?: number
  readonly connection?: ConnectionParameters
  readonly datagram?: DatagramParameters
  readonly ece?: Ece
}

/** The owner of an identifier: a program by its channel, or code in this process. */
export interface IdOwner {
  /** Receives an event. `type`: CmEventType; `request`: the new identifier of a CONNECT_REQUEST. */
  event(type: number, details: EventDetails, request?: Identifier): void
  /** Creates an identifier for a peer's request; undefined if it cannot be created. */
  createRequest(template: { readonly portSpace: number; readonly qpType: number }): Identifier | undefined
  /** The identifier is destroyed; it has no events any more. */
  destroyed?(): void
}

/** The transport of a connection, by ibv_qp_type. */
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
  /** The only device that the identifier may use: the device on which a program created it. */
  readonly onlyDevice: CmDevice | undefined
  /** GIDs of the path, 16 bytes: the local one is set with the device, the remote one when the peer is known. */
  localGid: Uint8Array | undefined
  remoteGid: Uint8Array | undefined
  flowLabel = 0
  /** MAC of the device when the identifier was bound to it; undefined where it cannot change. */
  mac: string | undefined
  /** The next hop when the route was resolved; undefined where MACs are not known. */
  neighbour: Neighbour | undefined
  /** The path that the consumer has set; undefined: the resolved one is used. */
  chosenPath: ChosenPath | undefined
  connection: CmConnection | undefined
  /** Of a listener: requests that its owner has not handled yet, and their maximum number. */
  readonly unreadRequests = new Set<Identifier>()
  backlog = 0
  /** Of a request: its listener, until its owner has handled it. */
  listener: Identifier | undefined
  /** Whether it is a request that its owner has not accepted. */
  isUnanswered = false
  /** Its multicast memberships, which are destroyed with it. */
  readonly memberships = new Set<CoreObject>()
  /** Number of its events that its program has not read. */
  unreadEvents = 0
  /** RDMA_OPTION_ID_REUSEADDR and RDMA_OPTION_ID_AFONLY. */
  reuseAddress = false
  onlyIpv6 = false
  trafficClass = 0
  /** The consumer's options of enhanced connection establishment (rdma_set_local_ece). */
  ece: Ece | undefined
  /** Local ACK timeout, an exponent: 4.096 µs · 2^n. Undefined: the agreed one. */
  ackTimeout: number | undefined
  qkey: number
  /** The first PSN that the peer sends. */
  readonly startingPsn: number
  /** The core object of the identifier; undefined: it belongs to code in this process. */
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

  /** Undefined for datagrams, which have no connections. */
  get transport(): CmTransport | undefined {
    return transports[this.qpType]
  }

  get isListening(): boolean {
    return this.state === 'LISTEN'
  }

  /** The owner has read or handled this request: the backlog of its listener has space for another. */
  removeFromBacklog(): void {
    this.listener?.unreadRequests.delete(this)
    this.listener = undefined
  }
}
