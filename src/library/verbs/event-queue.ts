/*
 * Event queues (R38): one queue receives the events of many objects (CQs, QPs, SRQs, ports, the device). Events of an
 * attached CQ, QP or SRQ go only to the event queue. Events of ports and of the device also go to `device.onEvent`.
 * A CQ must be armed for each event (`cq.arm`).
 */
import { DeviceClass } from '../../spec/classes/device/device.ts'
import { PortClass } from '../../spec/classes/device/port.ts'
import { Event, EventQueueClass, type EventSource } from '../../spec/classes/events/event_queue.ts'
import { EventKind } from '../../spec/enums.ts'
import { type In, recordSize } from '../../spec/schema/schema.ts'
import { readRecord } from '../../uapi/scalar.ts'
import { noteOverrun } from './cq/completion-queue.ts'
import { invalidArgument } from './error.ts'
import { type Arrivals, createMailbox } from './mailbox.ts'
import { descriptorCloser } from './objects/object.ts'
import { orElse, showAs } from './objects/show.ts'
import { CLOSED, type DeviceContext, sourceIdentity } from './plan.ts'

/** Kinds of events of an event queue. */
export type EventKindName = keyof typeof EventKind.values

/** An event of an object, of a port, or of the device. For the device `source` and `port` are undefined. */
export interface QueuedEvent {
  /** 'COMPLETION', 'CONNECTION' (of a `cm_id`), or the name of an asynchronous event. */
  readonly type: EventKindName
  /** The object of the event; undefined for an event of a port or of the device. */
  readonly source: Disposable | undefined
  /** Port number of a port event, from 1. */
  readonly port: number | undefined
}

/** What can be attached: an object with events, a port by its number (from 1), or the device. */
export type Attachable = Disposable | 'device' | { readonly port: number }

/** A queue of events of many objects (class `event_queue`). */
export interface EventQueue extends Arrivals<QueuedEvent>, Disposable, AsyncIterable<QueuedEvent> {
  /** Handle of the event queue; on a daemon's device also a file descriptor of this process. */
  readonly handle: number
  /**
   * Attaches a source. Throws RdmaError EINVAL or EOPNOTSUPP if the source has no events, EBUSY if it is attached
   * already. Ports and the device can be attached to several queues, objects to one. Closing an object detaches it.
   */
  attach(source: Attachable): void
  /** Detaches a source and discards its unread events. Throws RdmaError ENOENT if the source is not attached here. */
  detach(source: Attachable): void
  /** The attached sources. */
  attached(): readonly Attachable[]
  /** Closes the queue and detaches its sources. */
  close(): void
}

const kindNames: EventKindName[] = []
for (const [name, value] of Object.entries(EventKind.values)) kindNames[value] = name as EventKindName
const { COMPLETION, CQ_ERR } = EventKind.values

/** The attribute that names the source: `device`, `port`, or the class of an object. */
type SourceArguments = Omit<In<typeof EventQueueClass.methods.attach>, 'cookie'>

/** The cookie of the device and of ports. The cookie of an object is its user handle, never 0. */
const NO_OBJECT = 0

export const openEventQueue = (context: DeviceContext): EventQueue => {
  const { carrier, waiters, sources } = context
  const { object: handle } = carrier.call(EventQueueClass, 'create', 0, {})
  const mailbox = createMailbox<QueuedEvent & { readonly cookie: number }>(context, 'event_queue')

  carrier.descriptors.read(
    handle,
    recordSize(Event),
    record => {
      const event = readRecord(record, 0, Event, 'event')
      const cookie = Number(event.cookie)
      mailbox.put({
        type: kindNames[event.type]!,
        source: sources.get(cookie),
        port: event.class === PortClass.id ? event.object : undefined,
        cookie,
      })
      // CQ_ERR also ends `cq.wait`.
      if (event.type === CQ_ERR) noteOverrun(context, cookie)
      else if (event.type === COMPLETION) waiters.wake(cookie)
    },
    mailbox.end,
  )

  /** The cookie of a source, and the attribute that names it. Throws RdmaError EINVAL if it has no events. */
  const sourceOf = (
    method: string,
    source: Attachable,
  ): { readonly cookie: number; readonly args: SourceArguments } => {
    if (source === 'device') return { cookie: NO_OBJECT, args: { device: 1 } }
    const object = typeof source === 'object' && source !== null ? sourceIdentity(context, source) : undefined
    if (object !== undefined)
      return {
        cookie: object.userHandle,
        args: { [object.cls.name as EventSource]: object.handle } as SourceArguments,
      }
    if (typeof source === 'object' && source !== null && 'port' in source)
      return { cookie: NO_OBJECT, args: { port: source.port } }
    throw invalidArgument(
      `event_queue.${method}`,
      'the source is not an object of this device that has events',
      "attach queue pairs, queues of any kind, { port } or 'device'",
    )
  }
  const close = descriptorCloser(carrier, EventQueueClass, handle, () => {
    self.handle = CLOSED
    mailbox.end()
  })
  /** Whether the object of an event is closed: core withdraws its unread events, but this one had arrived before. */
  const isWithdrawn = ({ cookie }: { readonly cookie: number }): boolean =>
    cookie !== NO_OBJECT && sources.get(cookie) === undefined
  const withoutCookie = ({ type, source, port }: QueuedEvent): QueuedEvent => ({ type, source, port })
  const arrivals: EventQueue['arrivals'] = async function* (options) {
    for await (const event of mailbox.arrivals(options)) if (!isWithdrawn(event)) yield withoutCookie(event)
  }
  const self: EventQueue & { handle: number } = {
    handle,
    attach(source) {
      const { cookie, args } = sourceOf('attach', source)
      carrier.call(EventQueueClass, 'attach', self.handle, { cookie: BigInt(cookie), ...args })
    },
    detach(source) {
      const { cookie, args } = sourceOf('detach', source)
      carrier.call(EventQueueClass, 'detach', self.handle, args)
      mailbox.drop(event => event.cookie === cookie && event.port === args.port)
    },
    attached: () =>
      carrier.call(EventQueueClass, 'query', self.handle, {}).out.attached.flatMap((entry): Attachable[] => {
        if (entry.class === DeviceClass.id) return ['device']
        if (entry.class === PortClass.id) return [{ port: entry.object }]
        return [sources.get(Number(entry.cookie))].filter(object => object !== undefined)
      }),
    poll() {
      if (!waiters.isOver) carrier.drive('event_queue.poll')
      let event = mailbox.poll()
      while (event !== undefined && isWithdrawn(event)) event = mailbox.poll()
      return event && withoutCookie(event)
    },
    wait: mailbox.wait,
    arrivals,
    [Symbol.asyncIterator]: arrivals,
    close,
    [Symbol.dispose]: close,
  }
  showAs(self, 'EventQueue', () =>
    self.handle === CLOSED ? { closed: true } : { handle, attached: orElse(() => self.attached().length, 0) },
  )
  return self
}
