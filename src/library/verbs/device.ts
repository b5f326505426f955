/*
 * A device of the library (docs/start/library.md): properties, creation of objects, and events.
 */
import { nextTurnOf } from '../../host/event-loop/clock.ts'
import type { Omission } from '../../spec/check/omissions.ts'
import { type DeviceAttributes, DeviceClass, type GidEntry } from '../../spec/classes/device/device.ts'
import { Interface } from '../../spec/classes/device/interface.ts'
import { type PortAttributes, PortClass } from '../../spec/classes/device/port.ts'
import { AsyncEventType, PortState } from '../../spec/enums.ts'
import type { In, ObjectClass, Out, RecordOf } from '../../spec/schema/schema.ts'
import { declare } from '../../uapi/object/description.ts'
import { agreedClass } from '../../uapi/object/versions.ts'
import { checkOptions, checkRecord, type KnownOptions } from './arguments/options.ts'
import type { DeviceCounters, DeviceMetrics, EventTargets } from './carrier.ts'
import { type Chain, createChains, type Resolved } from './chain.ts'
import { type CompletionQueue, type CqOptions, cqPlan, noteOverrun } from './cq/completion-queue.ts'
import { createWaiterList } from './cq/waiters.ts'
import { type DriverDescriptor, interfaceNames, openDriverOps } from './driver-ops.ts'
import { asProgramCall, checkText, checkU32, invalidArgument, rethrow, warn } from './error.ts'
import { type EventQueue, openEventQueue } from './event-queue.ts'
import { LazyEventTarget, type Listenable } from './event-target.ts'
import { beginFault, type Fault, type FaultRuleOptions } from './faults.ts'
import { Handlers } from './handlers.ts'
import { type IpInterface, type IpOptions, ipPlan } from './ip.ts'
import { type AbortOptions, checkAbortOptions, checkSignal, createMailbox } from './mailbox.ts'
import { type CreateArguments, checkClass, type ObjectOf, objectPlan } from './objects/object.ts'
import { orElse, showAs } from './objects/show.ts'
import { noteWaiting } from './objects/unsettled.ts'
import { DROP_RINGS, VerbsObject } from './objects/verbs-object.ts'
import { type ProtectionDomain, pdPlan } from './pd.ts'
import {
  CLOSED,
  checkObject,
  type DeviceContext,
  type LocalPath,
  make,
  makeAsync,
  type ObjectReference,
} from './plan.ts'
import { BareQp } from './qp/queue-pair.ts'
import { type XrcDomain, type XrcDomainOptions, xrcdPlan } from './qp/xrc.ts'
import { outstandingRequests } from './ring.ts'
import type { CountedFinding, OpenedCarrier } from './watch/watch.ts'

/** ibv_event_type by name. */
export type AsyncEventName = keyof typeof AsyncEventType.values

/** An asynchronous event of an object that was created through this `Device`, of a port, or of the device. */
export interface DeviceEvent {
  /** ibv_event_type by name. */
  readonly type: AsyncEventName
  /** The object of the event: a queue pair or a queue; undefined for an event of a port or of the device. */
  readonly source: Disposable | undefined
  /** Port number of a port event, from 1. */
  readonly port: number | undefined
}

/** An event for listeners of a device. */
export interface DeviceEventObject extends Omit<DeviceEvent, 'type'> {
  /** ibv_event_type by name, for which the listener was added. */
  readonly type: string
}

/** The events of a device by type. */
export type DeviceEvents = { readonly [N in AsyncEventName]: DeviceEventObject }

/**
 * An open device. Its listeners get the events of `onEvent` by their names. Methods that need the device throw
 * RdmaError ERR_CLOSED after it was closed, EIO after it was removed.
 */
export interface Device extends AsyncDisposable, Listenable<DeviceEvents> {
  /** Name of the device: 'rxe0' … */
  readonly name: string
  /** IP address of the device as text; '' without an address. */
  readonly address: string
  /** Number of completion vectors. */
  readonly numCompVectors: number
  /** Attributes of the device. */
  query(): RecordOf<typeof DeviceAttributes>
  /** Attributes of a port, by its number (from 1; default 1). Throws RdmaError EINVAL if the port does not exist. */
  queryPort(port?: number): RecordOf<typeof PortAttributes>
  /** All GIDs of all ports. */
  gids(): readonly RecordOf<typeof GidEntry>[]
  /** A GID of a port (default 1). Throws RdmaError ENODATA if the entry is empty, EINVAL beyond the end. */
  gid(index: number, port?: number): RecordOf<typeof GidEntry>
  /** The device's clock in nanoseconds, exact up to 2^53: the clock of completions' timestamps. */
  clock(): number
  /**
   * A snapshot of the counters. Throws RdmaError EOPNOTSUPP for a device in this process that is not a soft device,
   * ERR_CLOSED after the device was closed, EIO after it was removed.
   */
  counters(): DeviceCounters
  /** The counters as one flat record for metrics libraries: numbers by names such as 'transport.retransmissions'. */
  metrics(): DeviceMetrics
  /** The device's own description of its classes. */
  interface(): readonly ObjectClass[]
  /** Whether the device has a class, or a method of the class. */
  supports(className: string, method?: string): boolean
  /** Creates a protection domain. Throws RdmaError ENOMEM at the device's limit. */
  pd(): ProtectionDomain
  /** Creates a completion queue. Throws RdmaError EINVAL, ENOMEM. */
  cq(options?: CqOptions): CompletionQueue
  /** Opens an XRC domain. Throws RdmaError EINVAL, EBADF. */
  xrcd(options?: XrcDomainOptions): XrcDomain
  /**
   * Creates an interface of IP over the device (RFC 4391) with an address of its own. Throws RdmaError EINVAL,
   * EADDRINUSE, ENOMEM, EOPNOTSUPP.
   */
  ip(options: IpOptions): IpInterface
  /**
   * Sets fault rules of this program for a test of it, until they are disposed or the device is closed: as records, or
   * the text of `--fault`. Rules for packets act on packets of this device's queue pairs; of a daemon's device, on
   * those of the program's. Throws RdmaError EINVAL, EPERM: the rule touches a device of a daemon that other programs
   * have open.
   */
  fault(rules: string | FaultRuleOptions | readonly FaultRuleOptions[]): Fault
  /** Creates an event queue, which can receive the events of all objects of the device. */
  eventQueue(): EventQueue
  /**
   * Opens a descriptor of a driver's own interface: the first of `names` that the driver has. Without names,
   * opens the driver's provider channel. Throws RdmaError ENOENT if the driver has none of `names`, EOPNOTSUPP if the
   * driver has no interfaces.
   */
  driverOps(...names: readonly string[]): DriverDescriptor
  /** Names of the driver's interfaces. */
  driverInterfaces(): readonly string[]
  /** Creates an object of any class of the device, drivers' private ones included, with the methods of its class. */
  create<C extends ObjectClass>(cls: C, args?: CreateArguments<C>): ObjectOf<C>
  /**
   * Calls any method of any class: of the device, a port (its number), or an object. An object of this library
   * does not learn of the call: reset, resize and destroy it with its own methods. Throws RdmaError EOPNOTSUPP if the
   * device lacks the method.
   */
  call<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    args: In<C['methods'][K]>,
    object?: ObjectReference | number,
  ): Out<C['methods'][K]>
  /**
   * `call` for methods with asynchronous handlers: `call` refuses such methods with EOPNOTSUPP. Drivers in this process
   * may have them. Calls to a daemon block until the answer arrives. Rejects with RdmaError. If `options.signal` is
   * aborted first, rejects with the signal's reason; an object that the driver creates later is destroyed.
   */
  callAsync<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    args: In<C['methods'][K]>,
    object?: ObjectReference | number,
    options?: AbortOptions,
  ): Promise<Out<C['methods'][K]>>
  /** `create` for classes whose handlers are asynchronous, see `callAsync`. */
  createAsync<C extends ObjectClass>(cls: C, args?: CreateArguments<C>, options?: AbortOptions): Promise<ObjectOf<C>>
  /** Handles of all objects of these classes that this `Device` has, newest first. */
  handles(...classes: readonly ObjectClass[]): readonly number[]
  /**
   * Creates the objects that `build` describes, with one call, all or none. Returns what `build` returned, with the
   * created objects in place of the planned ones. Throws RdmaError.
   */
  chain<T>(build: (chain: Chain) => T): Resolved<T>
  /**
   * Calls `handler` with each asynchronous event, until the returned function is called or the device is closed. Events
   * of objects attached to an event queue go only to that queue.
   */
  onEvent(handler: (event: DeviceEvent) => void): () => void
  /**
   * Yields the events that handlers of `onEvent` get, from this call on, until the device is closed or removed. Rejects
   * with the signal's reason if the signal is aborted during a wait.
   */
  events(options?: AbortOptions): AsyncIterableIterator<DeviceEvent>
  /** The findings about a checked device (`open({ check })`), oldest first; empty without a check. */
  readonly findings: readonly CountedFinding[]
  /** What the check of the device's network has left out, because its memory is bounded; empty without a check. */
  readonly omissions: readonly Omission[]
  /**
   * Closes the device and all its objects, and abandons outstanding requests. `await using` calls it. With `drain`,
   * waits for the requests of send queues first; if `signal` is aborted during this wait, rejects with the signal's
   * reason, and the device stays open. If a checked device has findings that fail (`CheckOptions.failOn`), closes the
   * device and rejects with FindingsError. A later call resolves when the device is closed.
   */
  close(options?: CloseOptions): Promise<void>
}

/** Options of `device.close`. `signal` aborts `drain`. */
export interface CloseOptions extends AbortOptions {
  /** First waits until all requests of all send queues are complete; default false. */
  readonly drain?: boolean | undefined
}
const closeOptionNames: KnownOptions<CloseOptions> = { drain: 'flag', signal: true }
/**
 * Turns of the event loop in which `drain` checks whether all sends are complete; afterwards `drain` checks once a
 * millisecond.
 */
const DRAIN_TURNS = 64

/** What the finalizer of a device needs; it must not refer to the device. */
interface FinalizerState {
  readonly name: string
  isOpen: boolean
}
const finalizers = new FinalizationRegistry<FinalizerState>(({ name, isOpen }) => {
  if (isOpen)
    warn(
      `device ${name} was dropped without close() and stays open`,
      'Keep the device as long as its objects are used, then call `await device.close()`.',
    )
})

/** Counters by 'group.name'. */
const flatCounters = (counters: DeviceCounters): DeviceMetrics =>
  Object.fromEntries(
    Object.entries(counters).flatMap(([group, values]: [string, object]) =>
      Object.entries(values).map(([name, value]) => [`${group}.${name}`, value]),
    ),
  ) as DeviceMetrics

const portStateName = (state: number): string | undefined =>
  Object.entries(PortState.values).find(([, value]) => value === state)?.[0]

const eventNames: AsyncEventName[] = []
for (const [name, value] of Object.entries(AsyncEventType.values)) eventNames[value] = name as AsyncEventName

const contexts = new WeakMap<Device, DeviceContext>()

/** The state that a device's objects share. Throws RdmaError EINVAL if `device` is not a device. */
export const contextOf = (call: string, device: Device): DeviceContext => {
  const context = contexts.get(device)
  if (context === undefined) throw invalidArgument(call, 'device is not an open device', 'pass the result of open()')
  return context
}

/** Passes what the carrier reports to waiters, handlers and objects of the device. */
const eventTargets = (context: DeviceContext, handlers: Handlers<DeviceEvent>): EventTargets => {
  const { sources, waiters } = context
  return {
    completion: userHandle => waiters.wake(userHandle),
    event(type, userHandle, port) {
      if (type === AsyncEventType.values.CQ_ERR && userHandle !== undefined) noteOverrun(context, userHandle)
      handlers.notify({
        type: eventNames[type]!,
        source: userHandle === undefined ? undefined : sources.get(userHandle),
        port,
      })
    },
    ended() {
      // Completions can still be read; further posts are refused.
      for (const source of sources.values()) if (source instanceof BareQp) source[DROP_RINGS]()
      waiters.wakeAll()
    },
  }
}

/** Requests in the send queues of the device that are not complete. */
const outstandingSends = (sources: DeviceContext['sources']): number => {
  let requests = 0
  for (const source of sources.values()) {
    const sends = source instanceof BareQp ? source.sends : undefined
    if (sends !== undefined) requests += outstandingRequests(sends)
  }
  return requests
}

/** Resolves when no send is outstanding, or no completion can follow. Rejects with the signal's reason. */
const drain = async ({ carrier, sources, waiters }: DeviceContext, signal: AbortSignal | undefined): Promise<void> => {
  const { clock } = carrier
  for (let turn = 0; outstandingSends(sources) > 0 && !waiters.isOver; turn++) {
    signal?.throwIfAborted()
    try {
      carrier.drive('device.close')
    } catch {
      // The daemon has ended.
      return
    }
    await (turn < DRAIN_TURNS
      ? nextTurnOf(clock)
      : new Promise<void>(resolve => void clock.after(1, 'program', resolve)))
  }
}

/** `onEvent`: of the device. `state`: whether it is open. */
const deviceEvents = (
  context: DeviceContext,
  state: FinalizerState,
  onEvent: Device['onEvent'],
  options: AbortOptions = {},
): AsyncGenerator<DeviceEvent> => {
  checkAbortOptions('device.events', options)
  const { signal } = options
  // Collects events from this call on, not from the first `next()`.
  const mailbox = createMailbox<DeviceEvent>(context, 'device')
  const removeHandler = onEvent(mailbox.put)
  const stop = (): void => {
    removeHandler()
    mailbox.end()
  }
  const iterate = async function* (): AsyncGenerator<DeviceEvent> {
    try {
      for await (const event of mailbox.arrivals({ signal })) {
        // Like a handler, an iteration gets no events after the close.
        if (!state.isOpen) return
        yield event
      }
    } finally {
      stop()
    }
  }
  const events = iterate()
  const endIteration = events.return
  // A generator that has not begun runs no `finally`.
  events.return = value => {
    stop()
    return endIteration.call(events, value)
  }
  return events
}

/** Checks the arguments of `call` and `callAsync`; returns the handle of the object, or the given number. */
const checkedHandle = (
  context: DeviceContext,
  call: string,
  cls: ObjectClass,
  method: string,
  args: object,
  object: ObjectReference | number,
): number => {
  checkClass(call, cls)
  checkText(call, 'method', method)
  const name = `${cls.name}.${method}`
  checkRecord(name, 'its arguments', args, 'give {} where there are none')
  if (typeof object !== 'number') checkObject(context, name, 'object', object)
  const handle = typeof object === 'number' ? object : object.handle
  // In a message to a daemon another number would become the handle of another object. Carriers refuse CLOSED.
  if (handle !== CLOSED) checkU32(name, 'object', handle)
  return handle
}

const createDevice = (carrier: OpenedCarrier, name: string, address: string, path: LocalPath): Device => {
  const { check } = carrier
  const sources: DeviceContext['sources'] = new Map()
  const onWaiting = (hasWaiters: boolean): void => {
    carrier.setWaiting(hasWaiters)
    noteWaiting(carrier, name, hasWaiters)
  }
  const waiters = createWaiterList(onWaiting, sources)
  const context: DeviceContext = {
    carrier,
    waiters,
    sources,
    path,
    makeAll: plans => chains.makeAll(plans),
    check,
    disposed: new Map(),
  }
  const handlers = new Handlers<DeviceEvent>()
  carrier.targets = eventTargets(context, handlers)
  let classes: readonly ObjectClass[] | undefined
  const deviceClasses = (): readonly ObjectClass[] => {
    classes ??= carrier.classes ?? declare(carrier.call(Interface, 'query', 0, {}).out)
    return classes
  }
  const findClass = (className: string): ObjectClass | undefined => deviceClasses().find(cls => cls.name === className)
  const chains = createChains(context, (cls, method) =>
    rethrow(`${cls.name}.${method}`, () => agreedClass(cls, findClass(cls.name), method)),
  )
  const { numCompVectors } = carrier.call(DeviceClass, 'query', 0, {}).out
  const state: FinalizerState = { name, isOpen: true }

  const onEvent: Device['onEvent'] = handler => handlers.add('device.onEvent', handler)
  const faults = new Set<Fault>()
  /** Settles when the objects are destroyed, after `close`. */
  let closed: Promise<void> | undefined
  const close = async (options: CloseOptions = {}): Promise<void> => {
    checkOptions('device.close', 'options', options, closeOptionNames)
    checkSignal('device.close', options)
    if (state.isOpen && options.drain === true) await drain(context, options.signal)
    // Another call may have closed the device, perhaps during `drain`.
    if (!state.isOpen) {
      await closed
      return
    }
    for (const fault of faults) fault.clear()
    state.isOpen = false
    handlers.clear()
    for (const source of sources.values()) if (source instanceof VerbsObject) source[DROP_RINGS]()
    context.disposed.clear()
    closed = carrier.close()
    waiters.wakeAll()
    await closed
    check?.end()
  }
  const target = new LazyEventTarget(
    'device',
    () => void onEvent(({ type, source, port }) => target.dispatch(type, { source, port })),
  )
  /** `method`, whose refusals name it. */
  const named =
    <A extends unknown[], R>(method: string, body: (...args: A) => R) =>
    (...args: A): R =>
      asProgramCall(`device.${method}`, () => body(...args))
  const device: Device = {
    addEventListener: target.addEventListener,
    removeEventListener: target.removeEventListener,
    name,
    address,
    numCompVectors,
    query: named('query', () => carrier.call(DeviceClass, 'query', 0, {}).out.attributes),
    queryPort: named('queryPort', (port = 1) => {
      checkU32('device.queryPort', 'port', port)
      return carrier.call(PortClass, 'query', port, {}).out.attributes
    }),
    gid: named('gid', (index: number, port = 1) => {
      checkU32('device.gid', 'port', port)
      return carrier.call(PortClass, 'queryGidEntry', port, { index }).out.entry
    }),
    gids: named('gids', () => carrier.call(DeviceClass, 'queryGidTable', 0, {}).out.entries),
    clock: named('clock', () => Number(carrier.call(DeviceClass, 'queryClock', 0, {}).out.nanoseconds)),
    counters: () => carrier.counters(),
    metrics: () => flatCounters(carrier.counters()),
    interface: deviceClasses,
    supports(className, method) {
      const cls = findClass(className)
      return cls !== undefined && (method === undefined || Object.hasOwn(cls.methods, method))
    },
    pd: named('pd', () => make(context, pdPlan(context))),
    cq: named('cq', (options?: CqOptions) => make(context, cqPlan(context, options))),
    xrcd: named('xrcd', (options?: XrcDomainOptions) => make(context, xrcdPlan(context, options))),
    ip: named('ip', (options: IpOptions) => make(context, ipPlan(context, options))),
    fault: named('fault', (rules: string | FaultRuleOptions | readonly FaultRuleOptions[]) => {
      const fault = beginFault(carrier, rules, ended => faults.delete(ended))
      faults.add(fault)
      return fault
    }),
    eventQueue: named('eventQueue', () => openEventQueue(context)),
    driverOps: (...names) => openDriverOps(context, names),
    driverInterfaces: () => interfaceNames(context),
    create: (cls, args) => make(context, objectPlan(context, 'device.create', cls, args)),
    call: (cls, method, args, object = 0) =>
      carrier.call(cls, method, checkedHandle(context, 'device.call', cls, method, args, object), args).out,
    async callAsync(cls, method, args, object = 0, options = {}) {
      checkAbortOptions('device.callAsync', options)
      const handle = checkedHandle(context, 'device.callAsync', cls, method, args, object)
      const wait = carrier.callAsync(cls, method, handle, args, options.signal)
      return (await carrier.clock.watch('device.callAsync', wait)).out
    },
    async createAsync(cls, args, options = {}) {
      checkAbortOptions('device.createAsync', options)
      return makeAsync(context, objectPlan(context, 'device.createAsync', cls, args), options.signal)
    },
    handles(...requested) {
      for (const cls of requested) checkClass('device.handles', cls)
      const { out } = carrier.call(DeviceClass, 'queryHandles', 0, { classes: requested.map(({ id }) => ({ id })) })
      return out.handles.map(({ handle }) => handle)
    },
    chain: chains.run,
    onEvent,
    events: options => deviceEvents(context, state, onEvent, options),
    get findings() {
      return check?.findings ?? []
    },
    get omissions() {
      return check?.omissions ?? []
    },
    close,
    [Symbol.asyncDispose]: () => close(),
  }
  finalizers.register(device, state)
  showAs(device, 'Device', () => ({
    name,
    address,
    ...(state.isOpen
      ? {
          portState: orElse(
            () => portStateName(carrier.call(PortClass, 'query', 1, {}).out.attributes.state),
            undefined,
          ),
        }
      : { closed: true }),
  }))
  contexts.set(device, context)
  return device
}

/**
 * The device on a carrier. `address`: '' without one; `findPath` may make calls. If a call is refused, closes the
 * carrier and throws RdmaError.
 */
export const deviceOn = (carrier: OpenedCarrier, name: string, address: string, findPath: () => LocalPath): Device => {
  try {
    return createDevice(carrier, name, address, findPath())
  } catch (error) {
    void carrier.close()
    throw error
  }
}
