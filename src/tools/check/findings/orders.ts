/*
 * Calls on queues in a wrong order, or by threads that the program has excluded, which the preload library reports
 * (`misordered` in spec/preload-events.ts): the finding, sentence, severity and advice of each.
 */

import type { Moment } from '../../../spec/check/finding.ts'
import type { FindingId } from '../../../spec/check/findings.ts'
import type { Misorder } from '../../../spec/check/program-events.ts'
import type { Severity } from '../../../spec/check/severity.ts'
import { ObjectKind } from '../../../spec/session.ts'
import { CompletionField, OrderCall, OrderMistake } from '../call-mistakes.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { type KnownObject, moment } from '../objects.ts'

/** What a finding says about the mistake. */
interface OrderText {
  readonly text: string
  readonly advice?: string
  readonly severity?: Severity
  readonly moments?: readonly Moment[]
}

const fields: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(CompletionField).map(([name, field]) => [field, name]),
)

/** The flag of wc_flags by which a field is asked for. */
const flagOf = (field: number): string => {
  if (field === CompletionField.COMPLETION_TS) return 'IBV_WC_EX_WITH_COMPLETION_TIMESTAMP'
  if (field === CompletionField.COMPLETION_WALLCLOCK_NS) return 'IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK'
  return `IBV_WC_EX_WITH_${field === CompletionField.IMM_DATA ? 'IMM' : fields[field]}`
}

/** By OrderCall, without READ and EXIT. */
const calls: Readonly<Record<number, string>> = {
  [OrderCall.START_POLL]: 'ibv_start_poll',
  [OrderCall.NEXT_POLL]: 'ibv_next_poll',
  [OrderCall.END_POLL]: 'ibv_end_poll',
  [OrderCall.POLL_CQ]: 'ibv_poll_cq',
  [OrderCall.RESIZE_CQ]: 'ibv_resize_cq',
  [OrderCall.DESTROY_CQ]: 'ibv_destroy_cq',
  [OrderCall.DESTROY_QP]: 'ibv_destroy_qp',
  [OrderCall.POST_SEND]: 'ibv_post_send',
  [OrderCall.POST_RECV]: 'ibv_post_recv',
  [OrderCall.WR_START]: 'ibv_wr_start',
}

const isPromise = (mistake: number): boolean => mistake === OrderMistake.AT_ONCE || mistake === OrderMistake.IN_TURNS

const orderFinding = ({ mistake }: Misorder): FindingId => (isPromise(mistake) ? 'thread-promise' : 'poll-misused')

const END_IT = 'call ibv_end_poll after each ibv_start_poll that has returned 0, on every path'

/** Undefined: an unknown mistake. */
const orderText = (
  { mistake, called, field, isSingle, time, since }: Misorder,
  queue: KnownObject,
): OrderText | undefined => {
  const reader = `ibv_wc_read_${fields[field]?.toLowerCase()}`
  const call = called === OrderCall.READ ? reader : (calls[called] ?? 'a call')
  const on = `${call} on ${queue.name}`
  const earlier = (action: string) => (since.length === 0 ? {} : { moments: [moment(action, time, since)] })
  switch (mistake) {
    case OrderMistake.STARTED_AGAIN:
      return {
        text: `${on} ${isSingle === 0 ? 'waits for ever' : 'waits for ever, or takes completions of the poll in hand'}: this thread has started a poll of it and has not ended it`,
        advice: END_IT,
        ...earlier('started'),
      }
    case OrderMistake.OWNER_ENDED:
      return {
        text: `${on} waits for ever: the thread that has started a poll of it has ended without ibv_end_poll`,
        advice: END_IT,
        ...earlier('started'),
      }
    case OrderMistake.LEFT_OPEN:
      return {
        text: `${called === OrderCall.EXIT ? 'the program ended' : call} in a poll of ${queue.name}: ibv_end_poll was not called`,
        severity: 'warning',
        advice: END_IT,
        ...earlier('started'),
      }
    case OrderMistake.NOT_STARTED:
      return since.length === 0
        ? { text: `${on} outside a poll: ibv_start_poll was not called before` }
        : { text: `${on} outside a poll: ibv_end_poll has ended the last one`, ...earlier('started, and ended since') }
    case OrderMistake.EMPTY:
      return {
        text: `${on} outside a poll: the last ibv_start_poll of this thread has found no completion, so it has begun none`,
        ...earlier('started'),
      }
    case OrderMistake.OTHER_THREAD:
      return {
        text: `${on} in a poll that another thread has started`,
        advice: 'call ibv_start_poll, all functions of the poll and ibv_end_poll in one thread',
        ...earlier('started'),
      }
    case OrderMistake.NO_COMPLETION:
      return {
        text: `${on} after ibv_next_poll has found no further completion: it reads the one before, or none`,
        advice: 'read only after ibv_start_poll or ibv_next_poll has returned 0',
        ...earlier('started'),
      }
    case OrderMistake.NOT_REQUESTED:
      return {
        text: `${on}: wc_flags lacked ${flagOf(field)} when the CQ was created, so providers set no such function, or one that reads another field`,
        advice: 'give ibv_create_cq_ex the flags of all fields that the program reads (wc_flags)',
      }
    case OrderMistake.HELD:
      return isSingle === 0
        ? {
            text: `${call} needs the lock of ${queue.name}, of which this thread has a poll open: mlx5 waits for ever`,
            severity: called === OrderCall.RESIZE_CQ ? 'error' : 'warning',
            advice: `end the poll before ${call}`,
            ...earlier('started'),
          }
        : undefined
    case OrderMistake.WAITS:
      return {
        text: `${on} waits: another thread has had a poll of it open for a second, and has not ended it`,
        advice: END_IT,
        ...earlier('started by the other thread'),
      }
    case OrderMistake.AT_ONCE:
    case OrderMistake.IN_TURNS: {
      const promise = field === 1 ? 'a thread domain has' : 'IBV_CREATE_CQ_ATTR_SINGLE_THREADED has'
      const kind = field === 1 ? ('note' as const) : ('warning' as const)
      return mistake === OrderMistake.AT_ONCE
        ? {
            text: `${on} while another thread is in a call on it, which ${promise} excluded: the provider takes no lock`,
            ...earlier('called by the other thread'),
          }
        : {
            text: `${on} by one of two threads that use it in turns: ${promise} promised one thread at a time, so they need a lock of their own`,
            severity: kind,
            ...earlier('called by the other thread'),
          }
    }
    default:
      return undefined
  }
}

export const createOrderDetector = (services: DetectorServices): Detector => ({
  on: {
    misordered(order) {
      const { object, context, deviceNumber, number, time, stack, since } = order
      const target =
        object === ObjectKind.CQ
          ? services.objects.byHandle(context, 'cq', number)
          : services.objects.qp(deviceNumber, number)
      if (order.mistake === OrderMistake.FURTHER_POLLER) {
        if (target === undefined) return
        const first = target.pollers.length === 0 ? [moment('polled by one thread', time, since)] : target.pollers
        target.pollers = [...first, moment('polled by another thread', time, stack)]
        return
      }
      const content = target && orderText(order, target)
      if (content !== undefined) services.report(orderFinding(order), order, { ...content, objects: [target] })
    },
  },
})
