/*
 * What queues tell about waits: what was posted, armed and lost before.
 */
import { counted } from '../../../base/text.ts'
import { ADVICE_FOR_SOLICITED } from '../advice.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { lostIn } from '../lost-work.ts'
import { type KnownObject, moment } from '../objects.ts'
import { MAX_NAMED } from '../reporting.ts'
import type { ReceiveQueues } from './receives.ts'
import type { SendQueues } from './sends.ts'
import type { SrqLimits } from './srq-limits.ts'
import type { Wakeups } from './wakeups.ts'

export const refineWaits = (
  services: DetectorServices,
  sends: SendQueues,
  receives: ReceiveQueues,
  wakeups: Wakeups,
  limits: SrqLimits,
): NonNullable<Detector['refines']> => {
  const { objects } = services
  const messagesOf = ({ id, name }: KnownObject): string => `${counted(sends.messagesOf(id), 'message')} by ${name}`

  /** Where the CQ was armed whose event does not come. */
  const whereArmed = (cq: KnownObject | undefined) => {
    const stack = cq?.class === 'cq' ? wakeups.reportsWait(cq.id) : undefined
    return stack && { where: { stack, action: 'armed' } }
  }

  /** A line for each queue pair of a context with outstanding sends: the oldest. */
  const outstandingLines = (context: number): string[] =>
    objects
      .queuePairsOf(context)
      .flatMap(({ id, name }) =>
        sends
          .outstandingOf(id)
          .slice(0, 1)
          .map(oldest => ({ name, oldest })),
      )
      .slice(0, MAX_NAMED)
      .map(
        ({ name, oldest }) =>
          `the oldest send of ${name} that has not ended is ${requestText(oldest)}, ${counted(oldest.length, 'byte')}`,
      )

  return {
    'endless-rnr'({ qps: [qp, peer] }) {
      // When the peer takes messages is up to the library of the peer.
      if (qp?.hasMessages) return undefined
      const limit = limits.explain(peer)
      const last = peer === undefined || peer.class === 'xrc_tgt_qp' ? [] : receives.lastPost(peer)
      return { ...limit, moments: [...(limit.moments ?? []), ...last] }
    },
    'both-receive': ({ qps: [qp, peer] }) =>
      qp && peer ? { details: [`posted so far: ${messagesOf(qp)}, ${messagesOf(peer)}`] } : {},
    'lost-wakeup': ({ waited, postStack, at }) => ({
      ...whereArmed(waited),
      ...(waited &&
        postStack && { moments: [moment('posted by the sender', at.time, postStack)], advice: ADVICE_FOR_SOLICITED }),
      ...(waited?.class === 'comp_channel' && {
        advice: 'pass the channel to ibv_create_cq, and arm the CQ (ibv_req_notify_cq)',
        objects: objects
          .existingIn(at.context)
          .filter(({ class: name, uses }) => name === 'cq' && !uses.has('channel')),
      }),
    }),
    'idle-queues'({ wait: { text, details, advice }, at: { context }, waited }) {
      const lost = lostIn(objects, context)
      const { overwritten, unreached } = lost
      // No rule has a reason but that nothing is outstanding.
      const isUnexplained = details === undefined && advice === undefined
      return {
        ...whereArmed(waited),
        ...(isUnexplained && { text: overwritten ?? (unreached ? `${text}: ${unreached}` : text) }),
        moments: lost.moments,
        details: [...outstandingLines(context), ...lost.details],
        // After an error the queues stand still: that explains nothing.
        isWait: !services.hasErrors,
      }
    },
  }
}
