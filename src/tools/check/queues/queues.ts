/*
 * The detector of queues: send queues (sends.ts), receive queues (receives.ts), events of CQs (wakeups.ts), and
 * completions that are never polled, or not before their region is deregistered.
 */

import type { Stack } from '../../../spec/check/finding.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { AsyncEventType, nameIn } from '../../../spec/enums.ts'
import { PostQueue } from '../../../spec/session.ts'
import { counted } from '../../../spec/text.ts'
import { WcStatus } from '../../../spec/work.ts'
import { requestText, usesRegion } from '../buffers.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import { POSTED } from '../reporting.ts'
import { ReceiveQueues } from './receives.ts'
import { Relapses } from './relapses.ts'
import { SendQueues } from './sends.ts'
import { SrqLimits } from './srq-limits.ts'
import { type UnpolledCompletion, UnpolledCompletions } from './unpolled.ts'
import { refineWaits } from './waits.ts'
import { Wakeups } from './wakeups.ts'

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values

/** Whether a request failed. Not if it failed because its program ended: finding `program-ended`. */
const isFailed = ({ completion: { status }, qp }: UnpolledCompletion): boolean =>
  status !== SUCCESS && status !== WR_FLUSH_ERR && qp.failure?.cause.id !== 'LOCAL_ENDED'

export interface Queues {
  readonly relapses: Relapses
  /** A send was refused because its queue is full. */
  isFull(qp: number): void
  /** One line: the peer's receives, and the sender's outstanding messages. None for an XRC target. */
  receiveCounts(sender: KnownObject, peer: KnownObject): string[]
  /** A line: the bytes of a send that is outstanding, or has ended last. None if it is neither. */
  lengthOf(qp: KnownObject, wrId: bigint | undefined): string[]
  /** As `SrqLimits.explain`. */
  explainLimit(peer: KnownObject | undefined): ReturnType<SrqLimits['explain']>
  /** Whether the program has polled none of the completions of a CQ, which has some. */
  isNonePolled(cq: KnownObject): boolean
}

/** Of SRD, which only EFA has (efa_post_recv of rdma-core). */
const EFA_DROPS_EMPTY =
  'on EFA a receive without scatter/gather elements (num_sge 0) is not counted: libefa drops it, though ibv_post_recv returns 0'

export const QUEUES: Topic<Queues> = { name: 'queues' }

export const createQueueDetector = (services: DetectorServices): Detector => {
  const unpolled = new UnpolledCompletions()
  const sends = new SendQueues(services, unpolled)
  const receives = new ReceiveQueues(services, sender => sends.oldestMessage(sender))
  const wakeups = new Wakeups(services, unpolled)
  const limits = new SrqLimits(services)
  const relapses = new Relapses(services)

  /** CQs with IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN, by id. */
  const overwritingCqs = new Map<number, KnownObject>()

  /** A request has num_sge 0 and an element. */
  const elementsUnused = (event: ProgramEvent<'elementsUnused'>, owner: KnownObject): void => {
    const { isLeft, address, bytes, lkey, context, wrId, queue } = event
    const region = services.objects.regionAt(context, address)
    if (region === undefined || region.lkey !== lkey >>> 0) return
    if (address + bytes > (region.iova ?? 0) + (region.size ?? 0)) return
    services.report(
      'elements-unused',
      { ...event, ...POSTED },
      {
        text: `${queue === PostQueue.SEND ? 'send' : 'receive'} wr_id ${wrId} of ${owner.name} has num_sge 0, and an element of ${counted(bytes, 'byte')} of ${region.name} in sg_list: it is posted without bytes`,
        ...((isLeft === 1 || queue !== PostQueue.SEND) && { severity: 'note' }),
        objects: [owner, region],
      },
    )
  }

  const completionPolled = (one: UnpolledCompletion): void => {
    if (one.request.queue === PostQueue.SEND) sends.polled(one.request)
    relapses.polled(one)
  }

  /** A CQ was destroyed: reports completions that were never polled, unless all were flushed. */
  const reportUnpolled = (cq: KnownObject, stack: Stack): void => {
    const left = unpolled.of(cq)
    const failed = left.find(isFailed)
    const first = failed ?? left.find(({ completion: { status } }) => status === SUCCESS)
    if (first === undefined) return
    const owner = services.objects.find(first.request.owner)
    const name = `${requestText(first.request)}: ${nameIn(WcStatus.values, first.completion.status)}`
    const text = `${cq.name} ends with ${counted(left.length, 'completion')} that the program never polled: ${name}`
    services.report('completions-unpolled', services.occurrenceAt(cq, stack), {
      text,
      severity: failed === undefined ? 'note' : 'warning',
      moments: [services.postMoment(first.request)],
      objects: [cq, owner],
    })
  }

  /** A program has deregistered a region: reports an unpolled success of a request that uses the region. */
  const deregistered = (region: KnownObject, stack: Stack): void => {
    for (const id of unpolled.cqs) {
      const cq = services.objects.find(id)
      if (cq?.device !== region.device) continue
      const user = unpolled
        .of(cq)
        .find(
          ({ request, completion: { status }, isOver }) => !isOver && status === SUCCESS && usesRegion(request, region),
        )?.request
      const owner = user && services.objects.find(user.owner)
      if (user === undefined || owner === undefined) continue
      const text = `${region.name} was deregistered before the completion of ${requestText(user)} of ${owner.name} was polled`
      services.report('region-in-use', services.occurrenceAt(region, stack), {
        text,
        severity: 'warning',
        moments: [services.postMoment(user)],
        objects: [region, owner],
      })
      return
    }
  }

  /** A program has destroyed an address handle: reports a send to its address that the program has not polled. */
  const addressDestroyed = (ah: KnownObject, stack: Stack): void => {
    const { dgid } = ah
    const pd = ah.uses.get('pd')
    if (dgid === undefined || pd === undefined) return
    const isSame = (gid: Uint8Array | undefined): boolean => gid?.every((byte, i) => byte === dgid[i]) === true
    // Another handle of the address: the sends may have used that one.
    for (const other of pd.users) if (other !== ah && isSame(other.dgid)) return
    for (const owner of pd.users) {
      if (owner.class !== 'ud_qp') continue
      const cq = owner.uses.get('sendCq')
      const isOfAddress = ({ owner: id, destination }: WorkRequest): boolean =>
        id === owner.id && isSame(destination?.gid)
      const waiting = sends.outstandingOf(owner.id).find(isOfAddress)
      const sent = cq && unpolled.of(cq).find(({ request }) => isOfAddress(request))?.request
      const last = sends.lastUnknown(owner)
      const request = waiting ?? sent ?? (last && isOfAddress(last) ? last : undefined)
      if (request === undefined) continue
      const fate = waiting === undefined ? 'here it was sent' : 'it still waits, and is dropped'
      services.report('message-dropped', services.occurrenceAt(ah, stack), {
        text: `${ah.name} was destroyed before the completion of ${requestText(request)} of ${owner.name} was polled: an adapter may drop the datagram; ${fate}`,
        advice: 'destroy an address handle after the completions of its sends were polled',
        moments: [services.postMoment(request)],
        objects: [ah, owner],
      })
      return
    }
  }

  services.tell(QUEUES, {
    relapses,
    isFull: qp => sends.refused(qp),
    explainLimit: peer => limits.explain(peer),
    isNonePolled: ({ id }) => unpolled.isNonePolled(id),
    lengthOf({ id }, wrId) {
      const request = sends.lastOf(id, wrId)
      return request === undefined ? [] : [`${requestText(request)} has ${counted(request.length, 'byte')}`]
    },
    receiveCounts(sender, peer) {
      if (peer.class === 'xrc_tgt_qp') return []
      const counts = receives.counts(sender, sends.outstandingMessages(sender.id), peer)
      return peer.class === 'driver_qp' ? [counts, EFA_DROPS_EMPTY] : [counts]
    },
  })

  return {
    refines: refineWaits(services, sends, receives, wakeups, limits),
    on: {
      posted(request) {
        relapses.posted(request)
        if (request.queue === PostQueue.SEND) sends.posted(request)
        else {
          receives.posted(request)
          limits.posted(request.owner)
        }
      },
      ended(request) {
        sends.ended(request)
      },
      completed(request, completion) {
        const { qp, status, cqPosition } = completion
        relapses.completed(request, completion)
        if (request.queue === PostQueue.SEND) sends.completed(request)
        else if (status !== WR_FLUSH_ERR) {
          receives.taken(request, qp)
          sends.received(completion)
        }
        wakeups.completing(completion)
        const overwriting = overwritingCqs.get(completion.cq)
        if (overwriting !== undefined) overwriting.overwriting = cqPosition
        const known = cqPosition > 0 ? services.objects.find(qp) : undefined
        if (known !== undefined) unpolled.completed(request, completion, known)
      },
      receiverNotReady(id) {
        const qp = services.objects.find(id)
        if (qp !== undefined) receives.notReady(qp)
      },
      polled(id, count) {
        unpolled.polled(id, count, completionPolled)
        wakeups.polled(id)
      },
      queueReset(id) {
        const owner = services.objects.find(id)
        if (owner?.isQp) sends.reset(owner)
        receives.reset(id)
        relapses.reset(id)
        unpolled.qpReset(id)
      },
      calling(call, object) {
        const { class: name, method, args, stack } = call
        if (object.isQp) sends.calling(call, object)
        if (name !== 'cq') return
        wakeups.calling(object)
        if (method === 'reqNotify') wakeups.armed(object, Boolean(args.solicitedOnly), stack)
      },
      called(call, object) {
        const { class: name, method, stack, refused, why } = call
        if (object.isQp) sends.called(call, object)
        if (refused !== undefined) return
        limits.called(call, object)
        if (method === 'create' && object.overwriting !== undefined) overwritingCqs.set(object.id, object)
        if (method !== 'destroy') return
        receives.destroyed(object.id)
        if (name === 'ah' && why === 'call') addressDestroyed(object, stack)
        if (name === 'mr' && why === 'call') deregistered(object, stack)
        if (name !== 'cq') return
        wakeups.destroyed(object)
        overwritingCqs.delete(object.id)
        reportUnpolled(object, stack)
        unpolled.cqDestroyed(object.id)
      },
      failed(failed) {
        if (failed.failure.cause.id === 'SRQ_LIMIT') limits.raised(failed)
      },
      portEvent({ device, type }) {
        if (type === AsyncEventType.values.PORT_ACTIVE) relapses.portActive(device)
      },
      contextSettled(end) {
        sends.contextEnds(end)
        relapses.contextEnds(end.context)
      },
      elementsUnused,
    },
  }
}
