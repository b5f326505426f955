/*
 * Events of identifiers and multicast memberships on channels. Each event has a record on the channel's descriptor,
 * which wakes the program. `cm_channel.getEvent` returns the details.
 */
import { affiliate, moveToChannel, postOnChannel } from '../../core/events/events.ts'
import { type Affiliation, type CoreObject, type EventRecord, type FdObject, Lifecycle } from '../../core/model.ts'
import { createObject } from '../../core/objects/lifetime.ts'
import { reportNoShare } from '../../core/objects/peer-table.ts'
import { CmId } from '../../spec/classes/connections/cm_id.ts'
import { CmEventType } from '../../spec/enums.ts'
import { CallError, callError } from '../../spec/errno.ts'
import type { CmDevice, Identifier, IdOwner } from './identifier.ts'
import type { EventDetails } from './parameters.ts'
import type { RdmaCm } from './rdma-cm.ts'

export interface CmEventRecord extends EventRecord {
  readonly details: EventDetails
  /** The identifier of the event; undefined for an event of a multicast membership. */
  readonly id: Identifier | undefined
  /** Of an event of a multicast membership: the identifier that has joined the group. */
  readonly member: Identifier | undefined
  /** The new identifier of a peer's request. */
  readonly request: Identifier | undefined
  /** The identifier's user handle at the time of the event. A later `accept` may change the identifier's. */
  readonly userHandle: bigint
  /** The handle of the identifier (for a request, of the new identifier), or of the membership. */
  readonly handle: number
}

export type CmIdObject = CoreObject<Identifier>

let nextSequence = 0

/** Bytes of a record: user handle, handle, type of the event, sequence number. */
const EVENT_BYTES = 24

interface EventSubject {
  /** For a request, the listener. */
  readonly id?: Identifier
  readonly member?: Identifier
  readonly request?: Identifier
  readonly handle: number
}

/** Its bytes are made on demand: programs in this process that use `getEvent` do not need them. */
class ConnectionEvent implements CmEventRecord {
  readonly element: Affiliation
  readonly type: number
  readonly details: EventDetails
  readonly id: Identifier | undefined
  readonly member: Identifier | undefined
  readonly request: Identifier | undefined
  readonly handle: number
  readonly userHandle: bigint
  readonly sequence = nextSequence++
  #bytes: Uint8Array | undefined

  constructor(
    element: Affiliation,
    { id, member, request, handle }: EventSubject,
    type: number,
    details: EventDetails,
  ) {
    this.element = element
    this.userHandle = element.userHandle
    this.type = type
    this.details = details
    this.id = id
    this.member = member
    this.request = request
    this.handle = handle
  }

  get bytes(): Uint8Array {
    if (this.#bytes !== undefined) return this.#bytes
    const bytes = new Uint8Array(EVENT_BYTES)
    const view = new DataView(bytes.buffer)
    view.setBigUint64(0, this.userHandle, true)
    view.setUint32(8, this.handle, true)
    view.setUint32(12, this.type, true)
    // Unread records are identified by their bytes. The sequence number makes the bytes unique.
    view.setBigUint64(16, BigInt(this.sequence), true)
    this.#bytes = bytes
    return bytes
  }
}

/** Sends an event of a membership of `member` to its channel. */
export const postGroupEvent = (
  { events, handle }: CoreObject,
  member: Identifier,
  type: number,
  details: EventDetails,
): void => {
  if (events !== undefined) postOnChannel(new ConnectionEvent(events, { member, handle }, type, details))
}

const { ESTABLISHED, CONNECT_RESPONSE } = CmEventType.values

/** With this many unread events, an identifier refuses `resolveAddress` and `connect`. */
const MAX_UNREAD = 8
/** With this many unread events, an identifier refuses `writeEvent`. */
const MAX_UNREAD_WRITTEN = 32

/** Throws CallError ENOMEM if `max` events of the identifier are unread. */
export const requireUnreadBelowMax = ({ events, state: id }: CmIdObject, max = MAX_UNREAD): void => {
  if (id.unreadEvents < max) return
  // A program that reads records without `getEvent` leaves the count too high.
  if (events?.route.channel?.sink.unread() === 0) id.unreadEvents = 0
  else throw callError.ENOMEM`cm_id: ${id.unreadEvents} events of the identifier wait to be read; read them first`
}

/** Sends an event of an identifier to its channel. `request`: the new identifier of a CONNECT_REQUEST. */
const postEvent = (
  { events, handle, state: id }: CmIdObject,
  type: number,
  details: EventDetails,
  request?: Identifier,
): void => {
  if (events === undefined) return
  id.unreadEvents++
  if (type === ESTABLISHED || type === CONNECT_RESPONSE) id.isAnswered = true
  id.lastDelivered = { type, status: details.status ?? 0 }
  const subject = request?.object === undefined ? { id, handle } : { id, request, handle: request.object.handle }
  postOnChannel(new ConnectionEvent(events, subject, type, details))
}

/** Sends an event that the program has written. Throws CallError ENOMEM. */
export const postWrittenEvent = (object: CmIdObject, type: number, details: EventDetails): void => {
  requireUnreadBelowMax(object, MAX_UNREAD_WRITTEN)
  postEvent(object, type, details)
}

/** A program as the owner of an identifier. */
class ProgramOwner implements IdOwner {
  readonly #cm: RdmaCm
  readonly #object: CmIdObject
  /** Whether the last request of a peer was dropped because there was no share for it, and that was reported. */
  #isRefusing = false

  constructor(cm: RdmaCm, object: CmIdObject) {
    this.#cm = cm
    this.#object = object
  }

  event(type: number, details: EventDetails, request?: Identifier): void {
    const { events, state: id } = this.#object
    // As on Linux, a request that was not accepted has no user handle, so programs cannot know the identifier of its
    // events. So the events are dropped, unless the request is attached to an event queue.
    if (id.isUnaccepted && events?.userHandle === 0n && events.state?.attached === undefined) return
    postEvent(this.#object, type, details, request)
  }

  createRequest(template: { readonly portSpace: number; readonly qpType: number }): Identifier | undefined {
    const { context, events } = this.#object
    const channel = events?.route.channel
    if (context === undefined || channel === undefined || channel.isClosed) return undefined
    let object: CmIdObject
    try {
      object = createObject(context, CmId, []) as CmIdObject
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      if (!this.#isRefusing) reportNoShare(context, 'requests of connections', error.message)
      this.#isRefusing = true
      return undefined
    }
    this.#isRefusing = false
    object.life = Lifecycle.LIVE
    return bindToChannel(this.#cm, object, channel, 0n, template)
  }
}

/** Creates the identifier of `object`. Its events go to `channel` with `userHandle`. */
export const bindToChannel = (
  cm: RdmaCm,
  object: CmIdObject,
  channel: FdObject,
  userHandle: bigint,
  {
    portSpace,
    qpType,
    onlyDevice,
  }: { readonly portSpace: number; readonly qpType: number; readonly onlyDevice?: CmDevice | undefined },
): Identifier => {
  const id = cm.create(new ProgramOwner(cm, object), portSpace, qpType, onlyDevice)
  id.object = object
  object.state = id
  affiliate(object, userHandle, { channel })
  return id
}

/**
 * Moves the events of an identifier, its unread requests and its memberships to another channel. Returns the number of
 * the identifier's events that the program has read. As in Linux, these include those of its memberships.
 */
export const moveIdentifier = (object: CmIdObject, channel: FdObject): number => {
  const { unreadRequests, memberships, readGroupEvents } = object.state
  const { unread, read } = moveToChannel(object, channel)
  const moved = [...unread]
  for (const { object: request } of unreadRequests)
    if (request !== undefined) moved.push(...moveToChannel(request, channel).unread)
  for (const membership of memberships) moved.push(...moveToChannel(membership, channel).unread)
  const inOrder = (moved as ConnectionEvent[]).sort((first, second) => first.sequence - second.sequence)
  for (const event of inOrder) channel.sink.post(event)
  return read + readGroupEvents
}
