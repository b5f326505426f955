/*
 * An identifier of rdma_cm: its binding, the state of its connection, and its options. rdma-cm.ts changes it.
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

/** Linux's rdma_cm states, without those that only wait for the system. */
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
  /** The connection manager's device number, never reused. */
  readonly number: number
  readonly device: Device
  readonly caGuid: bigint
}

/** An address on the link of a device. */
export interface Neighbour {
  /** Undefined until the system has resolved it. */
  mac: string | undefined
}

export type ConnectionParameters = RecordOf<typeof CmConnectionParameters>
export type DatagramParameters = RecordOf<typeof CmDatagramParameters>
export type Ece = RecordOf<typeof CmEce>

/** A path, and its path record. */
export interface ChosenPath {
  readonly path: Omit<CmPath, 'device'>
  /** 64 bytes. */
  readonly record: Uint8Array
}

/** The details of an event, without its type. */
export interface EventDetails {
  /** 0, a negative errno, or the reason of a REJ. */
  readonly status?: number
  readonly connection?: ConnectionParameters
  readonly datagram?: DatagramParameters
  readonly ece?: Ece
}

/** The owner of an identifier: a program by its channel, or code in this process. */
export interface IdOwner {
  event(type: number, details: EventDetails, request?: Identifier): void
  /** Creates an identifier for a peer's request, with the same owner; undefined if there is no space for it. */
  createRequest(template: { readonly portSpace: number; readonly qpType: number }): Identifier | undefined
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
  portSpace: number
  /** ibv_qp_type: 2 RC, 3 UC, 4 UD, 9 XRC_INI, 10 XRC_TGT. */
  readonly qpType: number
  state: IdState = 'IDLE'
  source: SocketAddress | undefined
  destination: SocketAddress | undefined
  device: CmDevice | undefined
  /** The only device that the identifier may use: the device on which a program created it. */
  readonly only: CmDevice | undefined
  /** GIDs of the path, 16 bytes; set with the device. */
  localGid: Uint8Array | undefined
  remoteGid: Uint8Array | undefined
  flowLabel = 0
  /** MAC of the device when the identifier was bound to it; undefined where it cannot change. */
  mac: string | undefined
  /** The next hop when the route was resolved; undefined where MACs are not known. */
  neighbour: Neighbour | undefined
  /** The path set by its consumer, instead of a resolved one. */
  route: ChosenPath | undefined
  connection: CmConnection | undefined
  /** Of a listener: requests that its owner has not handled yet, and their maximum number. */
  readonly unread = new Set<Identifier>()
  backlog = 0
  /** Of a request: its listener, until its owner has handled it. */
  listener: Identifier | undefined
  /** Of a request: its owner has not accepted it. */
  isUnanswered = false
  /** Its multicast memberships, which end with it. */
  readonly groups = new Set<CoreObject>()
  /** Number of its events that its program has not read. */
  waiting = 0
  reuseAddress = false
  onlyIpv6 = false
  trafficClass = 0
  /** The consumer's options of enhanced connection establishment. */
  ece: Ece | undefined
  /** Timeout exponent; undefined: the connection manager's default. */
  ackTimeout: number | undefined
  minRnrTimer: number | undefined
  qkey: number
  /** First PSN expected from the peer. */
  readonly startingPsn: number
  /** The object of the identifier. */
  object: CoreObject | undefined

  constructor(
    owner: IdOwner,
    only: CmDevice | undefined,
    portSpace: number,
    qpType: number,
    startingPsn: number,
    qkey: number,
  ) {
    this.owner = owner
    this.only = only
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

  /** The owner has read or handled this request; the backlog has space for another. */
  leaveBacklog(): void {
    this.listener?.unread.delete(this)
    this.listener = undefined
  }
}
