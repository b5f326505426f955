/*
 * Completion events and asynchronous events: routing, arming, and how many events a client has read (R34, R35, R37).
 *
 * An object with events has a route: a completion channel and an async fd, or handlers of a client in this process. If
 * the object is attached to an event queue, its events go there instead; events of connections go to both. An armed CQ
 * raises exactly one event. A destroy withdraws the object's unread events and returns how many the client has read:
 * libibverbs waits until the program has acknowledged that many. The records on completion channels and async fds have
 * Linux's bytes.
 */
import { type Cause, createCause } from '../../spec/check/causes.ts'
import { ClassId } from '../../spec/classes/ids.ts'
import { ArmWord } from '../../spec/context-logs.ts'
import { EventKind } from '../../spec/enums.ts'
import { callError, gone } from '../../spec/errno.ts'
import { copyOfBytes } from '../../spec/memory.ts'
import { DRIVER_RECORD_BYTES } from '../../spec/session.ts'
import { noteFault } from '../attempt.ts'
import { reportFailure } from '../failures.ts'
import type { SharedWord } from '../memory/mappable-memory.ts'
import {
  type Affiliation,
  Armed,
  type Attachment,
  type CallContext,
  type Context,
  type Core,
  type CoreObject,
  type Device,
  type DeviceEvent,
  type EventHandlers,
  type EventRecord,
  type EventRoute,
  type EventSink,
  type EventState,
  type EventsRead,
  type FdObject,
  type Threshold,
} from '../model.ts'
import { onUndelivered } from '../undelivered.ts'
import { BoundedQueue } from './bounded-queue.ts'
import { postLate } from './late-events.ts'
import {
  cancelDeadline,
  countCompletion,
  createThreshold,
  expireDue,
  rearmThreshold,
  tightenThreshold,
} from './thresholds.ts'

/** IBV_EVENT_DEVICE_FATAL: the device was removed. */
export const DEVICE_FATAL = 8
/** IBV_EVENT_DEVICE_SPEED_CHANGE (Linux 7.0). */
export const DEVICE_SPEED_CHANGE = 20

/** `FdObject` with a sink that can be replaced. */
interface MutableFd {
  sink: EventSink
}

/** `EventRecord.type` of completions, and of other records without a type. */
const NO_TYPE = -1

/**
 * A sink that queues events in this process. The first sink of an fd object is one: its events wait in core until they
 * are read or a carrier attaches its own sink. Not related to the class `event_queue`.
 */
export interface EventQueue extends EventSink {
  readonly queue: EventRecord[]
  hasEnded: boolean
}

/** If very many events are unread, repeated ones are dropped (bounded-queue.ts). `post` and `end` call `wake`. */
export const createEventQueue = (wake?: () => void): EventQueue => {
  const queue = new BoundedQueue()
  return {
    queue: queue.records,
    hasEnded: false,
    post(event) {
      if (queue.add(event)) wake?.()
      else countEvent(event, -1)
    },
    withdraw: element => queue.withdraw(element),
    unread: () => queue.records.length,
    take: limit => queue.take(limit),
    end() {
      this.hasEnded = true
      wake?.()
    },
  }
}

/**
 * Reads up to `limit` events from an fd object. Throws EAGAIN if there is none, EIO if none can follow, because
 * the context was closed or the device removed.
 */
export const readEvents = (fd: FdObject, limit = 1): readonly EventRecord[] => {
  const events = fd.sink.take(limit)
  if (events.length > 0) return events
  if (fd.isClosed) throw gone`no more events: the context is closed or its device removed`
  throw callError.EAGAIN`no event is pending on the descriptor`
}

/** Puts events back, before the events that the fd object has now. */
const restoreEvents = ({ sink }: FdObject, events: readonly EventRecord[]): void => {
  for (const event of [...events, ...sink.take(Number.POSITIVE_INFINITY)]) sink.post(event)
}

/** As `readEvents`, for a call: the events are put back if its answer cannot be delivered. */
export const readEventsFor = (call: CallContext, fd: FdObject, limit = 1): readonly EventRecord[] => {
  const events = readEvents(fd, limit)
  onUndelivered(call, () => restoreEvents(fd, events))
  return events
}

/** Replaces the sink of an fd object by the carrier's, and moves queued events there. */
export const attachSink = (fd: FdObject, sink: EventSink): void => {
  const before = fd.sink
  const { queue } = before as Partial<EventQueue>
  const mutable: MutableFd = fd
  mutable.sink = sink
  if (queue !== undefined) for (const event of before.take(queue.length)) sink.post(event)
  if (fd.isClosed) sink.end()
}

// ---- records ----

const RECORD_BYTES = { completion: 8, async: 16, eventQueue: 24 } as const

/**
 * The record of an event of `element`. `type`: `EventRecord.type`. `object`, `kind`: the fields object and type of a
 * record on an event queue (spec/classes/events/event_queue.ts).
 */
const recordOf = (
  element: Affiliation,
  type: number,
  object?: number,
  kind: number = type < 0 ? EventKind.values.COMPLETION : type,
): EventRecord => {
  const { state, userHandle } = element
  const attached = state?.attached
  const channelBytes = type < 0 ? RECORD_BYTES.completion : RECORD_BYTES.async
  const bytes = new Uint8Array(attached === undefined ? channelBytes : RECORD_BYTES.eventQueue)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, attached?.cookie ?? userHandle, true)
  if (attached !== undefined) {
    view.setUint32(8, object ?? attached.object, true)
    view.setUint16(12, attached.class, true)
    view.setUint32(16, kind, true)
  } else if (type >= 0) view.setUint32(8, type, true)
  return { element, bytes, type }
}

export const eventStateOf = (events: Affiliation): EventState => {
  events.state ??= {
    completions: 0,
    asyncs: 0,
    record: undefined,
    attached: undefined,
    threshold: undefined,
    armWord: undefined,
  }
  return events.state
}

const countEvent = ({ element, type }: EventRecord, delta: 1 | -1): void => {
  const state = eventStateOf(element)
  if (type < 0) state.completions += delta
  else state.asyncs += delta
}

/** Subtracts a withdrawn or lost event from the counts of its source. */
export const uncountEvent = (event: EventRecord): void => countEvent(event, -1)

const post = (fd: FdObject | undefined, event: EventRecord): void => {
  if (fd === undefined || fd.isClosed) return
  const { core } = fd.context.device
  core.events++
  countEvent(event, 1)
  const { eventDelays } = core
  const late = eventDelays?.decide(fd, event)
  if (eventDelays === undefined || late === undefined) fd.sink.post(event)
  else
    postLate(fd, event, late, eventDelays, () => {
      countEvent(event, 1)
      fd.sink.post(event)
    })
}

/** Posts an event of an object, unless the device is being removed. */
const postUnlessRemoved = (fd: FdObject | undefined, event: EventRecord): void => {
  if (fd?.context.device.isAlive) post(fd, event)
}

// ---- a driver's own records ----

/**
 * Posts a driver's own record on a descriptor, of 1 to DRIVER_RECORD_BYTES bytes, or `max`. poll(2) reports the record,
 * and each read returns one record. A record should announce data rather than contain it: if very many are unread, some
 * are dropped (bounded-queue.ts).
 */
export const postRecord = (fd: FdObject, bytes: Uint8Array, max: number = DRIVER_RECORD_BYTES): void => {
  if (bytes.length === 0 || bytes.length > max) throw new Error(`a record has 1 to ${max} bytes, not ${bytes.length}`)
  fd.events ??= affiliationOf(0n)
  post(fd, { element: fd.events, bytes: copyOfBytes(bytes), type: NO_TYPE })
}

// ---- events of connections ----

/**
 * Posts an event of the connection manager on the channel of its element. If the element is attached to an event queue,
 * also posts a record of kind CONNECTION there.
 */
export const postOnChannel = (event: EventRecord): void => {
  const { element } = event
  post(element.route.channel, event)
  const queue = element.state?.attached?.queue
  // NO_TYPE, so that `state.asyncs` counts only the channel's events (`moveToChannel`).
  if (queue !== undefined) postUnlessRemoved(queue, recordOf(element, NO_TYPE, undefined, EventKind.values.CONNECTION))
}

/**
 * Changes the channel of an object's events. Returns the unread events, which the caller posts on the new channel, and
 * how many events of the object the client has read.
 */
export const moveToChannel = (
  { context, events }: CoreObject,
  channel: FdObject,
): { readonly unread: readonly EventRecord[]; readonly read: number } => {
  if (events === undefined) return { unread: [], read: 0 }
  const before = events.route.channel
  const unread = before === undefined || before.isClosed ? [] : before.sink.withdraw(events)
  const { state } = events
  const read = state === undefined ? 0 : state.asyncs - unread.length
  events.route = routeTo(context, channel, undefined)
  return { unread, read }
}

// ---- affiliated objects ----

const requireEventFd = (object: CoreObject | undefined): FdObject | undefined => {
  if (object !== undefined && object.class.identity !== 'fd')
    throw new Error(`events need an event descriptor, not an object of class ${object.class.name}`)
  return object as FdObject | undefined
}

/** The route without descriptors and handlers. */
export const noRoute: EventRoute = { channel: undefined, asyncFd: undefined, handlers: undefined }

/**
 * A route to these descriptors; objects share the context's last route if it has the same ones. The handlers are those
 * of the last route, perhaps another caller's, until dispatch calls `setEventHandlers` after a create.
 */
const routeTo = (
  context: Context | undefined,
  channel: FdObject | undefined,
  asyncFd: FdObject | undefined,
): EventRoute => {
  const last = context?.lastRoute ?? noRoute
  if (last.channel === channel && last.asyncFd === asyncFd) return last
  const route = { channel, asyncFd, handlers: last.handlers, core: last.core }
  if (context !== undefined) context.lastRoute = route
  return route
}

/**
 * Makes `object` a source of events; called by its create handler. `userHandle` (u64) identifies it in event records.
 * Without `asyncFd` its async events go to the context's default async fd, if there is one.
 */
export const affiliate = (
  object: CoreObject,
  userHandle: bigint,
  descriptors: { channel?: CoreObject | undefined; asyncFd?: CoreObject | undefined } = {},
): Affiliation => {
  object.events = {
    userHandle,
    route: routeTo(
      object.context,
      requireEventFd(descriptors.channel),
      requireEventFd(descriptors.asyncFd) ?? object.context?.asyncFd,
    ),
    armed: Armed.NO,
    wasArmed: false,
    state: undefined,
  }
  return object.events
}

/** Sets the caller's handlers for the object's events. */
export const setEventHandlers = ({ context, events }: CoreObject, handlers: EventHandlers | undefined): void => {
  if (events === undefined || events.route.handlers === handlers) return
  events.route = { ...events.route, handlers, core: context?.device.core }
  if (context !== undefined) context.lastRoute = events.route
}

/**
 * REQ_NOTIFY: the next completion raises one event; with `solicitedOnly`, the next solicited or failed one. With a
 * threshold the event is raised after `count` such completions, or `period` microseconds after the first of them.
 * Undefined values are those of the CQ's own threshold. If the CQ is armed already, its event can only become earlier
 * (thresholds.ts), and `solicitedOnly` does not weaken an arming for the next completion, as on Linux.
 */
export const arm = (object: CoreObject, solicitedOnly: boolean, count?: number, period?: number): void => {
  const { events } = object
  if (events === undefined) throw new Error(`an object of class ${object.class.name} has no events and cannot be armed`)
  const threshold = count !== undefined || period !== undefined ? thresholdOf(object, events) : events.state?.threshold
  const isArmed = events.armed !== Armed.NO
  events.wasArmed = true
  if (events.armed !== Armed.NEXT) events.armed = solicitedOnly ? Armed.SOLICITED : Armed.NEXT
  if (threshold === undefined) return
  const [armedCount, armedPeriod] = [count ?? threshold.count, period ?? threshold.period]
  if (!isArmed) rearmThreshold(events, threshold, armedCount, armedPeriod)
  else if (tightenThreshold(events, threshold, armedCount, armedPeriod)) raiseAndDisarm(events)
}

// ---- arming without a call ----

/** Lets the program arm a new CQ by a word of shared memory, if its context has one. The CQ gets no threshold later. */
export const shareArming = ({ context, handle, events }: CoreObject): void => {
  const word = context?.mapped?.armWord?.(handle)
  if (word === undefined || events === undefined) return
  eventStateOf(events).armWord = word
  Atomics.store(word.words, word.at, ArmWord.IDLE)
}

/** Replaces a stored arming by `next`, and arms the CQ. The program may have stored any value. */
const takeArming = (events: Affiliation, { words, at }: SharedWord, next: number): void => {
  const taken = Atomics.exchange(words, at, next)
  if (taken === ArmWord.NEXT || taken === ArmWord.SOLICITED) events.wasArmed = true
  if (taken === ArmWord.NEXT) events.armed = Armed.NEXT
  else if (taken === ArmWord.SOLICITED && events.armed === Armed.NO) events.armed = Armed.SOLICITED
}

/** Looks for an arming that the program has stored. Hot: one load if there is none. */
const lookAtArmWord = (events: Affiliation, word: SharedWord): void => {
  if (Atomics.load(word.words, word.at) > ArmWord.IDLE) takeArming(events, word, ArmWord.IDLE)
}

/** From now on only calls arm the CQ. */
const endSharedArming = (events: Affiliation): void => {
  const { state } = events
  if (state?.armWord === undefined) return
  takeArming(events, state.armWord, ArmWord.NONE)
  state.armWord = undefined
}

/** Which completion raises the CQ's event. */
export const armedFor = (events: Affiliation): Armed => {
  if (events.state?.armWord !== undefined) lookAtArmWord(events, events.state.armWord)
  return events.armed
}

const thresholdOf = ({ context }: CoreObject, events: Affiliation): Threshold | undefined => {
  if (context === undefined) return events.state?.threshold
  const state = eventStateOf(events)
  // A threshold counts from the arming on.
  endSharedArming(events)
  state.threshold ??= createThreshold(context.device.core)
  return state.threshold
}

/** Sets the threshold of a CQ. Undefined values are not changed. */
export const setThreshold = (object: CoreObject, count: number | undefined, period: number | undefined): void => {
  const { events } = object
  const threshold = events && thresholdOf(object, events)
  if (events === undefined || threshold === undefined) return
  threshold.count = count ?? threshold.count
  threshold.period = period ?? threshold.period
  if (events.armed !== Armed.NO && tightenThreshold(events, threshold, threshold.count, threshold.period))
    raiseAndDisarm(events)
}

/** Calls a client's handler. An exception does not end the device's work. */
const callHandler = (core: Core | undefined, run: () => void): void => {
  try {
    run()
  } catch (error) {
    if (core !== undefined) noteFault(core, error)
  }
}

const raiseAndDisarm = (events: Affiliation): void => {
  events.armed = Armed.NO
  const { handlers, core } = events.route
  if (events.state?.attached === undefined && handlers?.completion !== undefined) {
    callHandler(core, () => handlers.completion?.(events.userHandle))
    return
  }
  const state = eventStateOf(events)
  state.record ??= recordOf(events, NO_TYPE)
  postUnlessRemoved(state.attached?.queue ?? events.route.channel, state.record)
}

/**
 * Called after each written completion, whose producer index was stored by Atomics.store: so either this finds an
 * arming by a word, or the program finds the completion. `isSolicited`: solicited or failed. Hot.
 */
export const completed = (events: Affiliation, isSolicited: boolean): void => {
  completedSome(events, isSolicited, 1)
}

/** As `completed`, for `count` completions at once. */
export const completedSome = (events: Affiliation, isSolicited: boolean, count: number): void => {
  if (events.state?.armWord !== undefined) lookAtArmWord(events, events.state.armWord)
  if (events.armed === Armed.NO || (events.armed === Armed.SOLICITED && !isSolicited)) return
  const threshold = events.state?.threshold
  if (threshold !== undefined && !countCompletion(events, threshold, count)) return
  raiseAndDisarm(events)
}

/**
 * Raises the completion events that are due at `now`; true if there were any. The owner of core calls it at
 * `nextDue` (thresholds.ts).
 */
export const expire = (core: Core, now: number): boolean => expireDue(core, now, raiseAndDisarm)

/** Raises an async event of an object (ibv_event_type: 0 CQ_ERR, 1 QP_FATAL, …). */
export const raiseObjectEvent = ({ events }: CoreObject, type: number): void => {
  if (events === undefined) return
  const { handlers, core } = events.route
  const attached = events.state?.attached
  if (attached === undefined && handlers?.event !== undefined)
    callHandler(core, () => handlers.event?.(events.userHandle, type))
  else postUnlessRemoved(attached?.queue ?? events.route.asyncFd, recordOf(events, type))
}

/** The event source of the device, a port, or a driver's descriptor. */
const affiliationOf = (userHandle: bigint, attached?: Attachment): Affiliation => {
  const events: Affiliation = { userHandle, route: noRoute, armed: Armed.NO, wasArmed: false, state: undefined }
  if (attached !== undefined) eventStateOf(events).attached = attached
  return events
}

/** State of an event queue: the ports that are attached to it (port 0: the device). */
export type AttachedPorts = Map<number, Affiliation>

const deviceSources = new WeakMap<Device, Map<number, Affiliation>>()

/**
 * The source of a device's events on async fds, by port number (0: the device). Always the same record, because queues
 * drop repeated events of one source (bounded-queue.ts).
 */
const deviceSource = (device: Device, port: number): Affiliation => {
  let sources = deviceSources.get(device)
  if (sources === undefined) {
    sources = new Map()
    deviceSources.set(device, sources)
  }
  let source = sources.get(port)
  if (source === undefined) {
    source = affiliationOf(BigInt(port))
    sources.set(port, source)
  }
  return source
}

/**
 * Posts an event of a device or port on every async fd of the device and on the event queues to which `source` is
 * attached (port number; 0: the device), and calls the device's handlers. `only`: nothing of other contexts.
 */
const postToDevice = (device: Device, event: DeviceEvent, source = event.port ?? 0, only?: Context): void => {
  const { contexts, eventHandlers, core } = device
  const record = recordOf(deviceSource(device, event.port ?? 0), event.type)
  for (const context of only === undefined ? contexts : [only])
    for (const fd of context.descriptors) {
      if (fd.class.id === ClassId.async_fd) post(fd, record)
      else if (fd.class.id === ClassId.event_queue) {
        const attached = (fd.state as AttachedPorts | undefined)?.get(source)
        if (attached !== undefined) post(fd, recordOf(attached, event.type, event.port))
      }
    }
  // A handler may remove others, and may add handlers, which do not get this event.
  for (const [handler, context] of [...eventHandlers])
    if (eventHandlers.has(handler) && (only === undefined || context === only)) callHandler(core, () => handler(event))
}

/**
 * Raises an event of a port (9 PORT_ACTIVE, 10 PORT_ERR, …), with the port number as element on async fds. Also
 * reports it as a failure. `cause`: PORT_EVENT, if not given.
 */
export const raisePort = (
  device: Device,
  port: number,
  type: number,
  cause: Cause = createCause('PORT_EVENT', { port }),
): void => {
  postToDevice(device, { type, port })
  reportFailure({ kind: 'event', device: device.name, event: type, cause }, device, undefined)
}

/** Causes of events of the device, by `AsyncEventType`. */
const deviceCauses: Readonly<Record<number, Cause>> = {
  [DEVICE_FATAL]: createCause('DEVICE_REMOVED', {}),
  [DEVICE_SPEED_CHANGE]: createCause('SPEED_CHANGE', {}),
}

/** Raises an event of the device, with element 0 on async fds. Also reports it as a failure. */
export const raiseDevice = (device: Device, type: number): void => {
  postToDevice(device, { type, port: undefined })
  const cause = deviceCauses[type] ?? createCause('OTHER_EVENT', { event: type })
  reportFailure({ kind: 'event', device: device.name, event: type, cause }, device, undefined)
}

/** Raises an event of a port or of the device (port undefined) for one context only. Also reports it as a failure. */
export const raiseInContext = (context: Context, event: DeviceEvent, cause: Cause): void => {
  const { device } = context
  postToDevice(device, event, event.port ?? 0, context)
  reportFailure({ kind: 'event', device: device.name, event: event.type, cause }, device, context)
}

/**
 * Raises an event of the system-wide device about the device with this index. On async fds the index is the element, in
 * records of event queues the object.
 */
export const raiseSystem = (system: Device, index: number, type: number): void =>
  postToDevice(system, { type, port: index }, 0)

/** The event is an object's: not the device's, a port's, or a driver's record. */
const isAboutObject = ({ element: { state, route } }: EventRecord): boolean => {
  const cls = state?.attached?.class
  return cls === undefined ? route !== noRoute : cls !== ClassId.device && cls !== ClassId.port
}

/** Withdraws the unread events of objects. Events of the device and its ports, and a driver's records, stay. */
const forgetObjectEvents = ({ sink }: FdObject): void => {
  for (const event of sink.take(Number.POSITIVE_INFINITY)) {
    if (isAboutObject(event)) countEvent(event, -1)
    else sink.post(event)
  }
}

/** The device is being removed: withdraws unread events of its objects, as on Linux. */
export const forgetEvents = ({ contexts }: Device): void => {
  for (const context of contexts) for (const fd of context.descriptors) if (!fd.isClosed) forgetObjectEvents(fd)
}

/** Withdraws the unread events of one source; no effect after the device's removal. */
const withdrawUnread = (fd: FdObject | undefined, events: Affiliation): void => {
  const { state } = events
  if (fd === undefined || fd.isClosed || !fd.context.device.isAlive) return
  if (state === undefined || state.completions + state.asyncs === 0) return
  for (const event of fd.sink.withdraw(events)) countEvent(event, -1)
}

/**
 * To be awaited before events of an object are withdrawn (`EventSink.prepareWithdraw`). Undefined: nothing to wait for.
 */
export const prepareWithdrawEvents = ({ events }: CoreObject): Promise<void> | undefined => {
  const state = events?.state
  if (events === undefined || state === undefined || state.completions + state.asyncs === 0) return undefined
  const { channel, asyncFd } = events.route
  for (const fd of [channel, asyncFd, state.attached?.queue]) {
    const preparing = fd === undefined || fd.isClosed ? undefined : fd.sink.prepareWithdraw?.()
    // The caller calls this function again after each promise.
    if (preparing !== undefined) return preparing
  }
  return undefined
}

/**
 * Ends an object's events: withdraws the unread ones and returns the numbers of read ones. A destroy handler calls it
 * when no more completions can follow.
 */
export const withdrawEvents = (object: CoreObject): EventsRead => {
  const { events } = object
  if (events === undefined) return { compEvents: 0, asyncEvents: 0 }
  endSharedArming(events)
  events.armed = Armed.NO
  withdrawUnread(events.route.channel, events)
  withdrawUnread(events.route.asyncFd, events)
  const { state } = events
  if (state === undefined) return { compEvents: 0, asyncEvents: 0 }
  if (state.threshold !== undefined) cancelDeadline(events, state.threshold)
  withdrawUnread(state.attached?.queue, events)
  detachFromQueue(events)
  return { compEvents: state.completions, asyncEvents: state.asyncs }
}

/** The objects attached to each queue: a search of all objects of the context would take long. */
const attachedTo = new WeakMap<FdObject, Set<Affiliation>>()

const detachFromQueue = (events: Affiliation): void => {
  const { state } = events
  if (state?.attached === undefined) return
  attachedTo.get(state.attached.queue)?.delete(events)
  state.attached = undefined
}

/**
 * Closes an fd object for events: detaches the attached objects, and withdraws unread events of objects, in one pass
 * because there may be very many.
 */
export const closeEvents = (fd: FdObject): void => {
  if (fd.isClosed) return
  if (fd.context.device.isAlive) forgetObjectEvents(fd)
  fd.isClosed = true
  for (const events of attachedTo.get(fd) ?? []) detachEvents(events)
}

// ---- event queues (R38) ----

/** Attaches an object, which is attached to none, to an event queue. The queue gets its later events. */
export const attachEvents = (events: Affiliation, attached: Attachment): void => {
  const state = eventStateOf(events)
  const others = attachedTo.get(attached.queue) ?? new Set()
  attachedTo.set(attached.queue, others.add(events))
  state.attached = attached
  state.record = undefined
}

/** Detaches an object from its event queue, and withdraws the object's unread events from the queue. */
export const detachEvents = (events: Affiliation): void => {
  const { state } = events
  if (state === undefined) return
  withdrawUnread(state.attached?.queue, events)
  detachFromQueue(events)
  state.record = undefined
}

/** Attaches the device or a port to a queue. */
export const attachPort = (queue: FdObject<AttachedPorts>, attached: Attachment): void => {
  queue.state.set(attached.object, affiliationOf(attached.cookie, attached))
}

/** Detaches the device (port 0) or a port from a queue. False if it was not attached. */
export const detachPort = (queue: FdObject<AttachedPorts>, port: number): boolean => {
  const source = queue.state.get(port)
  if (source === undefined) return false
  withdrawUnread(queue, source)
  return queue.state.delete(port)
}
