/*
 * The records of the subsystem: core, device, context, object, fd object, and callers (docs/decisions/one-way-in.md).
 *
 * A `CoreObject` has the fields that objects of every class need (R15): class, handle, parents, use count. Its `state`
 * belongs to the handlers of its class.
 *
 * A carrier is the code that connects a client with core: a session of the daemon, or the library in this process.
 */

import type { RequestWatcher, WorkRequest } from '../spec/check/requests.ts'
import type { DeviceAttributes, ExtendedDeviceAttributes } from '../spec/classes/device/device.ts'
import type { PortAttributes } from '../spec/classes/device/port.ts'
import type { LinkName } from '../spec/links.ts'
import type { AnyValue, Attributes, Capability, Method, Methods, ObjectClass, RecordOf } from '../spec/schema/schema.ts'
import type { ArgumentShape } from '../uapi/argument-check.ts'
import type { CallerView, NewDescriptor, Schema } from '../uapi/call.ts'
import type { GidTable } from './devices/gids.ts'
import type { AddressSpace, Bytes } from './memory/address-space.ts'
import type { MappedChunk, MappedMemory } from './memory/mappable-memory.ts'
import type { MemoryTable } from './memory/region-table.ts'
import type { HandleTable } from './objects/handles.ts'

/** Values as handlers see them: references are objects instead of handles. */
export type HandlerValues = { [attribute: string]: AnyValue | CoreObject | undefined }

// ---- objects ----

/** CREATING and DESTROYING: its create or destroy runs; other calls on the object fail. */
export const Lifecycle = { CREATING: 0, LIVE: 1, DESTROYING: 2, DESTROYED: 3 } as const
export type Lifecycle = (typeof Lifecycle)[keyof typeof Lifecycle]

export interface CoreObject<S = unknown> {
  /** Unique in this core, never reused, in order of creation. `MemoryTable` identifies protection domains by it. */
  readonly id: number
  readonly class: ObjectClass
  /** Undefined for the fixed objects of a device (device, interface, port) and of the system-wide device. */
  readonly context: Context | undefined
  /** Handle in its context; number of an fd object; port number; 0 for the other fixed objects. */
  handle: number
  life: Lifecycle
  /** Number of uses by objects and by asynchronous calls: unless it is 0, a client's destroy fails with EBUSY. */
  uses: number
  /** The objects that this one uses; each entry counts as one use. */
  parents: readonly CoreObject[]
  /** The class's own data. */
  state: S
  /** The object as a source of events (core/events/events.ts); undefined if it is none. */
  events: Affiliation | undefined
}

/** An object to which its client refers by a descriptor (R37). It outlives the descriptor while it is in use. */
export interface FdObject<S = unknown> extends CoreObject<S> {
  readonly context: Context
  readonly sink: EventSink
  /** The descriptor or the context was closed: no events are posted any more. */
  isClosed: boolean
}

// ---- events ----

/** The bytes of an event, and its source. Immutable: may be kept and compared. */
export interface EventRecord {
  /** The source. */
  readonly element: Affiliation
  /**
   * As read(2) returns them, little-endian. Linux' bytes: {u64 user handle} for a completion, {u64 element, u32 type,
   * u32 0} for an async event. On an event queue 24 bytes, the record `Event` of that class. A driver's own record and
   * an event of the connection manager have their own formats.
   */
  readonly bytes: Uint8Array
  /**
   * Type of the async event (ibv_event_type) or event of the connection manager; -1 for a completion, a driver's
   * record, and a connection manager's event on an event queue.
   */
  readonly type: number
}

/**
 * The destination of the events of one fd object: a queue in core, or a sink that a carrier has attached with
 * `attachSink`, for example a socket.
 */
export interface EventSink {
  /** Delivers an event to the client, or queues it. */
  post(event: EventRecord): void
  /**
   * A promise to await before `withdraw`, `unread` and `take`, since a socket must first find its client's end;
   * undefined if there is nothing to wait for.
   */
  prepareWithdraw?(): Promise<void> | undefined
  /** Withdraws the events of `element` that the client has not read, and returns them. */
  withdraw(element: Affiliation): readonly EventRecord[]
  /** Number of events that the client has not read. */
  unread(): number
  /** Takes the oldest events, at most `limit`, for a method that reads them (R39). */
  take(limit: number): readonly EventRecord[]
  /** No further event follows: once the remaining ones are read, the client reads EIO, or end-of-file on a socket. */
  end(): void
}

/** The attachment of an event source to an event queue (R38). */
export interface Attachment {
  readonly queue: FdObject
  /** Identifies the source in the queue's records; chosen by the client. */
  readonly cookie: bigint
  readonly class: number
  /** Handle of the object, port number, or 0 for the device. */
  readonly object: number
}

/**
 * When completions of a CQ raise an event (core/events/thresholds.ts): the CQ's setting, and the state of its current
 * arming.
 */
export interface Threshold {
  readonly core: Core
  /** The CQ's setting: number of completions, and microseconds; 0: no such condition. */
  count: number
  period: number
  /** The same two values for the current arming. */
  armedCount: number
  armedPeriod: number
  /**
   * Number of completions counted since the CQ was armed, for SOLICITED only solicited and failed ones; the times on
   * core's clock of the first of them, and of the event (Infinity: none is scheduled).
   */
  completions: number
  firstCompletion: number
  due: number
}

/** A completion event to be raised at a time, unless it is raised before. */
export interface Deadline {
  /** Microseconds of core's clock. */
  readonly due: number
  readonly events: Affiliation
}

/** State of an event source, created when it is first needed. */
export interface EventState {
  /**
   * Number of completion events and of async events that were posted and not withdrawn. A destroy withdraws the unread
   * ones; what remains is the number that the client has read.
   */
  completions: number
  asyncs: number
  /** The completion record of this source, the same for all completions; created when the first is posted. */
  record: EventRecord | undefined
  /**
   * The event queue to which the source is attached; its events are sent there instead, those of the connection manager
   * in addition to its channel.
   */
  attached: Attachment | undefined
  /** Undefined: the next completion of the armed CQ raises its event immediately. */
  threshold: Threshold | undefined
}

/** Which completion raises the event of a CQ: none, the next solicited or failed one, or the next one. */
export const Armed = { NO: 0, SOLICITED: 1, NEXT: 2 } as const
export type Armed = (typeof Armed)[keyof typeof Armed]

/** A source of events: an object, or the device, a port or a driver's descriptor. */
export interface Affiliation {
  /** The u64 that identifies the source in event records, except those of event queues (`Attachment.cookie`). */
  userHandle: bigint
  route: EventRoute
  armed: Armed
  /** Undefined before the first event, threshold or attachment, which most objects never have (R15). */
  state: EventState | undefined
}

/** The destination of events. Immutable, since objects share it. */
export interface EventRoute {
  readonly channel: FdObject | undefined
  readonly asyncFd: FdObject | undefined
  /** Handlers of a client in this process, passed when it created the object. */
  readonly handlers: EventHandlers | undefined
  /** Counts the handlers' exceptions. */
  readonly core?: Core | undefined
}

/**
 * Event handlers of a caller in this process (R33), called instead of queueing events. A handler runs in the middle of
 * the device's work: it records what happened and must not make calls. An exception is counted and
 * reported (core/attempt.ts).
 */
export interface EventHandlers {
  /** An armed CQ, identified by the user handle of its create, has a completion. */
  completion?(userHandle: bigint): void
  /** An asynchronous event (ibv_event_type) of an object, identified by the user handle of its create. */
  event?(userHandle: bigint, type: number): void
}

// ---- callers ----

/** A memory file of a caller; addresses are offsets in it. */
export interface FileMemory {
  readonly space: AddressSpace
  /** Called when the region that uses it is destroyed, or cannot be created. */
  close(): void
}

/** The process that makes a call. */
export interface Caller {
  /** The memory in which the process registers regions; the same record for all its calls. */
  readonly memory: AddressSpace
  /** Bytes of the caller's memory. Throws CallError EFAULT. */
  copyIn(address: bigint, length: number): Uint8Array
  /** Writes to the caller's memory. Throws CallError EFAULT. */
  copyOut(address: bigint, bytes: Uint8Array): void
  /** Core's number of the fd object behind one of the caller's descriptors; undefined if it is not one. */
  descriptor(fd: number): number | undefined
  /** Handlers for events of the objects that this caller creates. */
  readonly handlers?: EventHandlers | undefined
  /**
   * Identity of the file behind one of the caller's descriptors, equal for all processes that have the file open;
   * undefined if the descriptor is not open.
   */
  file?(fd: number): string | undefined
  /** The memory file behind one of the caller's descriptors. Throws CallError EBADF, EINVAL, EMFILE, ENFILE. */
  openFile?(fd: number): FileMemory
  /** Whether the caller has this capability now. Absent: it has all. */
  allows?(capability: Capability): boolean
  /** This caller destroys an object of which the client has read events (`withdrawEvents`). */
  eventsRead?(object: CoreObject, read: EventsRead): void
}

/** Numbers of an object's events that its client has read, as a destroy reports them. */
export interface EventsRead {
  readonly compEvents: number
  readonly asyncEvents: number
}

/** Arguments of a handler in addition to the object and the method's arguments. */
export interface CallContext {
  readonly context: Context
  readonly device: Device
  /** For destroys by core itself (`why` is not 'call'): a caller whose memory faults and that has no descriptors. */
  readonly caller: Caller
  /**
   * Why the handler runs: 'call' a client's call; 'undo' a destroy of an object whose creating call failed or could not
   * be answered; 'close' the context closes, or the descriptor of an fd object; 'remove' the device is removed. Except
   * for 'call', a destroy cannot refuse and must be synchronous.
   */
  readonly why: 'call' | 'undo' | 'close' | 'remove'
  readonly entry: Entry
  /** Fd objects that the handler created in this call (`createDescriptor`); discarded if the call fails. */
  descriptors: FdObject[] | undefined
  /** Objects that the call created in addition to its own, for its answer: those of a chain, and of pd.createAhs. */
  alsoCreated: CreatedObjects | undefined
  /**
   * Called if the answer cannot be delivered: puts back events and messages that the handler took (`onUndelivered`).
   */
  undelivered?: () => void
}

/** Objects that a call created in addition to the one that its method creates. */
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

/** An attribute that refers to an object. */
export interface ReferenceAttribute {
  readonly name: string
  readonly class: string
  /** Whether it is a file descriptor of the caller, not a handle. */
  readonly isFd: boolean
  readonly isOptional: boolean
}

/** One method of one class of a device. */
export interface Entry {
  readonly class: ObjectClass
  readonly name: string
  /** The method, with the driver's attributes. */
  readonly method: Method<Attributes, Attributes>
  /** The function that runs a call: the handler, and hooks around it if there are any. */
  readonly run: AnyHandler
  /** Calls the `post` hooks for a call that is refused before its handler; undefined without hooks. */
  readonly refused:
    | ((call: CallContext, object: CoreObject | undefined, args: HandlerValues, error: unknown) => void)
    | undefined
  /** `run` without hooks. */
  readonly handler: AnyHandler
  /** Core's own version, which a driver's override can call; throws EOPNOTSUPP if core has none. */
  readonly core: AnyHandler
  /** `open`: device.open, which makes the context usable; before it no other method runs. */
  readonly kind: 'open' | 'create' | 'destroy' | 'other'
  /** Attributes of the arguments that refer to objects. */
  readonly references: readonly ReferenceAttribute[]
  /** Names of the mandatory arguments. */
  readonly required: readonly string[]
  /** The types of all arguments, and which are mandatory. */
  readonly shape: ArgumentShape
  /** Attributes of the results that refer to objects. */
  readonly returned: readonly ReferenceAttribute[]
}

/** Up to 32 methods, by the lowest five bits of the call number. */
export type Block = readonly (Entry | undefined)[]
export interface ClassTable {
  readonly class: ObjectClass
  /**
   * Eight, by the highest three bits of the call number; each ends with its last method, and is undefined without any.
   */
  readonly blocks: readonly (Block | undefined)[]
}
/** Classes by their number in the bank. */
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
  /** Names of class and method; absent: all. */
  readonly class?: string
  readonly method?: string
  /**
   * Runs after the look-up and before the handler. A CallError that it throws refuses the call; destroys by core itself
   * ignore it.
   */
  pre?(call: CallContext, object: CoreObject, args: HandlerValues): void
  /**
   * Runs when the handler has ended, with its results or with what it threw, or when a `pre` has refused the call; an
   * exception of the hook itself is counted and reported. Also runs if the call was refused before `pre`: then `args`
   * are unchecked, and only the destroy of an object in use has an `object`.
   */
  post?(call: CallContext, object: CoreObject | undefined, args: HandlerValues, out: AnyResult, error: unknown): void
}

// ---- clients (R31, R32) ----

/** A part of the subsystem that is told of every device and may use it, as Linux' ib_client. */
export interface Client {
  readonly name: string
  /**
   * A device is registered. If this returns false or throws, the client does not use the device, and `remove` is not
   * called.
   */
  add(device: Device): boolean | undefined
  /**
   * The device is being removed, and its calls return EIO; or the client is unregistered. The client closes its
   * contexts (`closeContext`).
   */
  remove(device: Device): void
}

/** Core's record of a client. */
export interface ClientEntry {
  readonly client: Client
  /** The devices that the client uses. */
  readonly devices: Set<Device>
  /** Number of the client's callbacks that run now, which may be nested. */
  runningCallbacks: number
}

/** An unaffiliated event: of a port, or of the device as a whole. */
export interface DeviceEvent {
  /** ibv_event_type. */
  readonly type: number
  /**
   * Port number from 1; undefined: the event is the device's. For events of the system-wide device the index of the
   * device that was added or removed.
   */
  readonly port: number | undefined
}
export type DeviceEventHandler = (event: DeviceEvent) => void

// ---- devices and contexts ----

export interface Port {
  /** From 1. The `state` of the port's object is the Port. */
  readonly number: number
  readonly gids: GidTable
  /** The answer of port.query. The driver may change its fields, for example `state`. */
  readonly attributes: RecordOf<typeof PortAttributes>
  readonly object: CoreObject
}

/** The maximum number of objects of one class, or of several classes together, and their current number. */
export interface Limit {
  readonly classes: readonly string[]
  readonly max: number
  live: number
}

export interface Device<D = unknown> {
  readonly core: Core
  /** Changed only by `renameDevice`. */
  name: string
  /** Number among the existing devices, from 0; -1 for the system-wide device. */
  readonly index: number
  readonly driver: Driver<D>
  /** The driver's own state. */
  readonly state: D
  /** The device's classes with the driver's attributes, for codecs. */
  readonly schema: Schema
  readonly ports: readonly Port[]
  readonly memory: MemoryTable
  /** The answer of device.query. */
  readonly attributes: RecordOf<typeof DeviceAttributes>
  readonly extended: RecordOf<typeof ExtendedDeviceAttributes>
  readonly numCompVectors: number
  readonly limits: ReadonlyMap<string, Limit>
  /** Number of objects per class name. */
  readonly counts: Record<string, number>
  readonly contexts: Set<Context>
  readonly hooks: Hook[]
  /** Receives unaffiliated events (core/devices/clients.ts). */
  readonly eventHandlers: Set<DeviceEventHandler>
  /**
   * The fixed objects other than ports, by class name: interface and device; of the system-wide device interface and
   * system.
   */
  readonly fixedObjects: ReadonlyMap<string, CoreObject>
  /** The table without hooks, shared with devices that have an equal one. */
  readonly sharedTable: DispatchTable
  /** The table that calls use: `sharedTable` with the device's hooks. */
  table: DispatchTable
  /** False from the start of the device's removal: calls return EIO. */
  isAlive: boolean
}

/** Attributes (ids from 0x8000) that a driver adds to methods of a common class, by method name. */
export type MethodAdditions = { readonly [method: string]: { readonly in?: Attributes; readonly out?: Attributes } }

/** A class in a driver's table, with the types of its handlers erased. */
export interface DriverClass {
  readonly class: ObjectClass
  readonly handlers: Readonly<Record<string, AnyHandler | null | undefined>>
  readonly additions: MethodAdditions
  /** Methods that the driver adds to a common class, in the blocks from DRIVER_FAST on. */
  readonly methods: Methods
  /** Versions of methods for devices of one link, which replace those in `handlers` (R27). */
  readonly variants?: Readonly<Partial<Record<LinkName, DriverClass['handlers']>>>
  /** Optional attributes of any method that the driver does not support, each with the reason. */
  readonly unsupported?: Readonly<Record<string, string>>
}

// ---- a driver's own calls (R28, R30; core/devices/driver-ops.ts) ----

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
  /** The interface's own state. */
  interfaceState: S
}

/**
 * One of a driver's interfaces in addition to its classes. Everything is optional; without a function the call fails as
 * on a Linux file without it. A handler throws CallError to refuse, and is synchronous: it reports the end of longer
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

/** Queue pair 1 of a port, for the MAD layer. */
export interface ManagementPort {
  /**
   * Sends a datagram of 256 bytes, now or when the port can take it. Returns false, and drops the datagram, if too many
   * wait already or there is no path to the address.
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
   * Sends a datagram, now or when the port can take it; the caller must not change `payload` afterwards. Returns false,
   * and drops the datagram, if too many wait already or there is no path to the address.
   */
  send(payload: Uint8Array, to: MadAddress): boolean
  /** Joins a multicast group. Throws CallError EINVAL, ENOMEM, EADDRNOTAVAIL. */
  join(gid: Uint8Array): void
  /** Leaves a multicast group. Throws CallError EINVAL if it was not joined. */
  leave(gid: Uint8Array): void
  close(): void
}

/**
 * Functions that examine a watched device now. Those named `report` tell its `RequestWatcher` what the program has done
 * since the last time.
 */
export interface RequestPoll {
  /** Reports completions of a CQ that were polled. */
  reportCq(cq: CoreObject): void
  /** Reports new receives of a context's queue pairs, and polled completions of their CQs. */
  reportContext(context: Context): void
  /**
   * A hash of the bytes that an outstanding send reads: all of a short message, of a long one samples unless `isWhole`.
   * Undefined if they cannot be read.
   */
  digest(request: WorkRequest, isWhole: boolean): number | undefined
}

export interface Driver<D = unknown> {
  readonly name: string
  /** Linux's driver id (rdma_driver_id: RDMA_DRIVER_RXE = 14), which the ioctl dialect checks. */
  readonly id: number
  /** Node type of its devices (`NodeType`); default CA. */
  readonly nodeType?: number
  /** Version of the driver's part of Linux's ABI; default 1. */
  readonly abi?: number
  /** The classes of the driver's devices. A class without methods is core's own, an unlisted one is absent (R19). */
  readonly classes: readonly DriverClass[]
  /** By versioned name, newest first. The interface with the driver's own name is its provider channel. */
  readonly interfaces?: Readonly<Record<string, DriverOps>>
  /** Link of its devices, which do not have attributes of other links (R10, R27). Undefined: they have all. */
  readonly link?: LinkName
  /**
   * The device is being removed, and its objects still exist: ends their work with errors, for programs that poll
   * shared memory and make no calls (`MappedMemory.keepMapped`). May take long: yields after a few objects.
   */
  removing?(device: Device<D>): Iterable<unknown>
  /**
   * Opens queue pair 1 of port 1. `receive` is called for each management datagram in the middle of the device's work,
   * so it must not make calls; it may keep `mad` and `from`. Throws CallError EBUSY if the queue pair is open already.
   */
  openManagement?(device: Device<D>, receive: (mad: Uint8Array, from: MadAddress) => void): ManagementPort
  /**
   * A context was closed, and its objects will be destroyed: its queue pairs stop sending and responding now. May take
   * long: yields after a few objects.
   */
  closing?(context: Context<unknown, D>): Iterable<unknown>
  /**
   * Opens a datagram queue pair on port 1. `receive` as for `openManagement`; datagrams with another Q_Key are dropped.
   */
  openDatagrams?(
    device: Device<D>,
    qkey: number,
    receive: (payload: Uint8Array, from: MadAddress) => void,
  ): DatagramPort
  /**
   * Reports the device's requests to `watcher` from now on (spec/check/requests.ts). A device has one watcher.
   * `scratch`: a buffer of SCRATCH_BYTES.
   */
  watch?(device: Device<D>, watcher: RequestWatcher, scratch: Bytes): RequestPoll
  /** A context was closed, and all its objects were destroyed. */
  closed?(context: Context<unknown, D>): void
  /** The device was removed, and all its objects were destroyed. */
  removed?(device: Device<D>): void
}

/** The account to which the objects of a context are charged. */
export interface MemoryAccount {
  /** Throws CallError ENOMEM if the quota would be exceeded. */
  charge(bytes: number): void
  /** Charges bytes that were released for a call that then failed, also beyond the quota. */
  recharge(bytes: number): void
  release(bytes: number): void
  /** The client's uid. */
  readonly user: number
}

/** A client's use of a device: handles, fd objects, lifetime. One per open device file in Linux' terms. */
export interface Context<S = unknown, D = unknown> {
  readonly id: number
  readonly device: Device<D>
  readonly handles: HandleTable<CoreObject>
  readonly descriptors: Set<FdObject>
  /** The driver's own state, set when the driver first needs it. */
  state: S
  /**
   * Memory that the client can map; undefined for a client that needs none, whose objects get ordinary memory
   * (`mappedMemoryOf`).
   */
  readonly mapped: MappedMemory | undefined
  /**
   * Whether the client has made the opening call (device.open, Linux: GET_CONTEXT) or needs none; before that all other
   * calls return EINVAL.
   */
  isOpened: boolean
  isClosed: boolean
  /** Number of the context's memory windows. */
  windowCount: number
  /** Called when all objects of the context are destroyed; undefined after that. */
  whenEnded: (() => void)[] | undefined
  /** Undefined: the context's objects are not charged. */
  readonly account: MemoryAccount | undefined
  /** The default destination of async events: the first async fd that was created. */
  asyncFd: FdObject | undefined
  /** Parents and event route of the last created object: the next object usually shares these records (R15). */
  lastParents: readonly CoreObject[]
  lastRoute: EventRoute
  /**
   * Aborts when the context closes or the device is removed; created when a handler first requests it
   * (`abortSignalOf`).
   */
  abortController: AbortController | undefined
  /** The codecs' view of this context, per caller. */
  readonly views: WeakMap<Caller, CallerView>
}

export interface Core {
  readonly devices: Map<string, Device>
  readonly descriptors: Map<number, FdObject>
  /** Core's classes with core's handlers, by name. */
  readonly classes: ReadonlyMap<string, DriverClass>
  readonly tables: TablePool
  /** In order of registration. */
  readonly clients: ClientEntry[]
  /** The system-wide device, created at its first use (core/devices/system.ts). */
  system: Device | undefined
  /** Microseconds: the clock of thresholds and of device.queryClock. */
  readonly now: () => number
  /** Returns a u32, from which the first keys and QPNs of a device come. */
  readonly random: () => number
  /** Earliest first. */
  readonly deadlines: Deadline[]
  /** Runs long jobs (`CoreOptions.run`). */
  readonly runJob: (job: Iterator<unknown>) => void
  /** Closed contexts whose objects are not all destroyed yet. */
  readonly endingContexts: Set<Context>
  nextObject: number
  nextContext: number
  /** Whether programs may use controlled Q_Keys without CAP_NET_RAW. */
  allowsPrivilegedQkeys: boolean
  /** Number of calls whose asynchronous handlers run. */
  waitingCalls: number
  /** Number of exceptions that core has caught and ignored (core/attempt.ts). */
  faults: number
  /** Called with each of these exceptions. */
  readonly report: (error: unknown) => void
  /** Number of events posted since the start. */
  events: number
}

/** Dispatch tables in use, so that devices with equal tables share them (R20). */
export interface TablePool {
  readonly classes: Map<string, { readonly table: ClassTable; uses: number }>
  readonly devices: Map<string, { readonly table: DispatchTable; readonly classes: readonly string[]; uses: number }>
  /** Numbers of handlers and declarations, for keys built from identities. */
  readonly identities: WeakMap<object, number>
  nextIdentity: number
}
