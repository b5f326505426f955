/*
 * Completion events and asynchronous events: routing, arming, and how many events a client has read (R34, R35, R37).
 *
 * An object with events is affiliated with a completion channel and an async fd. `arm` makes the next completion (or
 * the next solicited or failed one) raise exactly one event. A destroy returns how many events of the object the client
 * has read, since libibverbs waits until that many are acknowledged; unread ones are withdrawn. Records are Linux'
 * bytes. The sink delivers them to the client.
 */
import { because } from '../../spec/check/causes.ts'
import { ClassId } from '../../spec/classes/ids.ts'
import { EventKind } from '../../spec/enums.ts'
import { CallError } from '../../spec/errno.ts'
import { noteFault } from '../attempt.ts'
import { reportFailure } from '../failures.ts'
import type {
  Affiliation,
  Attachment,
  CallContext,
  Context,
  Core,
  CoreObject,
  Device,
  DeviceEvent,
  EventHandlers,
  EventRecord,
  EventRoute,
  EventSink,
  EventState,
  EventsRead,
  FdObject,
  Threshold,
} from '../model.ts'
import { onUndelivered } from '../undelivered.ts'
import { countCompletion, createThreshold, expireDue, rearmThreshold, tightenThreshold } from './thresholds.ts'

/** ibv_event_type: the device was removed (IBV_EVENT_DEVICE_FATAL). */
export const DEVICE_FATAL = 8

/** Core's own view of an fd object, whose sink may be replaced. */
interface MutableFd {
  sink: EventSink
}

const QUEUE_LIMIT = 65536

/**
 * The first sink of an fd object: events wait in core until they are read, or until a carrier attaches its own sink.
 */
export interface EventQueue extends EventSink {
  readonly queue: EventRecord[]
  ended: boolean
}

/**
 * A queue of events in this process. `wake` is called when an event is queued and when the queue ends. Beyond
 * QUEUE_LIMIT events it keeps one per object and kind, which still wakes the reader.
 */
export const createEventQueue = (wake?: () => void): EventQueue => {
  const queue: EventRecord[] = []
  return {
    queue,
    ended: false,
    post(event) {
      if (
        queue.length >= QUEUE_LIMIT &&
        queue.some(other => other.element === event.element && other.type === event.type)
      ) {
        countEvent(event, -1)
        return
      }
      queue.push(event)
      wake?.()
    },
    withdraw(element) {
      const withdrawn = queue.filter(event => event.element === element)
      let kept = 0
      for (const event of queue) if (event.element !== element) queue[kept++] = event
      queue.length = kept
      return withdrawn
    },
    unread: () => queue.length,
    take: limit => queue.splice(0, limit),
    end() {
      this.ended = true
      wake?.()
    },
  }
}

/**
 * Reads up to `limit` events from an fd object (R39). EAGAIN if there is none, EIO if none can follow (the context was
 * closed or the device removed).
 */
export const readEvents = (fd: FdObject, limit = 1): readonly EventRecord[] => {
  const events = fd.sink.take(limit)
  if (events.length > 0) return events
  if ((fd.sink as Partial<EventQueue>).ended || fd.closed)
    throw new CallError('EIO', 'no more events: the context is closed or its device removed')
  throw new CallError('EAGAIN', 'no event is pending on the descriptor')
}

/** Puts events that were taken from an fd object back before the others. */
const restoreEvents = ({ sink }: FdObject, events: readonly EventRecord[]): void => {
  for (const event of [...events, ...sink.take(Number.POSITIVE_INFINITY)]) sink.post(event)
}

/** As `readEvents`, for a call: the events are put back if its answer cannot be delivered. */
export const readEventsFor = (call: CallContext, fd: FdObject, limit = 1): readonly EventRecord[] => {
  const events = readEvents(fd, limit)
  onUndelivered(call, () => restoreEvents(fd, events))
  return events
}

/** Attaches the carrier's sink. Events that wait are moved to it. */
export const attachSink = (fd: FdObject, sink: EventSink): void => {
  const before = fd.sink as Partial<EventQueue>
  const mutable: MutableFd = fd
  mutable.sink = sink
  for (const event of before.queue ?? []) sink.post(event)
  if (before.ended || fd.closed) sink.end()
}

// ---- records ----

const recordOf = (
  element: Affiliation,
  type: number,
  object = element.more?.attached?.object,
  kind: number = type < 0 ? EventKind.values.COMPLETION : type,
): EventRecord => {
  const { more, userHandle } = element
  const attached = more?.attached
  const bytes = new Uint8Array(attached !== undefined ? 24 : type < 0 ? 8 : 16)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, attached?.cookie ?? userHandle, true)
  if (attached !== undefined) {
    view.setUint32(8, object ?? attached.object, true)
    view.setUint16(12, attached.class, true)
    view.setUint32(16, kind, true)
  } else if (type >= 0) view.setUint32(8, type, true)
  return { element, bytes, type }
}

/** `type` of a completion event. */
const COMPLETION = -1

/** The event state of a source, created when it is first needed. */
export const eventStateOf = (events: Affiliation): EventState => {
  events.more ??= { completions: 0, asyncs: 0, record: undefined, attached: undefined, threshold: undefined }
  return events.more
}

const countEvent = ({ element, type }: EventRecord, by: 1 | -1): void => {
  const more = eventStateOf(element)
  if (type < 0) more.completions += by
  else more.asyncs += by
}

/** Corrects the count after an event was withdrawn or lost. */
export const uncountEvent = (event: EventRecord): void => countEvent(event, -1)

const post = (fd: FdObject | undefined, event: EventRecord): void => {
  if (fd === undefined || fd.closed) return
  fd.context.device.core.events++
  countEvent(event, 1)
  fd.sink.post(event)
}

/** Posts an event of an object, unless the device is being removed (`forgetEvents`). */
const postAbout = (fd: FdObject | undefined, event: EventRecord): void => {
  if (fd?.context.device.alive) post(fd, event)
}

// ---- a driver's own records ----

/** Maximum bytes of a driver's record. */
export const RECORD_BYTES = 256

/**
 * Posts a driver's own record on a descriptor: poll(2) reports it, and each read returns one record. If a client leaves
 * very many unread, some are lost (`createEventQueue`), so a record should announce data rather than contain it.
 */
export const postRecord = (fd: FdObject, bytes: Uint8Array): void => {
  if (bytes.length === 0 || bytes.length > RECORD_BYTES)
    throw new Error(`a record has 1 to ${RECORD_BYTES} bytes, not ${bytes.length}`)
  fd.events ??= affiliationOf(0n)
  post(fd, { element: fd.events, bytes: bytes.slice(), type: -1 })
}

// ---- events of connections ----

/**
 * Posts an event with the connection manager's bytes and type on the channel of its element, and a record on the event
 * queue to which the element is attached.
 */
export const postOnChannel = (event: EventRecord): void => {
  const { element } = event
  post(element.to.channel, event)
  const queue = element.more?.attached?.queue
  // Counted as a completion, not with the types of the channel's own events.
  if (queue !== undefined) postAbout(queue, recordOf(element, COMPLETION, undefined, EventKind.values.CONNECTION))
}

/** Moves an object's events, including unread ones, to another channel. Returns how many the client had read. */
export const moveToChannel = ({ context, events }: CoreObject, channel: FdObject): number => {
  if (events === undefined) return 0
  const before = events.to.channel
  const unread = before === undefined || before.closed ? [] : before.sink.withdraw(events)
  const { more } = events
  const read = more === undefined ? 0 : more.asyncs - unread.length
  events.to = routeTo(context, channel, undefined)
  for (const event of unread) channel.sink.post(event)
  return read
}

// ---- affiliated objects ----

const isEventFd = (object: CoreObject | undefined): FdObject | undefined => {
  if (object !== undefined && object.class.identity !== 'fd')
    throw new Error(`events need an event descriptor, not an object of class ${object.class.name}`)
  return object as FdObject | undefined
}

/** The route of an object without events. */
export const noRoute: EventRoute = { channel: undefined, asyncFd: undefined, handlers: undefined }

/**
 * A route to these descriptors: the context's last one if it has them (its handlers may differ; `handleEvents` sets
 * them later), otherwise a new one.
 */
const routeTo = (
  context: Context | undefined,
  channel: FdObject | undefined,
  asyncFd: FdObject | undefined,
): EventRoute => {
  const last = context?.route ?? noRoute
  if (last.channel === channel && last.asyncFd === asyncFd) return last
  const route = { channel, asyncFd, handlers: last.handlers, core: last.core }
  if (context !== undefined) context.route = route
  return route
}

/**
 * Makes `object` a source of events; called by its create handler. `userHandle` (u64) identifies it in event records.
 * Without `asyncFd` its async events go to the context's default one, if there is one now.
 */
export const affiliate = (
  object: CoreObject,
  userHandle: bigint,
  to: { channel?: CoreObject | undefined; asyncFd?: CoreObject | undefined } = {},
): Affiliation => {
  object.events = {
    userHandle,
    to: routeTo(object.context, isEventFd(to.channel), isEventFd(to.asyncFd) ?? object.context?.asyncFd),
    armed: 0,
    more: undefined,
  }
  return object.events
}

/** Calls the event handlers of a caller in this process for the object's events. */
export const handleEvents = ({ context, events }: CoreObject, handlers: EventHandlers | undefined): void => {
  if (events === undefined || events.to.handlers === handlers) return
  events.to = { ...events.to, handlers, core: context?.device.core }
  if (context !== undefined) context.route = events.to
}

/**
 * REQ_NOTIFY: the next completion, or with `solicitedOnly` the next solicited or failed one, raises one event; with a
 * threshold, that number of completions or microseconds (R36). Undefined values: the queue's own threshold. If the
 * queue is armed already, the event can only become earlier (thresholds.ts), and arming for all completions stays (as
 * on Linux).
 */
export const arm = (object: CoreObject, solicitedOnly: boolean, count?: number, period?: number): void => {
  const { events } = object
  if (events === undefined) throw new Error(`an object of class ${object.class.name} has no events and cannot be armed`)
  const threshold = count !== undefined || period !== undefined ? thresholdOf(object, events) : events.more?.threshold
  const isArmed = events.armed !== 0
  if (events.armed !== 2) events.armed = solicitedOnly ? 1 : 2
  if (threshold === undefined) return
  const [wanted, wait] = [count ?? threshold.count, period ?? threshold.period]
  if (!isArmed) rearmThreshold(threshold, wanted, wait)
  else if (tightenThreshold(events, threshold, wanted, wait)) notify(events)
}

const thresholdOf = ({ context }: CoreObject, events: Affiliation): Threshold | undefined => {
  if (context === undefined) return events.more?.threshold
  const more = eventStateOf(events)
  more.threshold ??= createThreshold(context.device.core)
  return more.threshold
}

/** Sets the threshold of a queue (R36); undefined values are not changed. */
export const setThreshold = (object: CoreObject, count: number | undefined, period: number | undefined): void => {
  const { events } = object
  const threshold = events && thresholdOf(object, events)
  if (events === undefined || threshold === undefined) return
  threshold.count = count ?? threshold.count
  threshold.period = period ?? threshold.period
  if (events.armed !== 0 && tightenThreshold(events, threshold, threshold.count, threshold.period)) notify(events)
}

/** Calls a handler in the middle of the device's work: an exception is only counted. */
const callHandler = (core: Core | undefined, run: () => void): void => {
  try {
    run()
  } catch (error) {
    if (core !== undefined) noteFault(core, error)
  }
}

const notify = (events: Affiliation): void => {
  events.armed = 0
  const { handlers, core } = events.to
  if (events.more?.attached === undefined && handlers?.completion !== undefined) {
    callHandler(core, () => handlers.completion?.(events.userHandle))
    return
  }
  const more = eventStateOf(events)
  more.record ??= recordOf(events, COMPLETION)
  postAbout(more.attached?.queue ?? events.to.channel, more.record)
}

/**
 * Called for each completion that was written; `solicited`: solicited or failed. Hot: one comparison if the queue is
 * not armed.
 */
export const completed = (events: Affiliation, solicited: boolean): void => {
  if (events.armed === 0 || (events.armed === 1 && !solicited)) return
  const threshold = events.more?.threshold
  if (threshold !== undefined && !countCompletion(events, threshold)) return
  notify(events)
}

/** Raises the events that are due (R36); the owner of core calls it at `nextDue`. True if there were any. */
export const expire = (core: Core, now: number): boolean => expireDue(core, now, notify)

/** Raises an async event of an object (ibv_event_type: 0 CQ_ERR, 1 QP_FATAL, …). */
export const raiseObjectEvent = ({ events }: CoreObject, type: number): void => {
  if (events === undefined) return
  const { handlers, core } = events.to
  const attached = events.more?.attached
  if (attached === undefined && handlers?.event !== undefined)
    callHandler(core, () => handlers.event?.(events.userHandle, type))
  else postAbout(attached?.queue ?? events.to.asyncFd, recordOf(events, type))
}

const affiliationOf = (userHandle: bigint, attached?: Attachment): Affiliation => {
  const events: Affiliation = { userHandle, to: noRoute, armed: 0, more: undefined }
  if (attached !== undefined) eventStateOf(events).attached = attached
  return events
}

/**
 * The ports of a device that are attached to an event queue (port 0: the device); the `state` of the queue's object.
 */
export type AttachedPorts = Map<number, Affiliation>

/** `source`: the port (0: the device) that must be attached to an event queue so that the queue gets the event. */
const postToDevice = (device: Device, event: DeviceEvent, source = event.port ?? 0): void => {
  const { contexts, eventHandlers, core } = device
  const record = recordOf(affiliationOf(BigInt(event.port ?? 0)), event.type)
  for (const context of contexts)
    for (const fd of context.descriptors) {
      if (fd.class.id === ClassId.async_fd) post(fd, record)
      else if (fd.class.id === ClassId.event_queue) {
        const attached = (fd.state as AttachedPorts | undefined)?.get(source)
        if (attached !== undefined) post(fd, recordOf(attached, event.type, event.port))
      }
    }
  for (const handler of [...eventHandlers]) callHandler(core, () => handler(event))
}

/**
 * Raises an event of a port (9 PORT_ACTIVE, 10 PORT_ERR, …): on every async fd of the device, with the port's number as
 * element, and for every handler (R32).
 */
export const raisePort = (device: Device, port: number, type: number): void => {
  postToDevice(device, { type, port })
  reportFailure(
    { what: 'event', device: device.name, event: type, cause: because('PORT_EVENT', { port }) },
    device,
    undefined,
  )
}

/** Raises an event of the device on every async fd, with element 0. */
export const raiseDevice = (device: Device, type: number): void => {
  postToDevice(device, { type, port: undefined })
  const cause = type === DEVICE_FATAL ? because('DEVICE_REMOVED', {}) : because('OTHER_EVENT', { event: type })
  reportFailure({ what: 'event', device: device.name, event: type, cause }, device, undefined)
}

/**
 * Raises an event of the system-wide device about the device with this index: it is the element on async fds, and the
 * object in event queues to which the system-wide device is attached.
 */
export const raiseSystem = (system: Device, index: number, type: number): void =>
  postToDevice(system, { type, port: index }, 0)

/** Whether an event belongs to an object rather than to the device, a port, or a driver's record. */
const isAboutObject = ({ element: { more, to } }: EventRecord): boolean => {
  const cls = more?.attached?.class
  return cls === undefined ? to !== noRoute : cls !== ClassId.device && cls !== ClassId.port
}

/** Withdraws the unread events of objects; those of the device and its ports can still be read. */
const forgetObjectEvents = ({ sink }: FdObject): void => {
  for (const event of sink.take(Number.POSITIVE_INFINITY)) {
    if (isAboutObject(event)) countEvent(event, -1)
    else sink.post(event)
  }
}

/** The device and its objects are being removed: unread events of objects are withdrawn, as on Linux. */
export const forgetEvents = ({ contexts }: Device): void => {
  for (const context of contexts) for (const fd of context.descriptors) if (!fd.closed) forgetObjectEvents(fd)
}

/** Withdraws the events of one source that the client of `fd` has not read. */
const withdrawUnread = (fd: FdObject | undefined, events: Affiliation): void => {
  const { more } = events
  if (fd === undefined || fd.closed || !fd.context.device.alive) return
  if (more === undefined || more.completions + more.asyncs === 0) return
  for (const event of fd.sink.withdraw(events)) countEvent(event, -1)
}

/** To be awaited before events of an object are withdrawn (`EventSink.reach`); undefined: no need to wait. */
export const reachEvents = ({ events }: CoreObject): Promise<void> | undefined => {
  const more = events?.more
  if (events === undefined || more === undefined || more.completions + more.asyncs === 0) return undefined
  const { channel, asyncFd } = events.to
  for (const fd of [channel, asyncFd, more.attached?.queue]) {
    const found = fd === undefined || fd.closed ? undefined : fd.sink.reach?.()
    // One at a time: the next look-up uses the result of this one.
    if (found !== undefined) return found
  }
  return undefined
}

/**
 * Ends an object's events: withdraws unread ones and returns the numbers of read ones, for the answer of a destroy. A
 * destroy handler calls it when no more completions can follow.
 */
export const withdrawEvents = (object: CoreObject): EventsRead => {
  const { events } = object
  if (events === undefined) return { compEvents: 0, asyncEvents: 0 }
  events.armed = 0
  withdrawUnread(events.to.channel, events)
  withdrawUnread(events.to.asyncFd, events)
  const { more } = events
  if (more === undefined) return { compEvents: 0, asyncEvents: 0 }
  withdrawUnread(more.attached?.queue, events)
  detachFromQueue(events)
  return { compEvents: more.completions, asyncEvents: more.asyncs }
}

/** The objects attached to a queue: its context may have very many others. */
const attachedTo = new WeakMap<FdObject, Set<Affiliation>>()

const detachFromQueue = (events: Affiliation): void => {
  const { more } = events
  if (more?.attached === undefined) return
  attachedTo.get(more.attached.queue)?.delete(events)
  more.attached = undefined
}

/** Closes an fd object for events; unread events of objects are dropped all at once, since there may be very many. */
export const closeEvents = (fd: FdObject): void => {
  if (fd.closed) return
  if (fd.context.device.alive) forgetObjectEvents(fd)
  fd.closed = true
  for (const events of attachedTo.get(fd) ?? []) detachEvents(events)
}

// ---- event queues (R38) ----

/** From now on sends the events of an object to a queue. */
export const attachEvents = (events: Affiliation, attached: Attachment): void => {
  const more = eventStateOf(events)
  detachFromQueue(events)
  const others = attachedTo.get(attached.queue) ?? new Set()
  attachedTo.set(attached.queue, others.add(events))
  more.attached = attached
  more.record = undefined
}

/** Detaches an object from its queue: withdraws its unread events; later ones are routed as before. */
export const detachEvents = (events: Affiliation): void => {
  const { more } = events
  if (more === undefined) return
  withdrawUnread(more.attached?.queue, events)
  detachFromQueue(events)
  more.record = undefined
}

/** Attaches the device, or a port of it, to a queue. */
export const attachPort = (queue: FdObject<AttachedPorts>, attached: Attachment): void => {
  queue.state.set(attached.object, affiliationOf(attached.cookie, attached))
}

/** Detaches it; false if it was not attached. */
export const detachPort = (queue: FdObject<AttachedPorts>, port: number): boolean => {
  const source = queue.state.get(port)
  if (source === undefined) return false
  withdrawUnread(queue, source)
  return queue.state.delete(port)
}
