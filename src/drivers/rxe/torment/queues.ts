/*
 * Kind `queue` of torment (spec/check/torment.ts): queues have exactly the size that was asked for. A ring has a power of two
 * of slots, and the user library posts while it sees a free one. So the device publishes a consumer index that is
 * behind its own by the spare slots: these look occupied.
 *
 * The slot of a request is released when its completion is written, that of an unsignaled send with the completion of
 * a later one, as adapters do (ibv_post_send(3)); that of a shared receive queue when the request is taken, since the
 * completion does not tell whose it was.
 */
import type { WorkSource } from '../../../transport/types.ts'
import { checkLimit, loadOldest, type ReceiveQueue } from '../rings/receive-queue.ts'
import { type Ring, storeConsumer } from '../rings/rings.ts'
import type { QpRings } from '../rings/work-source.ts'
import type { WantedQueues } from '../state.ts'
import type { Decisions } from './decisions.ts'

export interface ExactQueues {
  /** The rings of a device's queue pairs for the engine: slots of exact queues are not released here. */
  work(plain: WorkSource, rings: readonly (QpRings | undefined)[]): WorkSource
  /** The queues of a new queue pair of `device`, exact if the seed decides so. */
  limit(device: string, rings: QpRings, qpn: number, wanted: WantedQueues): QpRings
  /** A shared receive queue that is new or was resized. `name`: for the trace. */
  limitShared(device: string, queue: ReceiveQueue, name: string, requests: number): void
  /** The rings were emptied. */
  restart(rings: QpRings): void
  /** The slot behind those that the completion written next releases. */
  slotOf(rings: QpRings, isReceive: boolean): number
  release(rings: QpRings, isReceive: boolean, slot: number): void
}

/** `ring` for exactly `capacity` elements. */
const exactRing = (ring: Ring, capacity: number): Ring => {
  const exact = { ...ring, capacity }
  publish(exact, 0)
  return exact
}

/** Shows the program that slots up to `index` are free, except the spare ones. */
const publish = (ring: Ring, index: number): void => storeConsumer(ring, index - (ring.mask - ring.capacity))

export const createExactQueues = (decisions: Decisions): ExactQueues => {
  const exact = new WeakSet<object>()
  const acts = (device: string): boolean => decisions.sequence('queue', device, 0).acts()

  return {
    work(plain, rings) {
      const ringsOf = rings as readonly QpRings[] // the engine names rows that exist
      return {
        ...plain,
        retireSend(row, count) {
          const { send } = ringsOf[row]
          if (exact.has(send)) send.retired = (send.retired + count) & send.ring.wrap
          else plain.retireSend(row, count)
        },
        takeReceive(row, into, at) {
          const { receive } = ringsOf[row]
          if (!exact.has(receive)) return plain.takeReceive(row, into, at)
          if (!loadOldest(receive, into, at)) return false
          if (receive.shared) publish(receive.ring, receive.taken)
          checkLimit(receive)
          return true
        },
      }
    },

    limit(device, rings, qpn, { maxSendWr, maxRecvWr, maxSendSge, maxRecvSge, maxInlineData }) {
      if (!acts(device)) return rings
      const send = {
        ...rings.send,
        ring: exactRing(rings.send.ring, maxSendWr),
        maxSge: maxSendSge,
        maxInline: maxInlineData,
      }
      const receive = rings.receive.shared
        ? rings.receive
        : { ...rings.receive, ring: exactRing(rings.receive.ring, maxRecvWr) }
      exact.add(send)
      if (!receive.shared) exact.add(receive)
      decisions.note(
        'queue',
        device,
        () =>
          `QP 0x${qpn.toString(16)} has exactly ${maxSendWr} sends of ${maxSendSge} elements and ${maxInlineData} bytes inline` +
          (receive.shared ? '' : `, and ${maxRecvWr} receives of ${maxRecvSge} elements`),
      )
      return { ...rings, send, receive }
    },

    limitShared(device, queue, name, requests) {
      if (!exact.has(queue)) {
        if (!acts(device)) return
        exact.add(queue)
      }
      queue.ring = exactRing(queue.ring, requests)
      decisions.note('queue', device, () => `${name} has exactly ${requests} requests`)
    },

    restart({ send, receive }) {
      if (exact.has(send)) publish(send.ring, 0)
      if (!receive.shared && exact.has(receive)) publish(receive.ring, 0)
    },

    slotOf: ({ send, receive }, isReceive) => (isReceive ? receive.taken : send.retired),
    release({ send, receive }, isReceive, slot) {
      if (!isReceive && exact.has(send)) publish(send.ring, slot)
      if (isReceive && !receive.shared && exact.has(receive)) publish(receive.ring, slot)
    },
  }
}
