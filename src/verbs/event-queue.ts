/*
 * Event queues in the library (R38): events of objects of any kind (CQs, QPs, SRQs, ports, the device) in one place.
 * Events of an attached object go there and nowhere else, until it is detached or closed. A CQ must be armed for each
 * event, as usual (`cq.arm`).
 */
import { Device as DeviceClass } from '../spec/classes/device/device.ts'
import { Port as PortClass } from '../spec/classes/device/port.ts'
import {
  Event,
  EventQueue as EventQueueClass,
  type EventSource as SourceClass,
} from '../spec/classes/events/event_queue.ts'
import { EventKind } from '../spec/enums.ts'
import { type In, recordSize } from '../spec/schema/schema.ts'
import { readRecord } from '../uapi/scalar.ts'
import { invalidArgument } from './error.ts'
import { type Arrivals, createMailbox } from './mailbox.ts'
import { descriptorCloser } from './objects/object.ts'
import { orElse, showAs } from './objects/show.ts'
import { CLOSED, type DeviceContext, sourceName } from './plan.ts'

/** Kinds of events of an event queue. */
export type EventKindName = keyof typeof EventKind.values

/**
 * An event of an object created by this program, of a port, or of the device; for the device `object` and `port` are
 * undefined.
 */
export interface QueuedEvent {
  /** 'COMPLETION', or the name of an asynchronous event. */
  readonly type: EventKindName
  /** The object of the event. */
  readonly source: Disposable | undefined
  /** Number of the port of a port event, from 1. */
  readonly port: number | undefined
}

/** Possible sources: an object with events, a port, or the device. */
export type Attachable = Disposable | 'device' | { readonly port: number }

/** A queue of events of many objects (class `event_queue`). */
export interface EventQueue extends Arrivals<QueuedEvent>, Disposable, AsyncIterable<QueuedEvent> {
  /** Its number as an object; with a daemon a descriptor of this process. */
  readonly handle: number
  /** Attaches a source. Throws RdmaError EBUSY if it is attached to a queue already, EINVAL if it has no events. */
  attach(source: Attachable): void
  /** Detaches a source and discards its unread events. Throws RdmaError ENOENT if it is not attached here. */
  detach(source: Attachable): void
  /** The attached sources. */
  attached(): readonly Attachable[]
  /** Closes it; events of attached sources go to the device again. */
  close(): void
}

const kinds: EventKindName[] = []
for (const [name, value] of Object.entries(EventKind.values)) kinds[value] = name as EventKindName
const { COMPLETION } = EventKind.values

type Arguments = Omit<In<typeof EventQueueClass.methods.attach>, 'cookie'>

/** Device and ports are not objects of the library and have no number; this is their cookie. */
const NOBODY = 0

export const openEventQueue = (kit: DeviceContext): EventQueue => {
  const { carrier, waiters, sources } = kit
  const { object: handle } = carrier.call(EventQueueClass, 'create', 0, {})
  const mail = createMailbox<QueuedEvent & { readonly number: number }>(kit, 'event_queue')

  carrier.descriptors.read(
    handle,
    recordSize(Event),
    record => {
      const event = readRecord(record, 0, Event, 'event')
      const number = Number(event.cookie)
      mail.put({
        type: kinds[event.type]!,
        source: sources.get(number),
        port: event.class === PortClass.id ? event.object : undefined,
        number,
      })
      // Waiters for the completion queue itself are woken too.
      if (event.type === COMPLETION) waiters.wake(number)
    },
    mail.end,
  )

  /** How calls name a source, and its cookie. */
  const sourceOf = (method: string, source: Attachable): { readonly number: number; readonly args: Arguments } => {
    if (source === 'device') return { number: NOBODY, args: { device: 1 } }
    const known = typeof source === 'object' && source !== null ? sourceName(kit, source) : undefined
    if (known !== undefined)
      return { number: known.number, args: { [known.cls.name as SourceClass]: known.handle } as Arguments }
    if (typeof source === 'object' && source !== null && 'port' in source)
      return { number: NOBODY, args: { port: source.port } }
    throw invalidArgument(
      `event_queue.${method}`,
      'it is not an object of this device that has events',
      "attach queue pairs, queues of any kind, { port } or 'device'",
    )
  }
  const close = descriptorCloser(carrier, EventQueueClass, handle, () => {
    self.handle = CLOSED
    mail.end()
  })
  const plain = ({ type, source, port }: QueuedEvent): QueuedEvent => ({ type, source, port })
  const arrivals: EventQueue['arrivals'] = async function* (options) {
    for await (const event of mail.arrivals(options)) yield plain(event)
  }
  const self: EventQueue & { handle: number } = {
    handle,
    attach(source) {
      const { number, args } = sourceOf('attach', source)
      carrier.call(EventQueueClass, 'attach', self.handle, { cookie: BigInt(number), ...args })
    },
    detach(source) {
      const { number, args } = sourceOf('detach', source)
      carrier.call(EventQueueClass, 'detach', self.handle, args)
      mail.drop(event => event.number === number && event.port === args.port)
    },
    attached: () =>
      carrier.call(EventQueueClass, 'query', self.handle, {}).out.attached.flatMap((one): Attachable[] => {
        if (one.class === DeviceClass.id) return ['device']
        if (one.class === PortClass.id) return [{ port: one.object }]
        return [sources.get(Number(one.cookie))].filter(found => found !== undefined)
      }),
    poll() {
      carrier.drive()
      const event = mail.poll()
      return event && plain(event)
    },
    wait: mail.wait,
    arrivals,
    [Symbol.asyncIterator]: arrivals,
    close,
    [Symbol.dispose]: close,
  }
  showAs(self, 'EventQueue', () => ({ handle: self.handle, attached: orElse(() => self.attached().length, 0) }))
  return self
}
