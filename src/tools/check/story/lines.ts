/*
 * The story of a finding (spec/check/story.ts), made of noted events when it is reported: the objects concerned and
 * those that they are connected with, what happened to them in the order of time, with repeats as one line.
 */

import { counted } from '../../../base/text.ts'
import { requestName } from '../../../spec/check/causes.ts'
import type { Stack, Story, StoryEventKind, StoryLine } from '../../../spec/check/finding.ts'
import { type FindingId, findings } from '../../../spec/check/findings.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { isWaitId } from '../../../spec/check/waits.ts'
import { isSrqClass } from '../../../spec/classes/ids.ts'
import { AsyncEventType, CmEventType, nameIn, QpState } from '../../../spec/enums.ts'
import { Errno, errnoName } from '../../../spec/errno.ts'
import { PostQueue, UNKNOWN_NUMBER } from '../../../spec/session.ts'
import { WcStatus } from '../../../spec/work.ts'
import { callName } from '../c-words.ts'
import type { DetectorServices, Topic } from '../detector.ts'
import { hex, type KnownObject, shortName, stateName } from '../objects.ts'
import type { Occurrence } from '../reporting.ts'
import { decisiveOf, type Event } from './decisive.ts'
import type { NotedEvent } from './log.ts'
import {
  contextSubject,
  destinationOf,
  endKinds,
  isFailure,
  Kind,
  opcodeOf,
  type StoryRecorder,
  statusOf,
} from './recorder.ts'

/** Maximum objects of a story, and users of a queue among them. */
const MAX_OBJECTS = 24
const MAX_USERS = 8
/** Maximum lines, the last ones. */
const MAX_LINES = 256
/** Posts of a story, the last ones, whose stacks are looked up; and of all stories, then fewer. */
const MAX_STACKS = 1024
const FEW_STACKS = 64
const MAX_ALL_STACKS = 2 ** 15
/** Kept frames of a line. */
const MAX_FRAMES = 16

const { SHARED } = PostQueue
const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values
const NO_STACK: Stack = []
const { INIT, RTR, RTS, ERR } = QpState.values
const { QP_LAST_WQE_REACHED } = AsyncEventType.values
const CONNECTING: ReadonlySet<number> = new Set([INIT, RTR, RTS])

const eventNames: Readonly<Record<number, StoryEventKind>> = {
  [Kind.POSTED]: 'posted',
  [Kind.COMPLETED]: 'completed',
  [Kind.ENDED]: 'ended',
  [Kind.LOST]: 'dropped',
  [Kind.DROPPED]: 'dropped',
  [Kind.NOT_READY]: 'not ready',
  [Kind.POLLED]: 'polled',
  [Kind.POLLED_FAILURE]: 'polled',
  [Kind.CALLED]: 'called',
  [Kind.REFUSED]: 'refused call',
  [Kind.REFUSED_POST]: 'refused post',
  [Kind.READ_EVENT]: 'read event',
  [Kind.RAISED_EVENT]: 'raised event',
  [Kind.ENDED_PROGRAM]: 'program ended',
}

const callTexts: Readonly<Record<string, string>> = {
  'cq.reqNotify': 'armed',
  'cq.destroy': 'destroyed',
  'cq.modify': 'resized',
  'mr.destroy': 'deregistered',
  'mr.modify': 'registered anew',
  'mw.destroy': 'deallocated',
  'cm_id.create': 'created',
  'cm_id.bind': 'bound',
  'cm_id.resolveAddress': 'resolves the address',
  'cm_id.resolveRoute': 'resolves the route',
  'cm_id.connect': 'connects',
  'cm_id.listen': 'listens',
  'cm_id.accept': 'accepts',
  'cm_id.reject': 'rejects',
  'cm_id.disconnect': 'disconnects',
  'cm_id.destroy': 'destroyed',
  'ud_qp.attachMcast': 'attached to a multicast group',
  'ud_qp.detachMcast': 'detached from a multicast group',
}

const endTexts: Readonly<Record<(typeof endKinds)[number], string>> = {
  close: 'the program closed the device',
  exit: 'the program ended',
  kill: 'a signal ended the program',
  died: 'the program crashed',
}

/** Whether the end of a peer's connection explains a finding. */
const isEndOfPeer = (id: FindingId): boolean => {
  const { marks } = findings[id]
  return marks === 'gone peer' || marks === 'failed peer' || marks === 'lack of receives'
}

/** Events of one line, oldest first. */
interface Group {
  readonly events: Event[]
  readonly first: Event
  last: Event
  /** Of the last. */
  stack: Stack
}

const countIn = ({ events }: Pick<Group, 'events'>): number => events.reduce((sum, { count }) => sum + count, 0)
const amountIn = ({ events }: Group): number => events.reduce((sum, { amount }) => sum + amount, 0)

const nameOf = ({ known, subject, kind }: Event): string => {
  if (kind === Kind.ENDED_PROGRAM) return ''
  return known === undefined ? (subject.id < 0 ? '' : `object ${subject.id}`) : shortName(known)
}

const requestText = (opcode: number): string => {
  if (opcode < 0) return 'receive'
  // Of a batch of ibv_wr_*: the refusal has none.
  return opcode === UNKNOWN_NUMBER ? 'request' : requestName(opcode)
}

/**
 * `wr_id 7`, or of several the smallest and the largest, `wr_id 1 to 7`. Of events that stand for several only the
 * first and the last are known: `wr_id 1 … 7` if others than those between may be among them.
 */
const wrIdText = ({ events }: Group): string => {
  const all = events.flatMap(({ firstWrId, wrId }) => [firstWrId, wrId])
  const least = all.reduce((one, other) => (other < one ? other : one))
  const most = all.reduce((one, other) => (other > one ? other : one))
  const isRange = events.every(({ count }) => count < 3) || most - least + 1n === BigInt(countIn({ events }))
  if (!isRange && all[0] !== all.at(-1)) return `wr_id ${all[0]} … ${all.at(-1)}`
  return least === most ? `wr_id ${most}` : `wr_id ${least} to ${most}`
}

const bytesText = (group: Group): string => {
  const { events, last } = group
  if (events.some(({ amount }) => amount !== last.amount)) return `${counted(amountIn(group), 'byte')} in all`
  return `${counted(last.amount, 'byte')}${countIn(group) > 1 ? ' each' : ''}`
}

/** Where datagrams go; empty: they are none. */
const toText = ({ events }: Group): string => {
  const numbers = new Set(events.map(({ detail }) => destinationOf(detail)))
  const [first = 0] = numbers
  if (first === 0) return ''
  return numbers.size > 1 ? `, to ${numbers.size} queue pairs` : `, to QP ${hex(first)}`
}

/** Programs of the TypeScript library know the words of the object model. */
const nameOfCall = (method: string, { subject }: Event): string =>
  subject.log.program === undefined ? method : callName(method)

const callText = (method: string, { last, events }: Group): string => {
  const text = callTexts[method]
  if (text !== undefined) return text
  if (method.endsWith('.destroy')) return 'destroyed'
  if (!method.endsWith('.modify') || method === 'cm_id.modify') return nameOfCall(method, last)
  if (last.amount < 0) return 'modified'
  const states = new Set(events.map(({ amount }) => stateName(amount)))
  return `modified to ${[...states].join(', ')}`
}

/** Whether a call is one of those by which a queue pair is connected: they are one line. */
const isConnecting = ({ kind, amount }: Event): boolean => kind === Kind.CALLED && CONNECTING.has(amount)

/** Whether a signal has ended a call. */
const isInterrupted = ({ kind, amount }: Event): boolean => kind === Kind.REFUSED && amount === Errno.EINTR

/** The event of a queue pair that is moved to ERR is raised in the call, which is noted at its end. Sorted by time. */
const raiseBehindCalls = (noted: Event[]): void => {
  for (const [i, event] of noted.entries()) {
    if (event.kind !== Kind.RAISED_EVENT || event.detail !== QP_LAST_WQE_REACHED) continue
    const at = noted.findIndex((other, place) => place > i && other.subject === event.subject)
    const next = noted[at]
    if (next?.kind !== Kind.CALLED || next.amount !== ERR) continue
    noted.splice(at + 1, 0, { ...event, time: next.time, since: next.time })
    noted.splice(i, 1)
  }
}

export const STORIES: Topic<Stories> = { name: 'stories' }

export class Stories {
  readonly #services: DetectorServices
  readonly #recorder: StoryRecorder
  /** Looked up so far. */
  #stacks = 0

  constructor(services: DetectorServices, recorder: StoryRecorder) {
    this.#services = services
    this.#recorder = recorder
  }

  /** As `StoryRecorder.failurePolled`. */
  failurePolled(qp: KnownObject, request: WorkRequest): void {
    this.#recorder.failurePolled(qp, request)
  }

  /** The story of a finding about these objects; empty: nothing is known. */
  of(id: FindingId, occurrence: Occurrence, named: readonly KnownObject[]): Story {
    const { time, program, context, story: before } = occurrence
    const objects = this.#concerned(named, isWaitId(id) ? context : undefined)
    const byId = new Map(objects.map(object => [object.id, object]))
    // What has no object: of the contexts of the objects, or of the program.
    const contexts = new Set([context, ...objects.map(object => object.context)])
    const ids = new Set([...byId.keys(), ...[...contexts].map(contextSubject), contextSubject(-1)])
    const pids = new Set([program?.pid, ...objects.map(object => object.program?.pid)])
    const noted: Event[] = []
    let overwritten = 0
    for (const log of this.#recorder.logs) {
      if (!pids.has(log.program?.pid)) continue
      const found = log.eventsOf(time, objects.length === 0 ? undefined : ids)
      overwritten += found.overwritten
      for (const event of found.events)
        noted.push({
          ...event,
          known: byId.get(event.subject.id) ?? this.#objectOf(event),
          sender: byId.get(event.peer) ?? this.#services.objects.find(event.peer),
        })
    }
    noted.sort((a, b) => a.time - b.time)
    raiseBehindCalls(noted)
    const told = noted.filter((event, i) => !isInterrupted(event) || this.#givesUp(noted, i))
    const stacks = this.#stacksOf(told)
    const stackOf = (event: Event): Stack => stacks.get(event) ?? event.stack
    const decisive = decisiveOf(id, told, named, occurrence, this.#recorder, stackOf)
    const own = this.#grouped(told, stackOf).map(group =>
      this.#line(group, decisive !== undefined && group.events.includes(decisive)),
    )
    const ownLines: Story = before ?? own
    const isMarked = ownLines.some(line => line.isDecisive === true) || !isEndOfPeer(id)
    const others = objects
      .flatMap(object => (object.host === undefined ? [] : this.#services.net.storyOf(object)))
      .map(({ isDecisive, ...line }): StoryLine => (isDecisive && !isMarked ? { ...line, isDecisive } : line))
    const lines: StoryLine[] = [
      ...[...ownLines, ...others].sort((a, b) => a.time - b.time),
      ...this.#unread(time, objects, decisive === undefined && isWaitId(id)),
    ]
    const omitted = lines.length - MAX_LINES
    const shown = omitted > 0 ? lines.filter((line, i) => i >= omitted || line.isDecisive) : lines
    const left = overwritten + (omitted > 0 ? omitted : 0)
    if (shown.length === 0 || left === 0) return shown
    return [
      {
        time: shown[0]!.since ?? shown[0]!.time,
        object: '',
        event: 'overwritten',
        text: `${counted(left, 'older event')} were overwritten`,
        stack: NO_STACK,
        count: left,
      },
      ...shown,
    ]
  }

  /** Whether the program, whose call a signal has ended, ends or destroys something before it learns anything. */
  #givesUp(events: readonly Event[], place: number): boolean {
    const { log } = events[place]!.subject
    const end = events.find(({ subject, kind, detail, amount }, i) => {
      if (i <= place || subject.log !== log) return false
      const isLeft =
        kind === Kind.CALLED && (amount === ERR || /\.(destroy|disconnect)$/.test(this.#recorder.methodOf(detail)))
      return isLeft || kind === Kind.POLLED || kind === Kind.READ_EVENT || kind === Kind.ENDED_PROGRAM
    })
    return end !== undefined && end.kind !== Kind.POLLED && end.kind !== Kind.READ_EVENT
  }

  /** The identifier of a CONNECT_REQUEST is not known when the event is read. */
  #objectOf({ subject: { id }, kind, index }: NotedEvent): KnownObject | undefined {
    const { objects } = this.#services
    return kind === Kind.READ_EVENT && id < 0 ? objects.byHandle(-1 - id, 'cm_id', index) : objects.find(id)
  }

  /** The objects of a finding, and those that they use or are connected with. `waiting`: a context that waits. */
  #concerned(named: readonly KnownObject[], waiting: number | undefined): KnownObject[] {
    const found = new Set<KnownObject>()
    const services = this.#services
    const byId = (id: number | undefined): KnownObject | undefined =>
      id === undefined ? undefined : services.objects.find(id)
    const add = (object: KnownObject | undefined): void => {
      if (object === undefined || found.has(object) || found.size === MAX_OBJECTS) return
      found.add(object)
    }
    const addUsers = (object: KnownObject, isWanted: (user: KnownObject) => boolean): void => {
      let count = 0
      for (const user of object.users) if (isWanted(user) && count++ < MAX_USERS) add(user)
    }
    for (const object of named) add(object)
    for (const object of [...found]) {
      if (object.class === 'cq' || isSrqClass(object.class)) addUsers(object, ({ isQp }) => isQp)
      if (object.class === 'comp_channel') addUsers(object, user => user.class === 'cq')
      if (object.class === 'cm_id') add(byId(this.#recorder.linkedTo(object.id)))
    }
    if (waiting !== undefined) for (const qp of services.objects.queuePairsOf(waiting).slice(-MAX_USERS)) add(qp)
    for (const object of [...found]) if (object.isQp) add(services.peerInNet(object))
    if (waiting !== undefined)
      for (const { id, isQp, attributes } of [...found])
        if (isQp && attributes.address === undefined)
          for (const partner of this.#recorder.partnersOf(id)) add(services.objects.findKept(partner))
    for (const object of [...found])
      if (object.isQp) {
        for (const use of ['sendCq', 'recvCq', 'srq']) add(object.uses.get(use))
        add(byId(this.#recorder.linkedTo(object.id)))
      }
    return [...found]
  }

  #isRepeat(event: Event): boolean {
    const { kind, detail } = event
    if (kind === Kind.CALLED) return isConnecting(event) || this.#recorder.methodOf(detail) === 'cq.reqNotify'
    return REPEATS.has(kind) || (kind === Kind.COMPLETED && !isFailure(detail))
  }

  #grouped(events: readonly Event[], stackOf: (event: Event) => Stack): Group[] {
    const groups: Group[] = []
    let part = new Map<string, Group>()
    for (const event of events) {
      const stack = stackOf(event)
      const { subject, kind, detail, amount, peer } = event
      // The number of a state or an errno tells events apart; a number of bytes does not.
      const fixed = kind === Kind.CALLED || kind === Kind.REFUSED || kind === Kind.REFUSED_POST ? amount : peer
      const place = isConnecting(event) ? '' : `${fixed} ${stack.join('\n')}`
      const what = kind === Kind.POSTED ? opcodeOf(detail) : detail
      const key = `${subject.log.program?.pid} ${subject.id} ${kind} ${what} ${place}`
      const known = part.get(key)
      if (known !== undefined) {
        known.events.push(event)
        known.last = event
        known.stack = stack
        continue
      }
      if (!this.#isRepeat(event)) part = new Map()
      const group: Group = { events: [event], first: event, last: event, stack }
      part.set(key, group)
      groups.push(group)
    }
    return groups.sort((a, b) => a.last.time - b.last.time)
  }

  /** The stacks of events: of posts they are looked up now, newest first. */
  #stacksOf(events: readonly Event[]): ReadonlyMap<Event, Stack> {
    const stacks = new Map<Event, Stack>()
    let left = this.#stacks < MAX_ALL_STACKS ? MAX_STACKS : FEW_STACKS
    for (const event of [...events].reverse()) {
      const { kind, known, index, wrId, peer: queue } = event
      if (kind !== Kind.POSTED || known === undefined || left === 0) continue
      left--
      this.#stacks++
      const number = queue === SHARED ? known.handle : (known.qpn ?? known.handle)
      stacks.set(
        event,
        this.#services.postStackIn(known.context, {
          queue,
          number,
          wrId,
          postIndex: index < 0 ? undefined : index,
        }),
      )
    }
    return stacks
  }

  #line(group: Group, isDecisive: boolean): StoryLine {
    const { events, first, last, stack } = group
    const count = isConnecting(last) ? 1 : countIn(group)
    const { program } = last.subject.log
    const isOfOne = last.thread !== 0 && events.every(({ thread }) => thread === last.thread)
    return {
      time: last.time,
      ...((count > 1 || events.length > 1) && { since: first.since }),
      ...(program && { pid: program.pid, command: program.command }),
      ...(isOfOne && { thread: last.thread }),
      object: nameOf(last),
      event: eventNames[last.kind]!,
      text: this.#text(group),
      stack: stack.slice(0, MAX_FRAMES),
      count,
      ...(isDecisive && { isDecisive: true as const }),
    }
  }

  #text(group: Group): string {
    const { last } = group
    const { kind, detail } = last
    switch (kind) {
      case Kind.POSTED:
        return `posted ${requestText(opcodeOf(detail))} ${wrIdText(group)}, ${bytesText(group)}${toText(group)}`
      case Kind.COMPLETED:
        return this.#completedText(group)
      case Kind.ENDED:
        return `ended ${requestText(detail)} ${wrIdText(group)}, which is not signaled`
      case Kind.LOST:
        return `has no completion for receive ${wrIdText(group)}: its queue pair was reset or destroyed`
      case Kind.DROPPED:
        return `dropped ${counted(amountIn(group), 'outstanding receive')}`
      case Kind.NOT_READY:
        return 'had no receive for a message'
      case Kind.POLLED:
        return `polled ${counted(amountIn(group), 'completion')}`
      case Kind.POLLED_FAILURE:
        return `the program has polled the failure of ${requestText(detail)} ${wrIdText(group)}`
      case Kind.CALLED:
        return callText(this.#recorder.methodOf(detail), group)
      case Kind.REFUSED:
        if (isInterrupted(last))
          return `${nameOfCall(this.#recorder.methodOf(detail), last)} was interrupted by a signal`
        return `${nameOfCall(this.#recorder.methodOf(detail), last)} was refused: ${errnoName(last.amount)}`
      case Kind.REFUSED_POST:
        return `the post of ${requestText(detail)} ${wrIdText(group)} was refused: ${errnoName(last.amount)}`
      case Kind.READ_EVENT:
        return `read the event ${nameIn(CmEventType.values, detail)}${last.amount === 0 ? '' : `, status ${last.amount}`}${last.sender === undefined ? '' : `, before ESTABLISHED of ${last.sender.name}`}`
      case Kind.RAISED_EVENT:
        return `raised the event ${nameIn(AsyncEventType.values, detail)}`
      default:
        return endTexts[endKinds[detail] ?? 'exit']
    }
  }

  #completedText(group: Group): string {
    const { last } = group
    const status = statusOf(last.detail)
    const opcode = opcodeOf(last.detail)
    const request = `${requestText(opcode)} ${wrIdText(group)}`
    if (status === WR_FLUSH_ERR) return `flushed ${request}`
    if (status !== SUCCESS) return `${request} failed: ${nameIn(WcStatus.values, status)}`
    if (opcode >= 0) return `completed ${request}`
    const from = last.sender === undefined ? '' : ` from ${last.sender.name}`
    return `received ${bytesText(group)}${from} into ${request}`
  }

  /** What waits to be read, now. */
  #unread(time: number, objects: readonly KnownObject[], isDecisive: boolean): StoryLine[] {
    const { unreadEvents } = this.#services.sources
    if (unreadEvents === undefined) return []
    const line = (of: KnownObject, object: string, count: number, what: string): StoryLine => ({
      time,
      ...(of.program && { pid: of.program.pid, command: of.program.command }),
      object,
      event: 'unread events',
      text: `${counted(count, what)} ${count === 1 ? 'is' : 'are'} not read`,
      stack: NO_STACK,
      count,
      ...(isDecisive && { isDecisive: true as const }),
    })
    const contexts = new Map(objects.map(object => [object.context, object]))
    const channels = new Map(
      objects.flatMap(object => {
        const channel = object.class === 'comp_channel' ? object : object.uses.get('channel')
        return channel === undefined ? [] : [[channel.id, channel] as const]
      }),
    )
    return [
      ...[...contexts].flatMap(([context, object]) => {
        const count = unreadEvents(context) ?? 0
        return count === 0 ? [] : [line(object, '', count, 'asynchronous event')]
      }),
      ...[...channels.values()].flatMap(channel => {
        const count = unreadEvents(channel.context, channel.handle) ?? 0
        return count === 0 ? [] : [line(channel, shortName(channel), count, 'event')]
      }),
    ]
  }
}

/** What may happen many times, and then is one line. Others begin a part of the story, in which repeats are joined. */
const REPEATS: ReadonlySet<number> = new Set([Kind.POSTED, Kind.ENDED, Kind.POLLED, Kind.NOT_READY])
