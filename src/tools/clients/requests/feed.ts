/*
 * The requests of a device for watchers (spec/check/requests.ts), from the device's taps (core/driver-contract.ts): for
 * `userdma check` and recordings, and for any driver.
 *
 * Sends of a queue pair complete in order, and receives too, so a completion is that of the oldest request. A completed
 * receive has received the sender's oldest message of the same length and kind. If the service is unreliable and two
 * messages match, the network may have lost the first, so the message is unknown. A connection keeps the order, so
 * messages before the received one were lost. If a receiver drops a message, it is assumed to be the oldest message
 * from its sender to the receiver.
 */
import { findGid } from '../../../core/devices/gids.ts'
import {
  isQueuePair,
  type PostedRequest,
  type QueuePairObject,
  type RequestTaps,
  type WrittenCompletion,
} from '../../../core/driver-contract.ts'
import { type Context, type CoreObject, type Device, Lifecycle } from '../../../core/model.ts'
import { pdOf } from '../../../core/resources.ts'
import type { Cause, CauseName } from '../../../spec/check/causes.ts'
import type { RequestWatcher, WorkRequest } from '../../../spec/check/requests.ts'
import { isSrqClass } from '../../../spec/classes/ids.ts'
import { PostQueue } from '../../../spec/session.ts'
import { MULTICAST_QPN } from '../../../spec/wire/headers.ts'
import { isOfDriver, SendKind, sendOperations, takesReceive, WcOpcode, WcStatus, WrOpcode } from '../../../spec/work.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import { GRH_BYTES } from '../../../transport/wire/ip.ts'
import { eventTime } from '../../events/stream.ts'
import { copyTo, createDigest } from './digest.ts'

const { RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values
const { RDMA_WRITE_WITH_IMM } = WrOpcode.values
const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values

/**
 * Maximum number of messages of one queue pair that wait for their receives to complete. Messages to another process
 * would wait forever, because its receives are never seen.
 */
const MAX_MESSAGES = 4096

/** Maximum queue pairs with sends that wait which `settleContext` executes; those of others are counted only. */
const MAX_SETTLED = 64

/** Why a receiver drops a SEND or WRITE with immediate of UC or UD, besides a refused rkey. */
const receiverDrops: ReadonlySet<CauseName> = new Set(['NO_RECEIVE', 'QKEY_DIFFERS', 'RECEIVE_TOO_SHORT'])

/**
 * Gets a message that is sent or written. `copy`, during the call, copies `bytes` bytes of it from offset `from` on to
 * the scratch buffer; false: they cannot be read. Inline data is copied from its beginning only.
 */
export type MessageWatch = (
  qp: QueuePairObject,
  request: WorkRequest,
  copy: (from: number, bytes: number) => boolean,
) => void

const isMessage = ({ opcode }: WorkRequest): boolean => {
  const kind = sendOperations[opcode]?.kind
  return kind === SendKind.SEND || kind === SendKind.WRITE
}

/** Requests of one queue pair. */
interface QpFeed {
  /** Changes if the first opener of an XRC target has closed it. */
  qp: QueuePairObject
  readonly cqs: readonly CqFeed[]
  readonly isDatagram: boolean
  /** UC or UD: a failed or flushed send never arrives, and later ones may. */
  readonly isUnreliable: boolean
  /** Number of loaded sends, and of those that functions of verbs post. */
  count: number
  posts: number
  /** Sends that are loaded and not retired, oldest first. */
  readonly loaded: WorkRequest[]
  /** Retired sends that will have a completion, oldest first. */
  readonly retired: WorkRequest[]
  /** The last retired send, if it is unsignaled: it has a completion only if it failed. */
  lastUnsignaled: WorkRequest | undefined
  /** Sent messages whose receives are not complete, oldest first. */
  readonly messages: WorkRequest[]
  /** Receives that are taken and not complete, oldest first. */
  readonly takenReceives: WorkRequest[]
}

/**
 * The count of polled completions of a CQ. The ring's index counts a completion of an extended poll only at the end of
 * the poll. So the preload library counts too (`MappedMemory.takenCompletions`), and the larger count is reported.
 */
interface CqFeed {
  readonly cq: CoreObject
  /** Some completions were not reported as polled. */
  hasUnpolled: boolean
  /** The last reported count. */
  reported: number
  /** The library's counter (u32) when it was last read. */
  libraryCounter: number
  /** The library's count since it was first read. */
  libraryCount: number
}

/** Requests of one receive queue or SRQ. */
interface ReceiveFeed {
  readonly owner: CoreObject
  /** The owner's own CQs. An XRC SRQ has one; another SRQ has none, its queue pairs have them. */
  readonly cqs: readonly CqFeed[]
  /** Receives that are not taken, oldest first. */
  readonly pending: WorkRequest[]
  /** Number of reported receives. */
  count: number
}

/** The last `WorkRequest.id`. */
let lastId = 0

/** Each once: mostly one CQ is for both queues. */
const cqsOf = ({ parents }: CoreObject): CoreObject[] => [
  ...new Set(parents.filter(({ class: { name } }) => name === 'cq')),
]

/**
 * Removes from a sender's `messages` the one that a receive completion reports, and returns it; undefined: it is
 * unknown. On a connection, removes earlier messages too.
 */
const takeMessage = (
  messages: WorkRequest[],
  completion: WrittenCompletion,
  { qp, isDatagram, isUnreliable }: QpFeed,
): WorkRequest | undefined => {
  const bytes = completion.bytes - (isDatagram ? GRH_BYTES : 0)
  const isWrite = completion.opcode === RECV_RDMA_WITH_IMM
  const mayBe = ({ length, opcode, destQpn }: WorkRequest): boolean =>
    length === bytes && (opcode === RDMA_WRITE_WITH_IMM) === isWrite && (!isDatagram || destQpn === qp.state.qpn)
  const index = messages.findIndex(mayBe)
  if (index < 0) return undefined
  const isAmbiguous = isUnreliable && messages.findLastIndex(mayBe) !== index
  const message = isDatagram ? messages.splice(index, 1)[0] : messages.splice(0, index + 1)[index]
  return isAmbiguous ? undefined : message
}

/** Removes a message that does not arrive. */
const dropMessage = (messages: WorkRequest[], request: WorkRequest | undefined): void => {
  const index = request === undefined ? -1 : messages.indexOf(request)
  if (index >= 0) messages.splice(index, 1)
}

/** The request that a completion reports; it is removed if it is in a list. */
const completedRequest = (feed: QpFeed, { opcode, status }: WrittenCompletion): WorkRequest | undefined => {
  if ((opcode & RECV) !== 0) return feed.takenReceives.shift()
  const isFailure = status !== SUCCESS && status !== WR_FLUSH_ERR
  // the first failure may be of an unsignaled request
  return isFailure && feed.lastUnsignaled !== undefined ? feed.lastUnsignaled : feed.retired.shift()
}

/** Feeds by device, while the devices are watched: a receiver looks for the messages of senders. */
const feeds = new WeakMap<Device, RequestFeed>()

/** As `RequestFeed.requestOf`. Undefined too if nobody watches the device's requests. */
export const watchedRequest = (
  device: Device,
  qpn: number,
  isReceive: boolean,
  deviceWrId: bigint,
): WorkRequest | undefined => feeds.get(device)?.requestOf(qpn, isReceive, deviceWrId)

export class RequestFeed implements RequestTaps {
  readonly #device: Device
  readonly #watcher: RequestWatcher
  readonly #digest: ReturnType<typeof createDigest>
  readonly #copy: ReturnType<typeof copyTo>
  readonly #scratch: Arena
  #watchMessage: MessageWatch | undefined
  /** By QPN. */
  readonly #qps = new Map<number, QpFeed>()
  readonly #receives = new WeakMap<CoreObject, ReceiveFeed>()
  readonly #cqs = new WeakMap<CoreObject, CqFeed>()
  /** Those with `hasUnpolled`. */
  readonly #unpolled = new Set<CqFeed>()

  /** Reports the device's requests to `watcher` until `end`. `scratch`: as for `createDigest`. */
  constructor(device: Device, watcher: RequestWatcher, scratch: Arena) {
    this.#device = device
    this.#watcher = watcher
    this.#digest = createDigest(device.memory, scratch, device.driver.requests)
    this.#copy = copyTo(device.memory, scratch, device.driver.requests)
    this.#scratch = scratch
    feeds.set(device, this)
    device.taps.requests = this
  }

  // ---- for watchers ----

  end(): void {
    feeds.delete(this.#device)
    this.#device.taps.requests = undefined
  }

  /** Reports polled completions of a CQ. */
  reportCq(cq: CoreObject): void {
    this.#reportPolled(this.#cqFeedOf(cq))
  }

  /** Reports polled completions of all CQs. Returns whether some completions are not polled. */
  reportUnpolled(): boolean {
    for (const feed of this.#unpolled)
      if (feed.cq.life === Lifecycle.LIVE) this.#reportPolled(feed)
      else this.#unpolled.delete(feed)
    return this.#unpolled.size > 0
  }

  /** Reports new receives of a context's queue pairs and SRQs, and polled completions of their CQs. */
  reportContext(context: Context): void {
    for (const queue of this.#device.driver.requests?.queuesOf?.(context) ?? []) this.#reportQueue(queue)
  }

  /** As `reportContext`, of a queue pair, SRQ or CQ alone; of another object nothing. */
  reportQueue(queue: CoreObject): void {
    const { name } = queue.class
    if (name === 'cq') this.reportCq(queue)
    else if (isQueuePair(queue) || isSrqClass(name)) this.#reportQueue(queue)
  }

  #reportQueue(queue: CoreObject): void {
    const feed = this.#receivesOf(queue)
    this.#reportPending(feed, isQueuePair(queue) ? queue : undefined)
    this.#reportAllPolled(feed.cqs)
  }

  /**
   * The number of sends of a queue pair that are posted and not complete, once what can be executed now is executed:
   * so it does not depend on the load of the machine. Also reports polls of its CQs. Undefined: unknown.
   */
  settleSends(qp: CoreObject): number | undefined {
    const { requests } = this.#device.driver
    if (!isQueuePair(qp) || requests?.pendingSends === undefined) return undefined
    requests.settle?.(qp)
    this.#reportAllPolled(this.#cqFeedsOf(qp))
    return requests.pendingSends(qp)
  }

  /**
   * `settleSends` of the queue pairs of a context that have pending sends: their numbers by `CoreObject.id`. `isDead`:
   * only counts.
   */
  settleContext(context: Context, isDead = false): ReadonlyMap<number, number> {
    const found = new Map<number, number>()
    const { requests } = this.#device.driver
    for (const queue of requests?.queuesOf?.(context) ?? []) {
      if (!isQueuePair(queue)) continue
      const isSettled = isDead || found.size >= MAX_SETTLED
      const pending = isSettled ? requests?.pendingSends?.(queue) : this.settleSends(queue)
      if (pending) found.set(queue.id, pending)
    }
    return found
  }

  /**
   * A hash of the payload of an outstanding send. Of a long payload only samples are hashed, unless `isWhole`.
   * Undefined: the payload cannot be read.
   */
  digest(request: WorkRequest, isWhole: boolean): number | undefined {
    const qp = this.#qps.get(request.number)?.qp
    const pd = qp && pdOf(qp)
    return pd && this.#digest(pd.id, request, isWhole)
  }

  /** Calls `watch` for each message that is sent or written, after its `posted`. Undefined: no longer. */
  watchMessages(watch: MessageWatch | undefined): void {
    this.#watchMessage = watch
  }

  /** Bytes that the queue pair of an outstanding send may have unacknowledged. Undefined: unknown. */
  window({ number }: WorkRequest): number | undefined {
    const qp = this.#qps.get(number)?.qp
    return qp && this.#device.driver.requests?.window?.(qp)
  }

  /**
   * The request of a queue pair that the device knows by `deviceWrId`, often the program's own wr_id, and has not
   * completed, the oldest. Undefined: it is unknown.
   */
  requestOf(qpn: number, isReceive: boolean, deviceWrId: bigint): WorkRequest | undefined {
    const feed = this.#qps.get(qpn)
    if (feed === undefined) return undefined
    const sends = feed.lastUnsignaled === undefined ? feed.loaded : [...feed.loaded, feed.lastUnsignaled]
    const requests = isReceive ? feed.takenReceives : [...sends, ...feed.retired]
    return requests.find(request => (request.deviceWrId ?? request.wrId) === deviceWrId)
  }

  // ---- taps ----

  loaded(qp: QueuePairObject, send: PostedRequest, copyInline?: (to: Uint8Array) => void): void {
    const feed = this.#feedOf(qp)
    this.#reportAllPolled(feed.cqs)
    const postIndex = isOfDriver(send.opcode) ? undefined : feed.posts++
    const request = this.#requestOf(qp, PostQueue.SEND, feed.count++, postIndex, send)
    feed.loaded.push(request)
    if (takesReceive(request.opcode) && request.destQpn !== MULTICAST_QPN) {
      if (feed.messages.length === MAX_MESSAGES) feed.messages.shift()
      feed.messages.push(request)
    }
    this.#watcher.posted(request)
    if (this.#watchMessage !== undefined && isMessage(request)) this.#tellMessage(qp, request, copyInline)
  }

  #tellMessage(qp: QueuePairObject, request: WorkRequest, copyInline?: (to: Uint8Array) => void): void {
    const { elements, length, number } = request
    const pd = pdOf(qp)
    this.#watchMessage!(qp, request, (from, bytes) => {
      if (elements.length > 0) return pd !== undefined && this.#copy(pd.id, number, elements, from, bytes)
      if (copyInline === undefined || from > 0 || length > this.#scratch.bytes.length) return false
      copyInline(this.#scratch.bytes)
      return true
    })
  }

  retired(qp: QueuePairObject, count: number, isFlushed: boolean): void {
    const feed = this.#feedOf(qp)
    for (let i = 0; i < count; i++) {
      const request = feed.loaded.shift()
      if (request === undefined) return
      if (request.isSignaled || isFlushed) feed.retired.push(request)
      if (!isFlushed) feed.lastUnsignaled = request.isSignaled ? undefined : request
      this.#watcher.ended(request)
    }
  }

  receivesPosted(queue: CoreObject, qp: QueuePairObject): void {
    this.#reportPending(this.#receivesOf(queue), qp)
  }

  taken(qp: QueuePairObject, queue: CoreObject, receive: PostedRequest): void {
    const receives = this.#receivesOf(queue)
    if (receives.pending.length === 0) this.#reportReceives(receives, [receive], qp)
    this.#feedOf(qp).takenReceives.push(receives.pending.shift()!)
    this.#reportPending(receives, qp)
  }

  notReady(qp: QueuePairObject): void {
    this.#watcher.receiverNotReady(qp.id)
  }

  completed(qp: QueuePairObject, cq: CoreObject, completion: WrittenCompletion): void {
    const { status, opcode, bytes, solicited, position } = completion
    const feed = this.#feedOf(qp)
    const request = completedRequest(feed, completion)
    const isReceive = (opcode & RECV) !== 0
    const message = isReceive && status === SUCCESS ? this.#messageOf(feed, completion) : undefined
    if (feed.isUnreliable && !isReceive && status !== SUCCESS) dropMessage(feed.messages, request)
    // The program may have polled this completion already.
    const cqFeed = this.#cqFeedOf(cq)
    this.#reportPolled(cqFeed, position === 0 ? undefined : position - 1)
    if (position !== 0 && !cqFeed.hasUnpolled) {
      cqFeed.hasUnpolled = true
      this.#unpolled.add(cqFeed)
    }
    if (request === undefined) return
    const placed = {
      cq: cq.id,
      cqPosition: position,
      qp: qp.id,
      ...(cq.events?.wasArmed && { wasArmed: true as const }),
    }
    this.#watcher.completed(request, { status, opcode, bytes, solicited, message, ...placed })
  }

  dropped(qp: QueuePairObject, { id, args: { key } }: Cause, sourceQpn: number | undefined): void {
    const feed = this.#feedOf(qp)
    // The refused rkey, if that is the cause. The request may also be a WRITE without immediate, which is no message.
    if (!feed.isUnreliable || (key === undefined && !receiverDrops.has(id))) return
    const sender = feed.isDatagram ? sourceQpn : this.#device.driver.requests?.peerOf?.(qp)?.qpn
    if (sender !== undefined) this.#dropFrom(feed, sender, key)
  }

  beginsToReceive(qp: QueuePairObject): void {
    const feed = this.#feedOf(qp)
    if (!feed.isUnreliable) return
    if (feed.isDatagram) {
      for (const device of this.#device.core.devices.values())
        if (device.driver === this.#device.driver) feeds.get(device)?.dropDatagrams(qp.state.qpn)
      return
    }
    const sender = this.#device.driver.requests?.peerOf?.(qp)?.qpn
    // `#dropFrom` drops one message per call.
    while (sender !== undefined && this.#dropFrom(feed, sender));
  }

  reset(queue: CoreObject): void {
    if (isQueuePair(queue)) {
      const { qpn } = queue.state
      const taken = this.#qps.get(qpn)?.takenReceives ?? []
      this.#qps.delete(qpn)
      for (const request of taken) if (request.queue === PostQueue.SHARED) this.#watcher.receiveLost(request)
    }
    this.#receives.delete(queue)
    // Also if no request was seen: the program may have posted some.
    this.#watcher.queueReset(queue.id)
  }

  // ---- queues ----

  #feedOf(qp: QueuePairObject): QpFeed {
    const { qpn } = qp.state
    const known = this.#qps.get(qpn)
    if (known !== undefined) {
      known.qp = qp
      return known
    }
    const { name } = qp.class
    const feed: QpFeed = {
      qp,
      cqs: this.#cqFeedsOf(qp),
      isDatagram: name === 'ud_qp',
      isUnreliable: name === 'ud_qp' || name === 'uc_qp',
      count: 0,
      posts: 0,
      loaded: [],
      retired: [],
      lastUnsignaled: undefined,
      messages: [],
      takenReceives: [],
    }
    this.#qps.set(qpn, feed)
    return feed
  }

  #receivesOf(owner: CoreObject): ReceiveFeed {
    let feed = this.#receives.get(owner)
    if (feed === undefined) {
      feed = { owner, cqs: this.#cqFeedsOf(owner), pending: [], count: 0 }
      this.#receives.set(owner, feed)
    }
    return feed
  }

  #requestOf(
    owner: CoreObject,
    queue: number,
    index: number,
    postIndex: number | undefined,
    posted: PostedRequest,
  ): WorkRequest {
    const number = isQueuePair(owner) ? owner.state.qpn : owner.handle
    const { mapped, device } = owner.context ?? {}
    // Most devices know a request by the program's wr_id.
    const word = mapped?.packed === undefined ? device?.driver.requests?.numbered : undefined
    const logged =
      word === undefined || postIndex === undefined ? undefined : mapped?.postedWrId?.(queue, number, postIndex)
    const own = logged ?? posted.wrId
    const numbered = logged === undefined ? word : undefined
    // Made for each request: a spread would take longer than all else.
    const plain: WorkRequest = {
      id: ++lastId,
      time: eventTime(this.#device.core.now()),
      owner: owner.id,
      queue,
      number,
      index,
      postIndex,
      wrId: own,
      opcode: posted.opcode,
      flags: posted.flags,
      isSignaled: posted.isSignaled,
      length: posted.length,
      elements: posted.elements,
      remote: posted.remote,
      destQpn: posted.destQpn,
      destination: posted.destination,
    }
    const request = posted.swap === undefined ? plain : { ...plain, swap: posted.swap }
    if (own !== posted.wrId) return { ...request, deviceWrId: posted.wrId }
    return numbered === undefined ? request : { ...request, numbered }
  }

  /** Reports posted receives that were not reported. `qp`: a queue pair that takes them, if one is known. */
  #reportPending(feed: ReceiveFeed, qp: QueuePairObject | undefined): void {
    const receives = this.#device.driver.requests?.receives?.(feed.owner, feed.pending.length) ?? []
    if (receives.length > 0) this.#reportReceives(feed, receives, qp)
  }

  #reportReceives(feed: ReceiveFeed, receives: readonly PostedRequest[], qp: QueuePairObject | undefined): void {
    this.#reportAllPolled(feed.cqs)
    if (qp !== undefined && qp !== feed.owner) this.#reportAllPolled(this.#feedOf(qp).cqs)
    const queue = isQueuePair(feed.owner) ? PostQueue.RECEIVE : PostQueue.SHARED
    for (const receive of receives) {
      const index = feed.count++
      const request = this.#requestOf(feed.owner, queue, index, index, receive)
      feed.pending.push(request)
      this.#watcher.posted(request)
    }
  }

  #cqFeedOf(cq: CoreObject): CqFeed {
    let feed = this.#cqs.get(cq)
    if (feed === undefined) {
      const libraryCounter = cq.context?.mapped?.takenCompletions?.(cq.handle) ?? 0
      // Completions of before the check may wait in it.
      feed = { cq, hasUnpolled: true, reported: 0, libraryCounter, libraryCount: 0 }
      this.#cqs.set(cq, feed)
      this.#unpolled.add(feed)
    }
    return feed
  }

  #cqFeedsOf(queue: CoreObject): readonly CqFeed[] {
    return cqsOf(queue).map(cq => this.#cqFeedOf(cq))
  }

  #reportAllPolled(feeds: readonly CqFeed[]): void {
    for (const feed of feeds) this.#reportPolled(feed)
  }

  /** Reports the number of completions that the program has polled, if it has changed. `max`: at most this number. */
  #reportPolled(feed: CqFeed, max = Number.POSITIVE_INFINITY): void {
    const { cq } = feed
    const mapped = cq.context?.mapped
    // The library's counter is read also if all is polled: what it counts then is false.
    if (!feed.hasUnpolled && mapped === undefined) return
    const completions = this.#device.driver.requests?.completions?.(cq)
    if (completions === undefined) return
    const counter = mapped?.takenCompletions?.(cq.handle) ?? 0
    // Bounded, because the program may write any count.
    feed.libraryCount = Math.min(feed.libraryCount + ((counter - feed.libraryCounter) >>> 0), completions.written)
    feed.libraryCounter = counter
    const count = Math.min(Math.max(completions.polled, feed.libraryCount), max)
    if (count >= completions.written && feed.hasUnpolled) {
      feed.hasUnpolled = false
      this.#unpolled.delete(feed)
    }
    if (count === feed.reported) return
    feed.reported = count
    this.#watcher.polled(cq.id, count)
  }

  // ---- messages, for feeds of other devices too ----

  /**
   * Removes by `take`, and returns, a message of queue pair `sourceQpn` to the receiver. Undefined if the sender is
   * unknown: it may be in another process.
   */
  #takeFrom(
    { qp, isDatagram }: QpFeed,
    sourceQpn: number,
    take: (messages: WorkRequest[]) => WorkRequest | undefined,
  ): WorkRequest | undefined {
    const { core, driver } = this.#device
    const { peerOf } = driver.requests ?? {}
    const gid = peerOf?.(qp)?.gid
    for (const device of core.devices.values()) {
      if (device.driver !== driver) continue
      if (peerOf === undefined) {
        if (device !== this.#device) continue
      } else if (!isDatagram && (gid === undefined || findGid(device.ports[0]!.gids, gid) < 0)) continue
      const messages = feeds.get(device)?.sentBy(sourceQpn)
      const message = messages && take(messages)
      if (message !== undefined || !isDatagram) return message
    }
    return undefined
  }

  /** The message that a receive completion reports; undefined if unknown. */
  #messageOf(feed: QpFeed, completion: WrittenCompletion): WorkRequest | undefined {
    return this.#takeFrom(feed, completion.sourceQpn, messages => takeMessage(messages, completion, feed))
  }

  /** Drops the oldest message of a sender to `receiver`, with `rkey` if given. Returns whether there was one. */
  #dropFrom(receiver: QpFeed, sourceQpn: number, rkey?: Cause['args'][string]): boolean {
    const isToReceiver = ({ destQpn, remote }: WorkRequest): boolean =>
      (!receiver.isDatagram || destQpn === receiver.qp.state.qpn) && (rkey === undefined || remote?.rkey === rkey)
    const dropped = this.#takeFrom(receiver, sourceQpn, messages => {
      const message = messages.find(isToReceiver)
      dropMessage(messages, message)
      return message
    })
    return dropped !== undefined
  }

  /** Messages that a queue pair has sent, oldest first; undefined if no request of it was seen. */
  sentBy(qpn: number): WorkRequest[] | undefined {
    return this.#qps.get(qpn)?.messages
  }

  /** Forgets the datagrams that this device's queue pairs have sent to queue pair `qpn`. */
  dropDatagrams(qpn: number): void {
    for (const { messages } of this.#qps.values()) {
      // There may be very many queue pairs, of which few have messages.
      if (messages.length === 0) continue
      for (const request of messages.filter(({ destQpn }) => destQpn === qpn)) dropMessage(messages, request)
    }
  }
}
