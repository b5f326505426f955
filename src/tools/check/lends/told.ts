/*
 * What one message has told a peer of memory, and the parts of the sentences about it.
 */
import type { Moment, Stack } from '../../../spec/check/finding.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { durationText } from '../../../spec/duration.ts'
import { requestText } from '../buffers.ts'
import type { DetectorServices, EventParts } from '../detector.ts'
import { hashOfBytes } from '../keys.ts'
import { hex, type KnownObject, moment } from '../objects.ts'
import type { FindingContent, Occurrence } from '../reporting.ts'
import type { Interval } from './intervals.ts'

/** Longer ones are not compared. */
const MAX_COMPARED = 0x1_0000

/** An access of a peer to a region. */
export type Access = Parameters<EventParts['accessed']>[0]

/** An advertisement. */
export interface Told {
  readonly event: ProgramEvent<'advertised'>
  readonly qpn: number
  /** Of a datagram: the queue pair that gets it. */
  readonly receiver: KnownObject | undefined
  readonly region: KnownObject
  /** Its place among those of the process. */
  interval: Interval<Told> | undefined
  /** Of the bytes; undefined: unknown, or a peer may have changed them. */
  hash: number | undefined
  /** How many bytes were accessed. */
  used: number
  /** What was written for it, the latest. */
  readonly written: Written[]
}

export interface Written {
  readonly time: number
  readonly start: number
  readonly end: number
  /** Undefined: unknown. */
  readonly request: WorkRequest | undefined
}

export const isOfPeer = (one: Told, other: Told): boolean =>
  one.event.qp === other.event.qp && one.receiver === other.receiver

export const hashOf = (services: DetectorServices, region: KnownObject, start: number, end: number) =>
  end - start > MAX_COMPARED ? undefined : hashOfBytes(services, region, start, end)

export const messageText = ({ event: { message } }: Told): string =>
  'call' in message ? `the private data of ${message.call}` : requestText(message)

export const messageStack = (services: DetectorServices, { event: { message, qp } }: Told): Stack => {
  if ('call' in message) return message.stack
  const owner = services.objects.find(qp)
  return owner ? services.postStackIn(owner.context, message) : []
}

export const messageMoment = (services: DetectorServices, told: Told, action: string): Moment =>
  moment(`${action} (${messageText(told)})`, told.event.time, messageStack(services, told))

export const ago = ({ sources }: DetectorServices, time: number): string =>
  `${durationText(Math.max(0, sources.now() - time))} before`

export const bytesText = ({ region, event: { start, end } }: Told): string =>
  `${end - start} bytes at ${hex(start)} of ${region.name}`

const accessName = (
  request: WorkRequest | undefined,
  owner: KnownObject | undefined,
  word: string,
  qpn: number,
): string => {
  if (request === undefined) return `a ${word} of the peer of QP ${hex(qpn)}`
  return owner === undefined
    ? `${requestText(request)} of QP ${hex(request.number)}, which its program has destroyed,`
    : `${requestText(request)} of ${owner.nameWithProgram}`
}

/**
 * Where the access came from, and what a finding says about it. `word`: of an access whose request is unknown; `does`:
 * with the bytes and what told of them.
 */
export const aboutAccess = (
  services: DetectorServices,
  told: Told,
  request: WorkRequest | undefined,
  word: string,
  does: string,
  moments: readonly Moment[],
): readonly [Occurrence, FindingContent] => {
  const { region, qpn, event } = told
  const { objects } = services
  const owner = request && objects.find(request.owner)
  const occurrence =
    request !== undefined && owner !== undefined
      ? services.occurrenceAtPost(owner, request)
      : services.occurrenceAt(region, [], 'accessed')
  return [
    occurrence,
    {
      text: `${accessName(request, owner, word, qpn)} ${does}`,
      moments: [messageMoment(services, told, 'told'), ...moments],
      objects: [region, owner, objects.find(event.qp)],
    },
  ]
}
