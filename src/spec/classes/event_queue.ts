/*
 * Class `event_queue`: a descriptor on which the events of any objects arrive, of any kind: a device, ports, completion
 * queues, queue pairs, shared receive queues, identifiers of connections, all at once (R37, R38). A completion channel and an async fd are the
 * cases in which objects of one kind are attached, at their creation.
 *
 * The events of an attached object come to the queue, and no more to its channel and async fd, until it is detached or
 * goes; unread ones go with it. A completion queue must be armed as ever. Of an identifier (`cm_id`) the queue only tells
 * that its channel has an event, which `cm_channel.getEvent` takes there. The queue is read in records of 24 bytes, as
 * `Event`, or by `getEvents`; it lives by its descriptor.
 */
import { EventKind } from '../enums.ts'
import {
  type Attribute,
  at,
  CREATE_FD,
  enumOf,
  list,
  method,
  objectClass,
  optional,
  QUERY,
  type Reference,
  ref,
  u8,
  u16,
  u32,
  u64,
} from '../schema/schema.ts'
import { CallNumber, ClassId } from './ids.ts'
import { QP_CLASSES } from './qp.ts'

/** Classes of objects that have events. */
export const EVENT_SOURCES = ['cq', 'srq', 'xrc_srq', 'tm_srq', 'wq', 'cm_id', ...QP_CLASSES] as const
export type EventSource = (typeof EVENT_SOURCES)[number]

/** Ids of the attributes that name objects: the class's id, from here on. */
const OBJECTS = 0x100

const objects = Object.fromEntries(
  EVENT_SOURCES.map(name => [name, optional(ref(OBJECTS + ClassId[name], name))]),
) as Record<EventSource, Attribute<Reference, true>>

/** Exactly one of them is given: `device` 1 for the device, a port's number, or an object. */
const source = { device: optional(u8(2, { min: 1, max: 1 })), port: optional(u8(3, { min: 1 })), ...objects }

/** What is attached: the id of its class, and its handle (a port's number; 0 for the device). */
const attached = { cookie: at(0, u64(0)), object: at(8, u32(0)), class: at(12, u16(0)) }

/** One event: `cookie` is what the source was attached with. */
export const Event = { ...attached, type: at(16, enumOf(0, EventKind)), reserved: at(20, u32(0)) }

const MANY = 0xffff

/** Most events that one `getEvents` answers. */
export const MOST_EVENTS = 1024

export const EventQueue = objectClass('event_queue', ClassId.event_queue, {
  identity: 'fd',
  global: true,
  methods: {
    create: method(CREATE_FD, { in: {}, out: {} }),
    /** What is attached, and how many events nobody has read yet. */
    query: method(QUERY, { in: {}, out: { attached: list(64, attached, MANY), unread: optional(u32(65)) } }),
    /** EBUSY if the object is attached to a queue already (a device or port: to this one). */
    attach: method(CallNumber.event_queue.attach, { in: { cookie: u64(1), ...source }, out: {} }),
    /** Unread events of the object are withdrawn. ENOENT if it is not attached to this queue. */
    detach: method(CallNumber.event_queue.detach, { in: source, out: {} }),
    /** Takes the oldest events, at most `max`. EAGAIN if there is none, EIO if none will come any more. */
    getEvents: method(CallNumber.event_queue.getEvents, {
      in: { max: u32(1, { min: 1, max: MOST_EVENTS }) },
      out: { events: list(64, Event, MOST_EVENTS) },
    }),
  },
})
