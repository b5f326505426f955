/*
 * Rings as the queue format of a soft device (drivers/soft/format.ts), in the layout of the context: rxe's, which the
 * program maps, or the compact one of the library (ring-memory.ts).
 */
import { type MmapInfo, mmapInfo } from '../../core/memory/rings.ts'
import { RingSge } from '../../spec/drivers/mapped-rings.ts'
import { QpQueues as QpAttributes, RxeAttributes } from '../../spec/drivers/rxe.ts'
import type { QpCreated, QueueFormat, SharedFormat } from '../soft/format.ts'
import { emptyReceiveQueue, emptySendQueue } from '../soft/queues.ts'
import { stateOf } from '../soft/state.ts'
import { isInProcess, ringMemoryOf } from './context.ts'
import { createReceiveQueue, RingReceives, resizeReceives } from './receive-queue.ts'
import { createSendQueue, RingSends } from './send-queue.ts'

type Created = QpCreated & { sendQueue?: MmapInfo; recvQueue?: MmapInfo }

export const ringFormat: QueueFormat = {
  additions: QpAttributes,
  hasPostCall: true,
  isInProcess,
  sizesOf: (_method, { cap }) => cap,

  open(call, _args, { sizes, shared }) {
    const memory = ringMemoryOf(call.context)
    const { layout } = memory
    // rxe's user library also maps empty queues; in the compact layout, an empty queue needs no ring
    const hasNoRing = (requests: number): boolean => layout.hasFreeRunningIndices && requests === 0
    // elements and inline data share the bytes of a WQE: each limit is as large as the bytes allow
    const inlineBytes = Math.max(sizes.maxSendSge * RingSge.BYTES, sizes.maxInlineData)
    const sges = Math.min(Math.floor(inlineBytes / RingSge.BYTES), stateOf(call).limits.maxSge)
    // the receive queue first, because rxe's user library maps it first, and offsets descend (context-file.ts)
    const receive =
      shared ??
      (hasNoRing(sizes.maxRecvWr) ? emptyReceiveQueue : createReceiveQueue(memory, sizes.maxRecvWr, sizes.maxRecvSge))
    try {
      const send = hasNoRing(sizes.maxSendWr)
        ? emptySendQueue
        : createSendQueue(memory, sizes.maxSendWr, sges, inlineBytes)
      return { send, receive }
    } catch (error) {
      if (receive instanceof RingReceives && receive !== shared) memory.free(receive.ring)
      throw error
    }
  },

  // spread syntax would cost more than the rest of a creation
  answer({ cap: { maxSendWr, maxRecvWr, maxRecvSge } }, qpNum, send, receive) {
    const cap = { maxSendWr, maxRecvWr, maxSendSge: send.maxSge, maxRecvSge, maxInlineData: send.maxInline }
    const answer: Created = { cap, qpNum }
    if (!receive.isShared && receive instanceof RingReceives) answer.recvQueue = mmapInfo(receive.ring)
    if (send instanceof RingSends) answer.sendQueue = mmapInfo(send.ring)
    return answer
  },

  close({ context }, _qpn, { send, receive }) {
    const memory = ringMemoryOf(context)
    if (send instanceof RingSends) memory.free(send.ring)
    if (!receive.isShared && receive instanceof RingReceives) memory.free(receive.ring)
  },
}

const queueOf = ({ ring }: RingReceives) => ({ queue: mmapInfo(ring) })

export const sharedRings: SharedFormat<RingReceives> = {
  additions: { srq: RxeAttributes.srq, xrc_srq: RxeAttributes.xrc_srq },
  open: ({ context }, _className, { maxWr }, sges, onLimitReached) =>
    createReceiveQueue(ringMemoryOf(context), maxWr, sges, onLimitReached),
  answer: (_args, queue) => ({ maxWr: queue.capacity, maxSge: queue.maxSge, ...queueOf(queue) }),
  resize({ context }, queue, maxWr) {
    const memory = ringMemoryOf(context)
    const old = resizeReceives(memory, queue, maxWr)
    if (old === undefined) return false
    memory.free(old)
    return true
  },
  resized: queueOf,
  close({ context }, { ring }) {
    ringMemoryOf(context).free(ring)
  },
}
