/*
 * Findings about answers to rdma_connect that the program has read: it posts though its connection was refused, or does
 * not confirm the response, or connects the identifier again.
 */
import type { CheckedCall } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { CmEventType, nameIn, QpState } from '../../../spec/enums.ts'
import { PostQueue } from '../../../spec/session.ts'
import { rejectText } from '../../../spec/wire/mad.ts'
import { requestText } from '../buffers.ts'
import { type Detector, type DetectorServices, TOLD } from '../detector.ts'
import { type KnownObject, moment, queueOf } from '../objects.ts'
import { type Occurrence, POSTED } from '../reporting.ts'

const { REJECTED, UNREACHABLE, CONNECT_ERROR, CONNECT_RESPONSE } = CmEventType.values
const { RTS } = QpState.values

interface Read {
  readonly id: KnownObject
  readonly qp: KnownObject
  /** The event. */
  readonly text: string
  readonly call: CheckedCall
}

export const createCmAnswerDetector = (services: DetectorServices): Detector => {
  /** The number of the queue pair that an identifier connects, by `CoreObject.id` of the identifier. */
  const qpns = new Map<number, number>()
  /** By `CoreObject.id` of the queue pair: the event that has refused its connection. */
  const refused = new Map<number, Read>()
  /** By `CoreObject.id` of the identifier: the CONNECT_RESPONSE that was not confirmed. */
  const responses = new Map<number, Read>()
  /** By `CoreObject.id` of the identifier: the event that has refused its connection. */
  const ended = new Map<number, Read>()
  /** Queue pairs of `responses` that have moved to RTS since. */
  const ready = new WeakSet<KnownObject>()

  const qpOf = (id: KnownObject): KnownObject | undefined => {
    const qpn = qpns.get(id.id)
    return qpn === undefined ? undefined : services.objects.qpOfProgram(id.program, qpn)
  }

  /** The program has read an event of an identifier. */
  const read = (call: CheckedCall, id: KnownObject, type: number, status: number): void => {
    const name = nameIn(CmEventType.values, type)
    const qp = qpOf(id)
    if (qp === undefined) return
    if (type === CONNECT_RESPONSE) responses.set(id.id, { id, qp, text: name, call })
    if (type !== REJECTED && type !== UNREACHABLE && type !== CONNECT_ERROR) return
    responses.delete(id.id)
    const event = { id, qp, text: type === REJECTED ? `${name} (${rejectText(status)})` : name, call }
    refused.set(qp.id, event)
    ended.set(id.id, event)
  }

  /** The identifier was destroyed. */
  const ends = (id: KnownObject): void => {
    const response = responses.get(id.id)
    responses.delete(id.id)
    ended.delete(id.id)
    qpns.delete(id.id)
    if (response === undefined || !ready.has(response.qp)) return
    const { qp } = response
    services.report(
      'cm-not-confirmed',
      { ...response.call, program: id.program, action: 'read' },
      {
        text: `CONNECT_RESPONSE of ${id.name} was read, and ${qp.name} moved to RTS without rdma_establish: the peer got no ESTABLISHED`,
        objects: [id, qp],
      },
    )
  }

  const used = ({ qp, id, text, call }: Read, at: Occurrence, request: string, fate = ''): void => {
    refused.delete(qp.id)
    services.report('cm-refused-used', at, {
      text: `${request} was posted to ${qp.name} after ${text} of ${id.name} was read: there is no connection${fate}`,
      moments: [moment('read', call.time, call.stack)],
      objects: [qp, id],
    })
  }

  const posted = (request: WorkRequest): void => {
    const event = request.queue === PostQueue.SEND ? refused.get(request.owner) : undefined
    if (event !== undefined) used(event, services.occurrenceAtPost(event.qp, request), requestText(request))
  }

  return {
    on: {
      posted,
      // libmlx5 refuses it with ENOMEM, like a full queue.
      refusedPost(post) {
        const queue = post.queue === PostQueue.SEND ? queueOf(services.objects, post) : undefined
        const event = queue && refused.get(queue.id)
        if (event === undefined) return undefined
        used(event, { ...post, ...POSTED }, `wr_id ${post.wrId}`, '; the post was refused')
        return TOLD
      },
      queueReset(owner) {
        refused.delete(owner)
      },
      called(call, object) {
        const { method, refused: refusal, args, out } = call
        if (refusal !== undefined) return
        if (object.class === 'cm_channel' && method === 'getEvent') {
          const id = services.objects.cmIdOfProgram(call.program, out.userHandle as bigint)
          if (id !== undefined) read(call, id, out.type as number, out.status as number)
        }
        if (object.isQp && args.state === RTS) for (const { qp } of responses.values()) if (qp === object) ready.add(qp)
        if (object.class !== 'cm_id') return
        const { qpNum } = (args.parameters ?? {}) as { readonly qpNum?: number }
        if (method === 'connect' && qpNum !== undefined) {
          const event = ended.get(object.id)
          ended.delete(object.id)
          if (event !== undefined)
            services.report('cm-connected-again', call, {
              text: `${object.name} connects again after ${event.text} was read: on Linux rdma_connect returns EINVAL`,
              moments: [moment('read', event.call.time, event.call.stack)],
              objects: [object, event.qp],
            })
          qpns.set(object.id, qpNum)
          refused.delete(qpOf(object)?.id ?? -1)
        }
        // rdma_establish is an acceptance.
        if (method === 'accept' || method === 'reject') responses.delete(object.id)
        if (method === 'destroy') ends(object)
      },
    },
  }
}
