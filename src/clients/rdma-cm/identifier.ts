/*
 * An identifier of rdma_cm: what it is bound to, how far its connection is, and which options it has. rdma-cm.ts changes
 * it; nothing here knows messages.
 */
import type { CmConnection, CmPath } from '../../cm/connection.ts'
import type { CoreObject, Device } from '../../core/model.ts'
import type { CmConnectionParameters, CmDatagramParameters, CmEce } from '../../spec/classes/cm_parameters.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'
import type { PortHolder } from './ports.ts'
import type { SocketAddress } from './socket-address.ts'

/** Linux's rdma_cm states, without those that only wait for an answer of the system. */
export type IdState =
  | 'IDLE'
  | 'ADDR_BOUND'
  | 'ADDR_RESOLVED'
  | 'ROUTE_RESOLVED'
  | 'CONNECT'
  | 'DISCONNECT'
  | 'LISTEN'
  | 'DEVICE_REMOVAL'

/** A device that connections are made through. */
export interface CmDevice {
  /** The connection manager's number of it, never given out again. */
  readonly number: number
  readonly device: Device
  readonly caGuid: bigint
}

export type ConnectionParameters = RecordOf<typeof CmConnectionParameters>
export type DatagramParameters = RecordOf<typeof CmDatagramParameters>
export type Ece = RecordOf<typeof CmEce>

/** A path, and the record that says it. */
export interface ChosenPath {
  readonly path: Omit<CmPath, 'device'>
  /** 64 bytes. */
  readonly record: Uint8Array
}

/** What an event says beside its type. */
export interface EventDetails {
  /** 0, minus an errno, or the reason of a REJ. */
  readonly status?: number
  readonly connection?: ConnectionParameters
  readonly datagram?: DatagramParameters
  readonly ece?: Ece
}

/** Who uses an identifier: a program by its channel, or code of this process. */
export interface IdOwner {
  event(type: number, details: EventDetails, request?: Identifier): void
  /** An identifier for a peer that asks, reporting to the same owner; undefined if there is no room for it. */
  createRequest(template: { readonly portSpace: number; readonly qpType: number }): Identifier | undefined
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
  /** Of an identifier that a program has made on a device: that one, and no other. */
  readonly only: CmDevice | undefined
  /** GIDs of the path, 16 bytes; known with the device. */
  localGid: Uint8Array | undefined
  remoteGid: Uint8Array | undefined
  flowLabel = 0
  /** MAC of the device when the identifier was bound to it; undefined where it cannot change. */
  mac: string | undefined
  /** The path that its consumer has set in place of a resolved one. */
  route: ChosenPath | undefined
  connection: CmConnection | undefined
  /** Of a listener: requests that its owner has not noticed yet, and how many there may be. */
  readonly unread = new Set<Identifier>()
  backlog = 0
  /** Of a request: who listened to it, until its owner has noticed it. */
  listener: Identifier | undefined
  /** Its memberships of groups, which go with it. */
  readonly groups = new Set<CoreObject>()
  /** Events of it that its program has not read. */
  waiting = 0
  reuseAddress = false
  onlyIpv6 = false
  trafficClass = 0
  /** What its consumer says to the peer by enhanced connection establishment. */
  ece: Ece | undefined
  /** Exponent; undefined: as the connection manager has it. */
  ackTimeout: number | undefined
  minRnrTimer: number | undefined
  qkey: number
  /** First PSN of what the peer sends here. */
  readonly startingPsn: number
  /** Of the object that stands for it. */
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

  get isListening(): boolean {
    return this.state === 'LISTEN'
  }

  /** The owner has read the event of this request, or has done something with it: the backlog has room for another. */
  noticed(): void {
    this.listener?.unread.delete(this)
    this.listener = undefined
  }
}
