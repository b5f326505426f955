/*
 * Waits of programs for calls on identifiers of rdma_cm: a request that its program has not answered, which the peer
 * waits for, a request that no program has got, events that were delivered and not read, and threads that wait for an
 * event of a channel for which none can come.
 */
import { counted } from '../../../base/text.ts'
import type { ContextWait } from '../../../core/driver-contract.ts'
import type { Context } from '../../../core/model.ts'
import { readDescriptors } from '../../../host/process-status.ts'
import type { Identifier, IdState } from '../../../services/rdma-cm/identifier.ts'
import type { RdmaCm } from '../../../services/rdma-cm/rdma-cm.ts'
import type { Wait } from '../../../spec/check/waits.ts'
import { CmEventType, nameIn } from '../../../spec/enums.ts'
import { rejectText } from '../../../spec/wire/mad.ts'
import { addressText, isSameAddress } from '../../../transport/wire/address.ts'
import { EventSocket } from '../../context/event-socket.ts'
import type { FailureReports } from '../../failures.ts'

const { REJECTED } = CmEventType.values

const portOf = ({ source }: Identifier): number | undefined => source?.port

const endOf = (address: Uint8Array | undefined, port?: number): string =>
  `${address === undefined ? 'an unknown address' : addressText(address)}${port === undefined ? '' : `, port ${port}`}`

const contextOf = ({ object }: Identifier): Context | undefined => object?.context

/** Whether an identifier may have sent a request: of several with these addresses it is not known which one has. */
const mayHaveSent = (id: Identifier, request: Identifier): boolean =>
  id !== request &&
  !id.isRequest &&
  id.state === 'CONNECT' &&
  id.destination?.port === portOf(request) &&
  id.localGid !== undefined &&
  request.remoteGid !== undefined &&
  isSameAddress(id.localGid, request.remoteGid)

/**
 * The identifiers of the same daemon that wait for an answer and may have sent a request; none: another daemon's has.
 */
const sendersOf = (request: Identifier, ids: readonly Identifier[]): readonly Identifier[] =>
  ids.filter(id => !id.isAnswered && mayHaveSent(id, request))

/** A request that its program has neither accepted nor rejected. */
const isUnanswered = ({ isUnaccepted, isRejected, state }: Identifier): boolean =>
  isUnaccepted && !isRejected && state === 'CONNECT'

/** The destination of an identifier, as the program has given it. */
const destinationOf = ({ destination, remoteGid }: Identifier): string =>
  endOf(destination?.address ?? remoteGid, destination?.port)

/** An event, and of REJECTED the reason. */
const eventText = (event: Identifier['lastRead']): string => {
  if (event?.type !== REJECTED) return nameIn(CmEventType.values, event?.type)
  return `REJECTED (${rejectText(event.status)})`
}

type Rule = (id: Identifier, ids: readonly Identifier[]) => readonly (readonly [Identifier, Wait['text']])[]

/** Each kind of wait, and the identifiers whose programs wait. */
const rules: readonly Rule[] = [
  (id, ids) => {
    if (!isUnanswered(id)) return []
    const isUnread = id.listener !== undefined
    const at = endOf(id.localGid, portOf(id))
    const why = isUnread
      ? 'its program has not read CONNECT_REQUEST (rdma_get_cm_event)'
      : 'its program has read CONNECT_REQUEST, and has called neither rdma_accept nor rdma_reject'
    const owner = id.listener ?? id
    return [
      [owner, `a connection request at ${at} from ${endOf(id.remoteGid)} has no answer: ${why}`] as const,
      ...sendersOf(id, ids).map(
        sender => [sender, `the request of rdma_connect to ${at} has no answer: ${why}`] as const,
      ),
    ]
  },
  id =>
    id.unreadEvents > 0 && !id.isListening
      ? [
          [
            id,
            `${counted(id.unreadEvents, 'event')} of an identifier of rdma_cm in state ${id.state} ${id.unreadEvents === 1 ? 'was' : 'were'} delivered, and not read (rdma_get_cm_event): ${eventText(id.lastDelivered)}`,
          ],
        ]
      : [],
  (id, ids) => {
    if (id.state !== 'CONNECT' || id.isRequest || id.isAnswered || id.unreadEvents > 0 || id.isDatagram) return []
    // Rule 1, or a request of this daemon that was accepted: the accepting program's queue pair may not be ready.
    if (ids.some(other => other.isRequest && other.state === 'CONNECT' && mayHaveSent(id, other))) return []
    return [
      [
        id,
        `the request of rdma_connect to ${destinationOf(id)} has had no answer yet: no program of this daemon has got it, and rdma_cm repeats it until UNREACHABLE`,
      ],
    ]
  },
]

// ---- threads that wait for an event ----

/** By the state of an identifier: the call that brings the next event, if no event can come without one. */
const nextCalls: Readonly<Partial<Record<IdState, string>>> = {
  IDLE: 'rdma_resolve_addr or rdma_listen',
  ADDR_BOUND: 'rdma_listen or rdma_resolve_addr',
  ADDR_RESOLVED: 'rdma_resolve_route',
  ROUTE_RESOLVED: 'rdma_connect',
}

/** States after which there is no event any more. */
const LAST_STATES: ReadonlySet<IdState> = new Set(['DISCONNECT', 'DEVICE_REMOVAL'])

/** Why no event comes for an identifier whose events were all read; undefined: one may come. */
const silenceOf = (id: Identifier): string | undefined => {
  const next = nextCalls[id.state]
  const isLast = LAST_STATES.has(id.state)
  if ((next === undefined && !isLast) || id.unreadEvents > 0) return undefined
  const to = id.destination === undefined || id.destination.port === 0 ? '' : `, to ${destinationOf(id)},`
  const read = id.lastRead === undefined ? '' : `${eventText(id.lastRead)} was read, and `
  return `its identifier${to} is in ${id.state}: ${read}${
    isLast ? 'no further event comes' : `the next one comes after ${next}, which was not called since`
  }`
}

/** What to do in place of such a wait. */
const adviceForSilence = ({ state, lastRead }: Identifier): string => {
  if (LAST_STATES.has(state))
    return `at ${eventText(lastRead)} end the wait, and destroy the queue pair and the identifier`
  if (lastRead?.type === REJECTED) return 'wait for REJECTED and UNREACHABLE as well as for ESTABLISHED'
  return `call ${nextCalls[state]} before the next rdma_get_cm_event`
}

const MAX_NAMED = 2

/** Threads that read from a channel none of whose identifiers can have an event. */
function* waitsOfChannels(
  ids: readonly Identifier[],
  ownerOf: FailureReports['ownerOf'],
): Generator<readonly [Identifier, Wait['text'], Wait['advice']]> {
  const byChannel = new Map<EventSocket, Identifier[]>()
  for (const id of ids) {
    const channel = id.object?.events?.route.channel
    if (channel === undefined || channel.isClosed || !(channel.sink instanceof EventSocket)) continue
    const others = byChannel.get(channel.sink) ?? []
    byChannel.set(channel.sink, [...others, id])
  }
  for (const [sink, own] of byChannel) {
    const silent = own.map(silenceOf)
    const [first] = own
    const context = first && contextOf(first)
    const pid = context && ownerOf(context)?.pid
    if (silent.includes(undefined) || sink.unread() > 0 || pid === undefined || first === undefined) continue
    const [fd] = [...readDescriptors(pid)].find(([, target]) => target === sink.target) ?? []
    if (fd === undefined) continue
    const more = silent.length > MAX_NAMED ? `; and ${silent.length - MAX_NAMED} more` : ''
    const last = own.at(-1)!
    yield [
      last,
      `a thread waits for an event of rdma_cm (channel: descriptor ${fd}), and none can come: ${silent.slice(-MAX_NAMED).join('; ')}${more}`,
      adviceForSilence(last),
    ]
  }
}

/** The waits of all programs for calls on identifiers, in no order. */
export function* waitsOfCm(cm: RdmaCm, ownerOf: FailureReports['ownerOf']): Generator<ContextWait> {
  const waitOf = (
    waiting: Identifier,
    text: string,
    advice?: string,
    later: Partial<ContextWait> = {},
  ): ContextWait[] => {
    const context = contextOf(waiting)
    if (context === undefined || waiting.object === undefined) return []
    const wait = { id: 'connection-waits', text, cmId: waiting.object.handle, ...(advice && { advice }) } as const
    return [{ context, wait, ...later }]
  }
  const bound = [...cm.boundIdentifiers()]
  for (const rule of rules)
    for (const id of bound)
      for (const [waiting, text] of rule(id, bound))
        yield* waitOf(waiting, text, undefined, {
          channel: waiting.object?.events?.route.channel,
          // A program may close a channel long after the last look.
          holds: () =>
            [...cm.boundIdentifiers()].includes(waiting) &&
            rule(id, bound).some(([one, now]) => one === waiting && now === text),
        })
  for (const found of waitsOfChannels([...cm.identifiersOfPrograms()], ownerOf)) yield* waitOf(...found)
}
