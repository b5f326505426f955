/*
 * A device of the library (docs/start/library.md): its properties, the objects created on it, and its events.
 */
import { nextTurn } from '../host/event-loop/next-turn.ts'
import type { Omission } from '../spec/check/omissions.ts'
import { type DeviceAttributes, Device as DeviceClass, type GidEntry } from '../spec/classes/device/device.ts'
import { Interface } from '../spec/classes/device/interface.ts'
import { type PortAttributes, Port as PortClass } from '../spec/classes/device/port.ts'
import { AsyncEventType, PortState } from '../spec/enums.ts'
import { declare } from '../spec/schema/description.ts'
import type { In, ObjectClass, Out, RecordOf } from '../spec/schema/schema.ts'
import { agreedClass } from '../spec/schema/versions.ts'
import type { Carrier, DeviceCounters } from './carrier.ts'
import { type Chain, createChains, type Resolved } from './chain.ts'
import type { Checked, CountedFinding } from './check/checked.ts'
import { checkOptions, checkRecord, type KnownOptions } from './checks/options.ts'
import { type CompletionQueue, type CqOptions, cqPlan } from './cq/completion-queue.ts'
import { createWaiterList } from './cq/waiters.ts'
import { type DriverDescriptor, interfaceNames, openDriverOps } from './driver-ops.ts'
import { checkFunction, checkText, checkU32, invalidArgument, rethrow } from './error.ts'
import { type EventQueue, openEventQueue } from './event-queue.ts'
import { type IpInterface, type IpOptions, ipPlan } from './ip.ts'
import { checkSignal, checkUntil, createMailbox, type Until } from './mailbox.ts'
import { type CreateArguments, checkClass, type ObjectOf, objectPlan } from './objects/object.ts'
import { orElse, showAs } from './objects/show.ts'
import { noteWaiting } from './objects/unsettled.ts'
import { DETACH, VerbsObject } from './objects/verbs-object.ts'
import { type ProtectionDomain, pdPlan } from './pd.ts'
import { checkOwn, type DeviceContext, make, makeAsync, type Named, type PathFacts } from './plan.ts'
import { BareQp } from './qp/queue-pair.ts'
import { type XrcDomain, type XrcDomainOptions, xrcdPlan } from './qp/xrc.ts'
import { outstandingRequests } from './ring.ts'

/** ibv_event_type by name. */
export type AsyncEventName = keyof typeof AsyncEventType.values

/** An asynchronous event of a queue pair or queue created on it, of a port, or of the device. */
export interface DeviceEvent {
  /** ibv_event_type by name. */
  readonly type: AsyncEventName
  /** The object of the event, if it was created on this device object: a queue pair or a queue of any kind. */
  readonly source: Disposable | undefined
  /** Number of the port of a port event, from 1. */
  readonly port: number | undefined
}

/** An open device; it creates all other objects. */
export interface Device extends AsyncDisposable {
  /** Its name: 'rxe0' … */
  readonly name: string
  /** Its network address. */
  readonly address: string
  /** Number of completion vectors. */
  readonly numCompVectors: number
  /** Its attributes. Throws RdmaError EIO when it was removed. */
  query(): RecordOf<typeof DeviceAttributes>
  /** Attributes of a port, from 1. Throws RdmaError EINVAL for a port that does not exist. */
  queryPort(port?: number): RecordOf<typeof PortAttributes>
  /** All GIDs of all ports. */
  gids(): readonly RecordOf<typeof GidEntry>[]
  /** One entry of a port's GID table. Throws RdmaError ENODATA if it is empty, EINVAL beyond the table's end. */
  gid(index: number, port?: number): RecordOf<typeof GidEntry>
  /** Its current clock, in nanoseconds: the clock of the timestamps of completions. */
  clock(): number
  /** A snapshot of the counters of its port and engine. */
  counters(): DeviceCounters
  /** The counters as one flat record for metrics libraries: numbers by names such as 'transport.retransmissions'. */
  metrics(): Readonly<Record<string, number>>
  /** The device's own description of its classes (R13). */
  interface(): readonly ObjectClass[]
  /** Whether it has a class, or a method of the class. */
  supports(className: string, method?: string): boolean
  /** Creates a protection domain. Throws RdmaError ENOMEM at the device's limit. */
  pd(): ProtectionDomain
  /** Creates a completion queue. Throws RdmaError EINVAL, ENOMEM. */
  cq(options?: CqOptions): CompletionQueue
  /** Opens an XRC domain. Throws RdmaError EINVAL, EBADF. */
  xrcd(options?: XrcDomainOptions): XrcDomain
  /**
   * Creates an interface of IP over the device (RFC 4391), with an address beside the device's own. Throws RdmaError
   * EINVAL, EADDRINUSE, EOPNOTSUPP.
   */
  ip(options: IpOptions): IpInterface
  /** Creates an event queue, which can receive the events of all objects of the device (R38). */
  eventQueue(): EventQueue
  /**
   * Opens the driver's own descriptor for the first of these interfaces that it has (R28), so list the newest first;
   * without names its provider channel. Throws RdmaError ENOENT if it has none of them, EOPNOTSUPP if it has no
   * interfaces.
   */
  driverOps(...names: readonly string[]): DriverDescriptor
  /** Names of the driver's interfaces. */
  driverInterfaces(): readonly string[]
  /** Creates an object of any class of the device, drivers' private ones included, with the methods of its class. */
  create<C extends ObjectClass>(cls: C, args?: CreateArguments<C>): ObjectOf<C>
  /**
   * Calls any method of any class (R14): of the device, a port (its number), or an object. Throws RdmaError EOPNOTSUPP
   * if the device lacks it.
   */
  call<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    args: In<C['methods'][K]>,
    object?: Named | number,
  ): Out<C['methods'][K]>
  /**
   * `call` for drivers in this process whose handlers are asynchronous, for which `call` throws EOPNOTSUPP. Calls to a
   * daemon block. With a signal it rejects with the signal's reason; an object that the driver then creates is
   * destroyed.
   */
  callAsync<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    args: In<C['methods'][K]>,
    object?: Named | number,
    options?: Until,
  ): Promise<Out<C['methods'][K]>>
  /** `create` for drivers whose handlers are asynchronous. Rejects with RdmaError, or the signal's reason. */
  createAsync<C extends ObjectClass>(cls: C, args?: CreateArguments<C>, options?: Until): Promise<ObjectOf<C>>
  /** Handles of all objects of this context in any of these classes, newest first. */
  handles(...of: readonly ObjectClass[]): readonly number[]
  /**
   * Creates the objects that `build` describes with one call, all or none, and returns them in the same shape. Throws
   * RdmaError.
   */
  chain<T>(build: (chain: Chain) => T): Resolved<T>
  /** Calls `handler` for each asynchronous event, until the returned function is called. */
  onEvent(handler: (event: DeviceEvent) => void): () => void
  /** Yields asynchronous events from this call on, until the signal is aborted or the device is closed. */
  events(options?: Until): AsyncIterableIterator<DeviceEvent>
  /**
   * The findings about a checked device (`open({ check })`), in the order in which they were found; otherwise empty.
   */
  readonly findings: readonly CountedFinding[]
  /** What the check of the device's network has left out, since its memory is bounded; otherwise empty. */
  readonly omissions: readonly Omission[]
  /**
   * Closes the device and all its objects. Incomplete sends are abandoned, unless `drain` is set. Rejects with the
   * signal's reason, and the device stays open; with a FindingsError if the device was checked and something was found,
   * and the device is closed.
   */
  close(options?: CloseOptions): Promise<void>
}

/** Options of `device.close`. `signal` aborts the draining; the device then stays open. */
export interface CloseOptions extends Until {
  /** Waits first until all posted sends are complete; default false. */
  readonly drain?: boolean
}
const closeOptionNames: KnownOptions<CloseOptions> = { drain: true, signal: true }
/** Turns of the event loop in which sends within this process complete; after them, the peer or a timer is awaited. */
const DRAIN_TURNS = 64

/** The state for the finalizer of a device; it must not refer to the device. */
interface Life {
  readonly name: string
  isOpen: boolean
}
const dropped = new FinalizationRegistry<Life>(({ name, isOpen }) => {
  if (isOpen)
    globalThis.process?.emitWarning(`device ${name} was dropped without close() and stays open`, {
      type: 'UserdmaWarning',
      detail: 'Keep the device as long as its objects are used, then call `await device.close()`.',
    })
})

const flatCounters = (counters: DeviceCounters): Readonly<Record<string, number>> =>
  Object.fromEntries(
    Object.entries(counters).flatMap(([group, values]) =>
      Object.entries(values).map(([name, value]): [string, number] => [`${group}.${name}`, value]),
    ),
  )

const portStateName = (state: number): string | undefined =>
  Object.entries(PortState.values).find(([, value]) => value === state)?.[0]

const eventNames: AsyncEventName[] = []
for (const [name, value] of Object.entries(AsyncEventType.values)) eventNames[value] = name as AsyncEventName

const contexts = new WeakMap<Device, DeviceContext>()

/** The state that a device's objects share. Throws RdmaError EINVAL if the value is not a device. */
export const contextOf = (call: string, device: Device): DeviceContext => {
  const found = contexts.get(device)
  if (found === undefined) throw invalidArgument(call, 'device is not an open device', 'give what `open` answers')
  return found
}

/** Makes the device of a carrier; `path`: its address and MTU. */
export const createDevice = (
  carrier: Carrier,
  name: string,
  address: string,
  path: PathFacts,
  checked?: Checked,
): Device => {
  const sources: DeviceContext['sources'] = new Map()
  const onWaiting = (begins: boolean): void => {
    carrier.waiting(begins)
    noteWaiting(carrier, name, begins)
  }
  const waiters = createWaiterList(onWaiting, sources)
  const kit: DeviceContext = { carrier, waiters, sources, path, makeAll: plans => chains.makeAll(plans), checked }
  const handlers = new Set<(event: DeviceEvent) => void>()
  const onOverrun = (number: number): void => {
    Object.assign(sources.get(number) ?? {}, { isOverrun: true })
    waiters.wake(number)
  }
  carrier.targets = {
    completion: number => waiters.wake(number),
    event(type, number, port) {
      if (type === AsyncEventType.values.CQ_ERR && number !== undefined) onOverrun(number)
      const event = {
        type: eventNames[type]!,
        source: number === undefined ? undefined : kit.sources.get(number),
        port,
      }
      // The device is in the middle of its work: handlers run afterwards.
      queueMicrotask(() => {
        for (const handler of [...handlers])
          try {
            handler(event)
          } catch (error) {
            // An exception of a handler reaches the program as uncaught, and the other handlers of the event still run.
            queueMicrotask(() => {
              throw error
            })
          }
      })
    },
    ended() {
      // Completions can still be read; further posts are refused.
      for (const one of sources.values()) if (one instanceof BareQp) one[DETACH]()
      waiters.wakeAll()
    },
  }
  let described: readonly ObjectClass[] | undefined
  const describe = (): readonly ObjectClass[] => {
    described ??= carrier.classes ?? declare(carrier.call(Interface, 'query', 0, {}).out)
    return described
  }
  const find = (className: string): ObjectClass | undefined => describe().find(one => one.name === className)
  const chains = createChains(kit, (cls, method) =>
    rethrow(`${cls.name}.${method}`, () => agreedClass(cls, find(cls.name), method)),
  )
  const { out: facts } = carrier.call(DeviceClass, 'query', 0, {})
  let open = true
  const life: Life = { name, isOpen: true }

  const onEvent = (handler: (event: DeviceEvent) => void): (() => void) => {
    checkFunction('device.onEvent', 'handler', handler)
    const own = (event: DeviceEvent): void => handler(event)
    handlers.add(own)
    return () => {
      handlers.delete(own)
    }
  }
  const events = (options: Until = {}): AsyncGenerator<DeviceEvent> => {
    checkUntil('device.events', options)
    // Collects from now on, not only from the first request for an event.
    const mail = createMailbox<DeviceEvent>(kit, 'device')
    const stop = onEvent(mail.put)
    const iterate = async function* (): AsyncGenerator<DeviceEvent> {
      try {
        for await (const event of mail.arrivals(options)) {
          // Handlers of a closed device are not called.
          if (!open) return
          yield event
        }
      } finally {
        stop()
        mail.end()
      }
    }
    return iterate()
  }
  const numberOf = (call: string, cls: ObjectClass, method: string, args: object, object: Named | number): number => {
    checkClass(call, cls)
    checkText(call, 'method', method)
    checkRecord(`${cls.name}.${method}`, 'its arguments', args, 'give {} where there are none')
    if (typeof object === 'number') return object
    checkOwn(kit, `${cls.name}.${method}`, 'object', object)
    return object.handle
  }
  const unfinished = (): number => {
    let requests = 0
    for (const one of sources.values()) {
      const sends = one instanceof BareQp ? one.sends : undefined
      if (sends !== undefined) requests += outstandingRequests(sends)
    }
    return requests
  }
  const drained = async (signal: AbortSignal | undefined): Promise<void> => {
    for (let turn = 0; unfinished() > 0 && !waiters.over; turn++) {
      signal?.throwIfAborted()
      carrier.drive()
      // Waiting for a peer or a timer takes longer than a few turns of the event loop.
      await (turn < DRAIN_TURNS ? nextTurn() : new Promise(resolve => setTimeout(resolve, 1)))
    }
  }
  const close = async (options: CloseOptions = {}): Promise<void> => {
    checkOptions('device.close', 'options', options, closeOptionNames)
    checkSignal('device.close', options)
    if (open && options.drain === true) await drained(options.signal)
    if (!open) return
    open = false
    life.isOpen = false
    handlers.clear()
    for (const one of sources.values()) if (one instanceof VerbsObject) one[DETACH]()
    const closed = carrier.close()
    waiters.wakeAll()
    await closed
    checked?.end()
  }
  const device: Device = {
    name,
    address,
    numCompVectors: facts.numCompVectors,
    query: () => carrier.call(DeviceClass, 'query', 0, {}).out.attributes,
    queryPort(port = 1) {
      checkU32('device.queryPort', 'port', port)
      return carrier.call(PortClass, 'query', port, {}).out.attributes
    },
    gid(index, port = 1) {
      checkU32('device.gid', 'port', port)
      return carrier.call(PortClass, 'queryGidEntry', port, { index }).out.entry
    },
    gids: () => carrier.call(DeviceClass, 'queryGidTable', 0, {}).out.entries,
    clock: () => Number(carrier.call(DeviceClass, 'queryClock', 0, {}).out.nanoseconds),
    counters: () => carrier.counters(),
    metrics: () => flatCounters(carrier.counters()),
    interface: describe,
    supports(className, method) {
      const cls = find(className)
      return cls !== undefined && (method === undefined || Object.hasOwn(cls.methods, method))
    },
    pd: () => make(kit, pdPlan(kit)),
    cq: options => make(kit, cqPlan(kit, options)),
    xrcd: options => make(kit, xrcdPlan(kit, options)),
    ip: options => make(kit, ipPlan(kit, options)),
    eventQueue: () => openEventQueue(kit),
    driverOps: (...names) => openDriverOps(kit, names),
    driverInterfaces: () => interfaceNames(kit),
    create: (cls, args) => make(kit, objectPlan(kit, 'device.create', cls, args)),
    call: (cls, method, args, object = 0) =>
      carrier.call(cls, method, numberOf('device.call', cls, method, args, object), args).out,
    async callAsync(cls, method, args, object = 0, options = {}) {
      checkUntil('device.callAsync', options)
      const number = numberOf('device.callAsync', cls, method, args, object)
      return (await carrier.callAsync(cls, method, number, args, options.signal)).out
    },
    async createAsync(cls, args, options = {}) {
      checkUntil('device.createAsync', options)
      return makeAsync(kit, objectPlan(kit, 'device.createAsync', cls, args), options.signal)
    },
    handles(...of) {
      for (const cls of of) checkClass('device.handles', cls)
      const { out } = carrier.call(DeviceClass, 'queryHandles', 0, { classes: of.map(({ id }) => ({ id })) })
      return out.handles.map(({ handle }) => handle)
    },
    chain: chains.run,
    onEvent,
    events,
    get findings() {
      return checked?.findings ?? []
    },
    get omissions() {
      return checked?.omissions ?? []
    },
    close,
    [Symbol.asyncDispose]: () => close(),
  }
  dropped.register(device, life)
  showAs(device, 'Device', () => ({
    name,
    address,
    ...(open
      ? {
          portState: orElse(
            () => portStateName(carrier.call(PortClass, 'query', 1, {}).out.attributes.state),
            undefined,
          ),
        }
      : { closed: true }),
  }))
  contexts.set(device, kit)
  return device
}
