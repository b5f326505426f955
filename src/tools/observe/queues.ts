/*
 * The queues of observed queue pairs and SRQs, with their outstanding requests and the stacks of posts.
 */
import type { Stack } from '../../spec/check/finding.ts'
import { isSrqClass } from '../../spec/classes/ids.ts'
import { QpFlags } from '../../spec/enums.ts'
import { PostQueue } from '../../spec/session.ts'
import { WcOpcode, WcStatus } from '../../spec/work.ts'
import type { ObservedContext, ObservedObject } from './objects.ts'
import { NO_STACK, numberOf } from './observation.ts'
import type { ObservedCompletion } from './records.ts'
import type { ObservedRequests, RequestQueue } from './requests.ts'

const { SUCCESS } = WcStatus.values
const { SQ_SIG_ALL } = QpFlags.values

/** The object that owns a queue: `number` is the QPN, or the handle of an SRQ. */
export const ownerOf = (context: ObservedContext, queue: number, number: number): ObservedObject | undefined =>
  queue === PostQueue.SHARED ? context.objects.get(number) : context.device.qps.get(number)

export class Queues {
  readonly #requests: ObservedRequests
  /** By the id of a queue pair or SRQ: its send queue, receive queue or shared queue. */
  readonly #byOwner = new Map<number, RequestQueue[]>()

  constructor(requests: ObservedRequests) {
    this.#requests = requests
  }

  /** Adds the queues of a new object, if it has some. */
  add({ id, class: { name }, handle, qpn, args }: ObservedObject): void {
    const queue = (kind: number, number: number): RequestQueue => ({
      owner: id,
      queue: kind,
      number,
      signalsAll: ((numberOf(args.flags) ?? 0) & SQ_SIG_ALL) !== 0,
      outstanding: [],
      stacks: new Map(),
      stacksById: new Map(),
      posted: 0,
      failed: undefined,
    })
    if (isSrqClass(name)) this.#byOwner.set(id, [queue(PostQueue.SHARED, handle)])
    else if (qpn !== undefined) this.#byOwner.set(id, [queue(PostQueue.SEND, qpn), queue(PostQueue.RECEIVE, qpn)])
  }

  /** The requests of an object are not outstanding any more. */
  reset(id: number): void {
    const queues = this.#byOwner.get(id)
    if (queues !== undefined) this.#requests.reset(id, queues)
  }

  delete(id: number): void {
    this.#byOwner.delete(id)
  }

  /** The send and receive queue of a queue pair. */
  ofQp({ id }: ObservedObject): readonly RequestQueue[] {
    return this.#byOwner.get(id) ?? []
  }

  of(context: ObservedContext | undefined, queue: number, number: number): RequestQueue | undefined {
    const owner = context && ownerOf(context, queue, number)
    return owner && this.#byOwner.get(owner.id)?.find(one => one.queue === queue)
  }

  /** The stack of the post at `index` of the queue; `index` undefined: of the latest post with this wr_id. */
  postStack(
    context: ObservedContext | undefined,
    queue: number,
    number: number,
    wrId: bigint,
    index: number | undefined,
  ): Stack {
    const of = this.of(context, queue, number)
    return (index === undefined ? of?.stacksById.get(wrId) : of?.stacks.get(index)) ?? NO_STACK
  }

  /** The queue of a completion. Of a failed one only wr_id, status and QPN are valid. */
  ofCompletion(qp: ObservedObject, cq: ObservedObject, completion: ObservedCompletion): RequestQueue | undefined {
    const [sends, receives] = this.ofQp(qp)
    const srq = qp.args.srq as ObservedObject | undefined
    const shared = srq === undefined ? receives : (this.#byOwner.get(srq.id)?.[0] ?? receives)
    if (completion.status === SUCCESS) return (completion.opcode & WcOpcode.values.RECV) === 0 ? sends : shared
    if (qp.args.sendCq !== qp.args.recvCq) return qp.args.sendCq === cq ? sends : shared
    const isOf = (queue: RequestQueue | undefined): boolean =>
      queue?.outstanding.some(({ wrId }) => wrId === completion.wrId) === true
    return isOf(sends) || !isOf(shared) ? sends : shared
  }
}
