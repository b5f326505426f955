/*
 * Findings about receive queues and SRQs:
 * - a receive that is posted after the first message came for it;
 * - messages that wait for a receive later: receives are the credits of the sender.
 */
import { counted } from '../../../base/text.ts'
import type { Moment } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { requestText } from '../buffers.ts'
import type { DetectorServices, Topic } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import type { Occurrence } from '../reporting.ts'
import { WAITING_MICROSECONDS } from './wakeups.ts'

/** RNR NAKs before the first receive that make a finding, if the first is at least WAITING_MICROSECONDS ago. */
const MANY_RNR_NAKS = 64
/** The rnr_retry that means unlimited. */
const UNLIMITED = 7

/** How many receives a queue pair, or its SRQ, has had. */
export const POSTED_RECEIVES: Topic<(qp: KnownObject) => number> = { name: 'posted receives' }

interface ReceiveQueue {
  postedReceives: number
  /** The last receive that was posted. */
  last: WorkRequest | undefined
  /** Receives that messages have taken. */
  takenReceives: number
  /** When the first and the last message came before any receive, in microseconds. Undefined after a receive. */
  rnrTimes: { readonly first: number; last: number } | undefined
  /** Number of RNR NAKs before the first receive, and whether they are a finding already. */
  rnrNaks: number
  isReported: boolean
}

/** Waits that are more than this part of the messages, or of the time, are a warning. */
const DOMINANT = 1 / 2
/** Fewer messages are no measure. */
const MIN_MESSAGES = 8
/** Microseconds. Waits of a shorter time in total do not dominate, whatever the time of the messages. */
const MIN_WAITED = 100_000

/** The messages of a queue pair that takes receives. Times in microseconds. */
interface Messages {
  /** Messages that have taken a receive. */
  count: number
  /** When the first and the last message came. */
  first: number
  last: number
  waits: Waits | undefined
}

/** Messages that waited for a receive: the first RNR NAK to the completion of the receive. Times in microseconds. */
interface Waits {
  count: number
  total: number
  longest: number
  /** When the present wait began; undefined: no message waits. */
  since: number | undefined
  /** Where the first of these messages was posted; if the sender is unknown, where the queue pair was created. */
  readonly occurrence: Occurrence
  /** Undefined: unknown. */
  readonly request: WorkRequest | undefined
  readonly sender: KnownObject | undefined
}

export class ReceiveQueues {
  readonly #services: DetectorServices
  /** By `KnownObject.id` of the queue pair or SRQ. */
  readonly #queues = new Map<number, ReceiveQueue>()
  /** How many receives of an existing queue pair its last RESET has dropped. */
  readonly #dropped = new Map<number, number>()
  /** How many receives a queue pair had before its RESET or end. */
  readonly #before = new WeakMap<KnownObject, number>()
  /** By `KnownObject.id` of the queue pair. */
  readonly #messages = new Map<number, Messages>()
  readonly #oldestMessage: (sender: number) => WorkRequest | undefined

  /** `oldestMessage`: the oldest outstanding send of a queue pair that takes a receive. */
  constructor(services: DetectorServices, oldestMessage: (sender: number) => WorkRequest | undefined) {
    this.#services = services
    this.#oldestMessage = oldestMessage
    services.tell(
      POSTED_RECEIVES,
      qp => this.#queues.get((qp.uses.get('srq') ?? qp).id)?.postedReceives ?? this.#before.get(qp) ?? 0,
    )
  }

  #of(owner: number): ReceiveQueue {
    let queue = this.#queues.get(owner)
    if (queue === undefined) {
      queue = {
        postedReceives: 0,
        last: undefined,
        takenReceives: 0,
        rnrTimes: undefined,
        rnrNaks: 0,
        isReported: false,
      }
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
    queue.last = request
    const { rnrTimes } = queue
    queue.rnrTimes = undefined
    const owner = this.#services.objects.find(request.owner)
    if (rnrTimes === undefined || owner === undefined || owner.hasMessages) return
    // The device sees a receive only at its next look at the queue. So the last RNR NAK, not `request.time`, tells how
    // long the program was late at least.
    const waited = rnrTimes.last - rnrTimes.first
    const duration = waited === 0 ? '' : ` at least ${(waited / 1000).toFixed(1)} ms`
    const text = `${owner.name} got its first receive${duration} after a message had come for it`
    // With rnr_retry 7 the sender waits as long as it takes.
    const waits = owner.isQp && this.#services.peerOf(owner)?.attributes.rnrRetry === UNLIMITED
    this.#services.report('late-receives', this.#services.occurrenceAtPost(owner, request), {
      text,
      ...(waits && { severity: 'note' }),
      objects: [owner],
    })
  }

  /** Where a queue pair, or its SRQ, got its last receive; empty: none is known. */
  lastPost(qp: KnownObject): Moment[] {
    const { last } = this.#ofQp(qp)
    return last === undefined
      ? []
      : [this.#services.postMoment(last, `the peer's last receive, wr_id ${last.wrId}, posted`)]
  }

  /** A receive of queue pair `qp`, or of its SRQ, has completed, not flushed. */
  taken(request: WorkRequest, qp: number): void {
    this.#of(request.owner).takenReceives++
    const messages = this.#messagesOf(qp)
    const { waits } = messages
    messages.count++
    messages.last = this.#services.sources.now()
    if (waits?.since === undefined) return
    const waited = messages.last - waits.since
    waits.since = undefined
    waits.count++
    waits.total += waited
    waits.longest = Math.max(waits.longest, waited)
  }

  #messagesOf(qp: number): Messages {
    let messages = this.#messages.get(qp)
    if (messages === undefined) {
      const now = this.#services.sources.now()
      messages = { count: 0, first: now, last: now, waits: undefined }
      this.#messages.set(qp, messages)
    }
    return messages
  }

  /** A message has begun to wait, or waits. */
  #waits(qp: KnownObject): void {
    const messages = this.#messagesOf(qp.id)
    if (messages.waits?.since !== undefined) return
    const now = this.#services.sources.now()
    if (messages.waits !== undefined) {
      messages.waits.since = now
      return
    }
    const sender = this.#services.peerOf(qp)
    const request = sender && this.#oldestMessage(sender.id)
    const occurrence =
      sender !== undefined && request !== undefined
        ? this.#services.occurrenceAtPost(sender, request)
        : this.#services.occurrenceAt(qp, qp.creation.stack, qp.creation.action)
    messages.waits = { count: 0, total: 0, longest: 0, since: now, occurrence, request, sender }
  }

  /** The queue pair ends: reports messages that have waited for receives. */
  #reportWaits(qp: KnownObject, { count, first, last, waits }: Messages): void {
    if (waits === undefined || waits.count === 0) return
    const { total, longest, occurrence, request, sender } = waits
    const milliseconds = (time: number): string => `${(time / 1000).toFixed(1)} ms`
    const isOften = count >= MIN_MESSAGES && waits.count > count * DOMINANT
    const isLong = total >= MIN_WAITED && total > (last - first) * DOMINANT
    const begin =
      request === undefined || sender === undefined ? '' : `, the first is ${requestText(request)} of ${sender.name}`
    const retries = sender?.attributes.rnrRetry
    const shortest = qp.attributes.minRnrTimer === 0 ? '; min_rnr_timer 0 is the longest time, 655.36 ms' : ''
    const isPatient = retries === UNLIMITED
    const limit = retries === undefined || isPatient ? '' : `; with rnr_retry ${retries} a longer wait fails the send`
    this.#services.report('receives-short', occurrence, {
      text: `${waits.count} of ${counted(count, 'message')} for ${qp.name} waited for a receive, ${milliseconds(total)} in total, at most ${milliseconds(longest)}${begin}${limit}${shortest}`,
      ...(!isPatient && (isOften || isLong || shortest !== '') && { severity: 'warning' }),
      objects: [qp, qp.uses.get('srq'), sender],
    })
  }

  /** A message found no receive. UC and UD drop it: finding `message-dropped`. */
  notReady(qp: KnownObject): void {
    // An XRC target has no receive queue of its own.
    const queue = qp.class === 'rc_qp' || qp.class === 'driver_qp' ? this.#ofQp(qp) : undefined
    if (queue === undefined || queue.postedReceives > 0) {
      if (queue !== undefined || qp.class === 'xrc_tgt_qp') this.#waits(qp)
      return
    }
    const now = this.#services.sources.now()
    queue.rnrTimes ??= { first: now, last: now }
    queue.rnrTimes.last = now
    queue.rnrNaks++
    if (queue.isReported || queue.rnrNaks < MANY_RNR_NAKS || now - queue.rnrTimes.first < WAITING_MICROSECONDS) return
    // If no receive ever comes for a sender that retries without limit, that is the finding `endless-rnr`.
    if (this.#services.sources.findsWaits && this.#services.peerOf(qp)?.attributes.rnrRetry === UNLIMITED) return
    queue.isReported = true
    const text = `${qp.name} has answered a message with RNR NAK ${queue.rnrNaks} times: no receive was posted yet`
    const { stack, action } = qp.creation
    this.#services.report('late-receives', this.#services.occurrenceAt(qp, stack, action), { text, objects: [qp] })
  }

  /** One line: the peer's receives, and the sender's `outstanding` messages. */
  counts(sender: KnownObject, outstanding: number, peer: KnownObject): string {
    const { postedReceives, takenReceives } = this.#ofQp(peer)
    const srq = peer.uses.get('srq')
    const has = srq === undefined ? `${peer.name} has` : `${peer.name} takes receives of ${srq.name}, which has`
    const dropped = this.#dropped.get(peer.id)
    const before = dropped === undefined ? '' : `; its RESET dropped ${counted(dropped, 'receive')} before`
    return `${has} had ${counted(postedReceives, 'receive')}, and messages took ${takenReceives}${before}; ${sender.name} sends ${outstanding} more`
  }

  destroyed(owner: number): void {
    this.#dropped.delete(owner)
  }

  reset(owner: number): void {
    const messages = this.#messages.get(owner)
    const qp = this.#services.objects.find(owner)
    if (messages !== undefined && qp !== undefined) this.#reportWaits(qp, messages)
    this.#messages.delete(owner)
    const { postedReceives = 0, takenReceives = 0 } = this.#queues.get(owner) ?? {}
    if (qp !== undefined && postedReceives > 0) this.#before.set(qp, postedReceives)
    if (postedReceives > takenReceives) this.#dropped.set(owner, postedReceives - takenReceives)
    else this.#dropped.delete(owner)
    this.#queues.delete(owner)
  }
}
