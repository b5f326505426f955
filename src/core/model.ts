/*
 * The records of the subsystem: core, device, context, object, fd object, and callers (docs/decisions/one-way-in.md).
 *
 * A `CoreObject` has the fields that objects of every class need (R15): class, handle, parents, use count. Its `state`
 * belongs to the handlers of its class.
 *
 * A carrier is the code that connects a client with core: a session of the daemon, or the library in this process.
 */

import type { DeviceAttributes, ExtendedDeviceAttributes } from '../spec/classes/device/device.ts'
import type { PortAttributes } from '../spec/classes/device/port.ts'
import type { ErrnoName } from '../spec/errno.ts'
import type { AnyValue, Attributes, Capability, Method, ObjectClass, RecordOf } from '../spec/schema/schema.ts'
import type { ArgumentShape } from '../uapi/argument-check.ts'
import type { CallerView, NewDescriptor, Schema } from '../uapi/call.ts'
import type { GidTable } from './devices/gids.ts'
import type { ClientClasses, DeviceTaps, Driver, DriverClass } from './driver-contract.ts'
import type { AddressSpace } from './memory/address-space.ts'
import type { MappedMemory, SharedWord } from './memory/mappable-memory.ts'
import type { MemoryTable } from './memory/region-table.ts'
import type { HandleTable } from './objects/handles.ts'

/** Values as handlers see them: references are objects instead of handles. */
export type HandlerValues = { [attribute: string]: AnyValue | CoreObject | undefined }

// ---- objects ----

/** CREATING and DESTROYING: the create or destroy handler runs, and other calls on the object fail. */
export const Lifecycle = { CREATING: 0, LIVE: 1, DESTROYING: 2, DESTROYED: 3 } as const
export type Lifecycle = (typeof Lifecycle)[keyof typeof Lifecycle]

export interface CoreObject<S = unknown> {
  /** Unique in this core, ascending, never reused. */
  readonly id: number
  readonly class: ObjectClass
  /** Undefined for a device's fixed objects: device, interface, ports, system. */
  readonly context: Context | undefined
  /** Handle in the context. An fd object: its number. A port: its port number. Other fixed objects: 0. */
  handle: number
  life: Lifecycle
  /** Number of uses by objects and by asynchronous calls. Unless it is 0, a client's destroy fails with EBUSY. */
  uses: number
  /** The objects that this object uses. Each entry counts as one use. */
  parents: readonly CoreObject[]
  state: S
  /** Undefined: the object is no source of events. */
  events: Affiliation | undefined
}

/** An object behind a file descriptor of the client. Remains after the close while other objects use it. */
export interface FdObject<S = unknown> extends CoreObject<S> {
  readonly context: Context
  readonly sink: EventSink
  /** The descriptor or the context was closed: no events are posted any more. */
  isClosed: boolean
}

// ---- events ----

/** The bytes of an event, and its source. Immutable: may be kept and compared. */
export interface EventRecord {
  /** The source of the event. */
  readonly element: Affiliation
  /**
   * As read(2) returns them, little-endian:
   * - a completion: {u64 user handle}, Linux' format;
   * - an async event: {u64 element, u32 type, u32 0}, Linux' format;
   * - an event of an event queue: 24 bytes, the record `Event` of that class.
   *
   * A driver's record and an event of the connection manager have their own formats.
   */
  readonly bytes: Uint8Array
  /**
   * Type of the async event (ibv_event_type) or of the connection manager's event. -1 for all other records, and for a
   * connection manager's event on an event queue.
   */
  readonly type: number
}

/**
 * The destination of one fd object's events: a queue in core, or a carrier's own sink (`attachSink`), for example a
 * socket.
 */
export interface EventSink {
  /** Delivers an event to the client, or queues it. */
  post(event: EventRecord): void
  /**
   * To be awaited before `withdraw`, `unread` and `take`: a socket must first find the client's end. Undefined: nothing
   * to wait for.
   */
  prepareWithdraw?(): Promise<void> | undefined
  /** Withdraws the events of `element` that the client has not read, and returns them. */
  withdraw(element: Affiliation): readonly EventRecord[]
  /** To be awaited before `skipTurn`, as `prepareWithdraw`. */
  prepareSkip?(): Promise<void> | undefined
  /**
   * Lets the thread that has waited longest for an event wait again behind the others: delivers the event and takes it
   * back. True: the thread has read it first, so it is delivered. Absent: nobody waits.
   */
  skipTurn?(event: EventRecord): boolean
  /** Number of events that the client has not read. */
  unread(): number
  /** Takes the oldest events, at most `limit`, for a method that reads them. */
  take(limit: number): readonly EventRecord[]
  /** No event follows. After the remaining events the client reads EIO; on a socket, end-of-file. */
  end(): void
}

/** The attachment of an event source to an event queue. */
export interface Attachment {
  readonly queue: FdObject
  /** Identifies the source in the queue's records; chosen by the client. */
  readonly cookie: bigint
  /** Class id of the source. */
  readonly class: number
  /** Handle of the object, port number, or 0 for the device. */
  readonly object: number
}

/**
 * Moderation of a CQ's completion events (core/events/thresholds.ts): the CQ's setting, and the state of its current
 * arming.
 */
export interface Threshold {
  readonly core: Core
  /** The CQ's setting: number of completions, and microseconds. 0: no such condition. */
  count: number
  period: number
  /** Count and period of the current arming. */
  armedCount: number
  armedPeriod: number
  /**
   * Number of completions since the CQ was armed. If it was armed for SOLICITED: of solicited and failed completions.
   */
  completions: number
  /** Time of the first of these completions, on core's clock. */
  firstCompletion: number
  /** Time of the scheduled event, on core's clock. Infinity: none. */
  due: number
}

/** A completion event that is raised at `due`, unless it is raised before. */
export interface Deadline {
  /** Microseconds of core's clock. */
  readonly due: number
  readonly events: Affiliation
}

/** State of an event source, created when it is first needed. */
export interface EventState {
  /**
   * Numbers of completion events and of async events that were posted and not withdrawn. A destroy withdraws the unread
   * events, so the rest are the events that the client has read.
   */
  completions: number
  asyncs: number
  /** The record of this source's completion events, created for the first of them. */
  record: EventRecord | undefined
  /**
   * If set, the source's events go to this event queue instead. The connection manager's events go to both the queue
   * and their channel.
   */
  attached: Attachment | undefined
  /** Undefined: the next completion of the armed CQ raises its event immediately. */
  threshold: Threshold | undefined
  /** The word by which the program arms the CQ (`ArmWord`); undefined: only calls arm it. */
  armWord: SharedWord | undefined
}

/** Which completion raises the event of a CQ: none, the next solicited or failed completion, or the next completion. */
export const Armed = { NO: 0, SOLICITED: 1, NEXT: 2 } as const
export type Armed = (typeof Armed)[keyof typeof Armed]

/** Milliseconds; 0: not. */
export interface Lateness {
  readonly delay: number
  readonly again: number
  /** After so many milliseconds it comes to the thread that waits next (`EventSink.skipTurn`); 0: not. */
  readonly turn: number
}

/** What a rule does to an event of a descriptor, and how to wait. */
export interface EventDelays {
  decide(fd: FdObject, event: EventRecord): Lateness | undefined
  wait(milliseconds: number): Promise<void>
}

/** A source of events: an object, the device, a port, or a driver's descriptor. */
export interface Affiliation {
  /** Identifies the source in event records (u64). Event queues use `Attachment.cookie` instead. */
  userHandle: bigint
  route: EventRoute
  armed: Armed
  /** Whether it was armed before. */
  wasArmed: boolean
  /** Undefined before the first event, threshold or attachment. Most objects never have one. */
  state: EventState | undefined
}

/** The destination of events. Immutable, because objects share the record. */
export interface EventRoute {
  readonly channel: FdObject | undefined
  readonly asyncFd: FdObject | undefined
  /** Handlers of a client in this process (`Caller.handlers`). */
  readonly handlers: EventHandlers | undefined
  /** Counts the handlers' exceptions. */
  readonly core?: Core | undefined
}

/**
 * Event handlers of a caller in this process, called instead of queueing events. A handler runs in the middle of
 * the device's work and must not make calls. An exception is counted and reported (core/attempt.ts).
 */
export interface EventHandlers {
  /** An armed CQ has a completion. `userHandle`: from the create of the CQ. */
  completion?(userHandle: bigint): void
  /** An object has an asynchronous event (ibv_event_type). `userHandle`: from the create of the object. */
  event?(userHandle: bigint, type: number): void
}

// ---- callers ----

/** An eventfd of a caller. */
export interface SignalFd {
  /** Adds 1 to its count. Never waits. */
  signal(): void
  close(): void
}

/** A memory file of a caller; addresses are offsets in it. */
export interface FileMemory {
  readonly space: AddressSpace
  /** Called when the region that uses the file is destroyed or cannot be created. */
  close(): void
}

/** A process, as fault rules select it. */
export interface CallingProcess {
  readonly pid: number
  /** Its command. */
  name(): string
  /** Its place in the tree of forks, with commands: the same in each run of the same programs. Absent: unknown. */
  readonly place?: (() => string) | undefined
}

/** The process that makes a call. */
export interface Caller {
  /** The memory in which the process registers regions; the same record for all its calls. */
  readonly memory: AddressSpace
  /** Bytes of the caller's memory. Throws CallError EFAULT. */
  copyIn(address: bigint, length: number): Uint8Array
  /** Writes to the caller's memory. Throws CallError EFAULT. */
  copyOut(address: bigint, bytes: Uint8Array): void
  /** Core's number of the fd object behind a descriptor of the caller. Undefined: not an fd object. */
  descriptor(fd: number): number | undefined
  /** The process; undefined for a caller inside the subsystem. Fault rules act only on calls of processes. */
  readonly process?: CallingProcess | undefined
  /** Handlers for events of the objects that this caller creates. */
  readonly handlers?: EventHandlers | undefined
  /**
   * Identity of the file behind a descriptor of the caller, equal for all processes that have the file open. Undefined:
   * the descriptor is not open.
   */
  file?(fd: number): string | undefined
  /** The memory file or dma-buf behind a descriptor of the caller. Throws CallError EBADF, EINVAL, EMFILE, ENFILE, … */
  openFile?(fd: number): FileMemory
  /**
   * The eventfd behind a descriptor of the caller. Throws CallError EBADF, EINVAL, EMFILE, ENFILE. Absent: there is
   * none.
   */
  openSignal?(fd: number): SignalFd
  /** By number of a processor, whether the caller may run on it. Undefined: unknown. */
  processors?(): readonly boolean[] | undefined
  /** Whether the caller has this now. Absent: the caller has all. */
  allows?(capability: Capability): boolean
  /** Called when this caller destroys or moves an object whose events the client has read. */
  eventsRead?(object: CoreObject, read: EventsRead): void
}

/** How many events of an object its client has read. A destroy returns these numbers. `isMove`: to another channel. */
export interface EventsRead {
  readonly compEvents: number
  readonly asyncEvents: number
  readonly isMove?: true
}

/** Arguments of a handler in addition to the object and the method's arguments. */
export interface CallContext {
  readonly context: Context
  readonly device: Device
  /** For a destroy by core itself: a caller without descriptors, whose memory faults. */
  readonly caller: Caller
  /**
   * Why the handler runs:
   * - 'call': a client's call;
   * - 'undo': the destroy of an object whose creating call failed or could not be answered;
   * - 'close': the context or the fd object's descriptor was closed;
   * - 'remove': the device is being removed.
   *
   * Except for 'call', a destroy cannot refuse and must be synchronous.
   */
  readonly why: 'call' | 'undo' | 'close' | 'remove'
  readonly entry: Entry
  /** Fd objects that the handler created in this call (`createDescriptor`); discarded if the call fails. */
  descriptors: FdObject[] | undefined
  /** Objects that the call created in addition to its own: by interface.chain or pd.createAhs. */
  alsoCreated: CreatedObjects | undefined
  /**
   * Called if the answer cannot be delivered: puts back events and messages that the handler took (`onUndelivered`).
   */
  putBack?: () => void
}

/** Objects that a call created in addition to its own object. */
export interface CreatedObjects {
  readonly objects: readonly CoreObject[]
  readonly descriptors: readonly NewDescriptor[]
}

// ---- dispatch tables ----

export type AnyResult = HandlerValues | undefined
/** `core`: see `Entry.core`. */
export type AnyHandler = (
  call: CallContext,
  object: CoreObject,
  args: HandlerValues,
  core: AnyHandler,
) => AnyResult | Promise<AnyResult>

export interface ReferenceAttribute {
  readonly name: string
  readonly class: string
  /** A file descriptor of the caller instead of a handle. */
  readonly isFd: boolean
}

/** One method of one class of a device. */
export interface Entry {
  readonly class: ObjectClass
  readonly name: string
  /** The method, with the driver's attributes. */
  readonly method: Method<Attributes, Attributes>
  /** Runs a call: the handler, and hooks around it if there are any. */
  readonly run: AnyHandler
  /** Calls the `post` hooks for a call that is refused before its handler runs. Undefined: no hooks. */
  readonly onRefused:
    | ((call: CallContext, object: CoreObject | undefined, args: HandlerValues, error: unknown) => void)
    | undefined
  /** `run` without hooks. */
  readonly handler: AnyHandler
  /** Core's own version, which a driver's override can call; throws EOPNOTSUPP if core has none. */
  readonly core: AnyHandler
  /** `open`: device.open, which must be the first call of a context. */
  readonly kind: 'open' | 'create' | 'destroy' | 'other'
  /** Arguments that refer to objects. */
  readonly references: readonly ReferenceAttribute[]
  /** Names of the mandatory arguments. */
  readonly required: readonly string[]
  /** The types of all arguments, and which are mandatory. */
  readonly shape: ArgumentShape
  /** Results that refer to objects. */
  readonly returned: readonly ReferenceAttribute[]
}

/** Up to 32 methods, by the lowest five bits of the call number. */
export type Block = readonly (Entry | undefined)[]
export interface ClassTable {
  readonly class: ObjectClass
  /** Eight blocks, by the highest three bits of the call number. A block without methods is undefined. */
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
  /** Names of class and method; absent: all. */
  readonly class?: string
  readonly method?: string
  /** Runs before the handler. A CallError that it throws refuses the call; destroys by core itself ignore it. */
  pre?(call: CallContext, object: CoreObject, args: HandlerValues): void
  /**
   * Called after all `pre` of a client's call. The handler runs once the promise is fulfilled; then the call is
   * asynchronous. A CallError that it throws, or with which the promise is rejected, refuses the call.
   */
  delay?(call: CallContext, object: CoreObject, args: HandlerValues): Promise<void> | undefined
  /**
   * Runs after the handler, with its results or its exception, and for a call that an argument check or `pre` refused.
   * If a check refused the call, `args` are unchecked, and `object` is undefined except for the destroy of an object in
   * use. An exception of the hook is counted and reported.
   */
  post?(call: CallContext, object: CoreObject | undefined, args: HandlerValues, out: AnyResult, error: unknown): void
}

// ---- clients (R31, R32) ----

/** A consumer of devices inside the subsystem, as Linux' ib_client. */
export interface Client {
  readonly name: string
  /**
   * A device was registered. If `add` returns false or throws, the client does not use the device, and `remove` is not
   * called.
   */
  add(device: Device): boolean | undefined
  /**
   * The device is being removed, or the client is unregistered. The client closes its contexts (`closeContext`). Calls
   * on a device that is being removed return EIO.
   */
  remove(device: Device): void
}

/** Core's record of a client. */
export interface ClientEntry {
  readonly client: Client
  /** The devices that the client uses. */
  readonly devices: Set<Device>
  /** Number of the client's callbacks that run now; callbacks may nest. */
  runningCallbacks: number
}

/** An unaffiliated event: of a port, or of the device as a whole. */
export interface DeviceEvent {
  /** ibv_event_type. */
  readonly type: number
  /**
   * Port number from 1; undefined: an event of the device. On the system-wide device: the index of the device that was
   * added or removed.
   */
  readonly port: number | undefined
}
export type DeviceEventHandler = (event: DeviceEvent) => void

// ---- devices and contexts ----

export interface Port {
  /** From 1. */
  readonly number: number
  readonly gids: GidTable
  /** The P_Key table (IBA 10.9.2): 16 bits each, 0 in empty entries. The engine reads it at each packet. */
  readonly pkeys: Uint16Array
  /**
   * IP addresses, 16 bytes each, by which rdma_cm knows the port, where they are not its GIDs: on InfiniBand, in the
   * place of IPoIB's interface, whose hardware address has GID 0. Absent: the GIDs are the addresses (RoCE).
   */
  ipAddresses?: Uint8Array[] | undefined
  /** The answer of port.query. The driver may change its fields, for example `state`. */
  readonly attributes: RecordOf<typeof PortAttributes>
  /** Its `state` is this record. */
  readonly object: CoreObject
}

/** What accounts share: objects of one class, or of several together, or bytes, or something else (limits.ts). */
export interface Limit {
  /** What is counted: `protection domains`. */
  readonly subject: string
  /** The limit's name in a query: `max_pd`. Absent: no query tells it. */
  readonly name?: string
  readonly max: number
  /** A process or user may have this much, also if it is more than its share. */
  readonly minimum: number
  /** Whether the processes of a user have shares of what the user may have. */
  readonly hasProcessShares: boolean
  /** An amount as text. */
  readonly format: (amount: number) => string
  /** For a charge beyond a share, and for one beyond `max`. */
  readonly errno: ErrnoName
  readonly fullErrno: ErrnoName
  /** What the user can do. */
  readonly advice: string
  used: number
  /** Amounts by `Holder.name`, without those of core and of callers in this process. */
  readonly held: Map<string, number>
}

export interface Device<D = unknown> {
  readonly core: Core
  /** Changed only by `renameDevice`. */
  name: string
  /** Number among the existing devices and those being removed, from 0; -1 for the system-wide device. */
  readonly index: number
  /**
   * As Linux's `ib_device.index`, counted up from 0: no later device has the same, since libibverbs takes a device with
   * a number and a node that it knows for the same. -1 for the system-wide device.
   */
  readonly serial: number
  readonly driver: Driver<D>
  readonly state: D
  /** The device's classes with the driver's attributes, for codecs. */
  readonly schema: Schema
  readonly ports: readonly Port[]
  readonly memory: MemoryTable
  /** The answer of device.query. */
  readonly attributes: RecordOf<typeof DeviceAttributes>
  readonly extended: RecordOf<typeof ExtendedDeviceAttributes>
  readonly numCompVectors: number
  /** By class name, and by the names of limits that are not of objects (spec/device-limits.ts). */
  readonly limits: ReadonlyMap<string, Limit>
  /** Number of objects per class name. */
  readonly counts: Record<string, number>
  readonly contexts: Set<Context>
  readonly hooks: Hook[]
  readonly taps: DeviceTaps
  /** Receive unaffiliated events (core/devices/clients.ts). The context: whose events they are, if not all. */
  readonly eventHandlers: Map<DeviceEventHandler, Context | undefined>
  /** By class name. A device has interface and device, the system-wide device has interface and system. */
  readonly fixedObjects: ReadonlyMap<string, CoreObject>
  /** The table without hooks, shared with devices that have an equal one. */
  readonly sharedTable: DispatchTable
  /** The table that calls use: `sharedTable` with the device's hooks. */
  table: DispatchTable
  /** False from the start of the device's removal: calls return EIO. */
  isAlive: boolean
}

/** A process, a user, or users together, with a share of each limit (objects/limits.ts). */
export interface Holder {
  /** Unique among holders: `process 12`, `user 7`. */
  readonly name: string
  /** The part that it may have of what others leave it, 0 to 1. */
  readonly part: number
  /** Whether it may have `Limit.minimum` in any case. */
  readonly hasMinimum: boolean
  /** `part` in words. */
  readonly text: string
}

/** Who pays for what a client has (objects/limits.ts), and what all clients of the daemon share besides devices. */
export interface Account {
  /** The client's uid. */
  readonly user: number
  /** The uid whose shares, also of time, the client uses. */
  readonly payer: number
  /** Each is a part of the next: process, user, all users but the owner. */
  readonly holders: readonly Holder[]
  /** Bytes of objects and queued messages (objects/object-bytes.ts). */
  readonly memory: Limit
  readonly descriptors: Limit
  readonly sessions: Limit
  /** Mappings of rings, and bytes of their addresses. */
  readonly mappings: Limit
  readonly addresses: Limit
}

/** The program that has opened a context, as texts name it. */
export interface ContextProgram {
  readonly pid: number
  readonly command: string
  /** Of its process. Absent: the process runs. */
  readonly life?: { readonly hasEnded: boolean }
}

/** A client's use of a device: handles, fd objects, lifetime. In Linux' terms: an open device file. */
export interface Context<S = unknown, D = unknown> {
  readonly id: number
  readonly device: Device<D>
  readonly handles: HandleTable<CoreObject>
  readonly descriptors: Set<FdObject>
  /** The driver's own state, set when the driver first needs it. */
  state: S
  /** Memory that the client can map. Undefined: the client's objects get ordinary memory (`mappedMemoryOf`). */
  readonly mapped: MappedMemory | undefined
  /**
   * The opening call (device.open, Linux: GET_CONTEXT) was made or is not needed. Before, all other calls return
   * EINVAL.
   */
  isOpened: boolean
  isClosed: boolean
  /** Number of the context's memory windows. */
  windowCount: number
  /**
   * Objects that other objects of the context own (dispatch/owned.ts), with the owner. Undefined: there were none yet.
   */
  owned: Map<CoreObject, CoreObject> | undefined
  /** Called when all objects of the context are destroyed; undefined after that. */
  whenEnded: (() => void)[] | undefined
  /** Undefined: the context's objects are not charged. */
  readonly account: Account | undefined
  /** The default destination of async events: the first async fd that was created. */
  asyncFd: FdObject | undefined
  /** Undefined: unknown, or a client in this process. */
  program: ContextProgram | undefined
  /** Parents and event route of the last created object. The next object usually shares these records. */
  lastParents: readonly CoreObject[]
  lastRoute: EventRoute
  /** Aborts when the context closes or the device is removed. Created by `abortSignalOf`. */
  abortController: AbortController | undefined
  /** The codecs' view of this context, per caller. */
  readonly views: WeakMap<Caller, CallerView>
}

export interface Core {
  readonly devices: Map<string, Device>
  readonly descriptors: Map<number, FdObject>
  /** Core's classes with core's handlers, by name. */
  readonly classes: ReadonlyMap<string, DriverClass>
  readonly clientClasses: readonly ClientClasses[]
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
  /** Microseconds after which a chain continues as a job (`CoreOptions.maxCallTime`). */
  readonly maxCallTime: number
  /** Runs long jobs (`CoreOptions.run`). */
  readonly runJob: (job: Iterator<unknown>) => void
  /** Runs the rest of a long call (`CoreOptions.runCall`). */
  readonly runCall: (job: Iterator<unknown>) => void
  /** Closed contexts whose objects are not all destroyed yet. */
  readonly endingContexts: Set<Context>
  /** Removed devices whose objects are not all destroyed yet. */
  readonly endingDevices: Set<Device>
  nextObject: number
  /** Number of the next fd object. A caller in this process passes it as a descriptor, which has 31 bits. */
  nextDescriptor: number
  /** Called when a descriptor's object ends whose class has no `destroy`, which hooks would see. */
  readonly descriptorEnds: Set<(object: CoreObject, context: Context, why: CallContext['why']) => void>
  nextContext: number
  /** `Device.serial` of the next device. */
  nextDevice: number
  /** Whether programs may use controlled Q_Keys without CAP_NET_RAW. */
  allowsPrivilegedQkeys: boolean
  /** Number of calls whose asynchronous handlers run. */
  waitingCalls: number
  /** Number of exceptions that core has caught (core/attempt.ts). */
  faults: number
  /** Called with each caught exception. Must not throw. */
  readonly report: (error: unknown) => void
  /** Number of events posted since the start. */
  events: number
  /** Fault rules that delay or repeat events of descriptors (core/events/late-events.ts). */
  eventDelays: EventDelays | undefined
}

/** Dispatch tables in use, so that devices with equal tables share them. */
export interface TablePool {
  readonly classes: Map<string, { readonly table: ClassTable; uses: number }>
  readonly devices: Map<string, { readonly table: DispatchTable; readonly classes: readonly string[]; uses: number }>
  /** Numbers that stand for handlers and declarations in the keys of these maps. */
  readonly identities: WeakMap<object, number>
  nextIdentity: number
}
