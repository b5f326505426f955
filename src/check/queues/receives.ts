/*
 * Findings about receive queues and SRQs: a receive that is posted after the first message came for it.
 */
import type { WorkRequest } from '../../spec/check/requests.ts'
import { counted } from '../../spec/text.ts'
import type { DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import { WAITING_MICROSECONDS } from './wakeups.ts'

/** RNR NAKs before the first receive that make a finding, if the first is at least WAITING_MICROSECONDS ago. */
const MANY_RNR_NAKS = 64
/** The rnr_retry that means unlimited. */
const UNLIMITED = 7

interface ReceiveQueue {
  postedReceives: number
  /** Receives that messages have taken. */
  takenReceives: number
  /** When the first and the last message came before any receive, in microseconds. Undefined after a receive. */
  rnrTimes: { readonly first: number; last: number } | undefined
  /** Number of RNR NAKs before the first receive, and whether they are a finding already. */
  rnrNaks: number
  isReported: boolean
}

export class ReceiveQueues {
  readonly #services: DetectorServices
  /** By `KnownObject.id` of the queue pair or SRQ. */
  readonly #queues = new Map<number, ReceiveQueue>()

  constructor(services: DetectorServices) {
    this.#services = services
  }

  #of(owner: number): ReceiveQueue {
    let queue = this.#queues.get(owner)
    if (queue === undefined) {
      queue = { postedReceives: 0, takenReceives: 0, rnrTimes: undefined, rnrNaks: 0, isReported: false }
      this.#queues.set(owner, queue)
    }
    return queue
  }

  /** The receive queue of a queue pair, or its SRQ. Not for an XRC target: its messages select the SRQ. */
  #ofQp(qp: KnownObject): ReceiveQueue {
    return this.#of((qp.uses.get('srq') ?? qp).id)
  }

  posted(request: WorkRequest): void {
    const queue = this.#of(request.owner)
    queue.postedReceives++
    const { rnrTimes } = queue
    queue.rnrTimes = undefined
    const owner = this.#services.objects.find(request.owner)
    if (rnrTimes === undefined || owner === undefined) return
    // The device sees a receive only at its next look at the queue. So the last RNR NAK, not `request.time`, tells how
    // long the program was late at least.
    const waited = rnrTimes.last - rnrTimes.first
    const duration = waited === 0 ? '' : ` at least ${(waited / 1000).toFixed(1)} ms`
    const text = `${owner.name} got its first receive${duration} after a message had come for it`
    this.#services.report('late-receives', this.#services.occurrenceAtPost(owner, request), { text, objects: [owner] })
  }

  /** A receive has completed, not flushed. */
  taken(request: WorkRequest): void {
    this.#of(request.owner).takenReceives++
  }

  /** A message found no receive. UC and UD drop it: finding `message-dropped`. */
  notReady(qp: KnownObject): void {
    // An XRC target has no receive queue of its own.
    if (qp.class !== 'rc_qp') return
    const queue = this.#ofQp(qp)
    if (queue.postedReceives > 0) return
    const now = this.#services.sources.now()
    queue.rnrTimes ??= { first: now, last: now }
    queue.rnrTimes.last = now
    queue.rnrNaks++
    if (queue.isReported || queue.rnrNaks < MANY_RNR_NAKS || now - queue.rnrTimes.first < WAITING_MICROSECONDS) return
    // If no receive ever comes for a sender that retries without limit, that is the finding `endless-rnr`.
    if (this.#services.sources.findsWaits && this.#senderOf(qp)?.attributes.rnrRetry === UNLIMITED) return
    queue.isReported = true
    const text = `${qp.name} has answered a message with RNR NAK ${queue.rnrNaks} times: no receive was posted yet`
    const { stack, action } = qp.creation
    this.#services.report('late-receives', this.#services.occurrenceAt(qp, stack, action), { text, objects: [qp] })
  }

  #senderOf({ attributes: { address, destQpn } }: KnownObject): KnownObject | undefined {
    const device = address && this.#services.deviceWithGid(address.dgid)
    return device === undefined || destQpn === undefined ? undefined : this.#services.objects.qp(device, destQpn)
  }

  /** One line: the peer's receives, and the sender's `outstanding` messages. */
  counts(sender: KnownObject, outstanding: number, peer: KnownObject): string {
    const { postedReceives, takenReceives } = this.#ofQp(peer)
    const srq = peer.uses.get('srq')
    const has = srq === undefined ? `${peer.name} has` : `${peer.name} takes receives of ${srq.name}, which has`
    return `${has} had ${counted(postedReceives, 'receive')}, and messages took ${takenReceives}; ${sender.name} sends ${outstanding} more`
  }

  reset(owner: number): void {
    this.#queues.delete(owner)
  }
}
