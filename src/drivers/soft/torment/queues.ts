/*
 * Kind `queue` of torment (spec/check/torment.ts): exact queues, which have exactly the requested size. Only formats in
 * which the program sees free slots by an index of the device have them (`ExactQueue`).
 *
 * The slot of a request is released with its completion, and the slot of an unsignaled send with the completion of a
 * later send, as adapters do (ibv_post_send(3)). The slot of an SRQ's request is released when the request is taken,
 * because a completion does not tell the slot.
 */

import type { Decisions } from '../../../transport/phy/faults/torment-decisions.ts'
import type { ExactQueue, QpQueues } from '../queues.ts'
import type { QpCap } from '../state.ts'
import type { TormentedObject } from './objects.ts'

interface ExactQueues {
  /** Makes the queues of a new queue pair exact if the seed decides so. */
  limit(object: TormentedObject, queues: QpQueues, qpn: number, requested: QpCap): void
  /**
   * An SRQ was created or resized: it becomes exact if the seed decides so, and then stays exact. `name`: for the
   * trace.
   */
  limitShared(object: TormentedObject, queue: ExactQueue, name: string, requests: number): void
}

export const createExactQueues = (decisions: Decisions): ExactQueues => {
  const decide = ({ name }: TormentedObject) => decisions.decide('queue', name, 'size', '')
  return {
    limit(object, { send, receive }, qpn, { maxSendWr, maxRecvWr, maxSendSge, maxRecvSge, maxInlineData }) {
      const decision = send.exact && decide(object)
      if (send.exact === undefined || decision === undefined) return
      send.exact.limitTo(maxSendWr, maxSendSge, maxInlineData)
      if (!receive.isShared) receive.exact?.limitTo(maxRecvWr)
      decision.note(
        () =>
          `QP 0x${qpn.toString(16)} has room for exactly ${maxSendWr} sends of ${maxSendSge} elements and ${maxInlineData} bytes inline` +
          (receive.isShared ? '' : `, and ${maxRecvWr} receives of ${maxRecvSge} elements`),
      )
    },
    limitShared(object, queue, name, requests) {
      const decision = queue.isExact ? undefined : decide(object)
      if (!queue.isExact && decision === undefined) return
      queue.limitTo(requests)
      decision?.note(() => `${name} has room for exactly ${requests} requests`)
    },
  }
}

/** The slot for `releaseSlot`. To be read when the completion is made; the completion may be written later. */
export const slotOf = ({ send, receive }: QpQueues, isReceive: boolean): number =>
  (isReceive ? receive : send).exact?.slot() ?? 0

/** Releases the slots of an exact queue before `slot`. */
export const releaseSlot = ({ send, receive }: QpQueues, isReceive: boolean, slot: number): void => {
  if (isReceive && receive.isShared) return
  const { exact } = isReceive ? receive : send
  if (exact?.isExact) exact.release(slot)
}
