/*
 * Which event of a story is marked: the one that by itself explains the finding. None is marked without evidence.
 */
import type { Stack } from '../../../spec/check/finding.ts'
import { type FindingId, findings } from '../../../spec/check/findings.ts'
import { isWaitId } from '../../../spec/check/waits.ts'
import { QpState } from '../../../spec/enums.ts'
import { Errno } from '../../../spec/errno.ts'
import type { KnownObject } from '../objects.ts'
import type { Occurrence } from '../reporting.ts'
import type { NotedEvent } from './log.ts'
import { isFailure, Kind, opcodeOf, type StoryRecorder } from './recorder.ts'

const { ERR, RESET } = QpState.values

export interface Event extends NotedEvent {
  /** The object of its subject; undefined: it is forgotten, or there is none. */
  readonly known: KnownObject | undefined
  /** Of COMPLETED: the queue pair that has sent the received message. */
  readonly sender: KnownObject | undefined
}

/** The last event; `kind`: of this kind, and not undone by a later event of its subject for which `isUndone`. */
const lastOf = (
  events: readonly Event[],
  isWanted: (event: Event) => boolean,
  isUndone: (later: Event, event: Event) => boolean = () => false,
): Event | undefined => {
  for (let i = events.length - 1; i >= 0; i--) {
    const event = events[i]!
    if (!isWanted(event)) continue
    let isLasting = true
    for (let j = i + 1; j < events.length && isLasting; j++)
      isLasting = !(events[j]!.subject === event.subject && isUndone(events[j]!, event))
    if (isLasting) return event
  }
  return undefined
}

const isReceivePost = ({ kind, detail }: Event): boolean => kind === Kind.POSTED && opcodeOf(detail) < 0

/** Receives that were dropped, and none was posted afterwards. */
const droppedReceives = (events: readonly Event[]): Event | undefined =>
  lastOf(events, ({ kind }) => kind === Kind.DROPPED, isReceivePost)

/** A refusal after which the same did not succeed. */
const lastRefusal = (events: readonly Event[]): Event | undefined =>
  lastOf(
    events,
    ({ kind, amount }) => (kind === Kind.REFUSED && amount !== Errno.EINTR) || kind === Kind.REFUSED_POST,
    (later, { kind, detail, peer }) =>
      kind === Kind.REFUSED
        ? later.kind === Kind.CALLED && later.detail === detail
        : later.kind === Kind.POSTED && later.peer === peer,
  )

/** A message that is not repeated: its receiver has dropped it, or no device got it. */
const isLostMessage = ({ kind, detail, known }: Event): boolean =>
  (kind === Kind.NOT_READY && known?.lost.drops !== undefined) ||
  (kind === Kind.POSTED && opcodeOf(detail) >= 0 && known?.lost.unreached !== undefined)

const firstFailure = (events: readonly Event[]): Event | undefined =>
  events.find(({ kind, detail }) => kind === Kind.COMPLETED && isFailure(detail))

/** The last post with the stack of the finding, which is that of the post of the failed request. */
const failedPost = (
  events: readonly Event[],
  [owner]: readonly KnownObject[],
  stack: Stack,
  stackOf: (event: Event) => Stack,
): Event | undefined =>
  stack.length === 0
    ? undefined
    : events.findLast(
        event => event.kind === Kind.POSTED && event.known === owner && stackOf(event).join() === stack.join(),
      )

/** `named`: the objects that the finding names. Undefined: no event explains it. */
export const decisiveOf = (
  id: FindingId,
  events: readonly Event[],
  named: readonly KnownObject[],
  { program, stack }: Pick<Occurrence, 'program' | 'stack'>,
  recorder: StoryRecorder,
  stackOf: (event: Event) => Stack,
): Event | undefined => {
  const isCall = ({ kind, detail }: Event, name: string): boolean =>
    kind === Kind.CALLED && recorder.methodOf(detail).endsWith(name)
  const [, ...others] = named
  const isOther = ({ known }: Event): boolean => known !== undefined && others.includes(known)
  const { marks, story } = findings[id]
  if (marks === 'end of a program')
    return events.findLast(
      ({ kind, subject }) => kind === Kind.ENDED_PROGRAM && subject.log.program?.pid !== program?.pid,
    )
  // What was read and not acknowledged is no event.
  if (marks === 'nothing') return undefined
  if (isWaitId(id))
    return droppedReceives(events) ?? lastRefusal(events) ?? firstFailure(events) ?? events.findLast(isLostMessage)
  if (marks === 'lack of receives')
    return droppedReceives(events) ?? events.findLast(({ kind }) => kind === Kind.NOT_READY)
  const gone = events.findLast(event => isOther(event) && isCall(event, '.destroy'))
  if (gone !== undefined) return gone
  if (marks === 'failed peer')
    return (
      firstFailure(events.filter(isOther)) ??
      events.findLast(
        event => isOther(event) && isCall(event, '.modify') && [ERR, RESET].some(one => one === event.amount),
      )
    )
  if (story !== 'post') return undefined
  return failedPost(events, named, stack, stackOf) ?? events.findLast(({ kind }) => kind === Kind.REFUSED_POST)
}
