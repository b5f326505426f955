/*
 * What happens to queues and CQs, for those who keep account of it: send queues (sends.ts), receive queues
 * (receives.ts), events of CQs (wakeups.ts), limits of SRQs, queue pairs that fail again, and completions that are not
 * polled.
 */

import { counted } from '../../../base/text.ts'
import { AsyncEventType, nameIn } from '../../../spec/enums.ts'
import { PostQueue } from '../../../spec/session.ts'
import { WcStatus } from '../../../spec/work.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { IMMEDIATES } from '../findings/immediate-byte-order.ts'
import type { KnownObject } from '../objects.ts'
import { STORIES } from '../story/lines.ts'
import { formerLives } from './former-life.ts'
import { ReceiveQueues } from './receives.ts'
import { Relapses } from './relapses.ts'
import { sendQueues } from './sends.ts'
import { SrqLimits } from './srq-limits.ts'
import { type UnpolledCompletion, unpolledCompletions } from './unpolled.ts'
import { refineWaits } from './waits.ts'
import { Wakeups } from './wakeups.ts'

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values

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
  const [unpolled, sends] = [unpolledCompletions(services), sendQueues(services)]
  const receives = new ReceiveQueues(services, sender => sends.oldestMessage(sender))
  const wakeups = new Wakeups(services, unpolled)
  const limits = new SrqLimits(services)
  const relapses = new Relapses(services)
  const ofFormerLife = formerLives(services, unpolled)

  /** CQs with IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN, by id. */
  const overwritingCqs = new Map<number, KnownObject>()

  const completionPolled = (one: UnpolledCompletion): void => {
    if (one.request.queue === PostQueue.SEND) sends.polled(one.request)
    relapses.polled(one)
    const { request, completion, qp } = one
    const { status } = completion
    if (one.isOver) ofFormerLife(one)
    else if (status !== SUCCESS && status !== WR_FLUSH_ERR) {
      const text = `${requestText(request)} (${nameIn(WcStatus.values, status)})`
      qp.failurePolled = { text, time: services.sources.now() }
      services.need(STORIES).failurePolled(qp, request)
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
      const immediate = [sender, peer].map(qp => services.ask(IMMEDIATES)?.lineOf(qp)).find(line => line !== undefined)
      // An opcode that was mistaken has no immediate data.
      const why = immediate === undefined ? sends.opcodeLines(sender) : [immediate]
      return [counts, ...(peer.class === 'driver_qp' ? [EFA_DROPS_EMPTY] : why)]
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
        if (qp === undefined) return
        qp.lost.notReady++
        receives.notReady(qp)
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
        const { class: name, method, refused } = call
        if (object.isQp) sends.called(call, object)
        if (refused !== undefined) return
        limits.called(call, object)
        if (method === 'create' && object.overwriting !== undefined) overwritingCqs.set(object.id, object)
        if (method !== 'destroy') return
        receives.destroyed(object.id)
        if (name !== 'cq') return
        wakeups.destroyed(object)
        overwritingCqs.delete(object.id)
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
    },
  }
}
