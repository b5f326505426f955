/*
 * Findings about identifiers of rdma_cm:
 * - calls that are refused;
 * - parameters of a connection that are not initialised;
 * - identifiers that are destroyed before their queue pair;
 * - receives that are posted after the connection is accepted.
 */
import type { Stack } from '../../../spec/check/finding.ts'
import type { CheckedCall } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { CmPortSpace } from '../../../spec/enums.ts'
import { Errno, errnoName } from '../../../spec/errno.ts'
import { PostQueue } from '../../../spec/session.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import type { FindingContent, Occurrence } from '../reporting.ts'
import { OVERTAKEN } from '../story/recorder.ts'

/** Fields of rdma_conn_param with their largest values. Linux uses larger ones as if they were these. */
const limits = {
  retryCount: ['retry_count', 7],
  rnrRetryCount: ['rnr_retry_count', 7],
  flowControl: ['flow_control', 1],
  srq: ['srq', 1],
} as const

/** Calls without which an identifier does not connect. */
const steps: ReadonlySet<string> = new Set([
  'bind',
  'resolveAddress',
  'resolveRoute',
  'connect',
  'listen',
  'accept',
  'initQpAttr',
])

/** Maximum kept refused calls of an identifier, the first. */
const MAX_REFUSED = 8

interface RefusedStep {
  readonly method: string
  readonly occurrence: Occurrence
  readonly text: string
  readonly isArgumentError: boolean
  /** Whether the call succeeded later. */
  hasSucceeded: boolean
}

/** A call that accepted a connection while the queue pair had no receive. */
interface EarlyAccept {
  readonly id: KnownObject
  /** Microseconds. */
  readonly time: number
  readonly stack: Stack
}

type ConnectionParameters = Readonly<Record<keyof typeof limits | 'qpNum', number>>

/** What a refused call of an identifier says of events that the program may have taken for others. */
export const overtakenContent = (services: DetectorServices, id: KnownObject | undefined): Partial<FindingContent> => {
  if (id === undefined || !services.ask(OVERTAKEN)?.(id)) return {}
  return {
    details: [`CONNECT_REQUEST of another client was read after ${id.name} had accepted, before its ESTABLISHED`],
    advice: 'look at event->event and event->id: the events of all identifiers of a channel come as they happen',
  }
}

export const createCmIdDetector = (services: DetectorServices): Detector => {
  /** By `CoreObject.id` of the identifier. */
  const refusals = new Map<number, RefusedStep[]>()
  /** Queue pairs and shared receive queues to which a receive was posted, by `CoreObject.id`. */
  const withReceives = new Set<number>()
  /** By `CoreObject.id` of the queue pair. */
  const earlyAccepts = new Map<number, EarlyAccept>()
  /** Identifiers of RDMA_PS_UDP, by `CoreObject.id`. */
  const datagramIds = new Set<number>()

  const refused = (
    call: CheckedCall,
    id: KnownObject,
    { errno, reason }: NonNullable<CheckedCall['refused']>,
  ): void => {
    const known = refusals.get(id.id) ?? []
    refusals.set(id.id, known)
    if (known.length === MAX_REFUSED) return
    known.push({
      method: call.method,
      occurrence: call,
      text: `${errnoName(errno)}: ${reason}`,
      isArgumentError: errno === Errno.EINVAL || errno === Errno.ENODATA,
      hasSucceeded: false,
    })
  }

  /** The identifier is destroyed: each of its refused calls is a finding. */
  const reportRefused = (id: KnownObject): void => {
    for (const { method, occurrence, text, isArgumentError, hasSucceeded } of refusals.get(id.id) ?? []) {
      const isError = steps.has(method) && isArgumentError && !hasSucceeded
      services.report('refused-call', occurrence, {
        text,
        severity: isError ? 'error' : 'note',
        objects: [id],
        ...overtakenContent(services, id),
      })
    }
    refusals.delete(id.id)
  }

  const checkParameters = (call: CheckedCall, id: KnownObject, parameters: ConnectionParameters): void => {
    // A request for the service of datagrams names no queue pair, its acceptance does. The call may name its own.
    const isNamed = parameters.qpNum !== 0 || call.args.qp !== undefined
    if (!isNamed && !(call.method === 'connect' && datagramIds.has(id.id)))
      services.report('conn-param-uninitialised', call, {
        text: `rdma_${call.method} of ${id.name}: the identifier has no queue pair, and qp_num of rdma_conn_param is 0`,
        advice: `create the queue pair by rdma_create_qp before rdma_${call.method}, or set qp_num to that of the program's own`,
        objects: [id],
      })
    const beyond = Object.entries(limits).flatMap(([field, [name, max]]) => {
      const value = parameters[field as keyof typeof limits]
      return value > max ? [`${name} is ${value}, above ${max}`] : []
    })
    if (beyond.length === 0) return
    const text = `rdma_${call.method} of ${id.name}: ${beyond.join(', ')}`
    services.report('conn-param-uninitialised', call, { text, objects: [id] })
  }

  /** The queue pair with this number on a device of the program. */
  const qpOf = (id: KnownObject, qpn: number): KnownObject | undefined => services.objects.qpOfProgram(id.program, qpn)

  const accepted = (call: CheckedCall, id: KnownObject, { qpNum }: ConnectionParameters): void => {
    const qp = qpOf(id, qpNum)
    if (qp === undefined) return
    if (qp.class !== 'rc_qp' || withReceives.has((qp.uses.get('srq') ?? qp).id)) return
    earlyAccepts.set(qp.id, { id, time: call.time, stack: call.stack })
  }

  const destroyed = (call: CheckedCall, id: KnownObject): void => {
    reportRefused(id)
    const qp = call.queuePair === undefined ? undefined : qpOf(id, call.queuePair)
    if (qp === undefined) return
    const text = `${id.name} was destroyed before its queue pair, ${qp.name}`
    services.report('cm-id-destroyed-early', call, { text, objects: [id, qp] })
  }

  const receivePosted = (request: WorkRequest): void => {
    withReceives.add(request.owner)
    const early = earlyAccepts.get(request.owner)
    const qp = services.objects.find(request.owner)
    if (early === undefined || qp === undefined) return
    earlyAccepts.delete(request.owner)
    const text = `${qp.name} had no receive when ${early.id.name} accepted the connection: the first was posted afterwards`
    services.report('receives-after-accept', services.occurrenceAtPost(qp, request), {
      text,
      moments: [{ action: 'accepted', time: early.time, stack: early.stack }],
      objects: [qp, early.id],
    })
  }

  return {
    on: {
      posted(request) {
        if (request.queue !== PostQueue.SEND) receivePosted(request)
      },
      queueReset(owner) {
        withReceives.delete(owner)
        earlyAccepts.delete(owner)
      },
      called(call, object) {
        if (object.class !== 'cm_id') return
        if (call.refused !== undefined) {
          if (call.why === 'call') refused(call, object, call.refused)
          return
        }
        for (const step of refusals.get(object.id) ?? []) if (step.method === call.method) step.hasSucceeded = true
        if (call.args.portSpace === CmPortSpace.values.UDP) datagramIds.add(object.id)
        if (typeof call.args.userHandle === 'bigint') services.objects.nameCmId(object, call.args.userHandle)
        const parameters = call.args.parameters as ConnectionParameters | undefined
        if ((call.method === 'connect' || call.method === 'accept') && parameters !== undefined)
          checkParameters(call, object, parameters)
        if (call.method === 'accept' && parameters !== undefined) accepted(call, object, parameters)
        if (call.method === 'destroy') {
          destroyed(call, object)
          datagramIds.delete(object.id)
        }
      },
    },
  }
}
