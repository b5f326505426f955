/*
 * Class `devx_async_event_fd`, channels of events of firmware, and the call that subscribes to events.
 */
import { driverClass } from '../../../../core/devices/driver.ts'
import type { CallContext, CoreObject, SignalFd } from '../../../../core/model.ts'
import { ChannelFlags, DevxAsyncEventFd } from '../../../../spec/drivers/mlx5-devx.ts'
import { callError } from '../../../../spec/errno.ts'
import { the } from '../../../../spec/reason.ts'
import { contextOf } from '../../context.ts'
import { deviceEventTypes, MAX_EVENT_TYPES, objectEventTypes } from './event-types.ts'
import {
  type EventChannel,
  type EventChannelFd,
  type Subscription,
  sendPortEvents,
  subscribe,
} from './subscriptions.ts'

/** Throws CallError EINVAL. */
const requireCommands = ({ context }: CallContext, method: string): void => {
  if (contextOf(context).uid === undefined)
    throw callError.EINVAL`${the.method(method)}: the context was opened without MLX5DV_CONTEXT_FLAGS_DEVX`
}

export const eventChannelClass = driverClass<typeof DevxAsyncEventFd, EventChannel>(DevxAsyncEventFd, {
  create(call, object, { flags }) {
    requireCommands(call, 'devx_async_event_fd.create')
    object.state = { omitsData: (flags & ChannelFlags.OMIT_DATA) !== 0, posted: [] }
    return {}
  },
})

/** The u16s of the list. Throws CallError EINVAL. */
const typesOf = (bytes: Uint8Array, isObject: boolean): readonly number[] => {
  const count = bytes.length / 2
  if (!Number.isInteger(count) || count > MAX_EVENT_TYPES)
    throw callError.EINVAL`${the.method('devx.subscribe')}: ${bytes.length} bytes of event types: 1 to ${MAX_EVENT_TYPES} types of 2 bytes`
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const types = Array.from({ length: count }, (_, i) => view.getUint16(2 * i, true))
  const known = isObject ? objectEventTypes : deviceEventTypes
  for (const type of types)
    if (!known.has(type))
      throw callError.EINVAL`${the.method('devx.subscribe')}: event type 0x${type.toString(16)}: ${isObject ? 'objects' : 'the device'} raise ${[...known].map(other => `0x${other.toString(16)}`).join(', ')}`
  return types
}

interface SubscribeArguments {
  readonly channel: CoreObject
  readonly types: Uint8Array
  readonly cookie?: bigint | undefined
  readonly eventFd?: number | undefined
}

const openSignal = ({ caller }: CallContext, fd: number): SignalFd => {
  const signal = caller.openSignal?.(fd)
  if (signal === undefined)
    throw callError.EOPNOTSUPP`${the.method('devx.subscribe')}: ${the.attribute('eventFd')}: this caller has no descriptors`
  return signal
}

/** `object`: the `devx_obj` whose events it is about; undefined: those of the device. Throws CallError. */
export const subscribeTo = (call: CallContext, object: CoreObject | undefined, args: SubscribeArguments): void => {
  requireCommands(call, 'devx.subscribe')
  const { cookie, eventFd } = args
  const types = typesOf(args.types, object !== undefined)
  if (eventFd !== undefined && cookie !== undefined)
    throw callError.EINVAL`${the.method('devx.subscribe')}: attributes eventFd and cookie: an eventfd has no place for a cookie`
  const channel = args.channel as EventChannelFd
  const added: Subscription[] = []
  try {
    for (const type of types)
      added.push({
        channel,
        type,
        cookie: cookie ?? 0n,
        signal: eventFd === undefined ? undefined : openSignal(call, eventFd),
      })
    if (!subscribe(object ?? call.context, added))
      throw callError.ENOMEM`${the.method('devx.subscribe')}: too many subscriptions to events of one object`
  } catch (error) {
    for (const { signal } of added) signal?.close()
    throw error
  }
  if (object === undefined) sendPortEvents(call.context)
}
