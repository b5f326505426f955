/*
 * What a driver provides, in the order in which its author needs it (R19 to R23; docs/how-to/drivers.md):
 *
 *   1. the driver's record: its name, its classes, and how it makes a device;
 *   2. a line of that record for each class;
 *   3. the device, if its queues are polled: `NetworkDevice`;
 *   4. the device's network interface;
 *   5. queue pairs for core's clients: management datagrams and other datagrams;
 *   6. connections;
 *   7. what tools may ask;
 *   8. taps: what the device tells whoever watches its queues;
 *   9. calls of the driver's own.
 *
 * Three members of the record are mandatory, and three of a polled device. A new capability is an optional member here:
 * core, the daemon and the library use what a driver has, and tools do not show what it lacks.
 *
 * This file and model.ts name each other's types, because a device has a driver and a driver makes devices.
 */
import type { Cause } from '../spec/check/causes.ts'
import type { RoutedPath, RouterHazard } from '../spec/check/probes.ts'
import type { RequestNumber, WorkRequest } from '../spec/check/requests.ts'
import type { Wait } from '../spec/check/waits.ts'
import type { CmId } from '../spec/classes/connections/cm_id.ts'
import type {
  CmConnectionParameters,
  CmDatagramParameters,
  CmEce,
  SocketAddress,
} from '../spec/classes/connections/cm_parameters.ts'
import type { DeviceAttributes } from '../spec/classes/device/device.ts'
import { isQueuePairClass } from '../spec/classes/ids.ts'
import type { DeviceLimitName, DeviceLimits } from '../spec/device-limits.ts'
import type { LinuxAbi } from '../spec/drivers/linux-abi.ts'
import type { ActingRule } from '../spec/faults.ts'
import type { LinkName } from '../spec/links.ts'
import type { Attributes, Methods, ObjectClass, Out, RecordOf } from '../spec/schema/schema.ts'
import type { SubnetPort } from '../spec/subnet-port.ts'
import type { QpStat } from '../uapi/tool.ts'
import type { VlanInterface } from './devices/gids.ts'
import type { Identity } from './devices/identity.ts'
import type { Bytes } from './memory/address-space.ts'
import type { MappedChunk } from './memory/mappable-memory.ts'
import type { MemoryTable } from './memory/region-table.ts'
import type { Account, AnyHandler, Caller, Context, Core, CoreObject, Device, FdObject } from './model.ts'

// ---- 1. the driver ----

/** What the owner of core offers to a new device. */
export interface DeviceSite {
  /** Memory of this process, to and from which programs' memory can be copied (`AddressSpace`). */
  allocate(bytes: number): Bytes
  /** Something has arrived that the device does not poll for: it is polled soon. For links with events of Node.js. */
  wake(): void
  /** Present for devices of drivers with `hasAddress`. */
  readonly network?: DeviceNetwork
}

/** The network of a device with an address. drivers/roce-site.ts adds ports for RoCE. */
export interface DeviceNetwork {
  /** The GUID, GIDs and interface that follow from the device's address. */
  readonly identity: Identity
  /** The clock of `NetworkDevice.poll`, microseconds. */
  readonly now: () => number
  /** Line rate, bits/s, of a device whose queue pairs control their rate; only for drivers with `hasRateControl`. */
  readonly dcqcn?: number | undefined
  /** Limits that the user has lowered, of the driver's `settableLimits`. */
  readonly limits?: DeviceLimits | undefined
  /** Present for a device with an InfiniBand port, of a driver with `hasFabric`. */
  readonly fabric?: FabricOptions | undefined
  /** What the port and the adapter tell; absent: by the network interface, and as the driver's adapter. */
  readonly adapter?: AdapterFacts | undefined
  /** How late `poll` may come after `nextTimeout`, microseconds; default 1000. */
  readonly timerDelay?: number | undefined
}

/** Of an adapter that the owner of core knows. */
export interface AdapterFacts {
  /** `LinkWidth` and `LinkSpeed` of the port. */
  readonly rate?: { readonly activeWidth: number; readonly activeSpeed: number } | undefined
  /** Of its PCI function; only drivers that tell one use it. */
  readonly partId?: number | undefined
}

/** Of a device with an InfiniBand port. */
export interface FabricOptions {
  /** 8 bytes; absent: the identity's. */
  readonly guid?: Uint8Array | undefined
  /** The first partition keys; absent: the default one. */
  readonly pkeys?: readonly number[] | undefined
}

/** Contents of files in the device's folder of sysfs. */
export interface AdapterTexts {
  /** Firmware's version; in netlink too. */
  readonly fw_ver: string
  readonly hca_type: string
  readonly hw_rev: string
  readonly board_id: string
}

export interface Driver<D = unknown> {
  /**
   * Names of its devices without an address begin with it. The value of `driver=` in `--device`, and of `type` in
   * `rdma link add`.
   */
  readonly name: string
  /** Linux's rdma_driver_id (RDMA_DRIVER_RXE = 14). The ioctl dialect checks it. */
  readonly id: number
  /**
   * The classes of the driver's devices. A class without handlers has core's own; a class that is not listed is absent.
   * Classes of core's clients need no line: a device has those whose needs its driver meets (`ClientClasses`).
   */
  readonly classes: readonly DriverClass[]
  /**
   * Registers a device with this name, and returns it; as a NetworkDevice if it has queues to poll. Absent: code makes
   * the devices (`register`). Throws CallError EEXIST, EINVAL.
   */
  createDevice?(core: Core, name: string, site: DeviceSite): Device | NetworkDevice
  /** Its devices have an address: `--device NAME@ADDRESS`, `rdma link add NAME type DRIVER netdev INTERFACE`. */
  readonly hasAddress?: boolean
  /** Its devices may have an InfiniBand port: `layer=infiniband` of `--device`. */
  readonly hasFabric?: boolean
  /** Its devices take addresses of VLAN interfaces (`DeviceLink.addAddress`). */
  readonly hasVlans?: boolean
  /** An administrator may set the traffic class of its connected queue pairs (`DeviceTaps.trafficClass`). */
  readonly hasClassOverride?: true
  /** Fault rules can silence its devices (`DeviceTaps.silenced`). */
  readonly canBeSilent?: true
  /** Its devices take `dcqcn` of `--device`. */
  readonly hasRateControl?: boolean
  /** The limits of its devices that `--device` may lower; absent: none. */
  readonly settableLimits?: readonly DeviceLimitName[]
  /** Node type of its devices (`NodeType`); default CA. */
  readonly nodeType?: number
  /** Programs get DEVICE_SPEED_CHANGE when a port's speed changes, as from Linux's mlx5. */
  readonly hasSpeedEvents?: true
  /** What Linux's driver tells of its adapter in sysfs and netlink. Absent: nothing, as rxe and efa. */
  readonly adapter?: (attributes: RecordOf<typeof DeviceAttributes>) => AdapterTexts
  /** Version of the driver's part of Linux's ABI; default 1. */
  readonly abi?: number
  /** The driver's bytes in requests and responses of Linux's ABI; default none. */
  readonly linux?: LinuxAbi
  /** By versioned name, newest first. The interface with the driver's own name is its provider channel. */
  readonly interfaces?: Readonly<Record<string, DriverOps>>
  /** Link of the driver's devices: attributes of other links are absent. Undefined: all attributes exist. */
  readonly link?: LinkName
  /**
   * The device is being removed, and its objects still exist. Ends their work with errors, for programs that only poll
   * shared memory (`MappedMemory.keepMapped`). Yields after a few objects.
   */
  removing?(device: Device<D>): Iterable<unknown>
  /**
   * A context was closed, and its objects still exist: its queue pairs stop sending and responding now. Yields after a
   * few objects.
   */
  closing?(context: Context<unknown, D>): Iterable<unknown>
  /** The device was removed, and all its objects were destroyed. */
  removed?(device: Device<D>): void
  /**
   * Opens queue pair 1 of port 1. `receive` gets each management datagram, and may keep `mad` and `from`. It is called
   * in the middle of the device's work, so it must not make calls. Throws CallError EBUSY if the queue pair is open
   * already.
   */
  openManagement?(device: Device<D>, receive: (mad: Uint8Array, from: MadAddress) => void): ManagementPort
  /**
   * A subnet manager has port 1 (IsSM), or has left it. Returns false if another one has it. Absent: it has no subnet.
   */
  setSubnetManager?(device: Device<D>, isManager: boolean): boolean
  /** Opens queue pair 0 of port 1, as `openManagement`. Undefined: the port has no subnet management (RoCE). */
  openSubnetManagement?(
    device: Device<D>,
    receive: (mad: Uint8Array, from: MadAddress) => void,
  ): ManagementPort | undefined
  /**
   * Opens a datagram queue pair on port 1. `receive` as for `openManagement`. Datagrams with another Q_Key are dropped.
   * `account`: charged for groups and for waiting datagrams.
   */
  openDatagrams?(
    device: Device<D>,
    qkey: number,
    account: Account | undefined,
    receive: (payload: Uint8Array, from: MadAddress) => void,
  ): DatagramPort
  /**
   * Makes connections of the device by a protocol of its own, until `close`. `listeners`: gets the peers' requests.
   * Absent: by InfiniBand's connection manager, if the driver has `openManagement`.
   */
  openConnections?(device: Device<D>, listeners: ConnectionListeners): ConnectionProtocol
  /** What taps of requests may ask. */
  readonly requests?: RequestReader
}

/** A driver whose devices are made by name. */
export type RegisteredDriver<D = unknown> = Driver<D> & Required<Pick<Driver<D>, 'createDevice'>>

// ---- 2. classes ----

/** Attributes (ids from 0x8000) that a driver adds to methods of a common class, by method name. */
export type MethodAdditions = { readonly [method: string]: { readonly in?: Attributes; readonly out?: Attributes } }

/** A class in a driver's table, with the types of its handlers erased. */
export interface DriverClass {
  readonly class: ObjectClass
  readonly handlers: Readonly<Record<string, AnyHandler | null | undefined>>
  readonly additions: MethodAdditions
  /** Methods that the driver adds to a common class, in the blocks from DRIVER_FAST on. */
  readonly methods: Methods
  /** Handlers for devices of one link, used instead of those in `handlers`. */
  readonly variants?: Readonly<Partial<Record<LinkName, DriverClass['handlers']>>>
  /** Optional attributes that the driver does not support, in any method, each with the reason. */
  readonly unsupported?: Readonly<Record<string, string>>
}

/** Classes of core's clients. A device has them if its driver has a member of `needs`, or lists them itself. */
export interface ClientClasses {
  readonly needs: readonly ('openManagement' | 'openDatagrams' | 'openConnections')[]
  readonly classes: readonly DriverClass[]
}

// ---- 3. the device ----

/**
 * The queues that a poll checks for new requests; each scope includes CHANGED. CHANGED: those named by `onDoorbell` or
 * changed by calls. USED: also the recently used ones. ALL: all queues. The daemon's loop checks all queues in slices,
 * so that idle queue pairs of one program do not delay others: BEGIN begins a round over all queues with the first
 * slice, CONTINUE checks the next slice. A round begins where the previous slice ended. A device with few queues may
 * check all of them at every poll.
 */
export const ScanScope = { CHANGED: 0, USED: 1, ALL: 2, BEGIN: 3, CONTINUE: 4 } as const
export type ScanScope = (typeof ScanScope)[keyof typeof ScanScope]

/**
 * A device with queues that are polled. A device that only answers calls needs none of this. Times are microseconds of
 * the clock that polls the device.
 */
export interface NetworkDevice {
  readonly device: Device
  /** Processes work requests, packets and timers; true if there was anything to do. `scope`: default ALL. */
  poll(now: number, scope?: ScanScope): boolean
  /** Whether a round over all queues has slices left (`ScanScope.CONTINUE`). Absent: never. */
  isUnfinished?(): boolean
  /** When `poll` must be called even if nothing else happens; Infinity for never. */
  nextTimeout(): number
  /**
   * Requests were posted to the queue pair with this handle. Other handles are ignored. Absent: the device finds posts
   * by looking, as doorbells are stores to memory.
   */
  onDoorbell?(context: Context, handle: number): void
  counters?(): LayerCounts
  readonly queues?: DeviceQueues
  readonly link?: DeviceLink
  /** Present for a device with an InfiniBand port, which a subnet configures. */
  readonly subnetPort?: SubnetPort | undefined
  /**
   * Why programs wait for queues of the device, in no order (spec/check/waits.ts); undefined between steps.
   * `disconnected`: the QPNs whose connection of rdma_cm has ended, and whether the program has read the event.
   */
  waits?(disconnected?: ReadonlyMap<number, boolean>): Iterable<ContextWait | undefined>
}

// ---- 4. the network interface ----

/** State of a network interface. */
export interface LinkState {
  /** Administratively up. */
  readonly isUp: boolean
  /** Has a carrier. */
  readonly hasCarrier: boolean
  /** Largest path MTU that fits the interface: 256, 512, … 4096; absent when the interface was removed. */
  readonly pathMtu?: number
  /** Mb/s; absent: unknown. */
  readonly speed?: number | undefined
}

/** `AsyncEventType`; NO_EVENT for a change without an event. */
export type PortEvent = number
export const NO_EVENT = -1

/**
 * The network interface of a device. The functions that change it return the event that the caller sends
 * (`raisePort`); undefined if nothing changed.
 */
export interface DeviceLink {
  /** Changes when another interface replaces the device's own. */
  readonly identity: Identity
  /** Largest path MTU of the port, bytes. */
  readonly pathMtu: number
  /** Sets the port's state, active MTU, and width and speed. */
  setState(state: LinkState): PortEvent | undefined
  /** A fault takes the carrier away (false), whatever `setState` says, or gives it back. */
  setCarrier(hasCarrier: boolean): PortEvent | undefined
  /**
   * The interface has a new address: the port receives its packets, and the GID is added, unless the table has it or is
   * full. 'spare': an additional address. `vlan`: it is that of a VLAN interface. Throws SystemError if the port cannot
   * use it.
   */
  addAddress(address: Uint8Array, claim: 'own' | 'spare', vlan?: VlanInterface): PortEvent | undefined
  /** The interface has lost an address. GID 0 stays. */
  removeAddress(address: Uint8Array): PortEvent | undefined
  /** The interface has another MAC, and with it the device another default GID: events of all GIDs, in order. */
  setMac(mac: Uint8Array): readonly PortEvent[]
  /**
   * The device has a new interface, or the name of its interface has changed. GUID and default GID stay. Throws
   * SystemError if the port cannot join a group on it.
   */
  moveTo(interfaceName: string, interfaceIndex: number): void
}

/** A device with a network interface. */
export type LinkedDevice = NetworkDevice & { readonly link: DeviceLink }

export const isLinked = (device: NetworkDevice | undefined): device is LinkedDevice => device?.link !== undefined

// ---- 5. queue pairs for core's clients (IBA 13, 16; R40) ----

/** The other end of a datagram, and the path to it. */
export interface MadAddress {
  /** 16 bytes each. On InfiniBand without a GRH zeros. */
  readonly localGid: Uint8Array
  readonly remoteGid: Uint8Array
  /** On InfiniBand: both ends' LIDs, the service level, and whether there is a GRH. */
  readonly lids?:
    | { readonly local: number; readonly remote: number; readonly sl: number; readonly isGlobal: boolean }
    | undefined
  /** Number of the peer's queue pair: 1 for the general services. */
  readonly qpn: number
  readonly pkey: number
  readonly flowLabel: number
  readonly trafficClass: number
  readonly hopLimit: number
}

/** Queue pair 1 of a port, for the MAD layer. */
export interface ManagementPort {
  /**
   * Sends a datagram of 256 bytes, now or when the port can take it. Returns false if the datagram is dropped, because
   * too many wait or there is no path to the address.
   */
  send(mad: Uint8Array, to: MadAddress): boolean
  /** The device's own answer to a request that no agent claims; undefined if it has none. */
  answer?(mad: Uint8Array): Uint8Array | undefined
  close(): void
}

/** A datagram queue pair of a client in core, in state RTS, without rings and completions. */
export interface DatagramPort {
  readonly qpn: number
  /** Maximum bytes of a payload. */
  readonly mtu: number
  /**
   * Sends a datagram, now or when the port can take it. The caller must not change `payload` afterwards. Returns false
   * if the datagram is dropped, because too many wait or there is no path to the address.
   */
  send(payload: Uint8Array, to: MadAddress): boolean
  /** Joins a multicast group. Throws CallError EINVAL, ENOMEM, EMFILE, ENFILE, EADDRNOTAVAIL. */
  join(gid: Uint8Array): void
  /** Leaves a multicast group. Throws CallError EINVAL if it was not joined. */
  leave(gid: Uint8Array): void
  close(): void
}

// ---- 6. connections (R17, R18; Linux: iw_cm) ----
//
// rdma_cm has the identifiers, ports, routes and the choice of listener. The device's protocol carries requests and
// answers to the peer, and reports events. An event may be reported during a call. No call on a connection may wait.

export type ConnectionParameters = RecordOf<typeof CmConnectionParameters>
export type DatagramParameters = RecordOf<typeof CmDatagramParameters>
export type Ece = RecordOf<typeof CmEce>
/** Attributes for `modify` of a queue pair. */
export type QpAttributes = Out<typeof CmId.methods.initQpAttr>

/** An identifier of rdma_cm, as its protocol sees it. */
export interface ConnectionEnd {
  /** `CmPortSpace`. */
  readonly portSpace: number
  /** `QpType`. */
  readonly qpType: number
  /** Known from the bind on. The address of a listener may be a wildcard. */
  readonly source: SocketAddress | undefined
  /** The peer, or the address of a request. */
  readonly destination: SocketAddress | undefined
  /** The device's address and the peer's, 16 bytes each; known once the address is resolved. */
  readonly localGid: Uint8Array | undefined
  readonly remoteGid: Uint8Array | undefined
  /** P_Key of an AF_IB address on InfiniBand; undefined: that of IP. */
  readonly pkey: number | undefined
  /** RDMA_OPTION_ID_TOS, or that of the peer's request. */
  readonly trafficClass: number
  /** RDMA_OPTION_ID_ACK_TIMEOUT, an exponent: 4.096 µs · 2^n. Undefined: the protocol chooses. */
  readonly ackTimeout: number | undefined
  /** Options of enhanced connection establishment (rdma_set_local_ece). */
  readonly ece: Ece | undefined
  /** Of datagrams. */
  readonly qkey: number
  /** Of paths of InfiniBand: the first PSN that the peer sends; */
  readonly startingPsn: number
  /** 20 bits; */
  readonly flowLabel: number
  /** an exponent: 4.096 µs · 2^n, undefined: the protocol's default; */
  readonly packetLifeTime: number | undefined
  /** the path record, 64 bytes, that the program has set (RDMA_OPTION_IB_PATH) or `resolveRoute` has found. */
  readonly chosenPath: Uint8Array | undefined
  /**
   * Reports an event of the connection (`CmEventType`):
   * - CONNECT_REQUEST: first of all events of a peer's request;
   * - CONNECT_RESPONSE: the peer has accepted, and the program must `confirm`. librdmacm first modifies its queue pair
   *   to RTS, without which programs cannot send;
   * - ESTABLISHED: on the active side without `confirm`, if there was no CONNECT_RESPONSE;
   * - REJECTED, with the peer's reason as status, and UNREACHABLE or CONNECT_ERROR, with −errno;
   * - DISCONNECTED: by the peer, or the peer knows of the end; 0 or −errno;
   * - TIMEWAIT_EXIT: after DISCONNECTED, packets of the connection can no longer arrive.
   * Returns false if the identifier ignores the event, because its connection has ended.
   */
  report(type: number, details?: ConnectionNews): boolean
}

/** What an event says. */
export interface ConnectionNews {
  /** Default 0. */
  readonly status?: number
  /** At most 255 bytes. Absent: the event has no parameters of the peer either. */
  readonly privateData?: Uint8Array
  /** What the peer has offered, as limits of this end; default zeros. */
  readonly connection?: Partial<ConnectionParameters>
  /** Where datagrams to the peer are sent; default zeros. */
  readonly datagram?: Partial<DatagramParameters>
  readonly ece?: Ece
}

/** A peer's request. */
export interface PeerRequest {
  readonly portSpace: number
  /** `QpType` of this end. */
  readonly qpType: number
  readonly local: SocketAddress
  readonly peer: SocketAddress
  readonly path: {
    readonly localGid: Uint8Array
    readonly remoteGid: Uint8Array
    readonly trafficClass?: number
    readonly flowLabel?: number
    readonly packetLifeTime?: number
    /** Of a path by LIDs, which may have no GIDs. */
    readonly lids?: { readonly remote: number } | undefined
  }
}

/**
 * Why a request has no listener. NO_LISTENER, WRONG_ADDRESS (this end's is not the device's, or the peer's is no
 * unicast address), WRONG_TYPE: the listener has another queue pair type. BUSY: the backlog is full; the peer may try
 * again.
 */
export type Refusal = 'NO_LISTENER' | 'WRONG_ADDRESS' | 'WRONG_TYPE' | 'BUSY'

export interface ConnectionListeners {
  /**
   * Finds the listener of a request, and creates an identifier with `connection`. The protocol then reports
   * CONNECT_REQUEST. For a refusal the protocol answers the peer, and forgets the connection.
   */
  request(request: PeerRequest, connection: Connection): ConnectionEnd | Refusal
}

/** A multicast group that a program joins. */
export interface GroupRequest {
  /** A wildcard: a new group. */
  readonly address: SocketAddress
  readonly isSendOnly: boolean
}

/** Errors of its functions are CallErrors; after one, nothing was sent. */
export interface ConnectionProtocol {
  /** Resolves services to datagram queue pairs too (port spaces UDP and IPOIB), and can send to multicast groups. */
  readonly hasDatagrams?: boolean
  /** Number of connections, for `userdma stat`. */
  readonly size: number
  /** Takes requests to a listener's port from now on, until the returned function is called. */
  listen(listener: ConnectionEnd): () => void
  /** A connection for `connect`. The route is resolved. */
  create(end: ConnectionEnd): Connection
  /**
   * The path record of an end whose route is resolved, 64 bytes. `connection`: the end's, if any. Absent: paths have no
   * records, as with iWARP.
   */
  pathRecord?(end: ConnectionEnd, connection: Connection | undefined): Uint8Array
  /**
   * Finds the path of an end whose address is resolved. `timeout`: ms, 0: the default. `done` gets the path record, or
   * −errno, once, perhaps during the call; not after the returned function was called. Throws EAGAIN if the port has no
   * subnet manager. Absent: the addresses are the path, as with RoCE.
   */
  resolveRoute?(end: ConnectionEnd, timeout: number, done: (path: Uint8Array | number) => void): () => void
  /** The Q_Key and the P_Key index of an end's datagrams, if they are not the end's own and 0. */
  datagramKeys?(end: ConnectionEnd): { readonly qkey: number; readonly pkeyIndex: number }
  /**
   * Joins a multicast group of the network. `report` gets the group's address, or −errno, perhaps during the call;
   * after the address perhaps −errno, if the membership was lost. The returned function leaves. Absent: the address of
   * the group is enough.
   */
  joinGroup?(
    end: ConnectionEnd,
    group: GroupRequest,
    report: (outcome: Partial<DatagramParameters> | number) => void,
  ): () => void
  /** The device is being removed, or rdma_cm stops: forgets all connections, without events. */
  close(): void
}

/** The connection of an identifier. */
export interface Connection {
  /** True before `connect`, and if the connection can `connect` again after a refusal. */
  readonly isIdle: boolean
  /** Sends a request to the end's destination, with the queue pair `qpNum`. */
  connect(parameters: ConnectionParameters): void
  /** Accepts the peer's request, with the queue pair `qpNum`. Of datagrams, the end has the Q_Key. */
  accept(parameters: ConnectionParameters): void
  /** Confirms a CONNECT_RESPONSE. Absent: there is none. */
  confirm?(): void
  /** Rejects the peer's request or response. `reason`: `rejReason`. */
  reject(privateData: Uint8Array, reason: number): void
  /** Begins to disconnect, or confirms that the peer does. No effect on a connection that is not established. */
  disconnect(): void
  /** Data has arrived before the peer's confirmation (rdma_notify, COMM_EST). Throws EISCONN. Absent: no effect. */
  establish?(): void
  /**
   * Attributes with which the queue pair is modified to a `QpState`. Undefined: the protocol moves the queue pair
   * itself. Then rdma_cm does not modify it, and `modify` of a program to this state must have no effect.
   */
  queuePairAttributes(state: number): Omit<QpAttributes, 'state'> | undefined
  /** The identifier is destroyed: ends the connection. No events follow. */
  destroy(): void
}

// ---- 7. what tools may ask ----

/** A queue pair as iproute2's `rdma resource` lists it. */
export interface QpResource {
  readonly qpn: number
  /** 0 if the port is not set. */
  readonly port: number
  /** `QpState`. */
  readonly state: number
  readonly destQpn: number
  readonly rqPsn: number
  readonly sqPsn: number
}

/** A queue pair as `userdma stat --qps` lists it, without device and process, which the caller adds. */
export type QpFacts = Omit<QpStat, 'device' | 'pid' | 'command'>

/** The queues of a device, for tools. */
export interface DeviceQueues {
  qpOfNumber(qpn: number): CoreObject | undefined
  /** Undefined if the object has opened an XRC target that another object created, or belongs to another device. */
  qp(object: CoreObject): QpResource | undefined
  /** Maximum number of completions in a CQ. */
  cqEntries(cq: CoreObject): number
  /**
   * At most `max` queue pairs from position `from` on. `next`: position of the next queue pair; undefined at the end.
   */
  list(
    from: number,
    max: number,
  ): {
    readonly qps: readonly { readonly facts: QpFacts; readonly context: Context | undefined }[]
    readonly next?: number
  }
  /**
   * Number of queue pairs of programs. An XRC target counts once. Yields undefined now and then, so that the caller can
   * return to the event loop. Absent: each object is a queue pair of its own.
   */
  count?(): Generator<undefined, number>
  /** Queue pairs of core's clients. */
  clientQps?(): readonly QpResource[]
  /** QPNs of the queue pairs that use a shared receive queue. Yields as `count`. */
  qpsOfSrq?(srq: CoreObject): Iterable<number | undefined>
}

/** A wait, and the context whose program waits. */
export interface ContextWait {
  readonly context: Context
  readonly wait: Wait
  /** The text without what changes while it is the same wait; absent: all of it. */
  readonly key?: string
  /** Whether it is still so; absent: only the next look tells. */
  holds?(): boolean
  /** Since when the program waits, in microseconds; absent: since the look that found it first. */
  readonly since?: number
  /** The event channel on which the program waits, which may end before the context. */
  readonly channel?: CoreObject | undefined
}

/** Counts since the device was added, by their names in spec/counters.ts. */
export interface LayerCounts {
  readonly engine: Readonly<Record<string, number>>
  readonly port: Readonly<Record<string, number>>
  /** The files of `hw_counters` by Linux's names, instead of those that spec/counters.ts derives from the others. */
  readonly hardware?: Readonly<Record<string, number>>
}

/** A completion that a fault rule fails. */
export interface InjectedCompletion extends ActingRule {
  /** `WcStatus`. */
  readonly status: number
}

// ---- 8. taps (docs/how-to/drivers.md) ----

/** A request as the queue engine has read it: what its WQE says. */
export type PostedRequest = Omit<WorkRequest, 'id' | 'time' | 'owner' | 'queue' | 'number' | 'index'>

/** A completion, as in `RequestCompletion` (spec/check/requests.ts). */
export interface WrittenCompletion {
  readonly status: number
  readonly opcode: number
  readonly bytes: number
  /** Of a receive: the sender's QPN. */
  readonly sourceQpn: number
  readonly solicited: boolean
  /** Position among the completions of the CQ, from 1. 0: the CQ was full, and the completion is lost. */
  readonly position: number
}

/** A queue pair, whose number a driver keeps in the object's state. */
export type QueuePairObject = CoreObject<{ readonly qpn: number }>
export const isQueuePair = (object: CoreObject): object is QueuePairObject => isQueuePairClass(object.class.name)

/**
 * What a queue engine does with requests, for `userdma check` and recordings (tools/clients/requests/feed.ts). A send
 * is loaded, retired and then completed, if it has a completion; a receive is taken and then completed. Sends of a
 * queue pair end in order, and so do its receives. `queue`: a queue pair, or a shared receive queue.
 */
export interface RequestTaps {
  /**
   * A send was fetched. Its bytes move between this call and `retired`. `copyInline`: copies its inline data to the
   * beginning of `to`; only during the call. Absent: unknown.
   */
  loaded(qp: QueuePairObject, send: PostedRequest, copyInline?: (to: Uint8Array) => void): void
  /** The oldest `count` loaded sends have ended, and their completions follow. `isFlushed`: by an error state. */
  retired(qp: QueuePairObject, count: number, isFlushed: boolean): void
  /** Receives may have been posted to the queue of `qp`. Only for drivers with `RequestReader.receives`. */
  receivesPosted(queue: CoreObject, qp: QueuePairObject): void
  /** `qp` has taken the oldest receive of its queue. */
  taken(qp: QueuePairObject, queue: CoreObject, receive: PostedRequest): void
  /** A message for the queue pair, perhaps retransmitted, found no receive. */
  notReady(qp: QueuePairObject): void
  /** A completion of `qp` was written to the CQ, or is lost. */
  completed(qp: QueuePairObject, cq: CoreObject, completion: WrittenCompletion): void
  /** The queue pair has dropped a message. `sourceQpn`: the sender of a datagram, unless it was sent to a group. */
  dropped(qp: QueuePairObject, cause: Cause, sourceQpn: number | undefined): void
  /** The queue pair enters RTR: it has dropped what arrived before. */
  beginsToReceive(qp: QueuePairObject): void
  /** A queue is reset or destroyed. */
  reset(queue: CoreObject): void
}

/** What only the driver knows about requests. Tools do not check what an absent function would tell. */
export interface RequestReader {
  /** What the device knows requests by, where only the provider knows their wr_ids. Absent: by the wr_id. */
  readonly numbered?: RequestNumber
  /** The key of the memory table for a key that a program has; 0: there is none. Absent: the same key. */
  tableKey?(memory: MemoryTable, key: number): number
  /**
   * The number that programs know of the queue pair with which a peer accesses memory. Absent: the same.
   */
  namedQpn?(device: Device, qpn: number): number
  /** The queue pairs and shared receive queues of a context. Defined together with `receives`. */
  queuesOf?(context: Context): Iterable<CoreObject>
  /**
   * Posted receives that no message has taken, oldest first, without the first `from`. None for a queue pair that takes
   * from a shared queue. Absent: a receive is seen when it is taken.
   */
  receives?(queue: CoreObject, from: number): readonly PostedRequest[]
  /**
   * Numbers of completions since the CQ was created: written, and polled by the program as far as its ring tells.
   * `lastError`: how many were written when the last one with an error status was; 0: none.
   */
  completions?(cq: CoreObject): { readonly written: number; readonly polled: number; readonly lastError: number }
  /**
   * The GID and QPN of a connected queue pair's peer; undefined without a path. Absent: queue pairs reach only those of
   * the same device.
   */
  peerOf?(qp: QueuePairObject): { readonly gid: Uint8Array; readonly qpn: number } | undefined
  /** Whether a queue pair of this device, also one of core's clients, is in a multicast group. Absent: unknown. */
  hasMember?(device: Device, group: Uint8Array): boolean
  /**
   * Why a subnet carries the last fetched datagram of queue pair `qpn` to no queue pair that takes it. `to`, `destQpn`:
   * its destination as in `PostedRequest`. Undefined: it may arrive. Absent: no subnet decides.
   */
  whyLost?(device: Device, qpn: number, to: Uint8Array, destQpn: number): Cause | undefined
  /** What of a path of queue pair `qpn` (undefined: of an address handle) no router forwards. Absent: unknown. */
  routerHazard?(device: Device, qpn: number | undefined, path: RoutedPath): RouterHazard | undefined
  /** Number of sends that are posted and not retired, fetched or not. */
  pendingSends?(qp: QueuePairObject): number
  /**
   * Number of requests that the program has written into its send queue and of which it has not told the device: they
   * lie behind the counter of the doorbell record. Absent: the queue does not show it.
   */
  unannouncedSends?(qp: QueuePairObject): number
  /** How often the transport timer has expired since the last answer of the peer. */
  timeouts?(qp: QueuePairObject): number
  /** Executes sends of the queue pair until they wait for a receive, a timer or the network, or for a bounded time. */
  settle?(qp: QueuePairObject): void
  /** Bytes that the queue pair may have unacknowledged. */
  window?(qp: QueuePairObject): number
}

/** Whether a successful completion fails. `opcode`: ibv_wc_opcode. */
export type DecideCompletion = (qp: QueuePairObject, opcode: number, wrId: bigint) => InjectedCompletion | undefined

/** Whether an access to an on-demand region of the context finds no page: the fault rule, or undefined. */
export type DecidePage = (context: Context) => ActingRule | undefined

/** Listeners of a device. A driver reads a member at each event; while it is undefined, nobody listens. */
export interface DeviceTaps {
  requests: RequestTaps | undefined
  /**
   * Fault rules: called before a successful completion is written. If it returns a status, the completion fails with
   * it, and the queue pair does what it does after such a failure of its own: a connection goes to an error state.
   */
  decideCompletion: DecideCompletion | undefined
  /**
   * Fault rules: called before each access to an on-demand region. If it returns a rule, the access fails with EFAULT.
   */
  decidePage: DecidePage | undefined
  /**
   * A fault rule has silenced the device: no completion and no event of its queue pairs comes any more, or of every
   * second one (`isHalf`). Only for drivers with `canBeSilent`.
   */
  silenced: { readonly rule: ActingRule; readonly isHalf: boolean } | undefined
  /** A queue pair enters ERR, and its queues are not flushed yet; or it leaves ERR. */
  inError: ((qpn: number, isInError: boolean) => void) | undefined
  /**
   * The traffic class that an administrator has set for connected queue pairs of verbs, in place of their own;
   * undefined: none. Only for drivers with `hasClassOverride`.
   */
  trafficClass: (() => number | undefined) | undefined
  /** The traffic class of identifiers of rdma_cm that have set none. */
  defaultTos: (() => number) | undefined
  /** Whether a connection has the number, also in TIMEWAIT: no other queue pair may get it (IBA 12.9.8.4). */
  isConnected: ((qpn: number) => boolean) | undefined
}

/** Without listeners. */
export const createTaps = (): DeviceTaps => ({
  requests: undefined,
  decideCompletion: undefined,
  decidePage: undefined,
  silenced: undefined,
  inError: undefined,
  isConnected: undefined,
  trafficClass: undefined,
  defaultTos: undefined,
})

// ---- 9. calls of the driver's own (R28, R30; core/devices/driver-ops.ts) ----

/** A call on a descriptor of a driver's interface. */
export interface OpsCall<S = unknown> {
  readonly fd: FdObject<OpsState<S>>
  readonly context: Context
  readonly device: Device
  readonly caller: Caller
}

/** State of a `driver_ops` object. */
export interface OpsState<S = unknown> {
  readonly name: string
  readonly ops: DriverOps<S>
  interfaceState: S
}

/**
 * One of a driver's interfaces in addition to its classes. All functions are optional: without one, the call fails as
 * on a Linux file without it. A function is synchronous, and throws CallError to refuse. It reports the end of longer
 * work by a record that the client can poll for and read (`postRecord`).
 */
export interface DriverOps<S = unknown> {
  /** A descriptor was created; returns the state for its calls. */
  open?(call: OpsCall<undefined>): S
  /** Gets the second and third argument of ioctl(2); returns its value, ≥ 0. Without it: ENOTTY. */
  ioctl?(call: OpsCall<S>, request: number, argument: bigint): number
  /** Gets the bytes of a write(2), at most 1 MiB; returns the number of accepted bytes. Without it: EINVAL. */
  write?(call: OpsCall<S>, bytes: Uint8Array): number
  /** The memory of `length` bytes at `offset`, which is a multiple of the page size. Without it: ENODEV. */
  mmap?(call: OpsCall<S>, offset: number, length: number, isWritable: boolean): MappedChunk
  /** The descriptor was closed, or its object destroyed. Cannot refuse. */
  close?(call: OpsCall<S>): void
}
