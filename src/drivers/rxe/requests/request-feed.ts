/*
 * Reports the work requests of a watched device to `userdma check` (spec/check/requests.ts). It replaces functions of
 * the device's WorkSource, Completions and Causes.
 *
 * The engine may load a send several times. It completes the sends of a queue pair in order, and the receives too, so a
 * completion is that of the oldest request. A completed receive has received the sender's oldest message of the same
 * length and kind. If the service is unreliable and two messages match, the network may have lost the first, so the
 * message is unknown. A connection keeps the order, so messages before the received one were lost. If a receiver drops a
 * message, it is assumed to be the oldest message from its sender to the receiver.
 */
import { findGid } from '../../../core/devices/gids.ts'
import type { RequestPoll } from '../../../core/driver-contract.ts'
import type { Device } from '../../../core/model.ts'
import type { Cause, CauseName } from '../../../spec/check/causes.ts'
import {
  type RequestElement,
  type RequestWatcher,
  takesReceive,
  type WorkRequest,
} from '../../../spec/check/requests.ts'
import { QpState } from '../../../spec/enums.ts'
import { joinWords, TWO_32 } from '../../../spec/memory.ts'
import { PostQueue } from '../../../spec/session.ts'
import { MULTICAST_QPN } from '../../../spec/wire/headers.ts'
import { SendFlags, SRQN_SHIFT, WcOpcode, WcStatus, WrOpcode } from '../../../spec/work.ts'
import { Completion, type Completions, Flush, Receive, Send, Sge, type WorkSource } from '../../../transport/types.ts'
import type { Arena } from '../../../wire/arena.ts'
import { GRH_BYTES } from '../../../wire/ip.ts'
import { polledCompletions } from '../rings/completion-ring.ts'
import { loadReceive, pendingReceives, type ReceiveQueue } from '../rings/receive-queue.ts'
import type { CqObject, QpObject, RequestFeed, RxeState, SrqObject } from '../state.ts'
import { createDigest } from './request-digest.ts'

const { RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values
const { RDMA_WRITE, RDMA_WRITE_WITH_IMM, RDMA_READ } = WrOpcode.values
const { ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, ATOMIC_WRITE, FLUSH } = WrOpcode.values
const { SIGNALED } = SendFlags.values
/** Mask of the send flags of an XRC request. The higher bits are the number of an SRQ. */
const SEND_FLAGS = (1 << SRQN_SHIFT) - 1
const { SQE, ERR } = QpState.values
const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values

/** Opcodes whose requests name memory of the peer. */
const remoteOperations: ReadonlySet<number> = new Set([
  RDMA_WRITE,
  RDMA_WRITE_WITH_IMM,
  RDMA_READ,
  ATOMIC_CMP_AND_SWP,
  ATOMIC_FETCH_AND_ADD,
  ATOMIC_WRITE,
  FLUSH,
])
/**
 * Maximum number of messages of one queue pair that wait for their receives to complete. Messages to another process
 * would wait forever, because its receives are never seen.
 */
const MAX_MESSAGES = 4096

/** Why a receiver drops a SEND or WRITE with immediate of UC or UD, besides a refused rkey. */
const receiverDrops: ReadonlySet<CauseName> = new Set(['NO_RECEIVE', 'QKEY_DIFFERS', 'RECEIVE_TOO_SHORT'])

/** Requests of one queue pair. */
interface QpFeed {
  qp: QpObject
  readonly cqs: readonly CqObject[]
  readonly isDatagram: boolean
  readonly isXrc: boolean
  /** UC or UD: a failed or flushed send never arrives, and later ones may. */
  readonly isUnreliable: boolean
  readonly sqSigAll: boolean
  /** WQE index of the send that the engine fetches next; −1 before the first. */
  nextIndex: number
  /** Number of fetched sends. */
  count: number
  /** Sends that are fetched and not retired, oldest first. */
  readonly fetched: WorkRequest[]
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
  /** The last reported count. */
  reported: number
  /** The library's counter (u32) when it was last read. */
  libraryCounter: number
  /** The library's count since it was first read. */
  libraryCount: number
}

/** Requests of one receive queue or SRQ. */
interface ReceiveFeed {
  readonly owner: QpObject | SrqObject
  /** The owner's own CQs. An XRC SRQ has one; another SRQ has none, its queue pairs have them. */
  readonly cqs: readonly CqObject[]
  /** Receives that are not taken, oldest first. */
  readonly pending: WorkRequest[]
  /** Number of reported receives. */
  count: number
}

/** The last `WorkRequest.id`. */
let lastId = 0

const elementsAt = (words: Uint32Array, at: number, count: number): RequestElement[] => {
  const elements = new Array<RequestElement>(count)
  for (let i = 0, sge = at; i < count; i++, sge += Sge.WORDS)
    elements[i] = {
      address: words[sge + Sge.HI] * TWO_32 + words[sge + Sge.LO],
      length: words[sge + Sge.LENGTH],
      lkey: words[sge + Sge.LKEY],
    }
  return elements
}

const remoteBytes = (opcode: number, words: Uint32Array, at: number): number => {
  if (opcode === FLUSH) return words[at + Flush.LENGTH]
  return opcode === ATOMIC_CMP_AND_SWP || opcode === ATOMIC_FETCH_AND_ADD ? 8 : words[at + Send.LENGTH]
}

/** The destination of the datagram at `words[at]` (`Send`); undefined if its address handle (`flow`) was destroyed. */
const destinationOf = (ahs: RxeState['ahs'], words: Uint32Array, at: number): WorkRequest['destination'] => {
  for (const { flow, address } of ahs.values())
    if (flow === words[at + Send.FLOW]) return { gid: address.dgid, qkey: words[at + Send.QKEY] }
  return undefined
}

/** The request of a send at `words[at]` (fields: `Send`). */
const sendRequest = ({ ahs, now }: RxeState, feed: QpFeed, words: Uint32Array, at: number): WorkRequest => {
  const { qp, isDatagram, isXrc, sqSigAll, count } = feed
  const opcode = words[at + Send.OPCODE]
  const flags = words[at + Send.FLAGS]
  const hasRemote = !isDatagram && remoteOperations.has(opcode) && words[at + Send.REFUSED] === 0
  return {
    id: ++lastId,
    time: now(),
    owner: qp.id,
    queue: PostQueue.SEND,
    number: qp.state.qpn,
    index: count,
    wrId: joinWords(words[at + Send.ID_HI], words[at + Send.ID_LO]),
    opcode,
    flags: isXrc ? flags & SEND_FLAGS : flags,
    isSignaled: sqSigAll || (flags & SIGNALED) !== 0,
    length: words[at + Send.LENGTH],
    elements: elementsAt(words, at + Send.SGE, words[at + Send.SGES]),
    remote: hasRemote
      ? {
          address: words[at + Send.REMOTE_HI] * TWO_32 + words[at + Send.REMOTE_LO],
          length: remoteBytes(opcode, words, at),
          rkey: words[at + Send.RKEY],
        }
      : undefined,
    destQpn: isDatagram ? words[at + Send.DEST_QPN] & 0xff_ffff : undefined,
    destination: isDatagram ? destinationOf(ahs, words, at) : undefined,
  }
}

const cqsOf = ({ parents }: QpObject | SrqObject): CqObject[] =>
  parents.filter((parent): parent is CqObject => parent.class.name === 'cq')

const isQp = (owner: QpObject | SrqObject): owner is QpObject => 'qpn' in owner.state

/** The request of a receive at `words[0]` (fields: `Receive`). */
const receiveRequest = ({ owner, count }: ReceiveFeed, time: number, words: Uint32Array): WorkRequest => ({
  id: ++lastId,
  time,
  owner: owner.id,
  queue: isQp(owner) ? PostQueue.RECEIVE : PostQueue.SHARED,
  number: isQp(owner) ? owner.state.qpn : owner.handle,
  index: count,
  wrId: joinWords(words[Receive.ID_HI], words[Receive.ID_LO]),
  opcode: -1,
  flags: 0,
  isSignaled: true,
  length: words[Receive.LENGTH],
  elements: elementsAt(words, Receive.SGE, words[Receive.SGES]),
  remote: undefined,
  destQpn: undefined,
  destination: undefined,
})

/**
 * Removes from a sender's `messages` the one that a receive completion (`words`) reports, and returns it; undefined: it
 * is unknown. On a connection, removes earlier messages too.
 */
const takeMessage = (
  messages: WorkRequest[],
  words: Uint32Array,
  { qp, isDatagram, isUnreliable }: QpFeed,
): WorkRequest | undefined => {
  const bytes = words[Completion.BYTES] - (isDatagram ? GRH_BYTES : 0)
  const isWrite = words[Completion.OPCODE] === RECV_RDMA_WITH_IMM
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

/**
 * Reports the requests of a device to `watcher` from now on. Replaces functions of the engine's `work` and
 * `engineCompletions`. `scratch`: as for createDigest.
 */
export const watchRequests = (
  device: Device<RxeState>,
  work: WorkSource,
  engineCompletions: Completions,
  watcher: RequestWatcher,
  scratch: Arena,
): RequestPoll => {
  const digest = createDigest(device.memory, scratch)
  const { state } = device
  const { qps, rings, cqs, srqs } = state
  const feeds: (QpFeed | undefined)[] = []
  const receiveFeeds = new WeakMap<ReceiveQueue, ReceiveFeed>()
  const cqFeeds = new WeakMap<CqObject, CqFeed>()
  /** Buffer for one receive, with more elements than any device allows (max_sge, max_srq_sge). */
  const words = new Uint32Array(Receive.SGE + 1024 * Sge.WORDS)

  const feedOf = (row: number): QpFeed | undefined => {
    const known = feeds[row]
    const qp = qps[row]
    if (known !== undefined) {
      // The object of a row changes if the first opener of an XRC target has closed it.
      if (qp !== undefined) known.qp = qp
      return known
    }
    if (qp === undefined) return undefined
    const feed: QpFeed = {
      qp,
      cqs: cqsOf(qp),
      isDatagram: qp.class.name === 'ud_qp',
      isXrc: qp.class.name.startsWith('xrc_'),
      isUnreliable: qp.class.name === 'ud_qp' || qp.class.name === 'uc_qp',
      sqSigAll: state.engine().query(row).sqSigAll,
      nextIndex: -1,
      count: 0,
      fetched: [],
      retired: [],
      lastUnsignaled: undefined,
      messages: [],
      takenReceives: [],
    }
    feeds[row] = feed
    return feed
  }

  /** Whether the engine flushes sends. */
  const isFlushing = (row: number): boolean => {
    const qpState = state.engine().stateOf(row)
    return qpState === ERR || qpState === SQE
  }

  /** Reports the number of completions that the program has polled, if it has changed. */
  const reportPolled = (cq: CqObject): void => {
    const { state: ring, context, handle } = cq
    const consumed = polledCompletions(ring)
    const counter = context?.mapped?.takenCompletions?.(handle) ?? 0
    let feed = cqFeeds.get(cq)
    if (feed === undefined) {
      feed = { reported: 0, libraryCounter: counter, libraryCount: 0 }
      cqFeeds.set(cq, feed)
    }
    // Bounded, because the program may write any count.
    feed.libraryCount = Math.min(feed.libraryCount + ((counter - feed.libraryCounter) >>> 0), ring.completions)
    feed.libraryCounter = counter
    const count = Math.max(consumed, feed.libraryCount)
    if (count === feed.reported) return
    feed.reported = count
    watcher.polled(cq.id, count)
  }

  /** The SRQ whose queue the queue pair in `row` uses. */
  const sharedOwner = (row: number, queue: ReceiveQueue): SrqObject | undefined =>
    qps[row]?.parents.find((parent): parent is SrqObject => (parent as SrqObject).state?.queue === queue)

  const receivesOf = (queue: ReceiveQueue, owner: QpObject | SrqObject): ReceiveFeed => {
    let feed = receiveFeeds.get(queue)
    if (feed === undefined) {
      feed = { owner, cqs: cqsOf(owner), pending: [], count: 0 }
      receiveFeeds.set(queue, feed)
    }
    return feed
  }

  /** Reports newly posted receives of a queue. `row`: a row that uses the queue; undefined: none is known. */
  const scanQueue = (queue: ReceiveQueue, feed: ReceiveFeed, row: number | undefined): void => {
    const posted = pendingReceives(queue)
    if (feed.pending.length >= posted) return
    for (const cq of feed.cqs) reportPolled(cq)
    if (row !== undefined) for (const cq of feedOf(row)?.cqs ?? []) reportPolled(cq)
    while (feed.pending.length < posted) {
      loadReceive(queue, queue.takenIndex + feed.pending.length, words, 0)
      const request = receiveRequest(feed, state.now(), words)
      feed.count++
      feed.pending.push(request)
      watcher.posted(request)
    }
  }

  /** `scanQueue` for the queue that a row uses. Returns the queue's feed; undefined if unknown. */
  const scanReceives = (row: number): ReceiveFeed | undefined => {
    const queue = rings[row]?.receive
    if (queue === undefined) return undefined
    const owner = queue.isShared ? sharedOwner(row, queue) : qps[row]
    // An XRC target gets an SRQ by each packet: `selectShared`, below, has made the feed.
    const feed = owner === undefined ? receiveFeeds.get(queue) : receivesOf(queue, owner)
    if (feed !== undefined) scanQueue(queue, feed, row)
    return feed
  }

  /**
   * Removes by `take`, and returns, a message of queue pair `sourceQpn` to the receiver, whose feed is the first argument.
   * Undefined if the sender is unknown: it may be in another process.
   */
  const takeFrom = (
    { qp, isDatagram }: QpFeed,
    sourceQpn: number,
    take: (messages: WorkRequest[]) => WorkRequest | undefined,
  ): WorkRequest | undefined => {
    const dgid = qp.state.address?.dgid
    for (const other of device.core.devices.values()) {
      if (other.driver !== device.driver) continue
      if (!isDatagram && (dgid === undefined || findGid(other.ports[0].gids, dgid) < 0)) continue
      const senderState = other.state as RxeState
      const messages = senderState.feed?.sentBy(senderState.qpns.rowOf(sourceQpn))
      const message = messages && take(messages)
      if (message !== undefined || !isDatagram) return message
    }
    return undefined
  }

  /** The message that a receive completion reports; undefined if unknown. */
  const messageOf = (feed: QpFeed, completion: Uint32Array): WorkRequest | undefined =>
    takeFrom(feed, completion[Completion.SRC_QPN], messages => takeMessage(messages, completion, feed))

  /** Drops the oldest message of a sender to `receiver`, with `rkey` if given. Returns whether there was one. */
  const dropFrom = (receiver: QpFeed, sourceQpn: number, rkey?: Cause['args'][string]): boolean => {
    const isToReceiver = ({ destQpn, remote }: WorkRequest): boolean =>
      (!receiver.isDatagram || destQpn === receiver.qp.state.qpn) && (rkey === undefined || remote?.rkey === rkey)
    const dropped = takeFrom(receiver, sourceQpn, messages => {
      const message = messages.find(isToReceiver)
      dropMessage(messages, message)
      return message
    })
    return dropped !== undefined
  }

  /** Returns the request that a completion reports, and removes it if the request is in a list. */
  const completedRequest = (feed: QpFeed, completion: Uint32Array): WorkRequest | undefined => {
    if ((completion[Completion.OPCODE] & RECV) !== 0) return feed.takenReceives.shift()
    const isFailure = completion[Completion.STATUS] !== SUCCESS && completion[Completion.STATUS] !== WR_FLUSH_ERR
    // the first failure may be of an unsignaled request
    return isFailure && feed.lastUnsignaled !== undefined ? feed.lastUnsignaled : feed.retired.shift()
  }

  const plainWork = { ...work }

  work.loadSend = (row, index, into, at) => {
    if (!plainWork.loadSend(row, index, into, at)) return false
    const feed = feedOf(row)
    // a send that the engine loads again was reported before
    if (feed === undefined || (feed.nextIndex !== -1 && feed.nextIndex !== index)) return true
    feed.nextIndex = (index + 1) >>> 0
    for (const cq of feed.cqs) reportPolled(cq)
    const request = sendRequest(state, feed, into, at)
    feed.count++
    feed.fetched.push(request)
    if (takesReceive(request) && request.destQpn !== MULTICAST_QPN) {
      if (feed.messages.length === MAX_MESSAGES) feed.messages.shift()
      feed.messages.push(request)
    }
    watcher.posted(request)
    return true
  }

  work.retireSend = (row, count) => {
    plainWork.retireSend(row, count)
    const feed = feedOf(row)
    for (let i = 0; feed !== undefined && i < count; i++) {
      const request = feed.fetched.shift()
      if (request === undefined) return
      const isFlushed = isFlushing(row)
      if (request.isSignaled || isFlushed) feed.retired.push(request)
      if (!isFlushed) feed.lastUnsignaled = request.isSignaled ? undefined : request
      watcher.ended(request)
    }
  }

  work.takeReceive = (row, into, at) => {
    const receiveFeed = scanReceives(row)
    const isTaken = plainWork.takeReceive(row, into, at)
    const feed = feedOf(row)
    if (isTaken) {
      const request = receiveFeed?.pending.shift()
      if (request !== undefined) feed?.takenReceives.push(request)
    } else if (feed !== undefined && state.engine().stateOf(row) !== ERR) watcher.receiverNotReady(feed.qp.id)
    return isTaken
  }

  const { selectShared } = plainWork
  if (selectShared !== undefined)
    work.selectShared = (row, srqn, into) => {
      if (!selectShared(row, srqn, into)) return false
      const srq = state.srqs.get(state.srqns.rowOf(srqn))
      receivesOf(srq.state.queue, srq)
      return true
    }

  const { failures } = state
  const { dropped } = failures
  failures.dropped = (row, cause, wrId, sourceQpn) => {
    dropped(row, cause, wrId, sourceQpn)
    const feed = feedOf(row)
    // The refused rkey, if that is the cause. The request may also be a WRITE without immediate, which is no message.
    const rkey = cause.args.key
    if (!feed?.isUnreliable || (rkey === undefined && !receiverDrops.has(cause.id))) return
    const sender = feed.isDatagram ? sourceQpn : state.engine().query(row).destQpn
    if (sender !== undefined) dropFrom(feed, sender, rkey)
  }

  /** Restore the replaced functions. */
  const restorers: (() => void)[] = []
  const watchCompletions = (completions: Completions): void => {
    const { push } = completions
    restorers.push(() => {
      completions.push = push
    })
    completions.push = (number, completion, solicited) => {
      const cq = cqs.get(number)
      const row = state.qpns.rowOf(completion[Completion.QPN])
      const feed = row < 0 ? undefined : feedOf(row)
      const request = feed && completedRequest(feed, completion)
      const status = completion[Completion.STATUS]
      const opcode = completion[Completion.OPCODE]
      const bytes = completion[Completion.BYTES]
      const isReceive = (opcode & RECV) !== 0
      const message = feed && isReceive && status === SUCCESS ? messageOf(feed, completion) : undefined
      if (feed?.isUnreliable && !isReceive && status !== SUCCESS) dropMessage(feed.messages, request)
      reportPolled(cq)
      const completionsBefore = cq.state.completions
      push(number, completion, solicited)
      if (feed === undefined || request === undefined) return
      // 0: the CQ was full, and the completion is lost
      const cqPosition = cq.state.completions === completionsBefore ? 0 : cq.state.completions
      watcher.completed(request, { status, opcode, bytes, cq: cq.id, cqPosition, solicited, qp: feed.qp.id, message })
    }
  }
  watchCompletions(engineCompletions)

  const requestFeed: RequestFeed = {
    scanReceives,
    watchCompletions,
    sentBy: row => feeds[row]?.messages,
    beginsToReceive(row) {
      const feed = feedOf(row)
      if (!feed?.isUnreliable) return
      const { qpn } = feed.qp.state
      if (feed.isDatagram) {
        for (const { driver, state: other } of device.core.devices.values())
          if (driver === device.driver) (other as RxeState).feed?.dropDatagrams(qpn)
      } else {
        // `dropFrom` drops one message per call.
        while (dropFrom(feed, state.engine().query(row).destQpn));
      }
    },
    dropDatagrams(qpn) {
      for (const feed of feeds) {
        // There may be very many queue pairs, of which few have messages.
        if (feed === undefined || feed.messages.length === 0) continue
        for (const request of feed.messages.filter(({ destQpn }) => destQpn === qpn))
          dropMessage(feed.messages, request)
      }
    },
    reset(row) {
      const qp = qps[row] ?? feeds[row]?.qp
      const taken = feeds[row]?.takenReceives ?? []
      feeds[row] = undefined
      if (qp === undefined) return
      for (const request of taken) if (request.queue === PostQueue.SHARED) watcher.receiveLost(request)
      const queue = rings[row]?.receive
      if (queue !== undefined && !queue.isShared) receiveFeeds.delete(queue)
      // Also if no request was seen: the program may have posted some.
      watcher.queueReset(qp.id)
    },
    resetShared(srq) {
      receiveFeeds.delete(srq.state.queue)
      watcher.queueReset(srq.id)
    },
  }
  state.feed = requestFeed

  return {
    end() {
      Object.assign(work, plainWork)
      failures.dropped = dropped
      for (const restore of restorers) restore()
      state.feed = undefined
    },
    reportCq: cq => reportPolled(cq as CqObject),
    digest(request, isWhole) {
      const row = state.qpns.rowOf(request.number)
      const pd = qps[row]?.parents.find(parent => parent.class.name === 'pd')
      return pd === undefined ? undefined : digest(pd.id, request, isWhole)
    },
    window({ number }) {
      const row = state.qpns.rowOf(number)
      return row < 0 ? undefined : state.engine().windowOf(row)
    },
    reportContext(context) {
      qps.forEach((qp, row) => {
        if (qp?.context !== context) return
        scanReceives(row)
        for (const cq of feedOf(row)?.cqs ?? []) reportPolled(cq)
      })
      for (const srq of srqs.values())
        if (srq.context === context) {
          const { queue } = srq.state
          scanQueue(queue, receivesOf(queue, srq), undefined)
          for (const cq of cqsOf(srq)) reportPolled(cq)
        }
    },
  }
}
