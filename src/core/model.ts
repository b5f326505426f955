/*
 * The records of the subsystem: core, device, context, object, fd object, and callers (docs/decisions/one-way-in.md).
 *
 * An object holds what every object needs (R15): its class, name, parents and use count; `state` belongs to the
 * handlers of its class. These are plain records, and only the files of core write to them.
 */
import type { DeviceAttributes, ExtendedDeviceAttributes } from '../spec/classes/device.ts'
import type { PortAttributes } from '../spec/classes/port.ts'
import type { LinkName } from '../spec/links.ts'
import type { AnyValue, Attributes, Capability, Method, Methods, ObjectClass, RecordOf } from '../spec/schema/schema.ts'
import type { ArgumentShape, ReferenceAttribute } from '../uapi/argument-check.ts'
import type { CallerView, NewDescriptor, Schema } from '../uapi/call.ts'
import type { GidTable } from './devices/gids.ts'
import type { AddressSpace } from './memory/address-space.ts'
import type { MappedChunk, MappedMemory } from './memory/mappable-memory.ts'
import type { MemoryTable } from './memory/region-table.ts'
import type { HandleTable } from './objects/handles.ts'

/** Values as handlers see them: references are objects. */
export type HandlerValues = { [attribute: string]: AnyValue | CoreObject | undefined }

// ---- objects ----

/** MAKING and GOING last while an asynchronous create or destroy runs; such an object is busy for other calls. */
export const Lifecycle = { MAKING: 0, LIVE: 1, GOING: 2, GONE: 3 } as const
export type Lifecycle = (typeof Lifecycle)[keyof typeof Lifecycle]

export interface CoreObject<S = unknown> {
  /** Unique in this core and never used again, in order of creation. `MemoryTable` knows protection domains by it. */
  readonly id: number
  readonly class: ObjectClass
  /** Undefined for the objects that a device has from its start: device, interface, port. */
  readonly context: Context | undefined
  /** Handle in its context; number of the fd object; port number; 0 for device and interface. */
  handle: number
  life: Lifecycle
  /** Objects and running calls that use this one: while there are any, destroy returns EBUSY. */
  uses: number
  /** The objects that it uses; each entry is one use. */
  parents: readonly CoreObject[]
  /** State of the class's handlers; set by the create handler. */
  state: S
  /** Where its events go; undefined for a class without any (core/events/events.ts). */
  events: Affiliation | undefined
}

/**
 * An object that its client knows by a descriptor (R37). It lives as long as the descriptor is open or objects use it.
 */
export interface FdObject<S = unknown> extends CoreObject<S> {
  readonly context: Context
  readonly sink: EventSink
  /** The descriptor is closed, or the context is: no events are posted any more. */
  closed: boolean
}

// ---- events ----

/** Bytes of an event descriptor, and the element that they are about. Never changed, may be kept and compared. */
export interface EventRecord {
  readonly element: Affiliation
  /**
   * Exactly as Linux: 8 bytes {u64 user handle} for a completion, 16 bytes {u64 element, u32 type, u32 0} for an async
   * event. On an event queue 24 bytes, `Event` of the class.
   */
  readonly bytes: Uint8Array
  /** Type of the async event (ibv_event_type), -1 for a completion event. */
  readonly type: number
}

/**
 * Where the events of one fd object go: a queue in core, or a sink that a carrier has attached with `attachSink` (a
 * socket).
 */
export interface EventSink {
  post(event: EventRecord): void
  /** Awaited before the next three, if the client's end must be found first. Undefined: no need to wait. */
  reach?(): Promise<void> | undefined
  /** Withdraws the events of `element` that the client has not read, and returns them. */
  withdraw(element: Affiliation): readonly EventRecord[]
  /** How many events the client has not read. */
  unread(): number
  /** Takes the oldest events, at most `limit`: a method of the descriptor reads them (R39). */
  take(limit: number): readonly EventRecord[]
  /** No event will follow: after the remaining ones, reads return EIO (hang up). */
  end(): void
}

/** An object's events go to an event queue (R38). */
export interface Attachment {
  readonly queue: FdObject
  /** Identifies the source in the queue's records. */
  readonly cookie: bigint
  readonly class: number
  /** Its handle, a port's number, or 0 for the device. */
  readonly object: number
}

/** When completions raise an event (core/events/thresholds.ts): the queue's setting, and the state of this arming. */
export interface Threshold {
  readonly core: Core
  /** Completions, and microseconds. */
  count: number
  period: number
  /** The same, for the present arming. */
  wanted: number
  wait: number
  /** Completions since it was armed, when the first of them was counted, and when the event is raised at the latest. */
  seen: number
  first: number
  due: number
}

/** An event that is raised by time. */
export interface Deadline {
  readonly due: number
  readonly events: Affiliation
}

/** State of a source of events, made with its first event. */
export interface EventState {
  /** Events posted and not withdrawn; once the object is destroyed, those that the client has read. */
  completions: number
  asyncs: number
  /** The one completion record of this element, made when the first is posted. */
  record: EventRecord | undefined
  /** Its events go there instead. */
  attached: Attachment | undefined
  /** Undefined: every event is raised immediately. */
  threshold: Threshold | undefined
}

/** One object as a source of events: its route, whether it is armed, and how many events were sent. */
export interface Affiliation {
  /** The u64 that names the element in event records. */
  userHandle: bigint
  to: EventRoute
  /** 0 not armed, 1 for a solicited or failed completion, 2 for the next completion. */
  armed: 0 | 1 | 2
  /** Undefined before the first event, threshold or attachment: most objects never have any (R15). */
  more: EventState | undefined
}

/** Where events go. Never changed, since objects share it. */
export interface EventRoute {
  readonly channel: FdObject | undefined
  readonly asyncFd: FdObject | undefined
  /** Handlers of a client in this process, given when it made the object. */
  readonly handlers: EventHandlers | undefined
  /** Counter of handlers that failed. */
  readonly core?: Core | undefined
}

/**
 * Event handlers of a caller in this process (R33), called instead of queueing events. A handler runs while the device
 * is working: it records what happened and makes no call. An exception is only counted.
 */
export interface EventHandlers {
  /** The armed CQ that was made with this user handle has a completion. */
  completion?(userHandle: bigint): void
  /** An asynchronous event (ibv_event_type) of the object that was made with this user handle. */
  event?(userHandle: bigint, type: number): void
}

// ---- callers ----

/** A memory file of a caller: addresses are offsets in it. */
export interface FileMemory {
  readonly space: AddressSpace
  /** No region uses the file any more. */
  close(): void
}

/** The process that makes a call. */
export interface Caller {
  /** The memory in which it registers; one record for one process. */
  readonly memory: AddressSpace
  /** Bytes of the caller's memory. Throws CallError EFAULT. */
  copyIn(address: bigint, length: number): Uint8Array
  /** Writes to the caller's memory. Throws CallError EFAULT. */
  copyOut(address: bigint, bytes: Uint8Array): void
  /** Core's number of the fd object behind one of the caller's descriptors; undefined if it is something else. */
  descriptor(fd: number): number | undefined
  /** Called for the events of what this caller makes. */
  readonly handlers?: EventHandlers | undefined
  /**
   * The identity of the file behind one of the caller's descriptors, the same in every process; undefined if there is
   * none.
   */
  file?(fd: number): string | undefined
  /** The memory file behind one of the caller's descriptors. Throws CallError EBADF, EINVAL. */
  openFile?(fd: number): FileMemory
  /** Whether the caller has this right now; absent: it has all. */
  allows?(capability: Capability): boolean
  /** Called when objects were destroyed of which this caller has read events. */
  eventsRead?(object: CoreObject, read: EventsRead): void
}

/** Events of an object that its client has read, as its destroy reports them. */
export interface EventsRead {
  readonly compEvents: number
  readonly asyncEvents: number
}

/** A handler's arguments beside object and method arguments. */
export interface CallContext {
  readonly context: Context
  readonly device: Device
  /** For destruction by core itself (`why` other than 'call'): memory that faults, no descriptors. */
  readonly caller: Caller
  /**
   * Why it runs: a call; an answer of a create that could not be delivered; the context closes; the device is removed.
   * In all but the first a destroy cannot refuse and must be synchronous.
   */
  readonly why: 'call' | 'undo' | 'close' | 'remove'
  readonly entry: Entry
  /** Fd objects that the handler made in this call (`createDescriptor`); discarded if it fails. */
  descriptors: FdObject[] | undefined
  /** Further objects created by the call, for its answer (a chain). */
  made: CreatedObjects | undefined
  /** Puts back what the handler has taken for an answer that cannot be delivered (`onUndelivered`). */
  undelivered?: () => void
}

/** Objects that a call has created in addition to the one that its method creates. */
export interface CreatedObjects {
  readonly objects: readonly CoreObject[]
  readonly descriptors: readonly NewDescriptor[]
}

// ---- dispatch tables ----

export type AnyResult = HandlerValues | undefined
export type AnyHandler = (
  call: CallContext,
  object: CoreObject,
  args: HandlerValues,
  core: AnyHandler,
) => AnyResult | Promise<AnyResult>

/** One method of one class of a device. */
export interface Entry {
  readonly class: ObjectClass
  readonly name: string
  /** With the driver's attributes. */
  readonly method: Method<Attributes, Attributes>
  /** The function that runs a call: the handler, with hooks around it only if there are any. */
  readonly run: AnyHandler
  /** Calls hooks for a call that is refused before it runs; undefined without hooks. */
  readonly refused:
    | ((call: CallContext, object: CoreObject | undefined, args: HandlerValues, error: unknown) => void)
    | undefined
  readonly handler: AnyHandler
  /** Core's own version, passed to an override; returns EOPNOTSUPP if there is none. */
  readonly core: AnyHandler
  /** `open` makes the context usable (device.open); no other method runs before it. */
  readonly kind: 'open' | 'create' | 'destroy' | 'other'
  readonly references: readonly ReferenceAttribute[]
  /** Attributes that a call must have. */
  readonly required: readonly string[]
  /** The same, and what each attribute may be. */
  readonly shape: ArgumentShape
  readonly returned: readonly ReferenceAttribute[]
}

export type Block = readonly (Entry | undefined)[]
export interface ClassTable {
  readonly class: ObjectClass
  /** Eight, each as long as its highest method; undefined if it has none. */
  readonly blocks: readonly (Block | undefined)[]
}
export type Bank = readonly (ClassTable | undefined)[]
export interface DispatchTable {
  /** Classes 0 … 0x7fff by id. */
  readonly common: Bank
  /** Classes 0x8000 … 0xffff by id − 0x8000. */
  readonly private: Bank
  readonly byName: ReadonlyMap<string, ClassTable>
}

// ---- hooks (R24) ----

export interface Hook {
  /** Class and method names; absent: every one. */
  readonly class?: string
  readonly method?: string
  /** Runs after the lookup and before the handler; a CallError that it throws refuses the call. */
  pre?(call: CallContext, object: CoreObject, args: HandlerValues): void
  /**
   * Runs when the call has ended, with its results or with what it threw; an exception of the hook itself is only
   * counted. A call that was refused for its arguments or its object has no `pre`, and unchecked `args`; of these calls
   * only the destroy of an object in use has an `object`.
   */
  post?(call: CallContext, object: CoreObject | undefined, args: HandlerValues, out: AnyResult, error: unknown): void
}

// ---- clients (R31, R32) ----

export interface Client {
  readonly name: string
  /** A device was registered. If it returns false or throws, the client does not use it, and `remove` is not called. */
  add(device: Device): boolean | undefined
  /** The device is being removed, and calls return EIO. The client closes its contexts (`closeContext`). */
  remove(device: Device): void
}

/** A client as core keeps it. */
export interface ClientEntry {
  readonly client: Client
  /** The devices that it uses. */
  readonly devices: Set<Device>
  /** Its running callbacks: one may lead to another. */
  running: number
}

/** An unaffiliated event: of a port, or of the device as a whole. */
export interface DeviceEvent {
  /** ibv_event_type. */
  readonly type: number
  /** 1 …; undefined: the device. */
  readonly port: number | undefined
}
export type DeviceEventHandler = (event: DeviceEvent) => void

// ---- devices and contexts ----

export interface Port {
  /** 1 …; the `state` of the object is the Port itself. */
  readonly number: number
  readonly gids: GidTable
  /** The answer of port.query; the driver may change it (state). */
  readonly attributes: RecordOf<typeof PortAttributes>
  readonly object: CoreObject
}

/** The number of objects of a class, or of several that share the limit, and its maximum. */
export interface Limit {
  readonly classes: readonly string[]
  readonly max: number
  live: number
}

export interface Device<D = unknown> {
  readonly core: Core
  /** Changed by `renameDevice` only. */
  name: string
  /** Its number among the existing devices, from 0; the system-wide device has none (-1). */
  readonly index: number
  readonly driver: Driver<D>
  /** The driver's. */
  readonly state: D
  /** The device for codecs: its classes with its driver's attributes. */
  readonly schema: Schema
  readonly ports: readonly Port[]
  readonly memory: MemoryTable
  /** The answer of device.query. */
  readonly attributes: RecordOf<typeof DeviceAttributes>
  readonly extended: RecordOf<typeof ExtendedDeviceAttributes>
  readonly numCompVectors: number
  readonly limits: ReadonlyMap<string, Limit>
  /** Live objects per class. */
  readonly counts: Record<string, number>
  readonly contexts: Set<Context>
  readonly hooks: Hook[]
  /** Receives unaffiliated events (core/devices/clients.ts). */
  readonly eventHandlers: Set<DeviceEventHandler>
  /** The device's own object and `interface`'s, by class name. */
  readonly fixed: ReadonlyMap<string, CoreObject>
  /** The table without hooks, shared with devices that have an equal one. */
  readonly shared: DispatchTable
  table: DispatchTable
  /** False as soon as removal begins: calls return EIO. */
  alive: boolean
}

/** Attributes (ids from 0x8000) that a driver adds to methods of a common class: by method name. */
export type MethodAdditions = { readonly [method: string]: { readonly in?: Attributes; readonly out?: Attributes } }

/** One class of a driver's table with the types of its handlers erased. */
export interface DriverClass {
  readonly class: ObjectClass
  readonly handlers: Readonly<Record<string, AnyHandler | null | undefined>>
  readonly additions: MethodAdditions
  /** Methods that the driver adds to a common class, in the blocks from DRIVER_FAST on. */
  readonly methods: Methods
  /** Versions of methods for devices of one link, in place of those in `handlers` (R27). */
  readonly variants?: Readonly<Partial<Record<LinkName, DriverClass['handlers']>>>
  /** Optional arguments, of any method, that the driver does not support, each with the reason. */
  readonly lacks?: Readonly<Record<string, string>>
}

// ---- a driver's own calls (R28, R30; core/devices/driver-ops.ts) ----

/** The caller and its descriptor. */
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
  /** The interface's. */
  own: S
}

/**
 * One of a driver's interfaces beside its classes. Everything is optional; a missing function returns what a Linux file
 * returns. A handler throws CallError to refuse, and is synchronous: it reports the end of longer work by a record that
 * the client reads (`postRecord`) and can poll for.
 */
export interface DriverOps<S = unknown> {
  /** A descriptor is created; returns the state for its calls. */
  open?(call: OpsCall<undefined>): S
  /** The second and third argument of ioctl(2); returns its value, ≥ 0. Without it: ENOTTY. */
  ioctl?(call: OpsCall<S>, request: number, argument: bigint): number
  /** Bytes that were written, at most 1 MiB; returns how many were taken. Without it: EINVAL. */
  write?(call: OpsCall<S>, bytes: Uint8Array): number
  /** The memory for `length` bytes from `offset` of the descriptor on, whole pages. Without it: ENODEV. */
  mmap?(call: OpsCall<S>, offset: number, length: number, writable: boolean): MappedChunk
  /** The descriptor is closed. Cannot refuse. */
  close?(call: OpsCall<S>): void
}

// ---- management datagrams (IBA 13, 16; R40) ----

/** The other end of a datagram, and the path to it. */
export interface MadAddress {
  /** 16 bytes each. */
  readonly localGid: Uint8Array
  readonly remoteGid: Uint8Array
  /** Number of the peer's queue pair: 1 for the general services. */
  readonly qpn: number
  readonly pkey: number
  readonly flowLabel: number
  readonly trafficClass: number
  readonly hopLimit: number
}

/** Queue pair 1 of a port, as the MAD layer has it. */
export interface ManagementPort {
  /**
   * Sends a datagram of 256 bytes, now or when the port has room. False, and it is lost, if very many wait already or
   * there is no such path.
   */
  send(mad: Uint8Array, to: MadAddress): boolean
  /** The device's own answer to a request that no agent takes; undefined: it has none. */
  answer?(mad: Uint8Array): Uint8Array | undefined
  close(): void
}

/** A datagram queue pair of a client in core, in state RTS: no rings, no completions. */
export interface DatagramPort {
  readonly qpn: number
  /** Longest payload, bytes. */
  readonly mtu: number
  /**
   * Sends a datagram, now or when the port has room; the caller does not change `payload` any more. False, and it is
   * lost, if very many wait already or there is no such path.
   */
  send(payload: Uint8Array, to: MadAddress): boolean
  /** Receives datagrams to a multicast GID. Throws CallError EINVAL, ENOMEM, EADDRNOTAVAIL. */
  join(gid: Uint8Array): void
  /** Throws CallError EINVAL for a group that it has not joined. */
  leave(gid: Uint8Array): void
  close(): void
}

export interface Driver<D = unknown> {
  readonly name: string
  /** Numeric driver id of Linux (RDMA_DRIVER_RXE = 14), which the ioctl dialect checks. */
  readonly id: number
  /** Kind of its devices (`NodeType`); default CA. */
  readonly nodeType?: number
  /** Version of its part of Linux's ABI; default 1. */
  readonly abi?: number
  /** The classes this driver has; one listed without methods is core's own, an unlisted one is absent (R19). */
  readonly classes: readonly DriverClass[]
  /** By versioned name, newest first; the one that is named like the driver is its provider channel. */
  readonly interfaces?: Readonly<Record<string, DriverOps>>
  /** Link of its devices: they lack attributes of other links (R10, R27). Without one they have all. */
  readonly link?: LinkName
  /**
   * The device is being removed, and its objects still exist: waiting programs are woken now. Programs that poll shared
   * memory make no calls that could fail; the memory stays as it is (`MappedMemory.keep`). May take long: it yields
   * after a few objects.
   */
  removing?(device: Device<D>): Iterable<unknown>
  /**
   * Opens queue pair 1 of port 1; `receive` is called for each management datagram, while the device is working: it
   * makes no call. It owns `mad` and `from`. Throws CallError EBUSY while it is open.
   */
  openManagement?(device: Device<D>, receive: (mad: Uint8Array, from: MadAddress) => void): ManagementPort
  /**
   * A context was closed, and its objects will be destroyed: its queue pairs send and answer nothing from now on. May
   * take long: it yields after a few objects.
   */
  closing?(context: Context<unknown, D>): Iterable<unknown>
  /**
   * Opens a datagram queue pair on port 1. `receive` as of `openManagement`; datagrams with another Q_Key are dropped.
   */
  openDatagrams?(
    device: Device<D>,
    qkey: number,
    receive: (payload: Uint8Array, from: MadAddress) => void,
  ): DatagramPort
  /** A context was closed and all of its objects are destroyed. */
  closed?(context: Context<unknown, D>): void
  /** The device was removed and all of its objects are destroyed. */
  removed?(device: Device<D>): void
}

/** A client's use of a device: handles, fd objects, lifetime. One per open device file in Linux' terms. */
/** The process that is charged for the memory of a context's objects. */
export interface MemoryAccount {
  /** Throws CallError ENOMEM if there is no room for this many bytes. */
  charge(bytes: number): void
  release(bytes: number): void
  /** Number of the user whose process it is. */
  readonly user: number
}

export interface Context<S = unknown, D = unknown> {
  readonly id: number
  readonly device: Device<D>
  readonly handles: HandleTable<CoreObject>
  readonly descriptors: Set<FdObject>
  /** The driver's; it may set it when it first needs it. */
  state: S
  /** Memory that the client can map; undefined for a client in this process, which needs none (core/memory/mappable-memory.ts). */
  readonly mapped: MappedMemory | undefined
  /**
   * Whether the client has made the opening call (device.open, Linux: GET_CONTEXT); before it every other call is
   * EINVAL.
   */
  opened: boolean
  closed: boolean
  /** Number of its memory windows. */
  windows: number
  /** Called once all its objects are destroyed; undefined after that. */
  whenEnded: (() => void)[] | undefined
  /** Absent: its objects are not charged. */
  readonly account: MemoryAccount | undefined
  /** Where affiliated async events go by default: the first async fd that was made. */
  asyncFd: FdObject | undefined
  /** Parents and event route of the last objects: most objects need the same (R15). */
  parents: readonly CoreObject[]
  route: EventRoute
  /** Aborted when the context closes or the device is removed; made when a handler first asks (`abortSignalOf`). */
  abort: AbortController | undefined
  /** This context and each of its callers, for codecs. */
  readonly views: WeakMap<Caller, CallerView>
}

export interface Core {
  readonly devices: Map<string, Device>
  readonly descriptors: Map<number, FdObject>
  /** Core's classes with its handlers, by name. */
  readonly classes: ReadonlyMap<string, DriverClass>
  readonly tables: TablePool
  /** In order of registration. */
  readonly clients: ClientEntry[]
  /** The system-wide device, made on first use (core/devices/system.ts). */
  system: Device | undefined
  /** Microseconds, the clock of thresholds. */
  readonly now: () => number
  /** A u32: first keys and numbers of a device come from it. */
  readonly random: () => number
  /** Earliest first. */
  readonly deadlines: Deadline[]
  /** Runs long jobs (`CoreOptions.run`). */
  readonly run: (job: Iterator<unknown>) => void
  /** Closed contexts whose objects are not all destroyed. */
  readonly ending: Set<Context>
  nextObject: number
  nextContext: number
  /** Programs may use controlled Q_Keys without CAP_NET_RAW. */
  privilegedQkeys: boolean
  /** Calls whose asynchronous handlers run. */
  waiting: number
  /** Callbacks that threw where exceptions are ignored: of clients and handlers, and destroys by core itself. */
  faults: number
  readonly report: (error: unknown) => void
  events: number
}

/** Tables in use, so that equal ones are shared (R20). */
export interface TablePool {
  readonly classes: Map<string, { readonly table: ClassTable; uses: number }>
  readonly devices: Map<string, { readonly table: DispatchTable; readonly classes: readonly string[]; uses: number }>
  /** Numbers for handlers and declarations, so that keys can be built from identities. */
  readonly identities: WeakMap<object, number>
  nextIdentity: number
}
