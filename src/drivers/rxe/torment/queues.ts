/*
 * Kind `queue` of torment (spec/check/torment.ts): exact queues, which have exactly the requested size. The slots of a
 * ring are a power of two, and the user library posts as long as it sees a free slot. So the device publishes a
 * consumer index that is behind its own by the number of spare slots. The spare slots look occupied.
 *
 * The slot of a request is released with its completion, and the slot of an unsignaled send with the completion of a
 * later send, as adapters do (ibv_post_send(3)). The slot of an SRQ's request is released when the request is taken,
 * because a completion does not tell the slot.
 */

import { type Ring, storeConsumer } from '../../../core/memory/rings.ts'
import { wrapper } from '../../../spec/wrapper.ts'
import type { WorkSource } from '../../../transport/engine/types.ts'
import type { Decisions } from '../../../transport/phy/faults/torment-decisions.ts'
import { checkLimit, loadOldest, type ReceiveQueue } from '../rings/receive-queue.ts'
import type { QpRings } from '../rings/work-source.ts'
import type { QpCap } from '../state.ts'

export interface ExactQueues {
  /** Retiring a send or taking a receive releases no slot of an exact queue, except of an SRQ. */
  work(plain: WorkSource, rings: readonly (QpRings | undefined)[]): WorkSource
  /** The queues of a new queue pair: `rings`, or exact queues if the seed decides so. */
  limit(device: string, rings: QpRings, qpn: number, requested: QpCap): QpRings
  /** An SRQ was created or resized: it becomes exact if the seed decides so, and then stays exact. `name`: for the trace. */
  limitShared(device: string, queue: ReceiveQueue, name: string, requests: number): void
  /** The rings were emptied: the slots of exact queues are released. */
  onRingsEmptied(rings: QpRings): void
  /** The `slot` for `release`. To be read when the completion is made; the completion may be written later. */
  slotOf(rings: QpRings, isReceive: boolean): number
  /** Releases the slots of an exact queue before `slot`. */
  release(rings: QpRings, isReceive: boolean, slot: number): void
}

/**
 * Releases the slots before `index`: publishes a consumer index that is lower by the number of spare slots. In rxe's
 * layout (`RingMemory.mayHideSlots`) one slot always stays empty, so `mask - capacity` slots are spare.
 */
const releaseSlots = (ring: Ring, index: number): void => storeConsumer(ring, index - (ring.mask - ring.capacity))

/** Limits a ring, from which no element was taken yet, to `capacity` elements. */
const exactRing = (ring: Ring, capacity: number): Ring => {
  const exact = { ...ring, capacity }
  releaseSlots(exact, 0)
  return exact
}

export const createExactQueues = (decisions: Decisions): ExactQueues => {
  /** Send and receive queues. */
  const exact = new WeakSet<object>()
  /** Whether the next queue pair or SRQ of a device gets exact queues. */
  const acts = (device: string): boolean => decisions.sequence('queue', device, 0).acts()

  return {
    work(plain, rings) {
      const ringsOf = rings as readonly QpRings[] // the engine passes only rows that exist
      return wrapper<WorkSource>({
        loadSend: plain.loadSend,
        retireSend(row, count) {
          const { send } = ringsOf[row]
          if (exact.has(send)) send.retiredIndex = (send.retiredIndex + count) & send.ring.wrap
          else plain.retireSend(row, count)
        },
        takeReceive(row, into, at) {
          const { receive } = ringsOf[row]
          if (!exact.has(receive)) return plain.takeReceive(row, into, at)
          if (!loadOldest(receive, into, at)) return false
          if (receive.isShared) releaseSlots(receive.ring, receive.takenIndex)
          checkLimit(receive)
          return true
        },
        copyInline: plain.copyInline,
        selectShared: plain.selectShared,
      })
    },

    limit(device, rings, qpn, { maxSendWr, maxRecvWr, maxSendSge, maxRecvSge, maxInlineData }) {
      if (!acts(device)) return rings
      const send = {
        ...rings.send,
        ring: exactRing(rings.send.ring, maxSendWr),
        maxSge: maxSendSge,
        maxInline: maxInlineData,
      }
      const receive = rings.receive.isShared
        ? rings.receive
        : { ...rings.receive, ring: exactRing(rings.receive.ring, maxRecvWr) }
      exact.add(send)
      if (!receive.isShared) exact.add(receive)
      decisions.note(
        'queue',
        device,
        () =>
          `QP 0x${qpn.toString(16)} has room for exactly ${maxSendWr} sends of ${maxSendSge} elements and ${maxInlineData} bytes inline` +
          (receive.isShared ? '' : `, and ${maxRecvWr} receives of ${maxRecvSge} elements`),
      )
      return { ...rings, send, receive }
    },

    limitShared(device, queue, name, requests) {
      if (!exact.has(queue)) {
        if (!acts(device)) return
        exact.add(queue)
      }
      queue.ring = exactRing(queue.ring, requests)
      decisions.note('queue', device, () => `${name} has room for exactly ${requests} requests`)
    },

    onRingsEmptied({ send, receive }) {
      if (exact.has(send)) releaseSlots(send.ring, 0)
      if (!receive.isShared && exact.has(receive)) releaseSlots(receive.ring, 0)
    },

    slotOf: ({ send, receive }, isReceive) => (isReceive ? receive.takenIndex : send.retiredIndex),
    release({ send, receive }, isReceive, slot) {
      if (!isReceive && exact.has(send)) releaseSlots(send.ring, slot)
      if (isReceive && !receive.isShared && exact.has(receive)) releaseSlots(receive.ring, slot)
    },
  }
}
