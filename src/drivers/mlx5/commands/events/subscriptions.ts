/*
 * Subscriptions to events of objects that commands have made, and of the port (MLX5_IB_METHOD_DEVX_SUBSCRIBE_EVENT). An
 * event goes to each channel that has subscribed, or to its eventfd, in the order of the subscriptions; without
 * subscription it is lost, as on Linux. Records that a channel has stay when the object is destroyed.
 */
import { addEventHandler } from '../../../../core/devices/clients.ts'
import { postRecord, setEventHandlers } from '../../../../core/events/events.ts'
import type { Context, CoreObject, DeviceEvent, FdObject, SignalFd } from '../../../../core/model.ts'
import { AsyncEventType } from '../../../../spec/enums.ts'
import { CQ_OVERRUN, DeviceEvents, EventRecord, ObjectEvents, PortChange, typeOfEvent } from './event-types.ts'

/** Of an object, and of a context for events of the port. */
const MAX_SUBSCRIPTIONS = 1024

/** State of a channel. */
export interface EventChannel {
  /** Records are the cookie only; an event of a subscription is not repeated as long as it is unread. */
  readonly omitsData: boolean
  /** The subscriptions of the records that may be unread, oldest first. */
  posted: Subscription[]
}
export type EventChannelFd = FdObject<EventChannel>

export interface Subscription {
  readonly channel: EventChannelFd
  readonly type: number
  readonly cookie: bigint
  /** The eventfd that gets the events in place of the channel. */
  readonly signal: SignalFd | undefined
}

interface Subscribed {
  list: Subscription[]
  /** Ends the handler of events of the port. */
  stop?: () => void
}

/** By the `devx_obj`, or for events of the port by the context. */
const subscriptions = new WeakMap<CoreObject | Context, Subscribed>()

const isOpen = ({ channel }: Subscription): boolean => !channel.isClosed

const subscribedOf = (source: CoreObject | Context): Subscribed => {
  let subscribed = subscriptions.get(source)
  if (subscribed === undefined) {
    subscribed = { list: [] }
    subscriptions.set(source, subscribed)
  }
  return subscribed
}

const endSubscription = ({ signal }: Subscription): void => signal?.close()

/** Forgets those of closed channels. */
const withoutClosed = (subscribed: Subscribed): Subscription[] => {
  if (subscribed.list.every(isOpen)) return subscribed.list
  for (const subscription of subscribed.list) if (!isOpen(subscription)) endSubscription(subscription)
  subscribed.list = subscribed.list.filter(isOpen)
  return subscribed.list
}

/** Adds subscriptions; false if there are too many. */
export const subscribe = (source: CoreObject | Context, added: readonly Subscription[]): boolean => {
  const subscribed = subscribedOf(source)
  if (withoutClosed(subscribed).length + added.length > MAX_SUBSCRIPTIONS) return false
  subscribed.list.push(...added)
  return true
}

/** The object is destroyed, or the context closed. */
export const endSubscriptions = (source: CoreObject | Context): void => {
  const subscribed = subscriptions.get(source)
  if (subscribed === undefined) return
  subscriptions.delete(source)
  subscribed.stop?.()
  for (const subscription of subscribed.list) endSubscription(subscription)
}

const post = (subscription: Subscription, record: Uint8Array): void => {
  const { channel, cookie, signal } = subscription
  if (signal !== undefined) {
    signal.signal()
    return
  }
  const { state } = channel
  if (state.omitsData) {
    // the newest records are the unread ones
    const unread = channel.sink.unread()
    state.posted = unread === 0 ? [] : state.posted.slice(-unread)
    if (state.posted.includes(subscription)) return
    state.posted.push(subscription)
  }
  new DataView(record.buffer).setBigUint64(EventRecord.COOKIE, cookie, true)
  postRecord(channel, state.omitsData ? record.subarray(0, EventRecord.COOKIE_BYTES) : record)
}

const dispatch = (source: CoreObject | Context, type: number, record: () => Uint8Array): void => {
  const subscribed = subscriptions.get(source)
  if (subscribed === undefined) return
  let bytes: Uint8Array | undefined
  for (const subscription of [...withoutClosed(subscribed)])
    if (subscription.type === type) {
      bytes ??= record()
      post(subscription, bytes)
    }
}

const { COMP, CQ_ERROR, DCT_KEY_VIOLATION } = ObjectEvents

/** The record of an event of an object with this number; post adds the cookie. */
const recordOf = (type: number, number: number): Uint8Array => {
  const bytes = new Uint8Array(EventRecord.BYTES)
  const view = new DataView(bytes.buffer)
  bytes[EventRecord.TYPE] = type
  if (type === CQ_ERROR.type) {
    view.setUint32(EventRecord.CQ_NUMBER, number)
    bytes[EventRecord.CQ_SYNDROME] = CQ_OVERRUN
  } else view.setUint32(EventRecord.NUMBER, number)
  return bytes
}

const raise = (object: CoreObject, type: number, number: number): void =>
  dispatch(object, type, () => recordOf(type, number))

/** Events of `target`, which the `devx_obj` has made, go to those who subscribe to them. `number`: in commands. */
export const sendEventsOf = (object: CoreObject, target: CoreObject, number: number): void =>
  setEventHandlers(target, {
    completion: () => raise(object, COMP.type, number),
    event(_handle, event) {
      const type = typeOfEvent.get(event)
      if (type !== undefined) raise(object, type, number)
    },
  })

export const raiseKeyViolation = (object: CoreObject, number: number): void =>
  raise(object, DCT_KEY_VIOLATION.type, number)

const { PORT_ACTIVE, PORT_ERR } = AsyncEventType.values

/** Events of the port go to those in the context who subscribe to them. */
export const sendPortEvents = (context: Context): void => {
  const subscribed = subscribedOf(context)
  subscribed.stop ??= addEventHandler(
    context.device,
    ({ type, port = 1 }: DeviceEvent) => {
      if (type !== PORT_ACTIVE && type !== PORT_ERR) return
      dispatch(context, DeviceEvents.PORT_CHANGE, () => {
        const bytes = new Uint8Array(EventRecord.BYTES)
        bytes[EventRecord.TYPE] = DeviceEvents.PORT_CHANGE
        bytes[EventRecord.SUB_TYPE] = type === PORT_ACTIVE ? PortChange.ACTIVE : PortChange.DOWN
        bytes[EventRecord.PORT] = port << 4
        return bytes
      })
    },
    context,
  )
}
