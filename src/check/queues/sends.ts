/*
 * Findings about send queues:
 * - more sends than max_send_wr that are unsignaled in a row, or whose completions are not polled;
 * - bits of send_flags that are not defined;
 * - sends that are outstanding when the program moves its queue pair to ERR, or ends its connection.
 */
import { takesReceive, type WorkRequest } from '../../spec/check/requests.ts'
import { PostQueue } from '../../spec/session.ts'
import { counted } from '../../spec/text.ts'
import { DEFINED_SEND_FLAGS, WcStatus } from '../../spec/work.ts'
import { isRead, requestText } from '../buffers.ts'
import type { DetectorServices } from '../detector.ts'
import type { CheckedCall } from '../events.ts'
import { hex, type KnownObject, unreleasedIn } from '../objects.ts'
import type { UnpolledCompletion, UnpolledCompletions } from './unpolled.ts'

const { WR_FLUSH_ERR } = WcStatus.values

/** Maximum entries of `unpolledReads`. More than any max_dest_rd_atomic, which has 8 bits. */
const MAX_COUNTED_READS = 256

interface SendQueue {
  /** Number of unsignaled sends since the last signaled one. */
  unsignaled: number
  /** Number of sends whose slots are free: the last with a polled completion, and all before it. */
  freed: number
  /** `WorkRequest.index` of READs and atomics that the program has not polled, oldest first. */
  readonly unpolledReads: number[]
  /** Number of outstanding sends that take a receive of the peer. */
  outstandingMessages: number
  /** The call that moved the queue pair to ERR. */
  errCall: CheckedCall | undefined
  /** Number of sends that this call flushed. */
  flushedSends: number
}

export class SendQueues {
  readonly #services: DetectorServices
  readonly #unpolled: UnpolledCompletions
  /** By `KnownObject.id` of the queue pair. */
  readonly #queues = new Map<number, SendQueue>()

  constructor(services: DetectorServices, unpolled: UnpolledCompletions) {
    this.#services = services
    this.#unpolled = unpolled
  }

  #of(qp: number): SendQueue {
    let queue = this.#queues.get(qp)
    if (queue === undefined) {
      const counts = { unsignaled: 0, freed: 0, outstandingMessages: 0, flushedSends: 0 }
      queue = { ...counts, unpolledReads: [], errCall: undefined }
      this.#queues.set(qp, queue)
    }
    return queue
  }

  posted(request: WorkRequest): void {
    const queue = this.#of(request.owner)
    if (takesReceive(request)) queue.outstandingMessages++
    queue.unsignaled = request.isSignaled ? 0 : queue.unsignaled + 1
    const qp = this.#services.objects.find(request.owner)
    if (qp === undefined) return
    if (isRead(request)) this.#readPosted(qp, request, queue)
    this.#checkSlots(qp, request, queue)
    const undefinedFlags = request.flags & ~DEFINED_SEND_FLAGS
    if (undefinedFlags === 0) return
    const text = `${qp.name} ${requestText(request)} has send_flags ${hex(request.flags >>> 0)}, in which ${hex(undefinedFlags >>> 0)} is not defined`
    this.#services.report('undefined-flags', this.#services.occurrenceAtPost(qp, request), { text, objects: [qp] })
  }

  #readPosted(qp: KnownObject, { index }: WorkRequest, { unpolledReads }: SendQueue): void {
    if (unpolledReads.length < MAX_COUNTED_READS) unpolledReads.push(index)
    qp.mostReads = Math.max(qp.mostReads, unpolledReads.length - unreleasedIn(qp))
  }

  /** Reports, once per row and per excess, the first send for which an adapter would have no slot. */
  #checkSlots(qp: KnownObject, request: WorkRequest, { unsignaled, freed }: SendQueue): void {
    const size = qp.limits.maxSendWr ?? qp.requestedSends
    if (size === 0) return
    const unfreed = request.index + 1 - freed - unreleasedIn(qp)
    if (unsignaled === size + 1) {
      const text = `${qp.name} has had ${counted(unsignaled, 'unsignaled send')} in a row, and max_send_wr is ${size}`
      this.#services.report('never-signaled', this.#services.occurrenceAtPost(qp, request), { text, objects: [qp] })
    } else if (unfreed === size + 1 && unsignaled <= size) {
      const text = `${qp.name} has ${counted(unfreed, 'send')} posted of which no completion was polled, and max_send_wr is ${size}`
      this.#services.report('sends-unpolled', this.#services.occurrenceAtPost(qp, request), { text, objects: [qp] })
    }
  }

  ended(request: WorkRequest): void {
    if (takesReceive(request)) this.#of(request.owner).outstandingMessages--
  }

  completed(request: WorkRequest): void {
    // An unsignaled send that failed or was flushed: its completion frees its slot.
    if (!request.isSignaled) this.#of(request.owner).unsignaled = 0
  }

  /** The program has polled the completion of a send, so it knows that earlier sends of the queue are complete. */
  polled({ owner, index }: WorkRequest): void {
    const queue = this.#queues.get(owner)
    if (queue === undefined) return
    queue.freed = Math.max(queue.freed, index + 1)
    const { unpolledReads } = queue
    while (unpolledReads.length > 0 && unpolledReads[0]! <= index) unpolledReads.shift()
  }

  /** A call has moved the queue pair to ERR. */
  movedToErr(qp: number, call: CheckedCall): void {
    this.#of(qp).errCall = call
  }

  /** `count` sends of a queue pair were flushed because the program moved it to ERR, or ended its connection. */
  flushed(qp: number, count: number): void {
    this.#of(qp).flushedSends += count
  }

  /** The number of outstanding sends that take a receive of the peer. */
  outstandingMessages(qp: number): number {
    return this.#of(qp).outstandingMessages
  }

  /**
   * A queue pair was reset or destroyed: reports sends that its move to ERR flushed. As a note if the program has
   * polled their completions, or they had none: then it may know.
   */
  reset(qp: KnownObject): void {
    const { errCall, flushedSends } = this.#of(qp.id)
    this.#queues.delete(qp.id)
    if (errCall === undefined || flushedSends === 0) return
    const isFlushed = ({ request, completion }: UnpolledCompletion): boolean =>
      request.owner === qp.id && request.queue === PostQueue.SEND && completion.status === WR_FLUSH_ERR
    const isUnpolled = [...this.#unpolled.cqs].some(id => {
      const cq = this.#services.objects.find(id)
      return cq !== undefined && this.#unpolled.of(cq).some(isFlushed)
    })
    const text = `${qp.name} was moved to ERR with ${counted(flushedSends, 'send')} outstanding, whose messages may be lost`
    this.#services.report('sends-lost', errCall, { text, ...(!isUnpolled && { severity: 'note' }), objects: [qp] })
  }
}
