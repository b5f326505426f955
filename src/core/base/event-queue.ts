/*
 * Core's own classes of event descriptors (R35, R37–R39): completion channels, async fds, and event queues. The device,
 * ports, and objects of the classes in EVENT_SOURCES can be attached to an event queue. getEvent and getEvents return
 * the fields of the records that read(2) would return.
 */
import { AsyncFd } from '../../spec/classes/events/async_fd.ts'
import { CompChannel } from '../../spec/classes/events/comp_channel.ts'
import { EVENT_SOURCES, Event, EventQueueClass } from '../../spec/classes/events/event_queue.ts'
import { ClassId } from '../../spec/classes/ids.ts'
import { callError } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import { decodeRecord } from '../../uapi/scalar.ts'
import { driverClass } from '../devices/driver.ts'
import {
  type AttachedPorts,
  attachEvents,
  attachPort,
  detachEvents,
  detachPort,
  readEventsFor,
} from '../events/events.ts'
import type { CallContext, CoreObject, EventRecord, FdObject } from '../model.ts'

const viewOf = ({ bytes: { buffer } }: EventRecord): DataView => new DataView(buffer)

const unreadOf = (object: CoreObject): number => (object as FdObject).sink.unread()

export const compChannelClass = driverClass(CompChannel, {
  create: () => ({}),
  query({ context }, object) {
    // A loop: there may be very many objects.
    const cqs: { handle: number }[] = []
    for (const other of context.handles.slots)
      if (other?.events?.route.channel === object && other.class.id === ClassId.cq) cqs.push({ handle: other.handle })
    return { cqs, unread: unreadOf(object) }
  },
  getEvent(call, object) {
    const event = readEventsFor(call, object as FdObject)[0]!
    return { userHandle: viewOf(event).getBigUint64(0, true) }
  },
})

export const asyncFdClass = driverClass(AsyncFd, {
  create({ context }, object) {
    // As on Linux, the context's first async fd is the default for objects whose create names none.
    context.asyncFd ??= object as FdObject
    return {}
  },
  query: ({ context }, object) => ({ unread: unreadOf(object), isDefault: context.asyncFd === object ? 1 : 0 }),
  getEvent(call, object) {
    const event = readEventsFor(call, object as FdObject)[0]!
    return { element: viewOf(event).getBigUint64(0, true), type: event.type }
  },
})

type SourceArguments = { device?: number | undefined; port?: number | undefined } & { [name: string]: unknown }

/**
 * The source that the arguments of attach or detach name: an object, or a port number (0: the device). Throws EINVAL
 * unless exactly one is named, or if the device does not have the port.
 */
const sourceOf = (call: CallContext, args: SourceArguments): CoreObject | number => {
  const method = `${call.entry.class.name}.${call.entry.name}`
  const named = ['device', 'port', ...EVENT_SOURCES].filter(name => args[name] !== undefined)
  if (named.length !== 1)
    throw callError.EINVAL`${the.method(method)}: ${named.length === 0 ? 'no source is named' : `${named.join(' and ')} are named`}: name one source`
  if (args.device !== undefined) return 0
  const { port } = args
  if (port === undefined) return args[named[0]!] as CoreObject
  const { ports, name } = call.device
  if (port > ports.length)
    throw callError.EINVAL`${the.method(method)}: ${the.attribute('port')}: ${port}: device ${name} has ${ports.length === 0 ? 'no ports' : `ports 1 to ${ports.length}`}`
  return port
}

const classOfPort = (port: number): number => (port === 0 ? ClassId.device : ClassId.port)

export const eventQueueClass = driverClass<typeof EventQueueClass, AttachedPorts>(EventQueueClass, {
  create(_call, object) {
    object.state = new Map()
    return {}
  },

  query(_call, object) {
    const attached = [...object.state.values()].map(({ state }) => state?.attached)
    for (const other of object.context?.handles.slots ?? [])
      if (other?.events?.state?.attached?.queue === object) attached.push(other.events.state.attached)
    return {
      attached: attached.flatMap(entry =>
        entry === undefined ? [] : [{ cookie: entry.cookie, object: entry.object, class: entry.class }],
      ),
      unread: unreadOf(object),
    }
  },

  attach(call, object, args) {
    const queue = object as FdObject<AttachedPorts>
    const { cookie } = args
    const source = sourceOf(call, args)
    if (typeof source === 'number') {
      if (queue.state.has(source))
        throw callError.EBUSY`${the.method('event_queue.attach')}: ${source === 0 ? 'the device' : `port ${source}`} is attached`
      attachPort(queue, { queue, cookie, class: classOfPort(source), object: source })
      return {}
    }
    const { class: cls, handle, events } = source
    if (events === undefined)
      throw callError.EOPNOTSUPP`${the.method('event_queue.attach')}: a ${cls.name} of this device has no events`
    if (events.state?.attached !== undefined)
      throw callError.EBUSY`${the.method('event_queue.attach')}: ${cls.name} ${handle} is attached to a queue already`
    attachEvents(events, { queue, cookie, class: cls.id, object: handle })
    return {}
  },

  detach(call, object, args) {
    const source = sourceOf(call, args)
    const isAttached =
      typeof source === 'number'
        ? detachPort(object as FdObject<AttachedPorts>, source)
        : source.events?.state?.attached?.queue === object
    if (!isAttached)
      throw callError.ENOENT`${the.method('event_queue.detach')}: the source is not attached to this queue`
    if (typeof source !== 'number' && source.events !== undefined) detachEvents(source.events)
    return {}
  },

  getEvents(call, object, { max }) {
    return { events: readEventsFor(call, object as FdObject, max).map(({ bytes }) => decodeRecord(Event, bytes)) }
  },
})
