/*
 * The records of events (R32 to R39): what is told, whom, and when. As in model.ts these are plain records, and only the
 * functions beside them (events.ts, thresholds.ts, base/event-queue.ts) write to them.
 */
import type { Core, FdObject } from './model.ts'

/**
 * Bytes to be read from an event descriptor, and the element that they are about. Never changed, may be kept and
 * compared.
 */
export interface EventRecord {
  readonly element: Affiliation
  /**
   * Exactly as Linux: 8 bytes {u64 user handle} for a completion, 16 bytes {u64 element, u32 type, u32 0} for an async
   * event. On an event queue 24 bytes, `Event` of the class.
   */
  readonly bytes: Uint8Array
  /** Type of the async event (ibv_event_type), -1 for a completion event. */
  readonly type: number
}

/**
 * Where the events of one fd object go; a carrier puts its own in with `attachSink` (a socket), before that a queue
 * keeps them.
 */
export interface EventSink {
  post(event: EventRecord): void
  /** Takes back the events of `element` that the client has not read, and returns them. */
  withdraw(element: Affiliation): readonly EventRecord[]
  /** How many events the client has not read. */
  unread(): number
  /** Takes the oldest events, at most `limit`: a method of the descriptor reads them (R39). */
  take(limit: number): readonly EventRecord[]
  /** Nothing more will come: once the client has read what is there, its reads answer EIO (hang up). */
  end(): void
}

/** That an object's events go to an event queue (R38). */
export interface Attachment {
  readonly queue: FdObject
  /** What names the source in the queue's records. */
  readonly cookie: bigint
  readonly class: number
  /** Its handle, a port's number, or 0 for the device. */
  readonly object: number
}

/** When completions make an event (thresholds.ts): what the queue was set to, and how this time goes. */
export interface Threshold {
  readonly core: Core
  /** Completions, and microseconds. */
  count: number
  period: number
  /** The same, for the present arming. */
  wanted: number
  wait: number
  /** Completions since it was armed, when the first of them came, and when the event comes at the latest. */
  seen: number
  first: number
  due: number
}

/** An event that comes by time. */
export interface Deadline {
  readonly due: number
  readonly events: Affiliation
}

/** What a source of events has once there was anything to tell. */
export interface Telling {
  /** Events posted and not withdrawn. Once the object goes: those that the client has read. */
  completions: number
  asyncs: number
  /** The one completion record of this element, made when the first is posted. */
  record: EventRecord | undefined
  /** Its events go there instead. */
  attached: Attachment | undefined
  /** Undefined: every event comes at once. */
  threshold: Threshold | undefined
}

/** One object as a source of events: whom it tells, whether it is armed, and how many events were sent. */
export interface Affiliation {
  /** The u64 that names the element in event records. */
  readonly userHandle: bigint
  to: EventRoute
  /** 0 not armed, 1 for a solicited or failed completion, 2 for the next completion. */
  armed: 0 | 1 | 2
  /** Undefined before the first event, threshold or attachment: most objects never have any (R15). */
  more: Telling | undefined
}

/** Where events go. Never changed, since objects share it. */
export interface EventRoute {
  readonly channel: FdObject | undefined
  readonly asyncFd: FdObject | undefined
  /** A client in this process that is called instead; it brought them when it made the object. */
  readonly handlers: EventHandlers | undefined
  /** Where it is counted that a handler failed. */
  readonly core?: Core | undefined
}

/**
 * Who makes an object in this process may be called for its events instead of reading them (R33). A handler runs in the
 * middle of the device's work: it notes what happened and makes no call there and then. That it throws is only counted.
 */
export interface EventHandlers {
  /** The armed CQ that was made with this user handle has a completion. */
  completion?(userHandle: bigint): void
  /** An asynchronous event (ibv_event_type) of the object that was made with this user handle. */
  event?(userHandle: bigint, type: number): void
}
