/*
 * Completion events and asynchronous events: routing, arming, and how many events a client has read (R34, R35, R37).
 *
 * An object with events is affiliated with a completion channel and an async fd. `arm` makes the next completion (or
 * the next solicited or failed one) produce exactly one event. A destroy returns how many events of the object the
 * client has read, since libibverbs waits until that many are acknowledged; unread ones are withdrawn. Records are
 * Linux' bytes. The sink delivers them to the client.
 */
import { because } from '../../spec/causes.ts'
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

/** Core's side of an fd object; only its sink may be replaced. */
interface MutableFd {
  sink: EventSink
}

const QUEUE_LIMIT = 65536

/** The first sink of an fd object: events wait in core until they are read or a carrier attaches its own sink. */
export interface EventQueue extends EventSink {
  readonly queue: EventRecord[]
  ended: boolean
}

/**
 * A queue of events in this process; `wake` is called when an event is queued and when the queue ends. Bounded: beyond
 * 65,536 events it keeps one per object and kind, which still wakes the reader.
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
 * Reads up to `limit` events from an fd object (R39). EAGAIN if there is none, EIO if no more can follow (the context
 * is closed or the device removed).
 */
export const readEvents = (fd: FdObject, limit = 1): readonly EventRecord[] => {
  const events = fd.sink.take(limit)
  if (events.length > 0) return events
  if ((fd.sink as Partial<EventQueue>).ended || fd.closed)
    throw new CallError('EIO', 'no more events: the context is closed or its device removed')
  throw new CallError('EAGAIN', 'no event is pending on the descriptor')
}

/** Puts events that were taken from an fd object back in front of the others. */
const restoreEvents = ({ sink }: FdObject, events: readonly EventRecord[]): void => {
  for (const event of [...events, ...sink.take(Number.POSITIVE_INFINITY)]) sink.post(event)
}

/** The same for a call: the events are put back if its answer cannot be delivered. */
export const readEventsFor = (call: CallContext, fd: FdObject, limit = 1): readonly EventRecord[] => {
  const events = readEvents(fd, limit)
  onUndelivered(call, () => restoreEvents(fd, events))
  return events
}

/** Attaches the carrier's sink; events that wait move to it. */
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

/** The record of a source, made with its first event. */
export const eventStateOf = (events: Affiliation): EventState => {
  events.more ??= { completions: 0, asyncs: 0, record: undefined, attached: undefined, threshold: undefined }
  return events.more
}

const countEvent = ({ element, type }: EventRecord, by: 1 | -1): void => {
  const more = eventStateOf(element)
  if (type < 0) more.completions += by
  else more.asyncs += by
}

/** An event was withdrawn or lost. */
export const uncountEvent = (event: EventRecord): void => countEvent(event, -1)

const post = (fd: FdObject | undefined, event: EventRecord): void => {
  if (fd === undefined || fd.closed) return
  fd.context.device.core.events++
  countEvent(event, 1)
  fd.sink.post(event)
}

/** Posts an event about an object, unless the device is being removed (`forgetEvents`). */
const postAbout = (fd: FdObject | undefined, event: EventRecord): void => {
  if (fd?.context.device.alive) post(fd, event)
}

// ---- records of a driver's own ----

/** Longest record that a driver posts, bytes. */
export const RECORD_BYTES = 256

/**
 * Posts a record of the driver's own on a descriptor; poll(2) reports it, and each read returns one record. If a client
 * leaves very many unread, some are lost (`createEventQueue`), so a record should only announce data, and not be the
 * data itself.
 */
export const postRecord = (fd: FdObject, bytes: Uint8Array): void => {
  if (bytes.length === 0 || bytes.length > RECORD_BYTES)
    throw new Error(`a record has 1 to ${RECORD_BYTES} bytes, not ${bytes.length}`)
  fd.events ??= affiliationOf(0n)
  post(fd, { element: fd.events, bytes: bytes.slice(), type: -1 })
}

// ---- events of connections ----

/**
 * Posts an event, with the connection manager's bytes and type, on the channel of its element, and notifies the event
 * queue that the element is attached to.
 */
export const postOnChannel = (event: EventRecord): void => {
  const { element } = event
  post(element.to.channel, event)
  const queue = element.more?.attached?.queue
  // Its type is not counted among the channel's events.
  if (queue !== undefined) postAbout(queue, recordOf(element, COMPLETION, undefined, EventKind.values.CONNECTION))
}

/** Moves an object's events to another channel, with those that its client has not read. Returns how many were read. */
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
    throw new Error(`events cannot go to an object of class ${object.class.name}`)
  return object as FdObject | undefined
}

/** No events. */
export const noRoute: EventRoute = { channel: undefined, asyncFd: undefined, handlers: undefined }

/** The route of the context's last object if it is the same, whatever the handlers; `handleEvents` sets those later. */
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
 * Makes `object` a source of events; its create handler calls this. `userHandle` (u64) names it in event records.
 * Without an `asyncFd` its async events go to the context's first one, if there is one by then.
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

/** Calls a client of this process for the object's events, if it has a handler. */
export const handleEvents = ({ context, events }: CoreObject, handlers: EventHandlers | undefined): void => {
  if (events === undefined || events.to.handlers === handlers) return
  events.to = { ...events.to, handlers, core: context?.device.core }
  if (context !== undefined) context.route = events.to
}

/**
 * REQ_NOTIFY: the next completion, or with `solicitedOnly` the next solicited or failed one, produces one event; with a
 * threshold, that number of completions or microseconds does (R36). Without one the queue's threshold applies. A
 * pending arming is not weakened (thresholds.ts), and solicited-only does not replace one for all completions (as on
 * Linux).
 */
export const arm = (object: CoreObject, solicitedOnly: boolean, count?: number, period?: number): void => {
  const { events } = object
  if (events === undefined)
    throw new Error(`an object of class ${object.class.name} has no completions to be armed for`)
  const threshold = count !== undefined || period !== undefined ? thresholdOf(object, events) : events.more?.threshold
  const waits = events.armed !== 0
  if (events.armed !== 2) events.armed = solicitedOnly ? 1 : 2
  if (threshold === undefined) return
  const [wanted, wait] = [count ?? threshold.count, period ?? threshold.period]
  if (!waits) rearmThreshold(threshold, wanted, wait)
  else if (tightenThreshold(events, threshold, wanted, wait)) notify(events)
}

const thresholdOf = ({ context }: CoreObject, events: Affiliation): Threshold | undefined => {
  if (context === undefined) return events.more?.threshold
  const more = eventStateOf(events)
  more.threshold ??= createThreshold(context.device.core)
  return more.threshold
}

/** Sets the threshold of a queue (R36); undefined values stay. */
export const setThreshold = (object: CoreObject, count: number | undefined, period: number | undefined): void => {
  const { events } = object
  const threshold = events && thresholdOf(object, events)
  if (events === undefined || threshold === undefined) return
  threshold.count = count ?? threshold.count
  threshold.period = period ?? threshold.period
  if (events.armed !== 0 && tightenThreshold(events, threshold, threshold.count, threshold.period)) notify(events)
}

/** Calls a handler while the device is working: an exception is only counted. */
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
 * A completion was written; `solicited` if it is solicited or failed. Hot: one comparison if the queue is not armed.
 */
export const completed = (events: Affiliation, solicited: boolean): void => {
  if (events.armed === 0 || (events.armed === 1 && !solicited)) return
  const threshold = events.more?.threshold
  if (threshold !== undefined && !countCompletion(events, threshold)) return
  notify(events)
}

/** Sends the events that are due (R36); the owner of core calls this at `nextDue`. True if there were any. */
export const expire = (core: Core, now: number): boolean => expireDue(core, now, notify)

/** Sends an async event of an object (ibv_event_type: 0 CQ_ERR, 1 QP_FATAL, …). */
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

/** The sources of a device attached to an event queue: the `state` of the queue's object. Port 0 is the device. */
export type AttachedPorts = Map<number, Affiliation>

/** `source`: what must be attached to an event queue for it to get the event. */
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
 * Sends an event of a port (9 PORT_ACTIVE, 10 PORT_ERR, …) to every async fd of the device, with the port's number as
 * element, and to every handler (R32).
 */
export const raisePort = (device: Device, port: number, type: number): void => {
  postToDevice(device, { type, port })
  reportFailure(
    { what: 'event', device: device.name, event: type, cause: because('PORT_EVENT', { port }) },
    device,
    undefined,
  )
}

/** Sends an event of the device to every async fd, element 0. */
export const raiseDevice = (device: Device, type: number): void => {
  postToDevice(device, { type, port: undefined })
  const cause = type === DEVICE_FATAL ? because('DEVICE_REMOVED', {}) : because('OTHER_EVENT', { event: type })
  reportFailure({ what: 'event', device: device.name, event: type, cause }, device, undefined)
}

/**
 * Sends an event of the system-wide device: about the device with this index, which is the element on async fds, and
 * the object in event queues to which the system-wide device is attached.
 */
export const raiseSystem = (system: Device, index: number, type: number): void =>
  postToDevice(system, { type, port: index }, 0)

/** Whether an event is about an object: not about the device or a port, and not a driver's record. */
const isAboutObject = ({ element: { more, to } }: EventRecord): boolean => {
  const cls = more?.attached?.class
  return cls === undefined ? to !== noRoute : cls !== ClassId.device && cls !== ClassId.port
}

/** Withdraws the unread events of objects. Those of the device and its ports can still be read. */
const forgetObjectEvents = ({ sink }: FdObject): void => {
  for (const event of sink.take(Number.POSITIVE_INFINITY)) {
    if (isAboutObject(event)) countEvent(event, -1)
    else sink.post(event)
  }
}

/** The device is removed with its objects: their unread events are withdrawn, as on Linux. */
export const forgetEvents = ({ contexts }: Device): void => {
  for (const context of contexts) for (const fd of context.descriptors) if (!fd.closed) forgetObjectEvents(fd)
}

/** Withdraws those of `events` that the client of `fd` has not read. */
const withdrawUnread = (fd: FdObject | undefined, events: Affiliation): void => {
  const { more } = events
  if (fd === undefined || fd.closed || !fd.context.device.alive) return
  if (more === undefined || more.completions + more.asyncs === 0) return
  for (const event of fd.sink.withdraw(events)) countEvent(event, -1)
}

/** Awaited before events of an object are withdrawn (`EventSink.reach`); undefined: no need to wait. */
export const reachEvents = ({ events }: CoreObject): Promise<void> | undefined => {
  const more = events?.more
  if (events === undefined || more === undefined || more.completions + more.asyncs === 0) return undefined
  const { channel, asyncFd } = events.to
  for (const fd of [channel, asyncFd, more.attached?.queue]) {
    const found = fd === undefined || fd.closed ? undefined : fd.sink.reach?.()
    // one after the other: the next look-up uses the result of this one
    if (found !== undefined) return found
  }
  return undefined
}

/**
 * Ends an object's events: withdraws unread ones and returns the read ones, for the answer of a destroy. A destroy
 * handler calls this once nothing can complete any more.
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
  leaveQueue(events)
  return { compEvents: more.completions, asyncEvents: more.asyncs }
}

/** The sources that `attachEvents` attached to a queue: its context may have very many other objects. */
const attachedTo = new WeakMap<FdObject, Set<Affiliation>>()

const leaveQueue = (events: Affiliation): void => {
  const { more } = events
  if (more?.attached === undefined) return
  attachedTo.get(more.attached.queue)?.delete(events)
  more.attached = undefined
}

/** An fd object gets no events any more; unread ones of objects are dropped together: they may be very many. */
export const closeEvents = (fd: FdObject): void => {
  if (fd.closed) return
  if (fd.context.device.alive) forgetObjectEvents(fd)
  fd.closed = true
  for (const events of attachedTo.get(fd) ?? []) detachEvents(events)
}

// ---- event queues (R38) ----

/** Sends the events of an object to a queue from now on. */
export const attachEvents = (events: Affiliation, attached: Attachment): void => {
  const more = eventStateOf(events)
  leaveQueue(events)
  const others = attachedTo.get(attached.queue) ?? new Set()
  attachedTo.set(attached.queue, others.add(events))
  more.attached = attached
  more.record = undefined
}

/** Withdraws unread events of the object; later ones are routed as before the attachment. */
export const detachEvents = (events: Affiliation): void => {
  const { more } = events
  if (more === undefined) return
  withdrawUnread(more.attached?.queue, events)
  leaveQueue(events)
  more.record = undefined
}

/** The device, or a port of it, as a source of events for one queue. */
export const attachPort = (queue: FdObject<AttachedPorts>, attached: Attachment): void => {
  queue.state.set(attached.object, affiliationOf(attached.cookie, attached))
}

/** False if it was not attached. */
export const detachPort = (queue: FdObject<AttachedPorts>, port: number): boolean => {
  const source = queue.state.get(port)
  if (source === undefined) return false
  withdrawUnread(queue, source)
  return queue.state.delete(port)
}
