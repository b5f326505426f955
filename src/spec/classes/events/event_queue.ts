/*
 * Class `event_queue`: a descriptor that receives the events of device, ports, CQs, QPs, SRQs, work queues and
 * connection identifiers (R37, R38).
 *
 * Events of an attached object go to the queue instead of the object's channel or async fd. Detaching or destroying the
 * object ends this and withdraws its unread events. Events of the device and of ports go to async fds too. A CQ must be
 * armed as usual. For each event of a connection identifier (`cm_id`) the queue only reports that the identifier's
 * channel has an event; `cm_channel.getEvent` takes it. read(2) returns one record of 24 bytes (`Event`), `getEvents` a
 * list of such records. Closing the descriptor destroys the queue.
 */
import { EventKind } from '../../enums.ts'
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
} from '../../schema/schema.ts'
import { CallNumber, ClassId, SRQ_CLASSES } from '../ids.ts'
import { QP_CLASSES } from '../qp/qp.ts'

/** Classes of objects that can be attached. */
export const EVENT_SOURCES = ['cq', ...SRQ_CLASSES, 'wq', 'cm_id', ...QP_CLASSES] as const
export type EventSource = (typeof EVENT_SOURCES)[number]

/** The attribute for objects of a class has the id OBJECT_ATTRIBUTES + class id. */
const OBJECT_ATTRIBUTES = 0x100

const objects = Object.fromEntries(
  EVENT_SOURCES.map(name => [name, optional(ref(OBJECT_ATTRIBUTES + ClassId[name], name))]),
) as Record<EventSource, Attribute<Reference, true>>

/** The source of events, exactly one attribute: `device` (1), `port` (its number), or an object. */
const source = { device: optional(u8(2, { min: 1, max: 1 })), port: optional(u8(3, { min: 1 })), ...objects }

/** An attached source. `class`: ClassId. `object`: the handle; for a port its number, for the device 0. */
const attached = { cookie: at(0, u64(0)), object: at(8, u32(0)), class: at(12, u16(0)) }

/** `cookie`: the argument of `attach`. `object` in events of the system-wide device: the index of a device. */
export const Event = { ...attached, type: at(16, enumOf(0, EventKind)), reserved: at(20, u32(0)) }

const MAX_SOURCES = 0xffff

const MAX_EVENTS = 1024

export const EventQueueClass = objectClass('event_queue', ClassId.event_queue, {
  identity: 'fd',
  global: true,
  methods: {
    create: method(CREATE_FD, { in: {}, out: {} }),
    /** The attached sources, and the number of unread events. */
    query: method(QUERY, { in: {}, out: { attached: list(64, attached, MAX_SOURCES), unread: optional(u32(65)) } }),
    /** EBUSY if the object is already attached to any event queue, or the device or port to this event queue. */
    attach: method(CallNumber.event_queue.attach, { role: 'changes', in: { cookie: u64(1), ...source }, out: {} }),
    /** Withdraws the source's unread events. ENOENT if the source is not attached to this queue. */
    detach: method(CallNumber.event_queue.detach, { role: 'undoes', in: source, out: {} }),
    /** Takes the oldest events, at most `max`. EAGAIN if there is none, EIO if no event can follow. */
    getEvents: method(CallNumber.event_queue.getEvents, {
      role: 'waits',
      in: { max: u32(1, { min: 1, max: MAX_EVENTS }) },
      out: { events: list(64, Event, MAX_EVENTS) },
    }),
  },
})
